#include "snapshot/snapshot.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "snapshot/builder.h"
#include "snapshot/format.h"
#include "snapshot/test_snapshots.h"

namespace leat::snapshot {
namespace {

using testing::BytesOf;
using testing::Key;
using testing::MemoryFile;
using testing::SnapshotOf;

std::vector<std::string> PathsOf(const Snapshot& s) {
  std::vector<std::string> out;
  for (FileIndex i = 0; i < s.file_count(); ++i) out.push_back(s.PathOfFile(i));
  return out;
}

std::vector<std::string> DirectoriesOf(const Snapshot& s) {
  std::vector<std::string> out;
  for (DirIndex d = 0; d < s.directory_count(); ++d) out.push_back(s.PathOfDirectory(d));
  return out;
}

std::vector<std::string> NamesIn(const Snapshot& s, DirIndex d) {
  std::vector<std::string> out;
  for (std::uint32_t i = 0; i < s.child_count(d); ++i) {
    const Child c = s.child(d, i);
    out.emplace_back(c.is_dir ? std::string(s.directory_name(c.index)) + "/"
                              : std::string(s.file(c.index).name));
  }
  return out;
}

using Strings = std::vector<std::string>;

TEST(Snapshot, AnEmptySnapshotHasARootAndNothingElse) {
  const auto s = SnapshotOf({});
  EXPECT_EQ(s->file_count(), 0U);
  EXPECT_EQ(s->directory_count(), 1U);
  EXPECT_EQ(s->block_count(), 0U);
  EXPECT_EQ(s->child_count(kRoot), 0U);
  EXPECT_EQ(s->directory_parent(kRoot), kRoot);
  EXPECT_EQ(s->Lookup(kRoot, "a"), std::nullopt);
  EXPECT_TRUE(s->VerifyPin());
}

TEST(Snapshot, FilesAreInOrderOfKeysAndChildrenInOrderOfNames) {
  const auto s =
      SnapshotOf({Key("b/x"), Key("a/z"), Key("a-b/c"), Key("a.txt"), Key("a0"), Key("b/a/q")});
  EXPECT_EQ(PathsOf(*s), (Strings{"a-b/c", "a.txt", "a/z", "a0", "b/a/q", "b/x"}));
  EXPECT_EQ(DirectoriesOf(*s), (Strings{"", "a-b", "a", "b", "b/a"}));
  EXPECT_EQ(NamesIn(*s, kRoot), (Strings{"a/", "a-b/", "a.txt", "a0", "b/"}));
  EXPECT_EQ(NamesIn(*s, s->Lookup(kRoot, "b")->index), (Strings{"a/", "x"}));
}

TEST(Snapshot, AFileHasWhatTheListingSaidOfIt) {
  auto plain = Key("d/plain", 5, "0123456789abcdef0123456789abcdef");
  plain.modified =
      std::chrono::system_clock::time_point(std::chrono::nanoseconds(1234567890123456789));
  auto parts = Key("d/parts", 6, "0123456789abcdef0123456789abcdef-4294967295");
  parts.version.version_id = "3sL4kqtJlcpXroDTDmJ+rmSpXd3dIbrHY+MTRCxf3vjVBH40Nr8X8gdRQBpUMLUo";
  auto weak = Key("d/weak", 7, "W/\"x\"");
  weak.archived = true;
  auto early = Key("d/early", 8, "");
  early.modified = std::chrono::system_clock::time_point(std::chrono::seconds(-5));
  const auto s = SnapshotOf({plain, parts, weak, early}, "pre/fix/");
  EXPECT_EQ(s->store_identity(), "mem://test");
  EXPECT_EQ(s->prefix(), "pre/fix/");
  EXPECT_EQ(s->total_bytes(), 26U);
  const DirIndex d = s->Lookup(kRoot, "d")->index;
  const auto get = [&](std::string_view name) { return s->file(s->Lookup(d, name)->index); };
  EXPECT_EQ(get("plain").etag, get("plain").etag);
  EXPECT_EQ(get("plain").etag, "0123456789abcdef0123456789abcdef");
  EXPECT_EQ(get("plain").mtime_ns, 1234567890123456789);
  EXPECT_EQ(get("plain").version_id, "");
  EXPECT_FALSE(get("plain").archived);
  EXPECT_EQ(get("parts").etag, "0123456789abcdef0123456789abcdef-4294967295");
  EXPECT_EQ(get("parts").version_id, parts.version.version_id);
  EXPECT_EQ(get("parts").mtime_ns, 0);
  EXPECT_EQ(get("weak").etag, "W/\"x\"");
  EXPECT_TRUE(get("weak").archived);
  EXPECT_TRUE(get("early").etag.empty());
  EXPECT_EQ(get("early").mtime_ns, -5'000'000'000);
  EXPECT_EQ(s->KeyOfFile(s->Lookup(d, "weak")->index), "pre/fix/d/weak");
  const FileInfo kept = get("plain");
  const FileInfo copy = kept;  // its etag's text is its own
  EXPECT_EQ(std::string(copy.etag), std::string(kept.etag));
}

TEST(Snapshot, EtagsThatOnlyLookLikeDigestsComeBackAsTheyWere) {
  const std::string md5 = "0123456789abcdef0123456789abcdef";
  Strings etags = {md5.substr(1),
                   md5 + "-",
                   md5 + "-01",
                   md5 + "-0",
                   md5 + "-1 ",
                   md5 + "--1",
                   md5 + "-4294967296",
                   md5 + "x",
                   "0123456789ABCDEF0123456789ABCDEF",
                   "W/\"" + md5 + "\"",
                   md5 + md5,
                   std::string(40, '\xff'),
                   "x"};
  std::vector<store::ObjectInfo> objects;
  for (std::size_t i = 0; i < etags.size(); ++i) {
    objects.push_back(Key("f" + std::to_string(100 + i), 1, etags[i]));
  }
  const auto s = SnapshotOf(objects);
  for (FileIndex i = 0; i < s->file_count(); ++i) EXPECT_EQ(s->file(i).etag, etags[i]);
  EXPECT_TRUE(s->VerifyPin());
}

TEST(Snapshot, FolderMarkersAreFoldersAndNotInThePin) {
  const auto with = SnapshotOf({Key("", 0), Key("a/", 0), Key("a/b", 1), Key("empty/deep/", 0)});
  EXPECT_EQ(DirectoriesOf(*with), (Strings{"", "a", "empty", "empty/deep"}));
  EXPECT_EQ(PathsOf(*with), (Strings{"a/b"}));
  EXPECT_EQ(with->left_out().count, 0U);
  EXPECT_EQ(with->pin(), SnapshotOf({Key("a/b", 1)})->pin());
  EXPECT_EQ(with->child_count(with->Lookup(kRoot, "empty")->index), 1U);
}

TEST(Snapshot, TheFolderWinsOverTheFileOfItsName) {
  const auto s = SnapshotOf({Key("a", 1), Key("a-b", 1), Key("a/b", 1), Key("c", 1), Key("c/", 0),
                             Key("d/e", 1), Key("d/e/f/g", 1), Key("a!/x", 1)});
  EXPECT_EQ(PathsOf(*s), (Strings{"a!/x", "a-b", "a/b", "d/e/f/g"}));
  EXPECT_EQ(s->left_out().count, 3U);
  EXPECT_EQ(s->left_out().first_key, "a");
  EXPECT_EQ(s->left_out().first_why, "a file that is also a folder");
  EXPECT_TRUE(s->VerifyPin());
}

TEST(Snapshot, AKeyThatNoFileSystemHoldsHidesNothing) {
  const auto s = SnapshotOf(
      {Key("a", 1), Key("a//b", 1), Key("b", 1), Key("b/../c", 1), Key("c", 1), Key("c/./", 0)});
  EXPECT_EQ(PathsOf(*s), (Strings{"a", "b", "c"}));
  EXPECT_EQ(s->left_out().count, 3U);
}

TEST(Snapshot, WhatIsLeftOutIsCountedWithTheLeastKeyAndWhy) {
  const std::string long_name(300, 'n');
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"/lead", "an empty path component"},
      {"a//b", "an empty path component"},
      {"//", "an empty path component"},
      {"./a", "a path component \".\""},
      {"a/..", "a path component \"..\""},
      {"a/" + long_name + "/b", "a name of 300 bytes"},
      {std::string("a/\0b", 4), "a name with a zero byte"},
      {"folder/", "a folder that has contents"}};
  for (const auto& [key, why] : cases) {
    LeftOut told;
    const auto s = SnapshotOf({Key("z", 1), Key(key, 1)}, "p/", &told);
    EXPECT_EQ(told.count, 1U) << key;
    EXPECT_EQ(told.first_key, "p/" + key);
    EXPECT_EQ(told.first_why, why) << key;
    EXPECT_EQ(s->left_out().first_key, told.first_key);
    EXPECT_EQ(s->left_out().first_why, told.first_why);
    EXPECT_EQ(s->left_out().count, 1U);
    EXPECT_EQ(s->file_count(), 1U);
    EXPECT_TRUE(s->VerifyPin());
    EXPECT_NE(s->pin(), SnapshotOf({Key("z", 1)})->pin())
        << "the pin is over what the listing held";
  }
  const auto s = SnapshotOf({Key("b//", 0), Key("a//", 0), Key("folder/", 3)});
  EXPECT_EQ(s->left_out().count, 3U);
  EXPECT_EQ(s->left_out().first_key, "a//");
  EXPECT_EQ(DirectoriesOf(*s), (Strings{"", "folder"}));
}

TEST(Snapshot, NamesOfEveryByteButSlashAndZeroArriveAsTheyAre) {
  std::vector<store::ObjectInfo> objects;
  for (int b = 1; b < 256; ++b) {
    if (b != '/' && b != '.') objects.push_back(Key(std::string("d/") + static_cast<char>(b), 1));
  }
  objects.push_back(Key("\xf0\x9f\x98\x80/+ %?#&='\"\\/" + std::string(255, 'x'), 1));
  objects.push_back(Key("...", 1));
  const auto s = SnapshotOf(objects);
  ASSERT_EQ(s->file_count(), objects.size());
  EXPECT_EQ(s->left_out().count, 0U);
  for (const auto& o : objects) {
    const auto paths = PathsOf(*s);
    EXPECT_TRUE(std::ranges::find(paths, o.key) != paths.end());
  }
}

TEST(Snapshot, PathsLongerThanAnyPathMaxAreFine) {
  std::string key;
  for (int i = 0; i < 100; ++i) key += std::string(200, static_cast<char>('a' + i % 26)) + "/";
  key += "f";
  const auto s = SnapshotOf({Key(key, 1)});
  EXPECT_EQ(s->PathOfFile(0), key);
  EXPECT_EQ(s->directory_count(), 101U);
}

TEST(Snapshot, AnAwkwardPrefixOfASingleObjectIsTakenAsItIs) {
  const auto s = SnapshotOf({Key("c.bin", 3)}, "a//b/../");
  ASSERT_EQ(s->file_count(), 1U);
  EXPECT_EQ(s->PathOfFile(0), "c.bin");
  EXPECT_EQ(s->KeyOfFile(0), "a//b/../c.bin");
  EXPECT_EQ(SnapshotOf({Key("odd", 3)}, "//")->KeyOfFile(0), "//odd");
  EXPECT_EQ(SnapshotOf({Key("plain", 3)})->KeyOfFile(0), "plain");
}

TEST(Snapshot, ALaterEntryOfTheSameKeyReplacesTheEarlier) {
  const auto s = SnapshotOf({Key("a", 1, "e1"), Key("b", 1, "e2"), Key("a", 2, "e3")});
  ASSERT_EQ(s->file_count(), 2U);
  EXPECT_EQ(s->file(0).size, 2U);
  EXPECT_EQ(s->file(0).etag, "e3");
}

TEST(Builder, AKeyOutsideThePrefixAndAnImpossibleSizeAreRefused) {
  Builder builder("mem://test", "p/");
  EXPECT_EQ(builder.Add(Key("q/x", 1)).error().code(), Errc::kCorrupt);
  EXPECT_EQ(builder.Add(Key("p/x", UINT64_MAX)).error().code(), Errc::kCorrupt);
}

TEST(Builder, IsEmptyAfterWritingAndMayBeUsedAgain) {
  Builder builder("mem://test", "");
  ASSERT_TRUE(builder.Add(Key("a", 1)));
  const MemoryFile one, two;
  ASSERT_TRUE(builder.WriteTo(one.fd(), true, nullptr));
  ASSERT_TRUE(builder.Add(Key("b", 1)));
  ASSERT_TRUE(builder.WriteTo(two.fd(), false, nullptr));
  EXPECT_EQ(PathsOf(**Snapshot::Open(two.fd())), (Strings{"b"}));
}

TEST(Builder, AFileThatCannotBeWrittenIsAnError) {
  Builder builder("mem://test", "");
  const int fd = ::memfd_create("sealed", MFD_ALLOW_SEALING);
  ASSERT_EQ(::fcntl(fd, F_ADD_SEALS, F_SEAL_GROW), 0);
  EXPECT_EQ(builder.WriteTo(fd, false, nullptr).error().code(), Errc::kDenied);
  ::close(fd);
}

TEST(Pin, IsOverKeySizeAndEtagAlone) {
  const std::string pin = SnapshotOf({Key("a", 1, "e"), Key("b", 2, "f")})->pin();
  EXPECT_EQ(pin.size(), 67U);
  EXPECT_TRUE(pin.starts_with("mf:"));
  auto other = Key("a", 1, "e");
  other.modified = std::chrono::system_clock::now();
  other.version.version_id = "v";
  other.archived = true;
  EXPECT_EQ(SnapshotOf({Key("b", 2, "f"), other})->pin(), pin);
  EXPECT_EQ(SnapshotOf({Key("a", 1, "e"), Key("b", 2, "f")}, "elsewhere/")->pin(), pin);
  EXPECT_NE(SnapshotOf({Key("a", 1, "e"), Key("b", 3, "f")})->pin(), pin);
  EXPECT_NE(SnapshotOf({Key("a", 1, "e"), Key("b", 2, "g")})->pin(), pin);
  EXPECT_NE(SnapshotOf({Key("a", 1, "e"), Key("c", 2, "f")})->pin(), pin);
  EXPECT_NE(SnapshotOf({Key("a", 1, "e")})->pin(), pin);
}

TEST(Pin, IsWhatTheDocumentSays) {
  // sha256 over "leat manifest 1\n", then u32 3 "a/b", u64 258, u32 1 "e".
  const std::string bytes =
      std::string("leat manifest 1\n") + std::string("\3\0\0\0a/b\2\1\0\0\0\0\0\0\1\0\0\0e", 20);
  EXPECT_EQ(SnapshotOf({Key("a/b", 258, "e")})->pin(),
            "mf:" + ToHex(digest::HashSha256(AsBytes(bytes))));
}

TEST(Snapshot, EveryFlippedBitIsDetected) {
  const std::string whole =
      BytesOf({Key("a/b", 1), Key("a/c", 2, "text"), Key("d//", 1), Key("a", 1)}, "p/");
  for (std::size_t bit = 0; bit < whole.size() * 8; ++bit) {
    std::string bytes = whole;
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << (bit % 8)));
    const auto r = Snapshot::Open(MemoryFile(bytes).fd());
    ASSERT_FALSE(r) << "bit " << bit;
    EXPECT_EQ(r.error().code(), Errc::kCorrupt);
  }
}

