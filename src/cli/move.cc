// cp, sync, check, rm, mkdir, lsd: what moves data, and what it leaves and makes.
#include <fmt/format.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <filesystem>
#include <iterator>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/bytes.h"
#include "base/log.h"
#include "base/memory_budget.h"
#include "cli/cli.h"
#include "cli/interruptible.h"
#include "job/remote.h"
#include "net/url.h"
#include "os/file.h"
#include "transfer/copy.h"
#include "transfer/remove.h"

namespace leat::cli {
namespace {

using nlohmann::ordered_json;
using std::chrono::steady_clock;

constexpr std::uint64_t kBudget = 64 * kMiB;

/// One side, with everything that it needs.
struct Side {
  job::MountSpec spec;
  store::RequestCounts counts;
  std::unique_ptr<job::Remote> remote;  // null: this machine
  transfer::Place place;
};

struct Tools {
  std::unique_ptr<job::Toolbox> box;

  static Result<Tools> Make() {
    LEAT_ASSIGN_OR_RETURN(job::Home home, job::FindHome(config::ProcessEnvironment(), 0, 0));
    return Tools{std::make_unique<job::Toolbox>(
        job::MakeToolbox(config::ProcessEnvironment(), std::move(home)))};
  }
};

/// Failures are retried for seconds; once the work has begun, for longer (BePatient).
Result<std::unique_ptr<Side>> OpenSide(const std::string& text, Tools& tools) {
  auto side = std::make_unique<Side>();
  LEAT_ASSIGN_OR_RETURN(side->spec,
                        job::ParseSourceWithOptions(text, config::ProcessEnvironment(), true));
  side->place.url = side->spec.source.ForMessages();
  if (!side->spec.version.empty() || !side->spec.etag.empty()) {
    return Fail(Errc::kInvalid,
                side->place.url + ": version= and etag= are for leat run, mount, cat and stat");
  }
  if (side->spec.source.kind == job::Source::Kind::kLocal) {
    side->place.folder = side->spec.source.path;
    return side;
  }
  LEAT_ASSIGN_OR_RETURN(side->remote, job::Remote::Open(side->spec, *tools.box, &side->counts));
  side->place.store = side->remote->shared_store();
  side->place.account = fmt::format(
      "{} {} {}", side->spec.source.remote != nullptr ? side->spec.source.remote->name + ":" : "",
      side->spec.profile, side->spec.anonymous);
  return side;
}

void BePatient(Side& side, const Tools& tools, int retries) {
  if (side.remote == nullptr) return;
  side.remote->SetRetryTotal(std::chrono::seconds(tools.box->home.retry_seconds),
                             retries > 0 ? retries : 1000);
}

void SplitLast(const std::string& path, std::string& before, std::string& last) {
  const std::size_t slash = path.rfind('/');
  before = slash == std::string::npos ? "" : path.substr(0, slash + 1);
  last = slash == std::string::npos ? path : path.substr(slash + 1);
}

std::string Stripped(std::string path) {
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  return path.empty() ? "." : path;
}

/// What a source means: one file, or all below a folder; `named`: that of it which a list names.
Status ResolveSource(Side& side, bool named, const CallContext& ctx) {
  transfer::Place& place = side.place;
  const job::Source& source = side.spec.source;
  if (source.kind == job::Source::Kind::kLocal) {
    struct stat st;
    if (::stat(source.path.c_str(), &st) != 0) return FailErrno(errno, source.path);
    place.folder = Stripped(source.path);
    if (S_ISDIR(st.st_mode)) return {};
    SplitLast(source.path, place.folder, place.only);
    place.folder = Stripped(place.folder);
    return {};
  }
  LEAT_RETURN_IF_ERROR(job::CheckBucket(source));
  if (source.kind == job::Source::Kind::kHttp && !source.key.empty() &&
      !source.key.ends_with('/')) {
    place.only = source.key;
    return {};
  }
  if (source.kind == job::Source::Kind::kHttp && !named) {
    return Fail(Errc::kInvalid,
                place.url +
                    ": a web server's folder cannot be listed; name its files in a list "
                    "(--files-from), or one file");
  }
  if (!source.key.empty() && !source.key.ends_with('/')) {
    const auto info = place.store->Stat(source.key, "", ctx);
    bool marker = false;  // an object without bytes may stand for the folder of that name
    if (info && info->size == 0) {
      const auto below = place.store->List(source.key + "/", {.max_keys = 1}, ctx);
      marker = below && !below->objects.empty();
    }
    if (info && !marker) {
      SplitLast(source.key, place.prefix, place.only);
      return {};
    }
    if (!info && info.error().code() != Errc::kNotFound && info.error().code() != Errc::kDenied) {
      return std::unexpected(info.error());
    }
    place.prefix = source.key + "/";
    return {};
  }
  place.prefix = source.key;
  return {};
}

std::string FileNameOf(const Side& from) {
  if (!from.spec.name.empty()) return from.spec.name;
  std::string before, last;
  std::string key = from.place.only;
  if (from.spec.source.kind == job::Source::Kind::kHttp)
    key = net::PercentDecode(key.substr(0, key.find('?')));
  SplitLast(key, before, last);
  return last;
}

/// Where what comes from `from` goes.
Status ResolveTarget(Side& side, const Side& from) {
  transfer::Place& place = side.place;
  const job::Source& target = side.spec.source;
  const bool one = !from.place.only.empty();
  if (target.kind == job::Source::Kind::kHttp)
    return Fail(Errc::kInvalid, place.url + ": nothing can be written to a web server");
  if (target.kind == job::Source::Kind::kLocal) {
    struct stat st;
    const bool exists = ::stat(target.path.c_str(), &st) == 0;
    place.folder = Stripped(target.path);
    if (!one) {
      if (exists && !S_ISDIR(st.st_mode))
        return Fail(Errc::kInvalid, target.path + " is a file, and a folder is copied into it");
      return {};
    }
    if (target.path.ends_with('/') || (exists && S_ISDIR(st.st_mode))) {
      place.only = FileNameOf(from);
    } else {
      SplitLast(target.path, place.folder, place.only);
      place.folder = Stripped(place.folder);
    }
    return {};
  }
  LEAT_RETURN_IF_ERROR(job::CheckBucket(target));
  if (!one) {
    place.prefix = target.key.empty() || target.key.ends_with('/') ? target.key : target.key + "/";
  } else if (target.key.empty() || target.key.ends_with('/')) {
    place.prefix = target.key;
    place.only = FileNameOf(from);
  } else {
    SplitLast(target.key, place.prefix, place.only);
  }
  return {};
}

/// Copying a folder into itself never ends well.
Status CheckApart(const transfer::Place& from, const transfer::Place& to) {
  if (from.local() != to.local() || !from.only.empty()) return {};
  std::string a, b;
  if (from.local()) {
    // (what is not there yet lies below what is)
    std::error_code failed;
    const auto whole = [&](const std::string& folder) {
      return std::filesystem::weakly_canonical(std::filesystem::absolute(folder, failed), failed)
                 .string() +
             "/";
    };
    a = whole(from.folder);
    b = whole(to.folder);
    if (failed) return {};
  } else {
    if (from.store->Identity() != to.store->Identity() || from.account != to.account) return {};
    a = "/" + from.prefix;
    b = "/" + to.prefix;
  }
  if (!a.starts_with(b) && !b.starts_with(a)) return {};
  return Fail(Errc::kInvalid, fmt::format("{} and {} overlap", from.url, to.url));
}

Result<transfer::Filter> MakeFilter(const MoveCommand& command) {
  transfer::Filter filter;
  for (const std::string& pattern : command.include) LEAT_RETURN_IF_ERROR(filter.Include(pattern));
  for (const std::string& pattern : command.exclude) LEAT_RETURN_IF_ERROR(filter.Exclude(pattern));
  for (const std::string& file : command.filter_from) {
    LEAT_ASSIGN_OR_RETURN(const std::string text, os::ReadFile(file));
    if (Status added = filter.AddRules(text); !added) return Fail(std::move(added), file);
  }
  for (const std::string& file : command.files_from) {
    LEAT_ASSIGN_OR_RETURN(const std::string text, os::ReadFile(file));
    filter.AddFiles(text);
  }
  std::uint64_t min = 0, max = UINT64_MAX;
  if (!command.min_size.empty()) {
    LEAT_ASSIGN_OR_RETURN(min, ParseSize(command.min_size));
  }
  if (!command.max_size.empty()) {
    LEAT_ASSIGN_OR_RETURN(max, ParseSize(command.max_size));
  }
  filter.SetSizes(min, max);
  return filter;
}

/// rclone's sizes without a unit are KiB, and its units powers of two.
Result<std::uint64_t> RcloneSize(std::string text, std::uint64_t bare_unit) {
  if (text.empty() || text == "off") return std::uint64_t{0};
  if (text.back() >= '0' && text.back() <= '9') {
    LEAT_ASSIGN_OR_RETURN(const std::uint64_t n, ParseSize(text));
    return n * bare_unit;
  }
  if (std::string_view("kKmMgGtT").find(text.back()) != std::string_view::npos) {
    text.back() = static_cast<char>(text.back() == 'k' ? 'K' : std::toupper(text.back()));
    text += 'i';
  }
  return ParseSize(text);
}

class Ticker {
 public:
  explicit Ticker(const transfer::CopyProgress& progress)
      : progress_(progress), began_(steady_clock::now()) {
    thread_ = std::jthread([this](const std::stop_token& stop) {
      std::mutex mutex;
      std::condition_variable_any tick;
      std::unique_lock lock(mutex);
      while (!tick.wait_for(lock, stop, std::chrono::milliseconds(500),
                            [&] { return stop.stop_requested(); })) {
        Show();
      }
    });
  }
  ~Ticker() {
    thread_.request_stop();
    thread_.join();
    Progress("");
  }
  double seconds() const {
    return std::chrono::duration<double>(steady_clock::now() - began_).count();
  }

