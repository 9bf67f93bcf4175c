#include <gtest/gtest.h>

#include "dataset/name.h"
#include "dataset/options.h"

namespace leat::dataset {
namespace {

TEST(Name, IsTheLastItemWithoutAnArchivesExtension) {
  EXPECT_EQ(DefaultName("my-bucket/mnist.zip"), "mnist");
  EXPECT_EQ(DefaultName("my-bucket"), "my-bucket");
  EXPECT_EQ(DefaultName("my-bucket/dir/"), "dir");
  EXPECT_EQ(DefaultName("b/x.tar.gz"), "x");
  EXPECT_EQ(DefaultName("b/x.TAR.Bz2"), "x");
  EXPECT_EQ(DefaultName("b/x.tar.gz2"), "x");
  EXPECT_EQ(DefaultName("b/x.v1.tgz"), "x.v1");
  EXPECT_EQ(DefaultName("b/data.csv"), "data.csv");
  EXPECT_EQ(DefaultName("b/x.gz"), "x.gz");
  EXPECT_EQ(DefaultName("b/.zip"), ".zip");
  EXPECT_EQ(DefaultName("b/dataset A.zip"), "dataset A");
}

TEST(Name, MayBeWhateverAFolderIsCalledButNone) {
  for (const char* good : {"a", "dataset A", "x-y", "\xff", "a\nb", "None", "..."})
    EXPECT_TRUE(CheckName(good)) << good;
  for (const std::string& bad :
       {std::string(), std::string("."), std::string(".."), std::string("a/b"), std::string("none"),
        std::string("a\0b", 3), std::string(256, 'x')}) {
    const Status checked = CheckName(bad);
    ASSERT_FALSE(checked) << bad;
    EXPECT_EQ(checked.error().code(), Errc::kInvalid);
  }
  EXPECT_TRUE(CheckName(std::string(255, 'x')));
}

TEST(Name, OfAFolderHasTheEtagFirstAndLeavesOutWhatIsNotGiven) {
  EXPECT_EQ(*FolderName("mnist", "", ""), "mnist");
  EXPECT_EQ(*FolderName("mnist", "9a", ""), "mnist-9a");
  EXPECT_EQ(*FolderName("mnist", "", "v1"), "mnist-v1");
  EXPECT_EQ(*FolderName("dataset A", "9a-12", "v1"), "dataset A-9a-12-v1");
  EXPECT_EQ(*FolderName("x", "a/b", ""), "x-a_b");
  EXPECT_FALSE(FolderName(std::string(250, 'x'), "123456", ""));
  EXPECT_FALSE(FolderName("none", "1", ""));
}

OptionLists ThreeDatasets() {
  OptionLists lists;
  lists.uris = {"s3://b/a.zip", "s3://b/dir", "s3://c/c.zip"};
  lists.names = {"dataset A", "dataset B", "dataset C"};
  lists.access_key_ids = {"A", "A", "K"};
  lists.secret_access_keys = {"s", "s", "t"};
  lists.version_ids = {"v1", "none", "v3"};
  lists.etags = {"e1", "none", "none"};
  return lists;
}

TEST(Options, BelongTogetherByTheirPosition) {
  const auto paired = Pair(ThreeDatasets());
  ASSERT_TRUE(paired);
  ASSERT_EQ(paired->datasets.size(), 3U);
  EXPECT_TRUE(paired->notes.empty());
  EXPECT_EQ(paired->datasets[0].version_id, "v1");
  EXPECT_EQ(paired->datasets[0].etag, "e1");
  EXPECT_EQ(paired->datasets[1].name, "dataset B");
  EXPECT_EQ(paired->datasets[1].version_id, "");
  EXPECT_EQ(paired->datasets[1].etag, "");
  EXPECT_EQ(paired->datasets[2].access_key_id, "K");
  EXPECT_EQ(paired->datasets[2].secret_access_key, "t");
}

TEST(Options, NoneIsNoValueInLowerCaseAloneAndNotOfAUri) {
  OptionLists lists;
  lists.uris = {"none"};
  lists.names = {"None"};
  lists.etags = {"none"};
  const auto paired = Pair(lists);
  ASSERT_TRUE(paired);
  EXPECT_EQ(paired->datasets[0].uri, "none");
  EXPECT_EQ(paired->datasets[0].name, "None");
  EXPECT_EQ(paired->datasets[0].etag, "");
}

TEST(Options, AListThatIsTooLongIsRefusedInTheOriginalsWords) {
  OptionLists lists = ThreeDatasets();
  lists.etags.emplace_back("e4");
  const auto paired = Pair(lists);
  ASSERT_FALSE(paired);
  EXPECT_EQ(paired.error().code(), Errc::kInvalid);
  EXPECT_TRUE(paired.error().message().starts_with(
      "Too many dataset parameter sets (4) for 3 dataset URIs. Forgot to add one more dataset "
      "URI?"))
      << paired.error().message();
  lists = {};
  lists.names = {"a"};
  EXPECT_FALSE(Pair(lists));
}

TEST(Options, AListThatIsTooShortIsSaidAndFilledUp) {
  OptionLists lists = ThreeDatasets();
  lists.names.pop_back();
  const auto paired = Pair(lists);
  ASSERT_TRUE(paired);
  ASSERT_EQ(paired->notes.size(), 1U);
  EXPECT_NE(paired->notes[0].find("--datasetName is given 2 times for 3 datasets"),
            std::string::npos)
      << paired->notes[0];
  EXPECT_EQ(paired->datasets[2].name, "");
  lists.names.clear();
  EXPECT_TRUE(Pair(lists)->notes.empty());
}

}  // namespace
}  // namespace leat::dataset