TEST(Snapshot, ACutOrLongerFileIsDetected) {
  const std::string whole = BytesOf({Key("a/b", 1), Key("c", 2)}, "");
  for (std::size_t n = 0; n < whole.size(); ++n) {
    ASSERT_FALSE(Snapshot::Open(MemoryFile(whole.substr(0, n)).fd())) << n;
  }
  EXPECT_FALSE(Snapshot::Open(MemoryFile(whole + '\0').fd()));
}

// A reference: a map of keys, judged by the rules in the plainest way.
struct Model {
  std::map<std::string, store::ObjectInfo> files;
  std::set<std::string> dirs;  // paths without the last '/'
  std::uint64_t left_out = 0;

  static bool Legal(std::string key) {
    if (key.ends_with('/')) key.pop_back();
    for (std::size_t at = 0;;) {
      const std::size_t slash = key.find('/', at);
      const std::string part = key.substr(at, slash == std::string::npos ? slash : slash - at);
      if (part.empty() || part == "." || part == ".." || part.size() > 255 ||
          part.find('\0') != part.npos)
        return false;
      if (slash == std::string::npos) return true;
      at = slash + 1;
    }
  }
  explicit Model(const std::vector<store::ObjectInfo>& objects) {
    std::map<std::string, store::ObjectInfo> all;
    for (const auto& o : objects) all[o.key] = o;
    dirs.insert("");
    for (const auto& [key, o] : all) {
      if (!Legal(key)) continue;
      for (std::size_t at = key.find('/'); at != std::string::npos; at = key.find('/', at + 1))
        dirs.insert(key.substr(0, at));
    }
    for (const auto& [key, o] : all) {
      if (!Legal(key) || (key.ends_with('/') && o.size > 0) || dirs.contains(key))
        ++left_out;
      else if (!key.ends_with('/'))
        files[key] = o;
    }
  }
};