 private:
  void Show() {
    const std::uint64_t bytes = progress_.bytes, total = progress_.bytes_total;
    if (progress_.files_total == 0) {
      Progress(progress_.checked == 0
                   ? fmt::format("listing: {} files", FormatCount(progress_.listed))
                   : fmt::format("comparing: {} files", FormatCount(progress_.checked)));
      return;
    }
    const double rate = static_cast<double>(bytes) / std::max(seconds(), 0.001);
    std::string eta;
    if (rate > 0 && total > bytes)
      eta = fmt::format(", {:.0f} s left of what is under way",
                        static_cast<double>(total - bytes) / rate);
    Progress(fmt::format(
        "{} of {} files, {} of {}, {}/s{}{}", FormatCount(progress_.files),
        FormatCount(progress_.files_total), FormatBytes(bytes), FormatBytes(total),
        FormatBytes(static_cast<std::uint64_t>(rate)), eta,
        progress_.errors > 0 ? fmt::format(", {} errors", progress_.errors.load()) : ""));
  }

  const transfer::CopyProgress& progress_;
  const steady_clock::time_point began_;
  std::jthread thread_;
};

void Print(std::string_view text) { std::fwrite(text.data(), 1, text.size(), stdout); }
void PrintJson(const ordered_json& document) {
  Print(document.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n");
}

int Refused(const Error& error) {
  Say(error.message());
  return error.code() == Errc::kInvalid ? 2 : 1;
}

void SayFailures(const std::vector<std::pair<std::string, std::string>>& failed,
                 std::uint64_t errors) {
  constexpr std::size_t kShown = 20;
  for (std::size_t i = 0; i < std::min(failed.size(), kShown); ++i) {
    const auto& [name, why] = failed[i];
    // A sentence that names the file says it once.
    Say(name.empty() || why.find(name) != std::string::npos ? why : name + ": " + why);
  }
  if (errors > kShown) Say(fmt::format("... and {} more errors", FormatCount(errors - kShown)));
}

std::string SummaryOf(const transfer::CopyReport& report, double seconds, std::uint64_t requests,
                      bool dry_run) {
  std::string out =
      fmt::format("{}{} files, {} in {:.1f} s ({}/s), {} the same", dry_run ? "would copy " : "",
                  FormatCount(report.files), FormatBytes(report.bytes), seconds,
                  FormatBytes(static_cast<std::uint64_t>(static_cast<double>(report.bytes) /
                                                         std::max(seconds, 0.001))),
                  FormatCount(report.same));
  if (report.kept > 0) out += fmt::format(", {} left as they were", FormatCount(report.kept));
  if (report.deleted > 0) out += fmt::format(", {} deleted", FormatCount(report.deleted));
  if (report.resumed_bytes > 0)
    out += fmt::format(", {} were there already", FormatBytes(report.resumed_bytes));
  if (report.skipped_links > 0)
    out += fmt::format(", {} symbolic links left out (--links or --copy-links takes them)",
                       FormatCount(report.skipped_links));
  if (report.skipped_special > 0)
    out += fmt::format(", {} devices, pipes and sockets left out",
                       FormatCount(report.skipped_special));
  for (const auto& [what, files] : report.verified)
    out += fmt::format(", {} verified by {}", FormatCount(files), what);
  if (report.unverified > 0 && !dry_run)
    out += fmt::format(", {} not held to a digest of the source (none is known)",
                       FormatCount(report.unverified));
  out += fmt::format(", {} requests, {} errors", FormatCount(requests), FormatCount(report.errors));
  return out;
}

struct Prepared {
  Tools tools;
  std::unique_ptr<Side> from, to, backup;
  transfer::CopyOptions options;
};

Result<std::unique_ptr<Prepared>> Prepare(const MoveCommand& command, const CallContext& ctx) {
  auto out = std::make_unique<Prepared>();
  LEAT_ASSIGN_OR_RETURN(out->tools, Tools::Make());
  LEAT_ASSIGN_OR_RETURN(out->from, OpenSide(command.source, out->tools));
  LEAT_ASSIGN_OR_RETURN(out->to, OpenSide(command.target, out->tools));
  LEAT_RETURN_IF_ERROR(ResolveSource(*out->from, !command.files_from.empty(), ctx));
  LEAT_RETURN_IF_ERROR(ResolveTarget(*out->to, *out->from));
  LEAT_RETURN_IF_ERROR(CheckApart(out->from->place, out->to->place));
  transfer::CopyOptions& o = out->options;
  o.from = out->from->place;
  o.to = out->to->place;
  if (!command.backup_dir.empty()) {
    LEAT_ASSIGN_OR_RETURN(out->backup, OpenSide(command.backup_dir, out->tools));
    if (!o.from.only.empty()) return Fail(Errc::kInvalid, "--backup-dir is for folders");
    LEAT_RETURN_IF_ERROR(ResolveTarget(*out->backup, *out->from));
    LEAT_RETURN_IF_ERROR(CheckApart(out->to->place, out->backup->place));
    LEAT_RETURN_IF_ERROR(CheckApart(out->from->place, out->backup->place));
    o.backup = out->backup->place;
  }
  for (Side* side : {out->from.get(), out->to.get(), out->backup.get()}) {
    if (side != nullptr) BePatient(*side, out->tools, command.retries);
  }
  LEAT_ASSIGN_OR_RETURN(o.filter, MakeFilter(command));
  o.links = command.copy_links ? transfer::Links::kFollow
            : command.links    ? transfer::Links::kKeep
                               : transfer::Links::kSkip;
  o.compare = command.size_only  ? transfer::Compare::kSizeOnly
              : command.checksum ? transfer::Compare::kChecksum
                                 : transfer::Compare::kDefault;
  o.update = command.update;
  o.ignore_existing = command.ignore_existing;
  o.immutable = command.immutable;
  o.verify = !command.no_verify;
  o.dry_run = command.dry_run;
  o.atomic = command.atomic;
  if (o.atomic) {
    const char* const other = !command.include.empty() || !command.exclude.empty() ||
                                      !command.filter_from.empty() || !command.files_from.empty() ||
                                      !command.min_size.empty() || !command.max_size.empty()
                                  ? "filters"
                              : o.backup              ? "--backup-dir"
                              : o.update              ? "--update"
                              : o.ignore_existing     ? "--ignore-existing"
                              : o.immutable           ? "--immutable"
                              : command.delete_before ? "--delete-before"
                                                      : nullptr;
    if (other != nullptr)
      return Fail(Errc::kInvalid, fmt::format("--atomic takes the whole source, and no {}", other));
    if (o.to.local() || !o.from.only.empty())
      return Fail(Errc::kInvalid, "--atomic is for a folder that goes to a store");
  }
  o.transfers = command.transfers;
  o.streams = command.streams;
  LEAT_ASSIGN_OR_RETURN(o.cutoff, RcloneSize(command.cutoff, 1024));
  LEAT_ASSIGN_OR_RETURN(o.bytes_per_second, RcloneSize(command.bandwidth, 1024));
  o.state_dir = out->tools.box->home.dir + "/uploads";
  return out;
}

void AddEvents(const MoveCommand& command, transfer::CopyOptions& options) {
  if (!command.verbose && !command.dry_run) return;
  options.on_file = [dry = command.dry_run](std::string_view what, const std::string& path) {
    Note(fmt::format("{}{} {}", dry ? "would be " : "", what, Printable(path)));
  };
}

}  // namespace

int CopyFiles(const MoveCommand& command) {
  Interruptible interruptible;
  const CallContext ctx = interruptible.context();
  auto prepared = Prepare(command, ctx);
  if (!prepared) return interruptible.ExitStatus(Refused(prepared.error()));
  transfer::CopyOptions& options = (*prepared)->options;
  MemoryBudget budget(kBudget);
  options.budget = &budget;
  AddEvents(command, options);
  if (command.sync) {
    if (!options.from.only.empty())
      return Refused(Error(Errc::kInvalid, options.from.url +
                                               " is one file; sync makes a folder like another "
                                               "(leat cp copies a file)"));
    options.extraneous = command.delete_before   ? transfer::Extraneous::kDeleteBefore
                         : command.delete_during ? transfer::Extraneous::kDeleteDuring
                                                 : transfer::Extraneous::kDeleteAfter;
    options.max_delete = command.max_delete;
    options.delete_everything = command.delete_everything;
  }
  KeepHeapSmall();
  transfer::CopyProgress progress;
  Result<transfer::CopyReport> report = Fail(Errc::kInternal, "");
  double seconds = 0;
  {
    Ticker ticker(progress);
    report = transfer::Copy(options, ctx, &progress);
    seconds = ticker.seconds();
  }
  if (!report) return interruptible.ExitStatus(Refused(report.error()));
  // Nothing at all is most often a mistake in the name.
  const bool nothing = report->files + report->same + report->kept + report->deleted == 0;
  if (nothing && report->errors == 0 && report->skipped_links == 0 && options.filter.all() &&
      !options.from.local()) {
    return Refused(Error(Errc::kNotFound, options.from.url + ": there is nothing"));
  }
  SayFailures(report->failed, report->errors);
  const std::uint64_t requests =
      (*prepared)->from->counts.requests() + (*prepared)->to->counts.requests();
  if (command.json) {
    ordered_json verified = ordered_json::object();
    for (const auto& [what, files] : report->verified) verified[what] = files;
    ordered_json errors = ordered_json::array();
    for (const auto& [name, why] : report->failed)
      errors.push_back({{"file", name}, {"error", why}});
    PrintJson({{"files", report->files},
               {"bytes", report->bytes},
               {"same", report->same},
               {"kept", report->kept},
               {"deleted", report->deleted},
               {"resumed_bytes", report->resumed_bytes},
               {"skipped_links", report->skipped_links},
               {"verified", std::move(verified)},
               {"unverified", report->unverified},
               {"seconds", seconds},
               {"requests", requests},
               {"errors", std::move(errors)}});
  } else {
    Note(SummaryOf(*report, seconds, requests, command.dry_run));
  }
  return report->errors == 0 ? 0 : 1;
}

int CheckFiles(const MoveCommand& command) {
  Interruptible interruptible;
  const CallContext ctx = interruptible.context();
  auto prepared = Prepare(command, ctx);
  if (!prepared) return interruptible.ExitStatus(Refused(prepared.error()));
  transfer::CopyProgress progress;
  Result<transfer::CheckReport> report = Fail(Errc::kInternal, "");
  {
    Ticker ticker(progress);
    report = transfer::Check((*prepared)->options, ctx, &progress);
  }
  if (!report) return interruptible.ExitStatus(Refused(report.error()));
  const auto write = [](const std::string& file, const std::string& text) -> Status {
    if (file.empty()) return {};
    if (file == "-") {
      Print(text);
      return {};
    }
    return os::WriteFileAtomic(file, text, 0644);
  };
  const auto lines = [](const std::vector<std::string>& paths, std::string_view mark) {
    std::string out;
    for (const std::string& path : paths) out += fmt::format("{}{}\n", mark, path);
    return out;
  };
  std::string combined = lines(report->same, "= ") + lines(report->missing_at_target, "+ ") +
                         lines(report->missing_at_source, "- ") + lines(report->differ, "* ");
  for (const auto& [path, why] : report->failed) combined += fmt::format("! {}\n", path);
  for (const auto& [file, text] :
       {std::pair(command.combined, combined),
        std::pair(command.missing_on_dst, lines(report->missing_at_target, "")),
        std::pair(command.missing_on_src, lines(report->missing_at_source, "")),
        std::pair(command.differ, lines(report->differ, ""))}) {
    if (const Status written = write(file, text); !written) return Refused(written.error());
  }
  const std::size_t differences =
      report->differ.size() + report->missing_at_source.size() + report->missing_at_target.size();
  SayFailures(report->failed, report->failed.size());
  if (command.json) {
    PrintJson({{"same", report->same.size()},
               {"differ", report->differ},
               {"missing_on_src", report->missing_at_source},
               {"missing_on_dst", report->missing_at_target},
               {"by_size_alone", report->by_size_alone},
               {"errors", report->failed.size()}});
  } else {
    if (command.combined.empty()) {
      for (const std::string& path : report->differ) Say(Printable(path) + ": differs");
      for (const std::string& path : report->missing_at_target)
        Say(Printable(path) + ": missing at " + (*prepared)->to->place.url);
      for (const std::string& path : report->missing_at_source)
        Say(Printable(path) + ": missing at " + (*prepared)->from->place.url);
    }
    Note(fmt::format(
        "{} files are the same, {} differences, {} errors{}", FormatCount(report->same.size()),
        FormatCount(differences), FormatCount(report->failed.size()),
        report->by_size_alone == 0 ? ""
                                   : fmt::format(" ({} compared by size alone: no digest is given)",
                                                 FormatCount(report->by_size_alone))));
  }
  return differences + report->failed.size() == 0 ? 0 : 1;
}

int RemoveFiles(const MoveCommand& command) {
  Interruptible interruptible;
  const CallContext ctx = interruptible.context();
  const auto run = [&]() -> Result<int> {
    LEAT_ASSIGN_OR_RETURN(Tools tools, Tools::Make());
    LEAT_ASSIGN_OR_RETURN(const auto side, OpenSide(command.source, tools));
    LEAT_RETURN_IF_ERROR(ResolveSource(*side, false, ctx));
    transfer::Place& place = side->place;
    if (side->spec.source.kind == job::Source::Kind::kHttp)
      return Fail(Errc::kInvalid, place.url + ": nothing can be removed from a web server");
    if (place.only.empty() && !command.recursive) {
      if (!place.local()) {
        LEAT_ASSIGN_OR_RETURN(const store::ListPage page,
                              place.store->List(place.prefix, {.max_keys = 1}, ctx));
        if (page.objects.empty()) return Fail(Errc::kNotFound, place.url + ": there is nothing");
      }
      return Fail(Errc::kInvalid, place.url + " is a folder; -r removes all that lies below it");
    }
    LEAT_ASSIGN_OR_RETURN(const transfer::Filter filter, MakeFilter(command));
    transfer::ListRequest request{.filter = &filter,
                                  .links = transfer::Links::kKeep,
                                  .markers = filter.all(),
                                  .raw = true,
                                  .any_manifest = filter.all()};
    LEAT_ASSIGN_OR_RETURN(transfer::Listed listed, transfer::ListPlace(place, request, ctx));
    if (filter.all()) {
      // The manifest first: what it names is going to be gone.
      std::vector<transfer::Item> all = std::exchange(listed.control, {});
      std::ranges::move(listed.items, std::back_inserter(all));
      listed.items = std::move(all);
      if (!listed.items.empty() && place.only.empty() && !place.local() && !command.dry_run) {
        LEAT_RETURN_IF_ERROR(place.store->Remove(place.KeyOf(snapshot::kManifestKey), ctx));
      }
    }
    if (!command.dry_run) LEAT_RETURN_IF_ERROR(transfer::ForgetManifestsAbove(place, ctx));
    if (!filter.all() && !command.dry_run) {
      LEAT_RETURN_IF_ERROR(transfer::ForgetManifest(place, listed, ctx));
    }
    if (listed.items.empty() && filter.all() && !command.rmdirs)
      return Fail(Errc::kNotFound, place.url + ": there is nothing");
    std::vector<std::pair<std::string, std::string>> failed;
    for (const std::string& why : listed.failed) failed.emplace_back("", why);
    std::uint64_t removed = 0, bytes = 0;
    const auto note = [&](const transfer::Item& item, const Status& done) {
      if (!done) {
        failed.emplace_back(place.NameOf(item.path), done.error().message());
        return;
      }
      ++removed;
      bytes += item.size;
      if (command.verbose || command.dry_run)
        Note(fmt::format("{}removed {}", command.dry_run ? "would be " : "", Printable(item.path)));
      if (removed % 100 == 0)
        Progress(fmt::format("removing: {} of {} files", FormatCount(removed),
                             FormatCount(listed.items.size())));
    };
    std::vector<const transfer::Item*> items;
    for (const transfer::Item& item : listed.items) items.push_back(&item);
    if (command.dry_run) {
      for (const transfer::Item* item : items) note(*item, {});
    } else {
      transfer::RemoveItems(place, items, command.transfers, note, ctx);
    }
    Progress("");
    if (command.rmdirs && failed.empty() && !ctx.cancelled() && !command.dry_run &&
        place.only.empty()) {
      if (place.local()) {
        transfer::RemoveEmptyFolders(place, listed);
      } else if (place.prefix.empty() && filter.all()) {
        const Status gone = place.store->RemoveBucket(ctx);
        if (!gone) failed.emplace_back(place.url, gone.error().message());
      }
    }
    SayFailures(failed, failed.size());
    if (ctx.cancelled()) return Fail(Errc::kCancelled, "interrupted");
    if (command.json) {
      PrintJson({{"removed", removed}, {"bytes", bytes}, {"errors", failed.size()}});
    } else {
      Note(fmt::format("{}removed {} files, {}", command.dry_run ? "would have " : "",
                       FormatCount(removed), FormatBytes(bytes)));
    }
    return failed.empty() ? 0 : 1;
  };
  const Result<int> status = run();
  return interruptible.ExitStatus(status ? *status : Refused(status.error()));
}

int MakeFolder(const MoveCommand& command) {
  const auto run = [&]() -> Status {
    LEAT_ASSIGN_OR_RETURN(Tools tools, Tools::Make());
    LEAT_ASSIGN_OR_RETURN(const auto side, OpenSide(command.source, tools));
    const job::Source& source = side->spec.source;
    if (source.kind == job::Source::Kind::kLocal) return os::MakeDirs(source.path, 0777);
    LEAT_RETURN_IF_ERROR(job::CheckBucket(source));
    LEAT_RETURN_IF_ERROR(side->place.store->MakeBucket({}));
    if (!source.key.empty())
      Note(fmt::format("{}: object stores have no folders; it is there with its first object",
                       side->place.url));
    return {};
  };
  const Status done = run();
  return done ? 0 : Refused(done.error());
}

int ListFolders(const SourceCommand& command) {
  const auto run = [&]() -> Status {
    LEAT_ASSIGN_OR_RETURN(Tools tools, Tools::Make());
    LEAT_ASSIGN_OR_RETURN(const auto side, OpenSide(command.source, tools));
    if (!side->spec.source.in_bucket() || !side->spec.source.bucket.empty()) {
      SourceCommand list = command;
      list.folders_only = true;
      return ListOnly(list);
    }
    LEAT_ASSIGN_OR_RETURN(const std::vector<store::BucketInfo> buckets,
                          side->place.store->Buckets({}));
    ordered_json entries = ordered_json::array();
    for (const store::BucketInfo& bucket : buckets) {
      if (!command.json) {
        Print(fmt::format(
            "{:>14} {:>12}  {:>23}  {}\n", bucket.bytes ? FormatBytes(*bucket.bytes) : "-",
            bucket.objects ? FormatCount(*bucket.objects) : "-",
            bucket.created ? net::FormatDate(*bucket.created) : "-", Printable(bucket.name)));
        continue;
      }
      ordered_json entry = {{"name", bucket.name}, {"type", "bucket"}};
      if (bucket.created) entry["created"] = net::FormatDate(*bucket.created);
      if (bucket.objects) entry["objects"] = *bucket.objects;
      if (bucket.bytes) entry["bytes"] = *bucket.bytes;
      entries.push_back(std::move(entry));
    }
    if (command.json) PrintJson({{"entries", std::move(entries)}});
    return {};
  };
  const Status done = run();
  return done ? 0 : Refused(done.error());
}

}  // namespace leat::cli
