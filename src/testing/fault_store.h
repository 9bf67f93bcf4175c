// An ObjectStore whose faults a test writes down beforehand.
#ifndef LEAT_TESTING_FAULT_STORE_H_
#define LEAT_TESTING_FAULT_STORE_H_

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "store/forwarding_store.h"

namespace leat::testing {

enum class Op : std::uint8_t { kAny, kStat, kRead, kList, kPut, kRemove };

/// One thing that goes wrong, `times` times, after `skip` calls of that kind went well.
struct Fault {
  Op op = Op::kAny;
  std::string key = {};  ///< only calls for this key (or prefix to list); empty: any
  int skip = 0;
  int times = 1;
  /// What the call fails with; unset: it does not fail (but see below).
  std::optional<Errc> code = {};
  std::string message = "a fault was injected";
  /// Handed up as the server's Retry-After.
  std::chrono::milliseconds retry_after{0};
  /// A put or remove is done before it fails: the answer got lost.
  bool after_effect = false;
  /// A read delivers this many bytes before it fails with `code` (kUnavailable when unset).
  std::optional<std::uint64_t> cut_at = {};
  /// A read delivers this byte of its range with all bits turned.
  std::optional<std::uint64_t> wrong_byte_at = {};
  /// The call waits (until it is cancelled) for Release before it goes on.
  bool stall = false;
};

struct Call {
  Op op;
  std::string key;
  std::uint64_t offset = 0, length = 0;  ///< of reads
  store::Version if_version = {};
};

/// Thread-safe. Faults are tried in the order in which they were added; a call suffers the first
/// one that matches.
class FaultStore final : public store::ForwardingStore {
 public:
  explicit FaultStore(std::unique_ptr<store::ObjectStore> inner);
  ~FaultStore() override;

  void Add(Fault fault);
  void FailNext(Op op, Errc code, int times = 1) {
    Fault fault;
    fault.op = op;
    fault.times = times;
    fault.code = code;
    Add(std::move(fault));
  }
  /// Lets every stalled call go on.
  void Release();
  /// Blocks until `n` calls are stalled.
  void WaitForStalled(std::size_t n);
  std::vector<Call> calls() const;
  std::size_t CountOf(Op op) const;
  using ForwardingStore::inner;

  Result<store::ObjectInfo> Stat(std::string_view key, std::string_view version_id,
                                 const CallContext& ctx) override;
  Status Read(std::string_view key, const store::ReadOptions& options, const store::Sink& sink,
              const CallContext& ctx) override;
  Result<store::ListPage> List(std::string_view prefix, const store::ListOptions& options,
                               const CallContext& ctx) override;
  Result<store::Version> Put(std::string_view key, std::span<const std::byte> body,
                             const store::PutOptions& options, const CallContext& ctx) override;
  Status Remove(std::string_view key, const CallContext& ctx) override;
  /// One after the other, so that each may have its fault.
  std::vector<Status> RemoveMany(std::span<const store::Removal> removals,
                                 const CallContext& ctx) override {
    return ObjectStore::RemoveMany(removals, ctx);
  }

 private:
  /// Notes the call and gives its fault, after having waited where it stalls.
  Result<std::optional<Fault>> Next(Call call, const CallContext& ctx);
  std::unexpected<Error> Failure(const Fault& fault, std::string_view key) const;

  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  std::vector<Fault> faults_;
  std::vector<Call> calls_;
  std::size_t stalled_ = 0;
  std::uint64_t releases_ = 0;
};

}  // namespace leat::testing

#endif  // LEAT_TESTING_FAULT_STORE_H_