void ExpectEqual(const Snapshot& s, const Model& model) {
  ASSERT_EQ(s.file_count(), model.files.size());
  ASSERT_EQ(s.directory_count(), model.dirs.size());
  EXPECT_EQ(s.left_out().count, model.left_out);
  FileIndex i = 0;
  for (const auto& [key, o] : model.files) {
    ASSERT_EQ(s.PathOfFile(i), key);
    const FileInfo info = s.file(i);
    EXPECT_EQ(info.size, o.size);
    EXPECT_EQ(info.etag, o.version.etag);
    EXPECT_EQ(s.child(info.parent, s.PositionInDirectory(i)), (Child{false, i}));
    EXPECT_EQ(s.Lookup(info.parent, info.name), (Child{false, i}));
    EXPECT_TRUE(model.dirs.contains(s.PathOfDirectory(info.parent)));
    ++i;
  }
  std::uint64_t children = 1;
  std::vector<std::string> dirs;
  for (DirIndex d = 0; d < s.directory_count(); ++d) {
    EXPECT_TRUE(model.dirs.contains(s.PathOfDirectory(d)));
    if (d > 0) {
      dirs.push_back(s.PathOfDirectory(d) + "/");
      EXPECT_EQ(s.Lookup(s.directory_parent(d), s.directory_name(d)), (Child{true, d}));
    }
    std::string before;
    for (std::uint32_t c = 0; c < s.child_count(d); ++c, ++children) {
      const Child child = s.child(d, c);
      EXPECT_EQ(child.is_dir ? s.directory_parent(child.index) : s.file(child.index).parent, d);
      const std::string name(child.is_dir ? s.directory_name(child.index)
                                          : s.file(child.index).name);
      EXPECT_LT(before, name);
      EXPECT_EQ(s.Lookup(d, name + "\x01"), std::nullopt);
      before = name;
    }
  }
  EXPECT_TRUE(std::ranges::is_sorted(dirs));
  EXPECT_EQ(children, s.file_count() + s.directory_count());
  EXPECT_TRUE(s.VerifyPin());
}

