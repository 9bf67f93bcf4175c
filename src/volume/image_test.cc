// Images on this machine's kernel. As root with loop devices, mkfs.xfs and mkfs.ext4
// (apt-get install xfsprogs e2fsprogs); anybody else is told that root is needed.
#include "volume/image.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <thread>
#include <vector>

#include "base/bytes.h"
#include "os/mount.h"

namespace leat::volume {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

class Image : public ::testing::Test {
 protected:
  void SetUp() override {
    char path[] = "/tmp/leat-image-test-XXXXXX";
    dir_ = ::mkdtemp(path);
  }
  void TearDown() override {
    if (dir_.empty()) return;
    EXPECT_TRUE(Vanishes());
    EXPECT_TRUE(os::RemoveTree(dir_));
  }

  /// False: an ordinary user's test ends here, having seen the refusal.
  bool IsRoot() const {
    if (::geteuid() == 0) return true;
    const auto image = MakeImage(dir_, kMiB, 10);
    EXPECT_FALSE(image);
    EXPECT_EQ(image.error().code(), Errc::kDenied);
    EXPECT_THAT(image.error().message(), ::testing::HasSubstr("needs root"));
    return false;
  }

  os::UniqueFd Make(std::uint64_t bytes, std::uint64_t inodes) {
    auto image = MakeImage(dir_, bytes, inodes);
    EXPECT_TRUE(image) << image.error().message();
    return image ? std::move(*image) : os::UniqueFd();
  }

  /// Loop devices whose files are in the test's folder.
  int Loops() const {
    int count = 0;
    for (const auto& device : std::filesystem::directory_iterator("/sys/block")) {
      const auto file = os::ReadFile(device.path() / "loop/backing_file");
      count += file && file->starts_with(dir_);
    }
    return count;
  }
  std::uint64_t FreeOnDisk() const {
    struct statvfs fs;
    return ::statvfs(dir_.c_str(), &fs) == 0 ? std::uint64_t{fs.f_bavail} * fs.f_frsize : 0;
  }
  static bool Until(const std::function<bool()>& so) {
    for (const auto end = Clock::now() + 10s; Clock::now() < end;) {
      if (so()) return true;
      std::this_thread::sleep_for(5ms);
    }
    return so();
  }
  bool Vanishes() const {
    return Until([&] { return Loops() == 0; });
  }

