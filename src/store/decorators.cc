#include "store/decorators.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <utility>

#include "base/bytes.h"
#include "store/forwarding_store.h"

namespace leat::store {
namespace {

using std::chrono::milliseconds;

thread_local milliseconds t_retry_after{0};

/// `delay` times something between 0.5 and 1.5, so that clients that failed together do not come
/// back together.
milliseconds WithJitter(milliseconds delay) {
  thread_local std::minstd_rand random{std::random_device{}()};
  const std::int64_t ms = delay.count();
  if (ms <= 0) return milliseconds(0);
  return milliseconds(
      std::uniform_int_distribution<std::int64_t>(ms - ms / 2, ms + ms / 2)(random));
}

/// A server that delivers less before it fails is not working.
constexpr std::uint64_t kProgress = 64 * kKiB;

/// What one call knows of its failures so far.
class Attempts {
 public:
  Attempts(const RetryPolicy* policy, Clock& clock, RequestCounts* counts, const CallContext& ctx)
      : policy_(policy), clock_(clock), counts_(counts), ctx_(ctx) {
    TakeRetryAfterHint();
  }

  /// Waits before the next attempt; or says why there is none.
  Status AfterFailure(Error error) {
    const milliseconds hint = TakeRetryAfterHint();
    if (!IsRetryable(error.code())) return std::unexpected(std::move(error));
    const RetryPolicy policy = *policy_;
    const auto now = CallContext::Clock::now();
    if (failures_++ == 0) first_failure_ = now;
    const milliseconds step =
        std::min(policy.max_delay, policy.first_delay * (std::int64_t{1} << doublings_));
    doublings_ = std::min(doublings_ + 1, 20);
    const milliseconds delay = std::max(WithJitter(step), hint);
    // The time that we asked the clock to wait counts as asked, so that a test's clock bounds it
    // too.
    const auto spent = std::max(now - first_failure_, CallContext::Clock::duration(waited_));
    if (failures_ >= policy.max_attempts || spent + delay > policy.total) {
      if (failures_ == 1) return std::unexpected(std::move(error));
      return Fail(error.code(),
                  error.message() + " (tried " + std::to_string(failures_) + " times)");
    }
    if (!clock_.Sleep(delay, ctx_)) {
      return Fail(
          ctx_.cancelled() ? Errc::kCancelled : Errc::kDeadline,
          (ctx_.cancelled() ? "cancelled after: " : "out of time after: ") + error.message());
    }
    waited_ += delay;
    if (counts_ != nullptr) counts_->retries.fetch_add(1, std::memory_order_relaxed);
    return {};
  }

  /// The server is working again: what comes later is another failure.
  void Progressed() {
    failures_ = doublings_ = 0;
    waited_ = milliseconds(0);
  }
  int failures() const { return failures_; }

 private:
  const RetryPolicy* const policy_;
  Clock& clock_;
  RequestCounts* const counts_;
  const CallContext& ctx_;
  int failures_ = 0;
  int doublings_ = 0;
  CallContext::Clock::time_point first_failure_;
  milliseconds waited_{0};
};

class Retrying final : public ForwardingStore {
 public:
  Retrying(std::unique_ptr<ObjectStore> inner, const RetryPolicy* policy, Clock& clock,
           RequestCounts* counts)
      : ForwardingStore(std::move(inner)), policy_(policy), clock_(clock), counts_(counts) {}

