#include "config/rclone_config.h"

#include <gtest/gtest.h>

namespace leat::config {
namespace {

std::string Refusal(std::string_view text) {
  const auto config = RcloneConfig::Parse(text, "f");
  EXPECT_FALSE(config) << text;
  return config ? "" : config.error().message();
}

TEST(RcloneConfig, LinesAreReadAsRcloneWritesThem) {
  const auto config = RcloneConfig::Parse(
      "\xef\xbb\xbf[a]\r\ntype = swift\r\n  key =  two words \n;x\n#y\n[b c]\ntype: s3\nempty "
      "=\nquoted = ` a `\n",
      "f");
  ASSERT_TRUE(config) << config.error().message();
  const Environment none = [](std::string_view) { return std::optional<std::string>(); };
  EXPECT_EQ(config->Names(), (std::vector<std::string>{"a", "b c"}));
  EXPECT_EQ(config->Find("a", none)->Get("key"), "two words");
  EXPECT_EQ(config->Find("a", none)->type, "swift");
  EXPECT_EQ(config->Find("b c", none)->type, "s3");
  EXPECT_EQ(config->Find("b c", none)->Get("empty"), std::nullopt);
  EXPECT_EQ(config->Find("b c", none)->Get("quoted"), " a ");
}

TEST(RcloneConfig, WhatIsMalformedIsNamedWithoutItsSecrets) {
  EXPECT_EQ(Refusal("[a]\nsecret\n"), "f:2: neither \"[NAME]\" nor \"OPTION = VALUE\"");
  EXPECT_EQ(Refusal("type = s3\n"), "f:1: an option before the first \"[NAME]\"");
  EXPECT_EQ(Refusal("[a\n"), "f:1: a section's name has no \"]\"");
  EXPECT_EQ(Refusal("[a/b]\n"), "f:1: that cannot be a remote's name");
  const std::string encrypted =
      Refusal("# Encrypted rclone configuration File\n\nRCLONE_ENCRYPT_V0:\nxyz\n");
  EXPECT_NE(encrypted.find("rclone config show > FILE"), std::string::npos) << encrypted;
}

}  // namespace
}  // namespace leat::config
