#include "dataset/storage.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <set>
#include <thread>

#include "base/log.h"
#include "testing/step_killer.h"

namespace leat::dataset {
namespace {

using namespace std::chrono_literals;
namespace fs = std::filesystem;

constexpr LeaseTimes kQuick{20ms, 300ms, 5ms};

void Write(const std::string& path, const std::string& text) { std::ofstream(path) << text; }

class StorageTest : public ::testing::Test {
 protected:
  void SetUp() override {
    SetQuiet(true);
    char path[] = "/tmp/leat-storage-test-XXXXXX";
    root_ = ::mkdtemp(path);
  }
  void TearDown() override { ASSERT_TRUE(os::RemoveTree(root_)); }

  /// `contents` of s3://b/NAME; filled in steps, so that there is something to break off.
  PlaceRequest Request(const std::string& name, const std::string& contents) {
    PlaceRequest request;
    request.name = name;
    request.uri = "s3://b/" + name;
    request.origin = "https://host s3://b\n" + name;
    request.identity = request.origin + "\n" + contents;
    request.found_etag = contents;
    request.fill = [contents, this](const std::string& dir, const CallContext&) -> Status {
      ++fills_;
      fs::create_directories(dir + "/train/0");
      for (const char* file : {"/train/0/a", "/train/b", "/c"}) {
        const std::string at = dir + file;
        if (!os::Exists(at)) {
          Write(at + ".tmp", contents + file);
          fs::rename(at + ".tmp", at);
        }
      }
      return {};
    };
    return request;
  }
  static void ExpectWhole(const std::string& path, const std::string& contents) {
    for (const char* file : {"/train/0/a", "/train/b", "/c"})
      EXPECT_EQ(os::ReadFile(path + file).value_or("?"), contents + file);
    EXPECT_EQ(std::distance(fs::recursive_directory_iterator(path), {}), 5);
  }

  std::string root_;
  std::atomic<int> fills_{0};
};

TEST_F(StorageTest, WhatWasPlacedOnceIsThereForAllWhoAsk) {
  Storage storage(root_ + "/s", kQuick);
  PlaceRequest request = Request("mnist", "one");
  request.etag = "9a";
  request.version = "v1";
  auto first = storage.Place(request, {});
  ASSERT_TRUE(first) << first.error().message();
  EXPECT_FALSE(first->reused);
  EXPECT_EQ(first->path, root_ + "/s/data/mnist-9a-v1");
  ExpectWhole(first->path, "one");
  auto second = storage.Place(request, {});
  ASSERT_TRUE(second);
  EXPECT_TRUE(second->reused);
  EXPECT_EQ(fills_, 1);
  // Known by its pins alone.
  request.identity.clear();
  const auto found = storage.Find(request);
  ASSERT_TRUE(found && *found);
  EXPECT_EQ((*found)->record.uri, "s3://b/mnist");
  EXPECT_EQ((*found)->record.shape.files, 3U);
}

TEST_F(StorageTest, ANameWithoutPinsLeadsToTheNewestAndOldContentsStay) {
  Storage storage(root_, kQuick);
  const auto old = storage.Place(Request("d", "old"), {});
  ASSERT_TRUE(old);
  EXPECT_EQ(fs::read_symlink(root_ + "/data/d").string().find('/') != std::string::npos, true);
  EXPECT_FALSE(fs::read_symlink(root_ + "/data/d").is_absolute());
  const auto now = storage.Place(Request("d", "new"), {});
  ASSERT_TRUE(now);
  ExpectWhole(root_ + "/data/d", "new");
  ExpectWhole(old->path, "old");
  EXPECT_NE(old->path, now->path);
  // Back again is not another download.
  const auto back = storage.Place(Request("d", "old"), {});
  ASSERT_TRUE(back);
  EXPECT_TRUE(back->reused);
  ExpectWhole(root_ + "/data/d", "old");
  EXPECT_EQ(fills_, 2);
  // Who is held to certain contents does not lead the name back.
  PlaceRequest locked = Request("d", "new");
  locked.newest = false;
  ASSERT_TRUE(storage.Place(locked, {}));
  ExpectWhole(root_ + "/data/d", "old");
  const auto listed = storage.List();
  ASSERT_TRUE(listed);
  ASSERT_EQ(listed->size(), 2U);
  EXPECT_EQ(std::ranges::count(*listed, true, &Stored::superseded), 1);
}

TEST_F(StorageTest, AnOccupiedNameIsNeverReusedInSilence) {
  Storage storage(root_, kQuick);
  ASSERT_TRUE(storage.Place(Request("d", "one"), {}));
  PlaceRequest other = Request("d", "one");
  other.uri = "s3://other/d";
  other.origin = "https://host s3://other\nd";
  other.identity = other.origin;
  auto placed = storage.Place(other, {});
  ASSERT_FALSE(placed);
  EXPECT_EQ(placed.error().code(), Errc::kConflict);
  EXPECT_NE(placed.error().message().find("s3://b/d already, not s3://other/d"), std::string::npos)
      << placed.error().message();
  // The same URI of another server.
  other.uri = "s3://b/d";
  placed = storage.Place(other, {});
  ASSERT_FALSE(placed);
  EXPECT_NE(placed.error().message().find("of another server"), std::string::npos);
  // With pins, too.
  PlaceRequest pinned = Request("p", "one");
  pinned.etag = "1";
  ASSERT_TRUE(storage.Place(pinned, {}));
  other.name = "p";
  other.etag = "1";
  EXPECT_FALSE(storage.Place(other, {}));
  // A folder that leat has not made.
  fs::create_directory(root_ + "/data/mine");
  placed = storage.Place(Request("mine", "one"), {});
  ASSERT_FALSE(placed);
  EXPECT_NE(placed.error().message().find("is not leat's"), std::string::npos);
  EXPECT_TRUE(fs::is_empty(root_ + "/data/mine"));
  // Names that are leat's own.
  EXPECT_FALSE(storage.Place(Request(".leat-trees", "one"), {}));
  EXPECT_EQ(fills_, 2);
}

TEST_F(StorageTest, WhatIsGoneOrChangedIsDownloadedAgain) {
  Storage storage(root_, kQuick);
  PlaceRequest request = Request("d", "one");
  request.etag = "1";
  const std::string path = root_ + "/data/d-1";
  ASSERT_TRUE(storage.Place(request, {}));
  ASSERT_TRUE(os::RemoveTree(path));
  ASSERT_TRUE(storage.Place(request, {}));
  ExpectWhole(path, "one");
  // A file deep inside is gone.
  fs::remove(path + "/train/0/a");
  ASSERT_TRUE(storage.Place(request, {}));
  ExpectWhole(path, "one");
  // Another folder has taken its place.
  ASSERT_TRUE(os::RemoveTree(path));
  fs::create_directories(path + "/train/0");
  ASSERT_TRUE(storage.Place(request, {}));
  ExpectWhole(path, "one");
  EXPECT_EQ(fills_, 4);
}

TEST_F(StorageTest, ManyWhoAskAtOnceFillItOnce) {
  std::vector<std::jthread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&, i] {
      Storage storage(root_, kQuick);
      const auto placed = storage.Place(Request("d", "one"), {});
      ASSERT_TRUE(placed) << i << placed.error().message();
      ExpectWhole(placed->path, "one");
    });
  }
  threads.clear();
  EXPECT_EQ(fills_, 1);
}

