#include "cache/cache.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <future>
#include <map>
#include <random>
#include <set>
#include <stop_token>
#include <thread>

namespace leat::cache {
namespace {

/// The byte that the file `name` has at `offset`: content is a function of name and place, so that
/// no byte can stand in for another.
std::byte ByteAt(std::string_view name, std::uint64_t offset) {
  std::uint64_t x = std::hash<std::string_view>()(name) ^ (offset / 8 * 0x9e3779b97f4a7c15ULL);
  x ^= x >> 31;
  x *= 0xbf58476d1ce4e5b9ULL;
  return static_cast<std::byte>(x >> (offset % 8 * 8));
}
std::vector<std::byte> Bytes(std::string_view name, std::uint64_t offset, std::uint64_t length) {
  std::vector<std::byte> out(length);
  for (std::uint64_t i = 0; i < length; ++i) out[i] = ByteAt(name, offset + i);
  return out;
}
bool Same(std::string_view name, std::uint64_t offset, std::span<const std::byte> got) {
  const auto want = Bytes(name, offset, got.size());
  return std::memcmp(want.data(), got.data(), got.size()) == 0;
}

struct Counter {
  std::atomic<int> fetches{0};
  std::atomic<std::uint64_t> bytes{0};
};

class NameFetcher final : public Fetcher {
 public:
  NameFetcher(std::string name, Counter& counter) : name_(std::move(name)), counter_(counter) {}

  Status Fetch(std::uint64_t offset, std::uint64_t length, const Sink& sink,
               const CallContext&) override {
    ++counter_.fetches;
    if (delay.count() > 0) std::this_thread::sleep_for(delay);
    const auto bytes = Bytes(name_, offset, length);
    for (std::size_t at = 0; at < bytes.size(); at += 100'000) {
      if (counter_.bytes >= fail_after) return Fail(Errc::kUnavailable, "the store has gone");
      const std::size_t n = std::min<std::size_t>(100'000, bytes.size() - at);
      counter_.bytes += n;
      LEAT_RETURN_IF_ERROR(sink(std::span(bytes).subspan(at, n)));
    }
    return {};
  }
  std::optional<digest::Expected> expected() const override { return promised; }
  std::string name() const override { return name_; }
  void OnWrong(const Error& error) override { wrong.set_value(error.message()); }

  std::promise<std::string> wrong;
  std::chrono::milliseconds delay{0};
  std::uint64_t fail_after = UINT64_MAX;
  std::optional<digest::Expected> promised;

 private:
  const std::string name_;
  Counter& counter_;
};

class CacheTest : public testing::Test {
 protected:
  void SetUp() override {
    char path[] = "/tmp/leat-cache-test-XXXXXX";
    root_ = ::mkdtemp(path);
  }
  void TearDown() override { ASSERT_TRUE(os::RemoveTree(root_)); }

  std::unique_ptr<Cache> Open(std::uint64_t limit = kGiB) {
    CacheOptions options;
    options.dir = root_ + "/cache";
    options.limit_bytes = limit;
    options.budget = &budget_;
    options.counts = &counts_;
    auto cache = Cache::Open(options);
    EXPECT_EQ(cache->problem(), "");
    return cache;
  }
  static FileKey Key(const std::string& name, std::uint64_t size) {
    return {Identity::Of(name), size};
  }
  std::unique_ptr<NameFetcher> Fetch(const std::string& name) {
    return std::make_unique<NameFetcher>(name, counter_);
  }
  bool ReadSmall(Cache& cache, Lease& lease, const std::string& name, std::uint64_t size) {
    const auto fetcher = Fetch(name);
    const auto data = cache.ReadSmall(Key(name, size), lease, *fetcher, {});
    EXPECT_TRUE(data) << data.error().message();
    return data && data->bytes.size() == size && Same(name, 0, data->bytes);
  }

