// Reads the folder of tests/golden/cache, which every later version must read
// (docs/formats/cache.md). LEAT_WRITE_GOLDEN=DIR writes today's there.
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>

#include "cache/cache.h"
#include "cache/disk.h"
#include "testing/source_root.h"

namespace leat::cache {
namespace {

namespace fs = std::filesystem;

/// Compresses well, and no two places within 100 KB are alike.
std::string Text(const std::string& name, std::uint64_t size) {
  std::string out;
  for (int line = 0; out.size() < size; ++line) out += name + " " + std::to_string(line) + "\n";
  out.resize(size);
  return out;
}

struct Entry {
  std::string name;
  std::uint64_t size;
  FileKey key() const { return {Identity::Of(name), size}; }
};
const std::vector<Entry> kSmall = {
    {"one byte", 1}, {"a page", 4096}, {"odd", 12345}, {"largest", kLargeFile - 1}};
const Entry kWhole = {"whole", kLargeFile + 1};
const Entry kPart = {"part", 3 * kBlock * 8 + 5};

class FromText final : public Fetcher {
 public:
  FromText(std::string text, bool may) : text_(std::move(text)), may_(may) {}
  Status Fetch(std::uint64_t offset, std::uint64_t length, const Sink& sink,
               const CallContext&) override {
    if (!may_) return Fail(Errc::kUnavailable, "it should have been here");
    return sink(AsBytes(text_).subspan(offset, length));
  }

