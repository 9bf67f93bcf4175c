#include "job/context.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <limits.h>
#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>
#include <utility>

#include "base/bytes.h"
#include "base/log.h"
#include "os/file.h"

namespace leat::job {
namespace {

constexpr std::size_t kNamedFiles = 10;
constexpr std::size_t kBufferBytes = 128 << 10;

/// What is copied: folders before what lies in them.
struct Item {
  std::string path;  ///< below the context
  mode_t mode = 0;
  std::uint64_t size = 0;
  timespec times[2] = {};
};

class Context {
 public:
  Context(const std::string& from, os::UniqueFd root) : from_(from), root_(std::move(root)) {}

  /// `to` is not gone into, where it lies in the context.
  Status Find(const struct stat& to) {
    for (const char* name : {".detignore", ".leatignore"}) {
      LEAT_RETURN_IF_ERROR(ReadRules(name));
    }
    LEAT_RETURN_IF_ERROR(FindIn("", to));
    // (The list grows while it is gone through.)
    for (std::size_t i = 0; i < items_.size(); ++i) {
      if (!S_ISDIR(items_[i].mode)) continue;
      LEAT_RETURN_IF_ERROR(FindIn(std::string(items_[i].path), to));
    }
    return {};
  }

  Status CheckLimit(std::uint64_t limit) const {
    std::uint64_t sum = 0;
    std::vector<const Item*> files;
    for (const Item& item : items_) {
      sum += item.size;
      if (S_ISREG(item.mode)) files.push_back(&item);
    }
    if (sum < limit) return {};
    const auto named =
        files.begin() + static_cast<std::ptrdiff_t>(std::min(files.size(), kNamedFiles));
    std::partial_sort(files.begin(), named, files.end(), [](const Item* a, const Item* b) {
      return std::pair(b->size, std::string_view(a->path)) <
             std::pair(a->size, std::string_view(b->path));
    });
    std::string largest;
    for (auto file = files.begin(); file != named; ++file) {
      largest += fmt::format("{}{} {}", largest.empty() ? "" : ", ", Printable((*file)->path),
                             FormatBytes((*file)->size));
    }
    return Fail(Errc::kInvalid,
                fmt::format("the context {} has {}, and must have less than {}; the largest files: "
                            "{}; name what is not needed in .leatignore, or raise the limit with "
                            "--context-limit",
                            Printable(from_), FormatBytes(sum), FormatBytes(limit), largest));
  }

  Result<ContextCopy> CopyTo(const os::UniqueFd& to) {
    ContextCopy copy;
    for (const Item& item : items_) {
      const char* const path = item.path.c_str();
      if (S_ISDIR(item.mode)) {
        if (::mkdirat(to.get(), path, 0700) != 0) return Failed(errno, item.path);
        continue;
      }
      const auto bytes = S_ISLNK(item.mode) ? CopyLink(item, to) : CopyFile(item, to);
      if (!bytes) return std::unexpected(bytes.error());
      if (*bytes == kVanished) continue;
      ++copy.files;
      copy.bytes += *bytes;
    }
    // At last: what is made in a folder changes its time, and it may be one to read alone.
    for (auto item = items_.rbegin(); item != items_.rend(); ++item) {
      if (!S_ISDIR(item->mode)) continue;
      if (::utimensat(to.get(), item->path.c_str(), item->times, 0) != 0 ||
          ::fchmodat(to.get(), item->path.c_str(), item->mode & 0777, 0) != 0) {
        return Failed(errno, item->path);
      }
    }
    return copy;
  }

 private:
  static constexpr std::uint64_t kVanished = ~std::uint64_t{0};

  std::unexpected<Error> Failed(int error, const std::string& path) const {
    return FailErrno(error, fmt::format("the context {}: {}", Printable(from_), Printable(path)));
  }

