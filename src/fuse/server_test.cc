// The server against a kernel that is a socket pair.
#include "fuse/server.h"

#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <map>
#include <random>
#include <set>
#include <thread>

#include "fuse/protocol.h"
#include "snapshot/test_content.h"
#include "store/memory/memory_store.h"
#include "testing/fake_kernel.h"
#include "testing/manual_store.h"
#include "testing/seed.h"

namespace leat::fuse {
namespace {

using snapshot::testing::PatternOf;
using testing::FakeKernel;

constexpr std::uint64_t kEverything = ~0ULL;
constexpr std::uint64_t kBig = 3 * kMiB + 17;

class FuseServerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char path[] = "/tmp/leat-fuse-test-XXXXXX";
    root_ = ::mkdtemp(path);
    auto manual =
        std::make_shared<testing::ManualStore>(store::memory::MakeMemoryStore("mem://bucket"));
    store_ = manual.get();
    store_->LetAllPass();
    const auto put = [&](const std::string& key, std::uint64_t size) {
      snapshot::testing::PutPattern(*store_, key, size);
    };
    put("a.txt", 5000);
    put("big.bin", kBig);
    put("empty", 0);
    for (int i = 0; i < 100; ++i) put("many/file-" + std::to_string(i), 10);
    put("sub/deep/x", 1);
    content_ = snapshot::testing::ContentOf(manual);

    cache::CacheOptions options;
    options.dir = root_ + "/cache";
    options.limit_bytes = 100 * kMiB;
    options.budget = &budget_;
    cache_ = cache::Cache::Open(options);
    ASSERT_EQ(cache_->problem(), "");
    vfs::FileSystemOptions fs;
    fs.content = content_;
    fs.cache = cache_.get();
    fs.counts = &counts_;
    fs.extra_directories = {"extra/inner"};
    fs_ = std::make_shared<vfs::FileSystem>(fs);
  }
  void TearDown() override {
    store_->LetAllPass();
    Stop();
    fs_.reset();
    cache_.reset();
    ASSERT_TRUE(os::RemoveTree(root_));
  }

  void Serve(bool open_mode = false, bool resume = false) {
    ServerOptions options;
    options.fs = fs_;
    options.fd = kernel_.server_fd();
    options.open_mode = open_mode;
    options.opens = opens_;
    options.connection = &connection_;
    options.resume = resume;
    options.uid = 1234;
    options.gid = 567;
    server_ = std::make_unique<Server>(options);
    server_->Start();
  }
  void Stop() {
    kernel_.Disconnect();
    server_.reset();
  }
  vfs::Node NodeOf(std::string_view path) {
    vfs::Node node = vfs::kRootNode;
    while (!path.empty()) {
      const auto slash = std::min(path.find('/'), path.size());
      const auto answer = kernel_.Lookup(node, path.substr(0, slash));
      EXPECT_EQ(answer.error, 0) << path;
      node = answer.As<fuse_entry_out>().nodeid;
      EXPECT_NE(node, 0u) << path;
      path.remove_prefix(std::min(slash + 1, path.size()));
    }
    return node;
  }

  std::string root_;
  FakeKernel kernel_;
  testing::ManualStore* store_ = nullptr;  // content_ keeps it
  std::shared_ptr<const snapshot::Content> content_;
  MemoryBudget budget_{64 * kMiB};
  vfs::ReadCounts counts_;
  std::unique_ptr<cache::Cache> cache_;
  std::shared_ptr<vfs::FileSystem> fs_;
  std::array<OpenRecord, 8> opens_ = {};
  ConnectionRecord connection_ = {};
  std::unique_ptr<Server> server_;
};

// ---------------------------------------------------------------- INIT

