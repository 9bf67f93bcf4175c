#include "archive/member_store.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <ctime>
#include <filesystem>
#include <map>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "archive/member_place.h"
#include "archive/test_tools.h"
#include "base/bytes.h"
#include "os/file.h"
#include "snapshot/content.h"
#include "store/forwarding_store.h"
#include "store/memory/memory_store.h"
#include "testing/fault_store.h"

namespace leat::archive {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

/// Counts what is read.
class CountingStore final : public store::ForwardingStore {
 public:
  using ForwardingStore::ForwardingStore;
  Status Read(std::string_view key, const store::ReadOptions& options, const store::Sink& sink,
              const CallContext& ctx) override {
    ++reads;
    return inner().Read(
        key, options,
        [&](std::span<const std::byte> piece) -> Status {
          bytes += piece.size();
          return sink(piece);
        },
        ctx);
  }
  std::atomic<std::uint64_t> reads = 0, bytes = 0;
};

class MemberStoreTest : public ::testing::Test {
 protected:
  MemberStoreTest() {
    auto faults = std::make_unique<testing::FaultStore>(store::memory::MakeMemoryStore("s3://b"));
    faults_ = faults.get();
    store_ = std::make_shared<CountingStore>(std::move(faults));
  }

  void Put(const std::string& name) { PutBytes(name, folder_.Read(name)); }
  void PutBytes(const std::string& name, std::string_view bytes) {
    ASSERT_TRUE(store_->Put(name, AsBytes(bytes), {}, {}));
    auto info = store_->Stat(name, "", {});
    ASSERT_TRUE(info);
    archive_ = *info;
  }
  Status Index() {
    members_ = MakeMemberStore(store_, archive_);
    snapshot::Builder builder(std::string(members_->Identity()), "");
    LEAT_RETURN_IF_ERROR(IndexMembers(
        *store_, archive_, store_->UrlOf(archive_.key), {},
        [&](std::uint64_t bytes) { progress_ = bytes; }, builder));
    const os::UniqueFd file(::memfd_create("snapshot", MFD_CLOEXEC));
    snapshot::LeftOut left_out;
    LEAT_RETURN_IF_ERROR(builder.WriteTo(file.get(), false, &left_out));
    EXPECT_EQ(left_out.count, 0U) << left_out.first_key << ": " << left_out.first_why;
    auto content = std::make_shared<snapshot::Content>();
    LEAT_ASSIGN_OR_RETURN(content->index, snapshot::Snapshot::Open(file.get()));
    content->store = members_;
    content_ = std::move(content);
    return {};
  }
  /// What is wrong with it.
  std::string Refusal(Errc code) {
    const Status indexed = Index();
    if (indexed) return "nothing";
    EXPECT_EQ(indexed.error().code(), code) << indexed.error().message();
    EXPECT_TRUE(indexed.error().message().starts_with("s3://b/")) << indexed.error().message();
    return indexed.error().message();
  }
  std::map<std::string, snapshot::FileIndex> Files() const {
    std::map<std::string, snapshot::FileIndex> out;
    for (snapshot::FileIndex i = 0; i < content_->index->file_count(); ++i)
      out[content_->index->PathOfFile(i)] = i;
    return out;
  }
  Result<std::string> Read(snapshot::FileIndex file, std::uint64_t offset, std::uint64_t length) {
    std::string out;
    snapshot::EntryReader reader(content_, file);
    LEAT_RETURN_IF_ERROR(reader.Read(offset, length,
                                     [&](std::span<const std::byte> piece) -> Status {
                                       out += AsText(piece);
                                       return {};
                                     },
                                     {}));
    return out;
  }
  Result<std::string> Read(const std::string& path) {
    const auto files = Files();
    const auto found = files.find(path);
    if (found == files.end()) return Fail(Errc::kNotFound, path + " is no member");
    return Read(found->second, 0, content_->index->file(found->second).size);
  }
  std::string Etag(const std::string& path) {
    return content_->index->file(Files().at(path)).etag.str();
  }

