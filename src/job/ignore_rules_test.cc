// Held to what `git check-ignore` says (apt-get install git).
#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <random>
#include <set>
#include <string>
#include <vector>

#include "job/context.h"
#include "os/file.h"
#include "testing/seed.h"

namespace leat::job {
namespace {

class Git : public ::testing::Test {
 protected:
  void SetUp() override {
    char path[] = "/tmp/leat-ignore-test-XXXXXX";
    dir_ = ::mkdtemp(path);
    ASSERT_EQ(
        ::system(("git init -q " + dir_ + " && git -C " + dir_ + " config core.ignorecase false")
                     .c_str()),
        0)
        << "this test needs git: apt-get install git";
  }
  void TearDown() override { EXPECT_TRUE(os::RemoveTree(dir_)); }

  /// Makes the paths; those that end in '/' are folders.
  void MakePaths(const std::vector<std::string>& paths) {
    for (const std::string& path : paths) {
      const std::string whole = dir_ + "/" + path;
      ASSERT_TRUE(os::MakeDirs(whole.substr(0, whole.rfind('/'))));
      if (!path.ends_with('/')) {
        ASSERT_TRUE(os::Open(whole, O_WRONLY | O_CREAT)) << path;
      }
    }
    std::string input;
    for (const std::string& path : paths)
      input += path.substr(0, path.size() - path.ends_with('/')) + '\0';
    ASSERT_TRUE(os::WriteFileAtomic(dir_ + "/.git/paths", input));
    paths_ = paths;
  }

  void Compare(const std::string& rules) {
    SCOPED_TRACE(::testing::PrintToString(rules));
    ASSERT_TRUE(os::WriteFileAtomic(dir_ + "/.gitignore", rules));
    const std::string command = "git -C " + dir_ + " check-ignore --no-index -z --stdin <" + dir_ +
                                "/.git/paths >" + dir_ + "/.git/ignored";
    const int status = ::system(command.c_str());
    ASSERT_TRUE(WEXITSTATUS(status) <= 1) << status;
    const std::string output = os::ReadFile(dir_ + "/.git/ignored").value();
    std::set<std::string> ignored;
    for (std::size_t at = 0, end; (end = output.find('\0', at)) != output.npos; at = end + 1)
      ignored.insert(output.substr(at, end - at));
    IgnoreRules ours;
    ours.Add(rules);
    for (const std::string& path : paths_) {
      const bool is_dir = path.ends_with('/');
      const std::string name = path.substr(0, path.size() - is_dir);
      EXPECT_EQ(ours.Ignores(name, is_dir), ignored.contains(name))
          << ::testing::PrintToString(path);
    }
  }

