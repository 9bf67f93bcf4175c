#include "snapshot/lock_file.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <zstd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "base/bytes.h"
#include "os/file.h"
#include "snapshot/lock_entries.h"
#include "snapshot/test_snapshots.h"
#include "testing/source_root.h"
#include "testing/step_killer.h"

namespace leat::snapshot {
namespace {

namespace fs = std::filesystem;

using testing::Key;
using testing::SnapshotOf;

const std::string kMd5 = "0cc175b9c0f1b6a831c399e269772661";

LockedSource Object() {
  LockedSource s;
  s.name = "mnist";
  s.source = "s3://b/mnist.zip";
  s.endpoint = "https://s3.amazonaws.com";
  s.region = "eu-west-1";
  s.etag = kMd5;
  s.version_id = "3sL4kqtJlcpXroDTDmJ+rmSpXd3dIbrHY+MTRCxf3vjVBH40Nr8X8gdRQBpUMLUo";
  s.size = 123;
  s.digest = "md5:" + kMd5;
  s.expand = "zip";
  return s;
}
LockedSource Folder() {
  LockedSource s;
  s.name = "data/train \"ü\\日";
  s.source = "s3://b/train/question?mark/%41/";
  s.size = INT64_MAX;
  s.digest = "mf:c5542ac5cc34fc51b536dea795e48fa7008d8863f4cce10984a3bdf0802a8735";
  s.files = 0;
  return s;
}

TEST(LockFile, IsReadAsItWasWritten) {
  const LockFile lock{{Object(), Folder()}};
  const std::string text = EncodeLock(lock);
  EXPECT_EQ(text, R"({
  "leat-lock": 1,
  "sources": [
    {
      "name": "data/train \"ü\\日",
      "source": "s3://b/train/question?mark/%41/",
      "size": 9223372036854775807,
      "digest": "mf:c5542ac5cc34fc51b536dea795e48fa7008d8863f4cce10984a3bdf0802a8735",
      "files": 0
    },
    {
      "name": "mnist",
      "source": "s3://b/mnist.zip",
      "endpoint": "https://s3.amazonaws.com",
      "region": "eu-west-1",
      "etag": "0cc175b9c0f1b6a831c399e269772661",
      "versionId": "3sL4kqtJlcpXroDTDmJ+rmSpXd3dIbrHY+MTRCxf3vjVBH40Nr8X8gdRQBpUMLUo",
      "size": 123,
      "digest": "md5:0cc175b9c0f1b6a831c399e269772661",
      "expand": "zip"
    }
  ]
}
)");
  const auto read = DecodeLock(text);
  ASSERT_TRUE(read) << read.error().message();
  EXPECT_EQ(read->sources, (std::vector{Folder(), Object()}));
  EXPECT_EQ(EncodeLock({}), "{\n  \"leat-lock\": 1,\n  \"sources\": []\n}\n");
  EXPECT_TRUE(DecodeLock(EncodeLock({}))->sources.empty());
}

TEST(LockFile, WhatAMergeLeftInAnotherOrderIsReadAll) {
  const auto read = DecodeLock(R"( {"sources":[{"size":1,"source":"b","name":"b"},
      {"name":"a","source":"a","size":2}],
      "leat-lock":1}
  )");
  ASSERT_TRUE(read) << read.error().message();
  ASSERT_EQ(read->sources.size(), 2u);
  EXPECT_EQ(read->sources[0].name, "a");
}

/// A lock of one source with `more` behind its name, source and size.
std::string With(const std::string& more) {
  return R"({"leat-lock":1,"sources":[{"name":"n","source":"s","size":1)" + more + "}]}";
}

