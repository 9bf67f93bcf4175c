#include "archive/decoder.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <string_view>

#include "archive/decoders.h"
#include "archive/test_tools.h"
#include "base/bytes.h"

namespace leat::archive {
namespace {

Result<std::string> Decode(std::string_view encoded, std::size_t threads = 1,
                           std::size_t piece = SIZE_MAX, Codec codec = Codec::kNone) {
  std::string out;
  if (codec == Codec::kNone) codec = CodecOf(AsBytes(encoded));
  const auto decoder =
      Decoder::Make(codec, threads, 64 * kMiB, [&](std::span<const std::byte> bytes) -> Status {
        out += AsText(bytes);
        return {};
      });
  for (std::string_view rest = encoded; !rest.empty();) {
    const std::string_view some = rest.substr(0, piece);
    LEAT_RETURN_IF_ERROR(decoder->Write(AsBytes(some)));
    rest.remove_prefix(some.size());
  }
  LEAT_RETURN_IF_ERROR(decoder->Finish());
  return out;
}

struct Tool {
  const char* name;
  Codec codec;
  const char* command;  // from "in" to "out"
};
void PrintTo(const Tool& tool, std::ostream* out) { *out << tool.name; }

class DecoderOf : public testing::TestWithParam<Tool> {
 protected:
  std::string Encode(std::string_view bytes) {
    folder_.Write("in", bytes);
    folder_.Run(GetParam().command);
    return folder_.Read("out");
  }
  TestFolder folder_;
};

TEST_P(DecoderOf, GivesWhatWasEncoded) {
  const std::string text = Words(2'100'000) + std::string(1'500'000, 'x') + Words(100'000, 7);
  const std::string encoded = Encode(text);
  EXPECT_EQ(CodecOf(AsBytes(encoded)), GetParam().codec);
  for (const std::size_t threads : {1, 3}) {
    for (const std::size_t piece : {SIZE_MAX, std::size_t{65'537}, std::size_t{1000}}) {
      const auto decoded = Decode(encoded, threads, piece);
      ASSERT_TRUE(decoded) << decoded.error().message();
      EXPECT_TRUE(*decoded == text) << threads << " threads, pieces of " << piece;
    }
  }
}

TEST_P(DecoderOf, TakesBytesOneByOne) {
  const std::string text = Words(20'000);
  const auto decoded = Decode(Encode(text), 2, 1);
  ASSERT_TRUE(decoded) << decoded.error().message();
  EXPECT_EQ(*decoded, text);
}

TEST_P(DecoderOf, TakesSeveralStreamsAsOne) {
  const std::string first = Words(300'000, 3);
  const std::string encoded = Encode(first) + Encode("") + Encode("end");
  for (const std::size_t piece : {SIZE_MAX, std::size_t{1}}) {
    const auto decoded = Decode(encoded, 2, piece);
    ASSERT_TRUE(decoded) << decoded.error().message();
    EXPECT_EQ(*decoded, first + "end");
  }
}

TEST_P(DecoderOf, SaysWhereAStreamBreaksOff) {
  const std::string encoded = Encode(Words(500'000));
  for (const std::size_t cut : {std::size_t{5}, encoded.size() / 2, encoded.size() - 1}) {
    for (const std::size_t threads : {1, 2}) {
      const auto decoded =
          Decode(std::string_view(encoded).substr(0, cut), threads, SIZE_MAX, GetParam().codec);
      ASSERT_FALSE(decoded) << cut;
      EXPECT_EQ(decoded.error().code(), Errc::kCorrupt) << decoded.error().message();
    }
  }
}

TEST_P(DecoderOf, FindsDamage) {
  const std::string text = Words(400'000);
  const std::string encoded = Encode(text);
  for (std::size_t i = 1; i < 10; ++i) {
    std::string damaged = encoded;
    damaged[damaged.size() * i / 10] ^= 0x10;
    for (const std::size_t threads : {1, 2}) {
      const auto decoded = Decode(damaged, threads);
      // Some fields (gzip's time) do not matter.
      EXPECT_TRUE(!decoded || *decoded == text) << i;
    }
  }
}

TEST_P(DecoderOf, RefusesWhatFollowsTheStream) {
  const auto decoded = Decode(Encode("text") + "and a letter behind it");
  ASSERT_FALSE(decoded);
  EXPECT_EQ(decoded.error().code(), Errc::kCorrupt);
}

TEST_P(DecoderOf, PassesOverZerosBehindTheStream) {
  const auto decoded = Decode(Encode("text") + std::string(512, '\0'));
  ASSERT_TRUE(decoded) << decoded.error().message();
  EXPECT_EQ(*decoded, "text");
}

TEST_P(DecoderOf, HandsOnTheSinksError) {
  const std::string encoded = Encode(Words(3'000'000));
  const auto decoder = Decoder::Make(GetParam().codec, 2, 64 * kMiB,
                                     [](auto) { return Fail(Errc::kNoSpace, "full"); });
  Status done = decoder->Write(AsBytes(encoded));
  if (done) done = decoder->Finish();
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code(), Errc::kNoSpace);
}

INSTANTIATE_TEST_SUITE_P(Tools, DecoderOf,
                         testing::Values(Tool{"gzip", Codec::kGzip, "gzip -9 -c in >out"},
                                         Tool{"bzip2", Codec::kBzip2, "bzip2 -c in >out"},
                                         Tool{"bzip2_small", Codec::kBzip2, "bzip2 -1 -c in >out"},
                                         Tool{"pbzip2", Codec::kBzip2, "pbzip2 -b1 -c in >out"},
                                         Tool{"xz", Codec::kXz, "xz -T1 -c in >out"},
                                         Tool{"xz_blocks", Codec::kXz,
                                              "xz -T2 --block-size=1MiB -c in >out"},
                                         Tool{"zstd", Codec::kZstd, "zstd -q -f in -o out"},
                                         Tool{"zstd_checksum", Codec::kZstd,
                                              "zstd -q --check --no-content-size -c in >out"},
                                         Tool{"zstd_frames", Codec::kZstd,
                                              ": >out; split -b 1000000 in part.; touch part.aa; "
                                              "for p in part.*; do zstd -q -c $p >>out; "
                                              "rm $p; done"},
                                         Tool{"lz4", Codec::kLz4, "lz4 -q -c in >out"}),
                         [](const auto& test) { return test.param.name; });

TEST(Decoder, KnowsNoCodecByLessThanItsMagic) {
  EXPECT_EQ(CodecOf({}), Codec::kNone);
  EXPECT_EQ(CodecOf(AsBytes("BZh")), Codec::kNone);
  EXPECT_EQ(CodecOf(AsBytes("BZhx")), Codec::kNone);
  EXPECT_EQ(CodecOf(AsBytes("PK\3\4")), Codec::kNone);
}

TEST(Decoder, PassesOverFramesOfZstdThatAreToBeSkipped) {
  const TestFolder folder;
  folder.Write("in", "text");
  folder.Run("zstd -q in -o out");
  const std::string skip(
      "\x53\x2a\x4d\x18\x03\x00\x00\x00"
      "abc",
      11);
  for (const std::size_t threads : {1, 2}) {
    const auto decoded = Decode(skip + folder.Read("out") + skip, threads, 1);
    ASSERT_TRUE(decoded) << decoded.error().message();
    EXPECT_EQ(*decoded, "text");
  }
}

TEST(Decoder, FindsAChecksumThatCombinesThoseOfBlocksAndIsWrong) {
  const TestFolder folder;
  folder.Write("in", Words(250'000));
  folder.Run("bzip2 -1 -c in >out");
  std::string encoded = folder.Read("out");
  encoded[encoded.size() - 2] ^= 1;
  const auto decoded = Decode(encoded, 2);
  ASSERT_FALSE(decoded);
  EXPECT_EQ(decoded.error().message(), "the bzip2 stream's checksum is wrong");
}

TEST(Decoder, HoldsABlockThatIsMuchLargerThanItLooksNotAtOnce) {
  // 45 bytes of bzip2 for 45 MB of zeros: one block.
  const TestFolder folder;
  folder.Run("head -c 45000000 /dev/zero | bzip2 -9 >out");
  std::size_t largest = 0;
  std::size_t sum = 0;
  const auto decoder = Decoder::Make(Codec::kBzip2, 2, 64 * kMiB, [&](auto bytes) -> Status {
    largest = std::max(largest, bytes.size());
    sum += bytes.size();
    return {};
  });
  ASSERT_TRUE(decoder->Write(AsBytes(folder.Read("out"))));
  ASSERT_TRUE(decoder->Finish());
  EXPECT_EQ(sum, 45'000'000U);
  EXPECT_LE(largest, kMiB);
}

TEST(Decoder, RefusesAZstdStreamWithAWindowOfMoreThanAGibibyte) {
  // A frame's header with a window of 2 GiB, then an empty last block.
  const std::string encoded("\x28\xb5\x2f\xfd\x00\xa8\x01\x00\x00", 9);
  for (const std::size_t threads : {1, 2}) {
    const auto decoded = Decode(encoded, threads);
    ASSERT_FALSE(decoded);
    EXPECT_EQ(decoded.error().code(), Errc::kUnsupported) << decoded.error().message();
  }
}

}  // namespace
}  // namespace leat::archive
