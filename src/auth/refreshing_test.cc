#include "auth/refreshing.h"

#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "testing/fake_clock.h"

namespace leat::auth {
namespace {

using namespace std::chrono_literals;
using ::leat::testing::FakeClock;

class FakeSource final : public CredentialProvider {
 public:
  explicit FakeSource(std::function<Result<Credentials>(int call)> give) : give_(std::move(give)) {}
  Result<Credentials> Get(const CallContext& ctx) override {
    if (ctx.cancelled()) return Fail(Errc::kCancelled, "cancelled");
    return give_(++calls_);
  }
  int calls() const { return calls_; }

 private:
  const std::function<Result<Credentials>(int call)> give_;
  std::atomic<int> calls_ = 0;
};

class RefreshingTest : public ::testing::Test {
 protected:
  void Use(std::function<Result<Credentials>(int call)> give) {
    auto source = std::make_unique<FakeSource>(std::move(give));
    source_ = source.get();
    provider_ = std::make_unique<RefreshingProvider>(std::move(source), clock_);
  }
  // The n-th credentials of the source, which live for `life`.
  Credentials Numbered(int n, std::chrono::seconds life) {
    Credentials credentials;
    credentials.access_key_id = std::to_string(n);
    credentials.provider = "test";
    credentials.expires = clock_.Now() + life;
    return credentials;
  }
  void UseNumbered(std::chrono::seconds life) {
    Use([this, life](int call) { return Numbered(call, life); });
  }
  std::string Key() {
    const auto credentials = provider_->Get(ctx_);
    return credentials ? credentials->access_key_id : "error: " + credentials.error().message();
  }

  FakeClock clock_;
  CallContext ctx_;
  FakeSource* source_ = nullptr;
  std::unique_ptr<RefreshingProvider> provider_;
};

TEST_F(RefreshingTest, WhatNeverExpiresIsAskedForOnce) {
  Use([](int) {
    return Credentials{.access_key_id = "k",
                       .secret_access_key = {},
                       .session_token = {},
                       .expires = {},
                       .provider = {}};
  });
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(Key(), "k");
    clock_.Advance(24h);
  }
  EXPECT_EQ(source_->calls(), 1);
}

TEST_F(RefreshingTest, IsAskedAgainFiveMinutesBeforeTheEnd) {
  UseNumbered(1h);
  EXPECT_EQ(Key(), "1");
  clock_.Advance(55min - 1s);
  EXPECT_EQ(Key(), "1");
  clock_.Advance(1s);
  EXPECT_EQ(Key(), "2");
  EXPECT_EQ(Key(), "2");
}

TEST_F(RefreshingTest, AShortLifeIsRefreshedInItsSecondHalf) {
  UseNumbered(60s);
  EXPECT_EQ(Key(), "1");
  clock_.Advance(29s);
  EXPECT_EQ(Key(), "1");
  clock_.Advance(1s);
  EXPECT_EQ(Key(), "2");
}

TEST_F(RefreshingTest, AFailureToRefreshMattersOnlyAfterTheEnd) {
  Use([this](int call) -> Result<Credentials> {
    if (call == 1) return Numbered(call, 1h);
    if (call < 5) return Fail(Errc::kUnavailable, "away");
    return Numbered(call, 1h);
  });
  EXPECT_EQ(Key(), "1");
  clock_.Advance(56min);
  EXPECT_EQ(Key(), "1");
  EXPECT_EQ(source_->calls(), 2);
  clock_.Advance(29s);
  EXPECT_EQ(Key(), "1");
  EXPECT_EQ(source_->calls(), 2) << "tried again too soon";
  clock_.Advance(1s);
  EXPECT_EQ(Key(), "1");
  EXPECT_EQ(source_->calls(), 3);
  clock_.Advance(4min);
  EXPECT_EQ(Key(), "error: away");
  EXPECT_EQ(Key(), "5");
}

TEST_F(RefreshingTest, CredentialsThatCameExpiredAreAnError) {
  UseNumbered(0s);
  const auto credentials = provider_->Get(ctx_);
  ASSERT_FALSE(credentials);
  EXPECT_EQ(credentials.error().code(), Errc::kDenied);
  EXPECT_NE(credentials.error().message().find("the credentials from test expired at"),
            std::string::npos);
}

TEST_F(RefreshingTest, InvalidateAsksAnew) {
  UseNumbered(1h);
  EXPECT_EQ(Key(), "1");
  clock_.Advance(5s);
  provider_->Invalidate();
  EXPECT_EQ(Key(), "2");
}

TEST_F(RefreshingTest, InvalidateIsHeardThoughTheClockWasSetBack) {
  UseNumbered(24h);
  EXPECT_EQ(Key(), "1");
  clock_.Advance(-2h);
  provider_->Invalidate();
  EXPECT_EQ(Key(), "2");
}

TEST_F(RefreshingTest, LateInvalidationsSpeakOfTheOldOnes) {
  UseNumbered(1h);
  EXPECT_EQ(Key(), "1");
  clock_.Advance(10min);
  provider_->Invalidate();
  EXPECT_EQ(Key(), "2");
  provider_->Invalidate();  // of a request that was signed with "1"
  EXPECT_EQ(Key(), "2");
}

TEST_F(RefreshingTest, WhatWasRefusedIsNotHandedOutWhenTheSourceFails) {
  Use([this](int call) -> Result<Credentials> {
    if (call == 1) return Numbered(call, 1h);
    return Fail(Errc::kUnavailable, "away");
  });
  EXPECT_EQ(Key(), "1");
  clock_.Advance(1min);
  provider_->Invalidate();
  EXPECT_EQ(Key(), "error: away");
}

// A source that waits at a gate in its n-th call.
class Gate {
 public:
  void Wait() {
    std::unique_lock lock(mutex_);
    ++waiting_;
    changed_.notify_all();
    changed_.wait(lock, [&] { return open_; });
  }
  void AwaitVisitor() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return waiting_ > 0; });
  }
  void Open() {
    const std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int waiting_ = 0;
  bool open_ = false;
};

