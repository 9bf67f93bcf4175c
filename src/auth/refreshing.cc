#include "auth/refreshing.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "net/url.h"

namespace leat::auth {
namespace {

using namespace std::chrono_literals;

constexpr auto kBeforeEnd = 5min;
constexpr auto kAfterFailure = 30s;
constexpr auto kDeafAfterRefresh = 5s;

}  // namespace

RefreshingProvider::RefreshingProvider(std::unique_ptr<CredentialProvider> source, Clock& clock)
    : source_(std::move(source)), clock_(clock) {}

bool RefreshingProvider::Usable(Time now) const {
  return kept_ && !refused_ && (!kept_->expires || now < *kept_->expires);
}

bool RefreshingProvider::Fresh(Time now) const { return Usable(now) && now < refresh_at_; }

Result<Credentials> RefreshingProvider::Get(const CallContext& ctx) {
  std::unique_lock lock(mutex_);
  while (true) {
    const Time now = clock_.Now();
    if (Fresh(now)) return *kept_;
    if (!asking_) return Refresh(lock, ctx);
    if (Usable(now)) return *kept_;
    const std::uint64_t round = round_;
    refreshed_.wait_until(lock, ctx.stop, ctx.deadline, [&] { return round_ != round; });
    if (ctx.cancelled()) return Fail(Errc::kCancelled, "the call was cancelled");
    if (round_ == round) return Fail(Errc::kDeadline, "no credentials came in the time there was");
    // What stopped the one who asked need not stop us, but what the service said is said to all.
    if (last_failure_ && last_failure_->code() != Errc::kCancelled &&
        last_failure_->code() != Errc::kDeadline) {
      return std::unexpected(*last_failure_);
    }
  }
}

Result<Credentials> RefreshingProvider::Refresh(std::unique_lock<std::mutex>& lock,
                                                const CallContext& ctx) {
  asking_ = true;
  lock.unlock();
  Result<Credentials> got = source_->Get(ctx);
  lock.lock();
  asking_ = false;
  ++round_;
  last_failure_.reset();
  refreshed_.notify_all();

  Status kept = got ? Keep(*std::move(got)) : Status(std::unexpected(std::move(got).error()));
  if (kept) return *kept_;
  const Time now = clock_.Now();
  if (Usable(now)) {
    Debug(fmt::format("credentials could not be refreshed yet: {}", kept.error().message()));
    refresh_at_ = now + kAfterFailure;
    return *kept_;
  }
  last_failure_ = kept.error();
  return std::unexpected(std::move(kept).error());
}

Status RefreshingProvider::Keep(Credentials credentials) {
  const Time now = clock_.Now();
  Time refresh_at = Time::max();
  if (credentials.expires) {
    const auto life = *credentials.expires - now;
    if (life <= 0s) {
      return Fail(
          Errc::kDenied,
          fmt::format("the credentials from {} expired at {}; is this machine's clock right?",
                      credentials.provider, net::FormatDate(*credentials.expires)));
    }
    refresh_at = *credentials.expires - std::min<Time::duration>(kBeforeEnd, life / 2);
  }
  kept_ = std::move(credentials);
  refused_ = false;
  refresh_at_ = refresh_at;
  fetched_at_ = now;
  return {};
}

void RefreshingProvider::Invalidate() {
  const std::lock_guard lock(mutex_);
  const auto age = clock_.Now() - fetched_at_;
  if (kept_ && (age >= kDeafAfterRefresh || age < age.zero())) {  // (the clock may be set back)
    refused_ = true;
    source_->Invalidate();
  }
}

}  // namespace leat::auth
