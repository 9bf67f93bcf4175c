#include "testing/conformance.h"

#include <algorithm>
#include <atomic>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "base/bytes.h"

namespace leat::testing {
namespace {

using store::ListOptions;
using store::ObjectInfo;
using store::ReadOptions;
using store::Version;

class PlainSubject final : public Subject {
 public:
  explicit PlainSubject(std::unique_ptr<store::ObjectStore> store) : store_(std::move(store)) {}
  store::ObjectStore& store() override { return *store_; }

 private:
  const std::unique_ptr<store::ObjectStore> store_;
};

/// Bytes of which no two short ranges are alike.
std::string Pattern(std::size_t size, std::uint32_t x = 12345) {
  std::string text(size, '\0');
  for (char& c : text) {
    x = x * 1664525u + 1013904223u;
    c = static_cast<char>(x >> 24);
  }
  return text;
}

/// Names that any file system holds, but that URLs, XML and shells trip over.
std::vector<std::string> AwkwardNames() {
  return {"with space",
          " leading and trailing ",
          "plus+plus",
          "per%cent",
          "%41%2f%zz",
          "question?mark",
          "hash#hash",
          "amp&amp;amp",
          "equals=equals",
          "single'quote",
          "double\"quote",
          "back\\slash",
          "less<than>greater",
          "semi;colon:comma,at@dollar$bang!star*paren()brackets[]braces{}tilde~caret^tick`pipe|",
          "umlaut-äöü",
          "combining-e\xcc\x81",
          "日本語/ファイル",
          "emoji-🐎.bin",
          "dot.",
          ".hidden",
          "...",
          "..a/b..",
          "~",
          "-dash",
          "year=2024/month=01/part-0.parquet",
          "]]>",
          "\xef\xbb\xbf"
          "bom",
          "nbsp\xc2\xa0nbsp",
          std::string("control-\x01-\x1f-\x7f"),
          "tab\tand\nnewline",
          "ends in cr\r"};
}

/// Names that are no relative path.
std::vector<std::string> NamesThatAreNoPath() {
  return {"a//b", "../x", "a/../b", "./a", "a/.", "a/..", "/leading", "trailing/", "//", "a///"};
}

std::string LongName() {
  std::string name;
  while (name.size() < 1024)
    name += std::string(199, static_cast<char>('a' + name.size() % 26)) + "/";
  name.resize(1024);
  name.back() = 'z';
  return name;
}

}  // namespace

Status Subject::Place(std::string_view name, std::string_view body) {
  LEAT_RETURN_IF_ERROR(store().Put(KeyOf(name), AsBytes(body), {}, {}));
  return {};
}

std::unique_ptr<Subject> MakeSubject(std::unique_ptr<store::ObjectStore> store) {
  return std::make_unique<PlainSubject>(std::move(store));
}

std::string NameOfCase(const ::testing::TestParamInfo<StoreCase>& info) { return info.param.name; }

void ObjectStoreSuite::SetUp() {
  subject_ = GetParam().make();
  ASSERT_NE(subject_, nullptr) << "the store could not be made; see above";
}

void ObjectStoreSuite::Place(std::string_view name, std::string_view body) {
  const auto placed = subject_->Place(name, body);
  ASSERT_TRUE(placed) << placed.error().message();
}

Result<std::string> ObjectStoreSuite::Read(std::string_view name, ReadOptions options) {
  std::string body;
  LEAT_RETURN_IF_ERROR(store().Read(
      KeyOf(name), options,
      [&](std::span<const std::byte> piece) -> Status {
        body += AsText(piece);
        return {};
      },
      ctx_));
  return body;
}

std::vector<std::string> ObjectStoreSuite::ListAll(std::string_view prefix, std::size_t max_keys,
                                                   std::string start_after, bool with_versions) {
  std::vector<std::string> keys;
  ListOptions options{
      .start_after = std::move(start_after), .max_keys = max_keys, .with_versions = with_versions};
  for (;;) {
    const auto page = store().List(prefix, options, ctx_);
    if (!page) {
      ADD_FAILURE() << page.error().message();
      return keys;
    }
    if (max_keys > 0) {
      EXPECT_LE(page->objects.size(), max_keys);
    }
    for (const ObjectInfo& info : page->objects) {
      EXPECT_GT(info.key, options.start_after);
      EXPECT_TRUE(keys.empty() || keys.back() < info.key) << info.key;
      EXPECT_TRUE(info.key.starts_with(prefix)) << info.key;
      keys.push_back(info.key);
    }
    if (!page->truncated) return keys;
    const bool goes_on = page->objects.empty()
                             ? with_versions && page->next_after > options.start_after
                             : page->next_after >= page->objects.back().key;
    if (!goes_on) {
      ADD_FAILURE() << "a truncated page that does not say where the next one begins";
      return keys;
    }
    options.start_after = page->next_after;
  }
}

#define ASSERT_OK(r) ASSERT_TRUE(r) << (r).error().message()
#define EXPECT_OK(r) EXPECT_TRUE(r) << (r).error().message()

namespace {

/// Fails the test unless `r` failed with `code`.
template <typename R>
void ExpectFails(Errc code, const R& r) {
  EXPECT_FALSE(r) << "it succeeded";
  if (!r) {
    EXPECT_EQ(ErrcName(r.error().code()), ErrcName(code)) << r.error().message();
  }
}

}  // namespace

TEST_P(ObjectStoreSuite, WhatIsPutIsReadAndTheInfoFits) {
  for (const std::size_t size : {0, 1, 100'000, 3'000'017}) {
    SCOPED_TRACE(size);
    const std::string body = Pattern(size);
    Place("x", body);
    const auto got = Read("x");
    ASSERT_OK(got);
    EXPECT_TRUE(*got == body);
    const auto info = Stat("x");
    ASSERT_OK(info);
    EXPECT_EQ(info->key, KeyOf("x"));
    EXPECT_EQ(info->size, size);
    EXPECT_FALSE(info->archived);
    EXPECT_FALSE(info->version.empty());
    ASSERT_TRUE(info->modified);
    const auto age = std::chrono::system_clock::now() - *info->modified;
    EXPECT_LT(age, std::chrono::minutes(5));
    EXPECT_GT(age, -std::chrono::minutes(5));
  }
}

TEST_P(ObjectStoreSuite, AwkwardNamesArriveAsTheyAre) {
  std::vector<std::string> names = AwkwardNames();
  names.push_back(LongName());
  if (can().any_key) {
    const auto more = NamesThatAreNoPath();
    names.insert(names.end(), more.begin(), more.end());
  }
  if (GetParam().no_line_breaks) {
    std::erase_if(names, [&](const std::string& name) {
      if (name.find_first_of("\r\n") == name.npos) return false;
      ExpectFails(Errc::kInvalid, store().Put(KeyOf(name), {}, {}, ctx_));
      ExpectFails(Errc::kInvalid, Stat(name));
      return true;
    });
  }
  for (const std::string& name : names) {
    SCOPED_TRACE(name);
    Place(name, "body of " + name);
    const auto got = Read(name);
    EXPECT_OK(got);
    if (got) {
      EXPECT_EQ(*got, "body of " + name);
    }
    const auto info = Stat(name);
    EXPECT_OK(info);
    if (info) {
      EXPECT_EQ(info->size, name.size() + 8);
    }
  }
  if (!can().list) return ExpectFails(Errc::kUnsupported, store().List("", {}, ctx_));
  std::vector<std::string> keys;
  for (const std::string& name : names) keys.push_back(KeyOf(name));
  std::sort(keys.begin(), keys.end());
  EXPECT_EQ(ListAll(""), keys);
  EXPECT_EQ(ListAll("", 1), keys) << "every key as start_after of the next page";
  if (can().list_versions) {
    EXPECT_EQ(ListAll("", 1, "", true), keys);
  }
  for (const std::string& key : keys) EXPECT_EQ(ListAll(key).at(0), key);
}

TEST_P(ObjectStoreSuite, NamesThatAreNoPathAreRefusedWhereOnlyPathsAreKeys) {
  for (const std::string& name : NamesThatAreNoPath()) {
    SCOPED_TRACE(name);
    if (can().any_key) {
      Place(name, "x");
      EXPECT_OK(Stat(name));
      continue;
    }
    if (can().put) ExpectFails(Errc::kInvalid, store().Put(KeyOf(name), {}, {}, ctx_));
    EXPECT_FALSE(Read(name));
    EXPECT_FALSE(Stat(name));
  }
}

TEST_P(ObjectStoreSuite, RangesGiveExactlyTheirBytes) {
  const std::string body = Pattern(300'000);
  Place("x", body);
  ASSERT_TRUE(can().ranges);
  const std::pair<std::uint64_t, std::uint64_t> ranges[] = {
      {0, 1},          {0, 300'000},       {0, 299'999},  {1, 1},
      {1, 299'999},    {150'000, 70'000},  {299'999, 1},  {299'999, 100},
      {0, 400'000},    {100, UINT64_MAX},  {0, 0},        {5, 0},
      {300'000, 1},    {300'000, 0},       {300'001, 10}, {1'000'000'000'000, UINT64_MAX},
      {UINT64_MAX, 1}, {UINT64_MAX - 5, 3}};
  for (const auto& [offset, length] : ranges) {
    SCOPED_TRACE(std::to_string(offset) + "+" + std::to_string(length));
    const auto got = Read("x", {.offset = offset, .length = length});
    EXPECT_OK(got);
    if (!got) continue;
    const std::string want = offset >= body.size() ? "" : body.substr(offset, length);
    EXPECT_EQ(got->size(), want.size());
    EXPECT_TRUE(*got == want);
  }
}

TEST_P(ObjectStoreSuite, AnEmptyObjectIsReadAndHasNoBytes) {
  Place("empty", "");
  for (const ReadOptions& options : {ReadOptions{}, ReadOptions{.length = 10},
                                     ReadOptions{.offset = 1}, ReadOptions{.length = 0}}) {
    const auto got = Read("empty", options);
    ASSERT_OK(got);
    EXPECT_EQ(*got, "");
  }
  std::byte buffer[8];
  const auto n = ReadInto(store(), KeyOf("empty"), buffer, {}, ctx_);
  ASSERT_OK(n);
  EXPECT_EQ(*n, 0u);
}

TEST_P(ObjectStoreSuite, ReadIntoFillsTheBufferOrStopsAtTheEnd) {
  const std::string body = Pattern(10'000);
  Place("x", body);
  std::string buffer(4000, '?');
  const auto out = std::as_writable_bytes(std::span(buffer));
  auto n = ReadInto(store(), KeyOf("x"), out, {.offset = 3000}, ctx_);
  ASSERT_OK(n);
  EXPECT_EQ(*n, 4000u);
  EXPECT_TRUE(buffer == body.substr(3000, 4000));
  n = ReadInto(store(), KeyOf("x"), out, {.offset = 9000}, ctx_);
  ASSERT_OK(n);
  EXPECT_EQ(*n, 1000u);
  EXPECT_TRUE(buffer.substr(0, 1000) == body.substr(9000));
}

TEST_P(ObjectStoreSuite, TheInfoComesOnceAndBeforeTheFirstByte) {
  const std::string body = Pattern(200'000);
  Place("x", body);
  const auto stat = Stat("x");
  ASSERT_OK(stat);
  for (const std::uint64_t offset : {0u, 5u, 199'999u, 200'000u, 500'000u}) {
    SCOPED_TRACE(offset);
    int infos = 0, pieces = 0;
    const auto done = store().Read(
        KeyOf("x"),
        {.offset = offset,
         .length = 1000,
         .on_info = [&](const ObjectInfo& info) -> Status {
           EXPECT_EQ(pieces, 0);
           ++infos;
           EXPECT_EQ(info.key, KeyOf("x"));
           EXPECT_EQ(info.size, body.size()) << "of the whole object";
           EXPECT_TRUE(SameVersion(stat->version, info.version));
           return {};
         }},
        [&](std::span<const std::byte> piece) -> Status {
          EXPECT_FALSE(piece.empty());
          ++pieces;
          return {};
        },
        ctx_);
    EXPECT_OK(done);
    EXPECT_EQ(infos, 1);
    EXPECT_EQ(pieces > 0, offset < body.size());
  }
}

TEST_P(ObjectStoreSuite, APromisedDigestIsTheOneOfTheBytes) {
  const std::string body = Pattern(70'000);
  Place("x", body);
  const auto check = [&](const ObjectInfo& info) {
    if (!info.expected) return;  // a promise is welcome, not owed
    digest::Hasher hasher(info.expected->kind);
    hasher.Update(AsBytes(body));
    EXPECT_EQ(ToHex(AsBytes(hasher.Finish())), ToHex(AsBytes(info.expected->value)))
        << digest::KindName(info.expected->kind);
  };
  const auto stat = Stat("x");
  ASSERT_OK(stat);
  check(*stat);
  EXPECT_OK(Read("x", {.on_info = [&](const ObjectInfo& info) -> Status {
                   check(info);
                   EXPECT_EQ(info.expected.has_value(), stat->expected.has_value());
                   return {};
                 }}));
  // What a range tells is of the whole, too.
  EXPECT_OK(
      Read("x", {.offset = 5, .length = 1000, .on_info = [&](const ObjectInfo& info) -> Status {
                   check(info);
                   return {};
                 }}));
}

TEST_P(ObjectStoreSuite, AnErrorOfTheSinkOrOfTheInfoEndsTheRead) {
  Place("x", Pattern(2'000'000));
  int pieces = 0;
  const auto by_sink = store().Read(
      KeyOf("x"), {},
      [&](std::span<const std::byte>) -> Status {
        ++pieces;
        return Fail(Errc::kNoSpace, "the disk is full");
      },
      ctx_);
  ExpectFails(Errc::kNoSpace, by_sink);
  EXPECT_EQ(pieces, 1);
  const auto by_info =
      Read("x", {.on_info = [](const ObjectInfo&) { return Fail(Errc::kInternal, "no"); }});
  ExpectFails(Errc::kInternal, by_info);
  EXPECT_OK(Read("x", {.length = 10})) << "the store goes on";
}

TEST_P(ObjectStoreSuite, AReaderOfTheCurrentVersionReadsIt) {
  Place("x", "current");
  const auto info = Stat("x");
  ASSERT_OK(info);
  const auto got = Read("x", {.offset = 3, .length = 2, .if_version = info->version});
  ASSERT_OK(got);
  EXPECT_EQ(*got, "re");
  EXPECT_OK(Read("x", {.offset = 100, .if_version = info->version})) << "beyond the end";
}

TEST_P(ObjectStoreSuite, AReaderOfAReplacedVersionIsToldBoth) {
  Place("x", "old");
  const auto before = Stat("x");
  ASSERT_OK(before);
  Place("x", "newer bytes");
  const auto after = Stat("x");
  ASSERT_OK(after);
  ASSERT_NE(before->version, after->version);
  for (const ReadOptions& options :
       {ReadOptions{.if_version = {.etag = before->version.etag}},
        ReadOptions{.offset = 1, .length = 1, .if_version = {.etag = before->version.etag}}}) {
    const auto got = Read("x", options);
    ExpectFails(Errc::kConflict, got);
    if (got) continue;
    EXPECT_NE(got.error().message().find(before->version.etag), std::string::npos)
        << got.error().message();
    EXPECT_NE(got.error().message().find(after->version.etag), std::string::npos)
        << got.error().message();
    EXPECT_TRUE(got.error().message().starts_with(store().UrlOf(KeyOf("x"))))
        << got.error().message();
  }
}

TEST_P(ObjectStoreSuite, AVersionIdStillGivesTheOldBytes) {
  if (!can().versions) {
    Place("x", "x");
    ExpectFails(Errc::kUnsupported, store().Stat(KeyOf("x"), "some-version", ctx_));
    ExpectFails(Errc::kUnsupported, Read("x", {.if_version = {.version_id = "some-version"}}));
    return;
  }
  const auto v1 = store().Put("x", AsBytes("old"), {}, ctx_);
  ASSERT_OK(v1);
  const auto v2 = store().Put("x", AsBytes("newer"), {}, ctx_);
  ASSERT_OK(v2);
  if (v1->version_id.empty())
    return;  // a bucket that keeps none; there is a case for one that does
  EXPECT_NE(v1->version_id, v2->version_id);
  EXPECT_EQ(Read("x", {.if_version = *v1}).value_or("?"), "old");
  EXPECT_EQ(Read("x", {.offset = 1, .length = 1, .if_version = {.version_id = v1->version_id}})
                .value_or("?"),
            "l");
  EXPECT_EQ(Read("x", {.if_version = *v2}).value_or("?"), "newer");
  const auto info = store().Stat("x", v1->version_id, ctx_);
  ASSERT_OK(info);
  EXPECT_EQ(info->version, *v1);
  EXPECT_EQ(info->size, 3u);
  ASSERT_OK(store().Remove("x", ctx_));
  ExpectFails(Errc::kNotFound, Read("x"));
  EXPECT_EQ(Read("x", {.if_version = *v1}).value_or("?"), "old");
  ExpectFails(Errc::kNotFound,
              Read("x", {.if_version = {.version_id = "0123456789012345678901234567890"}}));
}

TEST_P(ObjectStoreSuite, WhatIsMissingIsNotFound) {
  Place("there", "x");
  for (const std::string name : {"nothing", "ther", "there2", "deep/below/nothing"}) {
    SCOPED_TRACE(name);
    const auto stat = Stat(name);
    ExpectFails(Errc::kNotFound, stat);
    if (!stat) {
      EXPECT_NE(stat.error().message().find(store().UrlOf(KeyOf(name))), std::string::npos);
    }
    ExpectFails(Errc::kNotFound, Read(name));
    ExpectFails(Errc::kNotFound, Read(name, {.offset = 10, .length = 5}));
    ExpectFails(Errc::kNotFound, Read(name, {.if_version = {.etag = "0123"}}));
  }
}

TEST_P(ObjectStoreSuite, AMissingBucketIsNotFound) {
  const auto missing = subject_->MissingBucket();
  ASSERT_EQ(missing != nullptr, GetParam().has_buckets);
  if (!missing) return;
  ExpectFails(Errc::kNotFound, missing->Stat("x", "", ctx_));
  ExpectFails(Errc::kNotFound, missing->Read("x", {}, [](auto) { return Status(); }, ctx_));
  ExpectFails(Errc::kNotFound, missing->List("", {}, ctx_));
  ExpectFails(Errc::kNotFound, missing->Put("x", {}, {}, ctx_));
}

TEST_P(ObjectStoreSuite, WhoMayNotReadIsDenied) {
  const auto denied = subject_->Denied();
  ASSERT_EQ(denied != nullptr, GetParam().has_users);
  if (!denied) return;
  Place("x", "x");
  ExpectFails(Errc::kDenied, denied->Stat(KeyOf("x"), "", ctx_));
  ExpectFails(Errc::kDenied, denied->Read(KeyOf("x"), {}, [](auto) { return Status(); }, ctx_));
  if (can().list) ExpectFails(Errc::kDenied, denied->List("", {}, ctx_));
  if (can().put) ExpectFails(Errc::kDenied, denied->Put(KeyOf("y"), {}, {}, ctx_));
}

TEST_P(ObjectStoreSuite, AListingIsInByteOrderOfWholeKeys) {
  // As bytes: '!' < '-' < '.' < '/' < '0', and any of UTF-8 after ASCII.
  const std::vector<std::string> names = {"a!",   "a-b/c", "a.txt", "a/b",   "a/b!c", "a/b-c/d",
                                          "a/bc", "a0",    "ab",    "b/c/d", "é",     "日"};
  for (auto it = names.rbegin(); it != names.rend(); ++it) Place(*it, *it);
  if (!can().list) return ExpectFails(Errc::kUnsupported, store().List("", {}, ctx_));
  EXPECT_EQ(ListAll(""), names);
  for (std::size_t n = 1; n <= names.size() + 1; ++n) EXPECT_EQ(ListAll("", n), names) << n;
  for (std::size_t i = 0; i < names.size(); ++i) {
    const std::vector<std::string> rest(names.begin() + static_cast<std::ptrdiff_t>(i) + 1,
                                        names.end());
    EXPECT_EQ(ListAll("", 3, names[i]), rest) << "after " << names[i];
  }
  EXPECT_EQ(ListAll("a/"), (std::vector<std::string>{"a/b", "a/b!c", "a/b-c/d", "a/bc"}));
  EXPECT_EQ(ListAll("a/b", 1, "a/b!"), (std::vector<std::string>{"a/b!c", "a/b-c/d", "a/bc"}));
  EXPECT_EQ(ListAll("", 0, "a/zzz"), (std::vector<std::string>{"a0", "ab", "b/c/d", "é", "日"}));
  EXPECT_EQ(ListAll("a/", 0, "b"), std::vector<std::string>{});
  EXPECT_EQ(ListAll("a/", 2, "A"), (std::vector<std::string>{"a/b", "a/b!c", "a/b-c/d", "a/bc"}))
      << "a start before the prefix";
  EXPECT_EQ(ListAll("nothing/"), std::vector<std::string>{});
  EXPECT_EQ(ListAll("", 0, "日"), std::vector<std::string>{});
}

TEST_P(ObjectStoreSuite, AListedEntryTellsWhatStatTells) {
  Place("a", "four");
  Place("b", "");
  if (!can().list) return ExpectFails(Errc::kUnsupported, store().List("", {}, ctx_));
  const auto page = store().List("", {}, ctx_);
  ASSERT_OK(page);
  ASSERT_EQ(page->objects.size(), 2u);
  EXPECT_FALSE(page->truncated);
  for (const ObjectInfo& listed : page->objects) {
    const auto stat = Stat(listed.key);
    ASSERT_OK(stat);
    EXPECT_EQ(listed.size, stat->size);
    EXPECT_EQ(listed.version.etag, stat->version.etag);
    if (listed.expected) {
      EXPECT_EQ(listed.expected, stat->expected);
    }
    ASSERT_TRUE(listed.modified);
    EXPECT_LE(std::chrono::abs(*listed.modified - *stat->modified), std::chrono::seconds(1));
    EXPECT_OK(Read(listed.key, {.if_version = listed.version}));
  }
}

TEST_P(ObjectStoreSuite, ListingWithVersionsNamesWhatIsThere) {
  if (!can().list_versions) return;
  ASSERT_TRUE(can().versions && can().list && can().put);
  std::vector<std::string> names = {"a!", "a/b", "gone", "per%41 +&;cent", "one", "é", "日"};
  for (const std::string& name : names) Place(name, "first of " + name);
  for (int i = 0; i < 6; ++i) {
    Place("a/b", "more " + std::to_string(i));
    Place("gone", "more " + std::to_string(i));
  }
  Place("é", "second");
  ASSERT_OK(store().Remove("gone", ctx_));
  Place("gone/below", "x");
  ASSERT_OK(store().Remove("gone/below", ctx_));
  ASSERT_OK(store().Remove("one", ctx_));
  Place("one", "came back");
  std::erase(names, "gone");
  std::ranges::sort(names);
  for (const std::size_t most : {0, 1, 2, 3, 100}) {
    for (const std::string prefix : {"", "a", "gone", "é"}) {
      SCOPED_TRACE(std::to_string(most) + " below \"" + prefix + "\"");
      std::vector<std::string> keys;
      ListOptions options{.start_after = "", .max_keys = most, .with_versions = true};
      for (;;) {
        const auto page = store().List(prefix, options, ctx_);
        ASSERT_OK(page);
        if (most > 0) {
          EXPECT_LE(page->objects.size(), most);
        }
        for (const ObjectInfo& listed : page->objects) {
          keys.push_back(listed.key);
          const auto stat = Stat(listed.key);
          ASSERT_OK(stat);
          EXPECT_EQ(listed.version.etag, stat->version.etag);
          EXPECT_EQ(listed.size, stat->size);
          if (!stat->version.version_id.empty()) {
            EXPECT_EQ(listed.version.version_id, stat->version.version_id);
          }
          const auto now = Read(listed.key);
          ASSERT_OK(now);
          const auto pinned = Read(listed.key, {.if_version = listed.version});
          ASSERT_OK(pinned);
          EXPECT_EQ(*pinned, *now);
          const auto by_id =
              Read(listed.key, {.if_version = {.version_id = listed.version.version_id}});
          ASSERT_OK(by_id);
          EXPECT_EQ(*by_id, *now);
        }
        if (!page->truncated) break;
        ASSERT_GT(page->next_after, options.start_after);
        ASSERT_TRUE(page->objects.empty() || page->next_after >= page->objects.back().key);
        options.start_after = page->next_after;
      }
      std::vector<std::string> wanted = names;
      std::erase_if(wanted, [&](const std::string& name) { return !name.starts_with(prefix); });
      EXPECT_EQ(keys, wanted);
    }
  }
  const auto plain = store().List("", {}, ctx_);
  ASSERT_OK(plain);
  for (const ObjectInfo& listed : plain->objects) EXPECT_EQ(listed.version.version_id, "");
}

TEST_P(ObjectStoreSuite, APageHoldsNoMoreThanAskedFor) {
  for (int i = 0; i < 5; ++i) Place("k" + std::to_string(i), "x");
  if (!can().list) return ExpectFails(Errc::kUnsupported, store().List("", {}, ctx_));
  const auto two = store().List("k", {.max_keys = 2}, ctx_);
  ASSERT_OK(two);
  EXPECT_EQ(two->objects.size(), 2u);
  EXPECT_TRUE(two->truncated);
  EXPECT_EQ(two->next_after, "k1");
  const auto five = store().List("k", {.max_keys = 5}, ctx_);
  ASSERT_OK(five);
  EXPECT_EQ(five->objects.size(), 5u);
  EXPECT_FALSE(five->truncated);
}

TEST_P(ObjectStoreSuite, PutGivesTheVersionThatReadersSee) {
  if (!can().put) return ExpectFails(Errc::kUnsupported, store().Put("x", {}, {}, ctx_));
  const auto v1 = store().Put("x", AsBytes("one"), {}, ctx_);
  ASSERT_OK(v1);
  auto info = Stat("x");
  ASSERT_OK(info);
  EXPECT_EQ(v1->etag, info->version.etag);
  EXPECT_EQ(Read("x", {.if_version = *v1}).value_or("?"), "one");
  const auto v2 = store().Put("x", AsBytes("second"), {}, ctx_);
  ASSERT_OK(v2);
  EXPECT_NE(*v1, *v2);
  EXPECT_EQ(Read("x", {.if_version = *v2}).value_or("?"), "second");
}

TEST_P(ObjectStoreSuite, PutIfAbsentRefusesWhatExists) {
  if (!can().put) {
    return ExpectFails(Errc::kUnsupported, store().Put("x", {}, {.if_absent = true}, ctx_));
  }
  ASSERT_TRUE(can().put_if_absent);
  ASSERT_OK(store().Put("x", AsBytes("first"), {.if_absent = true}, ctx_));
  const auto again = store().Put("x", AsBytes("second"), {.if_absent = true}, ctx_);
  if (GetParam().ignores_put_if_absent) {
    EXPECT_OK(again) << "the server heeds the condition now: drop the case's fact";
    return;
  }
  ExpectFails(Errc::kConflict, again);
  EXPECT_EQ(Read("x").value_or("?"), "first");
  ASSERT_OK(store().Remove("x", ctx_));
  EXPECT_OK(store().Put("x", AsBytes("third"), {.if_absent = true}, ctx_));
}

TEST_P(ObjectStoreSuite, OfWritersThatMeetOneWins) {
  if (!can().put_if_absent || GetParam().ignores_put_if_absent) {
    EXPECT_TRUE(!can().put || GetParam().ignores_put_if_absent);
    return;
  }
  int several = 0;
  for (int round = 0; round < 5; ++round) {
    const std::string key = "lease/" + std::to_string(round);
    std::atomic<int> won{0}, lost{0};
    std::vector<std::thread> writers;
    for (int i = 0; i < 4; ++i) {
      writers.emplace_back([&, i] {
        const auto put = store().Put(key, AsBytes(std::to_string(i)), {.if_absent = true}, ctx_);
        if (put) {
          ++won;
        } else if (put.error().code() == Errc::kConflict ||
                   put.error().code() == Errc::kUnavailable) {
          ++lost;  // "the other one is not done yet" may be said as worth another try
        } else {
          ADD_FAILURE() << put.error().message();
        }
      });
    }
    for (std::thread& writer : writers) writer.join();
    EXPECT_EQ(won + lost, 4);
    if (GetParam().several_may_win) {
      several += won > 1 ? 1 : 0;
      continue;
    }
    EXPECT_EQ(won, 1);
  }
  EXPECT_EQ(several > 0, GetParam().several_may_win);
}

TEST_P(ObjectStoreSuite, MtimeIsKept) {
  if (!can().metadata || !can().put) return;
  store::PutOptions options;
  store::SetMtime(options.metadata, 1'354'040'105'123'456'789);
  ASSERT_OK(store().Put("x", AsBytes("x"), options, ctx_));
  const auto info = Stat("x");
  ASSERT_OK(info);
  EXPECT_EQ(store::MtimeOf(info->metadata), 1'354'040'105'123'456'789);
  std::optional<std::int64_t> read;
  ASSERT_OK(Read("x", {.on_info = [&](const store::ObjectInfo& told) -> Status {
                   read = store::MtimeOf(told.metadata);
                   return {};
                 }}));
  EXPECT_EQ(read, 1'354'040'105'123'456'789);
  store::SetMtime(options.metadata, -1'500'000'000);
  ASSERT_OK(store().Put("x", AsBytes("x"), options, ctx_));
  EXPECT_EQ(store::MtimeOf(Stat("x")->metadata), -1'500'000'000);
}

TEST_P(ObjectStoreSuite, AnObjectInPartsIsSeenWhenItIsComplete) {
  const store::UploadLimits limits = store().upload_limits();
  if (limits.max_parts == 0) {
    return ExpectFails(Errc::kUnsupported, store().BeginUpload("x", {}, ctx_));
  }
  const std::string first = Pattern(std::max<std::uint64_t>(limits.min_part, 1000));
  const std::string second = "the last part may be small";
  store::PutOptions options;
  store::SetMtime(options.metadata, 1'354'040'105'123'456'789);
  const std::string key = "folder/large ü+%41";
  const auto upload = store().BeginUpload(key, options, ctx_);
  ASSERT_OK(upload);
  EXPECT_EQ(store().UploadedParts(key, *upload, ctx_)->size(), 0u);
  const auto two = store().PutPart(key, *upload, 2, AsBytes(second), ctx_);
  ASSERT_OK(two);
  // Put again: the last one counts.
  ASSERT_OK(store().PutPart(key, *upload, 1, AsBytes(Pattern(first.size(), 7)), ctx_));
  const auto one = store().PutPart(key, *upload, 1, AsBytes(first), ctx_);
  ASSERT_OK(one);
  ExpectFails(Errc::kNotFound, Stat(key));
  EXPECT_EQ(ListAll(""), std::vector<std::string>{});
  const auto parts = store().UploadedParts(key, *upload, ctx_);
  ASSERT_OK(parts);
  ASSERT_EQ(parts->size(), 2u);
  EXPECT_EQ((*parts)[0].number, 1u);
  EXPECT_EQ((*parts)[0].size, first.size());
  EXPECT_EQ((*parts)[0].etag, one->etag);
  EXPECT_EQ((*parts)[1].etag, two->etag);
  const auto version = store().CompleteUpload(key, *upload, *parts, options, ctx_);
  ASSERT_OK(version);
  const auto info = Stat(key);
  ASSERT_OK(info);
  EXPECT_EQ(info->size, first.size() + second.size());
  EXPECT_EQ(info->version.etag, version->etag);
  if (can().metadata) {
    EXPECT_EQ(store::MtimeOf(info->metadata), 1'354'040'105'123'456'789);
  }
  EXPECT_EQ(Read(key, {.if_version = *version}).value_or("?"), first + second);
  EXPECT_EQ(
      Read(key, {.offset = first.size() - 1, .length = 4, .if_version = *version}).value_or("?"),
      first.substr(first.size() - 1) + second.substr(0, 3));
  EXPECT_EQ(ListAll(""), std::vector<std::string>{key});
  const auto page = store().List("", {}, ctx_);
  EXPECT_EQ(page->objects[0].size, first.size() + second.size());
  EXPECT_EQ(page->objects[0].version.etag, version->etag);
  // As if the answer had been lost.
  const auto again = store().CompleteUpload(key, *upload, *parts, options, ctx_);
  ASSERT_OK(again);
  EXPECT_EQ(again->etag, version->etag);
  // Whoever did not hear that it was completed may abort it: what is complete stays.
  (void)store().AbortUpload(key, *upload, ctx_);
  EXPECT_EQ(Read(key).value_or("?"), first + second);
  ASSERT_OK(store().Remove(key, ctx_));
  EXPECT_EQ(ListAll(""), std::vector<std::string>{});
  const auto left = store().UploadedParts(key, *upload, ctx_);
  if (left) {
    EXPECT_EQ(left->size(), 0u);
  }
}

TEST_P(ObjectStoreSuite, AnAbortedUploadLeavesNothing) {
  if (store().upload_limits().max_parts == 0) return;
  const auto upload = store().BeginUpload("x", {}, ctx_);
  ASSERT_OK(upload);
  const auto part = store().PutPart("x", *upload, 1, AsBytes("x"), ctx_);
  ASSERT_OK(part);
  ASSERT_OK(store().AbortUpload("x", *upload, ctx_));
  ASSERT_OK(store().AbortUpload("x", *upload, ctx_));
  const auto left = store().UploadedParts("x", *upload, ctx_);
  if (left) {
    EXPECT_EQ(left->size(), 0u);
  }
  EXPECT_FALSE(store().CompleteUpload("x", *upload, std::vector{*part}, {}, ctx_));
  ExpectFails(Errc::kNotFound, Stat("x"));
}

TEST_P(ObjectStoreSuite, TheStoreCopiesByItself) {
  const std::string url(store().Describe());
  const std::string bucket = url.substr(url.rfind('/') + 1);
  if (!can().copy)
    return ExpectFails(Errc::kUnsupported, store().CopyFrom(bucket, "x", {}, "y", ctx_));
  store::PutOptions options;
  store::SetMtime(options.metadata, 1'354'040'105'000'000'000);
  const auto put = store().Put("from ü+%41", AsBytes("contents"), options, ctx_);
  ASSERT_OK(put);
  const auto copied = store().CopyFrom(bucket, "from ü+%41", {put->etag, ""}, "to ?", ctx_);
  ASSERT_OK(copied);
  EXPECT_EQ(Read("to ?").value_or("?"), "contents");
  EXPECT_EQ(store::MtimeOf(Stat("to ?")->metadata), 1'354'040'105'000'000'000);
  EXPECT_EQ(Stat("to ?")->version.etag, copied->etag);
  ExpectFails(Errc::kNotFound, store().CopyFrom(bucket, "missing", {}, "z", ctx_));
  ASSERT_OK(store().Put("from ü+%41", AsBytes("others"), {}, ctx_));
  const auto late = store().CopyFrom(bucket, "from ü+%41", {put->etag, ""}, "to ?", ctx_);
  if (GetParam().ignores_copy_condition) {
    EXPECT_OK(late) << "the server heeds the condition now: drop the case's fact";
    return;
  }
  ExpectFails(Errc::kConflict, late);
}

TEST_P(ObjectStoreSuite, PartsAreCopiedWithinTheServer) {
  const std::string url(store().Describe());
  const std::string bucket = url.substr(url.rfind('/') + 1);
  if (!can().copy_parts) {
    return ExpectFails(Errc::kUnsupported,
                       store().CopyPart(bucket, "x", {}, 0, 1, "y", "u", 1, ctx_));
  }
  const std::uint64_t first = store().upload_limits().min_part;
  const std::string body = Pattern(first + 1000);
  const auto put = store().Put("from ü+", AsBytes(body), {}, ctx_);
  ASSERT_OK(put);
  const auto upload = store().BeginUpload("to ?", {}, ctx_);
  ASSERT_OK(upload);
  const auto copy = [&](std::uint64_t offset, std::uint64_t length, std::size_t number) {
    return store().CopyPart(bucket, "from ü+", *put, offset, length, "to ?", *upload, number, ctx_);
  };
  // The end of it, and a part that is brought.
  const auto one = copy(900, first + 100, 1);
  ASSERT_OK(one);
  const auto two = store().PutPart("to ?", *upload, 2, AsBytes(body.substr(0, 900)), ctx_);
  ASSERT_OK(two);
  const auto there = store().UploadedParts("to ?", *upload, ctx_);
  ASSERT_OK(there);
  ASSERT_EQ(there->size(), 2u);
  EXPECT_EQ(there->at(0).etag, one->etag);
  EXPECT_EQ(there->at(0).size, first + 100);
  ASSERT_OK(store().CompleteUpload("to ?", *upload, std::vector{*one, *two}, {}, ctx_));
  EXPECT_EQ(Read("to ?").value_or("?"), body.substr(900) + body.substr(0, 900));
  const auto other = store().BeginUpload("z", {}, ctx_);
  ASSERT_OK(other);
  ExpectFails(Errc::kNotFound,
              store().CopyPart(bucket, "missing", {}, 0, first, "z", *other, 1, ctx_));
  EXPECT_OK(store().AbortUpload("z", *other, ctx_));
}

TEST_P(ObjectStoreSuite, BucketsAreMadeAndRemoved) {
  if (!can().buckets) return ExpectFails(Errc::kUnsupported, store().MakeBucket(ctx_));
  ASSERT_OK(store().MakeBucket(ctx_));
  ASSERT_OK(store().Put("x", AsBytes("x"), {}, ctx_));
  ExpectFails(Errc::kConflict, store().RemoveBucket(ctx_));
  ASSERT_OK(store().Remove("x", ctx_));
  if (GetParam().keeps_old_versions) return;
  ASSERT_OK(store().RemoveBucket(ctx_));
  ASSERT_OK(store().RemoveBucket(ctx_));
  ExpectFails(Errc::kNotFound, store().Put("x", AsBytes("x"), {}, ctx_));
  ASSERT_OK(store().MakeBucket(ctx_));
  EXPECT_OK(store().Put("x", AsBytes("x"), {}, ctx_));
}

TEST_P(ObjectStoreSuite, RemoveIsDoneWhetherItExistedOrNot) {
  if (!can().put) return ExpectFails(Errc::kUnsupported, store().Remove("x", ctx_));
  Place("a/b", "x");
  EXPECT_OK(store().Remove("a/b", ctx_));
  ExpectFails(Errc::kNotFound, Stat("a/b"));
  EXPECT_OK(store().Remove("a/b", ctx_));
  EXPECT_OK(store().Remove("never/there", ctx_));
  EXPECT_EQ(ListAll(""), std::vector<std::string>{});
}

TEST_P(ObjectStoreSuite, ManyAreRemovedAtOnceWhateverTheirNames) {
  if (!can().put) return;
  std::vector<std::string> names = AwkwardNames();
  if (can().any_key) {
    const auto more = NamesThatAreNoPath();
    names.insert(names.end(), more.begin(), more.end());
    for (const std::string slashes : {"/", "//", "a//", "/a"}) names.push_back(slashes);
  }
  if (GetParam().no_line_breaks)
    std::erase_if(names, [](const auto& name) { return name.find_first_of("\r\n") != name.npos; });
  std::ranges::sort(names);
  names.erase(std::ranges::unique(names).begin(), names.end());
  for (const std::string& name : names) Place(KeyOf(name), "x");
  Place("stays", "x");
  if (const store::UploadLimits limits = store().upload_limits(); limits.max_parts > 0) {
    const auto upload = store().BeginUpload("parts", {}, ctx_);
    ASSERT_OK(upload);
    const std::string body = Pattern(std::max<std::uint64_t>(limits.min_part, 1000));
    const auto part = store().PutPart("parts", *upload, 1, AsBytes(body), ctx_);
    ASSERT_OK(part);
    ASSERT_OK(store().CompleteUpload("parts", *upload, std::vector{*part}, {}, ctx_));
  }
  std::vector<store::Removal> going = {{.key = "never/there"}};
  const auto page = store().List("", {}, ctx_);
  ASSERT_OK(page);
  for (const auto& object : page->objects) {
    if (object.key != "stays") going.push_back({object.key, object.in_parts});
  }
  EXPECT_GE(going.size(), names.size() + 1);
  const std::vector<Status> done = store().RemoveMany(going, ctx_);
  ASSERT_EQ(done.size(), going.size());
  for (std::size_t i = 0; i < done.size(); ++i) {
    EXPECT_TRUE(done[i]) << going[i].key << ": " << done[i].error().message();
  }
  EXPECT_EQ(ListAll(""), std::vector<std::string>{"stays"});
  EXPECT_TRUE(store().RemoveMany({}, ctx_).empty());
}

TEST_P(ObjectStoreSuite, ManyThatMayNotBeRemovedAreEachDenied) {
  const auto denied = subject_->Denied();
  if (!can().put || denied == nullptr) return;
  Place("a", "x");
  Place("b", "x");
  const auto done =
      denied->RemoveMany(std::vector<store::Removal>{{.key = "a"}, {.key = "b"}}, ctx_);
  ASSERT_EQ(done.size(), 2u);
  ExpectFails(Errc::kDenied, done[0]);
  ExpectFails(Errc::kDenied, done[1]);
  EXPECT_EQ(ListAll(""), (std::vector<std::string>{"a", "b"}));
}

TEST_P(ObjectStoreSuite, ACancelledOrLateCallIsNotMade) {
  Place("x", "x");
  std::stop_source stop;
  stop.request_stop();
  const CallContext cancelled{.stop = stop.get_token()};
  ExpectFails(Errc::kCancelled, store().Stat(KeyOf("x"), "", cancelled));
  ExpectFails(Errc::kCancelled,
              store().Read(KeyOf("x"), {}, [](auto) { return Status(); }, cancelled));
  const CallContext late{.deadline = CallContext::Clock::now() - std::chrono::seconds(1)};
  ExpectFails(Errc::kDeadline, store().Stat(KeyOf("x"), "", late));
  ExpectFails(Errc::kDeadline, store().Read(KeyOf("x"), {}, [](auto) { return Status(); }, late));
}

TEST_P(ObjectStoreSuite, ManyThreadsReadAtOnce) {
  const std::string body = Pattern(1'000'000);
  Place("x", body);
  std::vector<std::thread> readers;
  for (std::size_t i = 0; i < 8; ++i) {
    readers.emplace_back([&, i] {
      for (std::size_t k = 0; k < 10; ++k) {
        const std::size_t offset = (i * 10 + k) * 12'345;
        const auto got = Read("x", {.offset = offset, .length = 20'000});
        EXPECT_OK(got);
        if (got) {
          EXPECT_TRUE(*got == body.substr(offset, 20'000));
        }
      }
    });
  }
  for (std::thread& reader : readers) reader.join();
}

TEST_P(ObjectStoreSuite, NamesAreStableAndUrlsArePrintable) {
  EXPECT_FALSE(store().Describe().empty());
  EXPECT_FALSE(store().Identity().empty());
  EXPECT_EQ(std::string(store().Describe()), std::string(store().Describe()));
  const std::string url = store().UrlOf(KeyOf("a\nb"));
  EXPECT_EQ(url.find('\n'), std::string::npos);
  EXPECT_TRUE(url.starts_with(store().Describe()));
}

}  // namespace leat::testing
