#include "archive/expand.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <thread>

#include "archive/test_tools.h"
#include "base/bytes.h"
#include "store/forwarding_store.h"
#include "store/memory/memory_store.h"
#include "testing/fault_store.h"

namespace leat::archive {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

/// Every path with its kind, mode, size, time and contents.
std::map<std::string, std::string> Tree(const std::string& dir) {
  std::map<std::string, std::string> out;
  for (const auto& entry : fs::recursive_directory_iterator(dir)) {
    struct stat st;
    EXPECT_EQ(::lstat(entry.path().c_str(), &st), 0);
    std::string what;
    if (S_ISLNK(st.st_mode)) {
      what = "link " + fs::read_symlink(entry.path()).string();
    } else if (S_ISDIR(st.st_mode)) {
      what = "folder";
    } else {
      std::ifstream in(entry.path(), std::ios::binary);
      what = "file " + std::string(std::istreambuf_iterator<char>(in), {});
    }
    const bool executable = (st.st_mode & 0111) != 0 && S_ISREG(st.st_mode);
    what += (executable ? " executable " : " ") + std::to_string(st.st_mtim.tv_sec);
    out[fs::relative(entry.path(), dir).string()] = what;
  }
  return out;
}

class WithoutRanges final : public store::ForwardingStore {
 public:
  using ForwardingStore::ForwardingStore;
  store::Capabilities capabilities() const override {
    auto out = inner().capabilities();
    out.ranges = false;
    return out;
  }
};

/// A web server that knows no ranges, as its store shows it.
class ComesWhole final : public store::ForwardingStore {
 public:
  using ForwardingStore::ForwardingStore;
  Status Read(std::string_view key, const store::ReadOptions& options, const store::Sink& sink,
              const CallContext& ctx) override {
    store::ReadOptions changed = options;
    changed.on_info = [&](store::ObjectInfo info) {
      info.comes_whole = options.offset > 0 || options.length != UINT64_MAX;
      return options.on_info ? options.on_info(info) : Status();
    };
    return ForwardingStore::Read(
        key, changed,
        [&](std::span<const std::byte> bytes) -> Status {
          sent += options.offset + bytes.size();  // (all in front of it has come, too)
          return sink(bytes);
        },
        ctx);
  }
  std::atomic<std::uint64_t> sent{0};
};

class ExpandTest : public ::testing::Test {
 protected:
  ExpandTest() {
    auto faults = std::make_unique<testing::FaultStore>(store::memory::MakeMemoryStore("s3://b"));
    faults_ = faults.get();
    options_.store = std::move(faults);
    options_.dir = folder_ / "out";
    options_.budget = &budget_;
    fs::create_directory(options_.dir);
  }

