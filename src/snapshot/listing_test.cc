#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <functional>
#include <map>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "base/bytes.h"
#include "base/text.h"
#include "snapshot/cut_points.h"
#include "snapshot/test_snapshots.h"
#include "store/memory/memory_store.h"

namespace leat::snapshot {
namespace {

using testing::BytesOf;
using testing::Key;
using testing::MemoryFile;

/// Lists from a sorted vector, counts, and lets a test look at or spoil each page. Refuses what a
/// server that wants UTF-8 would.
class ListedStore : public store::ObjectStore {
 public:
  explicit ListedStore(const std::set<std::string>& keys, std::size_t page = 1000)
      : page_size_(page) {
    for (const std::string& key : keys) objects_.push_back(Key(key, key.size()));
  }

  std::function<void(const std::string& after, store::ListPage& page)> spoil;
  std::function<Status(const std::string& after)> before_page;
  std::chrono::microseconds latency{0};
  std::atomic<std::size_t> requests{0}, objects_sent{0}, now{0}, most_at_once{0}, sum_at_once{0};

  std::string_view Describe() const override { return "mem://listed"; }
  std::string_view Identity() const override { return "mem://test"; }
  store::Capabilities capabilities() const override { return {.list = true}; }
  Result<store::ListPage> List(std::string_view prefix, const store::ListOptions& options,
                               const CallContext& ctx) override {
    ++requests;
    const std::size_t at_once = ++now;
    sum_at_once += at_once;
    for (std::size_t most = most_at_once;
         at_once > most && !most_at_once.compare_exchange_weak(most, at_once);) {
    }
    if (latency.count() > 0) std::this_thread::sleep_for(latency);
    auto page = Page(prefix, options);
    --now;
    if (ctx.cancelled()) return Fail(Errc::kCancelled, "cancelled");
    return page;
  }
  Result<store::ObjectInfo> Stat(std::string_view, std::string_view, const CallContext&) override {
    return No();
  }
  Status Read(std::string_view, const store::ReadOptions&, const store::Sink&,
              const CallContext&) override {
    return No();
  }
  Result<store::Version> Put(std::string_view, std::span<const std::byte>, const store::PutOptions&,
                             const CallContext&) override {
    return No();
  }
  Status Remove(std::string_view, const CallContext&) override { return No(); }

  /// Below the prefix, relative to it.
  std::vector<store::ObjectInfo> Below(std::string_view prefix) const {
    std::vector<store::ObjectInfo> out;
    for (store::ObjectInfo o : objects_) {
      if (!o.key.starts_with(prefix)) continue;
      o.key.erase(0, prefix.size());
      out.push_back(o);
    }
    return out;
  }

 private:
  static std::unexpected<Error> No() { return Fail(Errc::kUnsupported, "only lists"); }
  Result<store::ListPage> Page(std::string_view prefix, const store::ListOptions& options) {
    if (!IsUtf8(options.start_after)) return Fail(Errc::kInvalid, "start_after is not UTF-8");
    if (before_page) {
      if (Status s = before_page(options.start_after); !s) return std::unexpected(s.error());
    }
    store::ListPage page;
    const std::string from = std::max(options.start_after, std::string(prefix));
    auto it = std::lower_bound(objects_.begin(), objects_.end(), from,
                               [](const auto& o, const std::string& k) { return o.key < k; });
    if (it != objects_.end() && it->key == options.start_after) ++it;
    for (; it != objects_.end() && it->key.starts_with(prefix); ++it) {
      if (page.objects.size() == page_size_) {
        page.truncated = true;
        break;
      }
      page.objects.push_back(*it);
    }
    if (page.truncated) page.next_after = page.objects.back().key;
    objects_sent += page.objects.size();
    if (spoil) spoil(options.start_after, page);
    return page;
  }

