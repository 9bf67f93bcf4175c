#include "digest/digest.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/bytes.h"

namespace leat::digest {
namespace {

std::string Hash(Kind kind, std::string_view text) {
  Hasher hasher(kind);
  hasher.Update(AsBytes(text));
  const std::string value = hasher.Finish();
  return ToHex(AsBytes(value));
}

TEST(Digest, Md5OfRfc1321) {
  EXPECT_EQ(Hash(Kind::kMd5, ""), "d41d8cd98f00b204e9800998ecf8427e");
  EXPECT_EQ(Hash(Kind::kMd5, "a"), "0cc175b9c0f1b6a831c399e269772661");
  EXPECT_EQ(Hash(Kind::kMd5, "abc"), "900150983cd24fb0d6963f7d28e17f72");
  EXPECT_EQ(Hash(Kind::kMd5, "message digest"), "f96b697d7cb7938d525a2f31aaf161d0");
  EXPECT_EQ(
      Hash(Kind::kMd5,
           "12345678901234567890123456789012345678901234567890123456789012345678901234567890"),
      "57edf4a22be3c955ac49da2e2107b67a");
}

TEST(Digest, Sha1AndSha256OfFips180) {
  EXPECT_EQ(Hash(Kind::kSha1, "abc"), "a9993e364706816aba3e25717850c26c9cd0d89d");
  EXPECT_EQ(Hash(Kind::kSha256, ""),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(Hash(Kind::kSha256, "abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(Hash(Kind::kSha256, "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(ToHex(HashSha256(AsBytes("abc"))), Hash(Kind::kSha256, "abc"));
}

TEST(Digest, HmacSha256OfRfc4231) {
  EXPECT_EQ(ToHex(AsBytes(HmacSha256("Jefe", "what do ya want for nothing?"))),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  EXPECT_EQ(ToHex(AsBytes(HmacSha256(std::string(20, '\x0b'), "Hi There"))),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
  EXPECT_EQ(ToHex(AsBytes(HmacSha256(std::string(131, '\xaa'),
                                     "Test Using Larger Than Block-Size Key - Hash Key First"))),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

TEST(Digest, Crc32cOfTwoPiecesIsThatOfTheWhole) {
  std::string text;
  for (int i = 0; i < 5000; ++i) text += static_cast<char>(i * 7 + i / 251);
  for (const std::size_t cut : {0, 1, 255, 2500, 4999, 5000}) {
    const std::string_view whole = text, first = whole.substr(0, cut), second = whole.substr(cut);
    EXPECT_EQ(Crc32cCombine(Crc32c(AsBytes(first)), Crc32c(AsBytes(second)), second.size()),
              Crc32c(AsBytes(whole)))
        << cut;
  }
}

TEST(Digest, Crc32cOfRfc3720) {
  EXPECT_EQ(Crc32c(AsBytes("123456789")), 0xe3069283U);
  EXPECT_EQ(Crc32c({}), 0U);
  EXPECT_EQ(Crc32c(AsBytes(std::string(32, '\0'))), 0x8a9136aaU);
  EXPECT_EQ(Crc32c(AsBytes(std::string(32, '\xff'))), 0x62a8ab43U);
  EXPECT_EQ(Hash(Kind::kCrc32c, "123456789"), "e3069283") << "big-endian, as S3 writes it";
}

TEST(Digest, Xxh3OfItsSpecification) { EXPECT_EQ(Xxh3({}), 0x2d06800538d394c2ULL); }

TEST(Digest, PiecesGiveWhatTheWholeGives) {
  std::string text;
  for (int i = 0; i < 100'000; ++i) text += static_cast<char>(i * 31 + i / 256);
  for (const std::size_t piece : {1UL, 63UL, 64UL, 1000UL, 65536UL}) {
    std::vector<Hasher> hashers;
    for (const Kind kind : {Kind::kMd5, Kind::kSha1, Kind::kSha256, Kind::kCrc32c})
      hashers.emplace_back(kind);
    std::uint32_t crc = 0;
    for (std::size_t at = 0; at < text.size(); at += piece) {
      const auto part = AsBytes(text).subspan(at, std::min(piece, text.size() - at));
      for (auto& h : hashers) h.Update(part);
      crc = Crc32c(part, crc);
    }
    std::size_t i = 0;
    for (const Kind kind : {Kind::kMd5, Kind::kSha1, Kind::kSha256, Kind::kCrc32c}) {
      const std::string value = hashers[i++].Finish();
      EXPECT_EQ(ToHex(AsBytes(value)), Hash(kind, text)) << KindName(kind);
    }
    EXPECT_EQ(crc, Crc32c(AsBytes(text)));
  }
}

TEST(Base64, OfRfc4648) {
  const std::vector<std::pair<std::string, std::string>> cases = {{"", ""},
                                                                  {"f", "Zg=="},
                                                                  {"fo", "Zm8="},
                                                                  {"foo", "Zm9v"},
                                                                  {"foob", "Zm9vYg=="},
                                                                  {"fooba", "Zm9vYmE="},
                                                                  {"foobar", "Zm9vYmFy"},
                                                                  {"\xfb\xff", "+/8="}};
  for (const auto& [plain, coded] : cases) {
    EXPECT_EQ(Base64Encode(AsBytes(plain)), coded);
    EXPECT_EQ(Base64Decode(coded), plain);
  }
}

TEST(Base64, RefusesAllElse) {
  for (const char* text :
       {"Z", "Zg", "Zg=", "Zg===", "=", "====", "Z===", "Z=g=", "=Zg=", "Zg==Zg==", " Zg=", "    ",
        "Zg=\n", "Zm9v\n\n\n\n", "Zm9-", "Zm_v", "Zm9\xff", "\n\n\n\nZm9v"}) {
    const auto got = Base64Decode(text);
    EXPECT_FALSE(got) << "\"" << text << "\" is \"" << *got << "\"";
  }
}

}  // namespace
}  // namespace leat::digest
