#include "job/home.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <map>

#include "base/bytes.h"
#include "base/memory_budget.h"
#include "os/file.h"

namespace leat::job {
namespace {

using Variables = std::map<std::string, std::string>;

config::Environment EnvironmentOf(Variables variables) {
  return [variables = std::move(variables)](std::string_view name) -> std::optional<std::string> {
    const auto it = variables.find(std::string(name));
    return it == variables.end() ? std::nullopt : std::optional(it->second);
  };
}

TEST(Home, DefaultsFollowTheDesktopsFolders) {
  const auto home = FindHome(EnvironmentOf({{"HOME", "/home/u"}}), 0, 0);
  ASSERT_TRUE(home) << home.error().message();
  EXPECT_EQ(home->dir, "/home/u/.local/share/leat");
  EXPECT_EQ(home->cache_dir, "/home/u/.cache/leat");
  EXPECT_EQ(home->cache_bytes, 0u);
  EXPECT_EQ(home->memory_bytes, MemoryBudget::DefaultBytes());
  EXPECT_EQ(home->retry_seconds, 120u);
  EXPECT_EQ(home->snapshots_dir(), "/home/u/.local/share/leat/snapshots");
  const auto xdg = FindHome(
      EnvironmentOf({{"HOME", "/home/u"}, {"XDG_DATA_HOME", "/d"}, {"XDG_CACHE_HOME", "/c"}}), 0,
      0);
  EXPECT_EQ(xdg->dir, "/d/leat");
  EXPECT_EQ(xdg->cache_dir, "/c/leat");
}

TEST(Home, LeatHomeHoldsTheCacheToo) {
  const auto home = FindHome(EnvironmentOf({{"LEAT_HOME", "/l"}, {"XDG_CACHE_HOME", "/c"}}), 0, 0);
  EXPECT_EQ(home->dir, "/l");
  EXPECT_EQ(home->cache_dir, "/l/cache");
  const auto apart =
      FindHome(EnvironmentOf({{"LEAT_HOME", "/l"}, {"LEAT_CACHE_DIR", "/fast"}}), 0, 0);
  EXPECT_EQ(apart->cache_dir, "/fast");
}

TEST(Home, WithoutAnyHomeThereIsNone) {
  const auto home = FindHome(EnvironmentOf({}), 0, 0);
  ASSERT_TRUE(home);
  EXPECT_EQ(home->dir, "");
  EXPECT_EQ(home->cache_dir, "");
}

TEST(Home, OptionsGoBeforeTheEnvironmentBeforeTheFile) {
  char path[] = "/tmp/leat-home-test-XXXXXX";
  const std::string root = ::mkdtemp(path);
  ASSERT_TRUE(os::MakeDirs(root + "/leat"));
  ASSERT_TRUE(os::WriteFileAtomic(root + "/leat/config.toml",
                                  "[cache]\nsize = \"7G\"\ndir = \"/from/file\"\n"));
  Variables variables = {{"HOME", "/home/u"}, {"XDG_CONFIG_HOME", root}};
  auto home = FindHome(EnvironmentOf(variables), 0, 0);
  ASSERT_TRUE(home) << home.error().message();
  EXPECT_EQ(home->cache_bytes, 7'000'000'000u);
  EXPECT_EQ(home->cache_dir, "/from/file");
  variables["LEAT_CACHE_SIZE"] = "5Gi";
  variables["LEAT_CACHE_DIR"] = "/from/env";
  variables["LEAT_MEMORY"] = "100Mi";
  home = FindHome(EnvironmentOf(variables), 0, 0);
  EXPECT_EQ(home->cache_bytes, 5 * kGiB);
  EXPECT_EQ(home->cache_dir, "/from/env");
  EXPECT_EQ(home->memory_bytes, 100 * kMiB);
  home = FindHome(EnvironmentOf(variables), 3 * kGiB, 200 * kMiB);
  EXPECT_EQ(home->cache_bytes, 3 * kGiB);
  EXPECT_EQ(home->memory_bytes, 200 * kMiB);
  home = FindHome(EnvironmentOf(variables), 0, 1);
  EXPECT_EQ(home->memory_bytes, 16 * kMiB) << "less than this cannot work";
  ASSERT_TRUE(os::RemoveTree(root));
}

TEST(Home, WhatCannotBeReadIsRefusedWithItsName) {
  for (const auto& [name, value] :
       {std::pair("LEAT_CACHE_SIZE", "lots"), std::pair("LEAT_MEMORY", "-1"),
        std::pair("LEAT_HOME", "relative"), std::pair("LEAT_CACHE_DIR", "./x")}) {
    const auto home = FindHome(EnvironmentOf({{"HOME", "/home/u"}, {name, value}}), 0, 0);
    ASSERT_FALSE(home) << name;
    EXPECT_EQ(home.error().code(), Errc::kInvalid);
    EXPECT_NE(home.error().message().find(name), std::string::npos) << home.error().message();
  }
}

}  // namespace
}  // namespace leat::job