TEST(LockFile, WhatIsNotExactlyOneIsRefusedWithASentence) {
  ASSERT_TRUE(DecodeLock(With("")));
  const std::string one = R"({"name":"n","source":"s","size":1})";
  const std::string hex(64, 'a');
  const struct {
    std::string text, part;
  } cases[] = {
      {"", "no JSON object"},
      {"[]", "no JSON object"},
      {"null", "no JSON object"},
      {std::string("\0", 1), "no JSON object"},
      {With("") + "x", "no JSON object"},
      {With("\xff"), "no JSON object"},
      {With(",\"region\":\"\xff\""), "no JSON object"},
      {std::string(1'000'000, '['), "no JSON object"},
      {With(",\"size\":2"), "a key twice"},
      {R"({"leat-lock":1,"leat-lock":1,"sources":[]})", "a key twice"},
      {R"({"sources":[]})", "no \"leat-lock\""},
      {R"({"leat-lock":2,"sources":[],"more":[]})", "version"},
      {R"({"leat-lock":"1","sources":[]})", "version"},
      {R"({"leat-lock":1.0,"sources":[]})", "version"},
      {R"({"leat-lock":-1,"sources":[]})", "version"},
      {R"({"leat-lock":1})", "no list of sources"},
      {R"({"leat-lock":1,"sources":{}})", "no list of sources"},
      {R"({"leat-lock":1,"sources":[],"more":1})", "does not know \"more\""},
      {R"({"leat-lock":1,"sources":[1]})", "a source is no object"},
      {R"({"leat-lock":1,"sources":[[]]})", "a source is no object"},
      {R"({"leat-lock":1,"sources":[)" + one + "," + one + "]}", "\"n\" is there twice"},
      {R"({"leat-lock":1,"sources":[{"source":"s","size":1}]})", "no name"},
      {R"({"leat-lock":1,"sources":[{"name":"n","size":1}]})", "no source"},
      {R"({"leat-lock":1,"sources":[{"name":"n","source":"s"}]})", "no size"},
      {With(R"(,"etag":"")"), "is empty"},
      {With(R"(,"etag":5)"), "\"etag\" of a source is no text"},
      {With(R"(,"etag":null)"), "no text"},
      {With(R"(,"etag":["e"])"), "no text"},
      {With(R"(,"versionid":"v")"), "does not know \"versionid\""},
      {With(R"(,"region":"a\nb")"), "control character"},
      {With(R"(,"region":"a\u0000b")"), "control character"},
      {With(R"(,"region":"a\u007f")"), "control character"},
      {With(R"(,"files":"1")"), "\"files\" is no number"},
      {With(R"(,"files":1)"), "counts files without"},
      {With(R"(,"files":1,"digest":"md5:)" + kMd5 + "\""), "counts files without"},
      {With(R"(,"files":2147483648,"digest":"mf:)" + hex + "\""), "too many files"},
      {With(R"(,"digest":"md5:)" + hex + "\""), "its digest"},
      {With(R"(,"digest":"sha1:)" + hex + "\""), "its digest"},
      {With(R"(,"digest":"mf:)" + hex.substr(1) + "\""), "its digest"},
      {With(R"(,"digest":"mf:)" + hex.substr(1) + "A\""), "its digest"},
      {With(R"(,"digest":"crc32c:123456789")"), "its digest"},
      {With(R"(,"digest":"x")"), "its digest"},
      {With(R"(,"digest":"mf:)" + hex + R"(","etag":"e")"), "a folder has no etag"},
      {With(R"(,"endpoint":"s3.amazonaws.com")"), "its endpoint"},
      {With(R"(,"endpoint":"https://u:p@h")"), "no secret"},
      {With(R"(,"endpoint":"https://h/?a=b")"), "its endpoint"},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.text.substr(0, 300));
    const auto read = DecodeLock(c.text);
    ASSERT_FALSE(read);
    EXPECT_EQ(read.error().code(), Errc::kCorrupt);
    EXPECT_NE(read.error().message().find(c.part), std::string::npos) << read.error().message();
  }
  for (const std::string size : {"-1", "1.5", "1e3", "\"1\"", "9223372036854775808",
                                 "18446744073709551616", "null", "true"}) {
    const auto read =
        DecodeLock(R"({"leat-lock":1,"sources":[{"name":"n","source":"s","size":)" + size + "}]}");
    ASSERT_FALSE(read) << size;
    EXPECT_EQ(read.error().code(), Errc::kCorrupt);
  }
  const std::string good = EncodeLock({{Object(), Folder()}});
  for (std::size_t i = 0; i + 2 < good.size(); ++i)
    EXPECT_FALSE(DecodeLock(good.substr(0, i))) << i;
}

TEST(LockFile, ASecretIsNeitherReadNorWrittenNorRepeated) {
  for (const std::string source :
       {"https://b.s3.amazonaws.com/k?X-Amz-Algorithm=A&X-Amz-Signature=topsecret",
        "https://a.blob.core.windows.net/c/k?sv=2020&sig=topsecret", "https://u:topsecret@h/k",
        "http://topsecret@h", "s3://topsecret:x@b/k"}) {
    SCOPED_TRACE(source);
    LockedSource s = Object();
    s.source = source;
    const auto read = DecodeLock(EncodeLock({{s}}));
    ASSERT_FALSE(read);
    EXPECT_EQ(read.error().code(), Errc::kCorrupt);
    const auto written = WriteLock("/nonexistent/lock", {{s}});
    ASSERT_FALSE(written);
    EXPECT_EQ(written.error().code(), Errc::kInvalid);
    for (const std::string& message : {read.error().message(), written.error().message()}) {
      EXPECT_NE(message.find("no secret"), std::string::npos) << message;
      EXPECT_EQ(message.find("topsecret"), std::string::npos) << message;
    }
  }
  for (const std::string source : {"s3://b/a@b/image@2x.png", "https://h/k?download=1&v=2"}) {
    LockedSource s = Object();
    s.source = source;
    EXPECT_TRUE(DecodeLock(EncodeLock({{s}}))) << source;
  }
}

// ---------------------------------------------------------------- files

class LockFileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char path[] = "/tmp/leat-lock-test-XXXXXX";
    dir_ = ::mkdtemp(path);
    lock_ = dir_ + "/leat.lock";
  }
  void TearDown() override { ASSERT_TRUE(os::RemoveTree(dir_)); }
  std::string FileOf(const std::string& mf) { return lock_ + ".d/" + mf.substr(3) + ".zst"; }

  std::string dir_, lock_;
};