  /// What is in the folder's file becomes the object.
  void Put(const std::string& name) { PutBytes(name, folder_.Read(name)); }
  void PutBytes(const std::string& name, std::string_view bytes) {
    ASSERT_TRUE(options_.store->Put(name, AsBytes(bytes), {}, {}));
    auto info = options_.store->Stat(name, "", {});
    ASSERT_TRUE(info);
    options_.object = *info;
    options_.source = "s3://b/" + name;
  }
  Result<Expanded> Run(const CallContext& ctx = {}) {
    auto out = Expand(options_, ctx);
    EXPECT_EQ(budget_.used(), 0U);
    return out;
  }
  Expanded Good() {
    auto out = Run();
    EXPECT_TRUE(out) << out.error().message();
    return out ? *out : Expanded();
  }
  Error Bad() {
    auto out = Run();
    EXPECT_FALSE(out);
    return out ? Error(Errc::kInternal, "it was expanded") : out.error();
  }
  /// A tar of members as Python's tarfile is told: `lines` call add(name, ...).
  Error BadTar(std::string_view lines) {
    MakeTar(lines);
    return Bad();
  }
  void MakeTar(std::string_view lines) {
    folder_.Python(std::string(R"(
import tarfile, io
t = tarfile.open("t.tar", "w", format=tarfile.PAX_FORMAT)
def add(name, data=b"data", type=tarfile.REGTYPE, link="", mode=0o644):
    i = tarfile.TarInfo("x")
    i.name, i.type, i.linkname, i.mode = name, type, link, mode
    i.size = len(data) if type == tarfile.REGTYPE else 0
    t.addfile(i, io.BytesIO(data))
def symlink(name, to): add(name, type=tarfile.SYMTYPE, link=to)
def hard(name, to): add(name, type=tarfile.LNKTYPE, link=to)
def folder(name): add(name, type=tarfile.DIRTYPE)
)") + std::string(lines) +
                   "\nt.close()\n");
    Put("t.tar");
  }
  void MakeZip(std::string_view lines) {
    folder_.Python(std::string(R"(
import zipfile
z = zipfile.ZipFile("t.zip", "w", zipfile.ZIP_DEFLATED)
def add(name, data="data", mode=0o100644):
    i = zipfile.ZipInfo(name, (2001, 2, 3, 4, 5, 6))
    i.compress_type = zipfile.ZIP_DEFLATED
    i.filename, i.external_attr, i.create_system = name, mode << 16, 3
    z.writestr(i, data)
)") + std::string(lines) +
                   "\nz.close()\n");
    Put("t.zip");
  }
  /// A tree with all that an honest archive has.
  void MakeHonest() {
    folder_.Write("words", Words(3'000'000));
    folder_.Run(R"(mkdir -p in/a/deep/er in/b/empty
      for i in $(seq 200); do head -c $((i * 97)) words >in/a/$i; done
      cp words in/large; cp words in/a/deep/er/large; : >in/none; printf '#!/bin/sh' >in/b/run; chmod 755 in/b/run
      ln -s ../a/1 in/b/link; ln -s a/deep in/short; ln -s nowhere in/dangling
      find in -exec touch -h -d @1500000000 {} +)");
  }
  std::string Out(const std::string& name) { return folder_.Read("out/" + name); }
  bool Empty() const { return fs::is_empty(options_.dir); }

