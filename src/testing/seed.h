// Where randomness of a test begins.
#ifndef LEAT_TESTING_SEED_H_
#define LEAT_TESTING_SEED_H_

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>

namespace leat::testing {

/// Another one each time, printed, so that LEAT_TEST_SEED can bring a failure back. Printed before
/// the test, because one that crashes prints nothing after it.
inline std::uint64_t Seed() {
  const char* given = std::getenv("LEAT_TEST_SEED");
  const std::uint64_t seed = given != nullptr ? std::stoull(given) : std::random_device()();
  std::printf("LEAT_TEST_SEED=%llu\n", static_cast<unsigned long long>(seed));
  std::fflush(stdout);
  return seed;
}

}  // namespace leat::testing

#endif  // LEAT_TESTING_SEED_H_
