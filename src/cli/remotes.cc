// remote list, remote test: what rclone's configuration has, and what works of it.
#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <thread>
#include <vector>

#include "base/bytes.h"
#include "base/log.h"
#include "cli/cli.h"
#include "config/rclone_config.h"
#include "job/remote.h"
#include "net/url.h"

namespace leat::cli {
namespace {

using nlohmann::ordered_json;

void Print(std::string_view text) { std::fwrite(text.data(), 1, text.size(), stdout); }

struct Finding {
  std::string what;
  enum class Verdict : std::uint8_t { kWorks, kDoesNot, kUnknown } verdict;
  std::string why;
};
constexpr std::string_view NameOf(Finding::Verdict verdict) {
  return verdict == Finding::Verdict::kWorks     ? "yes"
         : verdict == Finding::Verdict::kDoesNot ? "no"
                                                 : "unknown";
}

class Examination {
 public:
  explicit Examination(job::Remote& remote) : remote_(remote), store_(remote.store()) {}

  void Clock() {
    const auto greeting = remote_.Greet({});
    if (!greeting) return Add("clock", greeting.error());
    if (!greeting->ahead)
      return Add("clock", Finding::Verdict::kUnknown, "the server tells no time");
    const auto off = std::chrono::abs(*greeting->ahead);
    Add("clock",
        off <= std::chrono::minutes(5) ? Finding::Verdict::kWorks : Finding::Verdict::kDoesNot,
        fmt::format("{} s off the server's", off.count()));
  }

  void Buckets() {
    const auto buckets = store_.Buckets({});
    if (!buckets) return Add("list buckets", buckets.error());
    Add("list buckets", Finding::Verdict::kWorks, fmt::format("{} buckets", buckets->size()));
  }

  /// All that needs a bucket; makes and removes one small object.
  void Bucket() {
    const auto page = store_.List("", {.max_keys = 1}, {});
    if (page) {
      Add("list", Finding::Verdict::kWorks, page->objects.empty() ? "it is empty" : "");
    } else {
      Add("list", page.error());
    }
    const std::string key =
        fmt::format(".leat-test-{}-{}", ::getpid(),
                    std::chrono::system_clock::now().time_since_epoch().count());
    store::PutOptions put;
    store::SetMtime(put.metadata, 1'354'040'105'123'456'789);
    const std::string body = "written by leat remote test; it may be removed";
    const auto written = store_.Put(key, AsBytes(body), put, {});
    if (!written) return Add("write", written.error());
    Add("write", Finding::Verdict::kWorks, "");
    std::string back;
    store::ObjectInfo info;
    const Status read = store_.Read(key,
                                    {.if_version = *written,
                                     .on_info = [&](const store::ObjectInfo& told) -> Status {
                                       info = told;
                                       return {};
                                     }},
                                    [&](std::span<const std::byte> piece) -> Status {
                                      back += AsText(piece);
                                      return {};
                                    },
                                    {});
    if (!read) {
      Add("read", read.error());
    } else {
      Add("read", back == body ? Finding::Verdict::kWorks : Finding::Verdict::kDoesNot,
          back == body ? "" : "something else came back");
      Add("digests", info.expected ? Finding::Verdict::kWorks : Finding::Verdict::kDoesNot,
          info.expected ? std::string(digest::KindName(info.expected->kind)) : "none is given");
      Add("modification times",
          store::MtimeOf(info.metadata) == store::MtimeOf(put.metadata)
              ? Finding::Verdict::kWorks
              : Finding::Verdict::kDoesNot,
          "");
      Add("versions",
          info.version.version_id.empty() ? Finding::Verdict::kDoesNot : Finding::Verdict::kWorks,
          info.version.version_id.empty() ? "the bucket keeps none" : "");
    }
    Conditional(key + "-once");
    for (const std::string& made : {key, key + "-once"}) {
      if (const Status removed = store_.Remove(made, {}); !removed)
        return Add("remove", removed.error());
    }
    Add("remove", Finding::Verdict::kWorks, "");
  }

  const std::vector<Finding>& findings() const { return findings_; }

 private:
  /// Of writers that meet, one may win: asked a few times, since luck hides what is wrong.
  void Conditional(const std::string& key) {
    int several = 0;
    for (int round = 0; round < 10; ++round) {
      std::atomic<int> won{0};
      {
        std::vector<std::jthread> writers;
        for (int i = 0; i < 2; ++i) {
          writers.emplace_back([&, i] {
            if (store_.Put(key, AsBytes(std::to_string(i)), {.if_absent = true, .metadata = {}},
                           {}))
              ++won;
          });
        }
      }
      several += won > 1 ? 1 : 0;
      (void)store_.Remove(key, {});
    }
    Add("put if absent", several == 0 ? Finding::Verdict::kWorks : Finding::Verdict::kDoesNot,
        several == 0
            ? "one of two writers won, ten times"
            : fmt::format("both of two writers were told that they won, {} times in ten", several));
  }