  std::string dir_;
};

/// How many of `bytes` could be written, in order; what was written is checked with fsync.
std::uint64_t Fill(const os::UniqueFd& image, const std::string& name, std::uint64_t bytes) {
  const os::UniqueFd file(::openat(image.get(), name.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600));
  if (!file) return 0;
  static const std::vector<char> block(kMiB, 'x');
  std::uint64_t done = 0;
  while (done < bytes) {
    const ssize_t n =
        ::write(file.get(), block.data(), std::min<std::uint64_t>(kMiB, bytes - done));
    if (n <= 0) break;
    done += static_cast<std::uint64_t>(n);
  }
  EXPECT_EQ(::fsync(file.get()), 0);
  return done;
}

struct Size {
  std::uint64_t bytes, inodes;
};
const Size kSizes[] = {{kMiB, 10},           {10 * kMiB, 1000},    {100 * kMiB, 10'000},
                       {299 * kMiB, 20'000}, {300 * kMiB, 20'000}, {1 * kGiB, 10'000}};

TEST_F(Image, WhatWasAskedForCanBeFilledAndLittleMore) {
  if (!IsRoot()) return;
  for (const auto [bytes, inodes] : kSizes) {
    SCOPED_TRACE(FormatBytes(bytes));
    const os::UniqueFd image = Make(bytes, inodes);
    ASSERT_TRUE(image);
    EXPECT_EQ(Fill(image, "file", bytes), bytes);
    for (std::uint64_t i = 1; i < inodes; ++i) {
      const std::string name = fmt::format("a file of a dataset {}", i);
      const os::UniqueFd file(::openat(image.get(), name.c_str(), O_WRONLY | O_CREAT, 0600));
      ASSERT_TRUE(file) << i << ": " << std::strerror(errno);
    }
    EXPECT_LT(Fill(image, "file", bytes), bytes / 20 + 2 * kMiB);
    EXPECT_EQ(errno, ENOSPC);
  }
}

TEST_F(Image, SmallFilesFillItAsLargeOnesDo) {
  if (!IsRoot()) return;
  for (const auto [bytes, files] : {Size{64 * kMiB, 16 * 1024}, Size{320 * kMiB, 20 * 1024}}) {
    SCOPED_TRACE(FormatBytes(bytes));
    const os::UniqueFd image = Make(bytes, files + 20);  // and their folders
    ASSERT_TRUE(image);
    const std::vector<char> body(bytes / files, 'x');
    for (std::uint64_t i = 0; i < files; ++i) {
      if (i % 1024 == 0) {
        ASSERT_EQ(::mkdirat(image.get(), fmt::format("{}", i / 1024).c_str(), 0755), 0);
      }
      const std::string name = fmt::format("{}/{}.jpg", i / 1024, i);
      const os::UniqueFd file(::openat(image.get(), name.c_str(), O_WRONLY | O_CREAT, 0600));
      ASSERT_TRUE(file) << i << ": " << std::strerror(errno);
      ASSERT_EQ(::write(file.get(), body.data(), body.size()), static_cast<ssize_t>(body.size()))
          << i << ": " << std::strerror(errno);
    }
    const os::UniqueFd root(::openat(image.get(), ".", O_RDONLY | O_DIRECTORY));
    EXPECT_EQ(::syncfs(root.get()), 0);
  }
}

TEST_F(Image, ItsRootIsEmptyAndTheCallers) {
  if (!IsRoot()) return;
  for (const std::uint64_t bytes : {16 * kMiB, 300 * kMiB}) {
    const os::UniqueFd image = Make(bytes, 100);
    ASSERT_TRUE(image);
    const std::string path = fmt::format("/proc/self/fd/{}/.", image.get());
    EXPECT_EQ(os::ListDir(path).value(), std::vector<std::string>());
    struct stat st;
    ASSERT_EQ(::stat(path.c_str(), &st), 0);
    EXPECT_EQ(st.st_mode, static_cast<mode_t>(S_IFDIR | 0755));
    EXPECT_EQ(st.st_uid, ::geteuid());
    struct statvfs fs;
    ASSERT_EQ(::fstatvfs(image.get(), &fs), 0);
    EXPECT_EQ(fs.f_flag & (ST_NODEV | ST_NOSUID | ST_RDONLY), ST_NODEV | ST_NOSUID);
  }
}

TEST_F(Image, FiveGiAreMadeInUnderASecond) {
  if (!IsRoot()) return;
  const auto begin = Clock::now();
  const os::UniqueFd image = Make(5 * kGiB, 100'000);
  EXPECT_LT(Clock::now() - begin, 1s);
  ASSERT_TRUE(image);
  struct statvfs fs;
  ASSERT_EQ(::fstatvfs(image.get(), &fs), 0);
  EXPECT_GE(fs.f_bavail * fs.f_frsize, 5 * kGiB);
  EXPECT_LT(fs.f_bavail * fs.f_frsize, 5 * kGiB + 5 * kGiB / 20);
}

TEST_F(Image, WithItsDescriptorEverythingVanishes) {
  if (!IsRoot()) return;
  const std::uint64_t before = FreeOnDisk();
  os::UniqueFd image = Make(300 * kMiB, 1000);
  ASSERT_TRUE(image);
  EXPECT_EQ(Fill(image, "file", 10 * kMiB), 10 * kMiB);
  EXPECT_EQ(Loops(), 1);
  EXPECT_EQ(os::ListDir(dir_).value(), std::vector<std::string>());
  EXPECT_LT(FreeOnDisk(), before - 200 * kMiB);
  image.Reset();
  EXPECT_TRUE(Vanishes());
  EXPECT_TRUE(Until([&] { return FreeOnDisk() + 100 * kMiB > before; }));
}

TEST_F(Image, WithAKilledHolderEverythingVanishes) {
  if (!IsRoot()) return;
  const std::uint64_t before = FreeOnDisk();
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  const pid_t holder = ::fork();
  if (holder == 0) {
    const auto image = MakeImage(dir_, 300 * kMiB, 1000);
    const char made = image ? 'y' : 'n';
    if (::write(ends[1], &made, 1) == 1) ::pause();
    ::_exit(1);
  }
  ::close(ends[1]);
  char made = 0;
  EXPECT_EQ(::read(ends[0], &made, 1), 1);
  EXPECT_EQ(made, 'y');
  EXPECT_EQ(Loops(), 1);
  ::kill(holder, SIGKILL);
  ::waitpid(holder, nullptr, 0);
  ::close(ends[0]);
  EXPECT_TRUE(Vanishes());
  EXPECT_TRUE(Until([&] { return FreeOnDisk() + 100 * kMiB > before; }));
}

TEST_F(Image, KilledAtAnyMomentItsMakerLeavesNothing) {
  if (!IsRoot()) return;
  for (int milliseconds = 0; milliseconds < 60; milliseconds += 3) {
    const pid_t maker = ::fork();
    if (maker == 0) {
      const auto image = MakeImage(dir_, 300 * kMiB, 1000);
      ::pause();
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
    ::kill(maker, SIGKILL);
    ::waitpid(maker, nullptr, 0);
  }
  EXPECT_TRUE(Vanishes());
  EXPECT_EQ(os::ListDir(dir_).value(), std::vector<std::string>());
}

/// What a job's builder does with it, in a process that has inherited it.
int UseInANamespaceOfItsOwn(const os::UniqueFd& image, const std::string& place) {
  if (::unshare(CLONE_NEWNS) != 0 || !os::MakeAllSlave()) return 1;
  if (!os::AttachTree(image, place)) return 2;
  if (!os::WriteFileAtomic(place + "/file", "hello")) return 3;
  if (os::ReadFile(place + "/file").value_or("") != "hello") return 4;
  struct stat here, above;
  if (::stat(place.c_str(), &here) != 0 || ::stat((place + "/..").c_str(), &above) != 0) return 5;
  return here.st_dev == above.st_dev ? 6 : 0;
}

TEST_F(Image, AChildsNamespaceTakesItAndTheDescriptorGoesOnToSeeIt) {
  if (!IsRoot()) return;
  for (const std::uint64_t bytes : {16 * kMiB, 300 * kMiB}) {
    const os::UniqueFd image = Make(bytes, 100);
    ASSERT_TRUE(image);
    const std::string place = dir_ + "/place";
    ASSERT_TRUE(os::MakeDirs(place));
    const pid_t child = ::fork();
    if (child == 0) ::_exit(UseInANamespaceOfItsOwn(image, place));
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0) << WEXITSTATUS(status);
    EXPECT_EQ(os::ListDir(place).value(), std::vector<std::string>());
    // Also after the namespace has ended.
    EXPECT_EQ(os::ReadFile(fmt::format("/proc/self/fd/{}/file", image.get())).value_or(""),
              "hello");
  }
}

TEST_F(Image, ManyAreMadeAtTheSameTime) {
  if (!IsRoot()) return;
  std::vector<os::UniqueFd> images(8);
  {
    std::vector<std::jthread> threads;
    for (auto& image : images) threads.emplace_back([&] { image = Make(4 * kMiB, 10); });
  }
  EXPECT_EQ(Loops(), 8);
  for (const auto& image : images) EXPECT_EQ(Fill(image, "file", 4 * kMiB), 4 * kMiB);
}

TEST_F(Image, MoreThanTheDiskHasIsRefusedBeforeTheDiskIsFull) {
  if (!IsRoot()) return;
  const auto image = MakeImage(dir_, FreeOnDisk() + kGiB, 1000);
  ASSERT_FALSE(image);
  EXPECT_EQ(image.error().code(), Errc::kNoSpace);
  EXPECT_NE(image.error().message().find(dir_ + " has "), std::string::npos);
  const auto absurd = MakeImage(dir_, ~std::uint64_t{0}, 1000);
  ASSERT_FALSE(absurd);
  EXPECT_EQ(absurd.error().code(), Errc::kInvalid);
  const auto nowhere = MakeImage(dir_ + "/nowhere", kMiB, 10);
  ASSERT_FALSE(nowhere);
  EXPECT_EQ(nowhere.error().code(), Errc::kNotFound);
}

TEST_F(Image, AnOrdinaryUserIsToldThatItNeedsRoot) {
  if (!IsRoot()) return;
  const pid_t child = ::fork();
  if (child == 0) {
    if (::setuid(65'534) != 0) ::_exit(1);
    const auto image = MakeImage("/tmp", kMiB, 10);
    ::_exit(!image && image.error().code() == Errc::kDenied &&
                    image.error().message().contains("needs root")
                ? 0
                : 2);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

}  // namespace
}  // namespace leat::volume
