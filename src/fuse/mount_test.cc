// The server against this machine's kernel. Needs root and /dev/fuse.
#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <set>
#include <thread>

#include "fuse/server.h"
#include "os/mount.h"
#include "snapshot/test_content.h"
#include "store/memory/memory_store.h"
#include "testing/fault_store.h"

namespace leat::fuse {
namespace {

using snapshot::testing::PatternOf;
using testing::Op;

constexpr std::uint64_t kBig = 5 * kMiB + 17;

class MountTest : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    ASSERT_EQ(::geteuid(), 0U) << "this test mounts a file system: run it as root";
    ASSERT_EQ(::access("/dev/fuse", R_OK | W_OK), 0)
        << "this test needs /dev/fuse: load the kernel's module (modprobe fuse), or pass the "
           "device into the container (--device /dev/fuse --cap-add SYS_ADMIN)";
    char path[] = "/tmp/leat-mount-test-XXXXXX";
    root_ = ::mkdtemp(path);
    store_ = std::make_shared<testing::FaultStore>(store::memory::MakeMemoryStore("mem://bucket"));
    const auto put = [&](const std::string& key, std::uint64_t size) {
      snapshot::testing::PutPattern(*store_, key, size);
    };
    put("small", 5000);
    put("big", kBig);
    put("empty", 0);
    for (int i = 0; i < 2000; ++i) put("many/" + std::to_string(i), 3);
    cache::CacheOptions cache;
    cache.dir = root_ + "/cache";
    cache.limit_bytes = kGiB;
    cache.budget = &budget_;
    cache_ = cache::Cache::Open(cache);
    ASSERT_EQ(cache_->problem(), "");
    vfs::FileSystemOptions fs;
    fs.content = snapshot::testing::ContentOf(store_);
    fs.cache = cache_.get();
    fs.counts = &reads_;
    fs_ = std::make_shared<vfs::FileSystem>(fs);

    auto mount = os::NewFuseMount({});
    ASSERT_TRUE(mount) << mount.error().message();
    device_ = std::move(mount->device);
    dir_ = root_ + "/mnt";
    ASSERT_TRUE(os::MakeDirs(dir_));
    const auto attached = os::AttachTree(mount->mount, dir_);
    ASSERT_TRUE(attached) << attached.error().message();
    Serve(false);
  }
  void Serve(bool resume) {
    ServerOptions options;
    options.fs = fs_;
    options.fd = device_.get();
    options.open_mode = GetParam();
    options.opens = opens_;
    options.connection = &connection_;
    options.resume = resume;
    server_ = std::make_unique<Server>(options);
    server_->Start();
  }
  void TearDown() override {
    if (!dir_.empty()) {
      EXPECT_EQ(::umount2(dir_.c_str(), 0), 0) << std::strerror(errno);
    }
    server_.reset();  // returns when the kernel has ended the connection
    fs_.reset();
    cache_.reset();
    if (!root_.empty()) {
      EXPECT_TRUE(os::RemoveTree(root_));
    }
  }
  std::string PathOf(const std::string& name) const { return dir_ + "/" + name; }
  os::UniqueFd OpenDirect(const std::string& name) const {
    auto fd = os::Open(PathOf(name), O_RDONLY | O_DIRECT);
    EXPECT_TRUE(fd) << fd.error().message();
    return fd ? std::move(*fd) : os::UniqueFd();
  }
  /// Reads a large file past the kernel's cache; how many requests the server had of it.
  std::uint64_t ReadDirect(const os::UniqueFd& fd, const std::string& name) {
    const std::string want = PatternOf(name, kBig);
    const std::uint64_t before = reads_.reads;
    void* buffer = std::aligned_alloc(4096, kMiB);
    for (std::uint64_t at = 0; at < kBig; at += kMiB) {
      const ssize_t n = ::pread(fd.get(), buffer, kMiB, static_cast<off_t>(at));
      EXPECT_EQ(n, static_cast<ssize_t>(std::min(kMiB, kBig - at))) << std::strerror(errno);
      EXPECT_EQ(std::memcmp(buffer, want.data() + at, static_cast<std::size_t>(std::max(n, 0L))),
                0);
    }
    EXPECT_EQ(::pread(fd.get(), buffer, 4096, 8 << 20), 0);
    std::free(buffer);
    return reads_.reads - before;
  }

