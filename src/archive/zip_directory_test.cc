#include "archive/zip_directory.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <string>
#include <string_view>

#include "archive/test_tools.h"
#include "base/bytes.h"

namespace leat::archive {
namespace {

int reads = 0;

Result<std::vector<ZipMember>> Read(const std::string& zip) {
  reads = 0;
  return ReadZipDirectory(zip.size(),
                          [&](std::uint64_t offset, std::span<std::byte> out) -> Status {
                            ++reads;
                            if (offset > zip.size() || out.size() > zip.size() - offset) {
                              ADD_FAILURE() << "a read outside of the object";
                              return Fail(Errc::kInternal, "outside");
                            }
                            std::memcpy(out.data(), zip.data() + offset, out.size());
                            return {};
                          });
}
Errc CodeOf(const std::string& zip) {
  const auto members = Read(zip);
  return members ? Errc::kInternal : members.error().code();
}
const ZipMember* Find(const std::vector<ZipMember>& members, std::string_view name) {
  const auto at =
      std::ranges::find_if(members, [&](const ZipMember& m) { return m.member.name == name; });
  return at == members.end() ? nullptr : &*at;
}

TEST(ZipDirectory, HasWhatZipPutIntoIt) {
  const TestFolder folder;
  folder.Run(
      R"(mkdir -p d/e; printf hello >d/file; head -c 70000 /dev/zero >d/e/large; ln -s ../file d/e/link
    chmod 755 d/file; touch -d @1234567891 d/file; zip -q -y -r t.zip d)");
  const std::string zip = folder.Read("t.zip");
  EXPECT_TRUE(IsZip(AsBytes(zip)));
  const auto members = Read(zip);
  ASSERT_TRUE(members) << members.error().message();
  EXPECT_EQ(reads, 1);
  ASSERT_EQ(members->size(), 5U);
  const ZipMember* file = Find(*members, "d/file");
  ASSERT_NE(file, nullptr);
  EXPECT_EQ(file->member.mode, 0755U);
  EXPECT_EQ(file->member.mtime_ns, 1'234'567'891'000'000'000);
  EXPECT_EQ(file->member.size, 5U);
  EXPECT_EQ(file->method, 0);
  const auto header = ZipLocalHeaderSize(AsBytes(zip).subspan(file->begin));
  ASSERT_TRUE(header);
  EXPECT_EQ(zip.substr(file->begin + *header, 5), "hello");
  EXPECT_EQ(Find(*members, "d/e/")->member.kind, MemberKind::kDirectory);
  EXPECT_EQ(Find(*members, "d/e/link")->member.kind, MemberKind::kSymlink);
  EXPECT_EQ(Find(*members, "d/e/large")->method, 8);
  EXPECT_EQ(members->front().begin, 0U);
  for (std::size_t i = 1; i < members->size(); ++i)
    EXPECT_EQ((*members)[i - 1].end, (*members)[i].begin);
}

TEST(ZipDirectory, CountsOffsetsFromTheObjectsBeginning) {
  const TestFolder folder;
  folder.Run("printf hello >f; zip -q t.zip f; (printf 'a program'; cat t.zip) >s.zip");
  folder.Python(R"(
import zipfile
with open("a.zip", "wb") as f:
    f.write(b"a program")
    with zipfile.ZipFile(f, "w") as z:
        z.writestr("f", "hello")
)");
  for (const char* name : {"s.zip", "a.zip"}) {
    const std::string zip = folder.Read(name);
    const auto members = Read(zip);
    ASSERT_TRUE(members) << members.error().message();
    EXPECT_EQ(members->front().begin, 9U);
    EXPECT_TRUE(ZipLocalHeaderSize(AsBytes(zip).subspan(9)));
  }
}

TEST(ZipDirectory, IsFoundInFrontOfAComment) {
  const TestFolder folder;
  folder.Python(R"(
import zipfile
for name, comment in ("a", b"PK\5\6" * 10), ("b", b"x" * 65535):
    with zipfile.ZipFile(name, "w") as z:
        z.writestr("f", "hello")
        z.comment = comment
)");
  for (const char* name : {"a", "b"}) {
    const auto members = Read(folder.Read(name));
    ASSERT_TRUE(members) << members.error().message();
    EXPECT_EQ(members->front().member.name, "f");
  }
  const auto members = Read(folder.Read("b") + "\r\n");
  EXPECT_TRUE(members) << "a line's end that something put behind it";
}

TEST(ZipDirectory, ReadsZip64) {
  const TestFolder folder;
  folder.Python(R"(
import zipfile
with zipfile.ZipFile("many", "w") as z:
    for i in range(70000):
        z.writestr("%d" % i, "")
zipfile.ZIP64_LIMIT = 10
with zipfile.ZipFile("wide", "w") as z:
    z.writestr("f", "hello, this is longer")
    z.writestr("g", "and this, too, is longer")
)");
  const auto many = Read(folder.Read("many"));
  ASSERT_TRUE(many) << many.error().message();
  EXPECT_EQ(many->size(), 70'000U);
  EXPECT_EQ(reads, 2);
  for (const char* in_front : {"", "a program"}) {
    const std::string zip = in_front + folder.Read("wide");
    const auto wide = Read(zip);
    ASSERT_TRUE(wide) << wide.error().message();
    ASSERT_EQ(wide->size(), 2U);
    EXPECT_EQ((*wide)[0].member.size, 21U);
    EXPECT_TRUE(ZipLocalHeaderSize(AsBytes(zip).subspan((*wide)[1].begin)));
  }
}

TEST(ZipDirectory, TakesNamesAsBytesUnlessAFieldHasThemInUnicode) {
  const TestFolder folder;
  folder.Python(R"(
import struct, zipfile, zlib
with zipfile.ZipFile("t", "w") as z:
    def put(name, field):
        info = zipfile.ZipInfo(name)
        info.extra = struct.pack("<HH", 0x7075, len(field)) + field
        z.writestr(info, "")
    put("right", struct.pack("<BI", 1, zlib.crc32(b"right")) + "r\u00efght".encode())
    put("wrong", struct.pack("<BI", 1, 1) + b"other")
)");
  const auto members = Read(folder.Read("t"));
  ASSERT_TRUE(members) << members.error().message();
  EXPECT_EQ((*members)[0].member.name, "r\xc3\xafght");
  EXPECT_EQ((*members)[1].member.name, "wrong");
}

TEST(ZipDirectory, TakesWhatOtherSystemsWrite) {
  const TestFolder folder;
  folder.Python(R"(
import zipfile
with zipfile.ZipFile("t", "w") as z:
    def put(name, system, attributes, data=""):
        info = zipfile.ZipInfo(name, (1999, 12, 31, 23, 59, 58))
        info.create_system = system
        info.external_attr = attributes
        info.filename = name
        z.writestr(info, data)
    put("folder\\file", 0, 0x20)
    put("folder", 0, 0x10)
    put("fifo", 3, 0o010644 << 16)
    put("plain", 3, 0o600 << 16)
)");
  const auto members = Read(folder.Read("t"));
  ASSERT_TRUE(members) << members.error().message();
  EXPECT_NE(Find(*members, "folder/file"), nullptr);
  EXPECT_EQ(Find(*members, "folder")->member.kind, MemberKind::kDirectory);
  EXPECT_EQ(Find(*members, "fifo")->member.kind, MemberKind::kSpecial);
  EXPECT_EQ(Find(*members, "plain")->member.kind, MemberKind::kFile);
  EXPECT_EQ(Find(*members, "plain")->member.mtime_ns, 946'684'798'000'000'000)
      << "DOS's time as UTC";
}

TEST(ZipDirectory, SaysWhatIsEncrypted) {
  const TestFolder folder;
  folder.Run("echo secret >f; zip -q -P password t.zip f");
  const auto members = Read(folder.Read("t.zip"));
  ASSERT_TRUE(members);
  EXPECT_TRUE(members->front().encrypted);
}

TEST(ZipDirectory, RefusesMembersThatOverlapOrLieOutside) {
  const TestFolder folder;
  folder.Python(R"(
import struct, zipfile
with zipfile.ZipFile("t", "w") as z:
    z.writestr("a", "x" * 1000)
    z.writestr("b", "y" * 1000)
data = open("t", "rb").read()
first = data.index(b"PK\1\2")
second = data.index(b"PK\1\2", first + 1)
def with_(at, value, name):
    open(name, "wb").write(data[:at] + struct.pack("<I", value) + data[at + 4:])
with_(second + 42, 0, "same")
with_(second + 42, 500, "within")
with_(second + 42, len(data), "outside")
with_(first + 20, 5000, "long")
with_(first + 42, 2000, "swapped")
)");
  for (const char* name : {"same", "within", "outside", "long", "swapped"})
    EXPECT_EQ(CodeOf(folder.Read(name)), Errc::kCorrupt) << name;
}

TEST(ZipDirectory, RefusesWhatBreaksOffOrIsNone) {
  const TestFolder folder;
  folder.Run("echo x >f; echo y >g; zip -q t.zip f g");
  const std::string zip = folder.Read("t.zip");
  for (std::size_t cut = 0; cut < zip.size(); ++cut)
    EXPECT_EQ(CodeOf(zip.substr(0, cut)), Errc::kCorrupt) << cut;
  EXPECT_EQ(CodeOf("<!DOCTYPE html><html></html>"), Errc::kCorrupt);
  for (std::size_t i = zip.find("PK\1\2"); i < zip.size(); ++i) {
    std::string damaged = zip;
    damaged[i] = static_cast<char>(damaged[i] ^ 0xFF);
    (void)Read(damaged);  // does not read outside
  }
}

TEST(ZipDirectory, RefusesOneOfSeveralVolumes) {
  const TestFolder folder;
  folder.Run("head -c 200000 /dev/urandom >f; zip -q -s 64k t.zip f");
  EXPECT_EQ(CodeOf(folder.Read("t.zip")), Errc::kUnsupported);
}

TEST(ZipDirectory, OfAnEmptyZipIsEmpty) {
  const TestFolder folder;
  folder.Python("import zipfile\nzipfile.ZipFile('t', 'w').close()\n");
  const auto members = Read(folder.Read("t"));
  ASSERT_TRUE(members) << members.error().message();
  EXPECT_TRUE(members->empty());
}

TEST(ZipDirectory, OfAMillionMembersIsRead) {
  std::string directory;
  std::string zip;
  constexpr std::uint32_t kCount = 1'000'000;
  const auto put = [](std::string& to, std::uint64_t value, int bytes) {
    for (int i = 0; i < bytes; ++i) to += static_cast<char>(value >> (8 * i));
  };
  for (std::uint32_t i = 0; i < kCount; ++i) {
    const std::string name =
        "train/n" + std::to_string(i % 1000) + "/" + std::to_string(i) + ".jpg";
    directory += "PK\1\2";
    put(directory, 0x031e, 2);
    directory.append(22, '\0');
    put(directory, name.size(), 2);
    directory.append(12, '\0');
    put(directory, i * 31U, 4);
    directory += name;
  }
  zip.append(31ULL * kCount, '\0');
  const std::size_t at = zip.size();
  zip += directory;
  const std::size_t end64 = zip.size();
  zip += "PK\6\6";
  put(zip, 44, 8);
  put(zip, 45, 4);
  put(zip, 0, 8);
  put(zip, kCount, 8);
  put(zip, kCount, 8);
  put(zip, directory.size(), 8);
  put(zip, at, 8);
  zip += "PK\6\7";
  put(zip, 0, 4);
  put(zip, end64, 8);
  put(zip, 1, 4);
  zip += "PK\5\6";
  put(zip, 0, 4);
  put(zip, 0xFFFF'FFFF, 4);
  put(zip, UINT64_MAX, 8);
  put(zip, 0, 2);
  const auto began = std::chrono::steady_clock::now();
  const auto members = Read(zip);
  ASSERT_TRUE(members) << members.error().message();
  EXPECT_EQ(members->size(), kCount);
  const auto took = std::chrono::steady_clock::now() - began;
  RecordProperty("milliseconds", static_cast<int>(took / std::chrono::milliseconds(1)));
}

}  // namespace
}  // namespace leat::archive