  std::string root_;
  MemoryBudget budget_{64 * kMiB};
  CacheCounts counts_;
  Counter counter_;
};

TEST_F(CacheTest, SmallFileIsFetchedOnceAndFoundByTheNextStart) {
  {
    auto cache = Open();
    auto lease = cache->Hold("s3://b");
    for (int i = 0; i < 3; ++i) EXPECT_TRUE(ReadSmall(*cache, *lease, "a", 5000));
    EXPECT_EQ(counter_.fetches, 1);
  }
  auto cache = Open();
  auto lease = cache->Hold("s3://b");
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(ReadSmall(*cache, *lease, "a", 5000));
  EXPECT_EQ(counter_.fetches, 1);
}

TEST_F(CacheTest, ThousandsOfSmallFilesOutgrowTheFirstIndex) {
  auto cache = Open();
  auto other = Open();  // maps the table that is about to be superseded
  auto lease = cache->Hold("s3://b");
  for (int i = 0; i < 20'000; ++i) ASSERT_TRUE(ReadSmall(*cache, *lease, std::to_string(i), 20));
  EXPECT_EQ(counter_.fetches, 20'000);
  for (int i = 0; i < 20'000; ++i) ASSERT_TRUE(ReadSmall(*other, *lease, std::to_string(i), 20));
  EXPECT_EQ(counter_.fetches, 20'000);
}

TEST_F(CacheTest, ManyThreadsAskingForOneSmallFileCauseOneFetch) {
  auto cache = Open();
  auto lease = cache->Hold("s3://b");
  NameFetcher slow("a", counter_);
  slow.delay = std::chrono::milliseconds(50);
  std::vector<std::thread> threads;
  for (int i = 0; i < 16; ++i) {
    threads.emplace_back([&] {
      const auto data = cache->ReadSmall(Key("a", 1000), *lease, slow, {});
      EXPECT_TRUE(data && Same("a", 0, data->bytes));
    });
  }
  for (auto& t : threads) t.join();
  EXPECT_EQ(counter_.fetches, 1);
}

TEST_F(CacheTest, DamagedSmallFileIsDroppedCountedAndFetchedAgain) {
  {
    auto cache = Open();
    auto lease = cache->Hold("s3://b");
    EXPECT_TRUE(ReadSmall(*cache, *lease, "a", 5000));
  }
  const auto names = os::ListDir(root_ + "/cache/seg");
  ASSERT_EQ(names->size(), 1u);
  const auto fd = os::Open(root_ + "/cache/seg/" + names->front(), O_RDWR);
  const std::byte wrong{0x55};
  ASSERT_TRUE(os::PwriteAll(fd->get(), {&wrong, 1}, 1234));
  auto cache = Open();
  auto lease = cache->Hold("s3://b");
  EXPECT_TRUE(ReadSmall(*cache, *lease, "a", 5000));
  EXPECT_EQ(counts_.dropped, 1u);
  EXPECT_EQ(counter_.fetches, 2);
}

TEST_F(CacheTest, LargeFileIsReadInAnyOrderAndFoundByTheNextStart) {
  const std::uint64_t size = 5 * kMiB + 12345;
  {
    auto cache = Open();
    auto file = cache->OpenLarge(Key("big", size), cache->Hold("s3://b"), Fetch("big"));
    std::mt19937_64 random(1);
    for (int i = 0; i < 100; ++i) {
      const std::uint64_t offset = random() % size;
      const std::uint64_t length = std::min<std::uint64_t>(size - offset, 1 + random() % 300'000);
      const auto data = file->Read(offset, length, {});
      ASSERT_TRUE(data);
      ASSERT_TRUE(Same("big", offset, data->bytes));
    }
    ASSERT_TRUE(file->Complete(kMiB, {}));
    EXPECT_TRUE(file->complete());
    EXPECT_TRUE(file->PassthroughFd());
    EXPECT_EQ(counter_.bytes, size);
  }
  auto cache = Open();
  auto file = cache->OpenLarge(Key("big", size), cache->Hold("s3://b"), Fetch("big"));
  EXPECT_TRUE(file->PassthroughFd());
  EXPECT_EQ(cache->PresentBytes(Key("big", size)), size);
  const auto data = file->Read(size - 10, 10, {});
  ASSERT_TRUE(data && Same("big", size - 10, data->bytes));
  EXPECT_EQ(counter_.bytes, size);
}

TEST_F(CacheTest, DamagedBlockIsDroppedAndFetchedAgainEvenAfterItWasComplete) {
  const std::uint64_t size = 2 * kMiB;
  {
    auto cache = Open();
    auto file = cache->OpenLarge(Key("big", size), cache->Hold("s3://b"), Fetch("big"));
    ASSERT_TRUE(file->Complete(kMiB, {}));
  }
  const Identity id = Key("big", size).id;
  const std::string path = root_ + "/cache/files/" + id.Hex().substr(0, 2) + "/" + id.Hex();
  {
    const auto fd = os::Open(path, O_RDWR);
    const std::byte wrong{0x55};
    ASSERT_TRUE(os::PwriteAll(fd->get(), {&wrong, 1}, kMiB + 5));
  }
  auto cache = Open();
  auto file = cache->OpenLarge(Key("big", size), cache->Hold("s3://b"), Fetch("big"));
  EXPECT_FALSE(file->PassthroughFd()) << "its ctime has changed since it was verified";
  const auto data = file->Read(kMiB, 1000, {});
  ASSERT_TRUE(data);
  EXPECT_TRUE(Same("big", kMiB, data->bytes));
  EXPECT_EQ(counts_.dropped, 1u);
}

TEST_F(CacheTest, BlockThatIsDroppedWhileOthersLookWhetherAllIsThereIsFetchedAgain) {
  const std::uint64_t size = 32 * kMiB, last = size - kBlock;
  auto cache = Open(64 * kMiB);
  auto file = cache->OpenLarge(Key("big", size), cache->Hold("s3://b"), Fetch("big"));
  ASSERT_TRUE(file->Complete(kMiB, {}));
  std::vector<std::jthread> lookers;
  for (int i = 0; i < 3; ++i) {
    lookers.emplace_back([&](const std::stop_token& stop) {
      while (!stop.stop_requested()) (void)file->complete();
    });
  }
  std::stop_source too_late;
  std::jthread watch([&](const std::stop_token& stop) {
    for (int i = 0; i < 3000 && !stop.stop_requested(); ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    too_late.request_stop();
  });
  for (int i = 0; i < 3000; ++i) {
    file->Forget(last, 1);
    const auto data = file->Read(last, 100, {too_late.get_token()});
    ASSERT_TRUE(data && Same("big", last, data->bytes)) << i;
  }
}

TEST_F(CacheTest, BlockThatTheDiskDoesNotGiveBackIsFetchedAgainForAReadThatIsPartlyInMemory) {
  const std::uint64_t size = 2 * kMiB;
  auto cache = Open(2 * kBlock);  // room for one block and the checksums
  auto file = cache->OpenLarge(Key("big", size), cache->Hold("s3://b"), Fetch("big"));
  ASSERT_TRUE(file->Read(0, kBlock, {}));
  ASSERT_TRUE(file->Read(kBlock, kBlock, {}));
  ASSERT_EQ(counts_.not_admitted, kBlock);
  const Identity id = Key("big", size).id;
  const std::string path = root_ + "/cache/files/" + id.Hex().substr(0, 2) + "/" + id.Hex();
  ASSERT_EQ(::truncate(path.c_str(), 0), 0);
  const auto data = file->Read(0, 2 * kBlock, {});
  ASSERT_TRUE(data) << data.error().message();
  EXPECT_TRUE(Same("big", 0, data->bytes));
  EXPECT_EQ(counts_.dropped, 1u);
}

TEST_F(CacheTest, FetchesThatAreQueuedHoldNoMemoryThatThoseUnderWayWaitFor) {
  MemoryBudget budget(16 * kMiB);
  CacheOptions options;  // no disk: all that is fetched needs memory
  options.budget = &budget;
  auto cache = Cache::Open(options);
  auto file = cache->OpenLarge(Key("big", 64 * kMiB), cache->Hold("s3://b"), Fetch("big"));
  std::stop_source stop;
  std::jthread watchdog([&](std::stop_token done) {
    for (int i = 0; i < 2000 && !done.stop_requested(); ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    stop.request_stop();
  });
  file->Start(0, 60 * kMiB, kMiB, true);
  for (std::uint64_t at = 0; at < 60 * kMiB; at += 7 * kMiB) {
    const auto data = file->Read(at, 1, {stop.get_token()});
    ASSERT_TRUE(data) << data.error().message();
  }
}

TEST_F(CacheTest, FileWhoseOwnerIsBeingEvictedIsPassedThroughMemoryAndTakesNoRoom) {
  const std::uint64_t size = 2 * kMiB;
  {
    auto cache = Open();
    ASSERT_TRUE(cache->OpenLarge(Key("big", size), cache->Hold("s3://b"), Fetch("big"))
                    ->Complete(kMiB, {}));
  }
  const auto names = os::ListDir(root_ + "/cache/leases");
  ASSERT_EQ(names->size(), 1u);
  const auto eviction = os::Open(root_ + "/cache/leases/" + names->front(), O_RDWR);
  ASSERT_TRUE(os::Flock(eviction->get(), true, false));
  auto cache = Open(3 * kMiB);
  auto file = cache->OpenLarge(Key("big", size), cache->Hold("s3://b"), Fetch("big"));
  for (int i = 0; i < 200; ++i) {
    const auto data = file->Read(static_cast<std::uint64_t>(i % 16) * kBlock, 100, {});
    ASSERT_TRUE(data) << data.error().message();
  }
  EXPECT_TRUE(cache->Reserve(kMiB - 64 * kKiB, 1));
}

TEST_F(CacheTest, RoomThatAKilledProcessHadReservedIsThereAgainForTheNextThatIsAlone) {
  {
    auto cache = Open(kMiB);
    const pid_t pid = ::fork();
    if (pid == 0) {
      auto mine = Open(kMiB);
      ::_exit(mine->Reserve(700 * kKiB, 1) ? 0 : 1);  // as if killed
    }
    int status = 0;
    ASSERT_EQ(::waitpid(pid, &status, 0), pid);
    ASSERT_EQ(status, 0);
    EXPECT_FALSE(cache->Reserve(700 * kKiB, 1));
  }  // the last one leaves in order
  EXPECT_TRUE(Open(kMiB)->Reserve(700 * kKiB, 1));
}

TEST_F(CacheTest, LimitThatNobodyGaveIsHalfOfWhatIsFreeAndOfWhatItHolds) {
  struct statvfs vfs;
  ASSERT_EQ(::statvfs(root_.c_str(), &vfs), 0);
  auto cache = Open(0);
  auto lease = cache->Hold("s3://b");
  EXPECT_TRUE(ReadSmall(*cache, *lease, "a", 500'000));
  const auto stat = Cache::Stat(root_ + "/cache", 0);
  ASSERT_TRUE(stat);
  const std::uint64_t half = (vfs.f_bavail * vfs.f_frsize + stat->used_bytes) / 2;
  // (others use the disk meanwhile)
  EXPECT_LT(stat->limit_bytes, half + half / 10);
  EXPECT_GT(stat->limit_bytes, half - half / 10);
}

TEST_F(CacheTest, WrongDigestOfTheWholePoisonsTheFile) {
  auto cache = Open();
  auto fetcher = Fetch("big");
  fetcher->promised = digest::Expected{digest::Kind::kMd5, std::string(16, 'x')};
  auto wrong = fetcher->wrong.get_future();
  auto file = cache->OpenLarge(Key("big", 2 * kMiB), cache->Hold("s3://b"), std::move(fetcher));
  EXPECT_FALSE(file->Complete(kMiB, {}));
  const auto data = file->Read(0, 10, {});
  ASSERT_FALSE(data);
  EXPECT_EQ(data.error().code(), Errc::kCorrupt);
  EXPECT_FALSE(file->PassthroughFd());
  EXPECT_EQ(wrong.get(), "big: the bytes that arrived do not have the MD5 that the store promised")
      << "whoever was given some of them is told, once";
}

TEST_F(CacheTest, FailedFetchIsAnErrorForThatReadAndTheNextOneTriesAgain) {
  auto cache = Open();
  auto fetcher = Fetch("big");
  NameFetcher* control = fetcher.get();
  control->fail_after = 0;
  auto file = cache->OpenLarge(Key("big", 2 * kMiB), cache->Hold("s3://b"), std::move(fetcher));
  const auto failed = file->Read(0, 10, {});
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code(), Errc::kUnavailable);
  control->fail_after = UINT64_MAX;
  const auto data = file->Read(0, 10, {});
  ASSERT_TRUE(data);
  EXPECT_TRUE(Same("big", 0, data->bytes));
}

TEST_F(CacheTest, WithoutAFolderEverythingPassesThroughMemory) {
  CacheOptions options;
  options.budget = &budget_;
  options.counts = &counts_;
  auto cache = Cache::Open(options);
  auto lease = cache->Hold("s3://b");
  EXPECT_TRUE(ReadSmall(*cache, *lease, "a", 5000));
  EXPECT_TRUE(ReadSmall(*cache, *lease, "a", 5000));
  EXPECT_EQ(counter_.fetches, 1) << "it was kept for a moment";
  const std::uint64_t size = 70 * kMiB + 1;  // more than the budget
  auto file = cache->OpenLarge(Key("big", size), lease, Fetch("big"));
  for (std::uint64_t at = 0; at < size; at += kMiB) {
    const std::uint64_t length = std::min(kMiB, size - at);
    file->Start(at, 8 * kMiB, kMiB, false);
    const auto data = file->Read(at, length, {});
    ASSERT_TRUE(data) << data.error().message();
    ASSERT_TRUE(Same("big", at, data->bytes));
  }
  EXPECT_LE(budget_.used(), budget_.total());
}

TEST_F(CacheTest, UnusableFolderIsAReasonAndNoFailure) {
  CacheOptions options;
  options.dir = "/proc/no/such/place";
  options.budget = &budget_;
  auto cache = Cache::Open(options);
  EXPECT_NE(cache->problem(), "");
  auto lease = cache->Hold("s3://b");
  EXPECT_TRUE(ReadSmall(*cache, *lease, "a", 5000));
}

TEST_F(CacheTest, WhatOthersLeftGoesFirstAndWhatIsHeldStays) {
  const std::uint64_t limit = 40 * kMiB;
  {
    auto cache = Open(limit);
    auto old = cache->Hold("old");
    for (int i = 0; i < 30; ++i)
      ASSERT_TRUE(ReadSmall(*cache, *old, "old" + std::to_string(i), 900'000));
  }
  auto cache = Open(limit);
  auto mine = cache->Hold("mine");
  for (int i = 0; i < 60; ++i)
    ASSERT_TRUE(ReadSmall(*cache, *mine, "mine" + std::to_string(i), 900'000));
  const int before = counter_.fetches;
  int hits = 0;
  for (int i = 0; i < 60; ++i) {
    const int fetches = counter_.fetches;
    ASSERT_TRUE(ReadSmall(*cache, *mine, "mine" + std::to_string(i), 900'000));
    hits += counter_.fetches == fetches ? 1 : 0;
  }
  EXPECT_GT(before, 0);
  EXPECT_GE(hits, 60 * 7 / 10) << "an epoch over a cache that is too small keeps what it has";
  EXPECT_LE(Cache::Stat(root_ + "/cache", limit)->used_bytes, limit + kMiB);
  const int fetches = counter_.fetches;
  ASSERT_TRUE(ReadSmall(*cache, *mine, "old3", 900'000));
  EXPECT_EQ(counter_.fetches, fetches + 1) << "the old source's files made room";
}

TEST_F(CacheTest, OtherFormatIsSetAsideNotRead) {
  {
    auto cache = Open();
    auto lease = cache->Hold("s3://b");
    EXPECT_TRUE(ReadSmall(*cache, *lease, "a", 5000));
  }
  ASSERT_TRUE(os::WriteFileAtomic(root_ + "/cache/format", "leat cache 99\n"));
  auto cache = Open();
  auto lease = cache->Hold("s3://b");
  EXPECT_TRUE(ReadSmall(*cache, *lease, "a", 5000));
  EXPECT_EQ(counter_.fetches, 2);
  const auto names = os::ListDir(root_ + "/cache");
  EXPECT_TRUE(
      std::ranges::any_of(*names, [](const std::string& n) { return n.starts_with("aside-"); }));
}

TEST_F(CacheTest, WhatWasKilledWhileItMadeTheCacheLeavesNothing) {
  ASSERT_TRUE(os::MakeDirs(root_ + "/cache"));
  ASSERT_TRUE(os::WriteFileAtomic(root_ + "/cache/format.tmp-123", "le"));
  Open();
  EXPECT_FALSE(os::Exists(root_ + "/cache/format.tmp-123"));
  EXPECT_TRUE(os::Exists(root_ + "/cache/format"));
}

TEST_F(CacheTest, CleanLeavesOnlyWhatIsHeld) {
  auto cache = Open();
  auto held = cache->Hold("held");
  ASSERT_TRUE(ReadSmall(*cache, *held, "h", 5000));
  {
    auto gone = cache->Hold("gone");
    ASSERT_TRUE(ReadSmall(*cache, *gone, "g", 5000));
  }
  ASSERT_TRUE(Cache::Clean(root_ + "/cache", false));
  const int fetches = counter_.fetches;
  ASSERT_TRUE(ReadSmall(*cache, *held, "h", 5000));
  EXPECT_EQ(counter_.fetches, fetches);
  ASSERT_TRUE(ReadSmall(*cache, *held, "g", 5000));
  EXPECT_EQ(counter_.fetches, fetches + 1);
}

TEST_F(CacheTest, ProcessesKilledAtAnyMomentLeaveNothingWrong) {
  const std::uint64_t size = 3 * kMiB + 17;
  for (int round = 0; round < 15; ++round) {
    std::vector<pid_t> children;
    for (int c = 0; c < 2; ++c) {
      const pid_t pid = ::fork();
      if (pid == 0) {
        Counter counter;
        MemoryBudget budget(64 * kMiB);
        CacheOptions options;
        options.dir = root_ + "/cache";
        options.limit_bytes = 8 * kMiB;
        options.budget = &budget;
        auto cache = Cache::Open(options);
        for (unsigned i = 0;; ++i) {
          auto lease = cache->Hold("owner" + std::to_string(i % 5));
          const std::string name = std::to_string(i % 40);
          NameFetcher fetcher(name, counter);
          if (!cache->ReadSmall(Key(name, 1000 * (1 + i % 40)), *lease, fetcher, {})) ::_exit(1);
          auto file = cache->OpenLarge(Key("L" + name, size), lease,
                                       std::make_unique<NameFetcher>("L" + name, counter));
          if (!file->Complete(kMiB, {})) ::_exit(2);
        }
      }
      children.push_back(pid);
    }
    ::usleep(static_cast<useconds_t>(20'000 + round * 7'000));
    for (const pid_t pid : children) ::kill(pid, SIGKILL);
    for (const pid_t pid : children) {
      int status = 0;
      ::waitpid(pid, &status, 0);
      EXPECT_TRUE(WIFSIGNALED(status)) << "a reader failed with " << status;
    }
    auto cache = Open(8 * kMiB);
    auto lease = cache->Hold("check");
    for (int i = 0; i < 40; ++i) {
      const std::string name = std::to_string(i);
      ASSERT_TRUE(ReadSmall(*cache, *lease, name, 1000ULL * (1 + static_cast<unsigned>(i))));
    }
    for (int i = 0; i < 3; ++i) {
      const std::string name = "L" + std::to_string(i);
      auto file = cache->OpenLarge(Key(name, size), lease, Fetch(name));
      const auto data = file->Read(0, size, {});
      ASSERT_TRUE(data && Same(name, 0, data->bytes));
    }
    EXPECT_EQ(counts_.dropped, 0u) << "a kill alone loses nothing that was marked as here";
  }
}

TEST_F(CacheTest, ProcessesReadingOneLargeFileTogetherFetchEachByteOnce) {
  const std::uint64_t size = 20 * kMiB;
  const auto fetched = os::Mapping::Shared(sizeof(Counter));
  auto* counter = new (fetched->data()) Counter;
  std::vector<pid_t> children;
  for (int c = 0; c < 4; ++c) {
    const pid_t pid = ::fork();
    if (pid == 0) {
      MemoryBudget budget(64 * kMiB);
      CacheOptions options;
      options.dir = root_ + "/cache";
      options.limit_bytes = kGiB;
      options.budget = &budget;
      auto cache = Cache::Open(options);
      auto file = cache->OpenLarge(Key("big", size), cache->Hold("s3://b"),
                                   std::make_unique<NameFetcher>("big", *counter));
      for (std::uint64_t at = 0; at < size; at += kBlock) {
        file->Start(at, 4 * kMiB, kMiB, false);
        const auto data = file->Read(at, kBlock, {});
        if (!data || !Same("big", at, data->bytes)) ::_exit(1);
      }
      cache->Shutdown();
      ::_exit(0);
    }
    children.push_back(pid);
  }
  for (const pid_t pid : children) {
    int status = 0;
    ::waitpid(pid, &status, 0);
    EXPECT_EQ(status, 0);
  }
  EXPECT_EQ(counter->bytes, size);
}

}  // namespace
}  // namespace leat::cache
