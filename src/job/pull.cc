#include "job/pull.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <limits.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdio>
#include <functional>
#include <map>
#include <random>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/json_fields.h"
#include "base/log.h"
#include "base/memory_budget.h"
#include "cache/cache.h"
#include "dataset/fill.h"
#include "digest/digest.h"
#include "job/dataset.h"
#include "os/file.h"
#include "transfer/tree.h"

namespace leat::job {
namespace {

/// What is known of a folder that was pulled: home/pulls/HASH, with what lies in it behind.
struct PullNote {
  std::string identity;
  std::uint64_t inode = 0;
  std::uint64_t old_inode = 0;  ///< of what it was to take the place of
  std::string boot;
  std::string listing;

  static PullNote Read(const std::string& path) {
    PullNote out;
    const auto text = os::ReadFile(path, std::size_t{1} << 32);
    if (!text) return out;
    const std::size_t end = text->find('\n');
    if (end == std::string::npos) return out;
    const nlohmann::json head = ParseJson(std::string_view(*text).substr(0, end));
    out.identity = TextOf(head, "identity");
    out.boot = TextOf(head, "boot");
    for (const auto& [key, to] :
         {std::pair("inode", &out.inode), std::pair("was", &out.old_inode)}) {
      const nlohmann::json& inode = Field(head, key);
      if (inode.is_number_unsigned()) *to = inode.get<std::uint64_t>();
    }
    out.listing = text->substr(end + 1);
    return out;
  }
  Status Write(const std::string& path, const std::string& dir) const {
    const nlohmann::ordered_json head = {
        {"dir", dir}, {"identity", identity}, {"inode", inode}, {"was", old_inode}, {"boot", boot}};
    return os::WriteFileAtomic(
        path, head.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n" +
                  listing);
  }
};

std::string BootId() {
  auto text = os::ReadFile("/proc/sys/kernel/random/boot_id", 100);
  return text ? text->substr(0, 36) : "?";
}

/// A line a file, ended by NUL: "<size> <mtime> <path>"; a link's size is its own.
std::string LineOf(const struct stat& st, const std::string& path) {
  std::string line =
      fmt::format("{} {}.{:09} {}", st.st_size, st.st_mtim.tv_sec, st.st_mtim.tv_nsec, path);
  line += '\0';
  return line;
}

/// Whether all files of the listing are there as they were made, and how much that is. What a user
/// has added does not matter.
bool Holds(const std::string& dir, std::string_view listing, Pulled& pulled) {
  pulled.files = pulled.bytes = 0;
  while (!listing.empty()) {
    const std::size_t end = listing.find('\0');
    if (end == listing.npos) return false;
    const std::string_view line = listing.substr(0, end + 1);
    const std::size_t first = line.find(' ');
    const std::size_t second = line.find(' ', first + 1);
    if (second == line.npos) return false;
    const std::string path(line.substr(second + 1, end - second - 1));
    struct stat st;
    if (::lstat((dir + "/" + path).c_str(), &st) != 0 || LineOf(st, path) != line) return false;
    ++pulled.files;
    if (S_ISREG(st.st_mode)) pulled.bytes += static_cast<std::uint64_t>(st.st_size);
    listing.remove_prefix(end + 1);
  }
  return true;
}

/// A file below `dir` that the listing does not have: a user's own. Empty: there is none.
std::string FindOwn(const std::string& dir, std::string_view listing) {
  std::unordered_set<std::string_view> made;
  while (!listing.empty()) {
    std::string_view line = listing.substr(0, listing.find('\0'));
    listing.remove_prefix(std::min(line.size() + 1, listing.size()));
    for (int field = 0; field < 2; ++field)
      line.remove_prefix(std::min(line.find(' '), line.size() - 1) + 1);
    made.insert(line);
  }
  std::vector<std::string> open = {""};
  while (!open.empty()) {
    const std::string below = std::move(open.back());
    open.pop_back();
    const auto names = os::ListDir(below.empty() ? dir : dir + "/" + below);
    if (!names) continue;
    for (const std::string& name : *names) {
      std::string path = below.empty() ? name : below + "/" + name;
      struct stat st;
      if (::lstat((dir + "/" + path).c_str(), &st) != 0) continue;
      if (S_ISDIR(st.st_mode)) {
        open.push_back(std::move(path));
      } else if (!made.contains(path)) {
        return path;
      }
    }
  }
  return "";
}

/// A file of the listing that was written to in `dir` and is one with that of `tree`: it is another
/// there, too. Empty: there is none.
std::string FindWrittenThrough(const std::string& dir, const std::string& tree,
                               std::string_view listing) {
  while (!listing.empty()) {
    const std::string_view line = listing.substr(0, listing.find('\0') + 1);
    listing.remove_prefix(line.empty() ? listing.size() : line.size());
    const std::size_t second = line.find(' ', line.find(' ') + 1);
    if (second == line.npos) return "";
    std::string path(line.substr(second + 1, line.size() - second - 2));
    struct stat st, made;
    if (::lstat((dir + "/" + path).c_str(), &st) == 0 && LineOf(st, path) != line &&
        ::lstat((tree + "/" + path).c_str(), &made) == 0 && made.st_ino == st.st_ino &&
        made.st_dev == st.st_dev) {
      return path;
    }
  }
  return "";
}

Status CopyFile(const std::string& from, const std::string& to, const struct stat& st) {
  LEAT_ASSIGN_OR_RETURN(const os::UniqueFd in, os::Open(from, O_RDONLY | O_NOFOLLOW));
  LEAT_ASSIGN_OR_RETURN(const os::UniqueFd out, os::Open(to, O_WRONLY | O_CREAT | O_EXCL, 0600));
  if (::ioctl(out.get(), FICLONE, in.get()) != 0) {
    std::vector<std::byte> buffer(std::size_t{1} << 20);
    for (std::uint64_t at = 0; at < static_cast<std::uint64_t>(st.st_size);) {
      const ssize_t n = ::pread(in.get(), buffer.data(), buffer.size(), static_cast<off_t>(at));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return FailErrno(errno, "reading " + from);
      if (n == 0) return Fail(Errc::kCorrupt, from + " ends early");
      const auto size = static_cast<std::size_t>(n);
      if (Status written = os::PwriteAll(out.get(), std::span(buffer).first(size), at); !written)
        return Fail(std::move(written), to);
      at += size;
    }
  }
  const timespec times[2] = {{0, UTIME_OMIT}, st.st_mtim};
  if (::futimens(out.get(), times) != 0 || ::fchmod(out.get(), st.st_mode & 0777) != 0)
    return FailErrno(errno, to);
  return {};
}

/// The tree's twin in `to`, which is made: files by another name of the same, where that can be.
/// Adds to `listing`.
Status Twin(const std::string& from, const std::string& to, const std::string& below, bool& linking,
            Pulled& pulled, std::string& listing, const CallContext& ctx) {
  const std::string here = from + (below.empty() ? "" : "/" + below);
  const std::string there = to + (below.empty() ? "" : "/" + below);
  if (::mkdir(there.c_str(), 0755) != 0) return FailErrno(errno, "making the folder " + there);
  LEAT_ASSIGN_OR_RETURN(const auto names, os::ListDir(here));
  for (const std::string& name : names) {
    if (ctx.cancelled()) return Fail(Errc::kCancelled, "cancelled");
    const std::string path = below.empty() ? name : below + "/" + name;
    const std::string source = from + "/" + path, target = to + "/" + path;
    struct stat st;
    if (::lstat(source.c_str(), &st) != 0) return FailErrno(errno, source);
    if (S_ISDIR(st.st_mode)) {
      LEAT_RETURN_IF_ERROR(Twin(from, to, path, linking, pulled, listing, ctx));
      continue;
    }
    if (S_ISLNK(st.st_mode)) {
      char link[PATH_MAX];
      const ssize_t n = ::readlink(source.c_str(), link, sizeof(link) - 1);
      if (n < 0) return FailErrno(errno, source);
      link[n] = 0;
      if (::symlink(link, target.c_str()) != 0) return FailErrno(errno, target);
      const timespec times[2] = {{0, UTIME_OMIT}, st.st_mtim};
      ::utimensat(AT_FDCWD, target.c_str(), times, AT_SYMLINK_NOFOLLOW);
    } else {
      const bool linked = linking && ::link(source.c_str(), target.c_str()) == 0;
      // Another disk, a file system without such links, or too many of them.
      if (!linked && linking && errno != EMLINK) linking = false;
      if (!linked) LEAT_RETURN_IF_ERROR(CopyFile(source, target, st));
      pulled.bytes += static_cast<std::uint64_t>(st.st_size);
    }
    ++pulled.files;
    listing += LineOf(st, path);
  }
  return {};
}

/// `made` takes the place of `dir`, which is nothing, empty, or what an earlier pull has put there.
Status Exchange(const std::string& made, const std::string& dir) {
  if (::rename(made.c_str(), dir.c_str()) == 0) return {};
  if (errno != ENOTEMPTY && errno != EEXIST) return FailErrno(errno, "publishing " + dir);
  if (::renameat2(AT_FDCWD, made.c_str(), AT_FDCWD, dir.c_str(), RENAME_EXCHANGE) != 0) {
    // (NFS cannot exchange: for a moment there is nothing.)
    const std::string old = made + "-old";
    if (::rename(dir.c_str(), old.c_str()) != 0) return FailErrno(errno, "putting aside " + dir);
    if (::rename(made.c_str(), dir.c_str()) != 0) {
      const int error = errno;
      ::rename(old.c_str(), dir.c_str());
      return FailErrno(error, "publishing " + dir);
    }
    return os::RemoveTree(old);
  }
  return os::RemoveTree(made);
}

bool IsEmptyFolder(const std::string& dir) {
  const auto names = os::ListDir(dir);
  return names && names->empty();
}

}  // namespace

Result<MountSpec> ParsePull(std::string_view text, const config::Environment& env) {
  // What a dataset's defaults are, without a place in the storage.
  LEAT_ASSIGN_OR_RETURN(MountSpec spec,
                        ParseSourceWithOptions(std::string(text) + ",volume=shared", env));
  LEAT_RETURN_IF_ERROR(CheckBucket(spec.source));
  return spec;
}

Result<Pulled> PullDataset(const MountSpec& spec, const std::string& path, Toolbox& tools,
                           const CallContext& ctx) {
  if (tools.home.dir.empty()) return Fail(Errc::kInvalid, "neither HOME nor LEAT_HOME is set");
  std::string dir = path;
  while (dir.size() > 1 && dir.ends_with('/')) dir.pop_back();
  struct stat st;
  char real[PATH_MAX];
  if (::realpath(dir.c_str(), real) != nullptr) dir = real;
  const std::string parent = dir.substr(0, std::max<std::size_t>(dir.rfind('/'), 1));
  if (dir == "/") return Fail(Errc::kInvalid, "a dataset cannot take the place of /");
  const bool exists = ::lstat(dir.c_str(), &st) == 0;
  if (exists && !S_ISDIR(st.st_mode))
    return Fail(Errc::kConflict, dir + " is there, and is no folder");
  LEAT_RETURN_IF_ERROR(os::MakeDirs(parent, 0755));

  const std::string pulls = tools.home.dir + "/pulls";
  LEAT_RETURN_IF_ERROR(os::MakeDirs(pulls, 0700));
  const std::string note_path = pulls + "/" + ToHex(digest::HashSha256(AsBytes(dir))).substr(0, 32);
  LEAT_ASSIGN_OR_RETURN(const os::UniqueFd lock, os::Open(note_path + ".lock", O_RDWR | O_CREAT));
  if (!os::Flock(lock.get(), true, false)) {
    Progress("waiting for another pull into " + dir);
    while (!os::Flock(lock.get(), true, false)) {
      if (ctx.cancelled()) return Fail(Errc::kCancelled, "cancelled");
      ::usleep(50'000);
    }
  }
  // What a killed one was making.
  const std::string left = os::ReadFile(note_path + ".lock", PATH_MAX).value_or("");
  if (left.starts_with(parent)) {
    LEAT_RETURN_IF_ERROR(os::RemoveTree(left));
    LEAT_RETURN_IF_ERROR(os::RemoveTree(left + "-old"));
  }

  store::RequestCounts counts;
  LEAT_ASSIGN_OR_RETURN(const auto remote, Remote::Open(spec, tools, &counts));
  const std::string url = spec.source.ForMessages();
  LEAT_ASSIGN_OR_RETURN(const Resolved resolved, ResolveDataset(*remote, ctx, [&](std::uint64_t n) {
                          Progress(fmt::format("listing {}: {} objects", url, FormatCount(n)));
                        }));
  for (const std::string& note : resolved.taken.notes) Note(note);
  const dataset::PlaceRequest request = RequestFor(spec, *remote, &resolved);
  Pulled pulled;
  pulled.dir = dir;
  pulled.etag = request.found_etag;
  pulled.version_id = resolved.taken.version_id;
  if (resolved.taken.is_folder) pulled.pin = resolved.taken.index->pin();

  PullNote note = PullNote::Read(note_path);
  const std::uint64_t inode_there = ::lstat(dir.c_str(), &st) == 0 ? st.st_ino : 0;
  // (One that was killed may have exchanged them, or not. When none was, an old folder's number may
  // be another's by now.)
  const bool ours = inode_there != 0 &&
                    (note.inode == inode_there || (!left.empty() && note.old_inode == inode_there));
  if (inode_there == note.inode && ours && note.identity == request.identity &&
      note.boot == BootId() && Holds(dir, note.listing, pulled)) {
    pulled.there_before = true;
    pulled.requests = counts.requests();
    return pulled;
  }
  if (exists && !ours && !IsEmptyFolder(dir)) {
    return Fail(
        Errc::kConflict,
        fmt::format("{} holds what leat has not put there; choose another folder, or empty it",
                    dir));
  }

  pulled.files = pulled.bytes = 0;
  // What takes its place would take along what its user has put into it.
  if (ours && inode_there == note.inode) {
    if (const std::string own = FindOwn(dir, note.listing); !own.empty()) {
      return Fail(
          Errc::kConflict,
          fmt::format("{} is to be replaced, but holds {}, which leat has not put there; move "
                      "it away, or choose another folder",
                      dir, Printable(own)));
    }
  }

  MemoryBudget budget(tools.home.memory_bytes);
  cache::CacheOptions cache_options;
  cache_options.dir = tools.home.cache_dir;
  cache_options.limit_bytes = tools.home.cache_bytes;
  cache_options.budget = &budget;
  const auto cache = cache::Cache::Open(cache_options);
  transfer::TreeOptions options;
  options.content = resolved.content;
  options.cache = cache.get();
  options.fallback_dir = tools.home.dir + "/trees";
  options.source = url;
  if (resolved.expand) dataset::ExpandInto(options, budget);
  auto tree = transfer::PublishTree(options, ctx);
  if (!tree) {
    Error error = remote->ExplainLock(std::move(tree).error(), ctx);
    // (What an archive should not have is nothing that the caller has asked for wrongly.)
    if (error.code() == Errc::kInvalid) error = Error(Errc::kCorrupt, error.message());
    return std::unexpected(std::move(error));
  }

  if (ours && inode_there == note.inode) {
    if (const std::string file = FindWrittenThrough(dir, tree->path, note.listing); !file.empty()) {
      return Fail(
          Errc::kCorrupt,
          fmt::format("{}/{} was written to, and with it the copy in the cache, which is the "
                      "same file; leat cache clean removes that, then pull again",
                      dir, Printable(file)));
    }
  }

  std::random_device random;
  const std::string made = fmt::format("{}{}.leat-tmp-{:08x}{:08x}", parent,
                                       parent == "/" ? "" : "/", random(), random());
  if (::ftruncate(lock.get(), 0) != 0) return FailErrno(errno, note_path);
  LEAT_RETURN_IF_ERROR(os::PwriteAll(lock.get(), AsBytes(made), 0));
  bool noted = false;
  const os::Cleanup remove([&] {
    if (os::RemoveTree(made) && !noted) (void)::ftruncate(lock.get(), 0);
  });
  bool linking = true;
  std::string listing;
  LEAT_RETURN_IF_ERROR(Twin(tree->path, made, "", linking, pulled, listing, ctx));
  if (::lstat(made.c_str(), &st) != 0) return FailErrno(errno, made);
  note = {request.identity, st.st_ino, ours ? inode_there : 0, BootId(), std::move(listing)};
  LEAT_RETURN_IF_ERROR(note.Write(note_path, dir));
  noted = true;
  LEAT_RETURN_IF_ERROR(Exchange(made, dir));
  if (::ftruncate(lock.get(), 0) != 0) return FailErrno(errno, note_path);
  cache->Shutdown();
  pulled.requests = counts.requests();
  return pulled;
}

}  // namespace leat::job
