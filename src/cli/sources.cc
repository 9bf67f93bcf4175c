#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>

#include "base/bytes.h"
#include "base/log.h"
#include "cli/cli.h"
#include "job/remote.h"
#include "net/url.h"
#include "snapshot/manifest.h"

namespace leat::cli {
namespace {

using nlohmann::ordered_json;

/// A source that is being looked at, with everything it needs.
struct Opened {
  job::MountSpec spec;
  std::unique_ptr<job::Toolbox> tools;
  store::RequestCounts counts;
  std::unique_ptr<job::Remote> remote;  // null: a path of this machine

  bool local() const { return spec.source.kind == job::Source::Kind::kLocal; }
  std::string url() const { return spec.source.ForMessages(); }
};

Result<std::unique_ptr<Opened>> Open(const std::string& text) {
  auto out = std::make_unique<Opened>();
  LEAT_ASSIGN_OR_RETURN(out->spec, job::ParseSourceWithOptions(text));
  if (out->local()) return out;
  LEAT_ASSIGN_OR_RETURN(job::Home home, job::FindHome(config::ProcessEnvironment(), 0, 0));
  out->tools = std::make_unique<job::Toolbox>(
      job::MakeToolbox(config::ProcessEnvironment(), std::move(home)));
  LEAT_ASSIGN_OR_RETURN(out->remote, job::Remote::Open(out->spec, *out->tools, &out->counts));
  return out;
}

int Report(const Status& status) {
  Progress("");
  if (status) return 0;
  Say(status.error().message());
  return status.error().code() == Errc::kInvalid ? 2 : 1;
}

void Print(std::string_view text) { std::fwrite(text.data(), 1, text.size(), stdout); }
void PrintJson(const ordered_json& document) {
  Print(document.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n");
}

std::string DateOf(std::int64_t mtime_ns) {
  if (mtime_ns == 0) return "-";
  return net::FormatDate(std::chrono::system_clock::time_point(
      std::chrono::duration_cast<std::chrono::system_clock::duration>(
          std::chrono::nanoseconds(mtime_ns))));
}

struct Item {
  std::string name;  // a folder's ends in '/'
  std::uint64_t size = 0;
  std::int64_t mtime_ns = 0;
  std::string etag;
};

void Show(const SourceCommand& command, const std::vector<Item>& items) {
  if (command.json) {
    ordered_json list = ordered_json::array();
    for (const Item& item : items) {
      const bool folder = item.name.ends_with('/');
      if (command.folders_only && !folder) continue;
      ordered_json entry = {{"name", item.name}, {"type", folder ? "folder" : "file"}};
      if (!folder) {
        entry["size"] = item.size;
        if (item.mtime_ns != 0) entry["modified"] = DateOf(item.mtime_ns);
        if (!item.etag.empty()) entry["etag"] = item.etag;
      }
      list.push_back(std::move(entry));
    }
    PrintJson({{"entries", std::move(list)}});
    return;
  }
  for (const Item& item : items) {
    if (command.folders_only && !item.name.ends_with('/')) continue;
    if (command.details) {
      Print(item.name.ends_with('/')
                ? fmt::format("{:>14}  {:>23}  {}\n", "-", "-", Printable(item.name))
                : fmt::format("{:>14}  {:>23}  {}  {}\n", item.size, DateOf(item.mtime_ns),
                              Printable(item.name), item.etag));
    } else {
      Print(Printable(item.name) + "\n");
    }
  }
}

void WalkLocal(const std::string& root, const std::string& below, bool recursive,
               const std::function<void(const Item&)>& visit) {
  const std::string dir = below.empty() ? root : root + "/" + below;
  const auto names = os::ListDir(dir);
  if (!names) return;
  for (const std::string& name : *names) {
    struct stat st;
    if (::lstat((dir + "/" + name).c_str(), &st) != 0) continue;
    const std::string path = below.empty() ? name : below + "/" + name;
    if (S_ISDIR(st.st_mode)) {
      if (recursive) {
        WalkLocal(root, path, true, visit);
      } else {
        visit({path + "/", 0, 0, ""});
      }
    } else {
      visit({path, static_cast<std::uint64_t>(st.st_size),
             st.st_mtim.tv_sec * 1'000'000'000LL + st.st_mtim.tv_nsec, ""});
    }
  }
}

/// One level of a folder, without listing what lies in its folders.
Status ListLevel(Opened& source, const std::function<void(const Item&)>& visit) {
  std::string prefix = source.spec.source.key;
  if (!prefix.empty() && !prefix.ends_with('/')) prefix += '/';
  store::ListOptions options;
  std::string last_folder;
  bool any = false;
  for (;;) {
    LEAT_ASSIGN_OR_RETURN(const store::ListPage page,
                          source.remote->store().List(prefix, options, {}));
    for (const store::ObjectInfo& object : page.objects) {
      any = true;
      const std::string rest = object.key.substr(prefix.size());
      if (rest.empty() || rest.starts_with(snapshot::kControl)) continue;
      const std::size_t slash = rest.find('/');
      if (slash != std::string::npos) {
        const std::string folder = rest.substr(0, slash + 1);
        if (folder != last_folder) visit({folder, 0, 0, ""});
        last_folder = folder;
        continue;
      }
      std::int64_t mtime = 0;
      if (object.modified)
        mtime = std::chrono::duration_cast<std::chrono::nanoseconds>(
                    object.modified->time_since_epoch())
                    .count();
      visit({rest, object.size, mtime, object.version.etag});
    }
    if (!page.truncated) break;
    options.start_after = page.next_after;
    // The rest of a folder is of no interest: go on behind its last possible key.
    if (!last_folder.empty() && page.next_after.starts_with(prefix + last_folder)) {
      options.start_after = prefix + last_folder + "\xf4\x8f\xbf\xbf";
    }
  }
  if (!any) return Fail(Errc::kNotFound, source.url() + ": there is nothing");
  return {};
}

Result<job::SnapshotFile> Take(Opened& source) {
  auto taken = source.remote->TakeSnapshot({}, [&](std::uint64_t objects) {
    Progress(fmt::format("listing {}: {} objects", source.url(), FormatCount(objects)));
  });
  Progress("");
  return taken;
}

Result<struct stat> StatLocal(const std::string& path) {
  struct stat st;
  if (::stat(path.c_str(), &st) != 0) return FailErrno(errno, path);
  return st;
}

Status DoList(const SourceCommand& command) {
  LEAT_ASSIGN_OR_RETURN(const std::unique_ptr<Opened> source, Open(command.source));
  std::vector<Item> items;
  const auto add = [&](const Item& item) { items.push_back(item); };
  if (source->local()) {
    LEAT_ASSIGN_OR_RETURN(const struct stat st, StatLocal(source->spec.source.path));
    if (S_ISDIR(st.st_mode)) {
      WalkLocal(source->spec.source.path, "", command.recursive, add);
    } else {
      items.push_back({source->spec.source.path, static_cast<std::uint64_t>(st.st_size),
                       st.st_mtim.tv_sec * 1'000'000'000LL, ""});
    }
    Show(command, items);
    return {};
  }
  const bool folder =
      source->spec.source.in_bucket() && (command.folders_only || source->spec.source.key.empty() ||
                                          source->spec.source.key.ends_with('/'));
  if (folder && !command.recursive) {
    LEAT_RETURN_IF_ERROR(ListLevel(*source, add));
  } else {
    LEAT_ASSIGN_OR_RETURN(const job::SnapshotFile taken, Take(*source));
    const snapshot::Snapshot& index = *taken.index;
    std::string last_folder;
    for (std::uint32_t f = 0; f < index.file_count(); ++f) {
      const snapshot::FileInfo info = index.file(f);
      std::string path = index.PathOfFile(f);
      const std::size_t slash = path.find('/');
      if (!command.recursive && slash != std::string::npos) {
        const std::string name = path.substr(0, slash + 1);
        if (name != last_folder) items.push_back({name, 0, 0, ""});
        last_folder = name;
        continue;
      }
      items.push_back({std::move(path), info.size, info.mtime_ns, info.etag.str()});
    }
  }
  Show(command, items);
  return {};
}

Status DoStat(const SourceCommand& command) {
  LEAT_ASSIGN_OR_RETURN(const std::unique_ptr<Opened> source, Open(command.source));
  ordered_json out;
  out["source"] = source->url();
  if (source->local()) {
    LEAT_ASSIGN_OR_RETURN(const struct stat st, StatLocal(source->spec.source.path));
    out["type"] = S_ISDIR(st.st_mode) ? "folder" : "file";
    out["size"] = static_cast<std::uint64_t>(st.st_size);
    out["modified"] = DateOf(st.st_mtim.tv_sec * 1'000'000'000LL);
  } else {
    LEAT_ASSIGN_OR_RETURN(const job::SnapshotFile taken, Take(*source));
    const snapshot::Snapshot& index = *taken.index;
    if (taken.is_folder) {
      out["type"] = "folder";
      out["files"] = index.file_count();
      out["folders"] = index.directory_count() - 1;
      out["size"] = index.total_bytes();
      out["pin"] = index.pin();
      if (taken.left_out.count > 0) out["left_out"] = taken.left_out.count;
    } else {
      const snapshot::FileInfo info = index.file(0);
      out["type"] = "file";
      out["name"] = info.name;
      out["size"] = info.size;
      if (info.mtime_ns != 0) out["modified"] = DateOf(info.mtime_ns);
      if (!info.etag.empty()) out["etag"] = info.etag.str();
      if (!info.version_id.empty()) out["version"] = info.version_id;
    }
  }
  if (command.json) {
    PrintJson(out);
    return {};
  }
  for (const auto& [key, value] : out.items()) {
    Print(fmt::format("{:<9} {}\n", key,
                      value.is_string() ? Printable(value.get<std::string>()) : value.dump()));
  }
  return {};
}

Status WriteOut(std::span<const std::byte> piece) {
  while (!piece.empty()) {
    const ssize_t n = ::write(STDOUT_FILENO, piece.data(), piece.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return FailErrno(errno, "writing to stdout");
    piece = piece.subspan(static_cast<std::size_t>(n));
  }
  return {};
}

Status DoCat(const SourceCommand& command) {
  LEAT_ASSIGN_OR_RETURN(const std::unique_ptr<Opened> source, Open(command.source));
  if (source->local()) {
    LEAT_ASSIGN_OR_RETURN(const os::UniqueFd fd, os::Open(source->spec.source.path, O_RDONLY));
    std::vector<std::byte> buffer(kMiB);
    for (;;) {
      const ssize_t n = ::read(fd.get(), buffer.data(), buffer.size());
      if (n < 0) return FailErrno(errno, source->spec.source.path);
      if (n == 0) return {};
      LEAT_RETURN_IF_ERROR(WriteOut(std::span(buffer).first(static_cast<std::size_t>(n))));
    }
  }
  const job::Source& where = source->spec.source;
  if (where.in_bucket() && (where.key.empty() || where.key.ends_with('/'))) {
    return Fail(Errc::kInvalid, source->url() + " is a folder; cat shows one object");
  }
  LEAT_ASSIGN_OR_RETURN(const job::SnapshotFile taken, Take(*source));
  if (taken.is_folder)
    return Fail(Errc::kInvalid, source->url() + " is a folder; cat shows one object");
  auto content =
      std::make_shared<const snapshot::Content>(taken.index, source->remote->shared_store());
  if (taken.index->file(0).size == 0) return {};
  source->remote->SetRetryTotal(std::chrono::seconds(source->tools->home.retry_seconds), 1000);
  snapshot::EntryReader reader(content, 0);
  return reader.Read(0, taken.index->file(0).size, WriteOut, {});
}

Status DoDiskUsage(const SourceCommand& command) {
  LEAT_ASSIGN_OR_RETURN(const std::unique_ptr<Opened> source, Open(command.source));
  std::uint64_t files = 0, bytes = 0;
  if (source->local()) {
    LEAT_ASSIGN_OR_RETURN(const struct stat st, StatLocal(source->spec.source.path));
    if (S_ISDIR(st.st_mode)) {
      WalkLocal(source->spec.source.path, "", true, [&](const Item& item) {
        ++files;
        bytes += item.size;
      });
    } else {
      files = 1;
      bytes = static_cast<std::uint64_t>(st.st_size);
    }
  } else {
    LEAT_ASSIGN_OR_RETURN(const job::SnapshotFile taken, Take(*source));
    files = taken.index->file_count();
    bytes = taken.index->total_bytes();
  }
  if (command.json) {
    PrintJson({{"source", source->url()}, {"files", files}, {"bytes", bytes}});
  } else {
    Print(fmt::format("{} in {} files ({} bytes)  {}\n", FormatBytes(bytes), FormatCount(files),
                      bytes, source->url()));
  }
  return {};
}

}  // namespace

Status ListOnly(const SourceCommand& command) { return DoList(command); }
int List(const SourceCommand& command) {
  // Of an account its buckets are all there is to list.
  const auto spec = job::ParseSourceWithOptions(command.source);
  if (spec && spec->source.in_bucket() && spec->source.bucket.empty()) return ListFolders(command);
  return Report(DoList(command));
}
int Stat(const SourceCommand& command) { return Report(DoStat(command)); }
int Cat(const SourceCommand& command) { return Report(DoCat(command)); }
int DiskUsage(const SourceCommand& command) { return Report(DoDiskUsage(command)); }

}  // namespace leat::cli