  Status ReadRules(const char* name) {
    const os::UniqueFd file(::openat(root_.get(), name, O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    struct stat st;
    if (!file && errno == ENOENT) return {};
    if (!file || ::fstat(file.get(), &st) != 0) return Failed(errno, name);
    if (!S_ISREG(st.st_mode)) return {};
    if (st.st_size > std::int64_t{1} << 20)
      return Fail(Errc::kInvalid,
                  fmt::format("the context {}: {} is larger than 1 MiB", Printable(from_), name));
    std::string text(static_cast<std::size_t>(st.st_size), '\0');
    const ssize_t n = ::pread(file.get(), text.data(), text.size(), 0);
    if (n < 0) return Failed(errno, name);
    rules_.Add(std::string_view(text).substr(0, static_cast<std::size_t>(n)));
    return {};
  }

  Status FindIn(const std::string& folder, const struct stat& to) {
    const int fd = ::openat(root_.get(), folder.empty() ? "." : folder.c_str(),
                            O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return errno == ENOENT ? Status{} : Status(Failed(errno, folder));
    const std::unique_ptr<DIR, int (*)(DIR*)> entries(::fdopendir(fd), ::closedir);
    for (;;) {
      errno = 0;
      const dirent* const entry = ::readdir(entries.get());
      if (entry == nullptr) return errno == 0 ? Status{} : Status(Failed(errno, folder));
      const std::string_view name = entry->d_name;
      if (name == "." || name == "..") continue;
      Item item;
      item.path = folder.empty() ? name : fmt::format("{}/{}", folder, name);
      struct stat st;
      if (::fstatat(fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
        if (errno == ENOENT) continue;
        return Failed(errno, item.path);
      }
      if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode) && !S_ISLNK(st.st_mode)) continue;
      if (st.st_dev == to.st_dev && st.st_ino == to.st_ino) continue;
      if (rules_.IgnoresHere(item.path, S_ISDIR(st.st_mode))) continue;
      item.mode = st.st_mode;
      if (S_ISREG(st.st_mode)) item.size = static_cast<std::uint64_t>(st.st_size);
      item.times[0] = st.st_atim;
      item.times[1] = st.st_mtim;
      items_.push_back(std::move(item));
    }
  }

  Result<std::uint64_t> CopyLink(const Item& item, const os::UniqueFd& to) const {
    std::array<char, PATH_MAX> target;
    const ssize_t n =
        ::readlinkat(root_.get(), item.path.c_str(), target.data(), target.size() - 1);
    if (n < 0 && errno == ENOENT) return kVanished;
    if (n < 0) return Failed(errno, item.path);
    target[static_cast<std::size_t>(n)] = '\0';
    if (::symlinkat(target.data(), to.get(), item.path.c_str()) != 0 ||
        ::utimensat(to.get(), item.path.c_str(), item.times, AT_SYMLINK_NOFOLLOW) != 0) {
      return Failed(errno, item.path);
    }
    return 0;
  }

  Result<std::uint64_t> CopyFile(const Item& item, const os::UniqueFd& to) {
    // (O_NONBLOCK: it may have become a fifo.)
    const os::UniqueFd in(
        ::openat(root_.get(), item.path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    if (!in && errno == ENOENT) return kVanished;
    if (!in) return Failed(errno, item.path);
    const os::UniqueFd out(
        ::openat(to.get(), item.path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (!out) return Failed(errno, item.path);
    std::uint64_t done = 0;
    if (!Clone(item, in.get(), out.get(), done)) {
      if (const int error = CopyBytes(item, in.get(), out.get(), done); error != 0)
        return Failed(error, item.path);
    }
    if (::fchmod(out.get(), item.mode & 0777) != 0 || ::futimens(out.get(), item.times) != 0)
      return Failed(errno, item.path);
    return done;
  }

  bool Clone(const Item& item, int in, int out, std::uint64_t& done) {
    if (!clones_ || item.size == 0) return false;
    struct stat st;
    clones_ = ::ioctl(out, FICLONE, in) == 0 && ::fstat(out, &st) == 0 &&
              (static_cast<std::uint64_t>(st.st_size) <= item.size ||
               ::ftruncate(out, static_cast<off_t>(item.size)) == 0);
    if (clones_) done = std::min(item.size, static_cast<std::uint64_t>(st.st_size));
    return clones_;
  }

  /// As many bytes as the file had when it was counted. An errno, 0 for none.
  int CopyBytes(const Item& item, int in, int out, std::uint64_t& done) {
    // (For small files a read and a write cost less.)
    while (item.size - done > kBufferBytes) {
      const ssize_t n = ::copy_file_range(in, nullptr, out, nullptr, item.size - done, 0);
      if (n <= 0) break;
      done += static_cast<std::uint64_t>(n);
    }
    while (done < item.size) {
      const std::size_t most = std::min<std::uint64_t>(buffer_.size(), item.size - done);
      const ssize_t n = ::read(in, buffer_.data(), most);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return errno;
      if (n == 0) return 0;
      for (ssize_t at = 0; at < n;) {
        const ssize_t written = ::write(out, buffer_.data() + at, static_cast<std::size_t>(n - at));
        if (written < 0 && errno == EINTR) continue;
        if (written < 0) return errno;
        at += written;
      }
      done += static_cast<std::uint64_t>(n);
    }
    return 0;
  }

  const std::string& from_;
  const os::UniqueFd root_;
  IgnoreRules rules_;
  std::vector<Item> items_;
  bool clones_ = true;  // until the first that cannot be
  std::vector<char> buffer_ = std::vector<char>(kBufferBytes);
};

}  // namespace

Result<ContextCopy> CopyContext(const std::string& from, const std::string& to,
                                std::uint64_t limit) {
  const std::string doing = "the context " + Printable(from);
  os::UniqueFd root(::open(from.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!root && errno == ENOTDIR) return Fail(Errc::kInvalid, doing + " is not a folder");
  if (!root) return FailErrno(errno, doing);

  LEAT_RETURN_IF_ERROR(os::MakeDirs(to));
  LEAT_ASSIGN_OR_RETURN(const os::UniqueFd target, os::Open(to, O_RDONLY | O_DIRECTORY));
  struct stat from_st, to_st;
  if (::fstat(root.get(), &from_st) != 0 || ::fstat(target.get(), &to_st) != 0)
    return FailErrno(errno, doing);
  if (from_st.st_dev == to_st.st_dev && from_st.st_ino == to_st.st_ino)
    return Fail(Errc::kInvalid, doing + " cannot be copied into itself");
  LEAT_ASSIGN_OR_RETURN(const std::vector<std::string> names, os::ListDir(to));
  if (!names.empty()) return Fail(Errc::kConflict, to + " is there already, and not empty");
  os::Cleanup remove([&] { (void)os::RemoveTree(to); });
  if (::fchmod(target.get(), 0700) != 0) return FailErrno(errno, to);

  Context context(from, std::move(root));
  LEAT_RETURN_IF_ERROR(context.Find(to_st));
  LEAT_RETURN_IF_ERROR(context.CheckLimit(limit));
  auto copy = context.CopyTo(target);
  if (copy) remove.Dismiss();
  return copy;
}

}  // namespace leat::job