TEST_F(FuseServerTest, InitTakesWhatBothKnowAndNoMore) {
  Serve();
  const auto answer = kernel_.Init(41, kEverything);
  ASSERT_EQ(answer.error, 0);
  const auto init = answer.As<fuse_init_out>();
  EXPECT_EQ(init.major, 7u);
  EXPECT_EQ(init.minor, kMinor) << "not beyond the structures that are used here";
  EXPECT_EQ(init.flags & FUSE_NO_OPEN_SUPPORT, static_cast<unsigned>(FUSE_NO_OPEN_SUPPORT));
  EXPECT_EQ(init.flags & FUSE_NO_OPENDIR_SUPPORT, static_cast<unsigned>(FUSE_NO_OPENDIR_SUPPORT));
  EXPECT_EQ(init.flags & FUSE_DO_READDIRPLUS, static_cast<unsigned>(FUSE_DO_READDIRPLUS));
  for (const unsigned unwanted : {FUSE_WRITEBACK_CACHE, FUSE_POSIX_ACL, FUSE_POSIX_LOCKS,
                                  FUSE_ATOMIC_O_TRUNC, FUSE_READDIRPLUS_AUTO}) {
    EXPECT_EQ(init.flags & unwanted, 0u) << unwanted;
  }
  EXPECT_EQ(init.max_pages, 256) << "reads of 1 MiB";
  EXPECT_EQ(connection_.initialised, 1u);
  EXPECT_EQ(connection_.has_resend, 1u);
  EXPECT_EQ(connection_.has_passthrough, 0u) << "files are not opened in this mode";
}

TEST_F(FuseServerTest, InitInOpenModeAsksForPassthroughAndForOpens) {
  Serve(true);
  const auto init = kernel_.Init(40, kEverything).As<fuse_init_out>();
  EXPECT_EQ(init.flags & FUSE_NO_OPEN_SUPPORT, 0u);
  EXPECT_NE((static_cast<std::uint64_t>(init.flags2) << 32) & kInitPassthrough, 0u);
  EXPECT_EQ(init.unused[0], 1u) << "max_stack_depth";
  EXPECT_EQ(connection_.has_passthrough, 1u);
}

TEST_F(FuseServerTest, InitOfAnOldKernelIsAnsweredInItsOwnVersion) {
  Serve(true);
  const auto init = kernel_.Init(31, FUSE_ASYNC_READ | FUSE_MAX_PAGES).As<fuse_init_out>();
  EXPECT_EQ(init.minor, 31u);
  EXPECT_EQ(init.flags, static_cast<unsigned>(FUSE_ASYNC_READ | FUSE_MAX_PAGES));
  EXPECT_EQ(init.flags2, 0u) << "it offered no second word of flags";
  EXPECT_EQ(connection_.has_resend, 0u);
  EXPECT_EQ(connection_.has_passthrough, 0u);
  EXPECT_EQ(kernel_.Init(30, kEverything).error, EPROTO);
}

TEST_F(FuseServerTest, InitOfALaterMajorVersionIsAskedToComeAgainWithOurs) {
  Serve();
  fuse_init_in in = {};
  in.major = 8;
  const auto answer = kernel_.Call(FUSE_INIT, 0, FakeKernel::Body(in));
  ASSERT_EQ(answer.error, 0);
  EXPECT_EQ(answer.As<fuse_init_out>().major, 7u);
  EXPECT_EQ(connection_.initialised, 0u);
  in.major = 6;
  EXPECT_EQ(kernel_.Call(FUSE_INIT, 0, FakeKernel::Body(in)).error, EPROTO);
}

// ---------------------------------------------------------------- names and attributes

TEST_F(FuseServerTest, LookupGivesAttributesForEver) {
  Serve();
  const auto answer = kernel_.Lookup(1, "a.txt");
  ASSERT_EQ(answer.error, 0);
  const auto entry = answer.As<fuse_entry_out>();
  EXPECT_EQ(entry.attr.ino, entry.nodeid);
  EXPECT_EQ(entry.attr.size, 5000u);
  EXPECT_EQ(entry.attr.mode, static_cast<unsigned>(S_IFREG | 0444));
  EXPECT_EQ(entry.attr.uid, 1234u);
  EXPECT_EQ(entry.attr.gid, 567u);
  EXPECT_EQ(entry.attr.nlink, 1u);
  EXPECT_GT(entry.entry_valid, 1ULL << 40);
  EXPECT_GT(entry.attr_valid, 1ULL << 40);
  const auto sub = kernel_.Lookup(1, "sub").As<fuse_entry_out>();
  EXPECT_EQ(sub.attr.mode, static_cast<unsigned>(S_IFDIR | 0555));
  EXPECT_EQ(kernel_.Lookup(sub.nodeid, "..").As<fuse_entry_out>().nodeid, 1u);
  EXPECT_EQ(kernel_.Lookup(sub.nodeid, ".").As<fuse_entry_out>().nodeid, sub.nodeid);
  EXPECT_EQ(kernel_.Call(FUSE_GETATTR, entry.nodeid).As<fuse_attr_out>().attr.size, 5000u);
}

