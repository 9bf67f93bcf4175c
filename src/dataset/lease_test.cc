#include "dataset/lease.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>
#include <vector>

#include "base/bytes.h"

namespace leat::dataset {
namespace {

using namespace std::chrono_literals;

constexpr LeaseTimes kQuick{10ms, 150ms, 5ms};
const auto kWait = [](const std::string&) { return true; };
const auto kDoNotWait = [](const std::string&) { return false; };

class LeaseTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char path[] = "/tmp/leat-lease-test-XXXXXX";
    root_ = ::mkdtemp(path);
    path_ = root_ + "/lease";
  }
  void TearDown() override { ASSERT_TRUE(os::RemoveTree(root_)); }

  /// As a holder on another machine would have left it.
  void WriteForeign(const std::string& beats) {
    ASSERT_TRUE(os::WriteFileAtomic(path_, "elsewhere/boot 12 abc\n" + beats + "\n", 0644));
  }

  std::string root_, path_;
};

TEST_F(LeaseTest, IsOneProcesssAndGivenBackAtItsEnd) {
  auto first = Lease::Take(path_, kQuick, {}, kDoNotWait);
  ASSERT_TRUE(first) << first.error().message();
  const auto second = Lease::Take(path_, kQuick, {}, kDoNotWait);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code(), Errc::kConflict);
  EXPECT_TRUE((*first)->Check());
  first->reset();
  EXPECT_FALSE(os::Exists(path_));
  EXPECT_TRUE(Lease::Take(path_, kQuick, {}, kDoNotWait));
  EXPECT_EQ(os::ListDir(root_)->size(), 0U) << "temporary files are left";
}

TEST_F(LeaseTest, OfManyThreadsOneHasItAtATime) {
  std::atomic<int> inside{0}, most{0}, turns{0};
  std::vector<std::jthread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      for (int turn = 0; turn < 5; ++turn) {
        const auto lease = Lease::Take(path_, kQuick, {}, kWait);
        ASSERT_TRUE(lease) << lease.error().message();
        most = std::max<int>(most, ++inside);
        std::this_thread::sleep_for(1ms);
        --inside;
        ++turns;
      }
    });
  }
  threads.clear();
  EXPECT_EQ(most, 1);
  EXPECT_EQ(turns, 40);
}

TEST_F(LeaseTest, OfAKilledProcessOfThisMachineIsTakenAtOnce) {
  const pid_t child = ::fork();
  if (child == 0) {
    const auto lease = Lease::Take(path_, LeaseTimes{}, {}, kWait);
    ::raise(SIGKILL);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  ASSERT_TRUE(WIFSIGNALED(status) && os::Exists(path_));
  // (It is dead for half a minute only to other machines.)
  LeaseTimes times;
  times.look = 5ms;
  times.dead = std::chrono::hours(1);
  EXPECT_TRUE(Lease::Take(path_, times, {}, kWait));
}

TEST_F(LeaseTest, OfAnotherMachineIsTakenOnlyWhenItsBeatsHaveEnded) {
  WriteForeign("1");
  std::atomic<int> beats{1};
  std::jthread holder([&](const std::stop_token& stop) {
    while (!stop.stop_requested() && beats < 40) {
      std::this_thread::sleep_for(10ms);
      if (beats < 40) WriteForeign(std::to_string(++beats));
    }
  });
  const auto lease = Lease::Take(path_, kQuick, {}, kWait);
  EXPECT_TRUE(lease);
  EXPECT_EQ(beats, 40) << "it was taken from a living holder";
}

TEST_F(LeaseTest, AHolderThatWasTakenForDeadFindsOut) {
  auto lease = Lease::Take(path_, kQuick, {}, kDoNotWait);
  ASSERT_TRUE(lease);
  std::atomic<bool> told{false};
  const std::stop_callback callback((*lease)->lost(), [&] { told = true; });
  WriteForeign("1");
  const Status checked = (*lease)->Check();
  ASSERT_FALSE(checked);
  EXPECT_EQ(checked.error().code(), Errc::kConflict);
  EXPECT_TRUE(told);
  // What is another's by now stays.
  lease->reset();
  EXPECT_TRUE(os::Exists(path_));
}

TEST_F(LeaseTest, BeatsAreSeenByOthers) {
  auto lease = Lease::Take(path_, kQuick, {}, kDoNotWait);
  ASSERT_TRUE(lease);
  const std::string before = *os::ReadFile(path_);
  for (int i = 0; i < 1000 && *os::ReadFile(path_) == before; ++i) std::this_thread::sleep_for(5ms);
  EXPECT_NE(*os::ReadFile(path_), before);
}

TEST_F(LeaseTest, WaitingEndsWhenItIsCancelled) {
  WriteForeign("1");
  std::stop_source stop;
  LeaseTimes times;
  times.look = 5ms;
  const auto lease = Lease::Take(path_, times, {stop.get_token()}, [&](const std::string& holder) {
    EXPECT_EQ(holder, "elsewhere");
    stop.request_stop();
    return true;
  });
  ASSERT_FALSE(lease);
  EXPECT_EQ(lease.error().code(), Errc::kCancelled);
}

TEST_F(LeaseTest, InAFolderThatIsNotThereIsNotFound) {
  const auto lease = Lease::Take(root_ + "/none/lease", kQuick, {}, kWait);
  ASSERT_FALSE(lease);
  EXPECT_EQ(lease.error().code(), Errc::kNotFound);
}

}  // namespace
}  // namespace leat::dataset