TEST_F(StorageTest, AFillingThatFailsLeavesNothingThatLooksComplete) {
  Storage storage(root_, kQuick);
  PlaceRequest request = Request("d", "one");
  request.etag = "1";
  const auto fill = request.fill;
  request.fill = [&](const std::string& dir, const CallContext& ctx) -> Status {
    LEAT_RETURN_IF_ERROR(fill(dir, ctx));
    return Fail(Errc::kCorrupt, "the digest is wrong");
  };
  const auto placed = storage.Place(request, {});
  ASSERT_FALSE(placed);
  EXPECT_EQ(placed.error().message(), "the digest is wrong");
  EXPECT_FALSE(os::Exists(root_ + "/data/d-1"));
  const auto listed = storage.List();
  ASSERT_EQ(listed->size(), 1U);
  EXPECT_FALSE((*listed)[0].complete);
  request.fill = fill;
  EXPECT_TRUE(storage.Place(request, {}));
}

TEST_F(StorageTest, APartIsGoneOnWithUnlessAPowerLossOrOtherContentsAreBetween) {
  Storage storage(root_, kQuick);
  PlaceRequest request = Request("d", "one");
  request.etag = "1";
  bool found = false;
  request.fill = [&](const std::string& dir, const CallContext&) -> Status {
    found = os::Exists(dir + "/brought");
    Write(dir + "/brought", "before");
    return Fail(Errc::kUnavailable, "the line is cut");
  };
  const auto goes_on = [&] {
    EXPECT_FALSE(storage.Place(request, {}));
    return found;
  };
  EXPECT_FALSE(goes_on());
  EXPECT_TRUE(goes_on());
  // "machine/boot", then whose contents.
  const std::string path = root_ + "/.leat/d-1/part-of";
  const std::string text = os::ReadFile(path).value_or("");
  const std::size_t slash = text.find('/');
  const std::size_t end = text.find('\n');
  ASSERT_LT(slash, end);
  ASSERT_NE(end, text.npos);
  Write(path, text.substr(0, slash) + "/another-boot" + text.substr(end));
  EXPECT_FALSE(goes_on());
  Write(path, "elsewhere/another-boot" + text.substr(end));
  EXPECT_TRUE(goes_on());
  Write(path, text.substr(0, end) + "\nother contents");
  EXPECT_FALSE(goes_on());
  ::unlink(path.c_str());
  EXPECT_FALSE(goes_on());
}

TEST_F(StorageTest, TooLittleRoomIsFoundBeforeAnythingIsFilled) {
  Storage storage(root_, kQuick);
  PlaceRequest request = Request("d", "one");
  request.bytes = std::uint64_t{1} << 60;
  const auto placed = storage.Place(request, {});
  ASSERT_FALSE(placed);
  EXPECT_EQ(placed.error().code(), Errc::kNoSpace);
  EXPECT_EQ(fills_, 0);
}