  std::string root_, dir_;
  std::shared_ptr<testing::FaultStore> store_;
  MemoryBudget budget_{64 * kMiB};
  std::unique_ptr<cache::Cache> cache_;
  vfs::ReadCounts reads_;
  std::shared_ptr<vfs::FileSystem> fs_;
  os::UniqueFd device_;
  std::array<OpenRecord, 64> opens_ = {};
  ConnectionRecord connection_ = {};
  std::unique_ptr<Server> server_;
};

TEST_P(MountTest, FilesReadAsTheyAre) {
  EXPECT_TRUE(*os::ReadFile(PathOf("small")) == PatternOf("small", 5000));
  EXPECT_TRUE(*os::ReadFile(PathOf("big")) == PatternOf("big", kBig));
  EXPECT_EQ(*os::ReadFile(PathOf("empty")), "");
  EXPECT_TRUE(*os::ReadFile(PathOf("big")) == PatternOf("big", kBig)) << "again";
}

TEST_P(MountTest, MapsReadAsTheyAre) {
  const std::string want = PatternOf("big", kBig);
  const auto fd = os::Open(PathOf("big"), O_RDONLY);
  ASSERT_TRUE(fd);
  for (const int flags : {MAP_SHARED, MAP_PRIVATE}) {
    void* map = ::mmap(nullptr, kBig, PROT_READ, flags, fd->get(), 0);
    ASSERT_NE(map, MAP_FAILED);
    const auto* bytes = static_cast<const char*>(map);
    for (std::uint64_t at = kBig - 1; at > 100'000; at -= 99'991) ASSERT_EQ(bytes[at], want[at]);
    EXPECT_EQ(std::memcmp(bytes, want.data(), kBig), 0);
    ::munmap(map, kBig);
  }
}

TEST_P(MountTest, DirectReadersSeeTheSameBytes) { ReadDirect(OpenDirect("big"), "big"); }

TEST_P(MountTest, CompleteLargeFileIsReadByTheKernelItselfOnceNobodyReadsItThroughTheServer) {
  const bool opened = GetParam();
  {
    const os::UniqueFd first = OpenDirect("big");
    EXPECT_GE(ReadDirect(first, "big"), 5U);
    ASSERT_TRUE(!opened || connection_.has_passthrough != 0)
        << "this test needs Linux 6.9 with CONFIG_FUSE_PASSTHROUGH";
    // It is checked whole in the background; while somebody has it open through the server, all do.
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    EXPECT_GE(ReadDirect(OpenDirect("big"), "big"), 5U);
  }
  std::uint64_t requests = UINT64_MAX;
  for (int tries = 0; tries < 100 && requests > 0; ++tries) {
    requests = ReadDirect(OpenDirect("big"), "big");
    if (!opened) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  EXPECT_EQ(requests == 0, opened) << requests;
}

TEST_P(MountTest, WhatTheCachesDiskHasLostIsFetchedAgainForADirectReader) {
  const os::UniqueFd fd = OpenDirect("big");
  ReadDirect(fd, "big");
  int lost = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(root_ + "/cache/files")) {
    if (entry.is_regular_file() && entry.path().extension() != ".sums")
      lost += ::truncate(entry.path().c_str(), 0) == 0 ? 1 : 0;
  }
  ASSERT_EQ(lost, 1);
  ReadDirect(fd, "big");
}

TEST_P(MountTest, FoldersAreListedWholeAndStatAgrees) {
  std::set<std::string> names;
  DIR* dir = ::opendir(PathOf("many").c_str());
  ASSERT_NE(dir, nullptr);
  for (int round = 0; round < 2; ++round) {
    names.clear();
    while (const dirent* entry = ::readdir(dir)) {
      EXPECT_TRUE(names.insert(entry->d_name).second) << entry->d_name << " is listed twice";
      struct stat st;
      ASSERT_EQ(::fstatat(::dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW), 0);
      if (entry->d_name[0] == '.') continue;
      EXPECT_EQ(st.st_ino, entry->d_ino);
      EXPECT_EQ(entry->d_type, DT_REG);
      EXPECT_EQ(st.st_mode, static_cast<mode_t>(S_IFREG | 0444));
      EXPECT_EQ(st.st_size, 3);
    }
    EXPECT_EQ(names.size(), 2002u);
    ::rewinddir(dir);
  }
  ::closedir(dir);
  struct stat st;
  EXPECT_EQ(::stat(PathOf("none").c_str(), &st), -1);
  EXPECT_EQ(errno, ENOENT);
  EXPECT_EQ(::stat(PathOf("small/x").c_str(), &st), -1);
  EXPECT_EQ(errno, ENOTDIR);
  struct statfs fs;
  ASSERT_EQ(::statfs(dir_.c_str(), &fs), 0);
  EXPECT_EQ(fs.f_files, fs_->node_count());
}

