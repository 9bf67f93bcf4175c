// Keeps what a source of credentials gave, and asks it again in time.
#ifndef LEAT_AUTH_REFRESHING_H_
#define LEAT_AUTH_REFRESHING_H_

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>

#include "auth/credentials.h"

namespace leat::auth {

/// Around any provider that asks anew at each Get. Thread-safe: however many threads want
/// credentials, one asks, and the others go on with the old ones while these are good, or wait.
///
/// - Asked again within five minutes of the end (of a life under ten minutes: in its second half).
/// - A failure to refresh is no failure while the old ones are good; the next try is 30 s later.
/// - Credentials that had expired when they came are an error.
/// - Invalidate within five seconds of a refresh is not heard: it speaks of those before.
class RefreshingProvider final : public CredentialProvider {
 public:
  /// `clock` outlives it.
  RefreshingProvider(std::unique_ptr<CredentialProvider> source, Clock& clock);

  Result<Credentials> Get(const CallContext& ctx) override;
  void Invalidate() override;

 private:
  using Time = std::chrono::system_clock::time_point;

  bool Usable(Time now) const;  // what is kept may still be handed out
  bool Fresh(Time now) const;   // and it is not yet time to ask
  Result<Credentials> Refresh(std::unique_lock<std::mutex>& lock, const CallContext& ctx);
  Status Keep(Credentials credentials);

  const std::unique_ptr<CredentialProvider> source_;
  Clock& clock_;
  std::mutex mutex_;
  std::condition_variable_any refreshed_;
  std::optional<Credentials> kept_;
  bool refused_ = false;  // the store did not take kept_
  Time refresh_at_ = Time::max();
  Time fetched_at_ = Time::min();
  bool asking_ = false;
  std::uint64_t round_ = 0;            // counts the times that source_ was asked
  std::optional<Error> last_failure_;  // of the last round
};

}  // namespace leat::auth

#endif  // LEAT_AUTH_REFRESHING_H_
