#include "job/bind.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <stop_token>
#include <thread>

#include "os/file.h"
#include "os/mount.h"

namespace leat::job {
namespace {

using ::testing::HasSubstr;
using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

TEST(Bind, SaysHostAndContainerAndWhetherItIsToReadAlone) {
  const auto plain = ParseBind("/mnt/data:/mnt/data");
  ASSERT_TRUE(plain) << plain.error().message();
  EXPECT_EQ(plain->host_path, "/mnt/data");
  EXPECT_EQ(plain->container_path, "/mnt/data");
  EXPECT_FALSE(plain->read_only);
  EXPECT_EQ(plain->propagation, Propagation::kPrivate);
  EXPECT_TRUE(ParseBind("/mnt/data:/mnt/data:ro")->read_only);
  EXPECT_FALSE(ParseBind("/mnt/data:/mnt/data:rw")->read_only);
  EXPECT_EQ(ParseBind("/mnt/data/:data//x/")->container_path, "data/x");
  EXPECT_EQ(ParseBind("/mnt//data/:./data")->host_path, "/mnt/data");
  EXPECT_EQ(ParseBind("/:/host")->host_path, "/");
  EXPECT_EQ(ParseBind("/a/../b:..data")->host_path, "/a/../b");
}

TEST(Bind, WhatIsMeantOtherwiseIsRefused) {
  for (const auto& [text, why] :
       {std::pair("", "HOST:CONTAINER"), std::pair("/mnt/data", "HOST:CONTAINER"),
        std::pair("data:/data", "must be absolute"), std::pair("./data:/data", "must be absolute"),
        std::pair(":/data", "must be absolute"), std::pair("~/data:/data", "must be absolute"),
        std::pair("/data:", "is empty"), std::pair("/data::ro", "is empty"),
        std::pair("/data:.", "must not be \".\""), std::pair("/data:./", "must not be \".\""),
        std::pair("/data:./.", "must not be \".\""), std::pair("/data:/", "must not be \"/\""),
        std::pair("/data:..", "must not have \"..\""),
        std::pair("/data:a/../b", "must not have \"..\""),
        std::pair("/data:/a/..", "must not have \"..\""), std::pair("/data:/data:", "ro or rw"),
        std::pair("/data:/data:RO", "ro or rw"), std::pair("/data:/data:ro:x", "ro or rw"),
        std::pair("/data:/data:z", "ro or rw")}) {
    const auto bind = ParseBind(text);
    ASSERT_FALSE(bind) << text;
    EXPECT_EQ(bind.error().code(), Errc::kInvalid) << text;
    EXPECT_THAT(bind.error().message(), HasSubstr(why)) << text;
  }
}

TEST(Bind, PropagationIsOneOfSixWords) {
  EXPECT_EQ(ParsePropagation("rprivate").value(), Propagation::kPrivate);
  EXPECT_EQ(ParsePropagation("private").value(), Propagation::kPrivate);
  EXPECT_EQ(ParsePropagation("rslave").value(), Propagation::kSlave);
  EXPECT_EQ(ParsePropagation("slave").value(), Propagation::kSlave);
  EXPECT_EQ(ParsePropagation("rshared").value(), Propagation::kShared);
  EXPECT_EQ(ParsePropagation("shared").value(), Propagation::kShared);
  EXPECT_EQ(ParsePropagation("bidirectional").error().code(), Errc::kInvalid);
  EXPECT_EQ(ParsePropagation("").error().code(), Errc::kInvalid);
}

class HostPath : public ::testing::Test {
 protected:
  void SetUp() override {
    char path[] = "/tmp/leat-bind-test-XXXXXX";
    dir_ = ::mkdtemp(path);
    data_ = dir_ + "/mnt data";
    ASSERT_TRUE(os::MakeDirs(data_));
    Fstab("");
    Mounted({});
  }
  void TearDown() override { EXPECT_TRUE(os::RemoveTree(dir_)); }

  static std::string Escaped(std::string path) {
    for (std::size_t at; (at = path.find(' ')) != path.npos;) path.replace(at, 1, "\\040");
    return path;
  }
  void Fstab(const std::string& text) { ASSERT_TRUE(os::WriteFileAtomic(dir_ + "/fstab", text)); }
  void FstabMounts(const std::string& dir) {
    Fstab("nfs:/export " + Escaped(dir) + " nfs defaults 0 0\n");
  }
  void Mounted(const std::vector<std::string>& dirs) {
    std::string text = "1 0 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n";
    for (const std::string& dir : dirs) {
      text += "30 1 0:50 / " + Escaped(dir) + " rw - nfs4 nfs:/export rw,vers=4.2\n";
    }
    ASSERT_TRUE(os::WriteFileAtomic(dir_ + "/mountinfo", text));
  }
  Status Check(const std::string& path, int seconds = 5) const {
    return CheckHostPath(path, seconds, dir_ + "/fstab", dir_ + "/mountinfo");
  }

