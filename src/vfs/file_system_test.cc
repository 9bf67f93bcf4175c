#include "vfs/file_system.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <thread>

#include "snapshot/test_content.h"
#include "store/memory/memory_store.h"
#include "testing/fault_store.h"
#include "testing/manual_store.h"
#include "testing/seed.h"

namespace leat::vfs {
namespace {

using snapshot::testing::PatternOf;
using snapshot::testing::PutPattern;
using testing::Op;

class FileSystemTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char path[] = "/tmp/leat-vfs-test-XXXXXX";
    root_ = ::mkdtemp(path);
    store_ = std::make_shared<testing::FaultStore>(store::memory::MakeMemoryStore("mem://bucket"));
  }
  void TearDown() override {
    store_->Release();
    fs_.reset();
    cache_.reset();
    ASSERT_TRUE(os::RemoveTree(root_));
  }

  void Put(const std::string& key, std::uint64_t size) { PutPattern(*store_, key, size); }
  /// Serves what the store holds; calls made so far are not counted.
  void Open(FileSystemOptions options = {}, std::string_view prefix = "", bool disk = true,
            std::uint64_t limit = kGiB) {
    fs_.reset();
    cache_.reset();
    cache::CacheOptions cache;
    cache.dir = disk ? root_ + "/cache" : "";
    cache.limit_bytes = limit;
    cache.budget = budget_.get();
    cache.counts = &cache_counts_;
    cache_ = cache::Cache::Open(cache);
    ASSERT_EQ(cache_->problem(), "");
    options.content = snapshot::testing::ContentOf(store_, prefix);
    options.cache = cache_.get();
    options.counts = &counts_;
    fs_ = std::make_unique<FileSystem>(std::move(options));
    calls_before_ = store_->calls().size();
  }

