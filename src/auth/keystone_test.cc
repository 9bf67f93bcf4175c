#include "auth/keystone.h"

#include <gtest/gtest.h>

#include "net/url.h"
#include "testing/canned_transport.h"
#include "testing/fake_clock.h"

namespace leat::auth {
namespace {

constexpr const char* kToken =
    R"({"token": {"expires_at": "2026-11-21T23:00:00.000000Z", "catalog": [
  {"type": "identity", "endpoints": []},
  {"type": "object-store", "endpoints": [
    {"interface": "public", "region": "A", "region_id": "A", "url": "https://a/v1/AUTH_1/"},
    {"interface": "internal", "region": "A", "region_id": "A", "url": "https://inside/v1/AUTH_1"},
    {"interface": "public", "region_id": "B", "url": "https://b/v1/AUTH_1"}]}]}})";

class KeystoneTest : public ::testing::Test {
 protected:
  Result<Credentials> Get(config::OpenStackSettings settings) {
    if (settings.auth_url.empty()) settings.auth_url = "https://keystone:5000/v3";
    settings.from = "remote r";
    provider_ = MakeKeystone(std::move(settings), http_, clock_);
    return provider_->Get({});
  }
  std::string Refusal(config::OpenStackSettings settings, testing::CannedAnswer answer) {
    http_.Then(std::move(answer));
    const auto got = Get(std::move(settings));
    EXPECT_FALSE(got);
    return got ? "" : got.error().message();
  }
  static config::OpenStackSettings WithCredential() {
    config::OpenStackSettings s;
    s.application_credential_id = "id";
    s.application_credential_secret = "secret";
    s.region = "A";
    return s;
  }

  testing::CannedTransport http_;
  testing::FakeClock clock_{testing::FakeClock::Mode::kJump,
                            net::ParseIsoDate("2026-11-21T22:00:00Z").value()};
  std::unique_ptr<CredentialProvider> provider_;
};

TEST_F(KeystoneTest, GivesTheTokenAndTheAccountOfTheRegion) {
  http_.Then({.status = 201, .headers = {{"X-Subject-Token", "t1"}}, .body = kToken});
  const auto got = Get(WithCredential());
  ASSERT_TRUE(got) << got.error().message();
  EXPECT_EQ(got->session_token, "t1");
  EXPECT_EQ(got->endpoint, "https://a/v1/AUTH_1");
  EXPECT_FALSE(got->anonymous());
  EXPECT_EQ(http_.requests()[0].url, "https://keystone:5000/v3/auth/tokens");
  EXPECT_EQ(ParseKeystoneToken(kToken, "B", "publicURL")->endpoint, "https://b/v1/AUTH_1");
  EXPECT_EQ(ParseKeystoneToken(kToken, "A", "internal")->endpoint, "https://inside/v1/AUTH_1");
}

TEST_F(KeystoneTest, ATokenIsKeptAndRenewedBeforeItEnds) {
  http_.Then({.status = 201, .headers = {{"X-Subject-Token", "t1"}}, .body = kToken});
  ASSERT_TRUE(Get(WithCredential()));
  clock_.Advance(std::chrono::minutes(50));
  EXPECT_EQ(provider_->Get({})->session_token, "t1");
  EXPECT_EQ(http_.requests().size(), 1u);
  clock_.Advance(std::chrono::minutes(6));
  std::string later = kToken;
  later.replace(later.find("23:00:00"), 8, "23:59:00");
  http_.Then({.status = 201, .headers = {{"X-Subject-Token", "t2"}}, .body = later});
  EXPECT_EQ(provider_->Get({})->session_token, "t2");
  clock_.Advance(std::chrono::seconds(10));
  provider_->Invalidate();
  http_.Then({.status = 201, .headers = {{"X-Subject-Token", "t3"}}, .body = later});
  EXPECT_EQ(provider_->Get({})->session_token, "t3");
}

TEST_F(KeystoneTest, RefusalsSayWhichWordIsWrongAndNoSecret) {
  const testing::CannedAnswer no{
      .status = 401,
      .body = R"({"error": {"message": "The request you have made requires authentication."}})"};
  auto named = WithCredential();
  named.application_credential_id.clear();
  named.application_credential_name = "data-persist";
  named.user_id = "alice";
  config::OpenStackSettings password;
  password.user = "alice";
  password.password = "secret";
  for (const auto& [settings, part] :
       {std::pair(WithCredential(), "its secret is wrong, or it has expired"),
        std::pair(named, "user_id \"alice\": that looks like a user's name"),
        std::pair(password, "refuses the user and the password")}) {
    const std::string said = Refusal(settings, no);
    EXPECT_NE(said.find(part), std::string::npos) << said;
    EXPECT_EQ(said.find("\"secret\""), std::string::npos) << said;
  }
  EXPECT_NE(Refusal(WithCredential(), {.status = 404, .body = R"({"error": {"message": "no"}})"})
                .find("does not know the application credential id"),
            std::string::npos);
  EXPECT_NE(Refusal(WithCredential(), {.status = 200, .body = "<html>"}).find("Keystone v3"),
            std::string::npos);
  EXPECT_NE(Refusal(WithCredential(), {.status = 503, .body = "x"}).find("503"), std::string::npos);
}

TEST_F(KeystoneTest, CataloguesThatDoNotHelpAreSaid) {
  const auto why = [](std::string_view body, std::string_view region) {
    const auto got = ParseKeystoneToken(body, region, "public");
    return got ? "" : got.error().message();
  };
  EXPECT_EQ(why(kToken, "C"), "there is no region \"C\"; there is A, B");
  EXPECT_EQ(why(kToken, ""), "there are several regions (A, B): name one");
  EXPECT_EQ(why(R"({"token": {}})", ""),
            "the token is for no project: name one (tenant, OS_PROJECT_NAME)");
  EXPECT_EQ(why(R"({"token": {"catalog": [{"type": "identity"}]}})", ""),
            "the project has no object store (public endpoint)");
  for (const char* body : {"", "[]", "{}", "nonsense", R"({"token": []})"})
    EXPECT_FALSE(why(body, "").empty()) << body;
}

TEST_F(KeystoneTest, Version1IsSpokenToo) {
  config::OpenStackSettings s;
  s.auth_url = "http://ceph:7480/auth/v1.0";
  s.user = "u:swift";
  s.password = "key";
  http_.Then({.status = 204,
              .headers = {{"X-Storage-Url", "http://ceph/swift/v1"}, {"X-Auth-Token", "t"}}});
  const auto got = Get(s);
  ASSERT_TRUE(got) << got.error().message();
  EXPECT_EQ(got->endpoint, "http://ceph/swift/v1");
  EXPECT_NE(Refusal(s, {.status = 403}).find("refuses the user u:swift and the key"),
            std::string::npos);
}

TEST_F(KeystoneTest, AStorageUrlAloneIsAnonymous) {
  config::OpenStackSettings s;
  s.storage_url = "https://a/v1/AUTH_1";
  const auto provider = MakeKeystone(s, http_, clock_);
  EXPECT_TRUE(provider->Get({})->anonymous());
  EXPECT_EQ(provider->Get({})->endpoint, "https://a/v1/AUTH_1");
}

}  // namespace
}  // namespace leat::auth
