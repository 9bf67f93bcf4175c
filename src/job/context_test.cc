#include "job/context.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <functional>
#include <set>

#include "os/file.h"

namespace leat::job {
namespace {

using ::testing::ElementsAre;

class Context : public ::testing::Test {
 protected:
  void SetUp() override {
    char path[] = "/tmp/leat-context-test-XXXXXX";
    dir_ = ::mkdtemp(path);
    from_ = dir_ + "/from";
    to_ = dir_ + "/to";
    ASSERT_TRUE(os::MakeDirs(from_));
  }
  void TearDown() override { EXPECT_TRUE(os::RemoveTree(dir_)); }

  void Write(const std::string& path, std::string_view contents, mode_t mode = 0644) {
    const std::string whole = from_ + "/" + path;
    ASSERT_TRUE(os::MakeDirs(whole.substr(0, whole.rfind('/')), 0755));
    ASSERT_TRUE(os::WriteFileAtomic(whole, contents, mode));
  }
  void WriteHole(const std::string& path, off_t size) {
    Write(path, "");
    ASSERT_EQ(::truncate((from_ + "/" + path).c_str(), size), 0);
  }
  std::string Copied(const std::string& path) const {
    auto text = os::ReadFile(to_ + "/" + path);
    return text ? *text : "(" + text.error().message() + ")";
  }
  std::vector<std::string> CopiedNames(const std::string& path = "") const {
    return os::ListDir(to_ + "/" + path).value_or(std::vector<std::string>{"(none)"});
  }
  /// The exit status of a child that is nobody and does as it is told.
  static int AsNobody(const std::function<bool()>& does) {
    const pid_t child = ::fork();
    if (child == 0) {
      ::_exit((::geteuid() != 0 || ::setuid(65'534) == 0) && does() ? 0 : 1);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    return WEXITSTATUS(status);
  }

  std::string dir_, from_, to_;
};

TEST_F(Context, WhatIsThereIsCopiedHiddenFilesToo) {
  Write("data.csv", "1,2\n");
  Write(".hidden", "h");
  Write(".git/HEAD", "ref");
  Write("src/deep/train.py", "print()", 0755);
  Write("empty", "");
  Write("new\nline", "n");
  ASSERT_TRUE(os::MakeDirs(from_ + "/folder", 0750));
  const std::string large(300'000, 'x');
  Write("large", large);
  const auto copy = CopyContext(from_, to_);
  ASSERT_TRUE(copy) << copy.error().message();
  EXPECT_EQ(copy->files, 7U);
  EXPECT_EQ(copy->bytes, 4U + 1 + 3 + 7 + 1 + 300'000);
  EXPECT_THAT(CopiedNames(), ElementsAre(".git", ".hidden", "data.csv", "empty", "folder", "large",
                                         "new\nline", "src"));
  EXPECT_EQ(Copied("data.csv"), "1,2\n");
  EXPECT_EQ(Copied(".git/HEAD"), "ref");
  EXPECT_EQ(Copied("src/deep/train.py"), "print()");
  EXPECT_EQ(Copied("new\nline"), "n");
  EXPECT_TRUE(Copied("large") == large);
  struct stat st;
  ASSERT_EQ(::stat(to_.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0700U);
}

TEST_F(Context, ModesTimesAndLinksAreAsTheyWere) {
  Write("run", "x", 0755);
  Write("locked/secret", "x", 0400);
  ASSERT_EQ(::symlink("../nowhere", (from_ + "/link").c_str()), 0);
  ASSERT_EQ(::symlink("locked", (from_ + "/folder-link").c_str()), 0);
  ASSERT_EQ(::chmod((from_ + "/run").c_str(), 06755), 0);
  ASSERT_EQ(::chmod((from_ + "/locked").c_str(), 0555), 0);
  const timespec times[2] = {{1'000'000'000, 5}, {1'100'000'000, 123'456'789}};
  for (const char* path : {"/run", "/link", "/locked"}) {
    ASSERT_EQ(::utimensat(AT_FDCWD, (from_ + path).c_str(), times, AT_SYMLINK_NOFOLLOW), 0);
  }
  ASSERT_TRUE(CopyContext(from_, to_));
  struct stat st;
  for (const auto& [path, mode] :
       {std::pair("/run", S_IFREG | 0755), std::pair("/link", S_IFLNK | 0777),
        std::pair("/locked", S_IFDIR | 0555)}) {
    ASSERT_EQ(::lstat((to_ + path).c_str(), &st), 0) << path;
    EXPECT_EQ(st.st_mode, static_cast<mode_t>(mode)) << path;
    EXPECT_EQ(st.st_mtim.tv_sec, times[1].tv_sec) << path;
    EXPECT_EQ(st.st_mtim.tv_nsec, times[1].tv_nsec) << path;
  }
  ASSERT_EQ(::lstat((to_ + "/locked/secret").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0400U);
  char target[64] = {};
  ASSERT_GT(::readlink((to_ + "/link").c_str(), target, sizeof(target) - 1), 0);
  EXPECT_STREQ(target, "../nowhere");
}

TEST_F(Context, BothIgnoreFilesCountAndOursIsLast) {
  Write(".detignore", "*.bin\ndata/\n");
  Write(".leatignore", "!keep.bin\n/only-here\n");
  Write("a.bin", "x");
  Write("keep.bin", "x");
  Write("data/train/1.jpg", "x");
  Write("only-here", "x");
  Write("sub/only-here", "x");
  Write("sub/.leatignore", "*\n");
  ASSERT_TRUE(CopyContext(from_, to_));
  EXPECT_THAT(CopiedNames(), ElementsAre(".detignore", ".leatignore", "keep.bin", "sub"));
  EXPECT_THAT(CopiedNames("sub"), ElementsAre(".leatignore", "only-here"));
}

TEST_F(Context, TooMuchIsRefusedWithTheLargestFilesBeforeAnythingIsCopied) {
  WriteHole("a/b.bin", 50'000'000);
  for (int i = 0; i < 12; ++i) WriteHole(fmt::format("part-{:02}", i), 4'000'000 - i);
  WriteHole("with\nnewline", 5'200'066);
  const auto copy = CopyContext(from_, to_);
  ASSERT_FALSE(copy);
  EXPECT_EQ(copy.error().code(), Errc::kInvalid);
  EXPECT_EQ(
      copy.error().message(),
      "the context " + from_ +
          " has 103.2 MB, and must have less than 96.0 MB; the largest files: a/b.bin 50.0 MB, "
          "with\\x0anewline 5.2 MB, part-00 4.0 MB, part-01 4.0 MB, part-02 4.0 MB, "
          "part-03 4.0 MB, part-04 4.0 MB, part-05 4.0 MB, part-06 4.0 MB, part-07 4.0 MB; "
          "name what is not needed in .leatignore, or raise the limit with --context-limit");
  EXPECT_FALSE(os::Exists(to_));
  EXPECT_TRUE(CopyContext(from_, to_, 104'000'000));
}

TEST_F(Context, TheLimitIsStrict) {
  Write("a", "12345");
  ASSERT_EQ(::symlink("a", (from_ + "/link").c_str()), 0);
  EXPECT_FALSE(CopyContext(from_, to_, 5));
  EXPECT_TRUE(CopyContext(from_, to_, 6));
  ASSERT_TRUE(os::RemoveTree(to_));
  WriteHole("b", static_cast<off_t>(kContextLimit) - 5);
  EXPECT_FALSE(CopyContext(from_, to_));
  WriteHole("b", static_cast<off_t>(kContextLimit) - 6);
  EXPECT_TRUE(CopyContext(from_, to_));
}

TEST_F(Context, WhatIsIgnoredDoesNotCount) {
  WriteHole("data/large", 1'000'000'000);
  Write("train.py", "x");
  Write(".leatignore", "data\n");
  const auto copy = CopyContext(from_, to_);
  ASSERT_TRUE(copy);
  EXPECT_EQ(copy->bytes, 6U);
  EXPECT_EQ(copy->files, 2U);
}

TEST_F(Context, WhatIsNoFolderIsNamed) {
  const auto missing = CopyContext(dir_ + "/missing", to_);
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code(), Errc::kNotFound);
  EXPECT_EQ(missing.error().message(),
            "the context " + dir_ + "/missing: No such file or directory");
  Write("file", "x");
  const auto file = CopyContext(from_ + "/file", to_);
  ASSERT_FALSE(file);
  EXPECT_EQ(file.error().code(), Errc::kInvalid);
  EXPECT_EQ(file.error().message(), "the context " + from_ + "/file is not a folder");
  EXPECT_FALSE(os::Exists(to_));
}

TEST_F(Context, AFolderInItselfIsNotCopiedForEver) {
  Write("a", "x");
  Write("runs/1/log", "x");
  to_ = from_ + "/runs/2/work";
  const auto copy = CopyContext(from_, to_);
  ASSERT_TRUE(copy) << copy.error().message();
  EXPECT_EQ(copy->files, 2U);
  EXPECT_THAT(CopiedNames(), ElementsAre("a", "runs"));
  EXPECT_THAT(CopiedNames("runs"), ElementsAre("1", "2"));
  EXPECT_THAT(CopiedNames("runs/2"), ElementsAre());
  const auto itself = CopyContext(from_, from_ + "/runs/..");
  ASSERT_FALSE(itself);
  EXPECT_EQ(itself.error().code(), Errc::kInvalid);
  EXPECT_TRUE(os::Exists(from_ + "/a"));
}

TEST_F(Context, WhatIsInTheTargetIsNeverMixedWithIt) {
  Write("a", "x");
  ASSERT_TRUE(os::MakeDirs(to_ + "/old"));
  const auto copy = CopyContext(from_, to_);
  ASSERT_FALSE(copy);
  EXPECT_EQ(copy.error().code(), Errc::kConflict);
  EXPECT_TRUE(os::Exists(to_ + "/old"));
  ASSERT_TRUE(os::RemoveTree(to_ + "/old"));
  EXPECT_TRUE(CopyContext(from_, to_));
}

TEST_F(Context, AFileThatCannotBeReadIsNamedAndNothingIsLeft) {
  Write("a", "x");
  Write("sub/secret", "x", 0000);
  Write("z", "x");
  ASSERT_EQ(::chmod(dir_.c_str(), 0777), 0);
  ASSERT_EQ(::chmod(from_.c_str(), 0755), 0);
  EXPECT_EQ(AsNobody([&] {
              const auto copy = CopyContext(from_, to_);
              return !copy && copy.error().code() == Errc::kDenied &&
                     copy.error().message() ==
                         "the context " + from_ + ": sub/secret: Permission denied";
            }),
            0);
  EXPECT_FALSE(os::Exists(to_));
  ASSERT_EQ(::chmod((from_ + "/sub").c_str(), 0000), 0);
  EXPECT_EQ(AsNobody([&] {
              const auto copy = CopyContext(from_, to_);
              return !copy &&
                     copy.error().message() == "the context " + from_ + ": sub: Permission denied";
            }),
            0);
  Write(".leatignore", "sub\n", 0000);
  EXPECT_EQ(AsNobody([&] {
              const auto copy = CopyContext(from_, to_);
              return !copy && copy.error().message() ==
                                  "the context " + from_ + ": .leatignore: Permission denied";
            }),
            0);
  ASSERT_EQ(::chmod((from_ + "/.leatignore").c_str(), 0644), 0);
  EXPECT_EQ(AsNobody([&] { return CopyContext(from_, to_).has_value(); }), 0);
}

TEST_F(Context, DevicesFifosAndSocketsAreLeftOut) {
  Write("a", "x");
  ASSERT_EQ(::mkfifo((from_ + "/fifo").c_str(), 0644), 0);
  const auto copy = CopyContext(from_, to_);
  ASSERT_TRUE(copy);
  EXPECT_EQ(copy->files, 1U);
  EXPECT_THAT(CopiedNames(), ElementsAre("a"));
}

TEST_F(Context, AHundredThousandFilesTakeSeconds) {
  // In memory: a disk's own time is not what is measured.
  char path[] = "/dev/shm/leat-context-test-XXXXXX";
  ASSERT_NE(::mkdtemp(path), nullptr);
  const std::string memory = path;
  const os::Cleanup remove([&] { EXPECT_TRUE(os::RemoveTree(memory)); });
  from_ = memory + "/from";
  to_ = memory + "/to";
  ASSERT_TRUE(os::MakeDirs(from_));
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(os::MakeDirs(fmt::format("{}/{}", from_, i)));
    for (int j = 0; j < 1000; ++j) {
      ASSERT_TRUE(os::Open(fmt::format("{}/{}/{}.txt", from_, i, j), O_WRONLY | O_CREAT));
    }
  }
  Write(".leatignore", "*.py[co]\n/build/\n**/cache/**\n*~\ndata/*/x\n");
  const auto copy = CopyContext(from_, to_);
  ASSERT_TRUE(copy) << copy.error().message();
  EXPECT_EQ(copy->files, 100'001U);
}

}  // namespace
}  // namespace leat::job
