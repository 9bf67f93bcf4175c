#include "auth/google.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>

#include <filesystem>
#include <fstream>
#include <map>

#include "base/bytes.h"
#include "digest/digest.h"
#include "net/url.h"
#include "testing/fake_clock.h"
#include "testing/scripted_transport.h"

namespace leat::auth {
namespace {

using namespace std::chrono_literals;
using config::GoogleSettings;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::ScriptedAnswer;
using testing::ScriptedTransport;
using ::testing::StartsWith;

constexpr const char* kTokenUrl = "https://oauth2.example/token";
constexpr const char* kToken = R"({"access_token":"t1","expires_in":3600,"token_type":"Bearer"})";

EVP_PKEY* Key() {
  static EVP_PKEY* const key = EVP_RSA_gen(2048);
  return key;
}
std::string Pem() {
  BIO* const bio = BIO_new(BIO_s_mem());
  PEM_write_bio_PrivateKey(bio, Key(), nullptr, nullptr, 0, nullptr, nullptr);
  char* text = nullptr;
  const long size = BIO_get_mem_data(bio, &text);
  std::string out(text, static_cast<std::size_t>(size));
  BIO_free(bio);
  return out;
}

std::string FromBase64Url(std::string text) {
  for (char& c : text) c = c == '-' ? '+' : c == '_' ? '/' : c;
  while (text.size() % 4 != 0) text += '=';
  return digest::Base64Decode(text).value_or("");
}
std::string JsonString(const std::string& text) {
  std::string out;
  for (const char c : text) out += c == '\n' ? std::string("\\n") : std::string(1, c);
  return out;
}

std::map<std::string, std::string> FormOf(const std::string& body) {
  std::map<std::string, std::string> out;
  std::string_view rest = body;
  while (!rest.empty()) {
    const std::string_view field = rest.substr(0, rest.find('&'));
    rest.remove_prefix(std::min(field.size() + 1, rest.size()));
    out[std::string(field.substr(0, field.find('=')))] =
        net::PercentDecode(field.substr(field.find('=') + 1));
  }
  return out;
}

class GoogleTest : public ::testing::Test {
 protected:
  GoogleTest() : folder_(std::filesystem::temp_directory_path() / ("leat-google-" + Name())) {
    std::filesystem::create_directories(folder_);
  }
  ~GoogleTest() override { std::filesystem::remove_all(folder_); }
  static std::string Name() {
    return std::to_string(::getpid()) + "-" +
           ::testing::UnitTest::GetInstance()->current_test_info()->name();
  }
  std::string File(const std::string& name, const std::string& text) {
    const std::filesystem::path path = folder_ / name;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path) << text;
    return path;
  }
  std::string ServiceAccount() {
    return File("key.json", R"({"type":"service_account","project_id":"proj","private_key_id":"kid",
      "private_key":")" + JsonString(Pem()) +
                                R"(","client_email":"a@proj.iam","token_uri":")" + kTokenUrl +
                                R"("})");
  }
  static constexpr const char* kUser =
      R"({"type":"authorized_user","client_id":"id","client_secret":"sesame",
          "refresh_token":"refresh-me","quota_project_id":"quota"})";

  config::Environment Env() {
    return [this](std::string_view name) -> std::optional<std::string> {
      const auto found = env_.find(std::string(name));
      return found == env_.end() ? std::nullopt : std::optional(found->second);
    };
  }
  Result<Credentials> Get(GoogleSettings settings, bool on_google = false) {
    provider_ = MakeGoogle(std::move(settings), http_, clock_, [on_google] { return on_google; });
    return provider_->Get({});
  }
  Result<Credentials> GetFromVariables(bool on_google = false) {
    auto settings = config::GoogleFromVariables(Env());
    if (!settings) return std::unexpected(settings.error());
    return Get(*settings, on_google);
  }
  std::string Refusal(net::HttpResponse answer) {
    env_["GOOGLE_APPLICATION_CREDENTIALS"] = ServiceAccount();
    http_.Once("POST", kTokenUrl, std::move(answer));
    const auto got = GetFromVariables();
    EXPECT_FALSE(got);
    return got ? "" : got.error().message();
  }

  const std::filesystem::path folder_;
  std::map<std::string, std::string> env_;
  ScriptedTransport http_;
  testing::FakeClock clock_{testing::FakeClock::Mode::kJump,
                            net::ParseIsoDate("2026-11-21T22:00:00Z").value()};
  std::unique_ptr<CredentialProvider> provider_;
};

