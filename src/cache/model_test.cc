// Random operations of several owners on a cache that is too small, against what they should see.
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <filesystem>
#include <map>
#include <random>
#include <set>
#include <thread>

#include "cache/cache.h"
#include "cache/disk.h"
#include "cache/generated.h"
#include "testing/seed.h"

namespace leat::cache {
namespace {

namespace fs = std::filesystem;

/// What segments, large files and trees take of the disk, counted once.
std::uint64_t BytesOnDisk(const std::string& dir) {
  std::uint64_t bytes = 0;
  std::set<ino_t> seen;
  for (const char* part : {"seg", "files", "trees"}) {
    std::error_code gone;
    for (const auto& entry : fs::recursive_directory_iterator(
             dir + "/" + part, fs::directory_options::skip_permission_denied, gone)) {
      struct stat st;
      if (::lstat(entry.path().c_str(), &st) != 0 || !S_ISREG(st.st_mode)) continue;
      if (seen.insert(st.st_ino).second) bytes += static_cast<std::uint64_t>(st.st_blocks) * 512;
    }
  }
  return bytes;
}

class CacheModel : public ::testing::Test {
 protected:
  void SetUp() override {
    char path[] = "/tmp/leat-model-test-XXXXXX";
    root_ = ::mkdtemp(path);
    dir_ = root_ + "/cache";
  }
  void TearDown() override { ASSERT_TRUE(os::RemoveTree(root_)); }
  std::unique_ptr<Cache> Open(std::uint64_t limit, std::uint64_t inodes = 0) {
    CacheOptions options;
    options.dir = dir_;
    options.limit_bytes = limit;
    options.limit_inodes = inodes;
    options.budget = &budget_;
    options.counts = &counts_;
    auto cache = Cache::Open(options);
    EXPECT_EQ(cache->problem(), "");
    return cache;
  }
  static FileKey Small(std::uint64_t i) {
    return {Identity::Of("s" + std::to_string(i)), 1 + i * 7919 % 300'000};
  }
  static FileKey Large(std::uint64_t i) {
    return {Identity::Of("l" + std::to_string(i)), kLargeFile + i * 99'991};
  }

  std::string root_, dir_;
  MemoryBudget budget_{16 * kMiB};
  CacheCounts counts_;
};

TEST_F(CacheModel, BytesAreRightTheLimitHoldsAndWhatIsLeasedStays) {
  const std::uint64_t seed = testing::Seed();
  SCOPED_TRACE("LEAT_TEST_SEED=" + std::to_string(seed));
  std::mt19937_64 random(seed);
  const std::uint64_t limit = 20 * kMiB;
  auto cache = Open(limit);
  constexpr int kOwners = 6;
  std::map<int, std::shared_ptr<Lease>> held;
  // What was on disk when its owner's lease was last looked at, by owner. While the lease lasts all
  // of it stays.
  std::map<int, std::set<std::uint64_t>> small, large;
  const auto owner_of = [](std::uint64_t i) { return static_cast<int>(i % kOwners); };
  const auto hold = [&](int owner) {
    auto& lease = held[owner];
    if (lease == nullptr) {
      lease = cache->Hold("owner " + std::to_string(owner));
      small[owner].clear();
      large[owner].clear();
    }
    return lease;
  };
  for (int step = 0; step < 3000; ++step) {
    const std::uint64_t i = random() % 200;
    const int owner = owner_of(i);
    switch (random() % 20) {
      case 0:
        held.erase(static_cast<int>(random() % kOwners));
        break;
      case 1:
        if (random() % 10 == 0) {
          held.clear();
          cache.reset();
          cache = Open(limit);
        }
        break;
      case 2: {
        const auto lease = hold(owner);
        const auto file = cache->OpenLarge(Large(i), lease, std::make_unique<Generated>(1000 + i));
        ASSERT_TRUE(file->Complete(kMiB, {}));
        if (file->complete()) large[owner].insert(i);
        break;
      }
      case 3:
      case 4: {
        const auto lease = hold(owner);
        const auto file = cache->OpenLarge(Large(i), lease, std::make_unique<Generated>(1000 + i));
        const std::uint64_t offset = random() % Large(i).size;
        const std::uint64_t length =
            std::min<std::uint64_t>(Large(i).size - offset, 1 + random() % 300'000);
        const auto data = file->Read(offset, length, {});
        ASSERT_TRUE(data) << data.error().message();
        ASSERT_EQ(data->bytes.size(), length);
        ASSERT_TRUE(Right(1000 + i, offset, data->bytes));
        break;
      }
      default: {
        const auto lease = hold(owner);
        std::atomic<int> fetches{0};
        Generated fetcher(i, &fetches);
        const auto data = cache->ReadSmall(Small(i), *lease, fetcher, {});
        ASSERT_TRUE(data) << data.error().message();
        ASSERT_EQ(data->bytes.size(), Small(i).size);
        ASSERT_TRUE(Right(i, 0, data->bytes));
        // (what is not admitted is in memory for a moment only)
        if (fetches > 0 && counts_.not_admitted == 0) small[owner].insert(i);
        counts_.not_admitted = 0;
        break;
      }
    }
    if (step % 20 != 0) continue;
    // (ext4 counts what it has set aside ahead of a growing file)
    ASSERT_LE(BytesOnDisk(dir_), limit + 512 * 1024) << "step " << step;
    for (const auto& [o, lease] : held) {
      for (const std::uint64_t s : small[o]) {
        const auto data = cache->FindSmall(Small(s));
        ASSERT_TRUE(data && Right(s, 0, data->bytes)) << "leased, and gone: small " << s;
      }
      for (const std::uint64_t l : large[o])
        ASSERT_EQ(cache->PresentBytes(Large(l)), Large(l).size) << "leased, and gone: large " << l;
    }
  }
  EXPECT_EQ(counts_.dropped, 0u);
}

TEST_F(CacheModel, LimitHoldsForManyTinyFiles) {
  const std::uint64_t limit = 2 * kMiB;
  auto cache = Open(limit);
  const auto lease = cache->Hold("owner");
  for (std::uint64_t i = 0; i < 40'000; ++i) {
    Generated fetcher(i);
    ASSERT_TRUE(
        cache->ReadSmall(FileKey{Identity::Of(std::to_string(i)), 25}, *lease, fetcher, {}));
  }
  EXPECT_LE(BytesOnDisk(dir_), limit + 8192);
  EXPECT_GE(BytesOnDisk(dir_), limit * 9 / 10) << "and is made use of";
}

TEST_F(CacheModel, LimitHoldsWhenProcessesFillItTogether) {
  const std::uint64_t limit = 10 * kMiB;
  {
    auto cache = Open(limit);
  }
  std::vector<pid_t> children;
  for (std::uint64_t c = 0; c < 4; ++c) {
    const pid_t pid = ::fork();
    if (pid == 0) {
      auto cache = Open(limit);
      std::vector<std::thread> threads;
      std::atomic<int> wrong{0};
      for (std::uint64_t t = 0; t < 4; ++t) {
        threads.emplace_back([&, t] {
          const auto lease = cache->Hold("owner " + std::to_string(c));
          for (std::uint64_t i = 0; i < 150; ++i) {
            const std::uint64_t n = c * 1000 + t * 200 + i;
            Generated fetcher(n);
            const auto data = cache->ReadSmall(Small(n), *lease, fetcher, {});
            if (!data || !Right(n, 0, data->bytes)) ++wrong;
            if (i % 10 != 0) continue;
            const auto file =
                cache->OpenLarge(Large(n % 7), lease, std::make_unique<Generated>(1000 + n % 7));
            const auto bytes = file->Read(0, kMiB, {});
            if (!bytes || !Right(1000 + n % 7, 0, bytes->bytes)) ++wrong;
          }
        });
      }
      for (auto& t : threads) t.join();
      cache.reset();
      ::_exit(wrong == 0 ? 0 : 1);
    }
    children.push_back(pid);
  }
  std::uint64_t most = 0;
  for (std::size_t done = 0; done < children.size();) {
    most = std::max(most, BytesOnDisk(dir_));
    int status = 0;
    if (::waitpid(-1, &status, WNOHANG) > 0) {
      EXPECT_EQ(status, 0);
      ++done;
    }
  }
  EXPECT_LE(most, limit + 256 * 1024);
  EXPECT_LE(BytesOnDisk(dir_), limit + 64 * 1024);
}

TEST_F(CacheModel, LimitOfInodesHolds) {
  auto cache = Open(kGiB, 21);
  for (int owner = 0; owner < 40; ++owner) {
    const auto lease = cache->Hold("owner " + std::to_string(owner));
    const auto i = static_cast<std::uint64_t>(owner);
    const auto file = cache->OpenLarge(Large(i), lease, std::make_unique<Generated>(1000 + i));
    ASSERT_TRUE(file->Complete(kMiB, {}));
    std::size_t files = 0;
    for (const auto& entry : fs::recursive_directory_iterator(dir_ + "/files"))
      files += entry.is_regular_file() ? 1 : 0;
    ASSERT_LE(files, 21u);
  }
}

TEST_F(CacheModel, EvictionTakesNoMoreThanIsNeeded) {
  const std::uint64_t limit = 40 * kMiB;
  {
    auto cache = Open(limit);
    for (std::uint64_t i = 0; i < 15; ++i) {  // 15 owners, 2.5 MiB each
      const auto lease = cache->Hold("old " + std::to_string(i));
      const FileKey key{Identity::Of("old " + std::to_string(i)), 5 * kMiB / 2};
      const auto file = cache->OpenLarge(key, lease, std::make_unique<Generated>(i));
      ASSERT_TRUE(file->Complete(kMiB, {}));
    }
  }
  auto cache = Open(limit);
  const auto lease = cache->Hold("new");
  const FileKey key{Identity::Of("new"), 4 * kMiB};
  const auto file = cache->OpenLarge(key, lease, std::make_unique<Generated>(99));
  ASSERT_TRUE(file->Complete(kMiB, {}));
  EXPECT_EQ(cache->PresentBytes(key), key.size);
  EXPECT_GE(Cache::Stat(dir_, limit)->large_files, 1u + 15u - 3u)
      << "room for 4 MiB is two or three files, not all that nobody uses";
}

TEST_F(CacheModel, FileThatATreeSharesIsNotCountedAsFreed) {
  const std::uint64_t limit = 12 * kMiB;
  auto cache = Open(limit);
  {
    const auto lease = cache->Hold("source");
    const FileKey key{Identity::Of("shared"), 8 * kMiB};
    const auto file = cache->OpenLarge(key, lease, std::make_unique<Generated>(1));
    ASSERT_TRUE(file->Complete(kMiB, {}));
    ASSERT_TRUE(os::MakeDirs(cache->trees_dir() + "/t"));
    ASSERT_TRUE(file->LinkTo(cache->trees_dir() + "/t/file", 0444, 1'000'000'000));
  }
  cache.reset();  // the leases that it adopted end
  cache = Open(limit);
  const auto lease = cache->Hold("other");
  for (std::uint64_t i = 0; i < 10; ++i) {
    const FileKey key{Identity::Of("o" + std::to_string(i)), kMiB};
    const auto file = cache->OpenLarge(key, lease, std::make_unique<Generated>(i));
    ASSERT_TRUE(file->Complete(kMiB, {}));
  }
  EXPECT_LE(BytesOnDisk(dir_), limit + 64 * 1024);
}

TEST_F(CacheModel, OwnerThatComesBackAfterItsFilesWereEvictedIsKeptAgain) {
  auto cache = Open(4 * kMiB);
  const auto fill = [&](const std::string& owner, std::uint64_t from) {
    const auto lease = cache->Hold(owner);
    for (std::uint64_t i = from; i < from + 12; ++i) {
      Generated fetcher(i);
      const FileKey key{Identity::Of(std::to_string(i)), 300'000};
      ASSERT_TRUE(cache->ReadSmall(key, *lease, fetcher, {}));
    }
  };
  fill("a", 0);
  fill("b", 100);  // "a" makes room
  EXPECT_EQ(Cache::Clean(dir_, false).has_value(), true);
  fill("a", 200);
  cache.reset();
  cache = Open(4 * kMiB);
  int found = 0;
  for (std::uint64_t i = 200; i < 212; ++i)
    found += cache->FindSmall({Identity::Of(std::to_string(i)), 300'000}) ? 1 : 0;
  EXPECT_GE(found, 10);
}

TEST_F(CacheModel, ThreadsFindWhileTheIndexGrowsUnderThem) {
  auto cache = Open(kGiB);
  auto other = Open(kGiB);  // as another process would: it has to notice the larger table
  const auto lease = cache->Hold("owner");
  std::atomic<std::uint64_t> inserted{0};
  std::atomic<bool> done{false};
  std::atomic<int> wrong{0};
  std::vector<std::thread> readers;
  for (unsigned t = 0; t < 4; ++t) {
    readers.emplace_back([&, t] {
      std::mt19937_64 random(t);
      while (!done) {
        const std::uint64_t until = inserted;
        if (until == 0) continue;
        const std::uint64_t i = random() % until;
        const auto data =
            (t % 2 == 0 ? cache : other)->FindSmall({Identity::Of(std::to_string(i)), 30});
        if (!data || !Right(i, 0, data->bytes)) ++wrong;
      }
    });
  }
  for (std::uint64_t i = 0; i < 30'000; ++i) {
    Generated fetcher(i);
    const FileKey key{Identity::Of(std::to_string(i)), 30};
    ASSERT_TRUE(cache->ReadSmall(key, *lease, fetcher, {}));
    inserted = i + 1;
  }
  done = true;
  for (auto& t : readers) t.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_GT(fs::file_size(dir_ + "/index"), 4096u + 32u * (1 << 15)) << "it has grown";
}

}  // namespace
}  // namespace leat::cache