  /// Every file below the folder is a member with the same bytes and time, and nothing else is.
  void ExpectSame(const std::string& name) {
    SCOPED_TRACE(archive_.key);
    const Status indexed = Index();
    ASSERT_TRUE(indexed) << indexed.error().message();
    const auto files = Files();
    std::size_t there = 0;
    for (const auto& entry : fs::recursive_directory_iterator(folder_ / name)) {
      if (!entry.is_regular_file()) continue;
      const std::string path = fs::relative(entry.path(), folder_.path()).string();
      SCOPED_TRACE(path);
      ++there;
      const auto found = files.find(path);
      ASSERT_NE(found, files.end());
      const std::string bytes = folder_.Read(path);
      const auto whole = Read(path);
      ASSERT_TRUE(whole) << whole.error().message();
      EXPECT_TRUE(*whole == bytes);
      for (int i = 0; i < 8; ++i) {
        const std::uint64_t offset = random_() % (bytes.size() + 1);
        const std::uint64_t length = random_() % (bytes.size() - offset + 1);
        const auto some = Read(found->second, offset, length);
        ASSERT_TRUE(some) << some.error().message();
        EXPECT_TRUE(*some == bytes.substr(offset, length)) << offset << "+" << length;
      }
      struct stat st;
      ASSERT_EQ(::stat((folder_ / path).c_str(), &st), 0);
      const std::int64_t seconds = content_->index->file(found->second).mtime_ns / 1'000'000'000;
      EXPECT_LE(std::abs(seconds - st.st_mtim.tv_sec), 1);
    }
    EXPECT_EQ(files.size(), there);
    EXPECT_GT(there, 0U);
  }

