#include "transfer/tree.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <thread>

#include "base/log.h"
#include "snapshot/test_content.h"
#include "store/decorators.h"
#include "store/memory/memory_store.h"
#include "testing/fault_store.h"
#include "testing/step_killer.h"

namespace leat::transfer {
namespace {

using namespace std::chrono_literals;
namespace fs = std::filesystem;

using snapshot::testing::PatternOf;
using testing::Op;

class TreeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    SetQuiet(true);
    char path[] = "/tmp/leat-tree-test-XXXXXX";
    root_ = ::mkdtemp(path);
    store_ = std::make_shared<testing::FaultStore>(store::memory::MakeMemoryStore("mem://bucket"));
    Put("p/a", 1000);
    Put("p/dir/empty", 0);
    Put("p/dir/deep/b", 200'000);
    Put("p/dir/large", 3 * kMiB + 5);
    Put("p/marker/", 0);
  }
  void TearDown() override {
    cache_.reset();
    ASSERT_TRUE(os::RemoveTree(root_));
  }
  void Put(const std::string& key, std::uint64_t size) {
    snapshot::testing::PutPattern(*store_, key, size);
  }
  void Open(std::uint64_t limit = 100 * kMiB, bool disk = true) {
    cache_.reset();
    cache::CacheOptions options;
    options.dir = disk ? root_ + "/cache" : "";
    options.limit_bytes = limit;
    options.budget = &budget_;
    cache_ = cache::Cache::Open(options);
    ASSERT_EQ(cache_->problem(), "");
  }
  TreeOptions Options() {
    TreeOptions options;
    options.content = snapshot::testing::ContentOf(store_, "p/");
    options.cache = cache_.get();
    options.source = "mem://bucket/p/";
    options.threads = 4;
    options.request = kMiB;
    return options;
  }
  static std::vector<std::string> NamesIn(const std::string& path) {
    auto names = os::ListDir(path);
    EXPECT_TRUE(names);
    return names ? std::move(*names) : std::vector<std::string>{};
  }
  /// The read of `key` after `skip` ones that went well is denied.
  void Deny(const std::string& key, int skip = 0) {
    testing::Fault fault;
    fault.op = Op::kRead;
    fault.key = key;
    fault.skip = skip;
    fault.code = Errc::kDenied;
    store_->Add(fault);
  }
  /// Reads of `key` deliver a wrong byte at `at` of their range.
  void Damage(const std::string& key, std::uint64_t at, int times) {
    testing::Fault fault;
    fault.op = Op::kRead;
    fault.key = key;
    fault.wrong_byte_at = at;
    fault.times = times;
    store_->Add(fault);
  }
  std::size_t Gets() const { return store_->CountOf(Op::kRead); }
  /// Waits until the published tree's lease says that it has reached the disk.
  static void WaitForSync(const std::string& path) {
    for (int i = 0; i < 2000; ++i) {
      const auto text = os::ReadFile(path + ".lease");
      if (text && text->ends_with(" 1\n")) return;
      std::this_thread::sleep_for(5ms);
    }
    FAIL() << "the tree was not synced within ten seconds";
  }
  static void ExpectTree(const std::string& path) {
    std::vector<std::string> names;
    for (const auto& entry : fs::recursive_directory_iterator(path)) {
      const std::string name = fs::relative(entry.path(), path);
      names.push_back(name);
      struct stat st;
      ASSERT_EQ(::lstat(entry.path().c_str(), &st), 0);
      EXPECT_EQ(st.st_mode & 07777, entry.is_directory() ? 0555U : 0444U) << name;
      if (entry.is_directory()) continue;
      const std::string bytes = *os::ReadFile(entry.path());
      EXPECT_TRUE(bytes == PatternOf("p/" + name, bytes.size())) << name;
    }
    std::ranges::sort(names);
    EXPECT_EQ(names, (std::vector<std::string>{"a", "dir", "dir/deep", "dir/deep/b", "dir/empty",
                                               "dir/large", "marker"}));
    EXPECT_EQ(fs::file_size(path + "/dir/large"), 3 * kMiB + 5);
    EXPECT_EQ(fs::file_size(path + "/dir/deep/b"), 200'000u);
    EXPECT_EQ(fs::file_size(path + "/a"), 1000u);
    EXPECT_EQ(fs::file_size(path + "/dir/empty"), 0u);
  }

  std::string root_;
  std::shared_ptr<testing::FaultStore> store_;
  MemoryBudget budget_{64 * kMiB};
  std::unique_ptr<cache::Cache> cache_;
};

TEST_F(TreeTest, PublishedTreeHasContentModesAndTimesOfTheSnapshot) {
  Open();
  const auto options = Options();
  const auto tree = PublishTree(options, {});
  ASSERT_TRUE(tree) << tree.error().message();
  EXPECT_FALSE(tree->reused);
  ExpectTree(tree->path);
  const auto& index = *options.content->index;
  for (snapshot::FileIndex f = 0; f < index.file_count(); ++f) {
    struct stat st;
    ASSERT_EQ(::stat((tree->path + "/" + index.PathOfFile(f)).c_str(), &st), 0);
    EXPECT_EQ(st.st_mtim.tv_sec * 1'000'000'000 + st.st_mtim.tv_nsec, index.file(f).mtime_ns);
  }
  EXPECT_FALSE(os::Exists(tree->path + ".part"));
  EXPECT_EQ(Gets(), 2u + 4u) << "small files whole, the large one in ranges of 1 MiB";
  WaitForSync(tree->path);
}

TEST_F(TreeTest, LaterRunsShareIt) {
  Open();
  std::string path;
  {
    const auto tree = PublishTree(Options(), {});
    ASSERT_TRUE(tree);
    path = tree->path;
    WaitForSync(path);
  }
  const std::size_t before = Gets();
  Open();
  const auto again = PublishTree(Options(), {});
  ASSERT_TRUE(again);
  EXPECT_TRUE(again->reused);
  EXPECT_EQ(again->path, path);
  EXPECT_EQ(Gets(), before);
  Put("p/new", 10);  // another snapshot
  const auto other = PublishTree(Options(), {});
  ASSERT_TRUE(other);
  EXPECT_NE(other->path, path);
}

TEST_F(TreeTest, OneOfSeveralProcessesCopiesAndTheOthersWait) {
  Open();  // (the folder is made)
  const auto counter = os::Mapping::Shared(sizeof(store::RequestCounts));
  auto* counts = new (counter->data()) store::RequestCounts;
  std::vector<pid_t> children;
  for (int c = 0; c < 4; ++c) {
    const pid_t pid = ::fork();
    if (pid == 0) {
      auto memory = store::memory::MakeMemoryStore("mem://bucket");
      for (const auto& [key, size] :
           {std::pair("p/a", 1000), std::pair("p/b", 5000), std::pair("p/large", 2 << 20)}) {
        const std::string body = PatternOf(key, static_cast<std::uint64_t>(size));
        if (!memory->Put(key, AsBytes(body), {}, {})) ::_exit(1);
      }
      std::shared_ptr<store::ObjectStore> counted = store::MakeCounted(std::move(memory), counts);
      MemoryBudget budget(64 * kMiB);
      cache::CacheOptions cache_options;
      cache_options.dir = root_ + "/cache";
      cache_options.limit_bytes = 100 * kMiB;
      cache_options.budget = &budget;
      auto cache = cache::Cache::Open(cache_options);
      TreeOptions options;
      options.content = snapshot::testing::ContentOf(counted, "p/");
      options.cache = cache.get();
      options.request = kMiB;
      const auto tree = PublishTree(options, {});
      if (!tree) ::_exit(2);
      const auto bytes = os::ReadFile(tree->path + "/large");
      if (!bytes || *bytes != PatternOf("p/large", 2 << 20)) ::_exit(3);
      ::_exit(tree->reused ? 10 : 0);
    }
    children.push_back(pid);
  }
  int copied = 0;
  for (const pid_t pid : children) {
    int status = 0;
    ASSERT_EQ(::waitpid(pid, &status, 0), pid);
    EXPECT_TRUE(WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 10))
        << status;
    copied += status == 0 ? 1 : 0;
  }
  EXPECT_EQ(copied, 1);
  EXPECT_EQ(counts->gets, 4u) << "two small files, and two ranges";
}

TEST_F(TreeTest, KilledCopyIsGoneOnWithAndOnlyWhatIsMissingIsFetched) {
  {
    Open();
  }
  cache_.reset();
  for (int i = 0; i < 40; ++i) Put("q/f" + std::to_string(100 + i), 10'000);
  const auto gets = os::Mapping::Shared(sizeof(store::RequestCounts));
  auto* counts = new (gets->data()) store::RequestCounts;
  std::shared_ptr<store::ObjectStore> counted;  // over the same objects, counting in all processes
  class Slow final : public store::ObjectStore {
   public:
    Slow(std::shared_ptr<store::ObjectStore> inner, store::RequestCounts* c)
        : inner_(std::move(inner)), counts_(c) {}
    std::string_view Describe() const override { return inner_->Describe(); }
    std::string_view Identity() const override { return inner_->Identity(); }
    store::Capabilities capabilities() const override { return inner_->capabilities(); }
    Result<store::ObjectInfo> Stat(std::string_view k, std::string_view v,
                                   const CallContext& c) override {
      return inner_->Stat(k, v, c);
    }
    Status Read(std::string_view k, const store::ReadOptions& o, const store::Sink& s,
                const CallContext& c) override {
      std::this_thread::sleep_for(5ms);
      const Status read = inner_->Read(k, o, s, c);
      counts_->gets.fetch_add(1);
      return read;
    }
    Result<store::ListPage> List(std::string_view p, const store::ListOptions& o,
                                 const CallContext& c) override {
      return inner_->List(p, o, c);
    }
    Result<store::Version> Put(std::string_view k, std::span<const std::byte> b,
                               const store::PutOptions& o, const CallContext& c) override {
      return inner_->Put(k, b, o, c);
    }
    Status Remove(std::string_view k, const CallContext& c) override {
      return inner_->Remove(k, c);
    }

   private:
    const std::shared_ptr<store::ObjectStore> inner_;
    store::RequestCounts* const counts_;
  };
  counted = std::make_shared<Slow>(store_, counts);
  const auto publish = [&]() -> Result<Tree> {
    TreeOptions options;
    options.content = snapshot::testing::ContentOf(counted, "q/");
    options.cache = cache_.get();
    options.threads = 1;
    return PublishTree(options, {});
  };
  // Once at every few steps of the way; there must be room for one copy only.
  const std::uint64_t limit = 40 * (10'000 + 4096) + 200'000;
  for (std::uint64_t at = 3; at < 40; at += 6) {
    const pid_t pid = ::fork();
    if (pid == 0) {
      Open(limit);
      ::_exit(publish() ? 0 : 1);
    }
    while (counts->gets < at) std::this_thread::sleep_for(200us);
    ::kill(pid, SIGKILL);
    int status = 0;
    ASSERT_EQ(::waitpid(pid, &status, 0), pid);
    ASSERT_TRUE(WIFSIGNALED(status)) << status;
    for (const std::string& name : NamesIn(root_ + "/cache/trees"))
      EXPECT_TRUE(name.ends_with(".part") || name.ends_with(".lease")) << name;
  }
  Open(limit);
  const auto tree = publish();
  ASSERT_TRUE(tree) << tree.error().message();
  for (int i = 0; i < 40; ++i) {
    const std::string name = "f" + std::to_string(100 + i);
    EXPECT_TRUE(*os::ReadFile(tree->path + "/" + name) == PatternOf("q/" + name, 10'000)) << name;
  }
  EXPECT_LE(counts->gets, 40u + 7u * 2u) << "what was finished was not fetched again";
}

TEST_F(TreeTest, KilledAtEveryStepItIsWholeOrAbsentAndTheNextOneFinishesIt) {
  int step = 0;
  for (bool killed = true; killed && !HasFailure(); ++step) {
    SCOPED_TRACE("step " + std::to_string(step));
    killed = testing::KilledAtStep(step, [&] {
      Open(10 * kMiB);
      const auto tree = PublishTree(Options(), {});
      if (!tree) ::_exit(1);
      WaitForSync(tree->path);
      cache_.reset();
    });
    if (os::Exists(root_ + "/cache/trees")) {
      for (const std::string& name : NamesIn(root_ + "/cache/trees")) {
        if (name.find('.') == std::string::npos) ExpectTree(root_ + "/cache/trees/" + name);
      }
    }
    Open(10 * kMiB);  // room for one such tree, and no more than half of a second one
    {
      const auto tree = PublishTree(Options(), {});
      ASSERT_TRUE(tree) << tree.error().message();
      ExpectTree(tree->path);
      WaitForSync(tree->path);
    }
    cache_.reset();
    // (It is held a moment longer, by who has just said that it is synced.)
    std::uint64_t left = 1;
    for (int tries = 0; tries < 1000 && left > 0; ++tries) {
      ASSERT_TRUE(cache::Cache::Clean(root_ + "/cache", false));
      const auto stat = cache::Cache::Stat(root_ + "/cache", 0);
      left = stat->trees + stat->large_files;
    }
    EXPECT_EQ(left, 0u);
    ASSERT_TRUE(os::RemoveTree(root_ + "/cache"));
  }
  EXPECT_GT(step, 30);
}

TEST_F(TreeTest, OfALargeFileThatWasUnderWayOnlyTheMissingRangesAreFetched) {
  Open();
  auto options = Options();
  options.threads = 1;
  Deny("p/dir/large", 2);  // two of its four ranges arrive
  ASSERT_FALSE(PublishTree(options, {}));
  const std::size_t before = Gets();
  const auto tree = PublishTree(options, {});
  ASSERT_TRUE(tree) << tree.error().message();
  ExpectTree(tree->path);
  EXPECT_EQ(Gets(), before + 2 + 2) << "two ranges, two small files";
}

TEST_F(TreeTest, RangesThatLieDifferentlyAreNotGoneOnWith) {
  Open();
  auto options = Options();
  options.threads = 1;
  Deny("p/dir/large", 2);
  ASSERT_FALSE(PublishTree(options, {}));
  options.request = kMiB + 1;  // as many ranges, elsewhere
  const auto tree = PublishTree(options, {});
  ASSERT_TRUE(tree) << tree.error().message();
  ExpectTree(tree->path);
}

TEST_F(TreeTest, WrongBytesAreAnErrorAndNothingIsPublished) {
  Open();
  Damage("p/dir/deep/b", 100'000, 2);  // once is taken for damage on the way
  const auto tree = PublishTree(Options(), {});
  ASSERT_FALSE(tree);
  EXPECT_EQ(tree.error().code(), Errc::kCorrupt);
  EXPECT_NE(tree.error().message().find("mem://bucket/p/dir/deep/b"), std::string::npos)
      << tree.error().message();
  for (const std::string& name : NamesIn(cache_->trees_dir()))
    EXPECT_TRUE(name.ends_with(".part") || name.ends_with(".lease")) << name;
  const auto again = PublishTree(Options(), {});
  ASSERT_TRUE(again) << again.error().message();
  ExpectTree(again->path);
}

TEST_F(TreeTest, OfALargeFileWithWrongBytesNothingIsGoneOnWith) {
  Open();
  auto options = Options();
  options.threads = 1;
  Damage("p/dir/large", 5, 1);  // only the checksum of the whole can tell
  const auto tree = PublishTree(options, {});
  ASSERT_FALSE(tree);
  EXPECT_EQ(tree.error().code(), Errc::kCorrupt);
  EXPECT_NE(tree.error().message().find("mem://bucket/p/dir/large"), std::string::npos)
      << tree.error().message();
  const auto again = PublishTree(options, {});
  ASSERT_TRUE(again) << again.error().message();
  ExpectTree(again->path);
}

TEST_F(TreeTest, CancelledCopyIsAnErrorAndNothingIsPublished) {
  Open();
  std::stop_source stop;
  stop.request_stop();
  const auto tree = PublishTree(Options(), {stop.get_token(), CallContext{}.deadline});
  ASSERT_FALSE(tree);
  EXPECT_EQ(tree.error().code(), Errc::kCancelled);
}

TEST_F(TreeTest, FailedCopiesDoNotEatTheRoom) {
  const std::uint64_t limit = 5 * kMiB;
  Open(limit);
  for (int i = 0; i < 5; ++i) {
    Deny("p/a");
    const auto tree = PublishTree(Options(), {});
    ASSERT_FALSE(tree);
    ASSERT_EQ(tree.error().code(), Errc::kDenied) << tree.error().message();
  }
  ASSERT_TRUE(PublishTree(Options(), {}));
}

TEST_F(TreeTest, TreeThatIsInUseStaysAndOneThatIsNotMakesRoom) {
  const std::uint64_t limit = 5 * kMiB;
  Open(limit);
  std::string path;
  {
    const auto used = PublishTree(Options(), {});
    ASSERT_TRUE(used);
    path = used->path;
    WaitForSync(path);
    Put("p/other", 3 * kMiB);
    const auto other = PublishTree(Options(), {});
    ASSERT_FALSE(other);
    EXPECT_EQ(other.error().code(), Errc::kNoSpace);
    EXPECT_NE(other.error().message().find("mode=copy needs"), std::string::npos)
        << other.error().message();
    ExpectTree(path);
  }
  ASSERT_TRUE(store_->Remove("p/dir/large", {}));
  cache_.reset();
  Open(limit);  // (a moment ago there was no room: that is remembered for a few seconds)
  const auto other = PublishTree(Options(), {});
  ASSERT_TRUE(other) << other.error().message();
  EXPECT_FALSE(os::Exists(path));
  EXPECT_FALSE(os::Exists(path + ".lease"));
}

TEST_F(TreeTest, LargeFileThatTheCacheHasIsASecondNameForIt) {
  Open();
  const auto options = Options();
  const auto& index = *options.content->index;
  snapshot::FileIndex large = 0;
  while (index.PathOfFile(large) != "dir/large") ++large;
  const cache::FileKey key{cache::Identity::Of(options.content->IdentityOf(large)),
                           index.file(large).size};
  {
    const auto file = cache_->OpenLarge(key, cache_->Hold("x"),
                                        std::make_unique<cache::FetchFrom<snapshot::EntryReader>>(
                                            snapshot::EntryReader(options.content, large)));
    ASSERT_TRUE(file->Complete(kMiB, {}));
  }
  const std::size_t before = Gets();
  const auto tree = PublishTree(options, {});
  ASSERT_TRUE(tree) << tree.error().message();
  ExpectTree(tree->path);
  EXPECT_EQ(Gets(), before + 2) << "only the small files were fetched";
  struct stat st;
  ASSERT_EQ(::stat((tree->path + "/dir/large").c_str(), &st), 0);
  EXPECT_EQ(st.st_nlink, 2u);
  EXPECT_EQ(st.st_mtim.tv_sec * 1'000'000'000 + st.st_mtim.tv_nsec, index.file(large).mtime_ns);
  // And the cache still serves it.
  const auto file = cache_->OpenLarge(key, cache_->Hold("x"),
                                      std::make_unique<cache::FetchFrom<snapshot::EntryReader>>(
                                          snapshot::EntryReader(options.content, large)));
  EXPECT_TRUE(file->PassthroughFd());
  EXPECT_EQ(Gets(), before + 2);
}

TEST_F(TreeTest, WhatATreeSharesGoesWithItHoweverLongAgoItWasUsed) {
  Open();
  {
    const auto options = Options();
    auto lease = cache_->Hold("mem://bucket p/");
    snapshot::FileIndex large = 0;
    while (options.content->index->PathOfFile(large) != "dir/large") ++large;
    const cache::FileKey key{cache::Identity::Of(options.content->IdentityOf(large)), 3 * kMiB + 5};
    ASSERT_TRUE(cache_
                    ->OpenLarge(key, lease,
                                std::make_unique<cache::FetchFrom<snapshot::EntryReader>>(
                                    snapshot::EntryReader(options.content, large)))
                    ->Complete(kMiB, {}));
    const auto tree = PublishTree(options, {});
    ASSERT_TRUE(tree) << tree.error().message();
    WaitForSync(tree->path);
    // The tree is what was used last.
    const timespec later[2] = {{::time(nullptr) + 100, 0}, {::time(nullptr) + 100, 0}};
    ASSERT_EQ(::utimensat(AT_FDCWD, (tree->path + ".lease").c_str(), later, 0), 0);
  }
  cache_.reset();
  ASSERT_EQ(cache::Cache::Stat(root_ + "/cache", 0)->trees, 1u);
  ASSERT_TRUE(cache::Cache::Clean(root_ + "/cache", false));
  const auto left = cache::Cache::Stat(root_ + "/cache", 0);
  EXPECT_EQ(left->trees, 0u);
  EXPECT_EQ(left->large_files, 0u);
}

TEST_F(TreeTest, IsPublishedTellsWhetherThereIsSomethingToDo) {
  Open();
  EXPECT_FALSE(IsPublished(Options()));
  Deny("p/dir/large");
  EXPECT_FALSE(PublishTree(Options(), {}));
  EXPECT_FALSE(IsPublished(Options()));
  ASSERT_TRUE(PublishTree(Options(), {}));
  EXPECT_TRUE(IsPublished(Options()));
  Put("p/a", 1001);
  EXPECT_FALSE(IsPublished(Options())) << "other contents";
}

TEST_F(TreeTest, SmallFilesThatTheCacheHasAreNotFetchedAgain) {
  Open();
  const auto options = Options();
  const auto lease = cache_->Hold("x");
  for (snapshot::FileIndex f = 0; f < options.content->index->file_count(); ++f) {
    const auto info = options.content->index->file(f);
    if (info.size == 0 || info.size >= cache::kLargeFile) continue;
    cache::FetchFrom<snapshot::EntryReader> fetcher(snapshot::EntryReader(options.content, f));
    ASSERT_TRUE(cache_->ReadSmall({cache::Identity::Of(options.content->IdentityOf(f)), info.size},
                                  *lease, fetcher, {}));
  }
  const std::size_t before = Gets();
  const auto tree = PublishTree(options, {});
  ASSERT_TRUE(tree);
  ExpectTree(tree->path);
  EXPECT_EQ(Gets(), before + 4) << "the large file's ranges";
}

class OtherBoot : public TreeTest {
 protected:
  /// Says in the lease that the tree was written during another boot, and damages what a power loss
  /// might have.
  static void PowerLoss(const std::string& lease, const std::string& file, bool synced) {
    const std::string text = *os::ReadFile(lease);
    const std::size_t first = text.find(' '), second = text.find(' ', first + 1);
    const std::string other = text.substr(0, second) + " 00000000-1111-2222-3333-444444444444 " +
                              (synced ? "1\n" : "0\n");
    const auto fd = os::Open(lease, O_RDWR | O_TRUNC);
    ASSERT_TRUE(os::PwriteAll(fd->get(), AsBytes(other), 0));
    if (synced) return;
    ASSERT_EQ(::chmod(file.c_str(), 0644), 0);
    const std::string zeros(1000, '\0');
    const auto f = os::Open(file, O_RDWR);
    ASSERT_TRUE(os::PwriteAll(f->get(), AsBytes(zeros), 0));
    ASSERT_EQ(::chmod(file.c_str(), 0444), 0);
  }
};

TEST_F(OtherBoot, PublishedTreeThatWasNotSyncedIsMadeAnew) {
  Open();
  std::string path;
  {
    const auto tree = PublishTree(Options(), {});
    ASSERT_TRUE(tree);
    path = tree->path;
    WaitForSync(path);
  }
  PowerLoss(path + ".lease", path + "/dir/large", false);
  const auto again = PublishTree(Options(), {});
  ASSERT_TRUE(again);
  EXPECT_FALSE(again->reused);
  ExpectTree(again->path);
}

TEST_F(OtherBoot, SyncedTreeIsUsedFurther) {
  Open();
  std::string path;
  {
    const auto tree = PublishTree(Options(), {});
    ASSERT_TRUE(tree);
    path = tree->path;
    WaitForSync(path);
  }
  PowerLoss(path + ".lease", "", true);
  const auto again = PublishTree(Options(), {});
  ASSERT_TRUE(again);
  EXPECT_TRUE(again->reused);
}

TEST_F(OtherBoot, HalfMadeTreeIsNotGoneOnWith) {
  Open();
  Deny("p/dir/deep/b");
  auto options = Options();
  options.threads = 1;  // the large file is finished before the small one fails
  ASSERT_FALSE(PublishTree(options, {}));
  std::string part;
  for (const std::string& name : NamesIn(cache_->trees_dir())) {
    if (name.ends_with(".part")) part = cache_->trees_dir() + "/" + name;
  }
  ASSERT_TRUE(os::Exists(part + "/dir/large"));
  PowerLoss(part.substr(0, part.size() - 5) + ".lease", part + "/dir/large", false);
  const auto again = PublishTree(Options(), {});
  ASSERT_TRUE(again);
  ExpectTree(again->path);
}

TEST_F(TreeTest, WithoutACacheTheTreeIsPutBeside) {
  Open(0, false);
  auto options = Options();
  const auto nowhere = PublishTree(options, {});
  ASSERT_FALSE(nowhere);
  EXPECT_EQ(nowhere.error().code(), Errc::kNoSpace);
  options.fallback_dir = root_ + "/home/trees";
  const auto tree = PublishTree(options, {});
  ASSERT_TRUE(tree) << tree.error().message();
  ExpectTree(tree->path);
  EXPECT_TRUE(tree->path.starts_with(root_ + "/home/trees/"));
  WaitForSync(tree->path);
}

}  // namespace
}  // namespace leat::transfer