TEST_F(GoogleTest, AServiceAccountSignsItsRequest) {
  env_["GOOGLE_APPLICATION_CREDENTIALS"] = ServiceAccount();
  http_.On("POST", kTokenUrl, ScriptedAnswer(200, kToken));
  const auto got = GetFromVariables();
  ASSERT_TRUE(got) << got.error().message();
  EXPECT_EQ(got->session_token, "t1");
  EXPECT_EQ(got->expires, clock_.Now() + 1h);
  EXPECT_THAT(got->provider, StartsWith("service account a@proj.iam (/"));
  const auto form = FormOf(http_.requests().at(0).body);
  EXPECT_EQ(form.at("grant_type"), "urn:ietf:params:oauth:grant-type:jwt-bearer");
  const std::string jwt = form.at("assertion");
  const std::size_t first = jwt.find('.'), second = jwt.rfind('.');
  EXPECT_EQ(FromBase64Url(jwt.substr(0, first)), R"({"alg":"RS256","kid":"kid","typ":"JWT"})");
  EXPECT_EQ(FromBase64Url(jwt.substr(first + 1, second - first - 1)),
            R"({"aud":"https://oauth2.example/token","exp":1795302000,"iat":1795298400,)"
            R"("iss":"a@proj.iam",)"
            R"("scope":"https://www.googleapis.com/auth/devstorage.full_control"})");
  const std::string signature = FromBase64Url(jwt.substr(second + 1));
  EVP_MD_CTX* const context = EVP_MD_CTX_new();
  EVP_DigestVerifyInit(context, nullptr, EVP_sha256(), nullptr, Key());
  EXPECT_EQ(EVP_DigestVerify(context, reinterpret_cast<const unsigned char*>(signature.data()),
                             signature.size(), reinterpret_cast<const unsigned char*>(jwt.data()),
                             second),
            1);
  EVP_MD_CTX_free(context);
}

TEST_F(GoogleTest, ATokenIsKeptRenewedBeforeItEndsAndWhenItIsRefused) {
  env_["GOOGLE_APPLICATION_CREDENTIALS"] = ServiceAccount();
  http_.On("POST", kTokenUrl, ScriptedAnswer(200, kToken));
  ASSERT_TRUE(GetFromVariables());
  ASSERT_TRUE(provider_->Get({}));
  EXPECT_EQ(http_.count(), 1u);
  clock_.Advance(56min);
  ASSERT_TRUE(provider_->Get({}));
  EXPECT_EQ(http_.count(), 2u);
  clock_.Advance(1min);
  provider_->Invalidate();
  ASSERT_TRUE(provider_->Get({}));
  EXPECT_EQ(http_.count(), 3u);
}

TEST_F(GoogleTest, AFailureToRenewIsNoneWhileTheOldTokenIsGood) {
  env_["GOOGLE_APPLICATION_CREDENTIALS"] = ServiceAccount();
  http_.Once("POST", kTokenUrl, ScriptedAnswer(200, kToken));
  http_.On("POST", kTokenUrl, ScriptedAnswer(503));
  ASSERT_TRUE(GetFromVariables());
  clock_.Advance(57min);
  EXPECT_TRUE(provider_->Get({}));
  clock_.Advance(4min);
  const auto got = provider_->Get({});
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().code(), Errc::kUnavailable);
}

