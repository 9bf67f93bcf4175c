// Power loss: what was not synced may be missing, never wrong. A copy of the folder stands in for
// the disk after the loss: every page of every file is as it is now, or as it was at an earlier
// moment (of the same file), or zeros, and a file may end earlier.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <filesystem>
#include <map>
#include <random>

#include "cache/cache.h"
#include "cache/generated.h"
#include "testing/seed.h"
#include "testing/step_killer.h"

namespace leat::cache {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kPage = 4096;

using Disk = std::map<std::string, std::string>;  // path, contents; folders end in '/'

Disk CopyOf(const fs::path& root) {
  Disk out;
  for (const auto& entry : fs::recursive_directory_iterator(root)) {
    const std::string name = fs::relative(entry.path(), root);
    if (entry.is_directory()) {
      out[name + "/"];
    } else {
      out[name] = *os::ReadFile(entry.path(), 1 << 30);
    }
  }
  return out;
}

class CrashTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char path[] = "/tmp/leat-crash-test-XXXXXX";
    root_ = ::mkdtemp(path);
  }
  void TearDown() override { ASSERT_TRUE(os::RemoveTree(root_)); }

  std::unique_ptr<Cache> Open(const std::string& dir, std::uint64_t limit = 64 * kMiB) {
    CacheOptions options;
    options.dir = dir;
    options.limit_bytes = limit;
    options.budget = &budget_;
    options.counts = &counts_;
    return Cache::Open(options);
  }
  static FileKey Small(std::uint64_t i) {
    return {Identity::Of("small " + std::to_string(i)), 1 + i * 37 % 9000};
  }
  static FileKey Large(std::uint64_t i) {
    return {Identity::Of("large " + std::to_string(i)), kLargeFile + i * 54321};
  }
  void Work(Cache& cache, std::uint64_t first, std::uint64_t count) {
    const auto lease = cache.Hold("owner");
    for (std::uint64_t i = first; i < first + count; ++i) {
      Generated fetcher(i);
      ASSERT_TRUE(cache.ReadSmall(Small(i), *lease, fetcher, {}));
    }
    for (std::uint64_t i = first / 50; i < (first + count) / 50; ++i) {
      const auto file = cache.OpenLarge(Large(i), lease, std::make_unique<Generated>(1000 + i));
      if (i % 2 == 0) {
        ASSERT_TRUE(file->Complete(kMiB, {}));
      } else {
        ASSERT_TRUE(file->Read(kBlock * 2 + 5, kBlock * 2, {}));
      }
    }
  }
  /// What a reader gets is right, whatever became of the folder; gives how much had to be fetched.
  int Check(const std::string& dir, std::uint64_t count) {
    std::atomic<int> fetches{0};
    auto cache = Open(dir);
    const auto lease = cache->Hold("owner");
    for (std::uint64_t i = 0; i < count; ++i) {
      Generated fetcher(i, &fetches);
      const auto data = cache->ReadSmall(Small(i), *lease, fetcher, {});
      EXPECT_TRUE(data && data->bytes.size() == Small(i).size && Right(i, 0, data->bytes)) << i;
      const auto again = cache->FindSmall(Small(i));  // now from the mapping
      EXPECT_TRUE(again && Right(i, 0, again->bytes)) << i;
    }
    for (std::uint64_t i = 0; i < count / 50; ++i) {
      const auto file =
          cache->OpenLarge(Large(i), lease, std::make_unique<Generated>(1000 + i, &fetches));
      const auto data = file->Read(0, Large(i).size, {});
      EXPECT_TRUE(data && Right(1000 + i, 0, data->bytes)) << i;
      EXPECT_TRUE(file->Complete(kMiB, {}));
    }
    EXPECT_EQ(cache->problem(), "");
    return fetches;
  }
  /// The disk as a power loss may have left it.
  std::string Lose(const std::vector<Disk>& moments, std::mt19937_64& random) {
    const std::string dir = root_ + "/lost";
    EXPECT_TRUE(os::RemoveTree(dir));
    EXPECT_TRUE(os::MakeDirs(dir));
    // How bad it was.
    const std::uint64_t per_mille = std::array{0, 5, 100, 500}[random() % 4];
    for (const auto& [name, now] : moments.back()) {
      if (name.ends_with('/')) {
        EXPECT_TRUE(os::MakeDirs(dir + "/" + name));
        continue;
      }
      if (random() % 1000 < per_mille / 4) continue;  // its name had not been synced
      std::string bytes = now;
      if (name != "format") {  // it was synced
        for (std::size_t at = 0; at < bytes.size(); at += kPage) {
          if (random() % 1000 >= per_mille) continue;
          const std::size_t n = std::min(kPage, bytes.size() - at);
          const Disk& then = moments[random() % moments.size()];
          const auto before = then.find(name);
          if (random() % 2 == 0 || before == then.end() || before->second.size() < at + n) {
            std::memset(bytes.data() + at, 0, n);
          } else {
            std::memcpy(bytes.data() + at, before->second.data() + at, n);
          }
        }
        if (random() % 1000 < per_mille / 4) bytes.resize(random() % (bytes.size() + 1));
      }
      // Those that say of which boot they are say of an earlier one now.
      if (name == "state" && bytes.size() >= 24 + 36) bytes[24] ^= 1;
      if (name.ends_with(".sums") && bytes.size() > 100) bytes[56] ^= 1;
      EXPECT_TRUE(os::WriteFileAtomic(dir + "/" + name, bytes));
    }
    return dir;
  }

  std::string root_;
  MemoryBudget budget_{64 * kMiB};
  CacheCounts counts_;
};