TEST_F(FuseServerTest, LookupOfWhatIsNotThereMayBeRememberedForEver) {
  Serve();
  const auto answer = kernel_.Lookup(1, "no such");
  EXPECT_EQ(answer.error, 0);
  EXPECT_EQ(answer.As<fuse_entry_out>().nodeid, 0u);
  EXPECT_GT(answer.As<fuse_entry_out>().entry_valid, 1ULL << 40);
  EXPECT_EQ(kernel_.Lookup(1, std::string(256, 'x')).error, ENAMETOOLONG);
  EXPECT_EQ(kernel_.Lookup(NodeOf("a.txt"), "x").error, ENOTDIR);
}

TEST_F(FuseServerTest, DirectoriesForWhatIsMountedInsideExistBesideTheSnapshots) {
  Serve();
  const auto inner = NodeOf("extra/inner");
  const auto entries = kernel_.ReadDirectory(inner, 0, 4096, true);
  ASSERT_EQ(entries.size(), 2u);
  EXPECT_EQ(entries[1].node, NodeOf("extra"));
}

TEST_F(FuseServerTest, EveryAnswerToAWrongNodeIsAnError) {
  Serve();
  // Of a file system that was never here.
  EXPECT_EQ(kernel_.Call(FUSE_GETATTR, UINT64_MAX).error, ESTALE);
  EXPECT_EQ(kernel_.Lookup(UINT64_MAX, "a.txt").error, ESTALE);
  EXPECT_EQ(kernel_.Read(UINT64_MAX, 0, 100).error, ESTALE);
  for (const std::uint64_t node :
       {std::uint64_t{0}, fs_->node_count() + 1, std::uint64_t{1} << 32}) {
    EXPECT_EQ(kernel_.Call(FUSE_GETATTR, node).error, ESTALE) << node;
    EXPECT_EQ(kernel_.Lookup(node, "a.txt").error, ENOTDIR) << node;
    EXPECT_NE(kernel_.Read(node, 0, 100).error, 0) << node;
    int error = 0;
    kernel_.ReadDirectory(node, 0, 4096, true, &error);
    EXPECT_EQ(error, ENOTDIR) << node;
    fuse_getxattr_in get = {};
    get.size = 1000;
    for (const std::string name : {"user.leat.source", "user.leat.etag", "user.leat.version"}) {
      EXPECT_EQ(
          kernel_.Call(FUSE_GETXATTR, node, FakeKernel::Body(get, name + std::string(1, '\0')))
              .error,
          ENODATA)
          << node << " " << name;
    }
    EXPECT_EQ(kernel_.Call(FUSE_LISTXATTR, node, FakeKernel::Body(get)).body.size(), 0u) << node;
  }
}