TEST_F(GoogleTest, ARefusalSaysWhoseAndWhyAndWhatToDo) {
  const std::string wrong = Refusal(ScriptedAnswer(
      400, R"({"error":"invalid_grant","error_description":"Invalid JWT Signature."})"));
  EXPECT_THAT(wrong, StartsWith("service account a@proj.iam"));
  EXPECT_THAT(wrong, HasSubstr("answered 400: invalid_grant: Invalid JWT Signature.; the key was "
                               "deleted, or it is another account's"));
  EXPECT_THAT(wrong, Not(HasSubstr("BEGIN")));
  EXPECT_THAT(Refusal(ScriptedAnswer(400, R"({"error":"invalid_grant","error_description":
      "Token must be in a reasonable timeframe. Check your iat and exp values"})")),
              HasSubstr("this machine's clock says 2026-11-21 22:00:00 UTC"));
  EXPECT_THAT(Refusal(ScriptedAnswer(200, "<html>login</html>")),
              HasSubstr("oauth2.example/token: the answer has no access_token"));
}

TEST_F(GoogleTest, AUserOfGcloudIsFoundInItsFolder) {
  File("gcloud/application_default_credentials.json", kUser);
  env_["CLOUDSDK_CONFIG"] = folder_ / "gcloud";
  http_.On("POST", "https://oauth2.googleapis.com/token", ScriptedAnswer(200, kToken));
  const auto settings = config::GoogleFromVariables(Env());
  ASSERT_TRUE(settings) << settings.error().message();
  EXPECT_EQ(settings->quota_project, "quota");
  ASSERT_TRUE(GetFromVariables());
  const auto form = FormOf(http_.requests().at(0).body);
  EXPECT_EQ(form.at("refresh_token"), "refresh-me");
  EXPECT_EQ(form.at("client_secret"), "sesame");
  env_.erase("CLOUDSDK_CONFIG");
  env_["HOME"] = folder_;
  File(".config/gcloud/application_default_credentials.json", kUser);
  EXPECT_TRUE(GetFromVariables());
}

TEST_F(GoogleTest, AnotherProvidersTokenIsExchangedAndStandsIn) {
  const std::string subject = File("subject", "from-kubernetes\n");
  env_["GOOGLE_APPLICATION_CREDENTIALS"] =
      File("external.json",
           R"({"type":"external_account","audience":"//iam.googleapis.com/x",
        "subject_token_type":"urn:ietf:params:oauth:token-type:jwt",
        "token_url":"https://sts.example/v1/token",
        "service_account_impersonation_url":"https://iam.example/v1/x:generateAccessToken",
        "service_account_impersonation":{"token_lifetime_seconds":1800},
        "credential_source":{"file":")" +
               subject + R"("}})");
  http_.On("POST", "https://sts.example/v1/token",
           ScriptedAnswer(200, R"({"access_token":"federated","expires_in":3600})"));
  http_.On("POST", "https://iam.example/v1/x:generateAccessToken",
           ScriptedAnswer(200, R"({"accessToken":"t2","expireTime":"2026-11-21T22:30:00Z"})"));
  const auto got = GetFromVariables();
  ASSERT_TRUE(got) << got.error().message();
  EXPECT_EQ(got->session_token, "t2");
  EXPECT_EQ(got->expires, clock_.Now() + 30min);
  const auto requests = http_.requests();
  const auto form = FormOf(requests.at(0).body);
  EXPECT_EQ(form.at("subject_token"), "from-kubernetes");
  EXPECT_EQ(form.at("scope"), "https://www.googleapis.com/auth/cloud-platform");
  EXPECT_EQ(requests.at(1).headers.Get("Authorization"), "Bearer federated");
  EXPECT_THAT(requests.at(1).body, HasSubstr(R"("lifetime":"1800s")"));
  // Whoever keeps the file fresh writes it anew.
  File("subject", "rotated");
  clock_.Advance(20min);
  provider_->Invalidate();
  ASSERT_TRUE(provider_->Get({}));
  EXPECT_EQ(FormOf(http_.requests().at(2).body).at("subject_token"), "rotated");
}

