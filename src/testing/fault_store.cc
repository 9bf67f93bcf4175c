#include "testing/fault_store.h"

#include <algorithm>
#include <utility>

#include "store/decorators.h"

namespace leat::testing {

using store::ListOptions;
using store::ListPage;
using store::ObjectInfo;
using store::PutOptions;
using store::ReadOptions;
using store::Sink;
using store::Version;

FaultStore::FaultStore(std::unique_ptr<store::ObjectStore> inner)
    : ForwardingStore(std::move(inner)) {}
FaultStore::~FaultStore() = default;

void FaultStore::Add(Fault fault) {
  const std::lock_guard lock(mutex_);
  faults_.push_back(std::move(fault));
}

void FaultStore::Release() {
  const std::lock_guard lock(mutex_);
  ++releases_;
  changed_.notify_all();
}

void FaultStore::WaitForStalled(std::size_t n) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return stalled_ >= n; });
}

std::vector<Call> FaultStore::calls() const {
  const std::lock_guard lock(mutex_);
  return calls_;
}

std::size_t FaultStore::CountOf(Op op) const {
  const std::lock_guard lock(mutex_);
  return static_cast<std::size_t>(
      std::count_if(calls_.begin(), calls_.end(),
                    [&](const Call& call) { return op == Op::kAny || call.op == op; }));
}

Result<std::optional<Fault>> FaultStore::Next(Call call, const CallContext& ctx) {
  std::unique_lock lock(mutex_);
  std::optional<Fault> hit;
  for (Fault& fault : faults_) {
    if (fault.times == 0 || (fault.op != Op::kAny && fault.op != call.op) ||
        (!fault.key.empty() && fault.key != call.key)) {
      continue;
    }
    if (fault.skip > 0) {
      --fault.skip;
      continue;
    }
    --fault.times;
    hit = fault;
    break;
  }
  calls_.push_back(std::move(call));
  if (!hit || !hit->stall) return hit;
  const std::uint64_t seen = releases_;
  ++stalled_;
  changed_.notify_all();
  const auto released = [&] { return releases_ != seen; };
  const bool go_on = ctx.deadline == CallContext::Clock::time_point::max()
                         ? changed_.wait(lock, ctx.stop, released)
                         : changed_.wait_until(lock, ctx.stop, ctx.deadline, released);
  --stalled_;
  if (go_on) return hit;
  return Fail(ctx.cancelled() ? Errc::kCancelled : Errc::kDeadline,
              inner().UrlOf(calls_.back().key) + ": gave up while the store stalled");
}

std::unexpected<Error> FaultStore::Failure(const Fault& fault, std::string_view key) const {
  if (fault.retry_after.count() > 0) store::SetRetryAfterHint(fault.retry_after);
  return Fail(fault.code.value_or(Errc::kUnavailable), inner().UrlOf(key) + ": " + fault.message);
}

Result<ObjectInfo> FaultStore::Stat(std::string_view key, std::string_view version_id,
                                    const CallContext& ctx) {
  LEAT_ASSIGN_OR_RETURN(const auto fault, Next({Op::kStat, std::string(key)}, ctx));
  if (fault && fault->code) return Failure(*fault, key);
  return inner().Stat(key, version_id, ctx);
}

Status FaultStore::Read(std::string_view key, const ReadOptions& options, const Sink& sink,
                        const CallContext& ctx) {
  LEAT_ASSIGN_OR_RETURN(
      const auto fault,
      Next({Op::kRead, std::string(key), options.offset, options.length, options.if_version}, ctx));
  if (!fault) return inner().Read(key, options, sink, ctx);
  if (fault->code && !fault->cut_at) return Failure(*fault, key);
  std::uint64_t at = 0;
  bool cut = false;
  auto done = inner().Read(
      key, options,
      [&](std::span<const std::byte> piece) -> Status {
        if (fault->cut_at) {
          piece = piece.first(std::min<std::uint64_t>(piece.size(), *fault->cut_at - at));
        }
        std::vector<std::byte> changed;
        if (fault->wrong_byte_at && *fault->wrong_byte_at >= at &&
            *fault->wrong_byte_at < at + piece.size()) {
          changed.assign(piece.begin(), piece.end());
          changed[*fault->wrong_byte_at - at] = ~changed[*fault->wrong_byte_at - at];
          piece = changed;
        }
        if (!piece.empty()) LEAT_RETURN_IF_ERROR(sink(piece));
        at += piece.size();
        cut = fault->cut_at && at == *fault->cut_at;
        return cut ? Status(Failure(*fault, key)) : Status();
      },
      ctx);
  // (an empty range has no piece at which to cut)
  if (done && fault->cut_at && !cut && *fault->cut_at == 0) return Failure(*fault, key);
  return done;
}

Result<ListPage> FaultStore::List(std::string_view prefix, const ListOptions& options,
                                  const CallContext& ctx) {
  LEAT_ASSIGN_OR_RETURN(const auto fault, Next({Op::kList, std::string(prefix)}, ctx));
  if (fault && fault->code) return Failure(*fault, prefix);
  return inner().List(prefix, options, ctx);
}

Result<Version> FaultStore::Put(std::string_view key, std::span<const std::byte> body,
                                const PutOptions& options, const CallContext& ctx) {
  LEAT_ASSIGN_OR_RETURN(const auto fault, Next({Op::kPut, std::string(key)}, ctx));
  if (fault && fault->code && !fault->after_effect) return Failure(*fault, key);
  auto done = inner().Put(key, body, options, ctx);
  if (fault && fault->code) return Failure(*fault, key);
  return done;
}

Status FaultStore::Remove(std::string_view key, const CallContext& ctx) {
  LEAT_ASSIGN_OR_RETURN(const auto fault, Next({Op::kRemove, std::string(key)}, ctx));
  if (fault && fault->code && !fault->after_effect) return Failure(*fault, key);
  auto done = inner().Remove(key, ctx);
  if (fault && fault->code) return Failure(*fault, key);
  return done;
}

}  // namespace leat::testing
