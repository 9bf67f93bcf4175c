#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "base/bytes.h"
#include "base/concurrency.h"
#include "base/log.h"
#include "base/memory_budget.h"
#include "base/text.h"
#include "base/thread_pool.h"

namespace leat {
namespace {

using namespace std::chrono_literals;

// ---------------------------------------------------------------- numbers of bytes

TEST(ParseSize, ReadsWhatPeopleWrite) {
  const std::vector<std::pair<std::string, std::uint64_t>> cases = {
      {"0", 0},
      {"512", 512},
      {"1K", 1000},
      {"1k", 1000},
      {"1Ki", 1024},
      {"1KiB", 1024},
      {"1kB", 1000},
      {"500M", 500'000'000},
      {"5G", 5'000'000'000},
      {"5Gi", 5ULL << 30},
      {"2T", 2'000'000'000'000},
      {"2Ti", 2ULL << 40},
      {"1.5Gi", 3ULL << 29},
      {"0.5K", 500},
      {"12B", 12},
      {"9007199254740993", 9007199254740993},  // more than a double tells apart
      {"9223372036854775807", 9223372036854775807},
      {"18446744073709551615", UINT64_MAX},
      {"16777215Ti", 16777215ULL << 40}};
  for (const auto& [text, bytes] : cases) {
    const auto size = ParseSize(text);
    ASSERT_TRUE(size) << text;
    EXPECT_EQ(*size, bytes) << text;
  }
}

TEST(ParseSize, RefusesAllElse) {
  for (const char* text : {"",
                           " ",
                           "B",
                           "K",
                           "Gi",
                           "-1",
                           "-1K",
                           "+1",
                           "1 G",
                           " 1",
                           "1 ",
                           "1e3",
                           "0x10",
                           "inf",
                           "nan",
                           "1i",
                           "1Gii",
                           "1GG",
                           "1BB",
                           "1E",
                           "1Pi",
                           "ten",
                           "1,5G",
                           "1.5.5",
                           "18446744073709551616",
                           "16777216Ti",
                           "99999999999999999999T",
                           "1e400"}) {
    const auto size = ParseSize(text);
    EXPECT_FALSE(size) << "\"" << text << "\" is " << (size ? *size : 0);
    if (!size) {
      EXPECT_EQ(size.error().code(), Errc::kInvalid);
    }
  }
}

TEST(FormatBytes, HasOneDecimalAndTheUnitThatFits) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(999), "999 B");
  EXPECT_EQ(FormatBytes(1000), "1.0 kB");
  EXPECT_EQ(FormatBytes(9'100'000), "9.1 MB");
  EXPECT_EQ(FormatBytes(999'949), "999.9 kB");
  EXPECT_EQ(FormatBytes(999'960), "1.0 MB") << "not 1000.0 kB";
  EXPECT_EQ(FormatBytes(1ULL << 30), "1.1 GB");
  EXPECT_EQ(FormatBytes(UINT64_MAX), "18.4 EB");
}

TEST(FormatCount, HasCommas) {
  EXPECT_EQ(FormatCount(0), "0");
  EXPECT_EQ(FormatCount(999), "999");
  EXPECT_EQ(FormatCount(1000), "1,000");
  EXPECT_EQ(FormatCount(1234567), "1,234,567");
  EXPECT_EQ(FormatCount(UINT64_MAX), "18,446,744,073,709,551,615");
}

TEST(Hex, GoesThereAndBack) {
  std::string all;
  for (int i = 0; i < 256; ++i) all += static_cast<char>(i);
  const std::string hex = ToHex(AsBytes(all));
  EXPECT_EQ(hex.substr(0, 6), "000102");
  EXPECT_EQ(hex.substr(508), "feff");
  EXPECT_EQ(*FromHex(hex), all);
  EXPECT_EQ(*FromHex("aAfF"), "\xaa\xff");
  EXPECT_EQ(*FromHex(""), "");
  for (const char* bad : {"a", "0g", "zz", "0 ", "abc"}) EXPECT_FALSE(FromHex(bad)) << bad;
}

TEST(IsUtf8, TakesWhatRfc3629Allows) {
  for (const std::string_view text :
       {"", "a", "\x7f", "ü", "\xC2\x80", "\xE0\xA0\x80", "\xED\x9F\xBF", "\xEE\x80\x80",
        "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF", "日本語🐎"})
    EXPECT_TRUE(IsUtf8(text)) << text;
  for (const std::string_view text :
       {"\x80", "\xC0\x80", "\xC1\xBF", "\xC2", "\xC2 ", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xE2\x82",
        "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xF8\x88\x80\x80\x80", "\xFE", "a\xFF"})
    EXPECT_FALSE(IsUtf8(text)) << text;
}

TEST(Printable, ShowsWhatATerminalWouldObey) {
  EXPECT_EQ(Printable("plain ü \xf0\x9f\x98\x80"), "plain ü \xf0\x9f\x98\x80");
  EXPECT_EQ(Printable("a\x1b[2Jb\n\x7f"), "a\\x1b[2Jb\\x0a\\x7f");
  EXPECT_EQ(Printable(std::string_view("\0", 1)), "\\x00");
  EXPECT_EQ(Printable("\xc2\x9b"
                      "2J")
                .find("\x9b"),
            std::string::npos)
      << "CSI of eight bits";
}

TEST(Error, SaysWhatWasBeingDoneInFront) {
  Status inner = Fail(Errc::kUnavailable, "connection reset");
  Status outer = Fail(std::move(inner), "reading s3://b/k");
  EXPECT_EQ(outer.error().message(), "reading s3://b/k: connection reset");
  EXPECT_EQ(outer.error().code(), Errc::kUnavailable);
  for (const Errc code : {Errc::kNotFound, Errc::kConflict, Errc::kInvalid, Errc::kDenied,
                          Errc::kUnavailable, Errc::kDeadline, Errc::kCancelled, Errc::kCorrupt,
                          Errc::kNoSpace, Errc::kUnsupported, Errc::kInternal}) {
    EXPECT_FALSE(ErrcName(code).empty());
    EXPECT_EQ(IsRetryable(code), code == Errc::kUnavailable) << ErrcName(code);
  }
}

TEST(Error, ErrnoBecomesACodeThatCallersBranchOn) {
  EXPECT_EQ(FailErrno(ENOENT, "x").error().code(), Errc::kNotFound);
  EXPECT_EQ(FailErrno(EACCES, "x").error().code(), Errc::kDenied);
  EXPECT_EQ(FailErrno(ENOSPC, "x").error().code(), Errc::kNoSpace);
  EXPECT_EQ(FailErrno(EDQUOT, "x").error().code(), Errc::kNoSpace);
  EXPECT_EQ(FailErrno(ENOENT, "/a/b").error().message(), "/a/b: No such file or directory");
}

// ---------------------------------------------------------------- threads

TEST(ThreadPool, RunsEverythingAndWaits) {
  ThreadPool pool(4);
  std::atomic<int> sum{0};
  for (int i = 1; i <= 1000; ++i) pool.Submit([&, i] { sum += i; });
  pool.Wait();
  EXPECT_EQ(sum, 500500);
  EXPECT_EQ(pool.queued(), 0u);
}

TEST(ThreadPool, BeginsInOrderAndLetsWhatIsWaitedForGoFirst) {
  ThreadPool pool(1);
  std::mutex gate;
  std::vector<int> order;
  gate.lock();
  pool.Submit([&] { const std::lock_guard lock(gate); });
  while (pool.queued() > 0) std::this_thread::yield();
  for (int i = 1; i <= 3; ++i) pool.Submit([&, i] { order.push_back(i); });
  pool.SubmitFirst([&] { order.push_back(0); });
  gate.unlock();
  pool.Wait();
  EXPECT_EQ(order, (std::vector<int>{0, 1, 2, 3}));
}

TEST(ThreadPool, UsesAsManyThreadsAsItMayAtOnce) {
  ThreadPool pool(3);
  std::atomic<int> running{0}, most{0};
  for (int i = 0; i < 12; ++i) {
    pool.Submit([&] {
      const int now = ++running;
      for (int seen = most; seen < now && !most.compare_exchange_weak(seen, now);) {
      }
      const auto until = std::chrono::steady_clock::now() + 2s;
      while (most < 3 && std::chrono::steady_clock::now() < until) std::this_thread::yield();
      --running;
    });
  }
  pool.Wait();
  EXPECT_EQ(most, 3);
}

TEST(ThreadPool, DropsWhatHasNotBegunAtItsEnd) {
  std::atomic<int> ran{0};
  std::mutex gate;
  gate.lock();
  {
    auto pool = std::make_unique<ThreadPool>(1);
    pool->Submit([&] {
      ++ran;
      const std::lock_guard lock(gate);
    });
    while (ran == 0) std::this_thread::yield();
    for (int i = 0; i < 10; ++i) pool->Submit([&] { ++ran; });
    std::thread end([&] { pool.reset(); });
    std::this_thread::sleep_for(20ms);  // the destructor waits for what has begun
    gate.unlock();
    end.join();
  }
  EXPECT_EQ(ran, 1);
}

// What gets done is told by `rate`, of how many are at it; the number after `seconds`.
std::size_t SettlesAt(std::size_t first, std::size_t most,
                      const std::function<double(double)>& rate, double seconds = 10) {
  double done = 0;
  Concurrency concurrency(first, most, [&] { return static_cast<std::uint64_t>(done); });
  auto now = Concurrency::Clock::time_point() + std::chrono::hours(1);
  std::size_t allowed = concurrency.Allowed(now);
  for (double at = 0; at < seconds; at += 0.01) {
    now += std::chrono::milliseconds(10);
    done += rate(static_cast<double>(allowed)) * 0.01;
    allowed = concurrency.Allowed(now);
  }
  return allowed;
}

TEST(Concurrency, GrowsWhileThatHelpsAndNotBeyond) {
  const auto latency_bound = [](double n) { return n * 1e6; };
  EXPECT_EQ(SettlesAt(8, 64, latency_bound, 2), 64u);
  EXPECT_EQ(SettlesAt(8, 8, latency_bound), 8u) << "what the user chose";
  const auto full_at_20 = [](double n) { return std::min(n, 20.0) * 1e6; };
  EXPECT_EQ(SettlesAt(8, 64, full_at_20, 2), 32u);
  const auto worse_with_more = [](double n) { return 1e9 / (10 + n); };
  EXPECT_LE(SettlesAt(32, 128, worse_with_more, 30), 8u);
  const auto one_does_it_all = [](double) { return 1e6; };
  EXPECT_GE(SettlesAt(32, 128, one_does_it_all, 60), 2u);
  EXPECT_EQ(SettlesAt(8, 64, [](double) { return 0; }), 8u) << "nothing is done: nothing is learnt";
}

TEST(ParallelFor, FollowsWhatIsAllowed) {
  std::atomic<std::size_t> allowed{1}, at_once{0}, most_at_once{0}, count{0};
  ParallelFor(
      300, [&] { return allowed.load(); },
      [&](std::size_t i) {
        const std::size_t now = ++at_once;
        if (i == 100) allowed = 5;
        if (i == 200) allowed = 2;
        EXPECT_TRUE(now == 1 || i >= 100);
        for (std::size_t most = most_at_once;
             now > most && !most_at_once.compare_exchange_weak(most, now);) {
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
        --at_once;
        ++count;
        return true;
      });
  EXPECT_EQ(count, 300u);
  EXPECT_LE(most_at_once, 5u);
  EXPECT_GT(most_at_once, 1u);
}

TEST(ParallelFor, DoesEachOnceAndStopsWhereAskedTo) {
  std::vector<std::atomic<int>> done(1000);
  ParallelFor(done.size(), 4, [&](std::size_t i) {
    ++done[i];
    return true;
  });
  for (const auto& d : done) EXPECT_EQ(d, 1);
  std::atomic<std::size_t> count{0};
  ParallelFor(1'000'000, 4, [&](std::size_t) { return ++count < 10; });
  EXPECT_LT(count, 20u);
  ParallelFor(0, 4, [](std::size_t) -> bool {
    ADD_FAILURE();
    return true;
  });
}

// ---------------------------------------------------------------- memory

TEST(MemoryBudget, TakesOnlyWhatIsThere) {
  MemoryBudget budget(100);
  EXPECT_TRUE(budget.TryTake(60));
  EXPECT_FALSE(budget.TryTake(41));
  EXPECT_TRUE(budget.TryTake(40));
  EXPECT_EQ(budget.used(), 100u);
  budget.Give(100);
  EXPECT_EQ(budget.used(), 0u);
}

TEST(MemoryBudget, WaitsForWhatAReaderAskedFor) {
  MemoryBudget budget(100);
  ASSERT_TRUE(budget.TryTake(80));
  std::atomic<bool> had{false};
  std::thread waiter([&] {
    EXPECT_TRUE(budget.Take(50, {}));
    had = true;
  });
  std::this_thread::sleep_for(20ms);
  EXPECT_FALSE(had);
  budget.Give(80);
  waiter.join();
  EXPECT_EQ(budget.used(), 50u);
}

TEST(MemoryBudget, GivesUpWhenCancelledOrLate) {
  MemoryBudget budget(100);
  ASSERT_TRUE(budget.TryTake(80));
  EXPECT_FALSE(budget.Take(50, CallContext{}.Within(10ms)));
  std::stop_source stop;
  std::thread canceller([&] {
    std::this_thread::sleep_for(10ms);
    stop.request_stop();
  });
  EXPECT_FALSE(budget.Take(50, {stop.get_token(), CallContext{}.deadline}));
  canceller.join();
  EXPECT_EQ(budget.used(), 80u);
}

TEST(MemoryBudget, OneTakingLargerThanAllIsLetThroughAlone) {
  MemoryBudget budget(100);
  EXPECT_TRUE(budget.Take(1000, {}));
  EXPECT_FALSE(budget.TryTake(1));
  budget.Give(1000);
  EXPECT_TRUE(budget.TryTake(100));
}

TEST(MemoryHold, GivesBackOnce) {
  MemoryBudget budget(100);
  ASSERT_TRUE(budget.TryTake(70));
  {
    MemoryHold a(budget, 30), b(budget, 40);
    MemoryHold c = std::move(a);
    b = std::move(c);  // gives b's 40
    EXPECT_EQ(budget.used(), 30u);
  }
  EXPECT_EQ(budget.used(), 0u);
}

TEST(MemoryBudget, DefaultIsWithinItsBounds) {
  EXPECT_GE(MemoryBudget::DefaultBytes(), 64 * kMiB);
  EXPECT_LE(MemoryBudget::DefaultBytes(), kGiB);
}

TEST(CallContext, WithinNeverMovesTheDeadlineBack) {
  const CallContext soon = CallContext{}.Within(1s);
  EXPECT_EQ(soon.Within(1h).deadline, soon.deadline);
  EXPECT_LT(soon.Within(1ms).deadline, soon.deadline);
  EXPECT_FALSE(CallContext{}.expired());
  EXPECT_TRUE(CallContext{}.Within(-1ms).expired());
}

TEST(Seconds, AreReadAsPeopleWriteThem) {
  EXPECT_EQ(*ParseSeconds("0"), std::chrono::seconds(0));
  EXPECT_EQ(*ParseSeconds("60"), std::chrono::seconds(60));
  EXPECT_EQ(*ParseSeconds("90s"), std::chrono::seconds(90));
  EXPECT_EQ(*ParseSeconds("1h30m"), std::chrono::minutes(90));
  EXPECT_EQ(*ParseSeconds("2d"), std::chrono::hours(48));
  for (const char* wrong :
       {"", "s", "-1", "1x", "1.5s", "5m-3s", "99999999999999999999s", "99999d"})
    EXPECT_FALSE(ParseSeconds(wrong)) << wrong;
}

}  // namespace
}  // namespace leat