TEST_F(GoogleTest, ASubjectTokenIsAskedForByUrl) {
  env_["GOOGLE_APPLICATION_CREDENTIALS"] =
      File("external.json", R"({"type":"external_account","audience":"//iam.googleapis.com/x",
        "subject_token_type":"jwt","token_url":"https://sts.example/v1/token",
        "credential_source":{"url":"http://127.0.0.1:99/token","headers":{"X-A":"b"},
          "format":{"type":"json","subject_token_field_name":"id"}}})");
  http_.On("GET", "http://127.0.0.1:99/token", ScriptedAnswer(200, R"({"id":"subject"})"));
  http_.On("POST", "https://sts.example/v1/token", ScriptedAnswer(200, kToken));
  ASSERT_TRUE(GetFromVariables());
  EXPECT_EQ(http_.requests().at(0).headers.Get("X-A"), "b");
  EXPECT_EQ(FormOf(http_.requests().at(1).body).at("subject_token"), "subject");
}

TEST_F(GoogleTest, OneAccountStandsInForAnother) {
  env_["GOOGLE_APPLICATION_CREDENTIALS"] =
      File("impersonated.json", std::string(R"({"type":"impersonated_service_account",
        "service_account_impersonation_url":"https://iam.example/v1/x:generateAccessToken",
        "delegates":["one"],"source_credentials":)") +
                                    kUser + "}");
  http_.On("POST", "https://oauth2.googleapis.com/token", ScriptedAnswer(200, kToken));
  http_.Once("POST", "https://iam.example/v1/x:generateAccessToken",
             ScriptedAnswer(403, R"({"error":{"status":"PERMISSION_DENIED","message":"no"}})"));
  const auto refused = GetFromVariables();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Errc::kDenied);
  EXPECT_THAT(refused.error().message(), HasSubstr("answered 403: PERMISSION_DENIED: no"));
  http_.On("POST", "https://iam.example/v1/x:generateAccessToken",
           ScriptedAnswer(200, R"({"accessToken":"t2","expireTime":"2026-11-21T23:00:00Z"})"));
  EXPECT_EQ(GetFromVariables()->session_token, "t2");
}

TEST_F(GoogleTest, AMachineOfGooglesHasAnAccountAndOthersAreNotAsked) {
  const auto nobody = GetFromVariables();
  ASSERT_TRUE(nobody);
  EXPECT_TRUE(nobody->anonymous());
  EXPECT_EQ(http_.count(), 0u);
  const std::string path =
      "/computeMetadata/v1/instance/service-accounts/default/token?scopes="
      "https%3A%2F%2Fwww.googleapis.com%2Fauth%2Fdevstorage.full_control";
  http_.On("GET", "http://169.254.169.254" + path,
           ScriptedAnswer(200, kToken, {{"Metadata-Flavor", "Google"}}));
  const auto got = GetFromVariables(true);
  ASSERT_TRUE(got) << got.error().message();
  EXPECT_EQ(got->session_token, "t1");
  EXPECT_EQ(http_.requests().at(0).headers.Get("Metadata-Flavor"), "Google");
  EXPECT_TRUE(http_.requests().at(0).direct);
  // Something else that answers there is not believed.
  env_["GCE_METADATA_HOST"] = "meta.test:80";
  http_.On("GET", "http://meta.test:80" + path, ScriptedAnswer(200, kToken));
  const auto other = GetFromVariables();
  ASSERT_FALSE(other);
  EXPECT_THAT(other.error().message(), HasSubstr("is not Google's metadata server"));
}

TEST_F(GoogleTest, AnEmulatorIsAskedWithoutCredentials) {
  env_["STORAGE_EMULATOR_HOST"] = "localhost:9000";
  env_["GOOGLE_APPLICATION_CREDENTIALS"] = "/nowhere";
  auto settings = config::GoogleFromVariables(Env());
  ASSERT_TRUE(settings) << settings.error().message();
  EXPECT_EQ(settings->endpoint, "http://localhost:9000");
  EXPECT_TRUE(Get(*settings)->anonymous());
  env_["STORAGE_EMULATOR_HOST"] = "https://localhost:9000/";
  EXPECT_EQ(config::GoogleFromVariables(Env())->endpoint, "https://localhost:9000");
}

