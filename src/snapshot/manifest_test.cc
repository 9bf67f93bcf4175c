#include "snapshot/manifest.h"

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "digest/digest.h"
#include "snapshot/builder.h"
#include "store/memory/memory_store.h"

namespace leat::snapshot {
namespace {

Manifest Some() {
  Manifest m;
  m.entries = {
      {.path = "-", .size = 0, .mtime_ns = -1, .etag = "", .key = ""},
      {.path = "a b/\n%", .size = 7, .mtime_ns = 1577934245000000001, .etag = "-", .key = ""},
      {.path = "x", .size = INT64_MAX, .mtime_ns = 0, .etag = "e-2", .key = ".leat/new/x"}};
  return m;
}

TEST(Manifest, IsReadAsItWasWritten) {
  const std::string text = Some().Encode();
  EXPECT_EQ(text.substr(0, text.find("sha256")),
            "leat-manifest 1\n"
            "0 -1 - %2D -\n"
            "7 1577934245000000001 %2D a%20b/%0A%25 -\n"
            "9223372036854775807 0 e-2 x .leat/new/x\n");
  const auto read = Manifest::Decode(text);
  ASSERT_TRUE(read) << read.error().message();
  EXPECT_EQ(read->entries, Some().entries);
  EXPECT_EQ(read->Encode(), text);
  EXPECT_EQ(read->Moved("p/"), (KeyMap{{"p/x", "p/.leat/new/x"}}));
  EXPECT_EQ(Manifest::Decode(Manifest().Encode())->entries.size(), 0u);
}

TEST(Manifest, WhatIsNotExactlyOneIsRefused) {
  const std::string good = Some().Encode();
  for (std::size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ 1);
    EXPECT_FALSE(Manifest::Decode(bad)) << i;
    EXPECT_FALSE(Manifest::Decode(good.substr(0, i))) << i;
  }
  EXPECT_FALSE(Manifest::Decode(good + "\n"));
  EXPECT_NE(Manifest::Decode("leat-manifest 2\n").error().message().find("version"),
            std::string::npos);
  for (const char* line : {"007 0 - a -\n", "0 -0 - a -\n", "0 0 - a\n", "0 0 - a - -\n",
                           "0 0 - a - \n", "0 0 %2d a -\n"}) {
    const std::string text = std::string("leat-manifest 1\n") + line;
    EXPECT_FALSE(
        Manifest::Decode(text + "sha256 " + ToHex(digest::HashSha256(AsBytes(text))) + "\n"))
        << line;
  }
  // Right sums do not make wrong lines right.
  const auto refused = [](std::vector<ManifestEntry> entries) {
    Manifest m;
    m.entries = std::move(entries);
    EXPECT_FALSE(Manifest::Decode(m.Encode()));
  };
  refused({{.path = "b", .etag = {}, .key = {}}, {.path = "a", .etag = {}, .key = {}}});
  refused({{.path = "a", .etag = {}, .key = {}}, {.path = "a", .etag = {}, .key = {}}});
  refused({{.path = "", .etag = {}, .key = {}}});
  refused({{.path = "a", .etag = {}, .key = "a"}});
  refused({{.path = "a", .size = UINT64_MAX, .etag = {}, .key = {}}});
}

class FolderTest : public ::testing::Test {
 protected:
  store::Version Put(const std::string& key, const std::string& text) {
    const auto version = store_->Put(key, AsBytes(text), {}, {});
    EXPECT_TRUE(version);
    return version.value_or(store::Version());
  }
  std::unique_ptr<store::ObjectStore> store_ = store::memory::MakeMemoryStore("mem://bucket");
};

TEST_F(FolderTest, ShowsWhatItsManifestSaysAndNothingElse) {
  Put("p/old", "seen by nobody");
  Put("p/.leat/new/x", "staged");
  Put("p/x", "replaced");
  Builder before("store", "p/");
  const auto plain = BuildFromListing(*store_, "p/", {}, {}, before);
  ASSERT_TRUE(plain) << plain.error().message();
  EXPECT_TRUE(plain->empty());

  Manifest m;
  m.entries = {{.path = "x",
                .size = 6,
                .mtime_ns = 5,
                .etag = store_->Stat("p/.leat/new/x", "", {})->version.etag,
                .key = ".leat/new/x"}};
  Put("p/.leat/manifest", m.Encode());
  Builder builder("store", "p/");
  const auto moved = BuildFromListing(*store_, "p/", {}, {}, builder);
  ASSERT_TRUE(moved) << moved.error().message();
  EXPECT_EQ(*moved, (KeyMap{{"p/x", "p/.leat/new/x"}}));

  Put("p/.leat/manifest", "leat-manifest 1\n");
  Builder damaged("store", "p/");
  const auto refused = BuildFromListing(*store_, "p/", {}, {}, damaged);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Errc::kCorrupt);
  EXPECT_NE(refused.error().message().find("p/.leat/manifest"), std::string::npos);
}

}  // namespace
}  // namespace leat::snapshot