  Result<ObjectInfo> Stat(std::string_view key, std::string_view version_id,
                          const CallContext& ctx) override {
    return Repeat(ctx, [&] { return inner().Stat(key, version_id, ctx); });
  }
  Result<ListPage> List(std::string_view prefix, const ListOptions& options,
                        const CallContext& ctx) override {
    return Repeat(ctx, [&] { return inner().List(prefix, options, ctx); });
  }
  Status Remove(std::string_view key, const CallContext& ctx) override {
    return Repeat(ctx, [&] { return inner().Remove(key, ctx); });
  }
  std::vector<Status> RemoveMany(std::span<const Removal> removals,
                                 const CallContext& ctx) override {
    std::vector<Status> out(removals.size());
    std::vector<Removal> left(removals.begin(), removals.end());
    std::vector<std::size_t> places(removals.size());  // of those left
    std::iota(places.begin(), places.end(), 0);
    (void)Repeat(ctx, [&]() -> Status {
      std::vector<Status> done = inner().RemoveMany(left, ctx);
      Status failure;
      std::size_t kept = 0;
      for (std::size_t i = 0; i < done.size(); ++i) {
        if (!done[i] && IsRetryable(done[i].error().code())) {
          failure = done[i];
          if (kept != i) left[kept] = std::move(left[i]);
          places[kept] = places[i];
          out[places[kept++]] = std::move(done[i]);
        } else {
          out[places[i]] = std::move(done[i]);
        }
      }
      left.resize(kept);
      places.resize(kept);
      return failure;
    });
    return out;
  }
  // An upload that was begun and whose answer was lost is found by nobody: it is begun again.
  Result<std::string> BeginUpload(std::string_view key, const PutOptions& options,
                                  const CallContext& ctx) override {
    return Repeat(ctx, [&] { return inner().BeginUpload(key, options, ctx); });
  }
  Result<Part> PutPart(std::string_view key, std::string_view upload, std::size_t number,
                       std::span<const std::byte> body, const CallContext& ctx) override {
    return Repeat(ctx, [&] { return inner().PutPart(key, upload, number, body, ctx); });
  }
  Result<std::vector<Part>> UploadedParts(std::string_view key, std::string_view upload,
                                          const CallContext& ctx) override {
    return Repeat(ctx, [&] { return inner().UploadedParts(key, upload, ctx); });
  }
  Result<Version> CompleteUpload(std::string_view key, std::string_view upload,
                                 std::span<const Part> parts, const PutOptions& options,
                                 const CallContext& ctx) override {
    return Repeat(ctx, [&] { return inner().CompleteUpload(key, upload, parts, options, ctx); });
  }
  Status AbortUpload(std::string_view key, std::string_view upload,
                     const CallContext& ctx) override {
    return Repeat(ctx, [&] { return inner().AbortUpload(key, upload, ctx); });
  }
  Result<std::vector<PartDigest>> PartDigests(std::string_view key, const Version& version,
                                              const CallContext& ctx) override {
    return Repeat(ctx, [&] { return inner().PartDigests(key, version, ctx); });
  }
  Result<Version> CopyFrom(std::string_view bucket, std::string_view source,
                           const Version& if_version, std::string_view key,
                           const CallContext& ctx) override {
    return Repeat(ctx, [&] { return inner().CopyFrom(bucket, source, if_version, key, ctx); });
  }
  Result<Part> CopyPart(std::string_view bucket, std::string_view source, const Version& if_version,
                        std::uint64_t offset, std::uint64_t length, std::string_view key,
                        std::string_view upload, std::size_t number,
                        const CallContext& ctx) override {
    return Repeat(ctx, [&] {
      return inner().CopyPart(bucket, source, if_version, offset, length, key, upload, number, ctx);
    });
  }
  Status MakeBucket(const CallContext& ctx) override {
    return Repeat(ctx, [&] { return inner().MakeBucket(ctx); });
  }
  Status RemoveBucket(const CallContext& ctx) override {
    return Repeat(ctx, [&] { return inner().RemoveBucket(ctx); });
  }
  Result<std::vector<BucketInfo>> Buckets(const CallContext& ctx) override {
    return Repeat(ctx, [&] { return inner().Buckets(ctx); });
  }

  Result<Version> Put(std::string_view key, std::span<const std::byte> body,
                      const PutOptions& options, const CallContext& ctx) override {
    Attempts attempts(policy_, clock_, counts_, ctx);
    for (;;) {
      auto done = inner().Put(key, body, options, ctx);
      if (done) return done;
      if (options.if_absent && attempts.failures() > 0 && done.error().code() == Errc::kConflict) {
        // An attempt whose answer was lost may have been the one that created it.
        if (auto ours = VersionIfHolds(key, body, ctx)) return *std::move(ours);
      }
      LEAT_RETURN_IF_ERROR(attempts.AfterFailure(std::move(done).error()));
    }
  }

  Status Read(std::string_view key, const ReadOptions& options, const Sink& sink,
              const CallContext& ctx) override {
    Attempts attempts(policy_, clock_, counts_, ctx);
    ReadOptions rest = options;
    std::uint64_t delivered = 0;
    std::optional<std::uint64_t> size;  // what the first answer said of the object
    bool caller_failed = false;
    rest.on_info = [&](const ObjectInfo& info) -> Status {
      if (size) {
        if (*size == info.size) return {};
        return Fail(Errc::kConflict, UrlOf(key) + " was replaced while it was read (" +
                                         std::to_string(*size) + " bytes are now " +
                                         std::to_string(info.size) + ")");
      }
      size = info.size;
      if (rest.if_version.empty()) {
        rest.if_version = info.version;
        // Asking for a version by its id needs another right than asking for the object.
        if (!rest.if_version.etag.empty()) rest.if_version.version_id.clear();
      }
      if (!options.on_info) return {};
      auto status = options.on_info(info);
      caller_failed = !status;
      return status;
    };
    const Sink counting = [&](std::span<const std::byte> piece) -> Status {
      auto status = sink(piece);
      caller_failed = !status;
      delivered += piece.size();
      return status;
    };
    for (std::uint64_t before = 0;; before = delivered) {
      auto done = inner().Read(key, rest, counting, ctx);
      if (done || caller_failed) return done;
      if (size && options.offset <= *size &&
          delivered >= std::min(options.length, *size - options.offset)) {
        return {};  // it broke after the last byte
      }
      if (delivered - before >= kProgress) attempts.Progressed();
      if (delivered > 0 && rest.if_version.empty()) {
        return Fail(std::move(done), "reading cannot go on at byte " +
                                         std::to_string(options.offset + delivered) +
                                         " because the server names no version");
      }
      LEAT_RETURN_IF_ERROR(attempts.AfterFailure(std::move(done).error()));
      rest.offset = options.offset + delivered;
      if (options.length != UINT64_MAX) rest.length = options.length - delivered;
    }
  }

