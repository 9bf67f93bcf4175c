#include "job/dataset.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "os/file.h"

namespace leat::job {
namespace {

TEST(Volumes, WhatNobodyHasAnyMoreIsRemoved) {
  char made[] = "/tmp/leat-volumes-test-XXXXXX";
  const std::string dir = ::mkdtemp(made);
  const auto lock = [&](const std::string& name, bool old) {
    auto fd = os::Open(dir + "/" + name + ".lock", O_RDWR | O_CREAT);
    EXPECT_TRUE(fd);
    const timespec hour_ago[2] = {{::time(nullptr) - 3600, 0}, {::time(nullptr) - 3600, 0}};
    if (old) {
      EXPECT_EQ(::futimens(fd->get(), hour_ago), 0);
    }
    return fd;
  };
  ASSERT_TRUE(os::MakeDirs(dir + "/used"));
  ASSERT_TRUE(os::MakeDirs(dir + "/left/below"));
  const auto used = lock("used", true);
  ASSERT_TRUE(os::Flock(used->get(), true, false));
  lock("left", false);
  lock("never-made", true);
  lock("being-made", false);

  CleanVolumes(dir);
  EXPECT_EQ(os::ListDir(dir).value(),
            (std::vector<std::string>{"being-made.lock", "used", "used.lock"}));
  EXPECT_TRUE(os::RemoveTree(dir));
  CleanVolumes(dir);  // where there are none
}

}  // namespace
}  // namespace leat::job