  const TestFolder folder_;
  std::mt19937_64 random_{7};
  testing::FaultStore* faults_ = nullptr;  // in store_
  std::shared_ptr<CountingStore> store_;
  store::ObjectInfo archive_;
  std::shared_ptr<store::ObjectStore> members_;
  std::shared_ptr<const snapshot::Content> content_;
  std::uint64_t progress_ = 0;
};

/// Files of all kinds below d.
void MakeFiles(const TestFolder& folder) {
  folder.Run(R"(mkdir -p d/e/f "d/with blanks"; : >d/empty; printf x >d/one
      head -c 1500000 /dev/urandom >d/e/noise; head -c 2000000 /dev/zero >d/e/f/zeros
      head -c 512 /dev/urandom >d/e/block; printf hello >"d/with blanks/über")");
  folder.Write("d/words", Words(200'000));
  folder.Write("d/e/many words", Words(2'000'000, 2));
  folder.Run("find d -type f -print0 | sort -z | xargs -0 touch -d @1234567890");
}

TEST_F(MemberStoreTest, MembersOfZipsAreTheFiles) {
  MakeFiles(folder_);
  folder_.Run(R"(export TZ=UTC
      zip -q -r default.zip d; zip -q -0 -r stored.zip d; zip -q -9 -r best.zip d
      zip -q -r - d | cat >streamed.zip
      (printf 'a program'; cat default.zip) >behind.zip; bsdtar -a -cf bsd.zip d)");
  folder_.Python(R"(
import os, zipfile
for name, method in (("python.zip", zipfile.ZIP_DEFLATED), ("pystored.zip", zipfile.ZIP_STORED)):
    with zipfile.ZipFile(name, "w", method) as z:
        for root, _, names in os.walk("d"):
            for n in names:
                with z.open(zipfile.ZipInfo.from_file(root + "/" + n, "./" + root + "//" + n),
                            "w", force_zip64=n != "one") as out, open(root + "/" + n, "rb") as f:
                    out.write(f.read())
)");
  for (const char* name : {"default.zip", "stored.zip", "best.zip", "streamed.zip", "behind.zip",
                           "bsd.zip", "python.zip", "pystored.zip"}) {
    Put(name);
    ExpectSame("d");
  }
}

TEST_F(MemberStoreTest, MembersOfTarsAreTheFiles) {
  MakeFiles(folder_);
  folder_.Run(R"(tar --format=gnu -cf gnu.tar d; tar --format=pax -cf pax.tar ./d
      tar --format=ustar -cf ustar.tar d; bsdtar -cf bsd.tar d)");
  for (const char* name : {"gnu.tar", "pax.tar", "ustar.tar", "bsd.tar"}) {
    Put(name);
    ExpectSame("d");
    EXPECT_EQ(progress_, archive_.size + 512);
  }
}

TEST_F(MemberStoreTest, LargeTarIsReadInSeveralRequests) {
  folder_.Run("mkdir d; head -c 20000000 /dev/urandom >d/a; printf hello >d/b; tar -cf t.tar d");
  Put("t.tar");
  ExpectSame("d");
}

TEST_F(MemberStoreTest, SmallMemberIsOneRequest) {
  folder_.Run(R"(mkdir d; head -c 300000 /dev/urandom >d/noise; head -c 300000 /dev/zero >d/zeros
      head -c 3000000 /dev/urandom >d/large; zip -q t.zip d/noise d/zeros; zip -q -0 t.zip d/large
      tar -cf t.tar d)");
  for (const char* name : {"t.zip", "t.tar"}) {
    Put(name);
    ASSERT_TRUE(Index());
    for (const char* file : {"d/noise", "d/zeros", "d/large"}) {
      const std::uint64_t before = store_->reads;
      const std::uint64_t bytes = store_->bytes;
      ASSERT_TRUE(Read(file));
      EXPECT_EQ(store_->reads - before, 1U) << name << " " << file;
      EXPECT_LE(store_->bytes - bytes, fs::file_size(folder_ / file) + 300);
    }
    // Of a part no more than that is read, but for the header, once.
    const auto large = Files().at("d/large");
    const std::uint64_t bytes = store_->bytes;
    for (int i = 0; i < 10; ++i) ASSERT_TRUE(Read(large, 1'000'000 + 10'000U * i, 10'000));
    EXPECT_LE(store_->bytes - bytes, 100'000U + 30);
  }
}

TEST_F(MemberStoreTest, LinksAreTheFilesThatTheyLeadTo) {
  folder_.Run(R"(mkdir -p d/e; printf hello >d/file; printf other >d/e/other; ln -s ../file d/e/a
      ln -s e/a d/b; ln -s ./e/../b d/c; ln -s e/other d/first; ln d/file d/hard
      zip -q -y -r t.zip d; zip -q -0 -y -r s.zip d; tar -cf t.tar d)");
  for (const char* name : {"t.zip", "s.zip", "t.tar"}) {
    Put(name);
    const Status indexed = Index();
    ASSERT_TRUE(indexed) << indexed.error().message();
    EXPECT_EQ(content_->index->file_count(), 7U);
    for (const char* path : {"d/file", "d/e/a", "d/b", "d/c", "d/hard"})
      EXPECT_EQ(Read(path).value_or("?"), "hello") << path;
    EXPECT_EQ(Read("d/first").value_or("?"), "other");
    EXPECT_EQ(Etag("d/c"), Etag("d/file"));
  }
}

TEST_F(MemberStoreTest, ManyLinksOfAZipAreReadTogether) {
  folder_.Python(R"(
import stat, zipfile
with zipfile.ZipFile("t.zip", "w", zipfile.ZIP_DEFLATED) as z:
    z.writestr("d/file", "hello")
    for i in range(20000):
        info = zipfile.ZipInfo("d/e/%d" % i)
        info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        z.writestr(info, "../file")
)");
  Put("t.zip");
  ASSERT_TRUE(Index());
  EXPECT_EQ(Read("d/e/19999").value_or("?"), "hello");
  EXPECT_LT(store_->reads, 10U);
}

TEST_F(MemberStoreTest, LinksThatAreNoFilesAreRefused) {
  const auto refusal = [&](const std::string& commands, Errc code) {
    folder_.Run("rm -rf d t.zip t.tar; mkdir -p d/e; printf hello >d/e/file\n" + commands +
                "\nzip -q -y -r t.zip d; tar -cf t.tar d");
    Put("t.zip");
    const std::string of_zip = Refusal(code);
    Put("t.tar");
    EXPECT_EQ(of_zip.substr(of_zip.find(' ')), Refusal(code).substr(of_zip.find(' ')));
    return of_zip;
  };
  EXPECT_THAT(refusal("ln -s e d/link", Errc::kUnsupported),
              HasSubstr("\"d/link\" is a link to \"e\", which is a folder; it has to be expanded "
                        "(expand=always)"));
  EXPECT_THAT(refusal("ln -s nothing d/link", Errc::kUnsupported), HasSubstr("is not there; it"));
  EXPECT_THAT(refusal("ln -s b d/a; ln -s a d/b", Errc::kUnsupported), HasSubstr("40 others"));
  EXPECT_THAT(refusal("ln -s /etc/passwd d/link", Errc::kInvalid), HasSubstr("leads out"));
  EXPECT_THAT(refusal("ln -s e/../../../x d/link", Errc::kInvalid), HasSubstr("leads out"));
}

TEST_F(MemberStoreTest, HostileArchivesAreRefused) {
  folder_.Python(R"PY(
import io, stat, tarfile, zipfile
def archives(name, *members):
    with zipfile.ZipFile(name + ".zip", "w") as z, tarfile.open(name + ".tar", "w") as t:
        for m in members:
            kind, path = m[:2]
            info, other = zipfile.ZipInfo("x"), tarfile.TarInfo(path)
            info.filename, info.create_system = path, 3
            mode, data = stat.S_IFREG, b"hello"
            if kind == "fifo": mode, data, other.type = stat.S_IFIFO, b"", tarfile.FIFOTYPE
            if kind == "link":
                mode, data = stat.S_IFLNK, m[2].encode()
                other.type, other.linkname = tarfile.SYMTYPE, m[2]
            if kind == "dir": mode, data, other.type = stat.S_IFDIR, b"", tarfile.DIRTYPE
            info.external_attr = (mode | 0o644) << 16
            z.writestr(info, data)
            other.size = len(data) if other.type == tarfile.REGTYPE else 0
            t.addfile(other, io.BytesIO(data))
archives("up", ("file", "d/../../x"))
archives("absolute", ("file", "/etc/x"))
archives("long", ("file", "n" * 256))
archives("deep", ("file", "n/" * 2100 + "n"))
archives("nameless", ("file", "./."))
archives("fifo", ("fifo", "x"))
archives("infile", ("file", "x"), ("file", "x/y"))
archives("onfolder", ("file", "x/y"), ("file", "x"))
archives("folderonfile", ("file", "x"), ("dir", "x/"))
archives("through", ("link", "x", "y"), ("file", "x/z"))
with tarfile.open("hard.tar", "w") as t:
    other = tarfile.TarInfo("x"); other.type, other.linkname = tarfile.LNKTYPE, "../y"
    t.addfile(other)
with tarfile.open("later.tar", "w") as t:
    other = tarfile.TarInfo("x"); other.type, other.linkname = tarfile.LNKTYPE, "y"
    t.addfile(other); t.addfile(tarfile.TarInfo("y"))
)PY");
  const std::pair<const char*, const char*> cases[] = {
      {"up", "outside of the folder"},
      {"absolute", "absolute name"},
      {"long", "more than 255 bytes"},
      {"deep", "more than 4096 bytes"},
      {"nameless", "has no name"},
      {"fifo", "a device, a fifo or a socket"},
      {"infile", "would lie in \"x\", which is a file"},
      {"onfolder", "stands where a folder is"},
      {"folderonfile", "which is a file"},
      {"through", "through the link \"x\""}};
  for (const auto& [name, why] : cases) {
    for (const char* kind : {".zip", ".tar"}) {
      SCOPED_TRACE(std::string(name) + kind);
      Put(std::string(name) + kind);
      EXPECT_THAT(Refusal(Errc::kInvalid), HasSubstr(why));
    }
  }
  Put("hard.tar");
  EXPECT_THAT(Refusal(Errc::kInvalid), HasSubstr("outside of the folder"));
  Put("later.tar");
  EXPECT_THAT(Refusal(Errc::kInvalid), HasSubstr("no file before it"));
}

TEST_F(MemberStoreTest, WhatCannotBeReadInPlaceHasToBeExpanded) {
  folder_.Python(R"(
import zipfile
with zipfile.ZipFile("bzip2.zip", "w", zipfile.ZIP_BZIP2) as z:
    z.writestr("x", "hello" * 100)
)");
  folder_.Run(R"(printf hello >x; tar -czf t.tar.gz x; truncate -s 10M sparse
      tar -S -cf sparse.tar sparse; zip -q -P secret encrypted.zip x)");
  std::string unknown = folder_.Read("bzip2.zip");
  unknown[8] = 77;
  unknown[unknown.find("PK\1\2") + 10] = 77;
  folder_.Write("unknown.zip", unknown);
  for (const char* name : {"bzip2.zip", "t.tar.gz", "sparse.tar"}) {
    Put(name);
    EXPECT_THAT(Refusal(Errc::kUnsupported), HasSubstr("it has to be expanded (expand=always)"));
  }
  Put("encrypted.zip");
  EXPECT_THAT(Refusal(Errc::kUnsupported), HasSubstr("\"x\" is encrypted"));
  Put("unknown.zip");
  EXPECT_THAT(Refusal(Errc::kUnsupported), HasSubstr("not known (77)"));
  for (const char* bytes : {"", "<!DOCTYPE html><p>no", "something"}) {
    PutBytes("none.zip", bytes);
    EXPECT_THAT(Refusal(Errc::kCorrupt), HasSubstr("is no archive"));
  }
}

TEST_F(MemberStoreTest, LastOfANameWins) {
  folder_.Run(R"(printf old >x; tar -cf t.tar x; printf new >x; tar -rf t.tar x)");
  folder_.Python(R"(
import warnings, zipfile
warnings.simplefilter("ignore")
with zipfile.ZipFile("t.zip", "w") as z:
    z.writestr("x", "old"); z.writestr("./x", "new")
)");
  for (const char* name : {"t.tar", "t.zip"}) {
    Put(name);
    ASSERT_TRUE(Index());
    EXPECT_EQ(content_->index->file_count(), 1U);
    EXPECT_EQ(Read("x").value_or("?"), "new");
  }
}

/// A member that is deflated to two thirds.
void MakeLarge(const TestFolder& folder) {
  folder.Write("large", Words(40 * kMiB));
  folder.Run("zip -q -1 t.zip large");
}

TEST_F(MemberStoreTest, LargeDeflatedMemberIsReadInOrderOnce) {
  MakeLarge(folder_);
  Put("t.zip");
  ASSERT_TRUE(Index());
  const std::string bytes = folder_.Read("large");
  store_->bytes = 0;
  std::string got;
  for (std::uint64_t at = 0; at < bytes.size(); at += 8 * kMiB) {
    const auto some = Read(0, at, std::min(8 * kMiB, bytes.size() - at));
    ASSERT_TRUE(some) << some.error().message();
    got += *some;
  }
  EXPECT_TRUE(got == bytes);
  EXPECT_LE(store_->bytes, archive_.size + 300);
  // The same in small pieces.
  store_->bytes = 0;
  for (std::uint64_t at = 0; at < 10 * kMiB; at += 128 * kKiB)
    EXPECT_TRUE(Read(0, at, 128 * kKiB).value_or("") == bytes.substr(at, 128 * kKiB));
  EXPECT_LE(store_->bytes, archive_.size / 3);
}

TEST_F(MemberStoreTest, RangesAtOnceGoOnFromEachOther) {
  MakeLarge(folder_);
  Put("t.zip");
  ASSERT_TRUE(Index());
  const std::string bytes = folder_.Read("large");
  store_->bytes = 0;
  std::atomic<std::uint64_t> next = 0;
  std::atomic<int> wrong = 0;
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 6; ++i) {
      threads.emplace_back([&] {
        for (std::uint64_t at = next.fetch_add(4 * kMiB); at < bytes.size();
             at = next.fetch_add(4 * kMiB)) {
          const auto some = Read(0, at, std::min(4 * kMiB, bytes.size() - at));
          if (!some || *some != bytes.substr(at, 4 * kMiB)) ++wrong;
        }
      });
    }
  }
  EXPECT_EQ(wrong, 0);
  // Some may come before the one in front of them.
  EXPECT_LE(store_->bytes, 3 * archive_.size);
}

TEST_F(MemberStoreTest, ReaderThatWaitsForAnotherCanBeCancelled) {
  MakeLarge(folder_);
  Put("t.zip");
  ASSERT_TRUE(Index());
  ASSERT_TRUE(Read(0, 0, 30));  // the header is known
  testing::Fault fault;
  fault.op = testing::Op::kRead;
  fault.stall = true;
  faults_->Add(fault);
  std::jthread first([&] { EXPECT_TRUE(Read(0, 0, 8 * kMiB)); });
  faults_->WaitForStalled(1);
  snapshot::EntryReader reader(content_, 0);
  const store::Sink none = [](std::span<const std::byte>) -> Status { return {}; };
  const CallContext soon = CallContext().Within(std::chrono::milliseconds(20));
  const Status late = reader.Read(8 * kMiB, 100, none, soon);
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code(), Errc::kDeadline);
  std::stop_source stop;
  stop.request_stop();
  const Status cancelled = reader.Read(8 * kMiB, 100, none, {stop.get_token()});
  ASSERT_FALSE(cancelled);
  EXPECT_EQ(cancelled.error().code(), Errc::kCancelled);
  faults_->Release();
}

TEST_F(MemberStoreTest, WhatAReaderRefusedIsReadAgain) {
  MakeLarge(folder_);
  Put("t.zip");
  ASSERT_TRUE(Index());
  const std::string bytes = folder_.Read("large");
  snapshot::EntryReader reader(content_, 0);
  std::uint64_t got = 0;
  const Status refused =
      reader.Read(0, 8 * kMiB,
                  [&](std::span<const std::byte> piece) -> Status {
                    got += piece.size();
                    return got < 3 * kMiB ? Status() : Fail(Errc::kNoSpace, "full");
                  },
                  {});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().message(), "full");
  for (const std::uint64_t at : {got, got + 10, std::uint64_t{0}, std::uint64_t{100}, 2 * kMiB})
    EXPECT_TRUE(Read(0, at, 5 * kMiB).value_or("") == bytes.substr(at, 5 * kMiB)) << at;
}