/// Of all kinds: what no file system holds, folders' markers, etags that are no MD5s.
std::vector<store::ObjectInfo> Tree() {
  std::vector<store::ObjectInfo> objects = {
      Key("train/0/1.png", 784),
      Key("train/0/\xf0\x9f\x98\x80 +%?#&='\"\\.png", 1, kMd5 + "-12"),
      Key("train-0", 5, "W/\"weak\""),
      Key("train.txt", 6, ""),
      Key("train", 7),
      Key("train/", 0),
      Key("a//b", 8),
      Key("..", 9, "-"),
      Key("full/", 10),
      Key("", 11),
      Key("-", 12),
      Key("new\nline", 0),
      Key("latin-\xfc\xff.bin", 13),
      Key(std::string("nul\0byte", 8), 14),
      Key(std::string(300, 'n'), INT64_C(1) << 40)};
  for (std::size_t i = 0; i < objects.size(); i += 2)
    objects[i].version.version_id = "v " + std::to_string(i);
  return objects;
}

TEST_F(LockFileTest, EntriesOfASnapshotHaveItsPinAndMakeItAgain) {
  const auto before = SnapshotOf(Tree(), "pre/fix/");
  ASSERT_GT(before->left_out().count, 3u);
  const auto entries = EntriesOf(*before);
  EXPECT_EQ(entries.size(), Tree().size() - 1) << "all but the marker";
  EXPECT_EQ(PinOf(entries), before->pin());
  const Status written = WriteLockedEntries(lock_, before->pin(), entries);
  ASSERT_TRUE(written) << written.error().message();
  const auto read = ReadLockedEntries(lock_, before->pin());
  ASSERT_TRUE(read) << read.error().message();
  EXPECT_EQ(*read, entries);

  Builder builder("mem://elsewhere", "other/prefix/");
  ASSERT_TRUE(AddEntries(*read, "other/prefix/", builder));
  const testing::MemoryFile file;
  ASSERT_TRUE(builder.WriteTo(file.fd(), false, nullptr));
  const auto again = *Snapshot::Open(file.fd());
  EXPECT_EQ(again->pin(), before->pin());
  EXPECT_TRUE(again->VerifyPin());
  ASSERT_EQ(again->file_count(), before->file_count());
  bool some = false;
  for (FileIndex i = 0; i < again->file_count(); ++i) {
    EXPECT_EQ(again->PathOfFile(i), before->PathOfFile(i));
    EXPECT_EQ(again->KeyOfFile(i), "other/prefix/" + before->PathOfFile(i));
    EXPECT_EQ(again->file(i).size, before->file(i).size);
    EXPECT_EQ(again->file(i).etag, before->file(i).etag);
    EXPECT_EQ(again->file(i).version_id, before->file(i).version_id);
    some |= !again->file(i).version_id.empty();
  }
  EXPECT_TRUE(some);
  EXPECT_EQ(again->left_out().count, before->left_out().count);
  EXPECT_TRUE(Compare(*read, *again).empty());
}

