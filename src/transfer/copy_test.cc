#include "transfer/copy.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "base/bytes.h"
#include "os/file.h"
#include "store/forwarding_store.h"
#include "store/memory/memory_store.h"
#include "testing/fault_store.h"
#include "transfer/partial_file.h"
#include "transfer/upload.h"

namespace leat::transfer {
namespace {

using testing::Fault;
using testing::FaultStore;
using testing::Op;

std::string Noise(std::size_t size, std::uint32_t x = 1) {
  std::string text(size, '\0');
  for (char& c : text) {
    x = x * 1664525u + 1013904223u;
    c = static_cast<char>(x >> 24);
  }
  return text;
}

class CopyTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char path[] = "/tmp/leat-copy-test-XXXXXX";
    root_ = ::mkdtemp(path);
    Reset(store::memory::MakeMemoryStore("memory://one", 1000));
  }
  void TearDown() override { ASSERT_TRUE(os::RemoveTree(root_)); }

  void Reset(std::unique_ptr<store::ObjectStore> inner) {
    auto faults = std::make_unique<FaultStore>(std::move(inner));
    faults_ = faults.get();
    store_ = std::move(faults);
  }
  void Write(const std::string& path, std::string_view text) {
    const std::string whole = root_ + "/" + path;
    ASSERT_TRUE(os::MakeDirs(whole.substr(0, whole.rfind('/'))));
    ASSERT_TRUE(os::WriteFileAtomic(whole, text));
  }
  std::string ReadBack(const std::string& path) {
    auto text = os::ReadFile(root_ + "/" + path, 1 << 30);
    return text ? *text : "(none)";
  }
  std::string Object(const std::string& key) {
    std::string out;
    const Status read = store_->Read(key, {},
                                     [&](std::span<const std::byte> piece) -> Status {
                                       out += AsText(piece);
                                       return {};
                                     },
                                     {});
    return read ? out : "(none)";
  }
  Place Folder(const std::string& name) {
    Place place;
    place.folder = root_ + "/" + name;
    place.url = place.folder;
    return place;
  }
  Place Prefix(const std::string& prefix) {
    Place place;
    place.store = store_;
    place.prefix = prefix;
    place.url = "memory://one/" + prefix;
    return place;
  }
  CopyOptions Options(Place from, Place to) {
    CopyOptions options;
    options.from = std::move(from);
    options.to = std::move(to);
    options.budget = &budget_;
    options.state_dir = root_ + "/state";
    return options;
  }
  CopyReport Run(const CopyOptions& options) {
    CopyProgress progress;
    auto report = Copy(options, {}, &progress);
    EXPECT_TRUE(report) << report.error().message();
    return report ? *std::move(report) : CopyReport();
  }
  std::vector<std::string> Hidden(const std::string& folder) {
    std::vector<std::string> out;
    const auto names = os::ListDir(root_ + "/" + folder);
    if (!names) return out;
    for (const std::string& name : *names) {
      if (name.starts_with(kTemporary)) out.push_back(name);
    }
    return out;
  }

  std::string root_;
  MemoryBudget budget_{64 * kMiB};
  std::shared_ptr<store::ObjectStore> store_;
  FaultStore* faults_ = nullptr;
};

/// Changes a byte of what is read.
class Liar final : public store::ForwardingStore {
 public:
  using ForwardingStore::ForwardingStore;
  Status Read(std::string_view key, const store::ReadOptions& options, const store::Sink& sink,
              const CallContext& ctx) override {
    return inner().Read(
        key, options,
        [&](std::span<const std::byte> piece) {
          std::vector<std::byte> wrong(piece.begin(), piece.end());
          wrong[0] ^= std::byte{1};
          return sink(wrong);
        },
        ctx);
  }
};

