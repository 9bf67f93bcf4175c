#include "os/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <random>
#include <thread>

#include "base/bytes.h"

namespace leat::os {

void UniqueFd::Reset(int fd) {
  if (fd_ >= 0) ::close(fd_);
  fd_ = fd;
}

Mapping& Mapping::operator=(Mapping&& other) noexcept {
  if (data_ != nullptr) ::munmap(data_, size_);
  data_ = std::exchange(other.data_, nullptr);
  size_ = std::exchange(other.size_, 0);
  return *this;
}
Mapping::~Mapping() {
  if (data_ != nullptr) ::munmap(data_, size_);
}

Result<Mapping> Mapping::OfFile(int fd, std::size_t size, int prot) {
  void* p = ::mmap(nullptr, size, prot, MAP_SHARED, fd, 0);
  if (p == MAP_FAILED) return FailErrno(errno, "mapping a file");
  Mapping m;
  m.data_ = static_cast<std::byte*>(p);
  m.size_ = size;
  return m;
}

Result<Mapping> Mapping::Shared(std::size_t size) {
  void* p = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) return FailErrno(errno, "mapping shared memory");
  Mapping m;
  m.data_ = static_cast<std::byte*>(p);
  m.size_ = size;
  return m;
}

Result<UniqueFd> Open(const std::string& path, int flags, mode_t mode) {
  UniqueFd fd(::open(path.c_str(), flags | O_CLOEXEC, mode));
  if (!fd) return FailErrno(errno, path);
  return fd;
}

Result<std::string> ReadFile(const std::string& path, std::size_t max_bytes) {
  LEAT_ASSIGN_OR_RETURN(const UniqueFd fd, Open(path, O_RDONLY));
  std::string out;
  for (std::size_t size = 0;; out.resize(size)) {
    const std::size_t chunk = 64 * 1024;
    out.resize(size + chunk);
    const ssize_t n = ::read(fd.get(), out.data() + size, chunk);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return FailErrno(errno, "reading " + path);
    size += static_cast<std::size_t>(n);
    if (n == 0) {
      out.resize(size);
      return out;
    }
    if (size > max_bytes)
      return Fail(Errc::kInvalid, path + ": larger than " + std::to_string(max_bytes) + " bytes");
  }
}

Status WriteFileAtomic(const std::string& path, std::string_view contents, mode_t mode) {
  // A killed process's leftover must not be in the way of one that has its number (containers).
  std::random_device random;
  const std::string temporary = path + ".tmp-" + std::to_string(random());
  LEAT_ASSIGN_OR_RETURN(const UniqueFd fd,
                        Open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode));
  Cleanup remove([&] { ::unlink(temporary.c_str()); });
  if (Status written = PwriteAll(
          fd.get(), {reinterpret_cast<const std::byte*>(contents.data()), contents.size()}, 0);
      !written) {
    return Fail(std::move(written), temporary);
  }
  if (::fdatasync(fd.get()) != 0) return FailErrno(errno, "syncing " + temporary);
  if (::rename(temporary.c_str(), path.c_str()) != 0)
    return FailErrno(errno, "renaming to " + path);
  remove.Dismiss();
  return {};
}