TEST_P(MountTest, NothingCanBeWritten) {
  EXPECT_EQ(::open(PathOf("small").c_str(), O_RDWR), -1);
  EXPECT_EQ(errno, EROFS);
  EXPECT_EQ(::open(PathOf("new").c_str(), O_CREAT | O_WRONLY, 0600), -1);
  EXPECT_EQ(errno, EROFS);
  EXPECT_EQ(::unlink(PathOf("small").c_str()), -1);
  EXPECT_EQ(errno, EROFS);
  EXPECT_EQ(::mkdir(PathOf("d").c_str(), 0700), -1);
  EXPECT_EQ(errno, EROFS);
  EXPECT_EQ(::chmod(PathOf("small").c_str(), 0777), -1);
  EXPECT_EQ(errno, EROFS);
}

TEST_P(MountTest, AttributesAndHolesAreTold) {
  char value[200];
  const ssize_t n = ::getxattr(PathOf("small").c_str(), "user.leat.source", value, sizeof(value));
  EXPECT_EQ(std::string(value, n > 0 ? static_cast<std::size_t>(n) : 0), "mem://bucket/small");
  EXPECT_EQ(::getxattr(PathOf("small").c_str(), "user.leat.source", value, 3), -1);
  EXPECT_EQ(errno, ERANGE);
  EXPECT_EQ(::getxattr(PathOf("small").c_str(), "user.none", value, sizeof(value)), -1);
  EXPECT_EQ(errno, ENODATA);
  const auto fd = os::Open(PathOf("big"), O_RDONLY);
  EXPECT_EQ(::lseek(fd->get(), 100, SEEK_DATA), 100);
  EXPECT_EQ(::lseek(fd->get(), 100, SEEK_HOLE), static_cast<off_t>(kBig));
}

TEST_P(MountTest, FailedReadIsEIOAndTheNextOneTriesAgain) {
  testing::Fault fault;
  fault.op = Op::kRead;
  fault.key = "small";
  fault.code = Errc::kDenied;
  fault.times = 2;  // the kernel's readahead, and the page that the reader wants
  store_->Add(fault);
  const auto failed = os::ReadFile(PathOf("small"));
  ASSERT_FALSE(failed);
  EXPECT_NE(failed.error().message().find("Input/output error"), std::string::npos);
  EXPECT_TRUE(*os::ReadFile(PathOf("small")) == PatternOf("small", 5000));
}

TEST_P(MountTest, ReaderThatIsKilledWhileItWaitsEnds) {
  testing::Fault fault;
  fault.op = Op::kRead;
  fault.key = "small";
  fault.stall = true;
  store_->Add(fault);
  const pid_t pid = ::fork();
  if (pid == 0) {
    char c;
    const int fd = ::open(PathOf("small").c_str(), O_RDONLY);
    ::_exit(::read(fd, &c, 1) == 1 ? 0 : 1);
  }
  store_->WaitForStalled(1);
  ::kill(pid, SIGKILL);
  int status = 0;
  ASSERT_EQ(::waitpid(pid, &status, 0), pid);
  EXPECT_TRUE(WIFSIGNALED(status));
  store_->Release();
  EXPECT_TRUE(*os::ReadFile(PathOf("small")) == PatternOf("small", 5000));
}

TEST_P(MountTest, ManyReadersAtOnce) {
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (unsigned t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      const std::string want = PatternOf("big", kBig);
      const auto fd = os::Open(PathOf("big"), O_RDONLY);
      std::string buffer(50'000, '\0');
      for (std::uint64_t i = 0; i < 200; ++i) {
        const std::uint64_t at = (i * 7919 * (t + 1) * 1000) % (kBig - buffer.size());
        if (::pread(fd->get(), buffer.data(), buffer.size(), static_cast<off_t>(at)) !=
                static_cast<ssize_t>(buffer.size()) ||
            want.compare(at, buffer.size(), buffer) != 0)
          ++wrong;
        const std::string name = "many/" + std::to_string(i * (t + 3) % 2000);
        const auto small = os::ReadFile(PathOf(name));
        if (!small || *small != PatternOf(name, 3)) ++wrong;
      }
    });
  }
  for (auto& t : threads) t.join();
  EXPECT_EQ(wrong, 0);
}

INSTANTIATE_TEST_SUITE_P(FilesAre, MountTest, ::testing::Values(false, true),
                         [](const auto& param) { return param.param ? "Opened" : "NotOpened"; });

}  // namespace
}  // namespace leat::fuse
