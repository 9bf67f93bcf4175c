#include "digest/md5_lanes.h"

#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "base/bytes.h"
#include "digest/digest.h"

namespace leat::digest {
namespace {

std::string Alone(std::string_view text) {
  Hasher hasher(Kind::kMd5);
  hasher.Update(AsBytes(text));
  return ToHex(AsBytes(hasher.Finish()));
}

std::string Noise(std::size_t size, unsigned seed) {
  std::minstd_rand random(seed);
  std::string text(size, '\0');
  for (char& c : text) c = static_cast<char>(random() >> 8);
  return text;
}

TEST(Md5Lanes, EveryLengthAroundABlockIsPaddedAsMd5IsPadded) {
  Md5Lanes lanes;
  for (std::size_t size = 0; size < 300; ++size) {
    const std::string text = Noise(size, static_cast<unsigned>(size));
    Md5Lanes::Stream stream(lanes);
    const std::string got = stream.Finish(AsBytes(text));
    EXPECT_EQ(ToHex(AsBytes(got)), Alone(text)) << size;
  }
}

// From one thread, fewer than there are lanes, to more; all of other lengths, so that lanes end at
// different times.
TEST(Md5Lanes, ThreadsThatHashTogetherGetTheirOwn) {
  using enum Md5Lanes::Vectors;
  for (const auto& [vectors, threads] : {std::pair{kAvx512, 1},
                                         {kAvx512, 2},
                                         {kAvx512, 7},
                                         {kAvx512, 40},
                                         {kAvx2, 16},
                                         {kAvx2, 40},
                                         {kAny, 40}}) {
    Md5Lanes lanes(vectors);
    std::atomic<int> wrong{0};
    std::vector<std::thread> all;
    for (std::size_t t = 0; t < static_cast<std::size_t>(threads); ++t) {
      all.emplace_back([&, t] {
        for (unsigned i = 0; i < 10; ++i) {
          const std::string text =
              Noise(1000 + (t * 7919 + i * 104'729) % 300'000, static_cast<unsigned>(t * 100 + i));
          Md5Lanes::Stream stream(lanes);
          std::span<const std::byte> rest = AsBytes(text);
          for (const std::size_t piece = 64 * (1 + (t + i) % 3 * 500); rest.size() > 100'000;) {
            stream.Update(rest.first(piece));
            rest = rest.subspan(piece);
          }
          const std::string got = stream.Finish(rest);
          if (ToHex(AsBytes(got)) != Alone(text)) ++wrong;
        }
      });
    }
    for (std::thread& t : all) t.join();
    EXPECT_EQ(wrong, 0) << threads << " threads, vectors " << static_cast<int>(vectors);
  }
}

TEST(Md5Lanes, AStreamThatStandsStillHoldsNobodyUp) {
  Md5Lanes lanes;
  const Md5Lanes::Stream idle1(lanes), idle2(lanes), idle3(lanes);
  const std::string text = Noise(100'000, 1);
  Md5Lanes::Stream stream(lanes);
  const std::string got = stream.Finish(AsBytes(text));
  EXPECT_EQ(ToHex(AsBytes(got)), Alone(text));
}

}  // namespace
}  // namespace leat::digest