 private:
  template <typename Call>
  auto Repeat(const CallContext& ctx, const Call& call) -> decltype(call()) {
    Attempts attempts(policy_, clock_, counts_, ctx);
    for (;;) {
      auto done = call();
      if (done) return done;
      LEAT_RETURN_IF_ERROR(attempts.AfterFailure(std::move(done).error()));
    }
  }

  std::optional<Version> VersionIfHolds(std::string_view key, std::span<const std::byte> body,
                                        const CallContext& ctx) {
    std::size_t same = 0;
    Version version;
    ReadOptions options;
    options.on_info = [&](const ObjectInfo& info) -> Status {
      version = info.version;
      return info.size == body.size() ? Status{} : Fail(Errc::kConflict, "another size");
    };
    const auto status = inner().Read(
        key, options,
        [&](std::span<const std::byte> piece) -> Status {
          if (piece.size() > body.size() - same ||
              std::memcmp(piece.data(), body.data() + same, piece.size()) != 0) {
            return Fail(Errc::kConflict, "other bytes");
          }
          same += piece.size();
          return {};
        },
        ctx);
    if (!status || same != body.size()) return std::nullopt;
    return version;
  }

  const RetryPolicy* const policy_;
  Clock& clock_;
  RequestCounts* const counts_;
};

class Counted final : public ForwardingStore {
 public:
  Counted(std::unique_ptr<ObjectStore> inner, RequestCounts* counts)
      : ForwardingStore(std::move(inner)), counts_(*counts) {}

  Result<ObjectInfo> Stat(std::string_view key, std::string_view version_id,
                          const CallContext& ctx) override {
    Add(counts_.heads, 1);
    return Outcome(inner().Stat(key, version_id, ctx));
  }
  Status Read(std::string_view key, const ReadOptions& options, const Sink& sink,
              const CallContext& ctx) override {
    Add(counts_.gets, 1);
    const Sink counting = [&](std::span<const std::byte> piece) -> Status {
      Add(counts_.bytes_in, piece.size());
      return sink(piece);
    };
    return Outcome(inner().Read(key, options, counting, ctx));
  }
  Result<ListPage> List(std::string_view prefix, const ListOptions& options,
                        const CallContext& ctx) override {
    Add(counts_.lists, 1);
    return Outcome(inner().List(prefix, options, ctx));
  }
  Result<Version> Put(std::string_view key, std::span<const std::byte> body,
                      const PutOptions& options, const CallContext& ctx) override {
    Add(counts_.puts, 1);
    Add(counts_.bytes_out, body.size());
    return Outcome(inner().Put(key, body, options, ctx));
  }
  Status Remove(std::string_view key, const CallContext& ctx) override {
    Add(counts_.deletes, 1);
    return Outcome(inner().Remove(key, ctx));
  }
  std::vector<Status> RemoveMany(std::span<const Removal> removals,
                                 const CallContext& ctx) override {
    std::vector<Status> done = inner().RemoveMany(removals, ctx);
    Add(counts_.deletes, inner().max_removals() > 1 ? 1 : removals.size());
    for (const Status& each : done) (void)Outcome(each);
    return done;
  }
  Result<std::string> BeginUpload(std::string_view key, const PutOptions& options,
                                  const CallContext& ctx) override {
    Add(counts_.puts, 1);
    return Outcome(inner().BeginUpload(key, options, ctx));
  }
  Result<Part> PutPart(std::string_view key, std::string_view upload, std::size_t number,
                       std::span<const std::byte> body, const CallContext& ctx) override {
    Add(counts_.puts, 1);
    Add(counts_.bytes_out, body.size());
    return Outcome(inner().PutPart(key, upload, number, body, ctx));
  }
  Result<std::vector<Part>> UploadedParts(std::string_view key, std::string_view upload,
                                          const CallContext& ctx) override {
    Add(counts_.lists, 1);
    return Outcome(inner().UploadedParts(key, upload, ctx));
  }
  Result<Version> CompleteUpload(std::string_view key, std::string_view upload,
                                 std::span<const Part> parts, const PutOptions& options,
                                 const CallContext& ctx) override {
    Add(counts_.puts, 1);
    return Outcome(inner().CompleteUpload(key, upload, parts, options, ctx));
  }
  Status AbortUpload(std::string_view key, std::string_view upload,
                     const CallContext& ctx) override {
    Add(counts_.deletes, 1);
    return Outcome(inner().AbortUpload(key, upload, ctx));
  }
  Result<std::vector<PartDigest>> PartDigests(std::string_view key, const Version& version,
                                              const CallContext& ctx) override {
    Add(counts_.gets, 1);
    return Outcome(inner().PartDigests(key, version, ctx));
  }
  Result<Version> CopyFrom(std::string_view bucket, std::string_view source,
                           const Version& if_version, std::string_view key,
                           const CallContext& ctx) override {
    Add(counts_.puts, 1);
    return Outcome(inner().CopyFrom(bucket, source, if_version, key, ctx));
  }
  Result<Part> CopyPart(std::string_view bucket, std::string_view source, const Version& if_version,
                        std::uint64_t offset, std::uint64_t length, std::string_view key,
                        std::string_view upload, std::size_t number,
                        const CallContext& ctx) override {
    Add(counts_.puts, 1);
    return Outcome(
        inner().CopyPart(bucket, source, if_version, offset, length, key, upload, number, ctx));
  }
  Status MakeBucket(const CallContext& ctx) override {
    Add(counts_.puts, 1);
    return Outcome(inner().MakeBucket(ctx));
  }
  Status RemoveBucket(const CallContext& ctx) override {
    Add(counts_.deletes, 1);
    return Outcome(inner().RemoveBucket(ctx));
  }
  Result<std::vector<BucketInfo>> Buckets(const CallContext& ctx) override {
    Add(counts_.lists, 1);
    return Outcome(inner().Buckets(ctx));
  }

