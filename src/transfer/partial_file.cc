#include "transfer/partial_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <random>

#include "base/bytes.h"
#include "digest/digest.h"
#include "transfer/place.h"

namespace leat::transfer {
namespace {

constexpr std::uint64_t kMagic = 0x31545241'50544c4cULL;  // "LLTPART1"

/// Behind the file's bytes while it is under way; the blocks' bytes follow. Of this machine alone,
/// and of this boot: after a power loss a mark may be there and its bytes not.
struct Trailer {
  std::uint64_t magic = kMagic;
  std::uint64_t identity = 0;
  std::uint64_t block = 0;
  std::uint64_t boot = 0;
};

std::uint64_t BootHash() {
  static const std::uint64_t hash = [] { return digest::Xxh3(AsBytes(os::BootId())); }();
  return hash;
}

/// A file may be written before it has a name. Not without /proc, nor where a rule forbids the
/// link.
std::atomic<bool>& CanNameLater() {
  static std::atomic<bool> can = ::access("/proc/self/fd", X_OK) == 0;
  return can;
}

}  // namespace

std::string TemporaryName() {
  std::random_device random;
  return fmt::format("{}{:08x}{:08x}", kTemporary, random(), random());
}

Status SetFileTime(int fd, std::int64_t mtime_ns) {
  const std::int64_t seconds = mtime_ns / 1'000'000'000 - (mtime_ns % 1'000'000'000 < 0 ? 1 : 0);
  const timespec times[2] = {{0, UTIME_OMIT}, {seconds, mtime_ns - seconds * 1'000'000'000}};
  if (::futimens(fd, times) != 0) return FailErrno(errno, "setting the file's time");
  return {};
}

Result<std::unique_ptr<PartialFile>> PartialFile::Open(const std::string& folder,
                                                       const std::string& name, std::uint64_t size,
                                                       std::string_view identity,
                                                       std::uint64_t block) {
  std::unique_ptr<PartialFile> file(new PartialFile);
  file->path_ = folder + "/" + name;
  file->size_ = size;
  file->there_ = std::vector<std::atomic<char>>(
      std::max<std::uint64_t>(1, size / block + (size % block != 0 ? 1 : 0)));
  // What no next attempt goes on with needs no name before it has its own, where the file system
  // can do that.
  if (identity.empty() && CanNameLater()) {
    file->fd_ = os::UniqueFd(::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0666));
    if (file->fd_) return file;
  }
  // The same name each time: the next attempt finds it. Where another process is at it, one of our
  // own.
  file->temporary_ = fmt::format("{}/{}{:016x}", folder, kTemporary, digest::Xxh3(AsBytes(name)));
  if (auto fd = os::OpenLocked(file->temporary_, O_RDWR | O_CREAT | O_NOFOLLOW, 0666)) {
    file->fd_ = std::move(*fd);
  } else {
    file->temporary_ = folder + "/" + TemporaryName();
    LEAT_ASSIGN_OR_RETURN(file->fd_, os::Open(file->temporary_, O_RDWR | O_CREAT | O_EXCL, 0666));
  }
  struct stat st;
  if (::fstat(file->fd_.get(), &st) != 0) return FailErrno(errno, file->temporary_);
  // (ext4 writes a file that was cut to nothing to the disk when it is closed)
  if (identity.empty() && st.st_size == 0) return file;
  if (identity.empty()) {
    if (::ftruncate(file->fd_.get(), 0) != 0) return FailErrno(errno, file->path_);
    return file;
  }
  const Trailer wanted{
      .identity = digest::Xxh3(AsBytes(identity)), .block = block, .boot = BootHash()};
  const std::uint64_t whole = size + sizeof(Trailer) + file->there_.size();
  Trailer there{};
  if (static_cast<std::uint64_t>(st.st_size) == whole &&
      os::PreadAll(file->fd_.get(), {reinterpret_cast<std::byte*>(&there), sizeof(there)}, size) &&
      std::memcmp(&there, &wanted, sizeof(there)) == 0) {
    std::string marks(file->there_.size(), '\0');
    LEAT_RETURN_IF_ERROR(os::PreadAll(file->fd_.get(), std::as_writable_bytes(std::span(marks)),
                                      size + sizeof(Trailer)));
    for (std::size_t i = 0; i < marks.size(); ++i) file->there_[i] = marks[i];
    return file;
  }
  // Marks first: a file of the right length without them would seem to have holes that are there.
  if ((st.st_size != 0 && ::ftruncate(file->fd_.get(), 0) != 0) ||
      ::ftruncate(file->fd_.get(), static_cast<off_t>(whole)) != 0)
    return FailErrno(errno, file->path_);
  LEAT_RETURN_IF_ERROR(os::PwriteAll(
      file->fd_.get(), {reinterpret_cast<const std::byte*>(&wanted), sizeof(wanted)}, size));
  return file;
}

PartialFile::~PartialFile() {
  if (finished_ || !fd_) return;
  const bool any = std::ranges::any_of(there_, [](const auto& mark) { return mark != 0; });
  if (!any) Discard();
}

Status PartialFile::Write(std::span<const std::byte> bytes, std::uint64_t offset) {
  const std::lock_guard lock(turn_);
  if (Status written = os::PwriteAll(fd_.get(), bytes, offset); !written)
    return Fail(std::move(written), path_);
  return {};
}

Status PartialFile::Done(std::size_t i) {
  constexpr std::byte kThere{1};
  there_[i].store(1, std::memory_order_release);
  return os::PwriteAll(fd_.get(), {&kThere, 1}, size_ + sizeof(Trailer) + i);
}

Status PartialFile::Publish(std::int64_t mtime_ns) {
  struct stat st;
  if (::fstat(fd_.get(), &st) != 0) return FailErrno(errno, path_);
  if (static_cast<std::uint64_t>(st.st_size) != size_ &&
      ::ftruncate(fd_.get(), static_cast<off_t>(size_)) != 0)
    return FailErrno(errno, path_);
  LEAT_RETURN_IF_ERROR(SetFileTime(fd_.get(), mtime_ns));
  if (temporary_.empty()) {
    const std::string unnamed = fmt::format("/proc/self/fd/{}", fd_.get());
    const auto link = [&](const std::string& name) {
      return ::linkat(AT_FDCWD, unnamed.c_str(), AT_FDCWD, name.c_str(), AT_SYMLINK_FOLLOW) == 0;
    };
    finished_ = link(path_);
    if (finished_) return {};
    if (errno != EEXIST) {
      CanNameLater() = false;
      return Fail(Errc::kUnsupported, path_ + ": a file without a name cannot be given one here: " +
                                          std::strerror(errno));
    }
    // A link never replaces what is there; a rename does.
    std::string temporary = path_.substr(0, path_.rfind('/') + 1) + TemporaryName();
    if (!link(temporary)) return FailErrno(errno, temporary);
    temporary_ = std::move(temporary);
  }
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) return FailErrno(errno, path_);
  finished_ = true;
  return {};
}

void PartialFile::Discard() {
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
  finished_ = true;
}

}  // namespace leat::transfer
