#include "config/openstack_config.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <map>

#include "os/file.h"

namespace leat::config {
namespace {

class Clouds : public ::testing::Test {
 protected:
  void SetUp() override {
    char path[] = "/tmp/leat-clouds-test-XXXXXX";
    dir_ = ::mkdtemp(path);
    variables_["OS_CLIENT_CONFIG_FILE"] = dir_ + "/clouds.yaml";
    variables_["OS_CLIENT_SECURE_FILE"] = dir_ + "/secure.yaml";
    Write("secure.yaml", "clouds: {}\n");
  }
  void TearDown() override { ASSERT_TRUE(os::RemoveTree(dir_)); }
  void Write(const std::string& name, const std::string& text) {
    ASSERT_TRUE(os::WriteFileAtomic(dir_ + "/" + name, text));
  }
  Environment env() {
    return [this](std::string_view name) -> std::optional<std::string> {
      const auto it = variables_.find(std::string(name));
      return it == variables_.end() ? std::nullopt : std::optional(it->second);
    };
  }
  std::string Refusal(const std::string& cloud) {
    const auto s = OpenStackFromCloud(cloud, env());
    return s ? "" : s.error().message();
  }

  std::string dir_;
  std::map<std::string, std::string> variables_;
};

TEST_F(Clouds, AreReadWithWhatTheSecureFileAdds) {
  Write("clouds.yaml",
        "clouds:\n  chi:\n    auth_type: v3applicationcredential\n    auth:\n      auth_url: "
        "https://chi:5000/v3\n      application_credential_id: abc\n    region_name: CHI@TACC\n    "
        "interface: internal\n  other:\n    auth: {auth_url: 'https://o/v3', username: u, "
        "password: wrong, project_name: p, user_domain_name: Default}\n");
  Write("secure.yaml",
        "clouds:\n  chi: {auth: {application_credential_secret: s3}}\n  other: {auth: {password: "
        "right}}\n");
  const auto chi = OpenStackFromCloud("chi", env());
  ASSERT_TRUE(chi) << chi.error().message();
  EXPECT_EQ(chi->auth_url, "https://chi:5000/v3");
  EXPECT_EQ(chi->application_credential_id, "abc");
  EXPECT_EQ(chi->application_credential_secret, "s3");
  EXPECT_EQ(chi->region, "CHI@TACC");
  EXPECT_EQ(chi->interface, "internal");
  variables_["OS_CLOUD"] = "other";
  variables_["OS_AUTH_URL"] = "https://not-this-one/v3";
  const auto other = OpenStackFromVariables(env());
  ASSERT_TRUE(other) << other.error().message();
  EXPECT_EQ(other->auth_url, "https://o/v3");
  EXPECT_EQ(other->password, "right");
  EXPECT_EQ(other->user_domain, "Default");
}

TEST_F(Clouds, WhatIsWrongIsSaid) {
  EXPECT_NE(Refusal("a").find("clouds.yaml"), std::string::npos);
  Write("clouds.yaml", "clouds:\n  a: {auth: {username: u}}\n  b: {profile: rackspace}\n  c: 1\n");
  EXPECT_NE(Refusal("z").find("no cloud \"z\" (it has: a b c)"), std::string::npos) << Refusal("z");
  EXPECT_NE(Refusal("a").find("cloud a has no auth_url"), std::string::npos) << Refusal("a");
  EXPECT_NE(Refusal("b").find("profile \"rackspace\""), std::string::npos) << Refusal("b");
  EXPECT_NE(Refusal("c").find("no cloud \"c\""), std::string::npos) << Refusal("c");
  for (const char* text : {"", "clouds", "clouds: []", "- a", "a: b", "clouds: {a: {auth: [}"}) {
    Write("clouds.yaml", text);
    EXPECT_NE(Refusal("a"), "") << text;
  }
  Write("clouds.yaml", "clouds: {a: {auth: {auth_url: 'x', password: hunter2\n");
  EXPECT_EQ(Refusal("a").find("hunter2"), std::string::npos);
  Write("clouds.yaml", "clouds: {a: {auth: [1, 2]}}");
  EXPECT_NE(Refusal("a"), "");
}

}  // namespace
}  // namespace leat::config