  std::vector<store::ObjectInfo> objects_;
  const std::size_t page_size_;
};

std::string Number(std::size_t i, int width) {
  std::string s = std::to_string(i);
  return std::string(
             static_cast<std::size_t>(width) - std::min(s.size(), static_cast<std::size_t>(width)),
             '0') +
         s;
}

Status ListInto(store::ObjectStore& store, std::string_view prefix, int fd,
                ListingOptions options = {}, CallContext ctx = {}) {
  Builder builder(std::string(store.Identity()), std::string(prefix));
  LEAT_ASSIGN_OR_RETURN([[maybe_unused]] const KeyMap moved,
                        BuildFromListing(store, prefix, options, ctx, builder));
  return builder.WriteTo(fd, false, nullptr);
}

/// Lists it side by side, compares with what is there, and returns how many requests it took more
/// than one after the other.
long ExtraRequests(ListedStore& store, std::string_view prefix, std::size_t page_size = 1000,
                   ListingOptions options = {}) {
  store.requests = 0;
  const MemoryFile file;
  const Status listed = ListInto(store, prefix, file.fd(), std::move(options));
  EXPECT_TRUE(listed) << listed.error().message();
  const auto below = store.Below(prefix);
  EXPECT_EQ(file.Bytes(), BytesOf(below, prefix));
  const auto serial =
      static_cast<long>(std::max<std::size_t>(1, (below.size() + page_size - 1) / page_size));
  const long extra = static_cast<long>(store.requests) - serial;
  if (std::getenv("LEAT_DEBUG") != nullptr) {
    std::printf("%zu keys, %ld pages, %ld more, %zu at once, on average %.1f\n", below.size(),
                serial, extra, store.most_at_once.load(),
                static_cast<double>(store.sum_at_once) / static_cast<double>(store.requests));
  }
  return extra;
}

std::set<std::string> Flat(std::size_t n, const std::string& prefix = "train/img_", int width = 7) {
  std::set<std::string> keys;
  for (std::size_t i = 0; i < n; ++i) keys.insert(keys.end(), prefix + Number(i, width) + ".jpg");
  return keys;
}

TEST(Listing, ASmallFolderIsOneRequest) {
  ListedStore store(Flat(1000));
  EXPECT_EQ(ExtraRequests(store, ""), 0);
  EXPECT_EQ(ExtraRequests(store, "train/"), 0);
  EXPECT_EQ(store.requests, 1U);
  EXPECT_EQ(store.most_at_once, 1U);
}

TEST(Listing, NothingBelowThePrefixIsNotFoundAndSaysWhere) {
  ListedStore store(Flat(10));
  const MemoryFile file;
  const Status s = ListInto(store, "val/", file.fd());
  ASSERT_FALSE(s);
  EXPECT_EQ(s.error().code(), Errc::kNotFound);
  EXPECT_TRUE(s.error().message().starts_with("mem://listed/val/")) << s.error().message();
}

TEST(Listing, AnEmptyFolderThatHasAMarkerIsFound) {
  ListedStore store({"empty/"});
  EXPECT_EQ(ExtraRequests(store, "empty/"), 0);
}

TEST(Listing, AFewPagesCostAFewRequestsMore) {
  for (const std::size_t n : {1001U, 2000U, 2500U, 3000U, 5000U}) {
    ListedStore store(Flat(n));
    store.latency = std::chrono::milliseconds(1);
    EXPECT_LE(ExtraRequests(store, "train/"), 4) << n;
  }
}

struct Shape {
  std::string name;
  std::set<std::string> keys;
};

std::vector<Shape> Shapes(std::size_t n) {
  std::vector<Shape> shapes;
  shapes.push_back({"numbers that fill their digits", Flat(n, "train/img_", 5)});
  shapes.push_back({"numbers in wide fields", Flat(n, "", 12)});
  std::mt19937_64 random(7);
  const auto hex = [&](int digits) {
    std::string s;
    while (digits-- > 0) s += "0123456789abcdef"[random() % 16];
    return s;
  };
  Shape s{"hashes", {}};
  while (s.keys.size() < n) s.keys.insert(hex(32) + ".parquet");
  shapes.push_back(s);
  s = {"class folders", {}};
  for (std::size_t i = 0; s.keys.size() < n; ++i) {
    s.keys.insert("imagenet/train/n" + Number(1440764 + (i % 1000) * 9173, 8) + "/" + "n" +
                  std::to_string(i) + ".JPEG");
  }
  shapes.push_back(s);
  s = {"dates", {}};
  for (std::size_t i = 0; s.keys.size() < n; ++i) {
    s.keys.insert("logs/year=" + std::to_string(2015 + i % 9) +
                  "/month=" + Number(1 + i / 9 % 12, 2) + "/day=" + Number(1 + i / 108 % 28, 2) +
                  "/part-" + Number(i / 3024, 5) + ".parquet");
  }
  shapes.push_back(s);
  s = {"two large folders far apart", {}};
  for (std::size_t i = 0; i < n; ++i)
    s.keys.insert((i % 2 == 0 ? "train/" : "annotations/") + Number(i, 9));
  shapes.push_back(s);
  s = {"deep and narrow", {}};
  for (std::size_t i = 0; i < n; ++i)
    s.keys.insert("a/very/long/way/down/to/the/data/" + hex(2) + "/" + hex(2) + "/" + hex(12));
  shapes.push_back(s);
  s = {"skewed", {}};
  for (std::size_t i = 0; i < n; ++i) {
    s.keys.insert(i % 100 == 0 ? hex(8) : "common/prefix/of/nearly/all/" + Number(i, 10));
  }
  shapes.push_back(s);
  s = {"other writings", {}};
  const std::vector<std::string> letters = {
      "\xc3\xa9", "\xe4\xb8\xad", "\xf0\x9f\x98\x80", "\xd0\xb6", "a", "Z", " ", "\xe6\x96\x87"};
  while (s.keys.size() < n) {
    std::string key;
    for (int i = 0; i < 8; ++i) key += letters[random() % letters.size()];
    s.keys.insert(key);
  }
  shapes.push_back(s);
  return shapes;
}

TEST(Listing, AllShapesOfNamesAreListedWholeAndWithFewRequestsMore) {
  for (Shape& shape : Shapes(60'000)) {
    SCOPED_TRACE(shape.name);
    if (std::getenv("LEAT_DEBUG") != nullptr) std::printf("%s: ", shape.name.c_str());
    ListedStore store(shape.keys, 300);
    store.latency = std::chrono::milliseconds(3);
    EXPECT_LE(ExtraRequests(store, "", 300), 30) << "of 200";
    EXPECT_GE(store.most_at_once, 4U);
  }
}

TEST(Listing, ASubPrefixIsListedAlone) {
  std::set<std::string> keys = Flat(9000, "train/img_", 6);
  keys.merge(Flat(9000, "tr/", 6));
  keys.merge(Flat(9000, "train0/", 6));
  ListedStore store(keys, 100);
  EXPECT_LE(ExtraRequests(store, "train/", 100), 22);
}

TEST(Listing, AnEarlierSnapshotSaysWhereToCut) {
  std::set<std::string> keys = Shapes(60'000)[3].keys;
  ListedStore store(keys, 100);
  const MemoryFile old;
  ASSERT_TRUE(ListInto(store, "imagenet/", old.fd()));
  ListingOptions options;
  options.hint = *Snapshot::Open(old.fd());
  store.latency = std::chrono::milliseconds(1);
  EXPECT_LE(ExtraRequests(store, "imagenet/", 100, options), 60);
  EXPECT_GE(store.most_at_once, 6U);

  // It may be out of date in every way.
  std::set<std::string> fewer(keys.begin(), std::next(keys.begin(), 300));
  ListedStore shrunk(fewer, 100);
  EXPECT_LE(ExtraRequests(shrunk, "imagenet/", 100, options), 20);
  ListedStore other(Flat(60'000, "imagenet/zzz", 8), 100);
  EXPECT_LE(ExtraRequests(other, "imagenet/", 100, options), 90);
  ListedStore elsewhere(Flat(20'000, "else/", 8), 100);
  EXPECT_LE(ExtraRequests(elsewhere, "else/", 100, options), 30);
}

TEST(Listing, RandomKeysInPagesOfAnySizeAreAllListedOnce) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (int round = 0; round < 200; ++round) {
    const std::string alphabet =
        std::string("abz09/-._~ !A\x7f") + (round % 3 == 0 ? "cdefghij12345" : "");
    std::set<std::string> keys;
    const std::size_t n = 1 + random() % 400;
    while (keys.size() < n) {
      std::string key;
      for (std::size_t length = 1 + random() % 12; length > 0; --length) {
        if (random() % 12 == 0) {
          key += random() % 2 == 0 ? "\xc3\xa4" : "\xf0\x9f\x8e\x89";
        } else {
          key += alphabet[random() % alphabet.size()];
        }
      }
      keys.insert(key);
    }
    const std::size_t page = 1 + random() % 20;
    ListedStore store(keys, page);
    ListingOptions options;
    options.threads = 1 + random() % 12;
    const long extra = ExtraRequests(store, "", page, options);
    EXPECT_LE(extra, 4 + static_cast<long>(options.threads) + static_cast<long>(n / page) / 4);
    if (HasFailure()) return;
  }
}

TEST(Listing, ASerialListingCutsNothing) {
  ListedStore store(Flat(5500));
  ListingOptions options;
  options.threads = 1;
  EXPECT_EQ(ExtraRequests(store, "", 1000, options), 0);
  EXPECT_EQ(store.most_at_once, 1U);
}

TEST(Listing, ProgressCountsUpToAllObjectsOneCallAtATime) {
  ListedStore store(Flat(20'000), 100);
  std::atomic<int> inside{0};
  std::uint64_t last = 0;
  ListingOptions options;
  options.on_progress = [&](std::uint64_t n) {
    EXPECT_EQ(++inside, 1);
    EXPECT_GE(n, last);
    last = n;
    --inside;
  };
  ExtraRequests(store, "", 100, options);
  EXPECT_EQ(last, 20'000U);
}

TEST(Listing, ARangeWhoseLastPageIsBeingKeptIsNotCut) {
  for (int round = 0; round < 10; ++round) {
    ListedStore store(Flat(1000), 50);
    std::uint64_t kept = 0;
    ListingOptions options;
    options.on_progress = [&](std::uint64_t n) {
      kept = n;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    };
    ExtraRequests(store, "", 50, options);
    EXPECT_EQ(kept, 1000U) << "a page was kept twice";
  }
}

Status Spoiled(const std::function<void(const std::string&, store::ListPage&)>& spoil,
               std::string_view prefix = "") {
  ListedStore store(Flat(5000, "p/", 6), 100);
  store.spoil = spoil;
  const MemoryFile file;
  return ListInto(store, prefix, file.fd());
}

void ExpectCorrupt(const Status& s, std::string_view says) {
  ASSERT_FALSE(s);
  EXPECT_EQ(s.error().code(), Errc::kCorrupt);
  EXPECT_NE(s.error().message().find(says), std::string::npos) << s.error().message();
  EXPECT_TRUE(s.error().message().starts_with("mem://listed")) << s.error().message();
}

TEST(Listing, APageOutOfOrderIsCorrupt) {
  ExpectCorrupt(Spoiled([](const std::string&, store::ListPage& page) {
                  if (page.objects.size() > 2) std::swap(page.objects[0], page.objects[1]);
                }),
                "out of order");
  ExpectCorrupt(Spoiled([](const std::string& after, store::ListPage& page) {
                  if (!after.empty() && page.objects.size() > 2) page.objects[1] = page.objects[0];
                }),
                "out of order");
}

TEST(Listing, AKeyOutsideThePrefixIsCorrupt) {
  ExpectCorrupt(
      Spoiled([](const std::string&, store::ListPage& page) { page.objects.push_back(Key("q")); },
              "p/"),
      "below \"p/\"");
}

TEST(Listing, AListingThatDoesNotAdvanceIsCorruptNotEndless) {
  store::ListPage first;
  ExpectCorrupt(Spoiled([&](const std::string& after, store::ListPage& page) {
                  if (after.empty()) first = page;
                  page = first;
                }),
                "out of order");
  ExpectCorrupt(Spoiled([&](const std::string& after, store::ListPage& page) {
                  page.objects.clear();
                  page.next_after = after;
                  page.truncated = true;
                }),
                "endless");
}

TEST(Listing, AnEmptyPageThatAdvancesIsFine) {
  ListedStore store(Flat(50, "p/", 6), 10);
  store.spoil = [](const std::string& after, store::ListPage& page) {
    if (after.empty()) {
      page.objects.clear();
      page.truncated = true;
      page.next_after = "o";
    }
  };
  ExtraRequests(store, "", 10);
}

TEST(Listing, EveryPageIsAskedForVersionsWhichThePinDoesNotKnow) {
  const auto store = store::memory::MakeMemoryStore("mem://bucket", 10);
  std::map<std::string, std::string> versions;
  for (std::size_t i = 0; i < 300; ++i) {
    const std::string key = "p/" + Number(i, 4);
    const auto put = store->Put(key, AsBytes(key), {}, {});
    ASSERT_TRUE(put);
    versions[key] = put->version_id;
  }
  const MemoryFile with, without;
  ASSERT_TRUE(ListInto(*store, "p/", with.fd(), {.with_versions = true}));
  ASSERT_TRUE(ListInto(*store, "p/", without.fd()));
  const auto named = *Snapshot::Open(with.fd()), plain = *Snapshot::Open(without.fd());
  ASSERT_EQ(named->file_count(), 300U);
  for (FileIndex i = 0; i < named->file_count(); ++i) {
    EXPECT_EQ(named->file(i).version_id, versions.at(named->KeyOfFile(i)));
    EXPECT_EQ(plain->file(i).version_id, "");
  }
  EXPECT_EQ(named->pin(), plain->pin());
}

TEST(Listing, AnErrorOfOneWorkerEndsTheOthers) {
  ListedStore store(Flat(100'000, "p/", 6), 100);
  store.before_page = [&](const std::string&) -> Status {
    if (store.requests > 50) return Fail(Errc::kDenied, "mem://listed/p/: denied");
    return {};
  };
  const MemoryFile file;
  const Status s = ListInto(store, "", file.fd());
  ASSERT_FALSE(s);
  EXPECT_EQ(s.error().code(), Errc::kDenied);
  EXPECT_LT(store.requests, 80U);
}

TEST(Listing, CancelledBetweenPagesItEnds) {
  ListedStore store(Flat(100'000, "p/", 6), 100);
  std::stop_source stop;
  store.before_page = [&](const std::string&) -> Status {
    if (store.requests > 50) stop.request_stop();
    return {};
  };
  const MemoryFile file;
  const Status s = ListInto(store, "", file.fd(), {}, {.stop = stop.get_token()});
  ASSERT_FALSE(s);
  EXPECT_EQ(s.error().code(), Errc::kCancelled);
  EXPECT_LT(store.requests, 80U);
}

TEST(Listing, ADeadlineEndsItToo) {
  ListedStore store(Flat(100'000, "p/", 6), 100);
  const MemoryFile file;
  const Status s = ListInto(store, "", file.fd(), {}, {.deadline = CallContext::Clock::now()});
  ASSERT_FALSE(s);
  EXPECT_EQ(s.error().code(), Errc::kDeadline);
  EXPECT_EQ(store.requests, 0U);
}

TEST(CutPoints, LieBetweenAndKeepCharactersWhole) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  const std::vector<std::string> letters = {
      "a", "b", "0", "9", "z", "/", "\xc3\xa9", "\xf0\x9f\x98\x80", "-", " "};
  for (int round = 0; round < 2000; ++round) {
    CutPoints cuts("p/");
    std::set<std::string> keys;
    for (int i = 0; i < 20; ++i) {
      std::string key = "p/";
      for (std::size_t n = 1 + random() % 6; n > 0; --n) key += letters[random() % letters.size()];
      keys.insert(key);
    }
    std::string before;
    for (const std::string& key : keys) {
      cuts.Learn(before, key);
      before = key;
    }
    std::string at = *std::next(keys.begin(), static_cast<long>(random() % keys.size()));
    std::optional<std::string> end;
    for (int i = 0; i < 40; ++i) {
      const auto cut = cuts.Between(*keys.begin(), at, end ? &*end : nullptr, 4);
      if (!cut) break;
      EXPECT_GT(*cut, at);
      EXPECT_TRUE(!end || *cut < *end);
      EXPECT_TRUE(cut->starts_with("p/"));
      if (HasFailure()) return;
      if (random() % 2 == 0 || !end) {
        end = *cut;
      } else {
        at = *cut;
      }
    }
  }
}

}  // namespace
}  // namespace leat::snapshot
