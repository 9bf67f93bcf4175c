#include "archive/tar_parser.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "archive/test_tools.h"
#include "base/bytes.h"

namespace leat::archive {
namespace {

struct Seen {
  Member member;
  std::string data;
};

class Collector final : public TarVisitor {
 public:
  Status OnMember(const Member& member) override {
    EXPECT_TRUE(ended);
    ended = false;
    seen.push_back({member, ""});
    return {};
  }
  Status OnData(std::span<const std::byte> bytes) override {
    EXPECT_FALSE(bytes.empty());
    seen.back().data += AsText(bytes);
    return {};
  }
  Status OnMemberEnd() override {
    ended = true;
    return {};
  }
  std::vector<Seen> seen;
  bool ended = true;
};

Result<std::vector<Seen>> Parse(std::string_view tar, std::size_t piece = SIZE_MAX) {
  Collector collector;
  TarParser parser(collector);
  for (std::string_view rest = tar; !rest.empty();) {
    const std::string_view some = rest.substr(0, piece);
    LEAT_RETURN_IF_ERROR(parser.Write(AsBytes(some)));
    rest.remove_prefix(some.size());
  }
  LEAT_RETURN_IF_ERROR(parser.Finish());
  for (const Seen& seen : collector.seen) {
    EXPECT_EQ(seen.data.size(), seen.member.stored);
    EXPECT_TRUE(seen.member.stored == 0 ||
                tar.substr(seen.member.offset, seen.member.stored) == seen.data);
  }
  return collector.seen;
}

/// A ustar header with its checksum.
std::string Header(std::string_view name, char type, std::string_view size_field) {
  std::string out(512, '\0');
  out.replace(0, name.size(), name);
  out.replace(100, 7, "0000644");
  out.replace(124, size_field.size(), size_field);
  out.replace(136, 11, "00000000000");
  out.replace(148, 8, "        ");
  out[156] = type;
  out.replace(257, 8, std::string_view("ustar\00000", 8));
  unsigned sum = 0;
  for (const char c : out) sum += static_cast<unsigned char>(c);
  char text[8];
  std::snprintf(text, sizeof(text), "%06o", sum);
  out.replace(148, 6, text);
  out[154] = '\0';
  return out;
}
std::string Padded(std::string data) {
  data.resize((data.size() + 511) / 512 * 512);
  return data;
}
std::string Pax(std::string_view records, char type = 'x') {
  char size[12];
  std::snprintf(size, sizeof(size), "%011zo", records.size());
  return Header("pax", type, size) + Padded(std::string(records));
}
const std::string kEnd(1024, '\0');

std::string MessageOf(std::string_view tar) {
  const auto parsed = Parse(tar);
  if (parsed) return "";
  EXPECT_EQ(parsed.error().code(), Errc::kCorrupt);
  return parsed.error().message();
}

class TarOf : public testing::TestWithParam<const char*> {};

TEST_P(TarOf, HasWhatWasPutIntoIt) {
  const TestFolder folder;
  folder.Run(R"(mkdir -p d/e; printf hello >d/file; : >d/empty; head -c 70000 /dev/zero >d/e/large
    ln -s ../file d/e/link; ln d/file d/hard; chmod 755 d/file; touch -d @1234567890 d/file d/empty d/e/large)");
  folder.Run("tar --format=" + std::string(GetParam()) + " --sort=name -cf t.tar d");
  const std::string tar = folder.Read("t.tar");
  EXPECT_TRUE(IsTar(AsBytes(tar)));
  for (const std::size_t piece : {SIZE_MAX, std::size_t{512}, std::size_t{1}, std::size_t{777}}) {
    const auto parsed = Parse(tar, piece);
    ASSERT_TRUE(parsed) << parsed.error().message();
    ASSERT_EQ(parsed->size(), 7U);
    const auto at = [&](std::string_view name) {
      return std::ranges::find_if(*parsed, [&](const Seen& s) { return s.member.name == name; });
    };
    ASSERT_NE(at("d/e/"), parsed->end());
    EXPECT_EQ(at("d/e/")->member.kind, MemberKind::kDirectory);
    EXPECT_EQ(at("d/file")->data, "hello");
    EXPECT_EQ(at("d/file")->member.mode, 0755U);
    EXPECT_EQ(at("d/file")->member.mtime_ns, 1'234'567'890'000'000'000);
    EXPECT_EQ(at("d/empty")->member.size, 0U);
    EXPECT_EQ(at("d/e/large")->data, std::string(70'000, '\0'));
    EXPECT_EQ(at("d/e/link")->member.kind, MemberKind::kSymlink);
    EXPECT_EQ(at("d/e/link")->member.link, "../file");
    EXPECT_EQ(at("d/hard")->member.kind, MemberKind::kHardLink);
    EXPECT_EQ(at("d/hard")->member.link, "d/file");
  }
}
INSTANTIATE_TEST_SUITE_P(Formats, TarOf, testing::Values("v7", "ustar", "pax", "gnu", "oldgnu"),
                         [](const auto& test) { return std::string(test.param); });

TEST(TarParser, ReadsNamesOfAnyLength) {
  const TestFolder folder;
  const std::string part(90, 'n');
  const std::string name = "d/" + part + "/" + part + "/" + part + "/\xc3\xa4";
  folder.Run("mkdir -p d/" + part + "/" + part + "/" + part + "; touch '" + name + "'; ln -s '" +
             part + part + "' d/link");
  for (const char* format : {"pax", "gnu"}) {
    folder.Run("tar --format=" + std::string(format) + " -cf t.tar '" + name + "' d/link");
    const auto parsed = Parse(folder.Read("t.tar"));
    ASSERT_TRUE(parsed) << parsed.error().message();
    ASSERT_EQ(parsed->size(), 2U);
    EXPECT_EQ((*parsed)[0].member.name, name);
    EXPECT_EQ((*parsed)[1].member.link, part + part);
    EXPECT_EQ((*parsed)[1].member.name, "d/link");
  }
  folder.Run("mkdir -p u/" + part + "; touch u/" + part + "/" + part +
             "; tar --format=ustar -cf t.tar u/" + part + "/" + part);
  const auto parsed = Parse(folder.Read("t.tar"));
  ASSERT_TRUE(parsed);
  EXPECT_EQ((*parsed)[0].member.name, "u/" + part + "/" + part);
}

TEST(TarParser, ReadsTheHolesOfSparseFilesInAllFormats) {
  const TestFolder folder;
  // More pieces than a header of GNU's has room for.
  folder.Python(R"(
with open("s", "wb") as f:
    for i in range(40):
        f.seek(i * 131072)
        f.write(b"%04d" % i * 1024)
    f.truncate(40 * 131072)
)");
  for (const char* format :
       {"--format=gnu", "--format=pax --sparse-version=0.0", "--format=pax --sparse-version=0.1",
        "--format=pax --sparse-version=1.0"}) {
    folder.Run("tar -S " + std::string(format) + " -cf t.tar s");
    for (const std::size_t piece : {SIZE_MAX, std::size_t{100}}) {
      const auto parsed = Parse(folder.Read("t.tar"), piece);
      ASSERT_TRUE(parsed) << format << ": " << parsed.error().message();
      ASSERT_EQ(parsed->size(), 1U);
      const Seen& seen = (*parsed)[0];
      EXPECT_EQ(seen.member.name, "s");
      EXPECT_TRUE(seen.member.sparse);
      EXPECT_EQ(seen.member.size, 40U * 131'072);
      ASSERT_EQ(seen.member.extents.size(), 40U);
      std::string file(seen.member.size, '\0');
      std::size_t from = 0;
      for (const Extent& extent : seen.member.extents) {
        file.replace(extent.offset, extent.length, seen.data, from, extent.length);
        from += extent.length;
      }
      EXPECT_TRUE(file == folder.Read("s")) << format;
    }
  }
}

TEST(TarParser, HoldsToWhatPaxHeadersSay) {
  const auto parsed = Parse(Pax("13 path=glob\n15 mtime=-1.25\n20 SCHILY.dev=12345\n", 'g') +
                            Pax("13 path=mine\n10 size=3\n") + Header("x", '0', "00000000000") +
                            Padded("abc") + Header("y", '0', "00000000000") + Pax("8 path=\n") +
                            Header("z", '0', "00000000000") + kEnd);
  ASSERT_TRUE(parsed) << parsed.error().message();
  ASSERT_EQ(parsed->size(), 3U);
  EXPECT_EQ((*parsed)[0].member.name, "mine");
  EXPECT_EQ((*parsed)[0].data, "abc");
  EXPECT_EQ((*parsed)[0].member.mtime_ns, -1'250'000'000);
  EXPECT_EQ((*parsed)[1].member.name, "glob");
  EXPECT_EQ((*parsed)[2].member.name, "z");
}

TEST(TarParser, ReadsNumbersInBase256) {
  const TestFolder folder;
  folder.Run("echo x >f; touch -d @-86400 f; tar --format=gnu -cf t.tar f");
  const auto parsed = Parse(folder.Read("t.tar"));
  ASSERT_TRUE(parsed) << parsed.error().message();
  EXPECT_EQ((*parsed)[0].member.mtime_ns, -86'400'000'000'000);
}

TEST(TarParser, TakesKindsThatNobodyKnowsForFilesAndSaysWhichAreSpecial) {
  const auto parsed = Parse(
      Header("contiguous", '7', "00000000002") + Padded("ab") +
      Header("unknown", 'Q', "00000000001") + Padded("c") + Header("label", 'V', "00000000000") +
      Header("device", '3', "00000000000") + Header("fifo", '6', "00000000000") + kEnd);
  ASSERT_TRUE(parsed) << parsed.error().message();
  ASSERT_EQ(parsed->size(), 4U);
  EXPECT_EQ((*parsed)[0].member.kind, MemberKind::kFile);
  EXPECT_EQ((*parsed)[0].data, "ab");
  EXPECT_EQ((*parsed)[1].member.kind, MemberKind::kFile);
  EXPECT_EQ((*parsed)[2].member.kind, MemberKind::kSpecial);
  EXPECT_EQ((*parsed)[3].member.kind, MemberKind::kSpecial);
}

TEST(TarParser, EndsWithTwoBlocksOfZerosOrWithItsBytes) {
  const std::string member = Header("f", '0', "00000000001") + Padded("x");
  EXPECT_EQ(MessageOf(member), "");
  EXPECT_EQ(MessageOf(member + kEnd.substr(512)), "");
  EXPECT_EQ(MessageOf(member + kEnd + "what follows is nobody's"), "");
  EXPECT_EQ(MessageOf(kEnd), "");
}

TEST(TarParser, SaysWhereATarBreaksOff) {
  const std::string tar =
      Pax("13 path=mine\n") + Header("f", '0', "00000001000") + Padded(std::string(512, 'x'));
  for (std::size_t cut = 0; cut < tar.size(); cut += 100)
    EXPECT_NE(MessageOf(tar.substr(0, cut)), "") << cut;
  EXPECT_EQ(MessageOf(tar.substr(0, 1800)), "the tar breaks off at byte 1800, within \"mine\"");
  EXPECT_EQ(MessageOf(tar.substr(0, 1024)), "the tar breaks off at byte 1024, behind \"\"");
  EXPECT_EQ(MessageOf(""), "is no tar: it is shorter than a header");
}

TEST(TarParser, RefusesNumbersThatCannotBe) {
  EXPECT_NE(MessageOf(Header("f", '0', "77777777q77") + kEnd), "");
  EXPECT_NE(
      MessageOf(Header("f", '0',
                       std::string_view("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe", 12))),
      "");
  EXPECT_NE(
      MessageOf(Header("f", '0',
                       std::string_view("\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 12))),
      "");
  EXPECT_NE(MessageOf(Header("f", 'x', "77777777777")), "") << "a pax header of 8 GiB";
  EXPECT_NE(MessageOf(Header("f", 'L', "00010000000")), "") << "a name of 2 MiB";
  EXPECT_NE(MessageOf(Pax("26 size=99999999999999999\n") + Header("f", '0', "00000000000")), "");
  EXPECT_NE(MessageOf(Pax("99 path=mine\n") + Header("f", '0', "00000000000")), "");
  EXPECT_NE(MessageOf(Pax("5 path=mine\n") + Header("f", '0', "00000000000")), "");
  EXPECT_NE(MessageOf(Pax("path=mine\n") + Header("f", '0', "00000000000")), "");
}

TEST(TarParser, RefusesPiecesOfSparseFilesThatCannotBe) {
  const std::string file = Header("f", '0', "00000000004") + Padded("abcd") + kEnd;
  const std::string size = "22 GNU.sparse.size=10\n";
  EXPECT_EQ(MessageOf(Pax(size + "22 GNU.sparse.map=0,4\n") + file), "");
  EXPECT_NE(MessageOf(Pax(size + "22 GNU.sparse.map=8,4\n") + file), "");
  EXPECT_NE(MessageOf(Pax(size + "22 GNU.sparse.map=0,3\n") + file), "");
  EXPECT_NE(MessageOf(Pax(size + "26 GNU.sparse.map=4,2,0,2\n") + file), "");
  EXPECT_NE(MessageOf(Pax(size + "26 GNU.sparse.map=0,3,2,1\n") + file), "");
  EXPECT_NE(MessageOf(Pax(size + "20 GNU.sparse.map=0\n") + file), "");
  EXPECT_NE(MessageOf(Pax("22 GNU.sparse.map=0,4\n") + file), "");
}

TEST(TarParser, HandsOnTheVisitorsError) {
  class Full final : public TarVisitor {
    Status OnMember(const Member&) override { return {}; }
    Status OnData(std::span<const std::byte>) override { return Fail(Errc::kNoSpace, "full"); }
    Status OnMemberEnd() override { return {}; }
  } full;
  TarParser parser(full);
  const Status done = parser.Write(AsBytes(Header("f", '0', "00000000001") + Padded("x")));
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code(), Errc::kNoSpace);
}

TEST(TarParser, KnowsATarByItsFirstBlock) {
  EXPECT_FALSE(IsTar(AsBytes("short")));
  EXPECT_FALSE(IsTar(AsBytes(std::string(512, 'x'))));
  EXPECT_TRUE(IsTar(AsBytes(kEnd)));
  EXPECT_TRUE(IsTar(AsBytes(Header("f", '0', "00000000000"))));
}

}  // namespace
}  // namespace leat::archive
