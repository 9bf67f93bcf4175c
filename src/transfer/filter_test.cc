#include "transfer/filter.h"

#include <gtest/gtest.h>

namespace leat::transfer {
namespace {

bool Matches(std::string_view pattern, std::string_view path) {
  const auto glob = Glob::Parse(pattern);
  EXPECT_TRUE(glob) << pattern;
  return glob && glob->Matches(path);
}

TEST(Glob, MatchesWhatRclonesDoes) {
  EXPECT_TRUE(Matches("file.jpg", "file.jpg"));
  EXPECT_TRUE(Matches("file.jpg", "directory/file.jpg"));
  EXPECT_FALSE(Matches("file.jpg", "afile.jpg"));
  EXPECT_FALSE(Matches("file.jpg", "directory/afile.jpg"));
  EXPECT_TRUE(Matches("/file.jpg", "file.jpg"));
  EXPECT_FALSE(Matches("/file.jpg", "directory/file.jpg"));
  EXPECT_TRUE(Matches("*.jpg", "a/b.jpg"));
  EXPECT_TRUE(Matches("/dir/*.jpg", "dir/b.jpg"));
  EXPECT_FALSE(Matches("/dir/*.jpg", "dir/sub/b.jpg"));
  EXPECT_TRUE(Matches("/dir/**.jpg", "dir/sub/b.jpg"));
  EXPECT_TRUE(Matches("dir/", "x/dir/sub/b"));
  EXPECT_FALSE(Matches("dir/", "dir"));
  EXPECT_TRUE(Matches("*.{jpg,png}", "x/b.png"));
  EXPECT_FALSE(Matches("*.{jpg,png}", "x/b.gif"));
  EXPECT_TRUE(Matches("{a{b,c},d}e", "ace"));
  EXPECT_TRUE(Matches("[a-c]?z", "bxz"));
  EXPECT_FALSE(Matches("[^a-c]?z", "bxz"));
  EXPECT_FALSE(Matches("/a?b", "a/b"));
  EXPECT_FALSE(Matches("/a[/]b", "a/b"));
  EXPECT_TRUE(Matches("\\*.jpg", "*.jpg"));
  EXPECT_FALSE(Matches("\\*.jpg", "a.jpg"));
  EXPECT_TRUE(Matches("a*b*c", "axbxxbc"));
  EXPECT_TRUE(Matches("/**/x/*.c", "a/x/b/x/y.c"));
}

TEST(Glob, MalformedOnesAreRefused) {
  for (const char* pattern : {"", "[a", "a{b", "a}b", "a\\", "{a,b}{"})
    EXPECT_FALSE(Glob::Parse(pattern)) << pattern;
}

TEST(Glob, HostileOnesEndSoon) {
  const std::string path(4000, 'a');
  std::string stars;
  for (int i = 0; i < 100; ++i) stars += "*a";
  EXPECT_FALSE(Matches(stars + "b", path));
  std::string bombs;
  for (int i = 0; i < 30; ++i) bombs += "{a,b}";
  EXPECT_FALSE(Glob::Parse(bombs));
}

TEST(Filter, TheFirstRuleThatMatchesDecides) {
  Filter filter;
  EXPECT_TRUE(filter.all());
  ASSERT_TRUE(filter.AddRules("# c\n- secret*.jpg\n+ *.jpg\n- *\n"));
  EXPECT_TRUE(filter.Means("a/b.jpg", 1));
  EXPECT_FALSE(filter.Means("a/secret1.jpg", 1));
  EXPECT_FALSE(filter.Means("a/b.png", 1));
  EXPECT_FALSE(filter.AddRules("*.jpg"));
}

TEST(Filter, WithAnIncludeTheRestIsLeftOut) {
  Filter filter;
  ASSERT_TRUE(filter.Include("*.txt"));
  EXPECT_TRUE(filter.Means("a.txt", 1));
  EXPECT_FALSE(filter.Means("a.bin", 1));
  Filter excluding;
  ASSERT_TRUE(excluding.Exclude("*.txt"));
  EXPECT_FALSE(excluding.Means("a.txt", 1));
  EXPECT_TRUE(excluding.Means("a.bin", 1));
}

TEST(Filter, FilesAndSizes) {
  Filter filter;
  filter.AddFiles("/a/b\n#x\n c \n");
  filter.SetSizes(10, 20);
  EXPECT_TRUE(filter.Means("a/b", 10));
  EXPECT_TRUE(filter.Means("c", 20));
  EXPECT_FALSE(filter.Means("c", 21));
  EXPECT_FALSE(filter.Means("c", 9));
  EXPECT_FALSE(filter.Means("d", 10));
}

}  // namespace
}  // namespace leat::transfer