Status PreadAll(int fd, std::span<std::byte> out, std::uint64_t offset) {
  while (!out.empty()) {
    const ssize_t n = ::pread(fd, out.data(), out.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return FailErrno(errno, "reading");
    if (n == 0) return Fail(Errc::kCorrupt, "the file ends early");
    out = out.subspan(static_cast<std::size_t>(n));
    offset += static_cast<std::uint64_t>(n);
  }
  return {};
}

Status PwriteAll(int fd, std::span<const std::byte> data, std::uint64_t offset) {
  while (!data.empty()) {
    const ssize_t n = ::pwrite(fd, data.data(), data.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return FailErrno(errno, "writing");
    data = data.subspan(static_cast<std::size_t>(n));
    offset += static_cast<std::uint64_t>(n);
  }
  return {};
}

Status MakeDirs(const std::string& path, mode_t mode) {
  if (::mkdir(path.c_str(), mode) == 0 || errno == EEXIST) {
    struct stat st;
    if (::stat(path.c_str(), &st) != 0) return FailErrno(errno, path);
    return S_ISDIR(st.st_mode) ? Status{} : Status(FailErrno(ENOTDIR, path));
  }
  if (errno != ENOENT) return FailErrno(errno, "making the folder " + path);
  const auto slash = path.find_last_of('/');
  if (slash == std::string::npos || slash == 0)
    return FailErrno(ENOENT, "making the folder " + path);
  LEAT_RETURN_IF_ERROR(MakeDirs(path.substr(0, slash), mode));
  if (::mkdir(path.c_str(), mode) != 0 && errno != EEXIST)
    return FailErrno(errno, "making the folder " + path);
  return {};
}

namespace {

Status RemoveAt(int dir, const char* name, dev_t device) {
  if (::unlinkat(dir, name, 0) == 0 || errno == ENOENT) return {};
  if (errno != EISDIR && errno != EPERM) return FailErrno(errno, std::string("removing ") + name);
  const int fd = ::openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return FailErrno(errno, std::string("removing ") + name);
  struct stat st;
  if (::fstat(fd, &st) != 0 || st.st_dev != device) {
    ::close(fd);
    return Fail(Errc::kConflict, std::string(name) + " is on another file system");
  }
  // A tree of ours may hold read-only folders.
  if ((st.st_mode & 0700) != 0700) ::fchmod(fd, 0700);
  const std::unique_ptr<DIR, int (*)(DIR*)> entries(::fdopendir(fd), ::closedir);
  while (const dirent* e = ::readdir(entries.get())) {
    const std::string_view child = e->d_name;
    if (child == "." || child == "..") continue;
    LEAT_RETURN_IF_ERROR(RemoveAt(::dirfd(entries.get()), e->d_name, device));
  }
  if (::unlinkat(dir, name, AT_REMOVEDIR) != 0 && errno != ENOENT)
    return FailErrno(errno, std::string("removing ") + name);
  return {};
}

}  // namespace

Status RemoveTree(const std::string& path) {
  struct stat st;
  if (::lstat(path.c_str(), &st) != 0)
    return errno == ENOENT ? Status{} : Status(FailErrno(errno, path));
  return RemoveAt(AT_FDCWD, path.c_str(), st.st_dev);
}

Result<std::vector<std::string>> ListDir(const std::string& path) {
  const std::unique_ptr<DIR, int (*)(DIR*)> entries(::opendir(path.c_str()), ::closedir);
  if (entries == nullptr) return FailErrno(errno, path);
  std::vector<std::string> names;
  while (const dirent* e = ::readdir(entries.get())) {
    const std::string_view name = e->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
  }
  std::ranges::sort(names);
  return names;
}

Usage UsageOf(const std::string& path) {
  struct stat st;
  if (::lstat(path.c_str(), &st) != 0) return {};
  Usage out = {static_cast<std::uint64_t>(st.st_blocks) * 512, 1};
  if (!S_ISDIR(st.st_mode)) return out;
  for (const std::string& name : ListDir(path).value_or(std::vector<std::string>())) {
    const Usage below = UsageOf(path + "/" + name);
    out.bytes += below.bytes;
    out.inodes += below.inodes;
  }
  return out;
}

std::uint64_t FreeBytes(const std::string& path) {
  struct statvfs vfs;
  if (::statvfs(path.c_str(), &vfs) != 0 || vfs.f_blocks == 0) return UINT64_MAX;
  return static_cast<std::uint64_t>(vfs.f_bavail) * vfs.f_frsize;
}

std::uint64_t RoomAt(const std::string& path) {
  const std::uint64_t free = FreeBytes(path);
  return free + std::min(UsageOf(path).bytes, UINT64_MAX - free);
}

bool Exists(const std::string& path) {
  struct stat st;
  return ::lstat(path.c_str(), &st) == 0;
}

std::string Absolute(const std::string& path) {
  char cwd[PATH_MAX];
  if (path.starts_with('/') || ::getcwd(cwd, sizeof(cwd)) == nullptr) return path;
  return std::string(cwd) + "/" + path;
}

const std::string& BootId() {
  static const std::string id = [] {
    const auto text = ReadFile("/proc/sys/kernel/random/boot_id", 4096);
    return text && text->size() >= 36 ? text->substr(0, 36) : std::string("?");
  }();
  return id;
}

Status Flock(int fd, bool exclusive, bool wait) {
  const int operation = (exclusive ? LOCK_EX : LOCK_SH) | (wait ? 0 : LOCK_NB);
  while (::flock(fd, operation) != 0) {
    if (errno == EINTR) continue;
    if (errno == EWOULDBLOCK) return Fail(Errc::kConflict, "locked by another process");
    return FailErrno(errno, "locking");
  }
  return {};
}

Result<UniqueFd> OpenLocked(const std::string& path, int flags, mode_t mode) {
  for (;;) {
    LEAT_ASSIGN_OR_RETURN(UniqueFd fd, Open(path, flags, mode));
    LEAT_RETURN_IF_ERROR(Flock(fd.get(), true, false));
    struct stat mine, named;
    if (::fstat(fd.get(), &mine) == 0 && ::lstat(path.c_str(), &named) == 0 &&
        mine.st_ino == named.st_ino && mine.st_dev == named.st_dev) {
      return fd;
    }
  }
}

Status FlockWithin(int fd, bool exclusive, std::chrono::milliseconds limit) {
  const auto until = std::chrono::steady_clock::now() + limit;
  for (auto pause = std::chrono::microseconds(200);;
       pause = std::min(pause * 2, std::chrono::microseconds(20'000))) {
    Status locked = Flock(fd, exclusive, false);
    if (locked || locked.error().code() != Errc::kConflict ||
        std::chrono::steady_clock::now() >= until)
      return locked;
    std::this_thread::sleep_for(pause);
  }
}

bool TryLockRange(int fd, std::uint64_t start, std::uint64_t length) {
  struct flock lock = {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = static_cast<off_t>(start);
  lock.l_len = static_cast<off_t>(length);
  return ::fcntl(fd, F_OFD_SETLK, &lock) == 0;
}

void UnlockRange(int fd, std::uint64_t start, std::uint64_t length) {
  struct flock lock = {};
  lock.l_type = F_UNLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = static_cast<off_t>(start);
  lock.l_len = static_cast<off_t>(length);
  ::fcntl(fd, F_OFD_SETLK, &lock);
}

}  // namespace leat::os
