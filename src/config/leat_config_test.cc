#include "config/leat_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace leat::config {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

Environment Home(std::string home, std::string xdg = {}) {
  return [=](std::string_view name) -> std::optional<std::string> {
    if (name == "HOME" && !home.empty()) return home;
    if (name == "XDG_CONFIG_HOME" && !xdg.empty()) return xdg;
    return std::nullopt;
  };
}

std::string ErrorOf(std::string_view text) {
  const auto config = LeatConfig::Parse(Home("/h"), text, "/h/config.toml");
  if (config) return "no error";
  EXPECT_EQ(config.error().code(), Errc::kInvalid);
  return config.error().message();
}

TEST(LeatConfigTest, AllSettings) {
  const auto config = LeatConfig::Parse(
      Home("/h"),
      "memory = \"2Gi\"\n[cache]\nsize = \"100Gi\"\ndir = \"~/cache\"\n[retry]\ntotal = 300\n",
      "f");
  ASSERT_TRUE(config) << config.error().message();
  EXPECT_EQ(config->memory, std::uint64_t{2} << 30);
  EXPECT_EQ(config->cache_size, std::uint64_t{100} << 30);
  EXPECT_EQ(config->cache_dir, "/h/cache");
  EXPECT_EQ(config->retry_total, std::chrono::seconds(300));
}

TEST(LeatConfigTest, WhatIsNotSetIsUnset) {
  const auto config = LeatConfig::Parse(Home("/h"), "# nothing\n", "f");
  ASSERT_TRUE(config);
  EXPECT_FALSE(config->memory || config->cache_size || config->cache_dir || config->retry_total);
}

TEST(LeatConfigTest, UnknownKeysAreNamedWithFileAndLine) {
  EXPECT_THAT(ErrorOf("\nmemroy = \"2Gi\"\n"),
              StartsWith("/h/config.toml:2: there is no setting \"memroy\""));
  EXPECT_THAT(ErrorOf("[cache]\nsize = \"1G\"\nsiez = \"1G\"\n"),
              StartsWith("/h/config.toml:3: there is no setting \"cache.siez\""));
  EXPECT_THAT(ErrorOf("retry.totals = 1\n"),
              StartsWith("/h/config.toml:1: there is no setting \"retry.totals\""));
}

TEST(LeatConfigTest, ValuesThatMakeNoSenseAreNamed) {
  EXPECT_THAT(ErrorOf("[cache]\nsize = \"lots\"\n"),
              StartsWith("/h/config.toml:2: cache.size: \"lots\" is not a size"));
  EXPECT_THAT(ErrorOf("[cache]\nsize = 100\n"), StartsWith("/h/config.toml:2: cache.size must be"));
  EXPECT_THAT(ErrorOf("[cache]\ndir = \"relative\"\n"),
              StartsWith("/h/config.toml:2: cache.dir must be"));
  EXPECT_THAT(ErrorOf("[retry]\n\ntotal = -1\n"),
              StartsWith("/h/config.toml:3: retry.total must be"));
  EXPECT_THAT(ErrorOf("[retry]\ntotal = \"5\"\n"),
              StartsWith("/h/config.toml:2: retry.total must be"));
  EXPECT_THAT(ErrorOf("cache = 1\n"), StartsWith("/h/config.toml:1: cache must be a table"));
}

TEST(LeatConfigTest, AFileThatIsNotTomlIsAnErrorWithItsLine) {
  EXPECT_THAT(ErrorOf("memory = \"2Gi\"\nwhat is this\n"), StartsWith("/h/config.toml:2: "));
  EXPECT_THAT(ErrorOf("memory = \"1G\"\nmemory = \"1G\"\n"), StartsWith("/h/config.toml:2: "));
}

TEST(LeatConfigTest, ATableWithoutANameIsAnErrorInEveryBuild) {
  EXPECT_THAT(ErrorOf("[!]\n"), StartsWith("/h/config.toml:1: "));
  EXPECT_THAT(ErrorOf("[\x17"), StartsWith("/h/config.toml:1: "));
}

TEST(LeatConfigTest, TheFileIsInTheConfigurationFolder) {
  EXPECT_EQ(LeatConfig::Path(Home("/h")), "/h/.config/leat/config.toml");
  EXPECT_EQ(LeatConfig::Path(Home("/h", "/x")), "/x/leat/config.toml");
  EXPECT_EQ(LeatConfig::Path(Home("/h", "relative")), "/h/.config/leat/config.toml");
  EXPECT_EQ(LeatConfig::Path(Home("")), "");
}

TEST(LeatConfigTest, AMissingFileSetsNothingAndAPresentOneIsRead) {
  char folder[] = "/tmp/leat-config-XXXXXX";
  const std::string home = mkdtemp(folder);
  const auto missing = LeatConfig::Load(Home(home));
  ASSERT_TRUE(missing);
  EXPECT_FALSE(missing->memory);
  std::filesystem::create_directories(home + "/.config/leat");
  std::ofstream(home + "/.config/leat/config.toml") << "memory = \"1Gi\"\n";
  const auto present = LeatConfig::Load(Home(home));
  ASSERT_TRUE(present) << present.error().message();
  EXPECT_EQ(present->memory, std::uint64_t{1} << 30);
  std::ofstream(home + "/.config/leat/config.toml") << "no";
  const auto broken = LeatConfig::Load(Home(home));
  ASSERT_FALSE(broken);
  EXPECT_THAT(broken.error().message(), HasSubstr(home + "/.config/leat/config.toml:1: "));
  std::filesystem::remove_all(home);
}

}  // namespace
}  // namespace leat::config
