// The parts of a LargeFile, for its two sources: large_file.cc fetches and reads,
// large_file_disk.cc has the two files on disk.
#ifndef LEAT_CACHE_LARGE_FILE_H_
#define LEAT_CACHE_LARGE_FILE_H_

#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/memory_budget.h"
#include "cache/cache.h"
#include "cache/disk.h"
#include "os/fault_guard.h"

namespace leat::cache {

/// 0 means "not here", so a checksum is never 0.
constexpr std::uint64_t SumOf(std::uint64_t hash) { return hash == 0 ? 1 : hash; }

/// The two files of a large file that is (partly) on disk.
struct LargeFile::OnDisk {
  os::UniqueFd data, sums_fd;
  os::Mapping data_map, sums_map;
  std::string path;
  bool read_only = false;  // the data may not be written: a tree of plain files shares them
  std::mutex write_mutex;

  ~OnDisk() {
    if (sums_map) os::UnguardMapping(sums_map.data());
  }
  SumsHeader& header() const { return *reinterpret_cast<SumsHeader*>(sums_map.data()); }
  std::atomic<std::uint64_t>& sum(std::uint64_t block) const {
    return reinterpret_cast<std::atomic<std::uint64_t>*>(sums_map.data() + kSumsHeaderBytes)[block];
  }
  /// One thread at a time: the others would wait for the inode's lock, and spin.
  Status Write(std::span<const std::byte> bytes, std::uint64_t offset) {
    const std::lock_guard lock(write_mutex);
    return os::PwriteAll(data.get(), bytes, offset);
  }
  bool Recorded() const {
    struct stat st;
    const SumsHeader& h = header();
    return h.inode != 0 && h.boot_id[0] != 0 &&
           std::equal(h.boot_id.begin(), h.boot_id.end(), BootId().begin()) &&
           ::fstat(data.get(), &st) == 0 && h.inode == st.st_ino &&
           h.ctime_s == st.st_ctim.tv_sec && h.ctime_ns == st.st_ctim.tv_nsec && st.st_nlink > 0;
  }
  Status Record() const {
    struct stat st;
    if (::fstat(data.get(), &st) != 0) return FailErrno(errno, path);
    SumsHeader& h = header();
    h.inode = 0;  // until the rest is right
    std::ranges::copy(BootId(), h.boot_id.begin());
    h.ctime_s = st.st_ctim.tv_sec;
    h.ctime_ns = st.st_ctim.tv_nsec;
    h.inode = st.st_ino;
    return {};
  }
};

/// Consecutive blocks that one thread of this process is bringing.
struct LargeFile::Flight {
  std::uint64_t first = 0, end = 0;
  std::atomic<bool> wanted{false};  // somebody waits
  bool done = false;                // guarded by State::mutex, as what follows
  Status status;
  MemoryHold hold;
  std::vector<std::pair<std::uint64_t, Data>> memory;  // blocks that found no room on disk
};

struct LargeFile::State {
  mutable std::mutex mutex;
  std::condition_variable_any progress;
  std::vector<std::shared_ptr<Flight>> flights;
  std::unique_ptr<OnDisk> disk_owner;
  std::atomic<OnDisk*> disk{nullptr};
  std::mutex disk_mutex;  // one thread opens or makes the files
  std::vector<std::atomic<std::uint64_t>> verified;
  // Blocks below are present, unless another process dropped one: a hint.
  std::atomic<std::uint64_t> complete_until{0};
  std::atomic<std::uint64_t> drops{0};
  std::mutex drop_mutex;  // who takes a block away, or says that none is missing
  std::atomic<bool> finalizing{false};
  std::string poison;  // why the file must not be read any more; guarded by mutex
};

}  // namespace leat::cache

#endif  // LEAT_CACHE_LARGE_FILE_H_