 private:
  static void Add(std::atomic<std::uint64_t>& counter, std::uint64_t n) {
    counter.fetch_add(n, std::memory_order_relaxed);
  }
  template <typename R>
  R Outcome(R result) {
    if (!result) Add(counts_.failures, 1);
    return result;
  }

  RequestCounts& counts_;
};

class Mapped final : public ForwardingStore {
 public:
  Mapped(std::shared_ptr<ObjectStore> inner, std::map<std::string, std::string, std::less<>> real,
         bool or_own)
      : ForwardingStore(std::move(inner)), real_(std::move(real)), or_own_(or_own) {}
  Result<ObjectInfo> Stat(std::string_view key, std::string_view version,
                          const CallContext& ctx) override {
    auto info = inner().Stat(Real(key), version, ctx);
    if (!info && IsElsewhere(key, info.error())) return inner().Stat(key, version, ctx);
    return info;
  }
  Status Read(std::string_view key, const ReadOptions& options, const Sink& sink,
              const CallContext& ctx) override {
    bool begun = false;
    const Status read = inner().Read(
        Real(key), options,
        [&](std::span<const std::byte> piece) {
          begun = true;
          return sink(piece);
        },
        ctx);
    if (!read && !begun && IsElsewhere(key, read.error()))
      return inner().Read(key, options, sink, ctx);
    return read;
  }
  Result<std::vector<PartDigest>> PartDigests(std::string_view key, const Version& version,
                                              const CallContext& ctx) override {
    return inner().PartDigests(Real(key), version, ctx);
  }
  std::string UrlOf(std::string_view key) const override { return inner().UrlOf(Real(key)); }

 private:
  bool IsElsewhere(std::string_view key, const Error& error) const {
    return or_own_ && error.code() == Errc::kNotFound && Real(key) != key;
  }
  std::string_view Real(std::string_view key) const {
    const auto it = real_.find(key);
    return it == real_.end() ? key : std::string_view(it->second);
  }

  const std::map<std::string, std::string, std::less<>> real_;
  const bool or_own_;
};

}  // namespace

std::unique_ptr<ObjectStore> MakeRetrying(std::unique_ptr<ObjectStore> inner,
                                          const RetryPolicy* policy, Clock& clock,
                                          RequestCounts* counts) {
  return std::make_unique<Retrying>(std::move(inner), policy, clock, counts);
}

std::unique_ptr<ObjectStore> MakeCounted(std::unique_ptr<ObjectStore> inner,
                                         RequestCounts* counts) {
  return std::make_unique<Counted>(std::move(inner), counts);
}

void SetRetryAfterHint(milliseconds wait) { t_retry_after = wait; }
milliseconds TakeRetryAfterHint() { return std::exchange(t_retry_after, milliseconds(0)); }

std::shared_ptr<ObjectStore> MakeMapped(std::shared_ptr<ObjectStore> inner,
                                        std::map<std::string, std::string, std::less<>> real,
                                        bool or_own) {
  return std::make_shared<Mapped>(std::move(inner), std::move(real), or_own);
}

}  // namespace leat::store