TEST_F(FuseServerTest, AnotherSnapshotTakesTheRootAndWhatIsOpenStays) {
  Serve();
  const auto old = NodeOf("sub/deep/x"), folder = NodeOf("sub");
  const auto is_there = kernel_.Lookup(folder, "deep");
  const auto deep = is_there.As<fuse_entry_out>().nodeid;
  std::shared_ptr<store::ObjectStore> store = store::memory::MakeMemoryStore("mem://next");
  snapshot::testing::PutPattern(*store, "sub/deep/y", 3);
  vfs::FileSystemOptions options;
  options.content = snapshot::testing::ContentOf(store);
  options.cache = cache_.get();
  server_->Replace(std::make_shared<vfs::FileSystem>(options));
  // The kernel is told of all names that the root had or has.
  std::set<std::string> names;
  for (bool more = true; more;) {
    const auto told = kernel_.Notification();
    if (told.error == FUSE_NOTIFY_INVAL_INODE) {
      more = false;
    } else {
      ASSERT_EQ(told.error, FUSE_NOTIFY_INVAL_ENTRY);
      names.emplace(reinterpret_cast<const char*>(told.body.data()) +
                    sizeof(fuse_notify_inval_entry_out));
    }
  }
  EXPECT_TRUE(names.contains("sub") && names.contains("a.txt"));
  EXPECT_EQ(kernel_.Lookup(vfs::kRootNode, "a.txt").As<fuse_entry_out>().nodeid, 0u);
  const auto fresh = NodeOf("sub/deep/y");
  EXPECT_NE(fresh, old);
  EXPECT_EQ(kernel_.Read(fresh, 0, 10).body.size(), 3u);
  // By its old number a folder shows what it showed.
  EXPECT_EQ(kernel_.Call(FUSE_GETATTR, folder).error, 0);
  EXPECT_EQ(kernel_.Read(old, 0, 10).body.size(), 1u);

  // When the kernel has forgotten all of it, it goes.
  const std::weak_ptr<vfs::FileSystem> first = fs_;
  fs_.reset();
  EXPECT_FALSE(first.expired());
  // x once, sub and deep twice.
  const auto forget = [&](vfs::Node node, std::uint64_t lookups) {
    fuse_forget_in in = {};
    in.nlookup = lookups;
    kernel_.Send(FUSE_FORGET, node, FakeKernel::Body(in));
    EXPECT_EQ(kernel_.Call(FUSE_GETATTR, vfs::kRootNode).error, 0);
  };
  forget(old, 1);
  forget(folder, 2);
  EXPECT_FALSE(first.expired());
  forget(deep, 2);
  for (int i = 0; i < 1000 && !first.expired(); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_TRUE(first.expired());
  EXPECT_EQ(kernel_.Call(FUSE_GETATTR, old).error, ESTALE);
}

TEST_F(FuseServerTest, StatFsTellsSizeAndNumberOfFiles) {
  Serve();
  const auto out = kernel_.Call(FUSE_STATFS, 1).As<fuse_statfs_out>();
  EXPECT_EQ(out.st.blocks * out.st.bsize / 4096, (5000 + kBig + 1001 + 4095) / 4096);
  EXPECT_EQ(out.st.files, fs_->node_count());
  EXPECT_EQ(out.st.bfree, 0u);
}

// ---------------------------------------------------------------- directories

TEST_F(FuseServerTest, DirectoryIsTheSameHoweverSmallThePages) {
  Serve();
  const auto many = NodeOf("many");
  std::vector<std::string> want = {".", ".."};
  for (int i = 0; i < 100; ++i) want.push_back("file-" + std::to_string(i));
  std::ranges::sort(want);
  for (const bool plus : {false, true}) {
    const unsigned one_entry = FUSE_DIRENT_ALIGN(
        static_cast<unsigned>(plus ? FUSE_NAME_OFFSET_DIRENTPLUS : FUSE_NAME_OFFSET) + 7);
    for (const std::uint32_t size : {one_entry, one_entry + 7, 200U, 300U, 4096U, 65536U}) {
      std::vector<std::string> got;
      for (std::uint64_t offset = 0;;) {
        const auto page = kernel_.ReadDirectory(many, offset, std::max(size, one_entry), plus);
        if (page.empty()) break;
        for (const auto& entry : page) {
          got.push_back(entry.name);
          offset = entry.next;
          const bool dot = entry.name == "." || entry.name == "..";
          EXPECT_EQ(entry.type, static_cast<unsigned>(dot ? DT_DIR : DT_REG));
          EXPECT_EQ(entry.looked_up, plus && !dot ? entry.node : 0u) << entry.name;
        }
      }
      EXPECT_EQ(got[0], ".");
      EXPECT_EQ(got[1], "..");
      EXPECT_TRUE(std::ranges::is_sorted(got.begin() + 2, got.end()));
      std::ranges::sort(got);
      EXPECT_EQ(got, want) << "pages of " << size;
    }
  }
}

TEST_F(FuseServerTest, DirectoryCanBeReadFromAnyPositionAndNoneLeadsOutside) {
  Serve();
  const auto all = kernel_.ReadDirectory(1, 0, 65536, false);
  for (std::size_t i = 0; i < all.size(); ++i) {
    const auto rest = kernel_.ReadDirectory(1, all[i].next, 65536, true);
    ASSERT_EQ(rest.size(), all.size() - i - 1);
    if (!rest.empty()) {
      EXPECT_EQ(rest[0].name, all[i + 1].name);
    }
  }
  for (const std::uint64_t offset : {1000ULL, 1ULL << 32, (1ULL << 32) + 2, ~0ULL, ~0ULL - 1}) {
    EXPECT_TRUE(kernel_.ReadDirectory(1, offset, 4096, true).empty()) << offset;
  }
  for (const std::uint32_t size : {0U, 1U, 23U}) {
    EXPECT_TRUE(kernel_.ReadDirectory(1, 0, size, true).empty());
  }
  EXPECT_FALSE(kernel_.ReadDirectory(1, 0, UINT32_MAX, true).empty());
}

// ---------------------------------------------------------------- reads

TEST_F(FuseServerTest, ReadGivesTheBytesOfSmallAndLargeFiles) {
  Serve();
  const std::string small = PatternOf("a.txt", 5000);
  const std::string big = PatternOf("big.bin", kBig);
  const auto a = NodeOf("a.txt");
  const auto b = NodeOf("big.bin");
  for (int warm = 0; warm < 2; ++warm) {
    EXPECT_EQ(kernel_.Read(a, 0, 131072).text(), small);
    EXPECT_EQ(kernel_.Read(a, 4990, 100).text(), small.substr(4990));
    EXPECT_EQ(kernel_.Read(a, 17, 1).text(), small.substr(17, 1));
    EXPECT_EQ(kernel_.Read(b, 0, 131072).text(), big.substr(0, 131072));
    EXPECT_EQ(kernel_.Read(b, 130'000, 150'000).text(), big.substr(130'000, 150'000));
    EXPECT_EQ(kernel_.Read(b, kBig - 5, 131072).text(), big.substr(kBig - 5));
  }
}

TEST_F(FuseServerTest, ReadAtTheEndAndBeyondIsEmptyAndNoError) {
  Serve();
  for (const char* name : {"a.txt", "big.bin", "empty"}) {
    const auto node = NodeOf(name);
    const auto size = fs_->Stat(node)->size;
    for (const std::uint64_t offset :
         {size, size + 1, size + 4096, std::uint64_t{1} << 62, UINT64_MAX}) {
      const auto answer = kernel_.Read(node, offset, 4096);
      EXPECT_EQ(answer.error, 0) << name << " " << offset;
      EXPECT_EQ(answer.body.size(), 0u) << name << " " << offset;
    }
    EXPECT_EQ(kernel_.Read(node, 0, 0).body.size(), 0u);
  }
  EXPECT_EQ(kernel_.Read(NodeOf("a.txt"), 4999, UINT32_MAX).body.size(), 1u) << "a huge size";
}

TEST_F(FuseServerTest, OpenOpendirAndFlushAreLeftToTheKernel) {
  Serve();
  fuse_open_in open = {};
  EXPECT_EQ(kernel_.Call(FUSE_OPEN, NodeOf("a.txt"), FakeKernel::Body(open)).error, ENOSYS);
  EXPECT_EQ(kernel_.Call(FUSE_OPENDIR, 1, FakeKernel::Body(open)).error, ENOSYS);
  EXPECT_EQ(kernel_.Call(FUSE_FLUSH, NodeOf("a.txt"), FakeKernel::Body(fuse_flush_in{})).error,
            ENOSYS);
  EXPECT_EQ(kernel_.Call(FUSE_LSEEK, NodeOf("a.txt"), FakeKernel::Body(fuse_lseek_in{})).error,
            ENOSYS);
}

TEST_F(FuseServerTest, OpenModeCountsWhoReadsThroughTheServer) {
  Serve(true);
  connection_.has_passthrough = 0;  // as INIT with a kernel that has it not leaves it
  const auto node = NodeOf("big.bin");
  auto& record = opens_[node % opens_.size()];
  fuse_open_in open = {};
  open.flags = O_RDONLY;
  const auto first = kernel_.Call(FUSE_OPEN, node, FakeKernel::Body(open));
  ASSERT_EQ(first.error, 0);
  EXPECT_EQ(first.As<fuse_open_out>().open_flags, static_cast<unsigned>(FOPEN_KEEP_CACHE));
  ASSERT_EQ(kernel_.Call(FUSE_OPEN, node, FakeKernel::Body(open)).error, 0);
  EXPECT_EQ(record.plain_opens, 2u);
  fuse_release_in release = {};
  for (int i = 0; i < 3; ++i)
    EXPECT_EQ(kernel_.Call(FUSE_RELEASE, node, FakeKernel::Body(release)).error, 0);
  EXPECT_EQ(record.plain_opens, 0u) << "one release too many takes nothing off";
  open.flags = O_RDWR;
  EXPECT_EQ(kernel_.Call(FUSE_OPEN, node, FakeKernel::Body(open)).error, EROFS);
}

TEST_F(FuseServerTest, WhateverWouldWriteIsAReadOnlyFileSystemsError) {
  Serve();
  const auto node = NodeOf("a.txt");
  for (const std::uint32_t op : {FUSE_SETATTR, FUSE_MKNOD, FUSE_MKDIR, FUSE_UNLINK, FUSE_RMDIR,
                                 FUSE_RENAME, FUSE_RENAME2, FUSE_LINK, FUSE_SYMLINK, FUSE_WRITE,
                                 FUSE_CREATE, FUSE_SETXATTR, FUSE_REMOVEXATTR, FUSE_TMPFILE}) {
    EXPECT_EQ(kernel_.Call(op, node, std::vector<std::byte>(200)).error, EROFS) << op;
  }
  fuse_access_in access = {};
  access.mask = W_OK;
  EXPECT_EQ(kernel_.Call(FUSE_ACCESS, node, FakeKernel::Body(access)).error, EROFS);
  access.mask = R_OK;
  EXPECT_EQ(kernel_.Call(FUSE_ACCESS, node, FakeKernel::Body(access)).error, 0);
}

// ---------------------------------------------------------------- extended attributes

TEST_F(FuseServerTest, ExtendedAttributeTellsItsSizeThenItsValue) {
  Serve();
  const auto node = NodeOf("a.txt");
  const auto get = [&](std::string name, std::uint32_t size) {
    fuse_getxattr_in in = {};
    in.size = size;
    name.push_back('\0');
    return kernel_.Call(FUSE_GETXATTR, node, FakeKernel::Body(in, name));
  };
  const std::string source = "mem://bucket/a.txt";
  EXPECT_EQ(get("user.leat.source", 0).As<fuse_getxattr_out>().size, source.size());
  EXPECT_EQ(get("user.leat.source", 100).text(), source);
  EXPECT_EQ(get("user.leat.source", static_cast<std::uint32_t>(source.size())).text(), source);
  EXPECT_EQ(get("user.leat.source", static_cast<std::uint32_t>(source.size()) - 1).error, ERANGE);
  EXPECT_EQ(get("user.leat.etag", 100).body.size(), 32u);
  EXPECT_EQ(get("security.selinux", 100).error, ENODATA);

  fuse_getxattr_in list = {};
  const auto size =
      kernel_.Call(FUSE_LISTXATTR, node, FakeKernel::Body(list)).As<fuse_getxattr_out>().size;
  list.size = size;
  const std::string names(kernel_.Call(FUSE_LISTXATTR, node, FakeKernel::Body(list)).text());
  EXPECT_EQ(names, std::string("user.leat.source\0user.leat.etag\0", 32));
  list.size = size - 1;
  EXPECT_EQ(kernel_.Call(FUSE_LISTXATTR, node, FakeKernel::Body(list)).error, ERANGE);
}

// ---------------------------------------------------------------- waiting and interrupting

TEST_F(FuseServerTest, OthersAreServedWhileReadsWait) {
  store_->Hold();
  Serve();
  const auto node = NodeOf("a.txt");
  std::vector<std::uint64_t> waiting;
  for (int i = 0; i < 10; ++i)
    waiting.push_back(kernel_.SendRead(NodeOf("many/file-" + std::to_string(i)), 0, 100));
  waiting.push_back(kernel_.SendRead(node, 0, 100));
  store_->WaitForPending(11);
  EXPECT_EQ(kernel_.Call(FUSE_GETATTR, node).error, 0);
  for (const auto unique : waiting) EXPECT_FALSE(kernel_.Answered(unique));
  store_->LetAllPass();
  for (const auto unique : waiting) EXPECT_EQ(kernel_.AnswerTo(unique).error, 0);
}

TEST_F(FuseServerTest, InterruptEndsAWaitingReadAndTheNextOneTriesAgain) {
  store_->Hold();
  Serve();
  for (const char* name : {"a.txt", "big.bin"}) {
    const auto node = NodeOf(name);
    const auto read = kernel_.SendRead(node, 0, 100);
    store_->WaitForPending(1);
    fuse_interrupt_in interrupt = {};
    interrupt.unique = read;
    kernel_.Send(FUSE_INTERRUPT, 0, FakeKernel::Body(interrupt));
    EXPECT_EQ(kernel_.AnswerTo(read).error, EINTR) << name;
    store_->LetAllPass();
    EXPECT_EQ(kernel_.Read(node, 0, 100).text(), PatternOf(name, kBig).substr(0, 100));
    store_->Hold();
  }
}

TEST_F(FuseServerTest, InterruptOfOneReaderDoesNotEndAnothersRead) {
  store_->Hold();
  Serve();
  for (const char* name : {"a.txt", "big.bin"}) {
    const auto node = NodeOf(name);
    const auto first = kernel_.SendRead(node, 0, 100);
    store_->WaitForPending(1);
    const auto second = kernel_.SendRead(node, 50, 100);
    // Both wait for the same bytes; the one that began the fetch goes away. (Answering the
    // attribute takes the second one's way through the queue.)
    ASSERT_EQ(kernel_.Call(FUSE_GETATTR, node).error, 0);
    fuse_interrupt_in interrupt = {};
    interrupt.unique = first;
    kernel_.Send(FUSE_INTERRUPT, 0, FakeKernel::Body(interrupt));
    EXPECT_EQ(kernel_.AnswerTo(first).error, EINTR) << name;
    store_->LetAllPass();
    const auto answer = kernel_.AnswerTo(second);
    EXPECT_EQ(answer.error, 0) << name;
    EXPECT_EQ(answer.text(), PatternOf(name, kBig).substr(50, 100)) << name;
    store_->Hold();
  }
}

TEST_F(FuseServerTest, InterruptOfWhatDoesNotWaitIsToBeSentAgain) {
  Serve();
  fuse_interrupt_in interrupt = {};
  interrupt.unique = 4711;
  EXPECT_EQ(kernel_.Call(FUSE_INTERRUPT, 0, FakeKernel::Body(interrupt)).error, EAGAIN);
}

TEST_F(FuseServerTest, ReadThatFailsIsEIOForThatReadAlone) {
  store_->Hold();
  Serve();
  const auto node = NodeOf("a.txt");
  const auto read = kernel_.SendRead(node, 0, 100);
  store_->Fail(store_->WaitForPending(1)[0].number, Error(Errc::kDenied, "denied"));
  EXPECT_EQ(kernel_.AnswerTo(read).error, EIO);
  store_->LetAllPass();
  EXPECT_EQ(kernel_.Read(node, 0, 100).error, 0);
}

// ---------------------------------------------------------------- what is malformed

TEST_F(FuseServerTest, CutAndUnterminatedRequestsAreErrors) {
  Serve();
  const auto bytes = [](std::string_view s) { return AsBytes(s); };
  EXPECT_EQ(kernel_.Call(FUSE_LOOKUP, 1).error, EINVAL);
  EXPECT_EQ(kernel_.Call(FUSE_LOOKUP, 1, bytes("a.txt")).error, EINVAL) << "no NUL";
  EXPECT_EQ(
      kernel_.Call(FUSE_LOOKUP, 1, bytes(std::string_view("\0", 1))).As<fuse_entry_out>().nodeid,
      0u);
  for (const std::uint32_t op :
       {FUSE_READ, FUSE_READDIR, FUSE_READDIRPLUS, FUSE_GETXATTR, FUSE_LISTXATTR}) {
    for (const std::size_t size : {0, 1, 7}) {
      EXPECT_EQ(kernel_.Call(op, 1, std::vector<std::byte>(size)).error, EINVAL) << op;
    }
  }
  EXPECT_EQ(kernel_.Call(FUSE_GETXATTR, 1, FakeKernel::Body(fuse_getxattr_in{})).error, EINVAL);
  EXPECT_EQ(kernel_.Call(FUSE_GETXATTR, 1, FakeKernel::Body(fuse_getxattr_in{}, "user")).error,
            EINVAL);
  EXPECT_EQ(kernel_.Call(FUSE_INIT, 0).error, EPROTO);
  EXPECT_EQ(kernel_.Call(4242, 1).error, ENOSYS);
  kernel_.SendRaw(std::vector<std::byte>(sizeof(fuse_in_header) - 1));  // not even a header
  EXPECT_EQ(kernel_.Call(FUSE_GETATTR, 1).error, 0) << "it is still there";
}

TEST_F(FuseServerTest, CutRequestsInOpenModeAreErrors) {
  Serve(true);
  EXPECT_EQ(kernel_.Call(FUSE_OPEN, 5, std::vector<std::byte>(3)).error, EINVAL);
  EXPECT_EQ(kernel_.Call(FUSE_RELEASE, 5, std::vector<std::byte>(3)).error, 0);
}

TEST_F(FuseServerTest, NothingAnswersForgets) {
  Serve();
  const auto forget = kernel_.Send(FUSE_FORGET, 1, std::vector<std::byte>(8));
  const auto batch = kernel_.Send(FUSE_BATCH_FORGET, 1, std::vector<std::byte>(3));
  EXPECT_EQ(kernel_.Call(FUSE_DESTROY, 0).error, 0);
  EXPECT_FALSE(kernel_.Answered(forget));
  EXPECT_FALSE(kernel_.Answered(batch));
}

TEST_F(FuseServerTest, RandomRequestsNeverTakeItDown) {
  const std::uint64_t seed = testing::Seed();
  SCOPED_TRACE("LEAT_TEST_SEED=" + std::to_string(seed));
  std::mt19937_64 random(seed);
  Serve(random() % 2 == 0);
  for (int i = 0; i < 3000; ++i) {
    auto op = static_cast<std::uint32_t>(random() % 56);
    if (op == FUSE_FORGET || op == FUSE_BATCH_FORGET) continue;
    std::vector<std::byte> body(random() % 80);
    for (auto& b : body) b = static_cast<std::byte>(random() % 4 == 0 ? random() : random() % 2);
    const std::uint64_t node = random() % 4 == 0 ? random() : random() % (fs_->node_count() + 3);
    const auto unique = kernel_.Send(op, node, body);
    if (op == FUSE_INTERRUPT) continue;  // may have no answer
    kernel_.AnswerTo(unique);
  }
}

// ---------------------------------------------------------------- a server that took over

TEST_F(FuseServerTest, SuccessorAsksForWhatWasUnansweredAndGoesOnWithoutInit) {
  Serve(false, true);
  const auto notification = kernel_.Notification();
  EXPECT_EQ(notification.error, kNotifyResend);
  EXPECT_EQ(kernel_.Read(NodeOf("a.txt"), 0, 10).text(), PatternOf("a.txt", 10));
  // What is sent again carries a mark in its number, and is answered with it.
  fuse_read_in in = {};
  in.size = 10;
  fuse_in_header header = {};
  header.opcode = FUSE_READ;
  header.nodeid = NodeOf("a.txt");
  header.unique = (1ULL << 63) | 2;
  header.len = sizeof(header) + sizeof(in);
  auto message = FakeKernel::Body(header);
  const auto body = FakeKernel::Body(in);
  message.insert(message.end(), body.begin(), body.end());
  kernel_.SendRaw(message);
  EXPECT_EQ(kernel_.AnswerTo(header.unique).text(), PatternOf("a.txt", 10));
}

TEST_F(FuseServerTest, NodeNumbersAreTheSameInTheNextServer) {
  Serve();
  std::map<std::string, vfs::Node> nodes;
  for (const char* path : {"a.txt", "big.bin", "many/file-42", "sub/deep", "extra/inner"})
    nodes[path] = NodeOf(path);
  Stop();
  vfs::FileSystemOptions options;
  options.content = content_;
  options.cache = cache_.get();
  options.extra_directories = {"extra/inner"};
  const vfs::FileSystem again(options);
  for (const auto& [path, node] : nodes) EXPECT_EQ(again.PathOf(node), path);
}

TEST(FuseErrors, AServerThatGaveUpAnswersEIO) {
  FakeKernel kernel;
  std::thread server([&] { ServeErrors(kernel.server_fd()); });
  EXPECT_EQ(kernel.Notification().error, kNotifyResend);
  kernel.Send(FUSE_FORGET, 1, std::vector<std::byte>(8));
  kernel.SendRaw(std::vector<std::byte>(7));
  EXPECT_EQ(kernel.Lookup(1, "x").error, EIO);
  EXPECT_EQ(kernel.Read(5, 0, 10).error, EIO);
  kernel.Disconnect();
  server.join();
}

}  // namespace
}  // namespace leat::fuse
