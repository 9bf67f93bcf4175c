#include "store/decorators.h"

#include <gtest/gtest.h>

#include <new>
#include <thread>

#include "base/bytes.h"
#include "store/memory/memory_store.h"
#include "testing/conformance.h"
#include "testing/fake_clock.h"
#include "testing/fault_store.h"
#include "testing/manual_store.h"

namespace leat::testing {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using store::memory::MakeMemoryStore;

/// Retrying around a FaultStore around memory.
class RetryingTest : public ::testing::Test {
 protected:
  Result<std::string> Read(store::ReadOptions options = {}) {
    std::string body;
    LEAT_RETURN_IF_ERROR(store_->Read("x", options,
                                      [&](std::span<const std::byte> piece) -> Status {
                                        body += AsText(piece);
                                        return {};
                                      },
                                      {}));
    return body;
  }
  void CutAt(std::uint64_t at, int times = 1) {
    Fault fault;
    fault.op = Op::kRead;
    fault.times = times;
    fault.cut_at = at;
    faults_->Add(fault);
  }
  void Put(std::string_view body) { ASSERT_TRUE(faults_->inner().Put("x", AsBytes(body), {}, {})); }

  store::RetryPolicy policy_;
  FakeClock clock_;
  store::RequestCounts counts_;
  FaultStore* faults_ = nullptr;
  std::unique_ptr<store::ObjectStore> store_ = [this] {
    auto faults = std::make_unique<FaultStore>(MakeMemoryStore());
    faults_ = faults.get();
    return store::MakeRetrying(std::move(faults), &policy_, clock_, &counts_);
  }();
};

TEST_F(RetryingTest, WhatIsUnavailableIsTriedAgainLaterAndLater) {
  Put("body");
  faults_->FailNext(Op::kStat, Errc::kUnavailable, 4);
  EXPECT_TRUE(store_->Stat("x", "", {}));
  const auto sleeps = clock_.sleeps();
  ASSERT_EQ(sleeps.size(), 4u);
  for (std::size_t i = 0; i < sleeps.size(); ++i) {
    EXPECT_GE(sleeps[i], milliseconds(50 << i));
    EXPECT_LE(sleeps[i], milliseconds(150 << i));
  }
  EXPECT_EQ(counts_.retries, 4u);
}

TEST_F(RetryingTest, WhatCannotSucceedIsNotTriedAgain) {
  Put("body");
  for (const Errc code : {Errc::kNotFound, Errc::kDenied, Errc::kConflict, Errc::kInvalid,
                          Errc::kCorrupt, Errc::kCancelled}) {
    faults_->FailNext(Op::kAny, code);
    EXPECT_EQ(store_->Stat("x", "", {}).error().code(), code);
  }
  EXPECT_TRUE(clock_.sleeps().empty());
}

TEST_F(RetryingTest, EveryOperationIsRepeated) {
  Put("body");
  for (const Op op : {Op::kStat, Op::kRead, Op::kList, Op::kPut, Op::kRemove}) {
    faults_->FailNext(op, Errc::kUnavailable, 2);
  }
  EXPECT_TRUE(store_->Stat("x", "", {}));
  EXPECT_EQ(Read().value_or("?"), "body");
  EXPECT_EQ(store_->List("", {}, {}).value().objects.size(), 1u);
  EXPECT_TRUE(store_->Put("y", {}, {}, {}));
  EXPECT_TRUE(store_->Remove("y", {}));
  EXPECT_EQ(counts_.retries, 10u);
}

TEST_F(RetryingTest, OfSeveralOnlyThoseThatFailedAreRemovedAgain) {
  const std::vector<store::Removal> keys = {{.key = "a"}, {.key = "b"}, {.key = "c"}, {.key = "d"}};
  for (const auto& [key, in_parts] : keys)
    ASSERT_TRUE(faults_->inner().Put(key, AsBytes(key), {}, {}));
  faults_->FailNext(Op::kRemove, Errc::kUnavailable, 2);
  faults_->FailNext(Op::kRemove, Errc::kDenied, 1);
  const std::vector<Status> done = store_->RemoveMany(keys, {});
  ASSERT_EQ(done.size(), 4u);
  EXPECT_TRUE(done[0] && done[1] && done[3]);
  ASSERT_FALSE(done[2]);
  EXPECT_EQ(done[2].error().code(), Errc::kDenied);
  std::string asked;
  for (const auto& call : faults_->calls()) asked += call.key;
  EXPECT_EQ(asked, "abcdab");
  EXPECT_EQ(counts_.retries, 1u);
}

TEST_F(RetryingTest, WhatCannotBeRemovedForLongKeepsItsError) {
  policy_.max_attempts = 3;
  faults_->FailNext(Op::kRemove, Errc::kUnavailable, 100);
  const std::vector<Status> done =
      store_->RemoveMany(std::vector<store::Removal>{{.key = "a"}, {.key = "b"}}, {});
  ASSERT_EQ(done.size(), 2u);
  for (std::size_t i = 0; i < 2; ++i) {
    ASSERT_FALSE(done[i]);
    EXPECT_NE(done[i].error().message().find(i == 0 ? "/a" : "/b"), std::string::npos)
        << done[i].error().message();
  }
}

TEST_F(RetryingTest, TheTotalIsALimitAndTheLastErrorIsKept) {
  policy_.total = seconds(30);
  faults_->FailNext(Op::kStat, Errc::kUnavailable, 1'000'000);
  const auto start = clock_.Now();
  const auto stat = store_->Stat("x", "", {});
  ASSERT_FALSE(stat);
  EXPECT_EQ(stat.error().code(), Errc::kUnavailable);
  EXPECT_NE(stat.error().message().find("a fault was injected (tried "), std::string::npos)
      << stat.error().message();
  EXPECT_LE(clock_.Now() - start, seconds(30));
  EXPECT_GE(clock_.Now() - start, seconds(10));
}

TEST_F(RetryingTest, ARetryAfterIsRespectedAndForgotten) {
  Put("body");
  Fault fault;
  fault.op = Op::kStat;
  fault.code = Errc::kUnavailable;
  fault.retry_after = seconds(7);
  faults_->Add(fault);
  faults_->FailNext(Op::kStat, Errc::kUnavailable);
  EXPECT_TRUE(store_->Stat("x", "", {}));
  const auto sleeps = clock_.sleeps();
  ASSERT_EQ(sleeps.size(), 2u);
  EXPECT_EQ(sleeps[0], seconds(7));
  EXPECT_LT(sleeps[1], seconds(1));
}

TEST_F(RetryingTest, ACallThatIsCancelledWhileItWaitsEnds) {
  FakeClock waiting(FakeClock::Mode::kWait);
  auto faults = std::make_unique<FaultStore>(MakeMemoryStore());
  faults->FailNext(Op::kStat, Errc::kUnavailable, 1000);
  const auto store = store::MakeRetrying(std::move(faults), &policy_, waiting, nullptr);
  std::stop_source stop;
  std::jthread caller([&] {
    const auto stat = store->Stat("x", "", {.stop = stop.get_token()});
    ASSERT_FALSE(stat);
    EXPECT_EQ(stat.error().code(), Errc::kCancelled);
    EXPECT_NE(stat.error().message().find("a fault was injected"), std::string::npos);
  });
  waiting.WaitForSleepers(1);
  stop.request_stop();
}

TEST_F(RetryingTest, AReadGoesOnWhereItBrokeOff) {
  std::string body;
  for (int i = 0; i < 100'000; ++i) body += std::to_string(i);
  for (const std::uint64_t cut : {0ull, 1ull, 65'535ull, 65'536ull, 400'000ull}) {
    SCOPED_TRACE(cut);
    Put(body);
    CutAt(cut, 2);
    int infos = 0;
    const auto got =
        Read({.offset = 10, .length = 450'000, .on_info = [&](const store::ObjectInfo&) -> Status {
                ++infos;
                return {};
              }});
    ASSERT_TRUE(got) << got.error().message();
    EXPECT_TRUE(*got == body.substr(10, 450'000));
    EXPECT_EQ(infos, 1);
  }
  const auto calls = faults_->calls();
  const auto& last = calls.back();
  EXPECT_EQ(last.op, Op::kRead);
  EXPECT_FALSE(last.if_version.empty()) << "pinned to what the first answer had";
}

TEST_F(RetryingTest, AReadThatGetsOnMayBreakAsOftenAsItLikes) {
  policy_.max_attempts = 4;
  policy_.total = seconds(15);
  const std::string body(3'000'000, 'x');
  Put(body);
  CutAt(100'000, 20);
  const auto got = Read({});
  ASSERT_TRUE(got) << got.error().message();
  EXPECT_EQ(got->size(), body.size());
  CutAt(100, 20);
  EXPECT_FALSE(Read({})) << "a few bytes each time are no progress";
}

TEST_F(RetryingTest, AReadWhoseLastByteArrivedIsDone) {
  Put("0123456789");
  CutAt(10);
  EXPECT_EQ(Read().value_or("?"), "0123456789");
  CutAt(4);
  EXPECT_EQ(Read({.offset = 3, .length = 4}).value_or("?"), "3456");
  EXPECT_EQ(faults_->CountOf(Op::kRead), 2u);
}

TEST_F(RetryingTest, AResumedReadNeverMixesTwoObjects) {
  Put(std::string(200'000, 'a'));
  CutAt(100'000);
  std::string got;
  bool replaced = false;
  const auto first = faults_->inner().Stat("x", "", {}).value().version;
  const auto done = store_->Read("x", {.if_version = {.etag = first.etag}},
                                 [&](std::span<const std::byte> piece) -> Status {
                                   got += AsText(piece);
                                   if (!std::exchange(replaced, true))
                                     Put(std::string(200'000, 'b'));
                                   return {};
                                 },
                                 {});
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code(), Errc::kConflict);
  EXPECT_EQ(got, std::string(100'000, 'a'));
}

TEST_F(RetryingTest, AnErrorOfTheCallerIsNotRetried) {
  Put("body");
  int calls = 0;
  const auto done = store_->Read("x", {},
                                 [&](std::span<const std::byte>) -> Status {
                                   ++calls;
                                   return Fail(Errc::kUnavailable, "the caller's own");
                                 },
                                 {});
  EXPECT_EQ(done.error().message(), "the caller's own");
  EXPECT_EQ(calls, 1);
  EXPECT_TRUE(clock_.sleeps().empty());
}

TEST_F(RetryingTest, AnIfAbsentPutWhoseAnswerWasLostIsOurs) {
  Fault lost;
  lost.op = Op::kPut;
  lost.code = Errc::kUnavailable;
  lost.after_effect = true;
  faults_->Add(lost);
  const auto ours = store_->Put("x", AsBytes("mine"), {.if_absent = true}, {});
  ASSERT_TRUE(ours) << ours.error().message();
  EXPECT_EQ(ours->etag, faults_->inner().Stat("x", "", {}).value().version.etag);

  faults_->FailNext(Op::kPut, Errc::kUnavailable);
  const auto theirs = store_->Put("x", AsBytes("else"), {.if_absent = true}, {});
  ASSERT_FALSE(theirs);
  EXPECT_EQ(theirs.error().code(), Errc::kConflict);
}

TEST_F(RetryingTest, ThePolicyMayChangeWhileACallIsUnderWay) {
  FakeClock waiting(FakeClock::Mode::kWait);
  auto faults = std::make_unique<FaultStore>(MakeMemoryStore());
  faults->FailNext(Op::kStat, Errc::kUnavailable, 1000);
  store::RetryPolicy policy;
  const auto store = store::MakeRetrying(std::move(faults), &policy, waiting, nullptr);
  std::jthread caller(
      [&] { EXPECT_EQ(store->Stat("x", "", {}).error().code(), Errc::kUnavailable); });
  waiting.WaitForSleepers(1);
  policy.max_attempts = 2;
  waiting.Advance(seconds(1));
}

TEST(Counted, CountsCallsBytesAndFailures) {
  // As in memory shared by processes: zeroed, no constructor run.
  alignas(store::RequestCounts) std::byte memory[sizeof(store::RequestCounts)] = {};
  auto* counts = std::launder(reinterpret_cast<store::RequestCounts*>(memory));
  const auto store = store::MakeCounted(MakeMemoryStore(), counts);
  ASSERT_TRUE(store->Put("x", AsBytes("12345"), {}, {}));
  ASSERT_TRUE(store->Stat("x", "", {}));
  ASSERT_FALSE(store->Stat("y", "", {}));
  ASSERT_TRUE(store->Read("x", {.offset = 1}, [](auto) { return Status(); }, {}));
  ASSERT_TRUE(store->List("", {}, {}));
  ASSERT_TRUE(store->Remove("x", {}));
  EXPECT_EQ(counts->gets, 1u);
  EXPECT_EQ(counts->heads, 2u);
  EXPECT_EQ(counts->lists, 1u);
  EXPECT_EQ(counts->puts, 1u);
  EXPECT_EQ(counts->deletes, 1u);
  EXPECT_EQ(counts->failures, 1u);
  EXPECT_EQ(counts->bytes_in, 4u);
  EXPECT_EQ(counts->bytes_out, 5u);
  EXPECT_EQ(counts->requests(), 6u);
}

TEST(Mapped, ShowsWhatLiesElsewhereAndItsOwnWhereNothingDoes) {
  std::shared_ptr<store::ObjectStore> inner = MakeMemoryStore("mem://b");
  const auto put = [&](const char* key, std::string_view text) {
    ASSERT_TRUE(inner->Put(key, AsBytes(text), {}, {}));
  };
  put("a", "own");
  put("new/a", "moved");
  put("b", "b");
  const auto read = [](store::ObjectStore& from, const char* key) {
    std::string out;
    const Status status =
        from.Read(key, {},
                  [&](std::span<const std::byte> piece) -> Status {
                    out.append(reinterpret_cast<const char*>(piece.data()), piece.size());
                    return {};
                  },
                  {});
    return status ? out : "error: " + status.error().message();
  };
  const auto mapped = store::MakeMapped(inner, {{"a", "new/a"}}, true);
  const auto strict = store::MakeMapped(inner, {{"a", "new/a"}});
  EXPECT_EQ(read(*mapped, "a"), "moved");
  EXPECT_EQ(mapped->Stat("a", "", {})->size, 5u);
  EXPECT_EQ(read(*mapped, "b"), "b");
  ASSERT_TRUE(inner->Remove("new/a", {}));
  EXPECT_EQ(read(*mapped, "a"), "own");
  EXPECT_EQ(mapped->Stat("a", "", {})->size, 3u);
  EXPECT_NE(read(*strict, "a").find("new/a"), std::string::npos);
}

TEST(ManualStore, AReadCompletesWhenTheTestSaysSo) {
  ManualStore store(MakeMemoryStore());
  ASSERT_TRUE(store.Put("x", AsBytes("body"), {}, {}));
  std::jthread first([&] { EXPECT_TRUE(store.Read("x", {}, [](auto) { return Status(); }, {})); });
  const auto pending = store.WaitForPending(1);
  EXPECT_EQ(pending[0].key, "x");
  store.Complete(pending[0].number);
  first.join();
  std::jthread second([&] {
    EXPECT_EQ(store.Read("x", {}, [](auto) { return Status(); }, {}).error().code(),
              Errc::kCorrupt);
  });
  store.Fail(store.WaitForPending(1)[0].number, Error(Errc::kCorrupt, "rotten"));
}

TEST(FaultStore, AStalledCallWaitsForItsRelease) {
  FaultStore store(MakeMemoryStore());
  ASSERT_TRUE(store.Put("x", AsBytes("body"), {}, {}));
  Fault fault;
  fault.op = Op::kRead;
  fault.stall = true;
  fault.wrong_byte_at = 1;
  store.Add(fault);
  std::string got;
  std::jthread reader([&] {
    EXPECT_TRUE(store.Read("x", {},
                           [&](std::span<const std::byte> piece) -> Status {
                             got += AsText(piece);
                             return {};
                           },
                           {}));
  });
  store.WaitForStalled(1);
  store.Release();
  reader.join();
  EXPECT_EQ(got[0], 'b');
  EXPECT_EQ(got[1], static_cast<char>(~'o'));
}

}  // namespace

/// Subjects whose stores need something that outlives them.
class RetryingSubject final : public Subject {
 public:
  store::ObjectStore& store() override { return *store_; }

 private:
  store::RetryPolicy policy_;
  FakeClock clock_;
  std::unique_ptr<store::ObjectStore> store_ =
      store::MakeRetrying(MakeMemoryStore(), &policy_, clock_, nullptr);
};
class CountedSubject final : public Subject {
 public:
  store::ObjectStore& store() override { return *store_; }

 private:
  store::RequestCounts counts_;
  std::unique_ptr<store::ObjectStore> store_ = store::MakeCounted(MakeMemoryStore(), &counts_);
};
/// Every read breaks off twice, and every other call fails once.
class FlakySubject final : public Subject {
 public:
  store::ObjectStore& store() override { return *store_; }

 private:
  class Flaky final : public store::ObjectStore {
   public:
    std::string_view Describe() const override { return inner_->Describe(); }
    std::string_view Identity() const override { return inner_->Identity(); }
    store::Capabilities capabilities() const override { return inner_->capabilities(); }
    Result<store::ObjectInfo> Stat(std::string_view key, std::string_view version_id,
                                   const CallContext& ctx) override {
      if (Fails()) return Fail(Errc::kUnavailable, "flaky");
      return inner_->Stat(key, version_id, ctx);
    }
    Status Read(std::string_view key, const store::ReadOptions& options, const store::Sink& sink,
                const CallContext& ctx) override {
      bool broke = false;
      auto done = inner_->Read(
          key, options,
          [&](std::span<const std::byte> piece) -> Status {
            if (Fails()) {
              broke = true;
              if (piece.size() > 1) {
                if (auto some = sink(piece.first(piece.size() / 2)); !some) return some;
              }
              return Fail(Errc::kUnavailable, "flaky");
            }
            return sink(piece);
          },
          ctx);
      return done;
    }
    Result<store::ListPage> List(std::string_view prefix, const store::ListOptions& options,
                                 const CallContext& ctx) override {
      if (Fails()) return Fail(Errc::kUnavailable, "flaky");
      return inner_->List(prefix, options, ctx);
    }
    Result<store::Version> Put(std::string_view key, std::span<const std::byte> body,
                               const store::PutOptions& options, const CallContext& ctx) override {
      if (Fails()) return Fail(Errc::kUnavailable, "flaky");
      return inner_->Put(key, body, options, ctx);
    }
    Status Remove(std::string_view key, const CallContext& ctx) override {
      if (Fails()) return Fail(Errc::kUnavailable, "flaky");
      return inner_->Remove(key, ctx);
    }

   private:
    bool Fails() { return calls_.fetch_add(1) % 2 == 0; }
    std::unique_ptr<store::ObjectStore> inner_ = MakeMemoryStore();
    std::atomic<unsigned> calls_{0};
  };
  store::RetryPolicy policy_;
  FakeClock clock_;
  std::unique_ptr<store::ObjectStore> store_ =
      store::MakeRetrying(std::make_unique<Flaky>(), &policy_, clock_, nullptr);
};
class ManualSubject final : public Subject {
 public:
  ManualSubject() { store_.LetAllPass(); }
  store::ObjectStore& store() override { return store_; }

 private:
  ManualStore store_{MakeMemoryStore()};
};

INSTANTIATE_TEST_SUITE_P(
    Decorators, ObjectStoreSuite,
    ::testing::Values(
        StoreCase{.name = "Retrying", .make = [] { return std::make_unique<RetryingSubject>(); }},
        StoreCase{.name = "RetryingWhatIsFlaky",
                  .make = [] { return std::make_unique<FlakySubject>(); }},
        StoreCase{.name = "Counted", .make = [] { return std::make_unique<CountedSubject>(); }},
        StoreCase{
            .name = "Fault",
            .make = [] { return MakeSubject(std::make_unique<FaultStore>(MakeMemoryStore())); }},
        StoreCase{.name = "Manual", .make = [] { return std::make_unique<ManualSubject>(); }}),
    NameOfCase);

}  // namespace leat::testing
