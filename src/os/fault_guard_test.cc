#include "os/fault_guard.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

namespace leat::os {
namespace {

constexpr std::size_t kPage = 4096;

/// Two pages of a file of which the second has gone since it was mapped.
char* HalfGone() {
  const int fd = ::memfd_create("half", MFD_CLOEXEC);
  EXPECT_EQ(::ftruncate(fd, 2 * kPage), 0);
  auto* const map =
      static_cast<char*>(::mmap(nullptr, 2 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  std::memset(map, 'x', 2 * kPage);
  EXPECT_EQ(::ftruncate(fd, kPage), 0);
  ::close(fd);
  return map;
}

char Touch(const char* at) { return *static_cast<const volatile char*>(at); }

TEST(FaultGuardDeathTest, WithoutAGuardAPageThatIsGoneEndsTheProcess) {
  const char* const map = HalfGone();
  EXPECT_EXIT(
      {
        ::signal(SIGBUS, SIG_DFL);  // a sanitizer's own handler would only report it
        Touch(map + kPage);
      },
      testing::KilledBySignal(SIGBUS), "");
}

TEST(FaultGuardTest, GuardedPageThatIsGoneReadsAsZerosAndTheOthersStay) {
  char* const map = HalfGone();
  GuardMapping(map, 2 * kPage);
  EXPECT_EQ(Touch(map + kPage + 17), 0);
  EXPECT_EQ(Touch(map + 17), 'x');
  map[kPage] = 'y';  // what is written there is this process's alone, and no fault
  EXPECT_EQ(Touch(map + kPage), 'y');
  UnguardMapping(map);
}

TEST(FaultGuardDeathTest, AMappingThatIsNoLongerGuardedIsAnOrdinaryOne) {
  char* const map = HalfGone();
  GuardMapping(map, 2 * kPage);
  UnguardMapping(map);
  EXPECT_EXIT(Touch(map + kPage), testing::KilledBySignal(SIGBUS), "");
}

}  // namespace
}  // namespace leat::os
