#include "vfs/readahead.h"

#include <gtest/gtest.h>

#include <vector>

namespace leat::vfs {
namespace {

constexpr std::uint64_t kFile = 4 * kGiB;
constexpr std::uint64_t kMax = 32 * kMiB;

/// A reader, and how far ahead of what it has asked for something is being fetched.
struct Reader {
  Readahead readahead;
  std::uint64_t ahead_until = 0, foreseen = 0;

  Plan Read(std::uint64_t offset, std::uint64_t length, std::uint64_t size = kFile) {
    const Plan plan = readahead.OnRead(offset, length, size, kMax);
    if (plan.ahead_begin < plan.ahead_end) {
      foreseen += plan.ahead_end - plan.ahead_begin;
      ahead_until = std::max(ahead_until, plan.ahead_end);
    }
    return plan;
  }
};

TEST(Readahead, WindowGrowsFromTheFirstReadUpToTheLimit) {
  Reader reader;
  const Plan first = reader.Read(0, 128 * kKiB);
  EXPECT_EQ(first.ahead_begin, 128 * kKiB);
  EXPECT_EQ(first.ahead_end, 128 * kKiB + kMiB);
  std::uint64_t greatest = 0;
  for (std::uint64_t at = 128 * kKiB; at < 100 * kMiB; at += 128 * kKiB) {
    const Plan plan = reader.Read(at, 128 * kKiB);
    EXPECT_GE(reader.ahead_until, at + 128 * kKiB) << "the reader has overtaken the readahead";
    const std::uint64_t distance = reader.ahead_until - (at + 128 * kKiB);
    EXPECT_LE(distance, kMax);
    greatest = std::max(greatest, distance);
    if (plan.ahead_begin < plan.ahead_end) {
      EXPECT_GE(plan.request, kMiB);
      EXPECT_LE(plan.request, 8 * kMiB);
    }
  }
  EXPECT_EQ(greatest, kMax);
  EXPECT_EQ(reader.foreseen, reader.ahead_until - 128 * kKiB) << "no byte is foreseen twice";
}

TEST(Readahead, NothingIsForeseenBeyondTheEnd) {
  Reader reader;
  const std::uint64_t size = 5 * kMiB + 7;
  for (std::uint64_t at = 0; at < size; at += 128 * kKiB) reader.Read(at, 128 * kKiB, size);
  EXPECT_EQ(reader.ahead_until, size);
  EXPECT_EQ(reader.foreseen, size - 128 * kKiB);
}

TEST(Readahead, ReaderThatBeginsElsewhereIsBelievedAtItsSecondRead) {
  Reader reader;
  const Plan first = reader.Read(kGiB, 128 * kKiB);
  EXPECT_GE(first.ahead_begin, first.ahead_end);
  const Plan second = reader.Read(kGiB + 128 * kKiB, 128 * kKiB);
  EXPECT_EQ(second.ahead_begin, kGiB + 256 * kKiB);
  EXPECT_EQ(second.ahead_end, kGiB + 256 * kKiB + kMiB);
}

TEST(Readahead, RandomReaderIsForeseenNothing) {
  Reader reader;
  std::uint64_t x = 12345;
  for (int i = 0; i < 1000; ++i) {
    x = x * 6364136223846793005ULL + 1442695040888963407ULL;
    // 100 GiB apart from each other, so that none lies beside another.
    reader.Read((x >> 20) % (1ULL << 50) / kMiB * kMiB + 3 * kMiB, 64 * kKiB, 1ULL << 51);
  }
  EXPECT_EQ(reader.foreseen, 0u);
}

TEST(Readahead, StridedReadersAreForeseenAlmostNothing) {
  for (const std::uint64_t length : {4 * kKiB, 128 * kKiB, kMiB}) {
    for (const std::uint64_t gap : {256 * kKiB, 512 * kKiB, kMiB, 2 * kMiB, 64 * kMiB}) {
      Reader reader;
      for (std::uint64_t i = 0; i < 200; ++i) reader.Read(i * (length + gap), length, kFile * 16);
      EXPECT_LE(reader.foreseen, kMiB)
          << length << " bytes, then " << gap << " that it skips: only the start may look alike";
    }
  }
}

TEST(Readahead, ReaderThatTurnsSequentialAgainIsNoticed) {
  Reader reader;
  for (std::uint64_t i = 0; i < 50; ++i) reader.Read(i * kMiB, 64 * kKiB);
  const std::uint64_t before = reader.foreseen;
  for (std::uint64_t at = 100 * kMiB; at < 160 * kMiB; at += 128 * kKiB)
    reader.Read(at, 128 * kKiB);
  EXPECT_GE(reader.foreseen - before, 60 * kMiB);
  EXPECT_GE(reader.ahead_until, 160 * kMiB + kMax / 2);
  // In the middle of what it strode through, too.
  Reader other;
  for (std::uint64_t i = 0; i < 50; ++i) other.Read(i * 512 * kKiB, 64 * kKiB);
  const std::uint64_t from = 50 * 512 * kKiB;
  for (std::uint64_t at = from; at < from + 20 * kMiB; at += 128 * kKiB) other.Read(at, 128 * kKiB);
  EXPECT_GE(other.ahead_until, from + 30 * kMiB);
}

TEST(Readahead, RequestsOfOneReaderThatArriveOutOfOrderAreOneStream) {
  // The kernel sends 4 requests side by side.
  Reader reader;
  const std::uint64_t length = 256 * kKiB;
  for (std::uint64_t i = 0; i < 400; i += 4) {
    for (const std::uint64_t k : {1, 0, 3, 2}) reader.Read((i + k) * length, length);
  }
  EXPECT_GE(reader.ahead_until, 100 * kMiB + kMax / 2) << "readahead has stalled";
  EXPECT_LE(reader.foreseen, 100 * kMiB + kMax);
}

TEST(Readahead, ReadersInDifferentPlacesDoNotDisturbEachOther) {
  Reader reader;
  for (std::uint64_t at = 0; at < 20 * kMiB; at += 128 * kKiB) {
    for (std::uint64_t r = 0; r < 6; ++r) reader.Read(r * 500 * kMiB + at, 128 * kKiB);
  }
  EXPECT_GE(reader.foreseen, 6 * 20 * kMiB);
  EXPECT_LE(reader.foreseen, 6 * (20 * kMiB + kMax));
}

TEST(Readahead, BytesReadAgainAreNoNews) {
  Reader reader;
  for (std::uint64_t at = 0; at < 8 * kMiB; at += 128 * kKiB) reader.Read(at, 128 * kKiB);
  const std::uint64_t before = reader.foreseen;
  for (int i = 0; i < 100; ++i) reader.Read(7 * kMiB, 128 * kKiB);
  EXPECT_EQ(reader.foreseen, before);
}

}  // namespace
}  // namespace leat::vfs