TEST_F(MemberStoreTest, DamageIsFound) {
  folder_.Write("words", Words(30'000));
  folder_.Run(R"(head -c 30000 /dev/urandom >noise; zip -q -0 stored.zip noise
      zip -q deflated.zip words; tar -cf t.tar noise)");
  for (const char* name : {"stored.zip", "deflated.zip", "t.tar"}) {
    SCOPED_TRACE(name);
    const std::string whole = folder_.Read(name);
    for (int i = 0; i < 50; ++i) {
      PutBytes(name, whole);
      ASSERT_TRUE(Index());
      // The archive's digest is not what finds it: the object is another one of the same name.
      std::string damaged = whole;
      damaged[600 + random_() % 10'000] ^= static_cast<char>(1 << random_() % 8);
      ASSERT_TRUE(store_->Put(name, AsBytes(damaged), {}, {}));
      const auto now = store_->Stat(name, "", {});
      auto content = std::make_shared<snapshot::Content>(*content_);
      content->store = MakeMemberStore(store_, *now);
      content_ = content;
      const auto read = Read(0, 0, content_->index->file(0).size);
      ASSERT_FALSE(read);
      EXPECT_EQ(read.error().code(), Errc::kCorrupt) << read.error().message();
      const std::string member =
          std::string("s3://b/") + name + ":" + content_->index->PathOfFile(0);
      EXPECT_THAT(read.error().message(), HasSubstr(member));
    }
  }
}

TEST_F(MemberStoreTest, DamageInTheMiddleOfALargeDeflatedMemberIsFoundAtItsEnd) {
  folder_.Python(R"(
import random, zipfile
random.seed(1)
with zipfile.ZipFile("t.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as z:
    z.writestr("noise", random.randbytes(6000000))
)");
  std::string zip = folder_.Read("t.zip");
  zip[3'000'000] ^= 1;  // noise is stored within a deflate stream
  PutBytes("t.zip", zip);
  ASSERT_TRUE(Index());
  for (std::uint64_t at = 0; at < 6'000'000; at += 1'000'000) {
    const auto some = Read(0, at, 1'000'000);
    if (at < 5'000'000) {
      EXPECT_TRUE(some);
    } else {
      ASSERT_FALSE(some);
      EXPECT_THAT(some.error().message(), HasSubstr("CRC32"));
    }
  }
}

TEST_F(MemberStoreTest, TarThatIsNotWhatTheStorePromisesIsRefused) {
  folder_.Run("head -c 20000000 /dev/urandom >a; tar -cf t.tar a");
  Put("t.tar");
  testing::Fault fault;
  fault.op = testing::Op::kRead;
  fault.skip = 1;
  fault.wrong_byte_at = 5000;
  faults_->Add(fault);
  EXPECT_THAT(Refusal(Errc::kCorrupt), HasSubstr("MD5"));
}

TEST_F(MemberStoreTest, ReplacedArchiveIsAConflict) {
  folder_.Run("printf hello >a; printf other >b; tar -cf t.tar a; zip -q t.zip a");
  for (const char* name : {"t.tar", "t.zip"}) {
    Put(name);
    ASSERT_TRUE(Index());
    store::ObjectInfo old = archive_;
    old.version.version_id.clear();  // as a listing gives it; else that version is read
    members_ = MakeMemberStore(store_, old);
    auto content = std::make_shared<snapshot::Content>(*content_);
    content->store = members_;
    content_ = content;
    std::string other = folder_.Read(name);
    other.back() = 'x';
    PutBytes(name, other);
    archive_ = old;
    const auto read = Read("a");
    ASSERT_FALSE(read);
    EXPECT_EQ(read.error().code(), Errc::kConflict);
    EXPECT_THAT(read.error().message(), HasSubstr(std::string("s3://b/") + name + " was replaced"));
    EXPECT_THAT(Refusal(Errc::kConflict), HasSubstr("was replaced"));
  }
}

TEST_F(MemberStoreTest, IdentityNamesTheArchive) {
  folder_.Run("printf hello >a; zip -q t.zip a");
  Put("t.zip");
  ASSERT_TRUE(Index());
  const std::string_view identity = members_->Identity();
  EXPECT_NE(identity.find(kMembersOf), identity.npos);
  EXPECT_TRUE(identity.starts_with(store_->Identity()));
  const auto named = ArchiveOfIdentity(identity);
  ASSERT_TRUE(named);
  EXPECT_EQ(named->key, "t.zip");
  EXPECT_EQ(named->size, archive_.size);
  EXPECT_EQ(named->version.etag, archive_.version.etag);
  EXPECT_EQ(MakeMemberStore(store_, *named)->Identity(), identity);
  EXPECT_EQ(MakeMemberStore(store_, archive_, "other")->Identity(),
            "other" + std::string(identity.substr(identity.find(kMembersOf))));
  // A listing has no version's name.
  store::ObjectInfo listed = archive_;
  listed.version.version_id.clear();
  EXPECT_EQ(MakeMemberStore(store_, listed)->Identity(), identity);
  listed.version.etag += "x";
  EXPECT_NE(MakeMemberStore(store_, listed)->Identity(), identity);
  listed.version = {"", "7 8:9 10"};
  listed.key = "3:e 4:d " + std::string(kMembersOf) + "\n";
  const auto odd = ArchiveOfIdentity(MakeMemberStore(store_, listed)->Identity());
  ASSERT_TRUE(odd);
  EXPECT_EQ(odd->key, listed.key);
  EXPECT_EQ(odd->version, listed.version);
  EXPECT_EQ(ArchiveOfIdentity("file:///d/ members of 1" + std::string(identity))->key, "t.zip");
  EXPECT_FALSE(ArchiveOfIdentity("https://s3 s3://b"));
  EXPECT_FALSE(ArchiveOfIdentity("file:///d/ members of 1"));
  for (std::size_t i = 0; i < identity.size(); ++i)
    EXPECT_FALSE(ArchiveOfIdentity(std::string(identity.substr(0, i)) + "x")) << i;
}

TEST_F(MemberStoreTest, OnlyReadsBySnapshotsAreSupported) {
  folder_.Run("printf hello >a; zip -q t.zip a");
  Put("t.zip");
  ASSERT_TRUE(Index());
  const store::Sink none = [](std::span<const std::byte>) -> Status { return {}; };
  EXPECT_EQ(members_->Read("a", {}, none, {}).error().code(), Errc::kInvalid);
  EXPECT_EQ(members_->Stat("a", "", {}).error().code(), Errc::kUnsupported);
  EXPECT_EQ(members_->List("", {}, {}).error().code(), Errc::kUnsupported);
  EXPECT_EQ(members_->Put("a", {}, {}, {}).error().code(), Errc::kUnsupported);
  EXPECT_EQ(members_->Remove("a", {}).error().code(), Errc::kUnsupported);
  EXPECT_EQ(members_->UrlOf("a\n"), "s3://b/t.zip:a\\x0a");
}

template <typename T>
std::string Little(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}
/// An archive of 100,000 files of five bytes (programs take long to make one).
std::string ZipOfMany() {
  std::string zip, directory;
  for (std::uint32_t i = 0; i < 100'000; ++i) {
    const std::string name = fmt::format("train/{:03}/{:06}.jpg", i % 1000, i);
    const std::string common =
        std::string("\x14\0\0\0\0\0\0\0\x21\x50", 10) + Little<std::uint32_t>(0x3610a686) +
        Little<std::uint32_t>(5) + Little<std::uint32_t>(5) +
        Little(static_cast<std::uint16_t>(name.size())) + Little<std::uint16_t>(0);
    directory += "PK\1\2" + Little<std::uint16_t>(20) + common + std::string(10, '\0') +
                 Little(static_cast<std::uint32_t>(zip.size())) + name;
    zip += "PK\3\4" + common + name + "hello";
  }
  const std::string end = "PK\5\6" + std::string(4, '\0') + Little<std::uint16_t>(100'000 % 65536) +
                          Little<std::uint16_t>(100'000 % 65536) +
                          Little(static_cast<std::uint32_t>(directory.size())) +
                          Little(static_cast<std::uint32_t>(zip.size())) + std::string(2, '\0');
  return zip + directory + end;
}
std::string TarOfMany() {
  std::string tar;
  for (int i = 0; i < 100'000; ++i) {
    std::string block = fmt::format("train/{:03}/{:06}.jpg", i % 1000, i);
    block.resize(1024);
    block.replace(100, 7, "0000644");
    block.replace(124, 11, "00000000005");
    block.replace(136, 11, "11111111111");
    block.replace(148, 8, 8, ' ');
    block[156] = '0';
    block.replace(257, 8,
                  std::string_view("ustar\0"
                                   "00",
                                   8));
    unsigned sum = 0;
    for (std::size_t n = 0; n < 512; ++n) sum += static_cast<unsigned char>(block[n]);
    block.replace(148, 7, fmt::format("{:06o}", sum).append(1, '\0'));
    tar += block.replace(512, 5, "hello");
  }
  return tar + std::string(1024, '\0');
}

TEST_F(MemberStoreTest, HundredThousandMembersAreIndexedAtOnce) {
  folder_.Write("t.zip", ZipOfMany());
  folder_.Write("t.tar", TarOfMany());
  for (const char* name : {"t.zip", "t.tar"}) {
    Put(name);
    const std::clock_t began = std::clock();
    ASSERT_TRUE(Index());
    // (Of this process: the machine may have other things to do.)
    const double took = static_cast<double>(std::clock() - began) / CLOCKS_PER_SEC;
    EXPECT_EQ(content_->index->file_count(), 100'000U);
    EXPECT_EQ(Read("train/345/012345.jpg").value_or("?"), "hello");
    std::printf("%s: 100,000 members indexed in %.2f s of processor time\n", name, took);
  }
}

TEST_F(MemberStoreTest, ForgedPlacesAreErrors) {
  MakeFiles(folder_);
  folder_.Run("zip -q -r t.zip d; tar -cf t.tar d");
  for (const char* name : {"t.zip", "t.tar"}) {
    Put(name);
    ASSERT_TRUE(Index());
    const auto files = Files();
    std::vector<std::string> etags;
    for (const auto& [path, file] : files) etags.push_back(content_->index->file(file).etag.str());
    constexpr std::string_view kAlphabet = "0123456789abcdef:+ziptar-x \0";
    int read = 0, refused = 0;
    for (int i = 0; i < 20'000; ++i) {
      const std::string& real = etags[random_() % etags.size()];
      std::string etag = real;
      for (int n = static_cast<int>(random_() % 3); n >= 0; --n) {
        const std::size_t at = random_() % etag.size();
        const char c = kAlphabet[random_() % kAlphabet.size()];
        switch (random_() % 3) {
          case 0:
            etag[at] = c;
            break;
          case 1:
            etag.insert(at, 1, c);
            break;
          default:
            if (etag.size() > 1) etag.erase(at, 1);
        }
      }
      const auto place = PlaceOf(etag, archive_.size);
      EXPECT_TRUE(!place || EtagOf(*place) == etag) << etag;
      if (place && i % 20 != 0 && name == std::string_view("t.zip")) continue;  // takes its time
      store::ReadOptions options;
      options.if_version.etag = etag;
      std::uint64_t got = 0;
      const Status done = members_->Read("forged", options,
                                         [&](std::span<const std::byte> piece) -> Status {
                                           got += piece.size();
                                           return {};
                                         },
                                         {});
      if (done) {
        ++read;
        ASSERT_TRUE(place);
        EXPECT_EQ(got, place->size);
        // (The same bytes may be named otherwise.)
        EXPECT_TRUE(etag == real || place->crc == PlaceOf(real, archive_.size)->crc) << etag;
      } else {
        ++refused;
        EXPECT_EQ(done.error().code(), Errc::kCorrupt) << etag << ": " << done.error().message();
      }
    }
    EXPECT_GT(refused, 1000);
  }
  for (const char* etag :
       {"zip:18446744073709551615+31:0:1:1:00000000", "zip:0+18446744073709551615:0:1:1:00000000",
        "zip:0+18446744073709551616:0:1:1:00000000", "tar:1+18446744073709551615:00000000",
        "tar:01+1:00000000", "tar:+1+1:00000000", "tar:0+1:0000000", "tar:0+1:0000000A",
        "tar:0+1:000000000", "zip:0+31:0:1:2:00000000", "zip:0+31:8:1:2000:00000000",
        "zip:0+30:0:1:1:00000000", "zip:0+29:0:0:0:00000000", "zip:0+31:12:1:1:00000000",
        "zip:0+31:65536:1:1:00000000", "zip:", "tar:", "", "0cc175b9c0f1b6a831c399e269772661"})
    EXPECT_FALSE(PlaceOf(etag, 1000)) << etag;
  EXPECT_TRUE(PlaceOf("tar:0+0:00000000", 1000));
  EXPECT_TRUE(PlaceOf("zip:969+31:8:1:1031:00000000", 1000));
}

}  // namespace
}  // namespace leat::archive
