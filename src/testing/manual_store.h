// An ObjectStore whose reads complete when the test says so.
#ifndef LEAT_TESTING_MANUAL_STORE_H_
#define LEAT_TESTING_MANUAL_STORE_H_

#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "store/object_store.h"

namespace leat::testing {

/// Thread-safe. Every Read waits, before it asks the inner store, for Complete, Fail or its
/// cancellation; everything else passes through. Reads are numbered from 1 in the order in which
/// they came.
class ManualStore final : public store::ObjectStore {
 public:
  struct Pending {
    std::uint64_t number = 0;
    std::string key;
    std::uint64_t offset = 0, length = 0;
  };

  explicit ManualStore(std::unique_ptr<store::ObjectStore> inner);
  ~ManualStore() override;

  std::vector<Pending> pending() const;
  /// Blocks until at least `n` reads wait; gives them.
  std::vector<Pending> WaitForPending(std::size_t n);
  /// How many reads came so far.
  std::uint64_t reads() const;
  void Complete(std::uint64_t number);
  void Fail(std::uint64_t number, Error error);
  /// Completes what waits, and lets later reads pass (Hold ends that).
  void LetAllPass();
  void Hold();

  std::string_view Describe() const override { return inner_->Describe(); }
  std::string_view Identity() const override { return inner_->Identity(); }
  store::Capabilities capabilities() const override { return inner_->capabilities(); }
  std::string UrlOf(std::string_view key) const override { return inner_->UrlOf(key); }
  Result<store::ObjectInfo> Stat(std::string_view key, std::string_view version_id,
                                 const CallContext& ctx) override;
  Status Read(std::string_view key, const store::ReadOptions& options, const store::Sink& sink,
              const CallContext& ctx) override;
  Result<store::ListPage> List(std::string_view prefix, const store::ListOptions& options,
                               const CallContext& ctx) override;
  Result<store::Version> Put(std::string_view key, std::span<const std::byte> body,
                             const store::PutOptions& options, const CallContext& ctx) override;
  Status Remove(std::string_view key, const CallContext& ctx) override;

 private:
  struct Waiting {
    Pending read;
    bool decided = false;
    std::optional<Error> error = {};
  };

  const std::unique_ptr<store::ObjectStore> inner_;
  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  std::map<std::uint64_t, Waiting> waiting_;
  std::uint64_t reads_ = 0;
  bool pass_ = false;
};

}  // namespace leat::testing

#endif  // LEAT_TESTING_MANUAL_STORE_H_