  Node NodeOf(std::string_view path) const {
    Node node = kRootNode;
    while (!path.empty()) {
      const auto slash = std::min(path.find('/'), path.size());
      const auto child = fs_->Lookup(node, path.substr(0, slash));
      EXPECT_TRUE(child) << path;
      if (!child) return 0;
      node = *child;
      path.remove_prefix(std::min(slash + 1, path.size()));
    }
    return node;
  }
  /// As the server does: what is here without waiting, else fetched.
  Result<std::string> Read(Node node, std::uint64_t offset, std::uint64_t length) {
    if (const auto data = fs_->TryRead(node, offset, length))
      return std::string(AsText(data->bytes));
    const auto data = fs_->Read(node, offset, length, {});
    if (!data) return std::unexpected(data.error());
    return std::string(AsText(data->bytes));
  }
  void ExpectRead(const std::string& key, std::uint64_t size, std::uint64_t offset,
                  std::uint64_t length) {
    const auto got = Read(NodeOf(key), offset, length);
    ASSERT_TRUE(got) << got.error().message();
    ASSERT_EQ(*got, PatternOf(key, size).substr(std::min(offset, size), length)) << key;
  }
  std::vector<testing::Call> Reads() const {
    auto calls = store_->calls();
    calls.erase(calls.begin(), calls.begin() + static_cast<std::ptrdiff_t>(calls_before_));
    std::erase_if(calls, [](const testing::Call& c) { return c.op != Op::kRead; });
    return calls;
  }
  std::uint64_t FetchedBytes() const { return cache_counts_.miss_bytes; }
  /// Waits until `n` bytes have been fetched, and a moment longer for what must not come.
  void WaitForFetched(std::uint64_t n) const {
    for (int i = 0; i < 2000 && FetchedBytes() < n; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    EXPECT_GE(FetchedBytes(), n);
  }
  static void Settle() { std::this_thread::sleep_for(std::chrono::milliseconds(50)); }

  std::string root_;
  std::shared_ptr<testing::FaultStore> store_;
  std::unique_ptr<MemoryBudget> budget_ = std::make_unique<MemoryBudget>(64 * kMiB);
  cache::CacheCounts cache_counts_;
  ReadCounts counts_;
  std::unique_ptr<cache::Cache> cache_;
  std::unique_ptr<FileSystem> fs_;
  std::size_t calls_before_ = 0;
};

// ---------------------------------------------------------------- against a model

TEST_F(FileSystemTest, RandomTreesReadAsTheirModel) {
  const std::uint64_t seed = testing::Seed();
  SCOPED_TRACE("LEAT_TEST_SEED=" + std::to_string(seed));
  std::mt19937_64 random(seed);
  std::map<std::string, std::uint64_t> files;                // path below the prefix, size
  std::map<std::string, std::set<std::string>> directories;  // path, names
  directories[""];
  const auto name = [&] {
    static const std::vector<std::string> kNames = {
        "a", "b",  "a b", "ü",     "+%?#&='\"\\",     "\xff\xfe",
        "-", "zz", "A",   "a.txt", "\xf0\x9f\x98\x80"};
    return kNames[random() % kNames.size()] +
           (random() % 3 != 0 ? std::to_string(random() % 30) : "");
  };
  for (int i = 0; i < 400; ++i) {
    std::string path, parent;
    bool taken = false;
    for (std::uint64_t depth = random() % 4; depth-- > 0;) {
      path += (path.empty() ? "" : "/") + name();
      taken |= files.contains(path);
    }
    parent = path;
    path += (path.empty() ? "" : "/") + name();
    if (taken || files.contains(path) || directories.contains(path)) continue;
    const std::uint64_t size =
        random() % 40 == 0 ? kMiB + random() % (3 * kMiB) : random() % 20'000;
    files[path] = size;
    Put("pre/" + path, size);
    std::string child = path;
    for (std::string at = parent;;
         child = at, at = at.substr(0, at.rfind('/') == at.npos ? 0 : at.rfind('/'))) {
      directories[at].insert(child.substr(at.empty() ? 0 : at.size() + 1));
      if (at.empty()) break;
    }
  }
  Open({}, "pre/");

  // Every directory holds exactly what the model says, at stable positions.
  std::vector<std::string> paths;
  for (const auto& [path, names] : directories) {
    const Node node = NodeOf(path);
    ASSERT_TRUE(fs_->IsDirectory(node));
    ASSERT_TRUE(fs_->Stat(node)->is_dir);
    std::vector<std::string> got;
    fs_->ReadDirectory(node, 0, [&](std::uint64_t position, std::string_view n, Node child) {
      EXPECT_EQ(position, got.size());
      EXPECT_EQ(fs_->Lookup(node, n), child);
      EXPECT_EQ(fs_->PathOf(child), path + (path.empty() ? "" : "/") + std::string(n));
      if (fs_->IsDirectory(child)) {
        EXPECT_EQ(fs_->Parent(child), node);
      }
      got.emplace_back(n);
      return true;
    });
    ASSERT_EQ(got, std::vector<std::string>(names.begin(), names.end())) << path;
    for (std::uint64_t from = 0; from <= got.size() + 1; ++from) {
      std::uint64_t count = 0;
      fs_->ReadDirectory(node, from, [&](std::uint64_t, std::string_view n, Node) {
        EXPECT_EQ(n, got[from]);
        ++count;
        return false;
      });
      ASSERT_EQ(count, from < got.size() ? 1u : 0u);
    }
    ASSERT_FALSE(fs_->Lookup(node, "not there"));
  }
  for (const auto& [path, size] : files) paths.push_back(path);
  for (int i = 0; i < 2000; ++i) {
    const std::string& path = paths[random() % paths.size()];
    const std::uint64_t size = files[path];
    const Node node = NodeOf(path);
    ASSERT_EQ(fs_->Stat(node)->size, size);
    const std::uint64_t offset =
        random() % 5 == 0 ? size - std::min(size, random() % 3) : random() % (size + 10);
    const std::uint64_t length = random() % 3 == 0 ? random() % 300'000 : random() % 5000;
    const auto got = Read(node, offset, length);
    ASSERT_TRUE(got) << got.error().message();
    ASSERT_EQ(*got, PatternOf("pre/" + path, size).substr(std::min(offset, size), length)) << path;
  }
}

// ---------------------------------------------------------------- what is read of the store

TEST_F(FileSystemTest, SmallFileIsOneWholeGetWhereverItIsRead) {
  Put("a", 300'000);
  Open();
  ExpectRead("a", 300'000, 200'000, 100);
  for (int i = 0; i < 3; ++i) ExpectRead("a", 300'000, static_cast<unsigned>(i) * 100'000, 131'072);
  const auto reads = Reads();
  ASSERT_EQ(reads.size(), 1u);
  EXPECT_EQ(reads[0].offset, 0u);
  EXPECT_EQ(reads[0].length, UINT64_MAX) << "the whole, so that its checksum comes with it";
  EXPECT_FALSE(reads[0].if_version.etag.empty()) << "pinned";
}

TEST_F(FileSystemTest, EveryRangeOfALargeFileIsPinned) {
  Put("big", 20 * kMiB);
  Open();
  for (std::uint64_t at = 0; at < 20 * kMiB; at += kMiB) ExpectRead("big", 20 * kMiB, at, 100'000);
  for (const auto& read : Reads()) EXPECT_FALSE(read.if_version.etag.empty());
}

TEST_F(FileSystemTest, SequentialReaderFetchesEachByteOnceInRequestsOfOneToEightMiB) {
  const std::uint64_t size = 60 * kMiB + 123;
  Put("big", size);
  Open();
  const std::string want = PatternOf("big", size);
  for (std::uint64_t at = 0; at < size; at += 128 * kKiB) {
    const auto got = Read(NodeOf("big"), at, 128 * kKiB);
    ASSERT_TRUE(got);
    ASSERT_EQ(*got, want.substr(at, 128 * kKiB));
  }
  EXPECT_EQ(FetchedBytes(), size);
  const auto reads = Reads();
  EXPECT_LE(reads.size(), 30u);
  for (const auto& read : reads) EXPECT_LE(read.length, 8 * kMiB);
}

TEST_F(FileSystemTest, RandomReaderFetchesOnlyWhatItAsksForRoundedToABlock) {
  const std::uint64_t size = 200 * kMiB;
  Put("big", size);
  Open();
  std::mt19937_64 random(7);
  std::set<std::uint64_t> blocks;
  for (int i = 0; i < 60; ++i) {
    const std::uint64_t at = 2 * kMiB + random() % (size - 3 * kMiB);
    const std::uint64_t length = 1 + random() % 10'000;
    for (std::uint64_t b = at / cache::kBlock; b <= (at + length - 1) / cache::kBlock; ++b)
      blocks.insert(b);
    ASSERT_TRUE(Read(NodeOf("big"), at, length));
  }
  Settle();
  // (by chance a few of them lie beside each other and look like a sequence)
  EXPECT_LE(FetchedBytes(), blocks.size() * cache::kBlock + 8 * kMiB);
  EXPECT_GE(FetchedBytes(), blocks.size() * cache::kBlock);
}

TEST_F(FileSystemTest, StridedReaderFetchesOnlyWhatItAsksForRoundedToABlock) {
  const std::uint64_t size = 100 * kMiB;
  Put("big", size);
  Open();
  const Node node = NodeOf("big");
  for (std::uint64_t at = 0; at < size; at += kMiB) ASSERT_TRUE(Read(node, at, 4096));
  Settle();
  EXPECT_LE(FetchedBytes(), 100 * cache::kBlock + kMiB);
}

// ---------------------------------------------------------------- siblings

class SiblingTest : public FileSystemTest {
 protected:
  void PutMany(int count, std::uint64_t size) {
    for (int i = 0; i < count; ++i) Put(Name(i), size);
  }
  static std::string Name(int i) {
    std::string digits = std::to_string(i);
    return "d/" + std::string(5 - digits.size(), '0') + digits;
  }
  std::size_t FilesRead() const {
    std::set<std::string> keys;
    for (const auto& call : Reads()) keys.insert(call.key);
    return keys.size();
  }
};

TEST_F(SiblingTest, NextFilesAreOnTheirWayWhenFilesAreReadInOrder) {
  PutMany(300, 1000);
  Open();
  for (int i = 0; i < 6; ++i) ExpectRead(Name(i), 1000, 0, 4096);
  WaitForFetched((6 + 64) * 1000);
  Settle();
  EXPECT_EQ(FilesRead(), 6u + 64u) << "64 files ahead of the reader, no more";
  for (int i = 6; i < 300; ++i) ExpectRead(Name(i), 1000, 0, 4096);
  EXPECT_EQ(Reads().size(), 300u) << "each file is one request";
}

TEST_F(SiblingTest, NoMoreThanTheLimitOfBytesIsAhead) {
  PutMany(100, 900'000);
  FileSystemOptions options;
  options.prefetch_bytes = 10 * 900'000;
  Open(options);
  for (int i = 0; i < 5; ++i) ExpectRead(Name(i), 900'000, 0, 4096);
  WaitForFetched(15 * 900'000);
  Settle();
  EXPECT_EQ(FilesRead(), 15u);
}

TEST_F(SiblingTest, ReadersOfOneFolderSideBySideStillReadInOrder) {
  PutMany(300, 1000);
  Open();
  for (int i = 0; i < 16; i += 4) {  // as xargs -P4 does
    for (const int k : {1, 0, 3, 2}) ExpectRead(Name(i + k), 1000, 0, 4096);
  }
  WaitForFetched((16 + 64) * 1000);
}

TEST_F(SiblingTest, ShuffledOrderFetchesNothingThatIsNotRead) {
  PutMany(2000, 100);
  Open();
  std::vector<int> order(2000);
  for (int i = 0; i < 2000; ++i) order[static_cast<std::size_t>(i)] = i;
  std::mt19937_64 random(3);
  std::ranges::shuffle(order, random);
  order.resize(500);
  for (const int i : order) ExpectRead(Name(i), 100, 0, 4096);
  Settle();
  EXPECT_LE(FilesRead(), 500u + 50u) << "chance neighbourhoods, a few files each";
}

TEST_F(SiblingTest, WarmCacheStartsNothing) {
  PutMany(100, 1000);
  Open();
  for (int i = 0; i < 20; ++i) {
    // From the last one on: not in order, so exactly these are here then.
    ExpectRead(Name(19 - i), 1000, 0, 4096);
  }
  Settle();
  FileSystemOptions options;
  Open(options);
  const std::size_t before = store_->calls().size();
  for (int i = 0; i < 20; ++i) ExpectRead(Name(i), 1000, 0, 4096);
  Settle();
  EXPECT_EQ(store_->calls().size(), before);
}

TEST_F(SiblingTest, LargeFilesAndTheEndOfTheSnapshotEndIt) {
  PutMany(5, 1000);
  Put("d/00005", 2 * kMiB);
  Put("d/00006", 1000);
  Open();
  for (int i = 0; i < 4; ++i) ExpectRead(Name(i), 1000, 0, 4096);
  WaitForFetched(5 * 1000);
  Settle();
  EXPECT_EQ(FetchedBytes(), 5000u);
}

// ---------------------------------------------------------------- errors, names, attributes

TEST_F(FileSystemTest, ErrorIsToldOnceAFileAndTheNextReadTriesAgain) {
  Put("d/a", 1000);
  Put("d/big", 2 * kMiB);
  std::vector<std::string> told;
  FileSystemOptions options;
  options.on_error = [&](std::string_view path, const Error& error) {
    told.push_back(std::string(path) + ": " + std::string(ErrcName(error.code())));
  };
  Open(options);
  for (const auto& [key, times] : {std::pair("d/a", 2), std::pair("d/big", 1000)}) {
    testing::Fault fault;
    fault.op = Op::kRead;
    fault.key = key;
    fault.times = times;
    fault.code = Errc::kDenied;
    store_->Add(fault);
    for (int i = 0; i < 2; ++i) {
      const auto data = fs_->Read(NodeOf(key), 100, 100, {});
      ASSERT_FALSE(data);
      EXPECT_EQ(data.error().code(), Errc::kDenied);
    }
  }
  EXPECT_EQ(told, (std::vector<std::string>{"d/a: access denied", "d/big: access denied"}));
  EXPECT_EQ(counts_.errors, 4u);
  ExpectRead("d/a", 1000, 0, 100);
}

TEST_F(FileSystemTest, ReplacedObjectIsAnErrorThatNamesBothVersionsAndNeverAMixture) {
  Put("big", 10 * kMiB);
  Open();
  ExpectRead("big", 10 * kMiB, 0, 100);
  const std::string other(10 * kMiB, 'x');
  ASSERT_TRUE(store_->Put("big", AsBytes(other), {}, {}));
  int failed = 0;
  for (std::uint64_t at = 0; at < 10 * kMiB; at += 64 * kKiB) {
    const auto data = fs_->Read(NodeOf("big"), at, 64 * kKiB, {});
    if (!data) {
      ++failed;
      EXPECT_NE(data.error().message().find("replaced"), std::string::npos)
          << data.error().message();
      continue;
    }
    ASSERT_EQ(AsText(data->bytes), PatternOf("big", 10 * kMiB).substr(at, 64 * kKiB));
  }
  EXPECT_GT(failed, 0);
}

TEST_F(FileSystemTest, DamageOnTheWayIsFetchedAgainAndDamageInTheStoreIsAnError) {
  Put("a", 1000);
  Open();
  testing::Fault fault;
  fault.op = Op::kRead;
  fault.wrong_byte_at = 500;
  store_->Add(fault);
  ExpectRead("a", 1000, 0, 1000);
  EXPECT_EQ(Reads().size(), 2u);
  Put("b", 1000);
  Open();
  fault.times = 2;
  store_->Add(fault);
  const auto data = fs_->Read(NodeOf("b"), 0, 1000, {});
  ASSERT_FALSE(data);
  EXPECT_EQ(data.error().code(), Errc::kCorrupt);
}

TEST_F(FileSystemTest, LargeFileThatWasWrongStaysAnErrorHoweverManyOthersAreRead) {
  const int files = 20;
  for (int i = 0; i < files; ++i) Put(std::to_string(i), kMiB);
  std::vector<std::string> told;
  std::atomic<int> wrong{0};
  FileSystemOptions options;
  options.file_systems = 1'000'000;  // so few descriptors each that 16 are open at a time
  options.on_error = [&](std::string_view path, const Error&) { told.emplace_back(path); };
  options.on_wrong = [&](Node) { ++wrong; };
  Open(options);
  testing::Fault fault;
  fault.op = Op::kRead;
  fault.key = "7";
  fault.wrong_byte_at = 5;
  store_->Add(fault);
  (void)Read(NodeOf("7"), 0, kMiB);
  for (int tries = 0; tries < 1000 && wrong == 0; ++tries)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  ASSERT_EQ(wrong, 1);
  for (int epoch = 0; epoch < 2; ++epoch) {
    for (int i = 0; i < files; ++i) {
      const auto got = Read(NodeOf(std::to_string(i)), 0, kMiB);
      EXPECT_EQ(got.has_value(), i != 7) << i;
      EXPECT_FALSE(i == 7 && fs_->PassthroughFd(NodeOf("7")));
    }
  }
  EXPECT_EQ(told, std::vector<std::string>{"7"});
}

TEST_F(FileSystemTest, ExtraDirectoriesExistBesideTheSnapshots) {
  Put("a/file", 10);
  Put("z", 10);
  FileSystemOptions options;
  options.extra_directories = {"a/b/c", "new/one", "new/two"};
  Open(options);
  EXPECT_TRUE(fs_->IsDirectory(NodeOf("a/b/c")));
  EXPECT_EQ(fs_->Parent(NodeOf("a/b")), NodeOf("a"));
  EXPECT_EQ(fs_->PathOf(NodeOf("new/two")), "new/two");
  EXPECT_EQ(fs_->node_count(), 2u + 2u + 5u);
  const auto list = [&](std::string_view path) {
    std::vector<std::string> names;
    fs_->ReadDirectory(NodeOf(path), 0, [&](std::uint64_t, std::string_view n, Node) {
      names.emplace_back(n);
      return true;
    });
    return names;
  };
  EXPECT_EQ(list(""), (std::vector<std::string>{"a", "z", "new"}));
  EXPECT_EQ(list("a"), (std::vector<std::string>{"file", "b"}));
  EXPECT_EQ(list("new"), (std::vector<std::string>{"one", "two"}));
  EXPECT_FALSE(fs_->Stat(fs_->node_count() + 1));
  EXPECT_FALSE(fs_->Stat(0));
}

TEST_F(FileSystemTest, AttributesTellWhereTheBytesComeFrom) {
  Put("p/d/a", 10);
  Open({}, "p/");
  fs_->SetRootAttribute("user.leat.pin", [] { return "mf:1"; });
  EXPECT_EQ(fs_->Attribute(NodeOf("d/a"), "user.leat.source"), "mem://bucket/p/d/a");
  EXPECT_EQ(fs_->Attribute(NodeOf("d"), "user.leat.source"), "mem://bucket/p/d/");
  EXPECT_EQ(fs_->Attribute(kRootNode, "user.leat.source"), "mem://bucket/p/");
  EXPECT_EQ(fs_->Attribute(kRootNode, "user.leat.pin"), "mf:1");
  EXPECT_EQ(fs_->Attribute(NodeOf("d"), "user.leat.pin"), std::nullopt);
  EXPECT_EQ(fs_->Attribute(NodeOf("d/a"), "user.leat.etag")->size(), 32u);
  EXPECT_EQ(fs_->Attribute(NodeOf("d"), "user.leat.etag"), std::nullopt);
  EXPECT_EQ(fs_->Attribute(NodeOf("d/a"), "user.other"), std::nullopt);
  for (const Node nothing : {Node{0}, fs_->node_count() + 1, Node{UINT64_MAX}})
    EXPECT_TRUE(fs_->AttributeNames(nothing).empty()) << nothing;
  EXPECT_EQ(fs_->AttributeNames(kRootNode),
            (std::vector<std::string>{"user.leat.source", "user.leat.pin"}));
}

TEST_F(FileSystemTest, TryReadAnswersOnlyWhatNeedsNoWaiting) {
  Put("a", 1000);
  Put("big", 2 * kMiB);
  Open();
  const Node a = NodeOf("a");
  EXPECT_FALSE(fs_->TryRead(a, 0, 10)) << "not here yet";
  EXPECT_EQ(Reads().size(), 0u);
  ASSERT_TRUE(fs_->Read(a, 0, 10, {}));
  EXPECT_EQ(AsText(fs_->TryRead(a, 990, 100)->bytes), PatternOf("a", 1000).substr(990));
  for (const Node node : {a, NodeOf("big")}) {
    const std::uint64_t size = fs_->Stat(node)->size;
    EXPECT_EQ(fs_->TryRead(node, size, 10)->bytes.size(), 0u);
    EXPECT_EQ(fs_->TryRead(node, UINT64_MAX, 10)->bytes.size(), 0u);
    EXPECT_EQ(fs_->Read(node, size, 10, {})->bytes.size(), 0u);
    EXPECT_EQ(fs_->Read(node, UINT64_MAX, UINT64_MAX, {})->bytes.size(), 0u);
    EXPECT_EQ(fs_->Read(node, size - 1, UINT64_MAX, {})->bytes.size(), 1u);
  }
  EXPECT_FALSE(fs_->TryRead(kRootNode, 0, 10));
  EXPECT_FALSE(fs_->Read(kRootNode, 0, 10, {}));
}

// ---------------------------------------------------------------- limits

TEST_F(FileSystemTest, ThousandOpenLargeFilesStayWithinATinyBudget) {
  budget_ = std::make_unique<MemoryBudget>(16 * kMiB);
  const std::uint64_t size = 2 * kMiB;
  for (int i = 0; i < 1000; ++i) {
    // One body for all: 2 GiB of it would not fit here.
    static const std::string body = PatternOf("body", size);
    if (i < 50) {
      ASSERT_TRUE(store_->Put("f" + std::to_string(i), AsBytes(body), {}, {}));
    } else {
      // beyond the first ones small enough to keep the test quick, still large files
      ASSERT_TRUE(store_->Put("f" + std::to_string(i), AsBytes(body).first(kMiB), {}, {}));
    }
  }
  Open({}, "", false);  // nothing goes to disk: all that is fetched is held in memory
  std::atomic<std::uint64_t> greatest{0};
  std::jthread watch([&](std::stop_token stop) {
    while (!stop.stop_requested()) {
      greatest = std::max(greatest.load(), budget_->used());
      std::this_thread::yield();
    }
  });
  std::vector<std::thread> readers;
  for (int t = 0; t < 8; ++t) {
    readers.emplace_back([&, t] {
      for (int i = t; i < 1000; i += 8) {
        const auto got = Read(NodeOf("f" + std::to_string(i)), 0, 128 * kKiB);
        ASSERT_TRUE(got) << got.error().message();
        ASSERT_EQ(*got, PatternOf("body", 128 * kKiB));
      }
    });
  }
  for (auto& t : readers) t.join();
  watch.request_stop();
  watch.join();
  EXPECT_LE(greatest, 16 * kMiB);
  EXPECT_GT(greatest, 0u);
}

TEST_F(FileSystemTest, CountsTellWhatWasRead) {
  Put("a", 1000);
  Put("big", 2 * kMiB);
  Open();
  for (int i = 0; i < 3; ++i) ExpectRead("a", 1000, 0, 4096);
  EXPECT_EQ(cache_counts_.hit_bytes, 2000u);
  ExpectRead("big", 2 * kMiB, 0, 4096);
  EXPECT_EQ(counts_.files, 2u);
  EXPECT_EQ(counts_.reads, 4u);
  EXPECT_EQ(counts_.read_bytes, 3 * 1000u + 4096u);
}

}  // namespace
}  // namespace leat::vfs
