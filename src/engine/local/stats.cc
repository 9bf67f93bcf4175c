#include "engine/local/stats.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/bytes.h"

namespace leat::engine::local {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

bool IsRemote(const job::Attachment& a) { return !a.spec.is_bind(); }

std::string_view HowName(job::AttachResult::How how, const job::MountSpec& spec) {
  switch (how) {
    case job::AttachResult::How::kFuse:
      return "stream";
    case job::AttachResult::How::kFuseOpens:
      return "stream, complete files handed to the kernel";
    case job::AttachResult::How::kBind:
      return spec.volume == job::Volume::kShared    ? "a copy in the shared storage"
             : spec.volume == job::Volume::kDynamic ? "a volume of its own, size not enforced"
             : !spec.is_bind()                      ? "copy"
             : spec.writable                        ? "bind, writable"
                                                    : "bind, read-only";
    case job::AttachResult::How::kBindFile:
      return spec.writable ? "bind of one file, writable" : "bind of one file, read-only";
    case job::AttachResult::How::kMount:
      return "a volume of its own";
  }
  return "?";
}

/// Text from a command line may be any bytes; JSON holds UTF-8.
std::string Dump(const ordered_json& document) {
  return document.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

/// ", $0.0012 at AWS's price": for orientation, whatever the store.
std::string Price(const job::Attachment& a, double dollars) {
  if (a.spec.source.kind != job::Source::Kind::kS3) return "";
  return fmt::format(", ${:.{}f} at AWS's price", dollars, dollars < 0.01 ? 6 : 2);
}

double Seconds(std::uint64_t ns) { return static_cast<double>(ns) / 1e9; }

}  // namespace

std::string Summary(const std::vector<job::Attachment>& attachments) {
  std::uint64_t files = 0, bytes = 0, missed = 0, requests = 0, waited = 0, copied_files = 0,
                copied = 0, errors = 0;
  bool any = false, streamed = false;
  for (const job::Attachment& a : attachments) {
    if (!IsRemote(a)) continue;
    any = true;
    requests += a.board->requests.requests();
    if (a.spec.mode == job::Mode::kCopy || a.spec.placed()) {
      copied_files += a.board->files;
      copied += a.board->bytes;
      continue;
    }
    streamed = true;
    files += std::min<std::uint64_t>(a.board->reads.files, a.board->files);
    bytes += a.board->reads.read_bytes;
    errors += a.board->reads.errors;
    missed += a.board->cache.miss_bytes;
    waited += a.board->reads.waited_ns;
  }
  if (!any) return "";
  const std::string asked =
      fmt::format("{} {}", FormatCount(requests), requests == 1 ? "request" : "requests");
  std::string out;
  if (streamed) {
    const std::uint64_t hit = bytes > missed ? bytes - missed : 0;
    out = fmt::format("{} {}, {} read, {} % from cache, {}, waited {:.1f} s for data",
                      FormatCount(files), files == 1 ? "file" : "files", FormatBytes(bytes),
                      bytes == 0 ? 100 : hit * 100 / bytes, asked, Seconds(waited));
  }
  if (copied_files > 0) {
    out += fmt::format("{}a copy of {} {}, {}{}", streamed ? "; " : "", FormatCount(copied_files),
                       copied_files == 1 ? "file" : "files", FormatBytes(copied),
                       streamed ? "" : ", " + asked);
  }
  if (errors > 0)
    out += fmt::format("; {} {} failed", FormatCount(errors), errors == 1 ? "read" : "reads");
  return out;
}

std::string StatsTable(const std::vector<job::Attachment>& attachments) {
  std::string out;
  for (const job::Attachment& a : attachments) {
    if (!IsRemote(a)) continue;
    const job::Board& b = *a.board;
    out += fmt::format(
        "{} from {}\n"
        "  requests   {} GET, {} LIST, {} HEAD, {} retries{}\n"
        "  received   {}\n"
        "  read       {} in {} files, {} failed\n"
        "  cache      {} found, {} fetched, {} without room, {} damaged\n"
        "  waited     {:.2f} s\n",
        a.spec.target, a.spec.source.ForMessages(), FormatCount(b.requests.gets),
        FormatCount(b.requests.lists), FormatCount(b.requests.heads),
        FormatCount(b.requests.retries), Price(a, b.requests.cost()),
        FormatBytes(b.requests.bytes_in), FormatBytes(b.reads.read_bytes),
        FormatCount(b.reads.files), FormatCount(b.reads.errors), FormatBytes(b.cache.hit_bytes),
        FormatBytes(b.cache.miss_bytes), FormatBytes(b.cache.not_admitted),
        FormatCount(b.cache.dropped), Seconds(b.reads.waited_ns));
  }
  return out;
}

std::string StatsJson(const std::vector<job::Attachment>& attachments, int exit_status,
                      double seconds) {
  ordered_json list = ordered_json::array();
  for (const job::Attachment& a : attachments) {
    if (a.spec.internal) continue;
    const job::Board& b = *a.board;
    ordered_json item;
    item["target"] = a.spec.target;
    item["source"] = a.spec.source.ForMessages();
    item["how"] = HowName(a.result.how, a.spec);
    if (IsRemote(a)) {
      item["files"] = b.files.load();
      item["bytes"] = b.bytes.load();
      item["requests"] = {{"get", b.requests.gets.load()},       {"list", b.requests.lists.load()},
                          {"head", b.requests.heads.load()},     {"put", b.requests.puts.load()},
                          {"delete", b.requests.deletes.load()}, {"total", b.requests.requests()},
                          {"retries", b.requests.retries.load()}};
      item["requests_cost_usd"] = b.requests.cost();
      item["received_bytes"] = b.requests.bytes_in.load();
      item["read_bytes"] = b.reads.read_bytes.load();
      item["read_files"] = b.reads.files.load();
      item["failed_reads"] = b.reads.errors.load();
      item["cache"] = {{"hit_bytes", b.cache.hit_bytes.load()},
                       {"miss_bytes", b.cache.miss_bytes.load()},
                       {"not_admitted_bytes", b.cache.not_admitted.load()},
                       {"damaged", b.cache.dropped.load()}};
      item["waited_seconds"] = Seconds(b.reads.waited_ns);
    }
    list.push_back(std::move(item));
  }
  ordered_json out;
  out["attachments"] = std::move(list);
  out["seconds"] = seconds;
  out["exit_status"] = exit_status;
  return Dump(out);
}

std::string PlanTable(const std::vector<job::Attachment>& attachments) {
  std::string out;
  for (const job::Attachment& a : attachments) {
    if (a.spec.internal) continue;
    out += fmt::format("{}\n  source     {}\n  how        {}\n", a.spec.target,
                       a.spec.source.ForMessages(), HowName(a.result.how, a.spec));
    if (!IsRemote(a)) continue;
    const job::Board& b = *a.board;
    const std::uint64_t bytes = b.bytes, cached = b.cached_bytes;
    out += fmt::format(
        "  objects    {}\n  bytes      {}\n  in cache   {} ({} %)\n  requests   about {} to read "
        "all of it once{}\n",
        FormatCount(b.files), FormatBytes(bytes), FormatBytes(cached),
        bytes == 0 ? 100 : cached * 100 / bytes, FormatCount(b.estimated_requests),
        Price(a, store::RequestCounts::kReadCost * static_cast<double>(b.estimated_requests)));
  }
  return out;
}

std::string PlanJson(const std::vector<job::Attachment>& attachments) {
  ordered_json list = ordered_json::array();
  for (const job::Attachment& a : attachments) {
    if (a.spec.internal) continue;
    ordered_json item;
    item["target"] = a.spec.target;
    item["source"] = a.spec.source.ForMessages();
    item["how"] = HowName(a.result.how, a.spec);
    if (IsRemote(a)) {
      item["objects"] = a.board->files.load();
      item["bytes"] = a.board->bytes.load();
      item["cached_bytes"] = a.board->cached_bytes.load();
      item["estimated_requests"] = a.board->estimated_requests.load();
      item["estimated_cost_usd"] =
          store::RequestCounts::kReadCost * static_cast<double>(a.board->estimated_requests);
    }
    list.push_back(std::move(item));
  }
  return Dump({{"attachments", std::move(list)}});
}

std::string MountsJson(const std::vector<job::Attachment>& attachments) {
  ordered_json out = ordered_json::object();
  for (const job::Attachment& a : attachments) {
    if (!a.spec.internal) out[a.spec.target] = a.spec.source.ForMessages();
  }
  return out.dump(-1, ' ', false, json::error_handler_t::replace);
}

}  // namespace leat::engine::local