TEST_F(LockFileTest, EntriesAreTheSameBytesInWhateverOrderTheyCome) {
  const auto entries = EntriesOf(*SnapshotOf(Tree()));
  const std::string mf = PinOf(entries);
  ASSERT_TRUE(WriteLockedEntries(lock_, mf, entries));
  const std::string bytes = *os::ReadFile(FileOf(mf));
  struct stat before{}, after{};
  ASSERT_EQ(::stat(FileOf(mf).c_str(), &before), 0);
  EXPECT_EQ(before.st_mode & 0444, 0444u) << "whoever has the repository may read it";
  ASSERT_TRUE(WriteLockedEntries(lock_, mf, {entries.rbegin(), entries.rend()}));
  ASSERT_EQ(::stat(FileOf(mf).c_str(), &after), 0);
  EXPECT_EQ(before.st_ino, after.st_ino) << "what is there is not written again";
  ASSERT_TRUE(os::WriteFileAtomic(FileOf(mf), bytes.substr(1)));
  ASSERT_TRUE(WriteLockedEntries(lock_, mf, entries));
  EXPECT_EQ(*os::ReadFile(FileOf(mf)), bytes) << "what is damaged is";
  // The same contents under other versions have the same digest.
  std::vector<LockedEntry> newer = entries;
  newer.back().version_id = "newer";
  ASSERT_TRUE(WriteLockedEntries(lock_, mf, newer));
  EXPECT_EQ(*ReadLockedEntries(lock_, mf), newer);
}

TEST_F(LockFileTest, WhatIsMissingOrDoesNotFitIsToldApart) {
  EXPECT_EQ(ReadLock(lock_).error().code(), Errc::kNotFound);
  ASSERT_TRUE(WriteLock(lock_, {{Object()}}));
  EXPECT_EQ(ReadLock(lock_)->sources, std::vector{Object()});
  ASSERT_TRUE(os::WriteFileAtomic(lock_, "<<<<<<< HEAD\n"));
  const auto merged = ReadLock(lock_);
  ASSERT_FALSE(merged);
  EXPECT_EQ(merged.error().code(), Errc::kCorrupt);
  EXPECT_TRUE(merged.error().message().starts_with(lock_)) << merged.error().message();

  const std::vector<LockedEntry> entries = {{.key = "a", .size = 1, .etag = "e", .version_id = {}}};
  const std::string mf = PinOf(entries);
  EXPECT_EQ(ReadLockedEntries(lock_, mf).error().code(), Errc::kNotFound);
  for (const std::string& wrong : {std::string(), std::string("mf:../x"), "mf:" + mf, "MF:" + mf,
                                   PinOf({}), mf.substr(0, 66) + "G"}) {
    EXPECT_EQ(WriteLockedEntries(lock_, wrong, entries).error().code(), Errc::kInvalid) << wrong;
  }
  EXPECT_EQ(ReadLockedEntries(lock_, "mf:../../x").error().code(), Errc::kInvalid);
  ASSERT_TRUE(WriteLockedEntries(lock_, mf, entries));
  ASSERT_TRUE(os::WriteFileAtomic(FileOf(PinOf({})), *os::ReadFile(FileOf(mf))));
  const auto other = ReadLockedEntries(lock_, PinOf({}));
  ASSERT_FALSE(other);
  EXPECT_EQ(other.error().code(), Errc::kCorrupt);
  EXPECT_TRUE(other.error().message().starts_with(FileOf(PinOf({})))) << other.error().message();
  for (const auto& bad :
       {std::vector<LockedEntry>{{.key = "d/", .etag = {}, .version_id = {}}},
        std::vector<LockedEntry>{{.key = "a", .size = UINT64_MAX, .etag = {}, .version_id = {}}},
        std::vector<LockedEntry>{entries[0], entries[0]}}) {
    EXPECT_EQ(WriteLockedEntries(lock_, PinOf(bad), bad).error().code(), Errc::kInvalid);
  }
  ASSERT_TRUE(WriteLockedEntries(lock_, PinOf({}), {})) << "of an empty folder";
  EXPECT_TRUE(ReadLockedEntries(lock_, PinOf({}))->empty());
}

std::string Compressed(const std::string& text) {
  std::string out(ZSTD_compressBound(text.size()), '\0');
  out.resize(ZSTD_compress(out.data(), out.size(), text.data(), text.size(), 3));
  return out;
}