  std::string dir_, data_;
};

TEST_F(HostPath, WhatIsThereIsAccepted) {
  EXPECT_TRUE(Check("/"));
  EXPECT_TRUE(Check(data_));
  ASSERT_TRUE(os::WriteFileAtomic(data_ + "/file", "x"));
  EXPECT_TRUE(Check(data_));
  EXPECT_TRUE(Check(data_ + "/file"));
  EXPECT_TRUE(Check(data_ + "/../mnt data/"));
  EXPECT_TRUE(CheckHostPath(data_));
}

TEST_F(HostPath, WhatIsNotThereIsNotFound) {
  const auto missing = Check(data_ + "/missing");
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code(), Errc::kNotFound);
  EXPECT_EQ(missing.error().message(), data_ + "/missing: No such file or directory");
  EXPECT_EQ(Check("relative").error().code(), Errc::kInvalid);
  EXPECT_EQ(Check("/" + std::string(5000, 'x')).error().code(), Errc::kInvalid);
}

TEST_F(HostPath, AnEmptyFolderThatFstabMountsIsNoDataset) {
  FstabMounts(data_);
  const auto status = Check(data_);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code(), Errc::kNotFound);
  EXPECT_EQ(status.error().message(), data_ +
                                          ": /etc/fstab mounts nfs:/export there, but it is not "
                                          "mounted (mount " +
                                          data_ + ")");
  EXPECT_FALSE(Check(data_ + "/"));
  EXPECT_FALSE(Check(data_ + "/../mnt data"));
  Mounted({data_});
  EXPECT_TRUE(Check(data_));
}

TEST_F(HostPath, SoIsOneBelowItAndOneThatIsMissing) {
  FstabMounts(dir_);
  const auto status = Check(data_);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code(), Errc::kNotFound);
  EXPECT_EQ(status.error().message(), data_ + ": /etc/fstab mounts nfs:/export at " + dir_ +
                                          ", but it is not mounted (mount " + dir_ + ")");
  const auto missing = Check(data_ + "/training");
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code(), Errc::kNotFound);
  EXPECT_THAT(missing.error().message(), HasSubstr("is not mounted"));
  // Its own mount, or one on the way, is what is meant.
  Mounted({data_});
  EXPECT_TRUE(Check(data_));
  Mounted({dir_});
  EXPECT_TRUE(Check(data_));
  EXPECT_THAT(Check(data_ + "/training").error().message(), HasSubstr("No such file"));
}

TEST_F(HostPath, AFolderThatHoldsSomethingIsTakenAsItIs) {
  FstabMounts(data_);
  ASSERT_TRUE(os::WriteFileAtomic(data_ + "/file", "x"));
  EXPECT_TRUE(Check(data_));
}

TEST_F(HostPath, OfFstabTheNearestMountCounts) {
  Fstab("a:/ " + dir_ + " nfs defaults 0 0\n\tb:/ \t" + Escaped(data_) + "/\tnfs\tdefaults 0 0\n");
  Mounted({dir_});
  EXPECT_THAT(Check(data_).error().message(), HasSubstr("mounts b:/ there"));
  Mounted({data_});
  EXPECT_TRUE(Check(data_));
}

TEST_F(HostPath, LinesOfFstabThatAreNoMountsAreLeftOut) {
  Fstab("# nfs:/export " + Escaped(data_) + " nfs defaults 0 0\n" + "#nfs:/export " +
        Escaped(data_) + " nfs defaults 0 0\n\n" + "UUID=1 none swap sw 0 0\n" + "/swap " +
        Escaped(data_) + " swap sw 0 0\n" + "x " + Escaped(data_) + "\n" + "nfs:/other " +
        Escaped(data_) + "-2 nfs defaults 0 0\n" + "/dev/vda / ext4 defaults 0 1\nbad\\04 \\ x\n");
  EXPECT_TRUE(Check(data_));
  EXPECT_TRUE(CheckHostPath(data_, 5, dir_ + "/nowhere", dir_ + "/mountinfo"));
}