  TestFolder folder_;
  MemoryBudget budget_{256 * kMiB};
  ExpandOptions options_;
  testing::FaultStore* faults_ = nullptr;
};

struct Format {
  const char* name;
  const char* command;  // makes it of what is in "in", within that
};
void PrintTo(const Format& format, std::ostream* out) { *out << format.name; }
class ExpandOf : public ExpandTest, public ::testing::WithParamInterface<Format> {};

TEST_P(ExpandOf, GivesTheTreeThatWasPacked) {
  MakeHonest();
  folder_.Run(std::string("cd in; ") + GetParam().command);
  Put(GetParam().name);
  const Expanded done = Good();
  EXPECT_TRUE(Tree(folder_ / "in") == Tree(options_.dir));
  EXPECT_EQ(done.files, 204U);
  EXPECT_EQ(done.links, 3U);
  EXPECT_EQ(done.directories, 5U);
  EXPECT_EQ(done.resumed_bytes, 0U);
  EXPECT_TRUE(done.notes.empty());
  struct stat st;
  ASSERT_EQ(::stat((options_.dir + "/b/run").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0555U);
  ASSERT_EQ(::stat((options_.dir + "/large").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0444U);
  ASSERT_EQ(::stat((options_.dir + "/b").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0755U);
}

TEST_P(ExpandOf, GoesOnWhereAnEarlierAttemptWasCutOff) {
  MakeHonest();
  folder_.Run(std::string("cd in; ") + GetParam().command);
  Put(GetParam().name);
  options_.budget = nullptr;
  Good();
  // Half of it is not finished, as a kill leaves it.
  folder_.Run("cd out; rm -rf a/1* b; chmod 600 large a/2; printf x >a/2");
  const Expanded done = Good();
  EXPECT_TRUE(Tree(folder_ / "in") == Tree(options_.dir));
  EXPECT_EQ(done.files, 204U);
  EXPECT_GT(done.resumed_bytes, 3'000'000U);
  EXPECT_LT(done.resumed_bytes, done.bytes - 3'000'000U);
}

TEST_P(ExpandOf, SaysThatItBreaksOff) {
  MakeHonest();
  folder_.Run(std::string("cd in; ") + GetParam().command);
  const std::string whole = folder_.Read(GetParam().name);
  PutBytes(GetParam().name, std::string_view(whole).substr(0, whole.size() / 2));
  const Error error = Bad();
  EXPECT_EQ(error.code(), Errc::kCorrupt) << error.message();
  EXPECT_THAT(error.message(), ::testing::StartsWith(options_.source));
}

TEST_P(ExpandOf, KeepsToItsLimitOfBytes) {
  MakeHonest();
  folder_.Run(std::string("cd in; ") + GetParam().command);
  Put(GetParam().name);
  options_.limit_bytes = 4'000'000;
  options_.limit_name = "the volume's size";
  const Error error = Bad();
  EXPECT_EQ(error.code(), Errc::kNoSpace) << error.message();
  EXPECT_THAT(error.message(), HasSubstr("the volume's size is 4.0 MB"));
  std::uint64_t sum = 0;
  for (const auto& entry : fs::recursive_directory_iterator(options_.dir))
    if (entry.is_regular_file()) sum += entry.file_size();
  EXPECT_LE(sum, 4'000'000U);
}

INSTANTIATE_TEST_SUITE_P(
    Formats, ExpandOf,
    ::testing::Values(Format{"t.tar", "tar -cf ../t.tar ."},
                      Format{"t.tgz", "tar -cf - -- * | gzip -1 >../t.tgz"},
                      Format{"t.tar.bz2", "tar -cf - . | bzip2 -1 >../t.tar.bz2"},
                      Format{"t.tar.xz", "tar -cf - . | xz -0 >../t.tar.xz"},
                      Format{"t.tar.zst", "tar -cf - . | zstd -q >../t.tar.zst"},
                      Format{"t.tar.lz4", "tar -cf - . | lz4 -q >../t.tar.lz4"},
                      Format{"t.zip", "zip -q -y -1 -r ../t.zip ."},
                      Format{"bz.zip", "zip -q -y -Z bzip2 -r ../bz.zip ."},
                      Format{"stored.zip", "zip -q -y -0 -r ../stored.zip ."}),
    [](const auto& test) {
      std::string name = test.param.name;
      std::ranges::replace(name, '.', '_');
      return name;
    });

TEST_F(ExpandTest, ReadsRangesSideBySideAndAllOfOneVersion) {
  folder_.Write("words", Words(40'000'000));
  folder_.Run("tar -cf t.tar words");
  Put("t.tar");
  EXPECT_EQ(Good().bytes, 40'000'000U);
  EXPECT_TRUE(Out("words") == folder_.Read("words"));
  EXPECT_GE(faults_->CountOf(testing::Op::kRead), 10U);
  for (const auto& call : faults_->calls()) {
    EXPECT_TRUE(call.op != testing::Op::kRead || call.if_version == options_.object.version);
  }
}

TEST_F(ExpandTest, WhatComesWholeWhateverIsAskedForIsReadOnce) {
  folder_.Write("words", Words(40'000'000));
  folder_.Run("tar -cf t.tar words");
  auto store = std::make_shared<ComesWhole>(options_.store);
  options_.store = store;
  Put("t.tar");
  EXPECT_EQ(Good().bytes, 40'000'000U);
  EXPECT_TRUE(Out("words") == folder_.Read("words"));
  EXPECT_EQ(store->sent, options_.object.size);
}

TEST_F(ExpandTest, ReadsASmallObjectWithOneRequest) {
  MakeTar("add('f')");
  Good();
  EXPECT_EQ(faults_->CountOf(testing::Op::kRead), 1U);
  fs::remove(options_.dir + "/f");
  MakeZip("add('g')");
  Good();
  EXPECT_EQ(faults_->CountOf(testing::Op::kRead), 2U);
}

TEST_F(ExpandTest, ReadsAStoreWithoutRangesAtOnce) {
  MakeHonest();
  folder_.Run("cd in; tar -cf ../t.tar .; zip -q -y -r ../t.zip .");
  for (const char* name : {"t.tar", "t.zip"}) {
    auto inner = store::memory::MakeMemoryStore("s3://b");
    options_.store = std::make_shared<WithoutRanges>(std::move(inner));
    Put(name);
    Good();
    EXPECT_TRUE(Tree(folder_ / "in") == Tree(options_.dir)) << name;
    folder_.Run("rm -rf out; mkdir out");
  }
}

TEST_F(ExpandTest, OfAZipReadsOnlyWhatIsMissing) {
  folder_.Write("words", Words(1'000'000));
  folder_.Run("for i in $(seq 30); do cp words $i; done; zip -q -0 t.zip $(seq 30)");
  Put("t.zip");
  Good();
  fs::remove(options_.dir + "/7");
  const std::size_t before = faults_->calls().size();
  const Expanded done = Good();
  EXPECT_EQ(done.resumed_bytes, 29'000'000U);
  std::uint64_t read = 0;
  const auto calls = faults_->calls();
  for (std::size_t i = before; i < calls.size(); ++i) read += calls[i].length;
  EXPECT_LT(read, 2'000'000U);
  EXPECT_TRUE(Out("7") == folder_.Read("words"));
}

TEST_F(ExpandTest, OfATarWritesAgainWhatIsNotTheSame) {
  MakeTar("add('f', b'right'); add('g', b'x' * 3000000); add('same', b'same')");
  Good();
  struct stat before;
  ASSERT_EQ(::stat((options_.dir + "/same").c_str(), &before), 0);
  folder_.Run(
      "cd out; chmod 644 f g; printf wrong >f; printf y | dd of=g bs=1 seek=2000000 conv=notrunc "
      "status=none; touch -r same f g; chmod 444 f g");
  const Expanded done = Good();
  EXPECT_EQ(done.resumed_bytes, 4U);
  EXPECT_EQ(Out("f"), "right");
  EXPECT_TRUE(Out("g") == std::string(3'000'000, 'x'));
  struct stat after;
  ASSERT_EQ(::stat((options_.dir + "/same").c_str(), &after), 0);
  EXPECT_EQ(before.st_ino, after.st_ino);
  ASSERT_EQ(::stat((options_.dir + "/g").c_str(), &after), 0);
  EXPECT_EQ(after.st_mode & 0777, 0444U);
}

TEST_F(ExpandTest, HoldsTheWholeToTheDigestThatTheStorePromises) {
  for (const bool zip : {false, true}) {
    if (zip) {
      MakeZip("add('f', 'x' * 100); add('g')");
    } else {
      MakeTar("add('f', b'x' * 100); add('g')");
    }
    options_.object.expected = digest::Expected{digest::Kind::kMd5, std::string(16, '\0')};
    const Error error = Bad();
    EXPECT_EQ(error.code(), Errc::kCorrupt);
    EXPECT_EQ(error.message(), options_.source +
                                   ": the bytes that came do not have the MD5 that the "
                                   "store promises");
    EXPECT_TRUE(Empty()) << "nothing of it is to be gone on with";
  }
}

TEST_F(ExpandTest, ASourceThatIsReplacedIsAConflict) {
  MakeTar("add('f', b'x' * 10000000)");
  const auto object = options_.object;
  ASSERT_TRUE(options_.store->Put("t.tar", AsBytes("new"), {}, {}));
  options_.object = object;
  options_.object.version.version_id = "";  // with it the old one could still be read
  EXPECT_EQ(Bad().code(), Errc::kConflict);
}

TEST_F(ExpandTest, AnErrorOfTheStoreIsTheOneThatIsSaid) {
  MakeTar("add('f', b'x' * 30000000)");
  testing::Fault fault;
  fault.op = testing::Op::kRead;
  fault.skip = 3;
  fault.code = Errc::kDenied;
  faults_->Add(fault);
  EXPECT_EQ(Bad().code(), Errc::kDenied);
}

TEST_F(ExpandTest, EndsSoonWhenItIsCancelled) {
  MakeTar("add('f', b'x' * 30000000)");
  testing::Fault fault;
  fault.op = testing::Op::kRead;
  fault.skip = 2;
  fault.stall = true;
  faults_->Add(fault);
  std::stop_source stop;
  std::jthread canceller([&] {
    faults_->WaitForStalled(1);
    stop.request_stop();
  });
  const auto done = Run({.stop = stop.get_token()});
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code(), Errc::kCancelled);
}

TEST_F(ExpandTest, RefusesNamesThatLeadOut) {
  EXPECT_EQ(BadTar("add('../f')").code(), Errc::kInvalid);
  EXPECT_EQ(BadTar("add('a/../../f')").code(), Errc::kInvalid);
  EXPECT_EQ(BadTar("add('a/../f')").code(), Errc::kInvalid);
  EXPECT_EQ(BadTar("folder('..')").code(), Errc::kInvalid);
  EXPECT_EQ(BadTar("add('/etc/f')").message(),
            "s3://b/t.tar: the member \"/etc/f\" has an absolute name");
  EXPECT_EQ(BadTar("add('ok'); add('../f')").message(),
            "s3://b/t.tar: the member \"../f\" would come to lie outside of the folder");
  MakeZip("add('../f')");
  EXPECT_EQ(Bad().code(), Errc::kInvalid);
  MakeZip("add('/f')");
  EXPECT_EQ(Bad().code(), Errc::kInvalid);
  MakeZip("add('ok'); add('a/b/../../../f')");
  EXPECT_EQ(Bad().code(), Errc::kInvalid);
  EXPECT_FALSE(fs::exists(folder_ / "f"));
}

TEST_F(ExpandTest, RefusesLinksThatLeadOut) {
  for (const char* lines :
       {"symlink('l', '/etc/passwd')", "symlink('l', '../x')", "symlink('d/l', '../../x')",
        "symlink('l', 'a/../../x')", "symlink('l', '')", "hard('l', '../x')",
        "hard('l', '/etc/passwd')",
        // Through one that was made before, or is made later.
        "symlink('x/y/up', '../..'); symlink('l', 'x/y/up/..')",
        "symlink('l', 'p/q/../..'); symlink('p/q', '.')",
        "symlink('l', 'a/b/..'); symlink('a', 'c/d/e'); symlink('c/d/e/b', '../../..')",
        "symlink('a/b', '..'); symlink('l', 'a/b/a/b/..')"}) {
    const Error error = BadTar(lines);
    EXPECT_EQ(error.code(), Errc::kInvalid) << lines << ": " << error.message();
    for (const auto& entry : fs::recursive_directory_iterator(options_.dir))
      EXPECT_FALSE(entry.is_symlink()) << lines;
    folder_.Run("rm -rf out; mkdir out");
  }
  MakeZip("add('l', '../../x', 0o120777)");
  EXPECT_THAT(Bad().message(), HasSubstr("the link \"l\" leads out of the folder: \"../../x\""));
}

TEST_F(ExpandTest, WritesNothingThroughLinks) {
  fs::create_directory(folder_ / "victim");
  EXPECT_THAT(BadTar("folder('d'); symlink('l', 'd'); add('l/f')").message(),
              HasSubstr("the member \"l/f\" would be written through the link \"l\""));
  // One that was there before.
  folder_.Run("rm -rf out; mkdir out; ln -s ../victim out/l");
  MakeTar("add('l/f')");
  EXPECT_THAT(Bad().message(), HasSubstr("opening the folder"));
  folder_.Run("rm -rf out; mkdir out; ln -s ../victim/f out/f");
  MakeTar("add('f')");
  Good();
  EXPECT_EQ(Out("f"), "data");
  EXPECT_FALSE(fs::is_symlink(options_.dir + "/f"));
  EXPECT_TRUE(fs::is_empty(folder_ / "victim"));
}

TEST_F(ExpandTest, RefusesWhatIsNoFile) {
  for (const char* type : {"CHRTYPE", "BLKTYPE", "FIFOTYPE"}) {
    const Error error = BadTar("add('dev', type=tarfile." + std::string(type) + ")");
    EXPECT_EQ(error.message(), "s3://b/t.tar: the member \"dev\" is a device, a fifo or a socket");
  }
  MakeZip("add('socket', '', 0o140644)");
  EXPECT_EQ(Bad().code(), Errc::kInvalid);
}

TEST_F(ExpandTest, RefusesNamesThatNoFileSystemHolds) {
  EXPECT_EQ(BadTar("add('n' * 256)").code(), Errc::kInvalid);
  EXPECT_EQ(BadTar("add(('n' * 200 + '/') * 21 + 'f')").code(), Errc::kInvalid);
  EXPECT_EQ(BadTar("add('./.')").code(), Errc::kInvalid);
  MakeZip("add('a\\0b')");
  EXPECT_EQ(Bad().code(), Errc::kInvalid);
  EXPECT_EQ(
      BadTar("i = tarfile.TarInfo('x'); i.pax_headers = {'path': 'a\\0b'}; t.addfile(i)").code(),
      Errc::kInvalid);
}

TEST_F(ExpandTest, KeepsOddNamesAsTheyAre) {
  MakeTar(
      "add('./a//b/./f'); add(b'\\xff\\xfe'.decode('utf8', 'surrogateescape')); add('new\\nline'); "
      "folder('./')");
  Good();
  EXPECT_EQ(Out("a/b/f"), "data");
  EXPECT_EQ(Out("\xff\xfe"), "data");
  EXPECT_EQ(Out("new\nline"), "data");
}

TEST_F(ExpandTest, DropsWhatGivesRights) {
  MakeTar("add('f', mode=0o6755); add('g', mode=0o1600)");
  Good();
  struct stat st;
  ASSERT_EQ(::stat((options_.dir + "/f").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0555U);
  ASSERT_EQ(::stat((options_.dir + "/g").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0444U);
}

TEST_F(ExpandTest, OfSeveralOfANameTheLastIsKept) {
  MakeTar(
      "add('f', b'first'); hard('h', 'f'); add('f', b'the last'); symlink('s', 'f'); add('s', "
      "b'file')");
  Expanded done = Good();
  EXPECT_EQ(Out("f"), "the last");
  EXPECT_EQ(Out("h"), "first");
  EXPECT_EQ(Out("s"), "file");
  EXPECT_FALSE(fs::is_symlink(options_.dir + "/s"));
  EXPECT_EQ(done.files, 2U);
  EXPECT_EQ(done.links, 1U);
  ASSERT_EQ(done.notes.size(), 1U);
  EXPECT_EQ(done.notes[0],
            "2 names are there more than once, the last is kept (the first is \"f\")");
  folder_.Run("rm -rf out; mkdir out");
  MakeZip(
      "import warnings; warnings.simplefilter('ignore'); add('f', 'first'); add('f', 'the last'); "
      "add('g')");
  Good();
  EXPECT_EQ(Out("f"), "the last");
  fs::remove(options_.dir + "/g");
  Good();
  EXPECT_EQ(Out("f"), "the last");
}

TEST_F(ExpandTest, KeepsNamesThatDifferOnlyInCaseAndSaysSo) {
  MakeTar("add('File'); add('file'); add('d/x'); add('D/x')");
  const Expanded done = Good();
  EXPECT_EQ(done.files, 4U);
  ASSERT_EQ(done.notes.size(), 1U);
  EXPECT_EQ(done.notes[0],
            "3 names differ from another only in upper and lower case (the first is \"file\")");
}

TEST_F(ExpandTest, RefusesFilesWhereFoldersAreAndTheOtherWayRound) {
  EXPECT_EQ(BadTar("add('a'); add('a/b')").message(),
            "s3://b/t.tar: the member \"a/b\" would lie in \"a\", which is a file");
  EXPECT_EQ(BadTar("add('a/b'); add('a')").code(), Errc::kInvalid);
  EXPECT_EQ(BadTar("add('a'); folder('a')").code(), Errc::kInvalid);
  EXPECT_EQ(BadTar("add('a/b'); symlink('a', 'x')").code(), Errc::kInvalid);
}

TEST_F(ExpandTest, MakesHardLinksToEarlierMembersOnly) {
  MakeTar("add('d/f'); hard('e/h', 'd/f'); hard('i', './e/h')");
  const Expanded done = Good();
  EXPECT_EQ(done.links, 2U);
  struct stat st;
  ASSERT_EQ(::stat((options_.dir + "/i").c_str(), &st), 0);
  EXPECT_EQ(st.st_nlink, 3U);
  Good();  // once more over what is there
  EXPECT_EQ(BadTar("hard('h', 'f'); add('f')").code(), Errc::kInvalid);
  EXPECT_EQ(BadTar("folder('d'); hard('h', 'd')").code(), Errc::kInvalid);
}

TEST_F(ExpandTest, KeepsTheHolesOfSparseFiles) {
  folder_.Run(
      "truncate -s 1G s; printf x | dd of=s bs=1 seek=500000000 conv=notrunc status=none; "
      "tar -S -cf t.tar s");
  Put("t.tar");
  options_.limit_bytes = kMiB;
  EXPECT_LT(Good().bytes, kMiB);
  struct stat st;
  ASSERT_EQ(::stat((options_.dir + "/s").c_str(), &st), 0);
  EXPECT_EQ(static_cast<std::uint64_t>(st.st_size), kGiB);
  EXPECT_LT(st.st_blocks, 10'000);
  folder_.Run("cmp s out/s");
}

TEST_F(ExpandTest, SaysOfAZipBeforeAnythingIsWrittenHowMuchItNeeds) {
  MakeZip("add('f', 'x' * 5000000); add('g', 'x' * 3000000)");
  options_.limit_bytes = 7'000'000;
  EXPECT_EQ(Bad().message(), "s3://b/t.zip: its contents need 8.0 MB, but its limit is 7.0 MB");
  EXPECT_TRUE(Empty());
  options_.limit_bytes = UINT64_MAX;
  options_.limit_inodes = 1;
  EXPECT_EQ(Bad().code(), Errc::kNoSpace);
}

TEST_F(ExpandTest, CountsTheFoldersThatNamesImply) {
  MakeTar("add('a/b/c/d/e/f')");
  options_.limit_inodes = 5;
  EXPECT_EQ(Bad().code(), Errc::kNoSpace);
  options_.limit_inodes = 6;
  Good();
}

TEST_F(ExpandTest, RefusesAMemberThatIsLargerThanItSays) {
  folder_.Python(R"(
import struct, zipfile
for name, size in (("small", 3000), ("large", 3000000)):
  for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2):
    with zipfile.ZipFile("z", "w", method) as z:
        z.writestr("f", "x" * size)
    data = bytearray(open("z", "rb").read())
    at = data.index(b"PK\1\2")
    for what, by in (("more", -1), ("less", 1)):
        changed = bytearray(data)
        struct.pack_into("<I", changed, at + 24, size + by)
        open("%s-%s-%d" % (name, what, method), "wb").write(changed)
)");
  for (const char* size : {"small", "large"}) {
    for (const char* what : {"more", "less"}) {
      for (const char* method : {"8", "12", "14"}) {
        Put(std::string(size) + "-" + what + "-" + method);
        const Error error = Bad();
        EXPECT_EQ(error.code(), Errc::kCorrupt) << error.message();
        EXPECT_THAT(error.message(), HasSubstr("the member \"f\""));
        folder_.Run("rm -rf out; mkdir out");
      }
    }
  }
}

TEST_F(ExpandTest, HoldsMembersOfAZipToTheirChecksums) {
  folder_.Run("printf hello >f; printf world >g; zip -q -0 t.zip f g");
  std::string zip = folder_.Read("t.zip");
  zip[zip.find("world")] = 'W';
  PutBytes("t.zip", zip);
  EXPECT_EQ(Bad().message(), "s3://b/t.zip: the checksum of the member \"g\" is wrong");
  struct stat st;
  EXPECT_TRUE(::stat((options_.dir + "/g").c_str(), &st) != 0 || (st.st_mode & 0777) == 0600);
}

TEST_F(ExpandTest, ReadsTheMethodsThatZipsMayHave) {
  folder_.Python(R"(
import zipfile
with zipfile.ZipFile("t.zip", "w") as z:
    for size in (0, 10, 3000000):
        for method in (0, 8, 12, 14):
            z.writestr("%d-%d" % (method, size), b"0123456789" * (size // 10), method)
)");
  Put("t.zip");
  EXPECT_EQ(Good().files, 12U);
  for (const char* method : {"0", "8", "12", "14"}) {
    EXPECT_EQ(Out(std::string(method) + "-0"), "");
    EXPECT_EQ(Out(std::string(method) + "-10"), "0123456789");
    EXPECT_EQ(Out(std::string(method) + "-3000000").size(), 3'000'000U);
  }
}

TEST_F(ExpandTest, RefusesEncryptedMembersAndMethodsThatNobodyKnows) {
  folder_.Run("echo secret >f; zip -q -P password t.zip f");
  Put("t.zip");
  Error error = Bad();
  EXPECT_EQ(error.code(), Errc::kUnsupported);
  EXPECT_EQ(error.message(), "s3://b/t.zip: the member \"f\" is encrypted");
  folder_.Run("rm t.zip; zip -q -0 t.zip f");
  std::string zip = folder_.Read("t.zip");
  zip[zip.find("PK\1\2") + 10] = 97;
  PutBytes("t.zip", zip);
  error = Bad();
  EXPECT_EQ(error.code(), Errc::kUnsupported) << error.message();
}

TEST_F(ExpandTest, SaysWhatIsNoArchive) {
  PutBytes("t.zip", "<!DOCTYPE html><html><body>Not found</body></html>");
  Error error = Bad();
  EXPECT_EQ(error.code(), Errc::kCorrupt);
  EXPECT_EQ(error.message(),
            "s3://b/t.zip: is no archive: it begins with \"<!DOCTYPE html><\", an error page?");
  PutBytes("t.tar", "");
  EXPECT_EQ(Bad().message(), "s3://b/t.tar: is no archive: it is empty");
  PutBytes("t.tar", std::string(5000, 'x'));
  EXPECT_EQ(Bad().code(), Errc::kCorrupt);
  folder_.Run("echo a,b,c | gzip >t.tar.gz; : | gzip >e.tar.gz");
  Put("t.tar.gz");
  EXPECT_EQ(Bad().message(),
            "s3://b/t.tar.gz: is compressed (by gzip), but what comes out is no tar");
  Put("e.tar.gz");
  EXPECT_EQ(Bad().code(), Errc::kCorrupt);
}

TEST_F(ExpandTest, GoesByTheFirstBytesWhateverItIsCalled) {
  MakeHonest();
  folder_.Run(
      "cd in; tar -cf - . | bzip2 >../t.tar.gz2; zip -q -y -r ../z.zip .; "
      "(echo '#!/bin/sh'; cat ../z.zip) >../t.tar");
  Put("t.tar.gz2");
  Good();
  EXPECT_TRUE(Tree(folder_ / "in") == Tree(options_.dir));
  folder_.Run("rm -rf out; mkdir out");
  Put("t.tar");
  Good();
  EXPECT_TRUE(Tree(folder_ / "in") == Tree(options_.dir));
}

TEST_F(ExpandTest, LeavesArchivesInArchivesAlone) {
  folder_.Run(
      "echo x >f; zip -q inner.zip f; tar -czf inner.tgz f; tar -cf t.tar inner.zip inner.tgz");
  Put("t.tar");
  Good();
  EXPECT_EQ(Out("inner.zip"), folder_.Read("inner.zip"));
  EXPECT_EQ(Out("inner.tgz"), folder_.Read("inner.tgz"));
}

TEST_F(ExpandTest, ExpandsEmptyArchives) {
  MakeTar("");
  EXPECT_EQ(Good().files, 0U);
  MakeZip("");
  EXPECT_EQ(Good().files, 0U);
}

TEST_F(ExpandTest, AFullDiskIsSaidAndBeforeThatWhatHasNoRoom) {
  const auto expand_into = [&](const std::string& limits) {
    folder_.Run("mkdir -p full; mount -t tmpfs -o " + limits + " tmpfs full 2>/dev/null || true");
    const bool mounted = fs::space(folder_ / "full").capacity <= 10 * kMiB;
    EXPECT_TRUE(mounted)
        << "a tmpfs cannot be mounted here; run it as root, or: unshare -rm leat_archive_test";
    options_.dir = folder_ / "full";
    const Error error = Bad();
    folder_.Run("umount full");
    EXPECT_EQ(error.code(), Errc::kNoSpace);
    return error.message();
  };
  MakeTar("add('small'); add('large', b'x' * 3000000)");
  EXPECT_EQ(
      expand_into("size=1m"),
      "s3://b/t.tar: its contents need 3.0 MB or more (as far as \"large\"), but the free space "
      "is 1.0 MB");
  // (The room is looked at once: what others take meanwhile is as what a disk has no inodes for.)
  EXPECT_EQ(expand_into("size=10m,nr_inodes=2"),
            "s3://b/t.tar: the disk is full: \"large\" of 3.0 MB cannot be written");
}

TEST_F(ExpandTest, NeedsLittleMemoryForMuch) {
  MakeHonest();
  MemoryBudget small(16 * kMiB);
  options_.budget = &small;
  folder_.Run(
      "cd in; tar -cf ../t.tar .; tar -cf - . | zstd -q >../t.tar.zst; zip -q -y -r ../t.zip .");
  for (const char* name : {"t.tar", "t.tar.zst", "t.zip"}) {
    Put(name);
    Good();
    EXPECT_TRUE(Tree(folder_ / "in") == Tree(options_.dir)) << name;
    folder_.Run("rm -rf out; mkdir out");
  }
}

}  // namespace
}  // namespace leat::archive