TEST(LockedEntries, WhatIsNotExactlyOneListIsRefused) {
  const auto entries = EntriesOf(*SnapshotOf(Tree()));
  const std::string mf = PinOf(entries);
  const std::string good = *EncodeEntries(entries);
  ASSERT_TRUE(DecodeEntries(good, mf));
  for (std::size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ 1);
    const auto read = DecodeEntries(bad, mf);
    // (a bit of zstd's header means nothing to it)
    if (read) {
      EXPECT_EQ(*read, entries) << i;
    }
    const auto cut = DecodeEntries(good.substr(0, i), mf);
    ASSERT_FALSE(cut) << i;
    EXPECT_EQ(cut.error().code(), Errc::kCorrupt);
  }
  EXPECT_FALSE(DecodeEntries(good + good, mf));
  EXPECT_FALSE(DecodeEntries(good + std::string(1, '\0'), mf));
  const std::string head = "leat-entries 1\n";
  const std::vector<LockedEntry> one = {{.key = "a", .size = 1, .etag = "e", .version_id = "v"}};
  ASSERT_EQ(*DecodeEntries(Compressed(head + "1 e v a\n"), PinOf(one)), one);
  for (const std::string& text : {std::string(),
                                  head,
                                  std::string("leat-entries 1"),
                                  std::string("leat-entries 2\n1 e v a\n"),
                                  std::string("1 e v a\n"),
                                  head + "1 e v a",
                                  head + "1 e v a\n\n",
                                  head + "01 e v a\n",
                                  head + "+1 e v a\n",
                                  head + "1 e  v a\n",
                                  head + "1 e v a \n",
                                  head + "1 e v\n",
                                  head + "1 e v a b\n",
                                  head + "1 %65 v a\n",
                                  head + "1 e v %61\n",
                                  head + "1 e v a\r\n",
                                  head + "1 e v a\n1 e v a\n",
                                  head + "1 e v b\n1 e v a\n",
                                  head + "0 e v a/\n",
                                  head + "0 e v -\n",
                                  head + "9223372036854775808 e v a\n",
                                  head + "1 e v " + std::string(2'000'000, 'a') + "\n"}) {
    SCOPED_TRACE(text.substr(0, 60));
    const auto read = DecodeEntries(Compressed(text), PinOf(one));
    ASSERT_FALSE(read);
    EXPECT_EQ(read.error().code(), Errc::kCorrupt);
  }
}

TEST(LockedEntries, ABombIsDefused) {
  // A line that does not end, and one that comes again and again.
  for (const std::string& text :
       {std::string("leat-entries 1\n1 e v ") + std::string(300 << 20, 'a'), [] {
          std::string lines = "leat-entries 1\n";
          while (lines.size() < 100u << 20) lines += "1 e v a\n";
          return lines;
        }()}) {
    const auto read = DecodeEntries(Compressed(text), PinOf({}));
    ASSERT_FALSE(read);
    EXPECT_EQ(read.error().code(), Errc::kCorrupt);
  }
}

TEST(LockedEntries, TheTextIsReadInPiecesOfAnySize) {
  const std::vector<LockedEntry> entries = {
      {.key = "-", .size = 0, .etag = "", .version_id = "null"},
      {.key = "a b", .size = 7, .etag = "-", .version_id = ""}};
  const std::string text = "leat-entries 1\n0 - null %2D\n7 %2D - a%20b\n";
  for (std::size_t step = 1; step <= text.size(); ++step) {
    EntryTextReader reader;
    for (std::size_t i = 0; i < text.size(); i += step)
      ASSERT_TRUE(reader.Feed(std::string_view(text).substr(i, step)));
    const auto read = reader.Finish(PinOf(entries));
    ASSERT_TRUE(read) << read.error().message();
    EXPECT_EQ(*read, entries);
  }
}

TEST(LockDifference, NamesWhatWasAddedRemovedAndChanged) {
  const auto locked =
      EntriesOf(*SnapshotOf({Key("a"), Key("b"), Key("c", 3), Key("d", 4), Key("..")}));
  std::vector<store::ObjectInfo> now = {Key("A\n"),           Key("b"), Key("c", 4),
                                        Key("d", 4, "other"), Key("e"), Key("..", 2)};
  now[1].version.version_id = "another, of the same bytes";
  const LockDifference difference = Compare(locked, *SnapshotOf(now));
  EXPECT_EQ(difference.added, (std::vector<std::string>{"A\n", "e"}));
  EXPECT_EQ(difference.removed, (std::vector<std::string>{"a"}));
  EXPECT_EQ(difference.changed, (std::vector<std::string>{"..", "c", "d"}));
  EXPECT_EQ(difference.Describe(), "2 added (A\\x0a e), 1 removed (a), 3 changed (.. c d)");
  EXPECT_EQ(LockDifference().Describe(), "nothing");
  LockDifference many;
  for (int i = 0; i < 1234; ++i) many.changed.push_back(std::to_string(i));
  EXPECT_EQ(many.Describe(), "1,234 changed (0 1 2 3 4 5 6 7 8 9 ...)");
}