TEST_F(GoogleTest, WhatIsNamedAndDoesNotWorkIsAnError) {
  const auto refusal = [&](const std::string& text) {
    env_["GOOGLE_APPLICATION_CREDENTIALS"] = File("bad.json", text);
    const auto got = GetFromVariables();
    EXPECT_FALSE(got);
    EXPECT_EQ(http_.count(), 0u);
    return got ? "" : got.error().message();
  };
  EXPECT_THAT(refusal("secret=1"), HasSubstr("it is not a JSON object"));
  EXPECT_THAT(refusal("secret=1"), Not(HasSubstr("secret")));
  EXPECT_THAT(refusal(R"({"type":"gdch"})"), HasSubstr("its type is \"gdch\""));
  EXPECT_THAT(refusal(R"({"type":"service_account","client_email":"a"})"),
              HasSubstr("needs client_email and private_key"));
  const std::string key =
      refusal(R"({"type":"service_account","client_email":"a","private_key":"sesame"})");
  EXPECT_THAT(key, HasSubstr("not an RSA key in PEM"));
  EXPECT_THAT(key, Not(HasSubstr("sesame")));
  EXPECT_THAT(refusal(R"({"type":"authorized_user","client_id":"a"})"),
              HasSubstr("gcloud auth application-default login"));
  EXPECT_THAT(refusal(R"({"type":"external_account","credential_source":{"executable":{}}})"),
              HasSubstr("is a program or AWS"));
  EXPECT_THAT(refusal(R"({"type":"authorized_user","client_id":"a","client_secret":"sesame",
                          "refresh_token":"b","token_uri":"http://elsewhere.example/"})"),
              HasSubstr("a token must not go there in the clear"));
  env_["GOOGLE_APPLICATION_CREDENTIALS"] = "/nowhere.json";
  EXPECT_THAT(GetFromVariables().error().message(), HasSubstr("/nowhere.json"));
}

TEST_F(GoogleTest, RemotesOfRcloneAreTakenAsTheyAre) {
  config::RcloneRemote remote;
  remote.name = "g";
  remote.type = "google cloud storage";
  const auto settings = [&] { return config::GoogleFromRemote(remote, Env()); };
  remote.options = {{"anonymous", "true"}, {"endpoint", "http://h:1/storage/v1/"}};
  EXPECT_EQ(settings()->kind, GoogleSettings::Kind::kAnonymous);
  EXPECT_EQ(settings()->endpoint, "http://h:1");
  remote.options = {{"service_account_file", ServiceAccount()}, {"project_number", "12"}};
  EXPECT_EQ(settings()->from, "remote g (service account a@proj.iam)");
  EXPECT_EQ(settings()->project, "12");
  remote.options = {{"service_account_credentials", kUser}, {"object_acl", "private"}};
  EXPECT_EQ(settings()->kind, GoogleSettings::Kind::kUser);
  // What its own login left; it is good until it ends.
  remote.options = {{"token", R"({"access_token":"a1","token_type":"Bearer",
      "refresh_token":"r","expiry":"2026-11-21T23:30:00.5+01:00"})"}};
  auto got = Get(*settings());
  ASSERT_TRUE(got) << got.error().message();
  EXPECT_EQ(got->session_token, "a1");
  clock_.Advance(31min);
  got = provider_->Get({});
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().code(), Errc::kDenied);
  EXPECT_THAT(got.error().message(), HasSubstr("rclone's own client"));
  remote.options["client_id"] = "id";
  remote.options["client_secret"] = "sesame";
  http_.On("POST", "https://oauth2.googleapis.com/token", ScriptedAnswer(200, kToken));
  EXPECT_EQ(Get(*settings())->session_token, "t1");
  remote.options = {{"token", "x"}};
  EXPECT_THAT(settings().error().message(), HasSubstr("rclone config reconnect g:"));
}

TEST_F(GoogleTest, MachinesOfGooglesAreKnownByTheirFirmware) {
  File("dmi/product_name", "Google Compute Engine\n");
  EXPECT_TRUE(MachineIsGoogle(folder_ / "dmi"));
  File("dmi/product_name", "Standard PC\n");
  EXPECT_FALSE(MachineIsGoogle(folder_ / "dmi"));
  EXPECT_FALSE(MachineIsGoogle(folder_ / "none"));
}

}  // namespace
}  // namespace leat::auth