TEST(Snapshot, RandomTreesAreWhatAPlainModelSaysInWhateverOrderTheyCame) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  const Strings parts = {"a",
                         "b",
                         "ab",
                         "a-",
                         "a.",
                         "a0",
                         "a!",
                         ".",
                         "..",
                         "",
                         "-",
                         "\xc3\xa9",
                         "z",
                         "aa",
                         std::string("a\0", 2),
                         std::string(1, '\0'),
                         "a-long-common-beginning",
                         "a-b",
                         "a-/b",
                         "/"};
  for (int round = 0; round < 300; ++round) {
    std::vector<store::ObjectInfo> objects;
    const std::size_t n = random() % 60;
    for (std::size_t i = 0; i < n; ++i) {
      std::string key = parts[random() % (random() % 8 == 0 ? parts.size() : 6)];
      for (std::size_t depth = random() % 4; depth > 0; --depth) {
        key += (random() % 5 == 0 ? "" : "/") +
               parts[random() % (random() % 8 == 0 ? parts.size() : 6)];
      }
      if (random() % 10 == 0) key += "/";
      if (key.empty()) key = "x";
      objects.push_back(Key(key, random() % 2, "e" + std::to_string(random() % 100)));
    }
    const auto bytes = BytesOf(objects, "");
    const auto s = Snapshot::Open(MemoryFile(bytes).fd());
    ASSERT_TRUE(s) << s.error().message();
    ExpectEqual(**s, Model(objects));
    if (HasFatalFailure()) return;

    std::map<std::string, store::ObjectInfo> last;
    for (const auto& o : objects) last[o.key] = o;
    std::vector<store::ObjectInfo> shuffled;
    for (const auto& [key, o] : last) shuffled.push_back(o);
    EXPECT_EQ(BytesOf(shuffled, ""), bytes);
    std::ranges::shuffle(shuffled, random);
    EXPECT_EQ(BytesOf(shuffled, ""), bytes);
  }
}

TEST(Snapshot, BlocksAreRangesThatOneMoreKeyDoesNotMove) {
  std::vector<store::ObjectInfo> objects;
  for (int i = 0; i < 20'000; ++i)
    objects.push_back(Key("d/" + std::to_string(1'000'000 + i * 7), 1));
  const auto s = SnapshotOf(objects);
  EXPECT_GT(s->block_count(), 12U);
  EXPECT_LT(s->block_count(), 28U);
  EXPECT_EQ(s->BlockFirstKey(0), "d/1000000");
  std::set<std::string> before, after;
  for (std::uint32_t b = 0; b < s->block_count(); ++b) before.insert(s->BlockFirstKey(b));
  objects.push_back(Key("d/1000001", 1));
  const auto t = SnapshotOf(objects);
  for (std::uint32_t b = 0; b < t->block_count(); ++b) after.insert(t->BlockFirstKey(b));
  std::vector<std::string> moved;
  std::ranges::set_symmetric_difference(before, after, std::back_inserter(moved));
  EXPECT_LE(moved.size(), 4U);
}

}  // namespace
}  // namespace leat::snapshot