TEST_F(StorageTest, VerifyingNamesWhatIsNotAsItWas) {
  Storage storage(root_, kQuick);
  ASSERT_TRUE(storage.Place(Request("d", "one"), {}));
  auto stored = storage.List()->at(0);
  EXPECT_TRUE(stored.complete);
  EXPECT_TRUE(storage.Verify(stored, {})->none());
  Write(root_ + "/data/d/c", "One/c");  // the same size
  fs::remove(root_ + "/data/d/train/b");
  Write(root_ + "/data/d/x", "");
  const auto difference = storage.Verify(stored, {});
  ASSERT_TRUE(difference);
  EXPECT_EQ(difference->changed, std::vector<std::string>{"c"});
  EXPECT_EQ(difference->missing, std::vector<std::string>{"train/b"});
  EXPECT_EQ(difference->added, std::vector<std::string>{"x"});
}

TEST_F(StorageTest, WhatIsInUseIsNotRemoved) {
  Storage storage(root_, kQuick);
  auto placed = storage.Place(Request("d", "one"), {});
  ASSERT_TRUE(placed);
  auto stored = storage.List()->at(0);
  EXPECT_TRUE(stored.in_use);
  const Status refused = storage.Remove(stored);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message().find("in use"), std::string::npos);
  ExpectWhole(root_ + "/data/d", "one");
  placed->used.Reset();
  ASSERT_TRUE(storage.Remove(stored));
  EXPECT_FALSE(os::Exists(root_ + "/data/d"));
  EXPECT_TRUE(storage.List()->empty());
  EXPECT_TRUE(storage.Place(Request("d", "one"), {}));
}

TEST_F(StorageTest, DamagedRecordsAreNoDatasets) {
  Storage storage(root_, kQuick);
  PlaceRequest request = Request("d", "one");
  request.etag = "1";
  ASSERT_TRUE(storage.Place(request, {}));
  const std::string record = root_ + "/.leat/d-1/.dataset.json";
  for (const std::string& text :
       {std::string(), std::string("{"), std::string("[]"), std::string("{\"leat-dataset\": 2}"),
        os::ReadFile(record)->substr(0, 100)}) {
    Write(record, text);
    EXPECT_FALSE(*storage.Find(request));
    ASSERT_TRUE(storage.Place(request, {})) << text;
    ExpectWhole(root_ + "/data/d-1", "one");
  }
}

// Whatever moment it is killed at: what is found is whole, and the next one gets there.
TEST_F(StorageTest, KilledAtEachStepOfPlacing) {
  for (int step = 0;; ++step) {
    const std::string root = root_ + "/" + std::to_string(step);
    ASSERT_TRUE(Storage(root, kQuick).Place(Request("d", "old"), {}));
    const bool killed = testing::KilledAtStep(step, [&] {
      Storage storage(root, kQuick);
      (void)storage.Place(Request("d", "new"), {});
    });
    Storage storage(root, kQuick);
    // The name leads to the old or the new.
    const std::string shown = os::ReadFile(root + "/data/d/c").value_or("?");
    ASSERT_TRUE(shown == "old/c" || shown == "new/c") << step << " " << shown;
    ExpectWhole(root + "/data/d", shown.substr(0, 3));
    const auto listed = storage.List();
    for (const Stored& stored : *listed) {
      ASSERT_TRUE(!stored.complete || storage.Verify(stored, {})->none()) << step;
    }
    const auto placed = storage.Place(Request("d", "new"), {});
    ASSERT_TRUE(placed) << step << placed.error().message();
    ExpectWhole(placed->path, "new");
    ExpectWhole(root + "/data/d", "new");
    for (const auto& entry : fs::recursive_directory_iterator(root + "/.leat")) {
      const std::string name = entry.path().filename();
      ASSERT_FALSE(name.starts_with("part.") || name.starts_with("gone.")) << step << entry.path();
    }
    ASSERT_TRUE(os::RemoveTree(root));
    if (!killed) break;
    ASSERT_LT(step, 500);
  }
}

TEST_F(StorageTest, KilledAtEachStepOfRemoving) {
  for (int step = 0;; ++step) {
    const std::string root = root_ + "/" + std::to_string(step);
    PlaceRequest request = Request("d", "one");
    request.etag = "1";
    ASSERT_TRUE(Storage(root, kQuick).Place(request, {}));
    const bool killed = testing::KilledAtStep(step, [&] {
      Storage storage(root, kQuick);
      (void)storage.Remove(storage.List()->at(0));
    });
    Storage storage(root, kQuick);
    if (os::Exists(root + "/data/d-1")) {
      ExpectWhole(root + "/data/d-1", "one");
    } else {
      EXPECT_FALSE(*storage.Find(request));
    }
    ASSERT_TRUE(storage.Place(request, {})) << step;
    ExpectWhole(root + "/data/d-1", "one");
    ASSERT_TRUE(os::RemoveTree(root));
    if (!killed) break;
    ASSERT_LT(step, 200);
  }
}

}  // namespace
}  // namespace leat::dataset