TEST_F(CopyTest, ThereAndBackItIsTheSame) {
  Write("a/x", "one");
  Write("a/sub/y", Noise(100'000));
  Write("a/zero", "");
  Write("a/large", Noise(20'000'000, 7));
  auto up = Options(Folder("a"), Prefix("p/"));
  up.cutoff = kMiB;
  CopyReport report = Run(up);
  EXPECT_EQ(report.files, 4u);
  EXPECT_EQ(report.errors, 0u);
  EXPECT_EQ(Object("p/sub/y"), Noise(100'000));
  EXPECT_EQ(Object("p/large"), Noise(20'000'000, 7));
  EXPECT_EQ(os::ListDir(root_ + "/state")->size(), 0u);
  auto down = Options(Prefix("p/"), Folder("b"));
  down.cutoff = kMiB;
  report = Run(down);
  EXPECT_EQ(report.files, 4u);
  EXPECT_EQ(report.verified["MD5"], 4u);
  EXPECT_EQ(ReadBack("b/large"), Noise(20'000'000, 7));
  EXPECT_EQ(ReadBack("b/zero"), "");
  struct stat one, two;
  ::stat((root_ + "/a/x").c_str(), &one);
  ::stat((root_ + "/b/x").c_str(), &two);
  EXPECT_EQ(one.st_mtim.tv_nsec, two.st_mtim.tv_nsec);
  EXPECT_TRUE(Hidden("b").empty());
  EXPECT_EQ(Run(down).same, 4u);
  EXPECT_EQ(Run(up).same, 4u);
}

TEST_F(CopyTest, BytesThatAreNotWhatTheStorePromisedGetNoName) {
  Write("a/x", Noise(5000));
  Write("a/large", Noise(5'000'000));
  Run(Options(Folder("a"), Prefix("")));
  auto options = Options(Prefix(""), Folder("b"));
  options.from.store = std::make_shared<Liar>(store_);
  options.cutoff = kMiB;
  const CopyReport report = Run(options);
  EXPECT_EQ(report.errors, 2u);
  EXPECT_EQ(ReadBack("b/x"), "(none)");
  EXPECT_EQ(ReadBack("b/large"), "(none)");
  EXPECT_TRUE(Hidden("b").empty());
  options.verify = false;
  EXPECT_EQ(Run(options).errors, 0u);
  EXPECT_NE(ReadBack("b/x"), Noise(5000));
}

/// As S3 stores what came in parts: the etag is made of their MD5s, and their sizes are told when
/// asked for.
class InParts final : public store::ForwardingStore {
 public:
  InParts(std::shared_ptr<store::ObjectStore> inner, std::vector<std::uint64_t> sizes,
          const std::string& body, bool tells)
      : ForwardingStore(std::move(inner)), tells_(tells) {
    digest::Hasher all(digest::Kind::kMd5);
    std::uint64_t at = 0;
    for (const std::uint64_t size : sizes) {
      digest::Hasher md5(digest::Kind::kMd5);
      md5.Update(AsBytes(std::string_view(body).substr(at, size)));
      all.Update(AsBytes(md5.Finish()));
      parts_.push_back({size, ""});
      at += size;
    }
    etag_ = ToHex(AsBytes(all.Finish())) + "-" + std::to_string(sizes.size());
  }
  Result<store::ObjectInfo> Stat(std::string_view key, std::string_view version,
                                 const CallContext& ctx) override {
    LEAT_ASSIGN_OR_RETURN(store::ObjectInfo info, inner().Stat(key, version, ctx));
    return Shown(std::move(info));
  }
  Result<store::ListPage> List(std::string_view prefix, const store::ListOptions& options,
                               const CallContext& ctx) override {
    LEAT_ASSIGN_OR_RETURN(store::ListPage page, inner().List(prefix, options, ctx));
    for (auto& info : page.objects) info = Shown(std::move(info));
    return page;
  }
  Status Read(std::string_view key, const store::ReadOptions& options, const store::Sink& sink,
              const CallContext& ctx) override {
    store::ReadOptions theirs = options;
    theirs.if_version = {};
    theirs.on_info = [&](const store::ObjectInfo& info) {
      return options.on_info ? options.on_info(Shown(info)) : Status();
    };
    return inner().Read(key, theirs, sink, ctx);
  }
  Result<std::vector<store::PartDigest>> PartDigests(std::string_view, const store::Version&,
                                                     const CallContext&) override {
    ++asked;
    if (busy) return Fail(Errc::kUnavailable, "not now");
    if (!tells_) return Fail(Errc::kUnsupported, "not told");
    return parts_;
  }
  int asked = 0;
  bool busy = false;

 private:
  store::ObjectInfo Shown(store::ObjectInfo info) const {
    info.version = {.etag = etag_};
    info.in_parts = true;
    info.expected = std::nullopt;
    return info;
  }
  const bool tells_;
  std::string etag_;
  std::vector<store::PartDigest> parts_;
};

TEST_F(CopyTest, ObjectsInPartsAreHeldToThemWhateverTheirSizes) {
  const std::string body = Noise(9'000'000);
  for (const std::uint64_t cutoff : {kMiB, 100 * kMiB}) {
    for (const std::vector<std::uint64_t>& sizes :
         {std::vector<std::uint64_t>{8 * kMiB, 9'000'000 - 8 * kMiB},
          {3'000'000, 2'000'000, 4'000'000},
          {8'999'999, 1}}) {
      SCOPED_TRACE(sizes[0]);
      const bool usual = sizes[0] == 8 * kMiB;
      Write("a/x", body);
      Run(Options(Folder("a"), Prefix("")));
      const auto copy = [&](bool tells, int* asked) {
        EXPECT_TRUE(os::RemoveTree(root_ + "/b"));
        auto parts = std::make_shared<InParts>(store_, sizes, body, tells);
        auto options = Options(Prefix(""), Folder("b"));
        options.from.store = parts;
        options.cutoff = cutoff;
        CopyReport report = Run(options);
        const auto check = [&] {
          CopyProgress progress;
          auto checked = Check(options, {}, &progress);
          EXPECT_TRUE(checked) << checked.error().message();
          return *std::move(checked);
        };
        *asked = parts->asked;
        if (report.unverified == 0 && tells) {
          EXPECT_EQ(check().differ.size(), 0u);
          EXPECT_EQ(check().by_size_alone, 0u);
          std::string other = body;
          other[8'999'999] ^= 1;
          Write("b/x", other);
          EXPECT_EQ(check().by_size_alone, 1u);
        }
        return report;
      };
      int asked = 0;
      CopyReport report = copy(true, &asked);
      EXPECT_EQ(report.verified["MD5 of each part"], 1u);
      EXPECT_EQ(asked, usual ? 0 : 1);
      report = copy(false, &asked);
      EXPECT_EQ(report.unverified, usual ? 0u : 1u);
      // The store holds other bytes than it promised.
      std::string wrong = body;
      wrong[0] ^= 1;
      ASSERT_TRUE(store_->Put("x", AsBytes(wrong), {}, {}));
      for (const bool tells : {true, false}) {
        report = copy(tells, &asked);
        EXPECT_EQ(report.unverified, 1u) << "its etag may be made of something else";
      }
    }
  }
}

TEST_F(CopyTest, FromStoreToStoreWhatArrivesIsHeldToWhatTheSourceSays) {
  const std::string small = Noise(5000), large = Noise(20'000'000);
  const std::shared_ptr<store::ObjectStore> other =
      store::memory::MakeMemoryStore("memory://two", 1000);
  ASSERT_TRUE(other->Put("small", AsBytes(small), {}, {}));
  ASSERT_TRUE(other->Put("large", AsBytes(large), {}, {}));
  auto options =
      Options({.store = other, .prefix = "", .folder = "", .url = "memory://two/"}, Prefix("to/"));
  options.cutoff = kMiB;
  CopyReport report = Run(options);
  EXPECT_EQ(report.files, 2u);
  EXPECT_EQ(report.verified["MD5"], 2u);
  EXPECT_EQ(Object("to/large"), large);
  // In parts: of the size of the target's own, and of another that it can take over.
  const std::uint64_t rest = 20'000'000 - 6'000'000;
  for (const auto& sizes : {std::vector<std::uint64_t>{8 * kMiB, 8 * kMiB, 20'000'000 - 16 * kMiB},
                            {5 * kMiB, 5 * kMiB, 5 * kMiB, 20'000'000 - 15 * kMiB}}) {
    options.from.store = std::make_shared<InParts>(other, sizes, large, true);
    options.from.only = "large";
    options.to = Prefix("parts-" + std::to_string(sizes.size()) + "/");
    report = Run(options);
    EXPECT_EQ(report.verified["MD5 of each part"], 1u);
  }
  options.from.store =
      std::make_shared<InParts>(other, std::vector<std::uint64_t>{6'000'000, rest}, large, true);
  options.to = Prefix("odd/");
  EXPECT_EQ(Run(options).unverified, 1u);
  // Damaged on the way: no object, and no upload that waits for its rest.
  options.from.only.clear();
  options.from.store = std::make_shared<Liar>(other);
  options.to = Prefix("wrong/");
  report = Run(options);
  EXPECT_EQ(report.errors, 2u);
  EXPECT_EQ(Object("wrong/small"), "(none)");
  EXPECT_EQ(Object("wrong/large"), "(none)");
  EXPECT_EQ(os::ListDir(root_ + "/state")->size(), 0u);
}

TEST_F(CopyTest, WhereThePartsCannotBeAskedForNothingIsTakenForRight) {
  const std::string body = Noise(9'000'000);
  ASSERT_TRUE(store_->Put("x", AsBytes(body), {}, {}));
  const auto parts = std::make_shared<InParts>(
      store_, std::vector<std::uint64_t>{3'000'000, 6'000'000}, body, true);
  parts->busy = true;
  auto options = Options(Prefix(""), Folder("b"));
  options.from.store = parts;
  options.cutoff = kMiB;
  EXPECT_EQ(Run(options).errors, 1u);
  EXPECT_EQ(ReadBack("b/x"), "(none)");
  parts->busy = false;
  EXPECT_EQ(Run(options).verified["MD5 of each part"], 1u);
}

/// Has a CRC32C, as S3 keeps for what was sent with one, where its listing has an MD5.
class WithCrc final : public store::ForwardingStore {
 public:
  WithCrc(std::shared_ptr<store::ObjectStore> inner, std::string_view body)
      : ForwardingStore(std::move(inner)) {
    digest::Hasher crc(digest::Kind::kCrc32c);
    crc.Update(AsBytes(body));
    crc_ = crc.Finish();
  }
  Result<store::ObjectInfo> Stat(std::string_view key, std::string_view version,
                                 const CallContext& ctx) override {
    LEAT_ASSIGN_OR_RETURN(store::ObjectInfo info, inner().Stat(key, version, ctx));
    info.expected = digest::Expected{digest::Kind::kCrc32c, crc_};
    return info;
  }

 private:
  std::string crc_;
};

TEST_F(CopyTest, WhatDiffersIsNotTakenForTheSameWhereTheStoreKeepsAnotherDigest) {
  Write("a/x", "one");
  ASSERT_TRUE(store_->Put("x", AsBytes("two"), {}, {}));
  auto options = Options(Folder("a"), Prefix(""));
  options.to.store = std::make_shared<WithCrc>(store_, "two");
  CopyProgress progress;
  const auto report = Check(options, {}, &progress);
  ASSERT_TRUE(report) << report.error().message();
  EXPECT_EQ(report->differ.size(), 1u);
  options.compare = Compare::kChecksum;
  EXPECT_EQ(Run(options).files, 1u);
  EXPECT_EQ(Object("x"), "one");
}

/// A server that copies by itself, no more than 8 MiB with one request.
class CopiesParts final : public store::ForwardingStore {
 public:
  using ForwardingStore::ForwardingStore;
  store::Capabilities capabilities() const override {
    store::Capabilities can = inner().capabilities();
    can.copy_parts = true;
    return can;
  }
  store::UploadLimits upload_limits() const override {
    store::UploadLimits limits = inner().upload_limits();
    limits.max_put = 8 * kMiB;
    return limits;
  }
  Status Read(std::string_view key, const store::ReadOptions& options, const store::Sink& sink,
              const CallContext& ctx) override {
    ++reads;
    return inner().Read(key, options, sink, ctx);
  }
  Result<store::Part> CopyPart(std::string_view, std::string_view source, const store::Version&,
                               std::uint64_t offset, std::uint64_t length, std::string_view key,
                               std::string_view upload, std::size_t number,
                               const CallContext& ctx) override {
    if (before_part) LEAT_RETURN_IF_ERROR(before_part(number));
    std::string body;
    LEAT_RETURN_IF_ERROR(inner().Read(
        source, {.offset = offset, .length = length},
        [&](std::span<const std::byte> piece) -> Status {
          body += AsText(piece);
          return {};
        },
        ctx));
    ++parts;
    return inner().PutPart(key, upload, number, AsBytes(body), ctx);
  }
  std::function<Status(std::size_t)> before_part;
  bool knows_ranges = true;
  std::atomic<int> reads{0}, parts{0};
};

TEST_F(CopyTest, WhatIsTooLargeForOneCopyByTheServerIsCopiedInParts) {
  const std::string large = Noise(20'000'000);  // three parts
  ASSERT_TRUE(store_->Put("a/large", AsBytes(large), {}, {}));
  const auto server = std::make_shared<CopiesParts>(store_);
  auto options = Options(Prefix("a/"), Prefix("b/"));
  options.from.store = options.to.store = server;
  options.streams = 1;
  // The second part fails as when the line breaks, and the next attempt goes on.
  server->before_part = [](std::size_t number) {
    return number == 1 ? Status() : Fail(Errc::kUnavailable, "not now");
  };
  EXPECT_EQ(Run(options).errors, 1u);
  EXPECT_EQ(server->parts, 1);
  server->before_part = nullptr;
  CopyReport report = Run(options);
  EXPECT_EQ(report.verified["the store's own copy"], 1u);
  EXPECT_EQ(server->parts, 3);
  EXPECT_EQ(server->reads, 0);
  EXPECT_TRUE(Object("b/large") == large);
  // Replaced between two parts: neither the old nor the new one.
  options.to = Prefix("c/");
  options.to.store = server;
  server->before_part = [&](std::size_t number) -> Status {
    if (number != 2) return {};
    const auto put = store_->Put("a/large", AsBytes(Noise(20'000'000, 7)), {}, {});
    return put ? Status() : std::unexpected(put.error());
  };
  EXPECT_EQ(Run(options).errors, 1u);
  EXPECT_EQ(Object("c/large"), "(none)");
  EXPECT_EQ(os::ListDir(root_ + "/state")->size(), 0u);
  // Replaced and put back while it was interrupted: what was copied of the other one is not used.
  const auto put = [&](std::uint32_t seed) {
    ASSERT_TRUE(store_->Put("a/large", AsBytes(Noise(20'000'000, seed)), {}, {}));
  };
  const auto version = store_->Stat("a/large", "", {})->version;
  server->before_part = [&](std::size_t number) -> Status {
    if (number == 1) put(8);
    return number == 3 ? Fail(Errc::kUnavailable, "not now") : Status();
  };
  options.to = Prefix("e/");
  options.to.store = server;
  EXPECT_EQ(Run(options).errors, 1u);
  put(7);
  ASSERT_EQ(store_->Stat("a/large", "", {})->version.etag, version.etag);
  server->before_part = nullptr;
  EXPECT_EQ(Run(options).errors, 0u);
  EXPECT_TRUE(Object("e/large") == Noise(20'000'000, 7));
  // A server that takes the whole for each part: the bytes come here.
  server->before_part = nullptr;
  server->knows_ranges = false;
  options.to = Prefix("d/");
  options.to.store = server;
  EXPECT_EQ(Run(options).errors, 0u);
  EXPECT_TRUE(Object("d/large") == Noise(20'000'000, 7));
  // And one that refuses.
  options.to = Prefix("c/");
  options.to.store = server;
  server->before_part = [](std::size_t) { return Fail(Errc::kUnsupported, "no"); };
  EXPECT_EQ(Run(options).errors, 0u);
  EXPECT_TRUE(Object("c/large") == Noise(20'000'000, 7));
}

TEST_F(CopyTest, AFailedDownloadIsGoneOnWith) {
  Write("a/large", Noise(40'000'000));
  Run(Options(Folder("a"), Prefix("")));
  auto options = Options(Prefix(""), Folder("b"));
  options.cutoff = kMiB;
  options.streams = 1;
  faults_->Add(
      {.op = Op::kRead, .key = "large", .skip = 2, .times = 100, .code = Errc::kUnavailable});
  EXPECT_EQ(Run(options).errors, 1u);
  EXPECT_EQ(ReadBack("b/large"), "(none)");
  EXPECT_EQ(Hidden("b").size(), 1u);
  Reset(store::memory::MakeMemoryStore("memory://one", 1000));
  Run(Options(Folder("a"), Prefix("")));
  options.from.store = store_;
  const CopyReport report = Run(options);
  EXPECT_EQ(report.errors, 0u);
  EXPECT_EQ(report.resumed_bytes, 16 * kMiB);
  EXPECT_EQ(faults_->CountOf(Op::kRead), 3u);
  EXPECT_EQ(ReadBack("b/large"), Noise(40'000'000));
  EXPECT_TRUE(Hidden("b").empty());
}

TEST_F(CopyTest, WhatAnEarlierAttemptLeftOfAnotherVersionIsThrownAway) {
  const auto open = [&](std::string_view identity) {
    return PartialFile::Open(root_, "f", 3 * kMiB, identity, kMiB).value();
  };
  {
    const auto file = open("v1");
    ASSERT_TRUE(file->Write(AsBytes(std::string(kMiB, 'x')), 0));
    ASSERT_TRUE(file->Done(0));
  }
  EXPECT_TRUE(open("v1")->Has(0));
  EXPECT_FALSE(open("v1")->Has(1));
  {
    const auto other = open("v1");
    // Somebody else is at it: a file of one's own.
    const auto mine = PartialFile::Open(root_, "f", 3 * kMiB, "v1", kMiB).value();
    EXPECT_FALSE(mine->Has(0));
    EXPECT_EQ(Hidden(".").size(), 2u);
  }
  EXPECT_EQ(Hidden(".").size(), 1u);
  EXPECT_FALSE(open("v2")->Has(0));
  EXPECT_TRUE(Hidden(".").empty()) << "nothing of v2 was there";
}

TEST_F(CopyTest, AFileThatChangesWhileItIsCopiedIsNotStored) {
  Write("a/large", Noise(20'000'000));
  class Meddler final : public store::ForwardingStore {
   public:
    Meddler(std::shared_ptr<store::ObjectStore> inner, std::string path)
        : ForwardingStore(std::move(inner)), path_(std::move(path)) {}
    Result<store::Part> PutPart(std::string_view key, std::string_view upload, std::size_t number,
                                std::span<const std::byte> body, const CallContext& ctx) override {
      EXPECT_EQ(::truncate(path_.c_str(), 10'000'000), 0);
      return inner().PutPart(key, upload, number, body, ctx);
    }
    const std::string path_;
  };
  auto options = Options(Folder("a"), Prefix(""));
  options.to.store = std::make_shared<Meddler>(store_, root_ + "/a/large");
  options.cutoff = kMiB;
  const CopyReport report = Run(options);
  ASSERT_EQ(report.errors, 1u);
  EXPECT_NE(report.failed[0].second.find("was changed while it was copied"), std::string::npos);
  EXPECT_EQ(Object("large"), "(none)");
  EXPECT_EQ(os::ListDir(root_ + "/state")->size(), 0u) << "the upload was taken away";
}

TEST_F(CopyTest, DeletionsWaitForAllCopiesAndStopAtAnError) {
  Write("a/x", "new");
  Write("b/x", "old");
  Write("b/extra", "extra");
  Run(Options(Folder("b"), Prefix("")));
  auto options = Options(Folder("a"), Prefix(""));
  options.extraneous = Extraneous::kDeleteAfter;
  faults_->Add({.op = Op::kPut, .key = "x", .times = 1, .code = Errc::kDenied});
  CopyReport report = Run(options);
  EXPECT_EQ(report.deleted, 0u);
  EXPECT_EQ(report.errors, 2u);
  EXPECT_EQ(Object("extra"), "extra");
  report = Run(options);
  EXPECT_EQ(report.deleted, 1u);
  EXPECT_EQ(Object("extra"), "(none)");
  EXPECT_EQ(Object("x"), "new");
}

TEST_F(CopyTest, KeysThatAreNoFilesAreNamedAndTheRestArrives) {
  ASSERT_TRUE(store_->Put("p/../evil", AsBytes("x"), {}, {}));
  ASSERT_TRUE(store_->Put("p/a//b", AsBytes("x"), {}, {}));
  ASSERT_TRUE(store_->Put("p/good", AsBytes("x"), {}, {}));
  ASSERT_TRUE(store_->Put("p/folder/", AsBytes(""), {}, {}));
  ASSERT_TRUE(store_->Put("p/full/", AsBytes("contents"), {}, {}));
  const CopyReport report = Run(Options(Prefix("p/"), Folder("b")));
  EXPECT_EQ(report.errors, 3u);
  EXPECT_EQ(report.files, 1u);
  EXPECT_EQ(ReadBack("evil"), "(none)");
  EXPECT_EQ(ReadBack("b/good"), "x");
  // To a store all of it can go.
  EXPECT_EQ(Run(Options(Prefix("p/"), Prefix("q/"))).files, 4u);
  EXPECT_EQ(Object("q/full/"), "contents");
}

TEST_F(CopyTest, CheckSaysWhatDiffers) {
  Write("a/same", "1");
  Write("a/other", "1");
  Write("a/here", "1");
  Run(Options(Folder("a"), Prefix("")));
  Write("a/other", "2");
  Write("a/new", "1");
  ::unlink((root_ + "/a/here").c_str());
  CopyProgress progress;
  const auto report = Check(Options(Folder("a"), Prefix("")), {}, &progress);
  ASSERT_TRUE(report);
  EXPECT_EQ(report->same, std::vector<std::string>{"same"});
  EXPECT_EQ(report->differ, std::vector<std::string>{"other"});
  EXPECT_EQ(report->missing_at_source, std::vector<std::string>{"here"});
  EXPECT_EQ(report->missing_at_target, std::vector<std::string>{"new"});
}

TEST_F(CopyTest, SparseFilesStaySparse) {
  ASSERT_TRUE(os::MakeDirs(root_ + "/a"));
  {
    const auto fd = os::Open(root_ + "/a/sparse", O_RDWR | O_CREAT).value();
    ASSERT_EQ(::ftruncate(fd.get(), 100 << 20), 0);
    ASSERT_TRUE(os::PwriteAll(fd.get(), AsBytes("in the middle"), 50 << 20));
  }
  EXPECT_EQ(Run(Options(Folder("a"), Folder("b"))).errors, 0u);
  struct stat st;
  ASSERT_EQ(::stat((root_ + "/b/sparse").c_str(), &st), 0);
  EXPECT_EQ(st.st_size, 100 << 20);
  EXPECT_LT(st.st_blocks * 512, 4 << 20);
  EXPECT_EQ(ReadBack("b/sparse"), ReadBack("a/sparse"));
}

TEST(UploadNote, IsReadAsItWasWrittenAndNothingElseIs) {
  const UploadNote note{"store one", "a key\n%", "id/=", 8 << 20, "path 1 2"};
  const auto read = UploadNote::Decode(note.Encode());
  ASSERT_TRUE(read);
  EXPECT_EQ(read->store, note.store);
  EXPECT_EQ(read->key, note.key);
  EXPECT_EQ(read->upload, note.upload);
  EXPECT_EQ(read->part_size, note.part_size);
  EXPECT_EQ(read->source, note.source);
  const std::string text = note.Encode();
  for (std::size_t size = 0; size < text.size(); ++size)
    EXPECT_FALSE(UploadNote::Decode(text.substr(0, size))) << size;
}

}  // namespace
}  // namespace leat::transfer