TEST_F(LockFileTest, KilledAtAnyStepItIsTheOldOneOrTheNewOne) {
  const auto old_entries = EntriesOf(*SnapshotOf({Key("a"), Key("b")}));
  const auto new_entries = EntriesOf(*SnapshotOf(Tree()));
  const auto lock_of = [](const std::vector<LockedEntry>& entries) {
    LockedSource folder = Folder();
    folder.digest = PinOf(entries);
    return LockFile{{folder}};
  };
  const auto write = [&](const std::vector<LockedEntry>& entries) {
    return WriteLockedEntries(lock_, PinOf(entries), entries).has_value() &&
           WriteLock(lock_, lock_of(entries)).has_value();
  };
  ASSERT_TRUE(write(old_entries));
  bool seen_old = false, seen_new = false;
  for (int step = 0;; ++step) {
    ASSERT_TRUE(os::RemoveTree(lock_ + ".d"));
    ASSERT_TRUE(write(old_entries));
    const bool killed = leat::testing::KilledAtStep(step, [&] { (void)write(new_entries); });
    const auto lock = ReadLock(lock_);
    ASSERT_TRUE(lock) << lock.error().message();
    const bool is_old = lock->sources == lock_of(old_entries).sources;
    ASSERT_TRUE(is_old || lock->sources == lock_of(new_entries).sources) << step;
    const auto entries = ReadLockedEntries(lock_, lock->sources[0].digest);
    ASSERT_TRUE(entries) << step << ": " << entries.error().message();
    EXPECT_EQ(*entries, is_old ? old_entries : new_entries);
    (is_old ? seen_old : seen_new) = true;
    if (!killed) break;
  }
  EXPECT_TRUE(seen_old && seen_new);
}

// ---------------------------------------------------------------- golden files

fs::path Golden() { return leat::testing::SourceRoot() / "tests/golden/lock/v1"; }

/// Today's lock of all kinds of sources, and the entries of its folder.
std::pair<LockFile, std::vector<LockedEntry>> GoldenLock() {
  const auto entries = EntriesOf(*SnapshotOf(Tree()));
  LockedSource folder = Folder();
  folder.digest = PinOf(entries);
  folder.files = entries.size();
  LockedSource plain;
  plain.name = "http";
  plain.source = "https://example.com/data%20set.tar.gz?download=1";
  plain.etag = "W/\"weak\"";
  plain.size = 0;
  plain.digest = "crc32c:00000000";
  plain.expand = "tar.gz";
  LockedSource bare;
  bare.name = "-";
  bare.source = "/data/x";
  return {{{Object(), folder, plain, bare}}, entries};
}

TEST(GoldenLock, FilesOfVersionOneAreReadAndWrittenTheSame) {
  const auto [lock, entries] = GoldenLock();
  std::string dir = Golden();
  if (const char* elsewhere = std::getenv("LEAT_WRITE_GOLDEN")) {
    dir = elsewhere;
    ASSERT_TRUE(WriteLockedEntries(dir + "/sources.lock", PinOf(entries), entries));
    ASSERT_TRUE(WriteLock(dir + "/sources.lock", lock));
    ASSERT_TRUE(WriteLock(dir + "/empty.lock", {}));
  }
  const auto read = ReadLock(dir + "/sources.lock");
  ASSERT_TRUE(read) << read.error().message();
  auto sorted = lock.sources;
  std::ranges::sort(sorted, {}, &LockedSource::name);
  EXPECT_EQ(read->sources, sorted);
  EXPECT_EQ(EncodeLock(*read), *os::ReadFile(dir + "/sources.lock"));
  EXPECT_EQ(EncodeLock(*ReadLock(dir + "/empty.lock")), *os::ReadFile(dir + "/empty.lock"));
  const auto folder = std::ranges::find_if(
      read->sources, [](const LockedSource& s) { return s.digest.starts_with("mf:"); });
  ASSERT_NE(folder, read->sources.end());
  EXPECT_EQ(folder->digest, "mf:ca223460100c037f8aa9eacd644da965276f8d8cc318277dc3a3f501d4793b75");
  const auto there = ReadLockedEntries(dir + "/sources.lock", folder->digest);
  ASSERT_TRUE(there) << there.error().message();
  EXPECT_EQ(*there, entries);
}

}  // namespace
}  // namespace leat::snapshot