TEST_F(HostPath, LinksOnTheWayAreFollowed) {
  ASSERT_EQ(::symlink(data_.c_str(), (dir_ + "/link").c_str()), 0);
  FstabMounts(data_);
  EXPECT_THAT(Check(dir_ + "/link").error().message(), HasSubstr("not mounted (mount " + data_));
  EXPECT_THAT(Check(dir_ + "/link/x").error().message(), HasSubstr("not mounted (mount " + data_));
  Mounted({data_});
  EXPECT_TRUE(Check(dir_ + "/link"));
  // The mount is where the link of fstab leads.
  FstabMounts(dir_ + "/link");
  EXPECT_TRUE(Check(dir_ + "/link"));
  Mounted({});
  EXPECT_THAT(Check(dir_ + "/link").error().message(), HasSubstr("not mounted"));
}

TEST_F(HostPath, WhatMayNotBeSeenIsDenied) {
  ASSERT_TRUE(os::MakeDirs(data_ + "/inner"));
  ASSERT_EQ(::chmod(data_.c_str(), 0700), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const bool nobody = ::geteuid() != 0 || ::setuid(65'534) == 0;
    const auto status = CheckHostPath(data_ + "/inner", 5, "/dev/null", "/dev/null");
    ::_exit(nobody && !status && status.error().code() == Errc::kDenied ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), ::geteuid() == 0 ? 0 : 1);
}

/// A FUSE file system whose server has not begun. Ordinary users mount it too, through fusermount3.
class DeadServer : public HostPath {
 protected:
  void SetUp() override {
    HostPath::SetUp();
    auto device = os::FusermountMount(data_, false);
    ASSERT_TRUE(device) << device.error().message() << " (apt-get install fuse3)";
    device_ = std::move(*device);
  }
  void TearDown() override {
    server_ = {};
    device_.Reset();
    EXPECT_TRUE(os::FusermountUnmount(data_));
    HostPath::TearDown();
  }

  /// Begins to serve: answers the kernel's first question, and all others with an errno, or never
  /// (0).
  void Serve(int error) {
    server_ = std::jthread([this, error](const std::stop_token& stop) {
      constexpr std::uint32_t kForget = 2, kInit = 26;
      alignas(8) std::byte request[1 << 17];
      while (!stop.stop_requested()) {
        pollfd ready = {device_.get(), POLLIN, 0};
        if (::poll(&ready, 1, 5) <= 0) continue;
        if (::read(device_.get(), request, sizeof(request)) < 40) return;
        struct {
          std::uint32_t length, opcode;
          std::uint64_t unique;
        } in;
        std::memcpy(&in, request, sizeof(in));
        struct {
          std::uint32_t length;
          std::int32_t error;
          std::uint64_t unique;
          std::uint32_t init[16];  // version 7.31, writes of 4096 bytes at most
        } out = {16, -error, in.unique, {7, 31, 0, 0, 0, 4096}};
        if (in.opcode == kInit) out.length = sizeof(out), out.error = 0;
        if (in.opcode == kForget || out.length + out.error == 16) continue;
        [[maybe_unused]] const ssize_t n = ::write(device_.get(), &out, out.length);
      }
    });
  }

  os::UniqueFd device_;
  std::jthread server_;
};

TEST_F(DeadServer, WhoNeverAnswersIsUnavailableInTime) {
  const auto begin = Clock::now();
  const auto status = Check(data_, 1);
  const auto took = Clock::now() - begin;
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code(), Errc::kUnavailable);
  EXPECT_EQ(status.error().message(), data_ +
                                          ": its file system has not answered within 1 s (is "
                                          "its server down?)");
  EXPECT_GE(took, 1s);
  EXPECT_LT(took, 60s);  // it came back at all
  EXPECT_FALSE(Check(data_ + "/below", 0));
  EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1);
}

TEST_F(DeadServer, WhoHangsInTheKernelKeepsNothingOpen) {
  // Once its question has been read, no signal ends who asked.
  Serve(0);
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  const os::UniqueFd from(ends[0]);
  os::UniqueFd to(ends[1]);
  const auto status = Check(data_, 1);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code(), Errc::kUnavailable);
  to.Reset();
  pollfd ended = {from.get(), POLLIN, 0};
  EXPECT_EQ(::poll(&ended, 1, 0), 1);
  EXPECT_TRUE(ended.revents & POLLHUP);
  // It ends with its mount.
  server_ = {};
  device_.Reset();
  EXPECT_GT(::waitpid(-1, nullptr, 0), 0);
}

TEST_F(DeadServer, WhoHasGoneIsUnavailable) {
  device_.Reset();
  const auto status = Check(data_);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code(), Errc::kUnavailable);
  EXPECT_THAT(status.error().message(), HasSubstr("does not work: "));
}

TEST_F(DeadServer, AStaleHandleIsSaidToBeStale) {
  Serve(ESTALE);
  const auto status = Check(data_);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code(), Errc::kUnavailable);
  EXPECT_THAT(status.error().message(), HasSubstr("stale"));
}

}  // namespace
}  // namespace leat::job
