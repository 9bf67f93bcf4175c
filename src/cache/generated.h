// Contents for the cache's tests: every byte follows from a name and a position, so that a wrong or
// misplaced one shows.
#ifndef LEAT_CACHE_GENERATED_H_
#define LEAT_CACHE_GENERATED_H_

#include <atomic>
#include <cstdint>
#include <span>
#include <vector>

#include "cache/cache.h"

namespace leat::cache {

inline std::byte ByteAt(std::uint64_t name, std::uint64_t offset) {
  std::uint64_t x = name * 0x2545f4914f6cdd1dULL ^ (offset / 8 * 0x9e3779b97f4a7c15ULL);
  x ^= x >> 31;
  x *= 0xbf58476d1ce4e5b9ULL;
  return static_cast<std::byte>(x >> (offset % 8 * 8));
}

inline bool Right(std::uint64_t name, std::uint64_t offset, std::span<const std::byte> got) {
  for (std::uint64_t i = 0; i < got.size(); ++i) {
    if (got[i] != ByteAt(name, offset + i)) return false;
  }
  return true;
}

class Generated final : public Fetcher {
 public:
  /// `fetches`, where given, is moved by every fetch and outlives this.
  explicit Generated(std::uint64_t name, std::atomic<int>* fetches = nullptr)
      : name_(name), fetches_(fetches) {}
  Status Fetch(std::uint64_t offset, std::uint64_t length, const Sink& sink,
               const CallContext&) override {
    if (fetches_ != nullptr) ++*fetches_;
    std::vector<std::byte> bytes(length);
    for (std::uint64_t i = 0; i < length; ++i) bytes[i] = ByteAt(name_, offset + i);
    return sink(bytes);
  }

 private:
  const std::uint64_t name_;
  std::atomic<int>* const fetches_;
};

}  // namespace leat::cache

#endif  // LEAT_CACHE_GENERATED_H_
