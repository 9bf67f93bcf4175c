#include "store/local/local_store.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "base/bytes.h"
#include "testing/conformance.h"

namespace leat::testing {
namespace {

namespace fs = std::filesystem;

class TempFolder {
 public:
  TempFolder() {
    std::string name = (fs::temp_directory_path() / "leat-local-XXXXXX").string();
    path_ = ::mkdtemp(name.data());
  }
  ~TempFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  const fs::path& path() const { return path_; }
  void Write(const std::string& name, const std::string& body) const {
    fs::create_directories((path_ / name).parent_path());
    std::ofstream(path_ / name, std::ios::binary) << body;
  }

 private:
  fs::path path_;
};

class LocalSubject final : public Subject {
 public:
  store::ObjectStore& store() override { return *store_; }

 private:
  TempFolder folder_;
  std::unique_ptr<store::ObjectStore> store_ =
      store::local::MakeLocalStore(folder_.path().string()).value();
};

}  // namespace

INSTANTIATE_TEST_SUITE_P(Local, ObjectStoreSuite,
                         ::testing::Values(StoreCase{
                             .name = "Local",
                             .make = [] { return std::make_unique<LocalSubject>(); }}),
                         NameOfCase);

namespace {

std::vector<std::string> Keys(store::ObjectStore& store) {
  std::vector<std::string> keys;
  const auto page = store.List("", {}, {});
  EXPECT_TRUE(page) << page.error().message();
  if (page) {
    for (const auto& info : page->objects) keys.push_back(info.key);
  }
  return keys;
}

TEST(LocalStore, ARootThatIsMissingOrAFileIsRefused) {
  const TempFolder folder;
  folder.Write("file", "x");
  const auto missing = store::local::MakeLocalStore((folder.path() / "nothing").string());
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code(), Errc::kNotFound);
  const auto file = store::local::MakeLocalStore((folder.path() / "file").string());
  ASSERT_FALSE(file);
  EXPECT_EQ(file.error().code(), Errc::kInvalid);
}

TEST(LocalStore, LinksOutOfTheRootAreNotFollowed) {
  const TempFolder outside;
  outside.Write("secret", "secret");
  const TempFolder folder;
  folder.Write("in/file", "inside");
  fs::create_symlink(outside.path() / "secret", folder.path() / "out");
  fs::create_directory_symlink(outside.path(), folder.path() / "outdir");
  fs::create_symlink("in/file", folder.path() / "link");
  fs::create_symlink("nowhere", folder.path() / "dangling");
  fs::create_directory_symlink(".", folder.path() / "loop");
  const auto store = store::local::MakeLocalStore(folder.path().string()).value();
  for (const char* key : {"out", "outdir/secret"}) {
    const auto stat = store->Stat(key, "", {});
    ASSERT_FALSE(stat) << key;
    EXPECT_EQ(stat.error().code(), Errc::kDenied) << stat.error().message();
    EXPECT_FALSE(store->Read(key, {}, [](auto) { return Status(); }, {}));
  }
  EXPECT_FALSE(store->Put("outdir/new", {}, {}, {}));
  EXPECT_FALSE(fs::exists(outside.path() / "new"));
  EXPECT_EQ(store->Stat("link", "", {}).value().size, 6u);
  EXPECT_EQ(store->Stat("dangling", "", {}).error().code(), Errc::kNotFound);
  EXPECT_EQ(Keys(*store), (std::vector<std::string>{"in/file", "link"}));
}

TEST(LocalStore, FoldersAndDevicesAreNoObjects) {
  const TempFolder folder;
  fs::create_directories(folder.path() / "dir/empty");
  ASSERT_EQ(::mkfifo((folder.path() / "fifo").c_str(), 0600), 0);
  const auto store = store::local::MakeLocalStore(folder.path().string()).value();
  for (const char* key : {"dir", "dir/empty", "fifo"}) {
    EXPECT_EQ(store->Stat(key, "", {}).error().code(), Errc::kNotFound) << key;
    EXPECT_EQ(store->Read(key, {}, [](auto) { return Status(); }, {}).error().code(),
              Errc::kNotFound)
        << key << " (a fifo must not block)";
  }
  EXPECT_EQ(Keys(*store), std::vector<std::string>{});
  EXPECT_EQ(store->Put("dir", {}, {}, {}).error().code(), Errc::kInvalid);
  EXPECT_TRUE(store->Remove("dir", {}));
  EXPECT_TRUE(fs::exists(folder.path() / "dir"));
}

TEST(LocalStore, AFileThatChangesWhileItIsReadIsAConflict) {
  const TempFolder folder;
  folder.Write("x", std::string(1'000'000, 'a'));
  const auto store = store::local::MakeLocalStore(folder.path().string()).value();
  const auto done = store->Read("x", {},
                                [&](std::span<const std::byte>) -> Status {
                                  fs::resize_file(folder.path() / "x", 300'000);
                                  return {};
                                },
                                {});
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code(), Errc::kConflict);
}

TEST(LocalStore, APutThatFailsLeavesNothingBehind) {
  const TempFolder folder;
  const auto store = store::local::MakeLocalStore(folder.path().string()).value();
  ASSERT_TRUE(store->Put("a/x", AsBytes("x"), {}, {}));
  EXPECT_FALSE(store->Put("a/x", AsBytes("y"), {.if_absent = true}, {}));
  EXPECT_FALSE(store->Put("a/x/below", AsBytes("y"), {}, {}));
  std::size_t files = 0;
  for (const auto& entry : fs::directory_iterator(folder.path() / "a")) {
    EXPECT_EQ(entry.path().filename(), "x");
    ++files;
  }
  EXPECT_EQ(files, 1u);
}

}  // namespace
}  // namespace leat::testing