 private:
  const std::string text_;
  const bool may_;
};

class GoldenCache : public ::testing::Test {
 protected:
  std::unique_ptr<Cache> Open(const std::string& dir) {
    CacheOptions options;
    options.dir = dir;
    options.limit_bytes = 100 * kMiB;
    options.budget = &budget_;
    return Cache::Open(options);
  }
  MemoryBudget budget_{64 * kMiB};
};

TEST_F(GoldenCache, EveryEntryOfVersion1IsFoundAndItsBytesAreRight) {
  const fs::path golden = testing::SourceRoot() / "tests/golden/cache/v1";
  ASSERT_TRUE(fs::exists(golden)) << golden;
  char path[] = "/tmp/leat-golden-test-XXXXXX";
  const std::string root = ::mkdtemp(path);
  const std::string dir = root + "/cache";
  fs::copy(golden, dir, fs::copy_options::recursive);
  ASSERT_EQ(::chmod(dir.c_str(), 0700), 0);
  {
    auto cache = Open(dir);
    ASSERT_EQ(cache->problem(), "");
    for (const Entry& entry : kSmall) {
      for (int i = 0; i < 2; ++i) {  // read and checked, then from the mapping
        const auto data = cache->FindSmall(entry.key());
        ASSERT_TRUE(data) << entry.name;
        EXPECT_TRUE(AsText(data->bytes) == Text(entry.name, entry.size)) << entry.name;
      }
    }
    EXPECT_FALSE(cache->FindSmall(FileKey{Identity::Of("absent"), 5}));
    EXPECT_FALSE(cache->FindSmall(FileKey{Identity::Of("odd"), 12346})) << "another size";
    const auto lease = cache->Hold("golden");
    EXPECT_EQ(cache->PresentBytes(kWhole.key()), kWhole.size);
    EXPECT_EQ(cache->PresentBytes(kPart.key()), kBlock + 5);
    const auto whole = cache->OpenLarge(
        kWhole.key(), lease, std::make_unique<FromText>(Text(kWhole.name, kWhole.size), false));
    EXPECT_TRUE(whole->complete());
    const auto data = whole->Read(0, kWhole.size, {});
    ASSERT_TRUE(data) << data.error().message();
    EXPECT_TRUE(AsText(data->bytes) == Text(kWhole.name, kWhole.size));
    const auto part = cache->OpenLarge(
        kPart.key(), lease, std::make_unique<FromText>(Text(kPart.name, kPart.size), false));
    const auto middle = part->Read(5 * kBlock, kBlock, {});
    ASSERT_TRUE(middle) << middle.error().message();
    EXPECT_TRUE(AsText(middle->bytes) == Text(kPart.name, kPart.size).substr(5 * kBlock, kBlock));
    EXPECT_TRUE(part->Read(24 * kBlock, 5, {}));
    EXPECT_FALSE(part->Read(0, 1, {})) << "not here, and not to be had";
  }
  const auto stat = Cache::Stat(dir, 100 * kMiB);
  ASSERT_TRUE(stat);
  EXPECT_EQ(stat->small_files, kSmall.size());
  EXPECT_EQ(stat->segments, 1u);
  EXPECT_EQ(stat->large_files, 2u);
  EXPECT_EQ(stat->trees, 1u);
  EXPECT_EQ(stat->tree_bytes, 12288u);
  ASSERT_TRUE(os::RemoveTree(root));
}

TEST_F(GoldenCache, TodaysWriterWritesWhatItReads) {
  const char* to = std::getenv("LEAT_WRITE_GOLDEN");
  char path[] = "/tmp/leat-golden-test-XXXXXX";
  const std::string root = to == nullptr ? ::mkdtemp(path) : "";
  const std::string dir = to == nullptr ? root + "/cache" : std::string(to);
  {
    auto cache = Open(dir);
    ASSERT_EQ(cache->problem(), "");
    const auto lease = cache->Hold("golden");
    for (const Entry& entry : kSmall) {
      FromText fetcher(Text(entry.name, entry.size), true);
      ASSERT_TRUE(cache->ReadSmall(entry.key(), *lease, fetcher, {}));
    }
    const auto whole = cache->OpenLarge(
        kWhole.key(), lease, std::make_unique<FromText>(Text(kWhole.name, kWhole.size), true));
    ASSERT_TRUE(whole->Complete(kMiB, {}));
    const auto part = cache->OpenLarge(
        kPart.key(), lease, std::make_unique<FromText>(Text(kPart.name, kPart.size), true));
    ASSERT_TRUE(part->Read(5 * kBlock, kBlock, {}));
    ASSERT_TRUE(part->Read(24 * kBlock, 5, {}));
    const std::string tree = cache->trees_dir() + "/" + Identity::Of("tree").Hex();
    ASSERT_TRUE(
        os::WriteFileAtomic(tree + ".lease", "12288 3 6c1ebc7b-0000-4000-8000-000000000000 1\n"));
    ASSERT_TRUE(os::MakeDirs(tree + "/folder"));
    ASSERT_TRUE(os::WriteFileAtomic(tree + "/folder/file", "in a tree\n"));
  }
  // The index's first entry and the segment's first record are where the document says.
  const Identity id = kSmall[0].key().id;
  const std::string index = *os::ReadFile(dir + "/index");
  const std::size_t slot = 4096 + 32 * (id.word[0] % (1 << 14));
  EXPECT_EQ(index.substr(0, 8), "LEATIDX1");
  EXPECT_EQ(index.substr(slot, 16), std::string("\1\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0", 16));
  EXPECT_EQ(std::memcmp(index.data() + slot + 16, &id, 16), 0);
  const std::string record =
      *os::ReadFile(dir + "/seg/" + OwnerName(OwnerOf("golden")) + "-00000001");
  EXPECT_EQ(record.substr(0, 8), std::string("LREC\1\0\0\0", 8));
  EXPECT_EQ(std::memcmp(record.data() + 8, &id, 16), 0);
  EXPECT_EQ(record.substr(40, 1), "o");
  EXPECT_EQ(record.substr(64, 4), "LREC");
  const std::string hex = kWhole.key().id.Hex();
  const std::string sums = *os::ReadFile(dir + "/files/" + hex.substr(0, 2) + "/" + hex + ".sums");
  EXPECT_EQ(sums.size(), 4096u + 9 * 8);
  EXPECT_EQ(sums.substr(0, 8), "LLTSUMS1");
  EXPECT_EQ(sums.substr(56, 36), std::string(BootId().data(), 36)) << "verified, this boot";
  EXPECT_EQ(os::ReadFile(dir + "/state")->substr(24, 36), std::string(BootId().data(), 36));
  EXPECT_EQ(*os::ReadFile(dir + "/format"), "leat cache 1\n");
  if (to == nullptr) {
    ASSERT_TRUE(os::RemoveTree(root));
  }
}

}  // namespace
}  // namespace leat::cache
