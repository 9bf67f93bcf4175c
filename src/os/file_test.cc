#include "os/file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>

namespace leat::os {
namespace {

class FileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char path[] = "/tmp/leat-os-test-XXXXXX";
    dir_ = ::mkdtemp(path);
  }
  void TearDown() override {
    ASSERT_TRUE(RemoveTree(dir_));
    ASSERT_FALSE(Exists(dir_));
  }
  void Write(const std::string& name, std::string_view text) {
    ASSERT_TRUE(WriteFileAtomic(dir_ + "/" + name, text));
  }
  std::string dir_;
};

TEST_F(FileTest, AtomicWriteReplacesTheWholeAndLeavesNothingBeside) {
  const std::string path = dir_ + "/f";
  ASSERT_TRUE(WriteFileAtomic(path, std::string(100'000, 'a'), 0640));
  ASSERT_TRUE(WriteFileAtomic(path, "b", 0640));
  EXPECT_EQ(*ReadFile(path), "b");
  EXPECT_EQ(*ListDir(dir_), std::vector<std::string>{"f"});
  struct stat st;
  ASSERT_EQ(::stat(path.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0640U);
}

TEST_F(FileTest, AtomicWriteThatFailsLeavesWhatWasThere) {
  ASSERT_TRUE(MakeDirs(dir_ + "/folder/x"));
  EXPECT_FALSE(WriteFileAtomic(dir_ + "/folder", "new")) << "a folder is not replaced";
  EXPECT_FALSE(WriteFileAtomic(dir_ + "/no/such/f", "new"));
  EXPECT_EQ(*ListDir(dir_), (std::vector<std::string>{"folder"}));
}

TEST_F(FileTest, ReadFileGivesAllOrSaysThatItIsTooMuch) {
  Write("f", std::string(200'000, 'x'));
  EXPECT_EQ(ReadFile(dir_ + "/f")->size(), 200'000u);
  EXPECT_FALSE(ReadFile(dir_ + "/f", 1000));
  EXPECT_TRUE(ReadFile(dir_ + "/f", 200'000));
  const auto missing = ReadFile(dir_ + "/none");
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code(), Errc::kNotFound);
  EXPECT_NE(missing.error().message().find(dir_ + "/none"), std::string::npos);
  EXPECT_TRUE(ReadFile("/proc/self/status")) << "its size is said to be 0";
}

TEST_F(FileTest, PreadAllSaysWhenTheFileEndsEarly) {
  Write("f", "12345");
  const auto fd = Open(dir_ + "/f", O_RDONLY);
  std::byte buffer[5];
  EXPECT_TRUE(PreadAll(fd->get(), buffer, 0));
  const auto beyond = PreadAll(fd->get(), buffer, 1);
  ASSERT_FALSE(beyond);
  EXPECT_EQ(beyond.error().code(), Errc::kCorrupt);
  EXPECT_TRUE(PreadAll(fd->get(), {}, 1000));
}

TEST_F(FileTest, DescriptorsAreClosedWithTheirOwnerAndNotInherited) {
  int number;
  {
    auto fd = Open(dir_ + "/f", O_RDWR | O_CREAT);
    number = fd->get();
    EXPECT_NE(::fcntl(number, F_GETFD) & FD_CLOEXEC, 0);
    UniqueFd other = std::move(*fd);
    EXPECT_FALSE(*fd);
    EXPECT_EQ(other.get(), number);
  }
  EXPECT_EQ(::fcntl(number, F_GETFD), -1);
}

TEST_F(FileTest, MakeDirsMakesTheWholePathAndIsContentWithIt) {
  const std::string path = dir_ + "/a//b/c/";
  EXPECT_TRUE(MakeDirs(path));
  EXPECT_TRUE(MakeDirs(path));
  struct stat st;
  ASSERT_EQ(::stat((dir_ + "/a/b").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0700U);
  Write("file", "");
  EXPECT_FALSE(MakeDirs(dir_ + "/file"));
  EXPECT_FALSE(MakeDirs(dir_ + "/file/x"));
  EXPECT_FALSE(MakeDirs(""));
}

TEST_F(FileTest, RemoveTreeTakesReadOnlyFoldersAndFollowsNoLink) {
  ASSERT_TRUE(MakeDirs(dir_ + "/keep"));
  Write("keep/me", "x");
  ASSERT_TRUE(MakeDirs(dir_ + "/t/deep/er"));
  Write("t/deep/er/f", "x");
  ASSERT_EQ(::symlink((dir_ + "/keep").c_str(), (dir_ + "/t/link").c_str()), 0);
  ASSERT_EQ(::mkfifo((dir_ + "/t/fifo").c_str(), 0600), 0);
  ASSERT_EQ(::chmod((dir_ + "/t/deep/er").c_str(), 0555), 0);
  ASSERT_EQ(::chmod((dir_ + "/t/deep").c_str(), 0555), 0);
  EXPECT_TRUE(RemoveTree(dir_ + "/t"));
  EXPECT_FALSE(Exists(dir_ + "/t"));
  EXPECT_EQ(*ReadFile(dir_ + "/keep/me"), "x");
  EXPECT_TRUE(RemoveTree(dir_ + "/t")) << "nothing is there";
  ASSERT_EQ(::symlink((dir_ + "/keep").c_str(), (dir_ + "/l").c_str()), 0);
  EXPECT_TRUE(RemoveTree(dir_ + "/l"));
  EXPECT_TRUE(Exists(dir_ + "/keep/me"));
}

TEST_F(FileTest, RemoveTreeAsAnOrdinaryUserTakesReadOnlyFolders) {
  if (::geteuid() == 0) {
    ASSERT_EQ(::chown(dir_.c_str(), 65534, 65534), 0);
  }
  const pid_t pid = ::fork();
  if (pid == 0) {
    if (::geteuid() == 0 && ::setuid(65534) != 0) ::_exit(1);
    if (!MakeDirs(dir_ + "/t/deep") || !WriteFileAtomic(dir_ + "/t/deep/f", "x")) ::_exit(2);
    ::chmod((dir_ + "/t/deep/f").c_str(), 0444);
    ::chmod((dir_ + "/t/deep").c_str(), 0555);
    ::chmod((dir_ + "/t").c_str(), 0555);
    ::_exit(RemoveTree(dir_ + "/t") && !Exists(dir_ + "/t") ? 0 : 3);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(pid, &status, 0), pid);
  EXPECT_EQ(status, 0);
}

TEST_F(FileTest, ListDirIsSortedByBytes) {
  for (const char* name : {"b", "a", "Z", "\xff", "ü", ".hidden"}) Write(name, "");
  EXPECT_EQ(*ListDir(dir_), (std::vector<std::string>{".hidden", "Z", "a", "b", "ü", "\xff"}));
  EXPECT_FALSE(ListDir(dir_ + "/none"));
}

TEST_F(FileTest, FlockIsSharedByReadersAndHeldByOneWriter) {
  const auto a = Open(dir_ + "/l", O_RDWR | O_CREAT);
  const auto b = Open(dir_ + "/l", O_RDWR);
  EXPECT_TRUE(Flock(a->get(), false, false));
  EXPECT_TRUE(Flock(b->get(), false, false));
  const auto exclusive = Flock(a->get(), true, false);
  ASSERT_FALSE(exclusive);
  EXPECT_EQ(exclusive.error().code(), Errc::kConflict);
}

TEST_F(FileTest, RangeLocksExcludeOtherProcessesByteByByteAndEndWithThem) {
  const auto fd = Open(dir_ + "/l", O_RDWR | O_CREAT);
  ASSERT_TRUE(TryLockRange(fd->get(), 10, 5));
  const auto in_child = [&](std::uint64_t start, std::uint64_t length) {
    const pid_t pid = ::fork();
    if (pid == 0) {
      const auto own = Open(dir_ + "/l", O_RDWR);
      ::_exit(TryLockRange(own->get(), start, length) ? 1 : 0);
    }
    int status = 0;
    ::waitpid(pid, &status, 0);
    return WEXITSTATUS(status) == 1;
  };
  EXPECT_FALSE(in_child(14, 1));
  EXPECT_FALSE(in_child(0, 11));
  EXPECT_TRUE(in_child(15, 100));
  EXPECT_TRUE(in_child(0, 10));
  EXPECT_TRUE(TryLockRange(fd->get(), 0, 100)) << "the children's have ended with them";
  UnlockRange(fd->get(), 0, 100);
  EXPECT_TRUE(in_child(10, 5));
  const std::uint64_t far = (1ULL << 62) + 12345;
  ASSERT_TRUE(TryLockRange(fd->get(), far, 1));
  EXPECT_FALSE(in_child(far, 1));
}

TEST_F(FileTest, SharedMappingIsSeenByChildren) {
  const auto memory = Mapping::Shared(4096);
  const pid_t pid = ::fork();
  if (pid == 0) {
    memory->data()[5] = std::byte{42};
    ::_exit(0);
  }
  ::waitpid(pid, nullptr, 0);
  EXPECT_EQ(memory->data()[5], std::byte{42});
  EXPECT_EQ(memory->data()[6], std::byte{0});
}

TEST_F(FileTest, WhatATreeTakesAndHasRoomFor) {
  ASSERT_TRUE(MakeDirs(dir_ + "/a/b"));
  Write("a/b/f", std::string(100'000, 'x'));
  ASSERT_EQ(::symlink("/", (dir_ + "/a/l").c_str()), 0);
  const Usage usage = UsageOf(dir_ + "/a");
  EXPECT_EQ(usage.inodes, 4U);  // the link is not followed
  EXPECT_GE(usage.bytes, 100'000U);
  EXPECT_LT(usage.bytes, 200'000U);
  EXPECT_EQ(UsageOf(dir_ + "/none").inodes, 0U);
  EXPECT_GT(FreeBytes(dir_), 0U);
  EXPECT_GT(RoomAt(dir_), 100'000U);
  EXPECT_EQ(FreeBytes("/proc"), UINT64_MAX);  // has no blocks to count
}

TEST_F(FileTest, CleanupRunsUnlessDismissed) {
  int ran = 0;
  {
    const Cleanup cleanup([&] { ++ran; });
  }
  EXPECT_EQ(ran, 1);
  {
    Cleanup cleanup([&] { ++ran; });
    cleanup.Dismiss();
  }
  EXPECT_EQ(ran, 1);
}

}  // namespace
}  // namespace leat::os
