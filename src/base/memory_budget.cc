#include "base/memory_budget.h"

#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <string>
#include <utility>

#include "base/bytes.h"

namespace leat {
namespace {

/// The smallest limit on the way from our cgroup up to the root (version 2, then 1); the machine's
/// memory if none.
std::uint64_t MemoryOfThisProcess() {
  auto limit = static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES)) *
               static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  const auto consider = [&](const std::string& path) {
    std::ifstream in(path);
    std::uint64_t bytes = 0;
    if (in >> bytes && bytes > 0) limit = std::min(limit, bytes);
  };
  std::ifstream groups("/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    const auto first = line.find(':');
    const auto second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool v2 = controllers.empty();
    if (!v2 && controllers.find("memory") == std::string::npos) continue;
    for (std::string group = line.substr(second + 1);; group.resize(group.rfind('/'))) {
      consider(v2 ? "/sys/fs/cgroup" + group + "/memory.max"
                  : "/sys/fs/cgroup/memory" + group + "/memory.limit_in_bytes");
      if (group.empty() || group.rfind('/') == std::string::npos) break;
    }
  }
  return limit;
}

}  // namespace

std::uint64_t MemoryBudget::DefaultBytes() {
  return std::clamp<std::uint64_t>(MemoryOfThisProcess() / 8, 64 * kMiB, kGiB);
}

bool MemoryBudget::TryTake(std::uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  if (used_ + bytes > total_) return false;
  used_ += bytes;
  return true;
}

bool MemoryBudget::Take(std::uint64_t bytes, const CallContext& ctx) {
  std::unique_lock lock(mutex_);
  const auto fits = [&] { return used_ == 0 || used_ + bytes <= total_; };
  if (ctx.deadline == CallContext::Clock::time_point::max()) {
    if (!freed_.wait(lock, ctx.stop, fits)) return false;
  } else if (!freed_.wait_until(lock, ctx.stop, ctx.deadline, fits)) {
    return false;
  }
  used_ += bytes;
  return true;
}

void MemoryBudget::Give(std::uint64_t bytes) {
  {
    const std::lock_guard lock(mutex_);
    used_ -= bytes;
  }
  freed_.notify_all();
}

std::uint64_t MemoryBudget::used() const {
  const std::lock_guard lock(mutex_);
  return used_;
}

MemoryHold& MemoryHold::operator=(MemoryHold&& other) noexcept {
  Release();
  budget_ = other.budget_;
  bytes_ = std::exchange(other.bytes_, 0);
  return *this;
}

void MemoryHold::Release() {
  if (bytes_ != 0) budget_->Give(std::exchange(bytes_, 0));
}

void KeepHeapSmall() {
  // Set, these do not grow as glibc lets them. Lower ones would have each request's receive buffer
  // mapped and unmapped.
  ::mallopt(M_MMAP_THRESHOLD, 1 << 20);
  ::mallopt(M_TRIM_THRESHOLD, 16 << 20);
}

}  // namespace leat
