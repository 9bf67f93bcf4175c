#include "dataset/tree_index.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <limits.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string_view>

#include "base/bytes.h"
#include "base/thread_pool.h"
#include "digest/digest.h"
#include "os/file.h"

namespace leat::dataset {
namespace {

constexpr std::size_t kThreads = 4;
constexpr std::size_t kPiece = 1 << 20;

struct File {
  std::string path;  // relative
  std::uint64_t size = 0;
  std::uint64_t hash = 0;  // of a link: of its target
  bool link = false;
};
struct Walked {
  std::vector<File> files;
  std::vector<std::string> folders;  // "" is the root
};

/// Names alone; sorted.
Result<Walked> Walk(const std::string& root) {
  Walked out;
  std::vector<std::string> open = {""};
  while (!open.empty()) {
    const std::string folder = std::move(open.back());
    open.pop_back();
    LEAT_ASSIGN_OR_RETURN(const auto names,
                          os::ListDir(root + (folder.empty() ? "" : "/" + folder)));
    for (const std::string& name : names) {
      std::string path = folder.empty() ? name : folder + "/" + name;
      struct stat st;
      if (::lstat((root + "/" + path).c_str(), &st) != 0)
        return FailErrno(errno, root + "/" + path);
      if (S_ISDIR(st.st_mode)) {
        open.push_back(std::move(path));
      } else {
        out.files.push_back(
            {std::move(path), static_cast<std::uint64_t>(st.st_size), 0, S_ISLNK(st.st_mode)});
      }
    }
    out.folders.push_back(folder);
  }
  std::ranges::sort(out.files, {}, &File::path);
  std::ranges::sort(out.folders);
  return out;
}

Result<std::uint64_t> HashOf(const std::string& root, const File& file, const CallContext& ctx) {
  const std::string path = root + "/" + file.path;
  if (file.link) {
    char target[PATH_MAX];
    const ssize_t n = ::readlink(path.c_str(), target, sizeof(target));
    if (n < 0) return FailErrno(errno, path);
    return digest::Xxh3(AsBytes(std::string_view(target, static_cast<std::size_t>(n))));
  }
  LEAT_ASSIGN_OR_RETURN(const os::UniqueFd fd, os::Open(path, O_RDONLY | O_NOFOLLOW));
  thread_local std::unique_ptr<std::byte[]> buffer(new std::byte[kPiece]);
  // The hashes of the pieces, hashed: a file of one piece is that of its bytes.
  std::vector<std::uint64_t> hashes;
  for (std::uint64_t at = 0;;) {
    if (ctx.cancelled()) return Fail(Errc::kCancelled, "cancelled");
    std::size_t size = 0;
    for (ssize_t n = 1; size < kPiece && n != 0; size += static_cast<std::size_t>(n)) {
      n = ::pread(fd.get(), buffer.get() + size, kPiece - size, static_cast<off_t>(at + size));
      if (n < 0 && errno == EINTR) n = 0;
      if (n < 0) return FailErrno(errno, "reading " + path);
      if (n == 0) break;
    }
    if (size == 0 && at > 0) break;
    hashes.push_back(digest::Xxh3({buffer.get(), size}));
    at += size;
    if (size < kPiece) break;
  }
  return hashes.size() == 1 ? hashes[0] : digest::Xxh3(std::as_bytes(std::span(hashes)));
}

Status HashAll(const std::string& root, std::vector<File>& files, const CallContext& ctx) {
  std::mutex mutex;
  std::optional<Error> failure;
  ParallelFor(files.size(), kThreads, [&](std::size_t i) {
    auto hash = HashOf(root, files[i], ctx);
    if (hash) {
      files[i].hash = *hash;
      return true;
    }
    const std::lock_guard lock(mutex);
    if (!failure) failure = std::move(hash).error();
    return false;
  });
  if (failure) return std::unexpected(*failure);
  return {};
}

/// Records end with NUL, which no path has: "<hash> <size> <f|l> <path>".
std::string Encode(const std::vector<File>& files) {
  std::string out;
  for (const File& file : files) {
    out += fmt::format("{:016x} {} {} {}", file.hash, file.size, file.link ? 'l' : 'f', file.path);
    out += '\0';
  }
  return out;
}

Result<std::vector<File>> Decode(std::string_view text, const std::string& path) {
  std::vector<File> out;
  while (!text.empty()) {
    const std::size_t end = text.find('\0');
    File file;
    std::string_view record = text.substr(0, end);
    const char* const stop = record.data() + record.size();
    const auto hash = std::from_chars(record.data(), stop, file.hash, 16);
    const auto size = hash.ec == std::errc() && hash.ptr < stop
                          ? std::from_chars(hash.ptr + 1, stop, file.size)
                          : std::from_chars_result{stop, std::errc::invalid_argument};
    if (end == text.npos || size.ec != std::errc() || stop - size.ptr < 4)
      return Fail(Errc::kCorrupt, path + " is damaged");
    file.link = size.ptr[1] == 'l';
    file.path.assign(size.ptr + 3, stop);
    out.push_back(std::move(file));
    text.remove_prefix(end + 1);
  }
  return out;
}

/// A network's file system, or one in user space: syncing it whole says nothing there.
bool SyncsFileByFile(const std::string& root) {
  struct statfs st;
  if (::statfs(root.c_str(), &st) != 0) return true;
  static constexpr std::array<std::uint32_t, 6> kWhole = {
      0xEF53 /* ext */,       0x58465342 /* XFS */,     0x9123683E /* btrfs */,
      0x01021994 /* tmpfs */, 0x794c7630 /* overlay */, 0xf2f52010 /* f2fs */};
  return std::ranges::find(kWhole, static_cast<std::uint32_t>(st.f_type)) == kWhole.end();
}

}  // namespace

Result<std::string> FoldersDigest(const std::string& root, const std::string& folders) {
  LEAT_ASSIGN_OR_RETURN(const std::string text, os::ReadFile(folders, std::size_t{1} << 32));
  digest::Hasher hasher(digest::Kind::kSha256);
  std::string_view rest = text;
  while (!rest.empty()) {
    const std::string_view path = rest.substr(0, rest.find('\0'));
    rest.remove_prefix(std::min(path.size() + 1, rest.size()));
    const std::string full = path.empty() ? root : fmt::format("{}/{}", root, path);
    struct stat st;
    if (::lstat(full.c_str(), &st) != 0) return FailErrno(errno, full);
    if (!S_ISDIR(st.st_mode)) return Fail(Errc::kNotFound, full + " is no folder any more");
    hasher.Update(AsBytes(path));
    const std::int64_t mtime[2] = {st.st_mtim.tv_sec, st.st_mtim.tv_nsec};
    hasher.Update(std::as_bytes(std::span(mtime)));
  }
  return ToHex(AsBytes(hasher.Finish())).substr(0, 32);
}

Result<TreeShape> IndexTree(const std::string& root, const std::string& files,
                            const std::string& folders, const CallContext& ctx) {
  LEAT_ASSIGN_OR_RETURN(Walked walked, Walk(root));
  LEAT_RETURN_IF_ERROR(HashAll(root, walked.files, ctx));
  LEAT_RETURN_IF_ERROR(os::WriteFileAtomic(files, Encode(walked.files), 0644));
  std::string names;
  for (const std::string& folder : walked.folders) {
    names += folder;
    names += '\0';
  }
  LEAT_RETURN_IF_ERROR(os::WriteFileAtomic(folders, names, 0644));
  TreeShape shape;
  shape.files = walked.files.size();
  shape.folders = walked.folders.size();
  for (const File& file : walked.files) shape.bytes += file.link ? 0 : file.size;
  LEAT_ASSIGN_OR_RETURN(shape.folders_digest, FoldersDigest(root, folders));
  return shape;
}

Result<TreeDifference> VerifyTree(const std::string& root, const std::string& files,
                                  const CallContext& ctx) {
  LEAT_ASSIGN_OR_RETURN(const std::string text, os::ReadFile(files, std::size_t{1} << 34));
  LEAT_ASSIGN_OR_RETURN(const std::vector<File> wanted, Decode(text, files));
  LEAT_ASSIGN_OR_RETURN(Walked now, Walk(root));
  TreeDifference out;
  std::map<std::string_view, const File*> by_path;
  for (const File& file : wanted) by_path[file.path] = &file;
  std::vector<File> same_size;
  for (const File& file : now.files) {
    const auto found = by_path.find(file.path);
    if (found == by_path.end()) {
      out.added.push_back(file.path);
      continue;
    }
    if (found->second->size != file.size || found->second->link != file.link) {
      out.changed.push_back(file.path);
    } else {
      same_size.push_back(file);
    }
    by_path.erase(found);
  }
  for (const auto& [path, file] : by_path) out.missing.emplace_back(path);
  LEAT_RETURN_IF_ERROR(HashAll(root, same_size, ctx));
  by_path.clear();
  for (const File& file : wanted) by_path[file.path] = &file;
  for (const File& file : same_size) {
    if (by_path[file.path]->hash != file.hash) out.changed.push_back(file.path);
  }
  std::ranges::sort(out.changed);
  return out;
}

Status SyncTree(const std::string& root, const CallContext& ctx) {
  if (!SyncsFileByFile(root)) {
    LEAT_ASSIGN_OR_RETURN(const os::UniqueFd dir, os::Open(root, O_RDONLY | O_DIRECTORY));
    if (::syncfs(dir.get()) != 0) return FailErrno(errno, "syncing " + root);
    return {};
  }
  LEAT_ASSIGN_OR_RETURN(Walked walked, Walk(root));
  std::vector<std::string> paths;
  for (const File& file : walked.files) {
    if (!file.link) paths.push_back(root + "/" + file.path);
  }
  for (const std::string& folder : walked.folders)
    paths.push_back(folder.empty() ? root : root + "/" + folder);
  std::mutex mutex;
  std::optional<Error> failure;
  ParallelFor(paths.size(), 4 * kThreads, [&](std::size_t i) {
    Status synced;
    const auto fd = os::Open(paths[i], O_RDONLY | O_NOFOLLOW);
    if (!fd) {
      synced = std::unexpected(fd.error());
    } else if (::fsync(fd->get()) != 0) {
      synced = FailErrno(errno, "syncing " + paths[i]);
    }
    if (ctx.cancelled()) synced = Fail(Errc::kCancelled, "cancelled");
    if (synced) return true;
    const std::lock_guard lock(mutex);
    if (!failure) failure = synced.error();
    return false;
  });
  if (failure) return std::unexpected(*failure);
  return {};
}

}  // namespace leat::dataset
