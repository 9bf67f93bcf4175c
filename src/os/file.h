// Files, and how they become visible whole or not at all.
#ifndef LEAT_OS_FILE_H_
#define LEAT_OS_FILE_H_

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"

namespace leat::os {

/// Owns a descriptor.
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    Reset(std::exchange(other.fd_, -1));
    return *this;
  }
  ~UniqueFd() { Reset(); }

  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  int Release() { return std::exchange(fd_, -1); }
  void Reset(int fd = -1);

 private:
  int fd_ = -1;
};

/// Owns a mapping of memory or of a file.
class Mapping {
 public:
  Mapping() = default;
  Mapping(Mapping&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  Mapping& operator=(Mapping&& other) noexcept;
  ~Mapping();

  /// The first `size` bytes of `fd`, shared. `prot` as for mmap(2).
  static Result<Mapping> OfFile(int fd, std::size_t size, int prot);
  /// Zeroed memory that children of fork(2) share.
  static Result<Mapping> Shared(std::size_t size);

  std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }
  explicit operator bool() const { return data_ != nullptr; }

 private:
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

/// open(2) with O_CLOEXEC; the error names the path.
Result<UniqueFd> Open(const std::string& path, int flags, mode_t mode = 0600);
Result<std::string> ReadFile(const std::string& path, std::size_t max_bytes = 64 << 20);
/// Beside, synced, renamed: readers see the old file or the whole new one, also after a power loss.
Status WriteFileAtomic(const std::string& path, std::string_view contents, mode_t mode = 0600);
/// All of it, or an error (kCorrupt at an early end of the file).
Status PreadAll(int fd, std::span<std::byte> out, std::uint64_t offset);
Status PwriteAll(int fd, std::span<const std::byte> data, std::uint64_t offset);
/// mkdir -p; new directories get `mode`.
Status MakeDirs(const std::string& path, mode_t mode = 0700);
/// rm -rf, within one file system, links not followed. Succeeds when there is nothing.
Status RemoveTree(const std::string& path);
/// Names in a directory, sorted, without . and ..
Result<std::vector<std::string>> ListDir(const std::string& path);
bool Exists(const std::string& path);  ///< lstat succeeds
/// What a file, or a folder with all that is below it, takes on its disk, as far as it can be seen.
struct Usage {
  std::uint64_t bytes = 0, inodes = 0;
};
Usage UsageOf(const std::string& path);
/// What may still be written on the file system of `path`; UINT64_MAX where it does not say.
std::uint64_t FreeBytes(const std::string& path);
/// What a folder may come to take: what it does already, and what is free.
std::uint64_t RoomAt(const std::string& path);
/// Against the present working directory.
std::string Absolute(const std::string& path);
/// Of this machine since it was started: 36 characters; "?" where that is not to be known.
const std::string& BootId();

/// flock(2). Blocks unless `wait` is false, then kConflict when another holds it.
Status Flock(int fd, bool exclusive, bool wait);
/// Opens the file of that name and locks it without waiting; kConflict when another holds it. What
/// is locked has the name: another may have renamed or removed the file between the two.
Result<UniqueFd> OpenLocked(const std::string& path, int flags, mode_t mode = 0600);
/// Waits no longer than `limit` (kConflict): a peer that is stopped must not stop us.
Status FlockWithin(int fd, bool exclusive, std::chrono::milliseconds limit);
/// Open-file-description locks (fcntl(2)) on bytes [start, start + length): they end with the last
/// copy of the descriptor, so also when the process is killed. False: somebody else holds some of
/// them.
bool TryLockRange(int fd, std::uint64_t start, std::uint64_t length);
void UnlockRange(int fd, std::uint64_t start, std::uint64_t length);

/// Calls `done` when the scope ends, unless dismissed.
class Cleanup {
 public:
  explicit Cleanup(std::function<void()> done) : done_(std::move(done)) {}
  ~Cleanup() {
    if (done_) done_();
  }
  Cleanup(const Cleanup&) = delete;
  Cleanup& operator=(const Cleanup&) = delete;
  void Dismiss() { done_ = nullptr; }

 private:
  std::function<void()> done_;
};

}  // namespace leat::os

#endif  // LEAT_OS_FILE_H_