  void Add(std::string what, Finding::Verdict verdict, std::string why) {
    findings_.push_back({std::move(what), verdict, std::move(why)});
  }
  void Add(std::string what, const Error& error) {
    Add(std::move(what),
        error.code() == Errc::kUnsupported ? Finding::Verdict::kUnknown
                                           : Finding::Verdict::kDoesNot,
        error.message());
  }

  job::Remote& remote_;
  store::ObjectStore& store_;
  std::vector<Finding> findings_;
};

}  // namespace

int RemoteList(bool json) {
  const auto config = config::RcloneConfig::Load(config::ProcessEnvironment());
  if (!config) {
    Say(config.error().message());
    return 1;
  }
  if (!config->note().empty()) Note(config->note());
  ordered_json remotes = ordered_json::array();
  for (const std::string& name : config->Names()) {
    const auto remote = config->Find(name, config::ProcessEnvironment());
    const std::string type = remote ? remote->type : "";
    const auto source = job::ParseSourceWithOptions(name + ":");
    const std::string why = source ? "" : source.error().message();
    if (json) {
      ordered_json entry = {{"name", name}, {"type", type}, {"usable", source.has_value()}};
      if (!why.empty()) entry["why"] = why;
      remotes.push_back(std::move(entry));
    } else {
      Print(fmt::format("{:<20} {:<10} {}\n", name + ":", Printable(type), why));
    }
  }
  if (json) {
    Print(ordered_json({{"file", config->file()}, {"remotes", std::move(remotes)}})
              .dump(2, ' ', false, ordered_json::error_handler_t::replace) +
          "\n");
  } else if (config->Names().empty()) {
    Note(config->file().empty() ? "there is no rclone.conf (rclone config makes one; RCLONE_CONFIG "
                                  "names another)"
                                : config->file() + " has no remotes");
  }
  return 0;
}

int RemoteTest(const std::string& name, bool json) {
  const auto run = [&]() -> Result<std::vector<Finding>> {
    const std::string text = name.find(':') == std::string::npos ? name + ":" : name;
    LEAT_ASSIGN_OR_RETURN(const job::MountSpec spec, job::ParseSourceWithOptions(text));
    if (!spec.source.in_bucket()) {
      return Fail(Errc::kInvalid,
                  text +
                      ": only remotes of the types swift, s3 and google cloud storage have "
                      "something to test");
    }
    LEAT_ASSIGN_OR_RETURN(job::Home home, job::FindHome(config::ProcessEnvironment(), 0, 0));
    job::Toolbox tools = job::MakeToolbox(config::ProcessEnvironment(), std::move(home));
    store::RequestCounts counts;
    LEAT_ASSIGN_OR_RETURN(const auto remote, job::Remote::Open(spec, tools, &counts));
    Examination examination(*remote);
    examination.Clock();
    if (spec.source.bucket.empty()) {
      examination.Buckets();
    } else {
      examination.Bucket();
    }
    return examination.findings();
  };
  const auto findings = run();
  if (!findings) {
    Say(findings.error().message());
    return findings.error().code() == Errc::kInvalid ? 2 : 1;
  }
  bool all = true;
  ordered_json list = ordered_json::array();
  for (const Finding& finding : *findings) {
    // Without them a bucket is as good as another; without the others it is of no use.
    const bool matters = finding.what != "versions" && finding.what != "put if absent" &&
                         finding.what != "digests" && finding.what != "modification times";
    all = all && (!matters || finding.verdict != Finding::Verdict::kDoesNot);
    if (json) {
      ordered_json entry = {{"what", finding.what}, {"works", NameOf(finding.verdict)}};
      if (!finding.why.empty()) entry["why"] = finding.why;
      list.push_back(std::move(entry));
    } else {
      Print(fmt::format("{:<19} {:<8} {}\n", finding.what, NameOf(finding.verdict), finding.why));
    }
  }
  if (json)
    Print(ordered_json({{"remote", name}, {"findings", std::move(list)}})
              .dump(2, ' ', false, ordered_json::error_handler_t::replace) +
          "\n");
  return all ? 0 : 1;
}

}  // namespace leat::cli