  std::string dir_;
  std::vector<std::string> paths_;
};

TEST_F(Git, AgreesOnATableOfPatternsAndPaths) {
  MakePaths({"a",
             "b.txt",
             "b.bin",
             "a.b.c",
             ".hidden",
             ".hidden.d/x",
             "foo/",
             "foo.d/foo",
             "d/a",
             "d/b.txt",
             "d/e/",
             "d/e/a",
             "d/e/b.txt",
             "d/e/f/g/h/a",
             "x/d/e/a",
             "build/out",
             "src/build/out",
             "src/build/keep",
             "src/main.py",
             "src/main.pyc",
             "src/main.pyo",
             "src/mainxpyc",
             "data/train/1.jpg",
             "data/train/2.png",
             "data/val/1.jpg",
             "data/readme",
             "#hash",
             "!bang",
             "sp ",
             "sp",
             "sp  ",
             "tab\t",
             "star*",
             "starry",
             "q?",
             "qq",
             "back\\slash",
             "[x]",
             "x1",
             "x]",
             "x-",
             "x^",
             "x!",
             "xA",
             "xz",
             "line\nbreak",
             "\xC3\xA4",
             "foobar",
             "foo/x/bar",
             "fooz/bar",
             "foo/bar/z",
             "deep/a/b/c/d/e.log",
             "deep/e.log",
             "A",
             "B.TXT"});
  // clang-format off
  const char* const kRules[] = {
      "", "\n\n", "a", "/a", "a/", "d", "d/", "/d/", "d/a", "/d/a", "d/e", "e", "e/", "*.txt", "*",
      "*/", "/*", "/*/", "*.*", "**", "**/", "/**", "**/a", "/**/a", "d/**", "d/**/", "d/**/a",
      "**/e/a", "d/*", "d/*/", "d/*/a", "**/*.txt", "**d/a", "d**/a", "foo**/bar", "foo**",
      "f**bar", "foo/**/bar", "foo/**bar", "a/**/b", "deep/**/e.log", "deep/**/c/**/e.log",
      "deep/*/e.log", "**/**/e.log", "***/e.log", "deep/***", "*\n!a", "*\n!*.txt",
      "*\n!*/\n!*.txt", "d/\n!d/a", "d/*\n!d/a", "d/*\n!d/e/\nd/e/*\n!d/e/a", "!a\na", "a\n!a\na",
      "build", "/build", "build/\n!build/keep", "build/*\n!build/keep", "src/build/*\n!keep",
      "*.py[co]", "*.py[!c]", "*.py[^c]", "*[.]pyc", "*?pyc", "*.py?", "x[0-9]", "x[a-z]",
      "x[A-Za-z]", "x[]]", "x[]-]", "x[!]]", "x[-]", "x[a-]", "x[^^]", "x[\\]]", "x[[:alpha:]]",
      "x[[:digit:][:upper:]]", "x[[:nothing:]]", "x[[:alpha]", "x[[:alpha:", "x[", "x[]", "x[!",
      "x[z-a]", "x[\\a-\\z]", "x[a-\\", "[[]x]", "\\[x\\]", "x[![:alpha:]]", "x[[:punct:]]",
      "x[[:space:]", "[a-c]", "[a-c]/", "d/[a-c]", "d[/]a", "d?a", "d[^x]a", "#hash", "\\#hash",
      "!bang", "\\!bang", "!!bang", "sp", "sp ", "sp\\ ", "sp\\  ", "sp \\ ", "sp\\ \\ ", "sp  \\",
      "tab", "tab\t", "tab\t ", "  a", " ", "   \n", "a\r\nb.txt\r\n", "a\r", "star\\*", "star*",
      "q\\?", "q?", "back\\slash", "back\\\\slash", "back\\", "\\", "\\a", "a\\", "a\\/", "d\\/a",
      "d/\\a", "**\\/a", "d/**\\/a", "\xEF\xBB\xBF/a", "\xEF\xBB\xBF#a", "a\n\xEF\xBB\xBF*.txt",
      "\xC3\xA4", "?", "??", "\xC3?", "[\xC3]?", "line*break", "line?break", "line", "break", "/",
      "//", "//a", "a//", "d//a", "!", "!/", "/!a", "./a", "d/./a", "d/../a", "../a",
      "d/e/f/g/h/a", "h/a", "g/**/a", "/d/**/h", "data/*/*.jpg", "data/**/*.jpg", "data/train",
      "data/train/\n!data/train/1.jpg", "data/*\n!data/val", "*.jpg\n!data/val/*.jpg", ".*",
      ".hidden*", "*hidden", "foo", "foo/", "foo.d/\nfoo", "b*t", "b*.*t", "*b*t*", "*a*b*", "A",
      "B.TXT", "[[:upper:]]*", "d/e/*\n", "d/**/*", "d/**/*/a", "d/*/**/a", "*/*/a", "*/**/a",
      "/*/e", "**/e/**", "e/**", "!**/a\n*\n!d/", "*\n!/d\n!/d/e\n!/d/e/a",
  };
  // clang-format on
  for (const char* rules : kRules) Compare(rules);
}

TEST_F(Git, AgreesOnPatternsMadeByChance) {
  MakePaths({"b", "ab", "ba", "aab", "a/b/a", "a/c", "c/a/", "c/a/ab", "c/a/ac/b", "d/a/b/ab/",
             "d/b", "d/ab/a", "b-", "b]", "b!", "a*b/a", "e/aab/a", "e/b/b/b/b/a", "a\\b/b"});
  const std::string_view parts[] = {
      "a",   "b",    "c",    "d",    "e",     "a", "b", "/", "/", "*", "*",  "?", "**",   "**/",
      "/**", "/**/", "[ab]", "[!a]", "[a-c]", "[", "]", "!", "-", "^", "\\", " ", "[^b]", "[]a]"};
  std::mt19937_64 random(leat::testing::Seed());
  const auto below = [&](std::size_t n) { return random() % n; };
  for (int round = 0; round < 300 && !HasFailure(); ++round) {
    std::string rules;
    for (std::size_t lines = below(4) + 1; lines > 0; --lines) {
      if (below(4) == 0) rules += '!';
      for (std::size_t n = below(6) + 1; n > 0; --n) rules += parts[below(std::size(parts))];
      rules += '\n';
    }
    Compare(rules);
  }
}

TEST(IgnoreRules, NoPatternTakesForever) {
  IgnoreRules rules;
  std::string stars = "x/", folders = "x/";
  for (int i = 0; i < 500; ++i) {
    stars += "*a";
    folders += "**/a*/";
  }
  rules.Add(stars + "b\n" + folders + "b\n");
  std::string path = "x";
  for (int i = 0; i < 1000; ++i) path += "/aa";
  EXPECT_FALSE(rules.IgnoresHere(path, false));
  EXPECT_FALSE(rules.IgnoresHere("x/" + std::string(4000, 'a'), false));
}

}  // namespace
}  // namespace leat::job