TEST_F(RefreshingTest, ManyThreadsCauseOneRequest) {
  Gate gate;
  Use([&](int call) {
    gate.Wait();
    return Numbered(call, 1h);
  });
  std::vector<std::thread> threads;
  std::atomic<int> good = 0;
  for (int i = 0; i < 8; ++i) threads.emplace_back([&] { good += Key() == "1"; });
  gate.AwaitVisitor();
  gate.Open();
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(good, 8);
  EXPECT_EQ(source_->calls(), 1);
}

TEST_F(RefreshingTest, OthersGoOnWithTheOldOnesWhileOneAsks) {
  Gate gate;
  Use([&](int call) {
    if (call == 2) gate.Wait();
    return Numbered(call, 1h);
  });
  EXPECT_EQ(Key(), "1");
  clock_.Advance(57min);
  std::thread asking([&] { EXPECT_EQ(Key(), "2"); });
  gate.AwaitVisitor();
  EXPECT_EQ(Key(), "1");
  gate.Open();
  asking.join();
  EXPECT_EQ(Key(), "2");
}

TEST_F(RefreshingTest, AWaitingThreadCanBeCancelled) {
  Gate gate;
  Use([&](int call) {
    gate.Wait();
    return Numbered(call, 1h);
  });
  std::thread asking([&] { EXPECT_EQ(Key(), "1"); });
  gate.AwaitVisitor();
  std::stop_source stop;
  stop.request_stop();
  const auto cancelled = provider_->Get({.stop = stop.get_token()});
  const auto expired = provider_->Get(CallContext().Within(1ms));
  gate.Open();
  asking.join();
  ASSERT_FALSE(cancelled);
  EXPECT_EQ(cancelled.error().code(), Errc::kCancelled);
  ASSERT_FALSE(expired);
  EXPECT_EQ(expired.error().code(), Errc::kDeadline);
}

TEST_F(RefreshingTest, WhenTheOneWhoAsksIsCancelledAnotherAsks) {
  Gate gate;
  Use([&](int call) -> Result<Credentials> {
    if (call == 1) {
      gate.Wait();
      return Fail(Errc::kCancelled, "cancelled");
    }
    return Numbered(call, 1h);
  });
  std::thread asking([&] { EXPECT_EQ(Key(), "error: cancelled"); });
  gate.AwaitVisitor();
  std::thread waiting([&] { EXPECT_EQ(Key(), "2"); });
  gate.Open();
  asking.join();
  waiting.join();
}

}  // namespace
}  // namespace leat::auth
