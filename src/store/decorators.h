// ObjectStores around an ObjectStore.
#ifndef LEAT_STORE_DECORATORS_H_
#define LEAT_STORE_DECORATORS_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "base/clock.h"
#include "store/object_store.h"

namespace leat::store {

/// Counts of requests and bytes. All relaxed atomics and no pointers: it may lie in memory shared
/// by processes (zeroed memory is a valid value).
struct RequestCounts {
  std::atomic<std::uint64_t> gets{0}, heads{0}, lists{0}, puts{0}, deletes{0};
  std::atomic<std::uint64_t> retries{0}, failures{0};
  std::atomic<std::uint64_t> bytes_in{0}, bytes_out{0};

  std::uint64_t requests() const { return gets + heads + lists + puts + deletes; }
  /// US dollars that AWS asks for such requests (S3 Standard, us-east-1): 0.005 for 1,000 that
  /// write or list, 0.0004 for 1,000 that read. https://aws.amazon.com/s3/pricing/
  double cost() const {
    return kWriteCost * static_cast<double>(puts + lists) +
           kReadCost * static_cast<double>(gets + heads);
  }
  static constexpr double kWriteCost = 5e-6, kReadCost = 4e-7;
};

struct RetryPolicy {
  std::chrono::milliseconds first_delay{100};   ///< doubles, with jitter of +-50 %, ...
  std::chrono::milliseconds max_delay{10'000};  ///< ... up to this
  std::chrono::milliseconds total{
      120'000};  ///< from the first failure on; then the last error is returned
  int max_attempts = 1000;
};

/// Repeats what failed with a retryable code (base/error.h says which), on the clock given. A read
/// goes on where it broke off, pinned to the version that its first answer had, so that the sink
/// sees every byte once. A server's Retry-After, handed up in RetryAfterHint, is respected.
/// `policy` is asked at every failure, so that it may be changed while calls are under way.
/// `counts` (may be null) gets the retries. All outlive the store.
std::unique_ptr<ObjectStore> MakeRetrying(std::unique_ptr<ObjectStore> inner,
                                          const RetryPolicy* policy, Clock& clock,
                                          RequestCounts* counts);
/// Counts each call and the bytes it moved.
std::unique_ptr<ObjectStore> MakeCounted(std::unique_ptr<ObjectStore> inner, RequestCounts* counts);

/// Shows objects under other keys than their own: `real` by the key that callers use; `or_own`:
/// where there is nothing, that key itself. Of other keys, and of what a listing says, nothing
/// changes.
std::shared_ptr<ObjectStore> MakeMapped(std::shared_ptr<ObjectStore> inner,
                                        std::map<std::string, std::string, std::less<>> real,
                                        bool or_own = false);

/// Set by a driver on the calling thread when the server said how long to wait; read and cleared by
/// MakeRetrying.
void SetRetryAfterHint(std::chrono::milliseconds wait);
std::chrono::milliseconds TakeRetryAfterHint();

}  // namespace leat::store

#endif  // LEAT_STORE_DECORATORS_H_