TEST_F(CrashTest, WhatWasNotSyncedMayBeMissingButIsNeverWrong) {
  const std::uint64_t seed = testing::Seed();
  SCOPED_TRACE("LEAT_TEST_SEED=" + std::to_string(seed));
  std::mt19937_64 random(seed);
  const std::string dir = root_ + "/cache";
  std::vector<Disk> moments;
  for (std::uint64_t i = 0; i < 4; ++i) {
    auto cache = Open(dir);
    moments.push_back(CopyOf(dir));
    Work(*cache, i * 100, 100);
    moments.push_back(CopyOf(dir));  // in the middle of use
    cache.reset();
  }
  moments.push_back(CopyOf(dir));
  EXPECT_EQ(Check(dir, 400), 8)
      << "nothing was lost yet; of four large files the start and the end had not been read";
  for (int round = 0; round < 25; ++round) {
    SCOPED_TRACE("round " + std::to_string(round));
    const std::string lost = Lose(moments, random);
    Check(lost, 400);
    // What was fetched again is found, and the next loss meets a cache that has been repaired.
    EXPECT_EQ(Check(lost, 400), 0) << "what was repaired is whole";
    if (HasFailure()) break;
  }
}

TEST_F(CrashTest, KilledAtEveryStepOfEvictingFillingAndLeavingItIsNeverWrongAndNeverAboveItsLimit) {
  const std::uint64_t limit = 3 * kLargeFile / 2;
  const auto read = [&](Cache& cache, const char* owner, std::uint64_t large, std::uint64_t small) {
    const auto lease = cache.Hold(owner);
    for (std::uint64_t i = small; i < small + 3; ++i) {
      Generated fetcher(i);
      const auto data = cache.ReadSmall(Small(i), *lease, fetcher, {});
      EXPECT_TRUE(data && Right(i, 0, data->bytes)) << i;
    }
    const auto file =
        cache.OpenLarge(Large(large), lease, std::make_unique<Generated>(1000 + large));
    EXPECT_TRUE(file->Complete(kMiB, {}));
    const auto data = file->Read(0, Large(large).size, {});
    EXPECT_TRUE(data && Right(1000 + large, 0, data->bytes)) << large;
  };
  int step = 0;
  for (bool killed = true; killed && !HasFailure(); ++step) {
    SCOPED_TRACE("step " + std::to_string(step));
    const std::string dir = root_ + "/" + std::to_string(step);
    read(*Open(dir, limit), "old", 0, 0);
    killed = testing::KilledAtStep(step, [&] { read(*Open(dir, limit), "new", 1, 10); });
    {
      auto cache = Open(dir, limit);
      EXPECT_EQ(cache->problem(), "");
      read(*cache, "new", 1, 10);
      read(*cache, "old", 0, 0);
    }
    EXPECT_TRUE(Open(dir, limit)->Reserve(0, 0));
    std::uint64_t bytes = 0;
    for (const char* part : {"files", "seg"}) {
      for (const auto& entry : fs::recursive_directory_iterator(dir + "/" + part)) {
        struct stat st;
        ASSERT_EQ(::lstat(entry.path().c_str(), &st), 0);
        if (!S_ISREG(st.st_mode)) continue;
        bytes += static_cast<std::uint64_t>(st.st_blocks) * 512;
        const std::string name = entry.path().string();
        const bool whole = !entry.path().has_extension() || name.ends_with(".sums");
        EXPECT_TRUE(whole) << name;
      }
    }
    // (A disk counts whole pages, the cache what it has written of a segment.)
    EXPECT_LE(bytes, limit + 8192);
    EXPECT_LE(Cache::Stat(dir, limit)->used_bytes, limit);
    ASSERT_TRUE(os::RemoveTree(dir));
  }
  EXPECT_GT(step, 30);
}

TEST_F(CrashTest, NewSegmentsNeverTakeTheNumberOfOnesThatAStaleStateForgot) {
  const std::string dir = root_ + "/cache";
  {
    auto cache = Open(dir);
  }
  const std::string stale = *os::ReadFile(dir + "/state");  // says that all is well
  {
    auto cache = Open(dir);
    Work(*cache, 0, 40);
  }
  // The power goes; the disk never saw more of the state than its first page's beginnings.
  std::string state = stale;
  state[24] ^= 1;  // another boot
  ASSERT_TRUE(os::WriteFileAtomic(dir + "/state", state));
  auto cache = Open(dir);
  Work(*cache, 40, 40);
  const auto lease = cache->Hold("owner");
  for (std::uint64_t i = 0; i < 80; ++i)
    EXPECT_TRUE(cache->FindSmall(Small(i))) << i << ": the segment was found again by its name";
}

TEST_F(CrashTest, HalvesThatAKilledProcessLeftAreSwept) {
  const std::string dir = root_ + "/cache";
  {
    auto cache = Open(dir);
    Work(*cache, 0, 100);
  }
  ASSERT_TRUE(os::MakeDirs(dir + "/files/ab"));
  const std::string id(30, 'c');
  const std::vector<std::string> halves = {"/files/ab/ab" + id, "/files/ab/cd" + id + ".sums",
                                           "/files/ab/ef" + id + ".sums.4711"};
  for (const std::string& name : halves) {
    ASSERT_TRUE(os::WriteFileAtomic(dir + name, std::string(100'000, 'x')));
  }
  std::string state = *os::ReadFile(dir + "/state");
  state[20] = 0;  // whoever used it last did not leave by the door
  ASSERT_TRUE(os::WriteFileAtomic(dir + "/state", state));
  EXPECT_EQ(Check(dir, 100), 2);
  EXPECT_TRUE(os::ListDir(dir + "/files/ab")->empty());
}

}  // namespace
}  // namespace leat::cache
