#include "auth/credentials.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>

#include "auth/instance_metadata.h"
#include "auth/sso.h"
#include "net/url.h"
#include "testing/fake_clock.h"
#include "testing/scripted_transport.h"

namespace leat::auth {
namespace {

using namespace std::chrono_literals;
using ::leat::testing::FakeClock;
using ::leat::testing::ScriptedAnswer;
using ::leat::testing::ScriptedTransport;
using ::testing::HasSubstr;

class ChainTest : public ::testing::Test {
 protected:
  ChainTest() {
    char folder[] = "/tmp/leat-auth-XXXXXX";
    folder_ = mkdtemp(folder);
    env_ = {{"AWS_EC2_METADATA_DISABLED", "true"}};  // the machine that runs the tests may be EC2
  }
  ~ChainTest() override { std::filesystem::remove_all(folder_); }

  void Config(std::string_view text, std::string_view credentials = {}) {
    auto parsed = config::AwsConfig::Parse(text, "config", credentials, "credentials");
    ASSERT_TRUE(parsed) << parsed.error().message();
    config_ = *std::move(parsed);
  }
  std::string File(std::string_view name, std::string_view text) {
    std::ofstream(folder_ + "/" + std::string(name)) << text;
    return folder_ + "/" + std::string(name);
  }
  std::unique_ptr<CredentialProvider> Chain(AwsChainOptions options = {}) {
    return MakeAwsChain(
        std::move(options),
        [this](std::string_view name) -> std::optional<std::string> {
          const auto found = env_.find(name);
          return found == env_.end() ? std::nullopt : std::optional(found->second);
        },
        config_, http_, clock_);
  }
  Credentials Get(AwsChainOptions options = {}) {
    auto credentials = Chain(std::move(options))->Get({});
    EXPECT_TRUE(credentials) << credentials.error().message();
    return credentials.value_or(Credentials{});
  }
  Error ErrorOf(AwsChainOptions options = {}) {
    const auto credentials = Chain(std::move(options))->Get({});
    EXPECT_FALSE(credentials) << credentials->provider;
    return credentials ? Error(Errc::kInternal, "no error") : credentials.error();
  }
  // What STS and metadata services would answer; each has its own key.
  std::string Expiration(std::chrono::seconds life) {
    std::string date = net::FormatDate(clock_.Now() + life);  // "2026-11-20 10:15:00 UTC"
    return date.substr(0, 19) + "Z";
  }
  std::string Sts(std::string_view key) {
    return fmt::format(
        "<R><Credentials><AccessKeyId>{}</AccessKeyId><SecretAccessKey>S</"
        "SecretAccessKey><SessionToken>T</SessionToken>"
        "<Expiration>{}</Expiration></Credentials></R>",
        key, Expiration(1h));
  }
  std::string Json(std::string_view key) {
    return fmt::format(
        R"({{"AccessKeyId":"{}","SecretAccessKey":"S","Token":"T","Expiration":"{}"}})", key,
        Expiration(1h));
  }

  std::string folder_;
  std::map<std::string, std::string, std::less<>> env_;
  config::AwsConfig config_;
  ScriptedTransport http_;
  FakeClock clock_;
};

TEST_F(ChainTest, NothingConfiguredIsAnonymousWithoutARequest) {
  const Credentials credentials = Get();
  EXPECT_TRUE(credentials.anonymous());
  EXPECT_EQ(credentials.provider, "anonymous");
  EXPECT_EQ(http_.count(), 0u);
}

TEST_F(ChainTest, TheEnvironmentComesFirst) {
  Config(
      "[default]\naws_access_key_id = P\naws_secret_access_key = S\n[profile "
      "other]\naws_access_key_id = O\naws_secret_access_key = S\n");
  env_["AWS_ACCESS_KEY_ID"] = "E";
  env_["AWS_SECRET_ACCESS_KEY"] = "ES";
  env_["AWS_SESSION_TOKEN"] = "ET";
  const Credentials credentials = Get();
  EXPECT_EQ(credentials.access_key_id, "E");
  EXPECT_EQ(credentials.secret_access_key, "ES");
  EXPECT_EQ(credentials.session_token, "ET");
  EXPECT_EQ(credentials.provider, "environment");
  env_["AWS_PROFILE"] = "other";
  EXPECT_EQ(Get().access_key_id, "E");
  EXPECT_EQ(Get({.profile = "other", .region = {}, .ca_file = {}}).access_key_id, "O")
      << "a profile that the mount asks for";
}

TEST_F(ChainTest, HalfAPairIsAnError) {
  env_["AWS_ACCESS_KEY_ID"] = "E";
  EXPECT_EQ(ErrorOf().message(), "AWS_ACCESS_KEY_ID is set, but AWS_SECRET_ACCESS_KEY is not");
  env_.erase("AWS_ACCESS_KEY_ID");
  env_["AWS_SECRET_ACCESS_KEY"] = "hunter2";
  EXPECT_EQ(ErrorOf().message(), "AWS_SECRET_ACCESS_KEY is set, but AWS_ACCESS_KEY_ID is not");
  env_.erase("AWS_SECRET_ACCESS_KEY");
  Config("", "[default]\naws_access_key_id = P\n");
  EXPECT_EQ(ErrorOf().message(),
            "AWS profile default has aws_access_key_id without aws_secret_access_key");
}

TEST_F(ChainTest, StaticKeysOfTheProfile) {
  Config("",
         "[default]\naws_access_key_id = P\naws_secret_access_key = S\naws_session_token = T\n");
  const Credentials credentials = Get();
  EXPECT_EQ(credentials.access_key_id, "P");
  EXPECT_EQ(credentials.session_token, "T");
  EXPECT_EQ(credentials.provider, "profile default");
}

TEST_F(ChainTest, AProfileThatIsMissingStopsTheChain) {
  Config("[profile a]\n");
  const Error error = ErrorOf({.profile = "b", .region = {}, .ca_file = {}});
  EXPECT_EQ(error.code(), Errc::kInvalid);
  EXPECT_THAT(error.message(), HasSubstr("there is no AWS profile \"b\"; there are a"));
}

TEST_F(ChainTest, CredentialProcessOfTheProfile) {
  const std::string script =
      File("p", R"(echo '{"Version":1,"AccessKeyId":"P","SecretAccessKey":"S"}')");
  Config(
      fmt::format("[default]\ncredential_process = sh {}\n[profile bad]\ncredential_process = sh "
                  "-c 'echo why >&2; false'\n",
                  script));
  EXPECT_EQ(Get().access_key_id, "P");
  EXPECT_EQ(Get().provider, "profile default (credential_process)");
  EXPECT_EQ(ErrorOf({.profile = "bad", .region = {}, .ca_file = {}}).message(),
            "AWS profile bad: credential_process: it ended with status 1; it said: why");
}

TEST_F(ChainTest, ARoleIsAssumedWithItsSource) {
  Config(
      "[profile train]\nrole_arn = arn:aws:iam::1:role/train\nsource_profile = base\nexternal_id = "
      "a&b\nduration_seconds = 900\n"
      "role_session_name = me\nregion = eu-west-1\n[profile base]\naws_access_key_id = "
      "B\naws_secret_access_key = BS\n");
  http_.On("POST", "https://sts.eu-west-1.amazonaws.com/", ScriptedAnswer(200, Sts("R")));
  const Credentials credentials = Get({.profile = "train", .region = {}, .ca_file = "/ca"});
  EXPECT_EQ(credentials.access_key_id, "R");
  EXPECT_EQ(credentials.session_token, "T");
  EXPECT_EQ(credentials.provider, "profile train (role arn:aws:iam::1:role/train)");
  ASSERT_EQ(http_.count(), 1u);
  const auto request = http_.requests().front();
  EXPECT_EQ(request.body,
            "Action=AssumeRole&Version=2011-06-15&RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Ftrain&"
            "RoleSessionName=me"
            "&ExternalId=a%26b&DurationSeconds=900");
  EXPECT_THAT(std::string(request.headers.Get("authorization").value_or("")),
              HasSubstr("Credential=B/"));
  EXPECT_THAT(std::string(request.headers.Get("authorization").value_or("")),
              HasSubstr("/eu-west-1/sts/aws4_request"));
  EXPECT_EQ(request.headers.Get("x-amz-content-sha256"), std::nullopt);
  EXPECT_EQ(request.ca_file, "/ca");
}

TEST_F(ChainTest, RolesAreChained) {
  Config(
      "[profile a]\nrole_arn = arn:a\nsource_profile = b\n[profile b]\nrole_arn = "
      "arn:b\nsource_profile = c\n"
      "[profile c]\naws_access_key_id = C\naws_secret_access_key = S\n");
  const std::string url = "https://sts.us-east-1.amazonaws.com/";
  http_.Once("POST", url, ScriptedAnswer(200, Sts("B")));
  http_.Once("POST", url, ScriptedAnswer(200, Sts("A")));
  EXPECT_EQ(Get({.profile = "a", .region = {}, .ca_file = {}}).access_key_id, "A");
  const auto requests = http_.requests();
  ASSERT_EQ(requests.size(), 2u);
  EXPECT_THAT(requests[0].body, HasSubstr("RoleArn=arn%3Ab"));
  EXPECT_THAT(std::string(*requests[0].headers.Get("authorization")), HasSubstr("Credential=C/"));
  EXPECT_THAT(requests[1].body, HasSubstr("RoleArn=arn%3Aa"));
  EXPECT_THAT(std::string(*requests[1].headers.Get("authorization")), HasSubstr("Credential=B/"));
  EXPECT_EQ(requests[1].headers.Get("x-amz-security-token"), "T");
}

TEST_F(ChainTest, ACircleOfSourcesIsAnError) {
  Config(
      "[profile a]\nrole_arn = arn:a\nsource_profile = b\n[profile b]\nrole_arn = "
      "arn:b\nsource_profile = a\n"
      "[profile self]\nrole_arn = arn:s\nsource_profile = self\n");
  EXPECT_THAT(ErrorOf({.profile = "a", .region = {}, .ca_file = {}}).message(),
              HasSubstr("in a circle (a -> b -> a)"));
  EXPECT_THAT(ErrorOf({.profile = "self", .region = {}, .ca_file = {}}).message(),
              HasSubstr("in a circle (self -> self)"));
  EXPECT_EQ(http_.count(), 0u);
}

TEST_F(ChainTest, AProfileWithKeysMayBeItsOwnSource) {
  Config(
      "[profile self]\nrole_arn = arn:s\nsource_profile = self\naws_access_key_id = "
      "K\naws_secret_access_key = S\n");
  http_.On("POST", "https://sts.us-east-1.amazonaws.com/", ScriptedAnswer(200, Sts("R")));
  EXPECT_EQ(Get({.profile = "self", .region = {}, .ca_file = {}}).access_key_id, "R");
}

TEST_F(ChainTest, CredentialSources) {
  Config(
      "[profile env]\nrole_arn = arn:r\ncredential_source = Environment\n[profile ecs]\nrole_arn = "
      "arn:r\n"
      "credential_source = EcsContainer\n[profile ec2]\nrole_arn = arn:r\ncredential_source = "
      "Ec2InstanceMetadata\n"
      "[profile odd]\nrole_arn = arn:r\ncredential_source = Mars\n[profile both]\nrole_arn = "
      "arn:r\nsource_profile = env\n"
      "credential_source = Environment\n[profile none]\nrole_arn = arn:r\n");
  const auto with = [](const char* profile) {
    return AwsChainOptions{.profile = profile, .region = {}, .ca_file = {}};
  };
  http_.On("POST", "https://sts.us-east-1.amazonaws.com/", ScriptedAnswer(200, Sts("R")));
  EXPECT_EQ(ErrorOf(with("env")).code(), Errc::kInvalid);
  EXPECT_EQ(ErrorOf(with("ecs")).code(), Errc::kInvalid);
  EXPECT_EQ(ErrorOf(with("ec2")).code(), Errc::kInvalid);
  EXPECT_THAT(ErrorOf(with("odd")).message(), HasSubstr("credential_source is \"Mars\""));
  EXPECT_THAT(ErrorOf(with("both")).message(),
              HasSubstr("both source_profile and credential_source"));
  EXPECT_THAT(ErrorOf(with("none")).message(), HasSubstr("role_arn without source_profile"));
  EXPECT_EQ(http_.count(), 0u);

  env_["AWS_ACCESS_KEY_ID"] = "E";
  env_["AWS_SECRET_ACCESS_KEY"] = "S";
  EXPECT_EQ(Get(with("env")).access_key_id, "R");
  EXPECT_THAT(std::string(*http_.requests().back().headers.Get("authorization")),
              HasSubstr("Credential=E/"));
  env_["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"] = "/creds";
  http_.On("GET", "http://169.254.170.2/creds", ScriptedAnswer(200, Json("C")));
  EXPECT_EQ(Get(with("ecs")).access_key_id, "R");
  EXPECT_THAT(std::string(*http_.requests().back().headers.Get("authorization")),
              HasSubstr("Credential=C/"));
}

TEST_F(ChainTest, WhatNeedsAPersonIsSaid) {
  Config(
      "[profile mfa]\nrole_arn = arn:r\nsource_profile = mfa\nmfa_serial = "
      "arn:mfa\naws_access_key_id = K\naws_secret_access_key = S\n");
  const Error mfa = ErrorOf({.profile = "mfa", .region = {}, .ca_file = {}});
  EXPECT_EQ(mfa.code(), Errc::kUnsupported);
  EXPECT_THAT(mfa.message(), HasSubstr("mfa_serial"));
}

TEST_F(ChainTest, ASignInByTheBrowserIsUsedUntilItEnds) {
  Config(
      "[profile new]\nsso_session = corp\nsso_account_id = 123\nsso_role_name = Reader\n"
      "[sso-session corp]\nsso_start_url = https://corp/start\nsso_region = eu-west-1\n"
      "[profile old]\nsso_start_url = https://corp/start\nsso_region = eu-west-1\n"
      "sso_account_id = 123\nsso_role_name = Reader\n"
      "[profile half]\nsso_session = corp\nsso_account_id = 123\n"
      "[profile lost]\nsso_session = nowhere\nsso_account_id = 123\nsso_role_name = R\n");
  const auto with = [](const char* profile) {
    return AwsChainOptions{.profile = profile, .region = {}, .ca_file = {}};
  };
  env_["HOME"] = folder_;
  std::filesystem::create_directories(folder_ + "/.aws/sso/cache");
  EXPECT_EQ(SsoCacheName("abc"), "a9993e364706816aba3e25717850c26c9cd0d89d.json");
  EXPECT_THAT(ErrorOf(with("new")).message(), HasSubstr("aws sso login --profile new"));
  EXPECT_THAT(ErrorOf(with("half")).message(), HasSubstr("sso_role_name"));
  EXPECT_THAT(ErrorOf(with("lost")).message(), HasSubstr("sso_region"));

  const auto token = [&](std::chrono::seconds life) {
    return fmt::format(R"({{"accessToken":"tok","expiresAt":"{}","region":"eu-west-1"}})",
                       Expiration(life));
  };
  for (const char* key : {"corp", "https://corp/start"})
    File(".aws/sso/cache/" + SsoCacheName(key), token(1h));
  const std::string url =
      "https://portal.sso.eu-west-1.amazonaws.com/federation/"
      "credentials?account_id=123&role_name=Reader";
  http_.On("GET", url,
           ScriptedAnswer(200, R"({"roleCredentials":{"accessKeyId":"K","secretAccessKey":"S",)"
                               R"("sessionToken":"T","expiration":1893456000000}})"));
  EXPECT_EQ(Get(with("new")).access_key_id, "K");
  EXPECT_EQ(http_.requests().back().headers.Get("x-amz-sso_bearer_token"), "tok");
  EXPECT_EQ(Get(with("old")).session_token, "T");
  EXPECT_EQ(net::FormatDate(*Get(with("old")).expires), "2030-01-01 00:00:00 UTC");

  http_.On("GET", url, ScriptedAnswer(401, R"({"message":"Session token not found or invalid"})"));
  EXPECT_THAT(ErrorOf(with("new")).message(), HasSubstr("aws sso login --profile new"));
  http_.On("GET", url, ScriptedAnswer(403, R"({"message":"No access"})"));
  EXPECT_THAT(ErrorOf(with("new")).message(), HasSubstr("No access"));
  File(".aws/sso/cache/" + SsoCacheName("corp"), token(-1h));
  EXPECT_THAT(ErrorOf(with("new")).message(), HasSubstr("ended on"));
  File(".aws/sso/cache/" + SsoCacheName("corp"), "{}");
  EXPECT_THAT(ErrorOf(with("new")).message(), HasSubstr("no accessToken"));
  EXPECT_EQ(ErrorOf(with("new")).message().find("tok\""), std::string::npos);
}

TEST_F(ChainTest, BadNumbersAndMissingSourcesAreSaid) {
  Config(
      "[profile d]\nrole_arn = arn:r\nsource_profile = k\nduration_seconds = 12x\n[profile "
      "s]\nrole_arn = arn:r\nsource_profile = gone\n"
      "[profile k]\n[profile e]\nrole_arn = arn:r\nsource_profile = k\n");
  EXPECT_THAT(ErrorOf({.profile = "d", .region = {}, .ca_file = {}}).message(),
              HasSubstr("duration_seconds"));
  EXPECT_THAT(ErrorOf({.profile = "s", .region = {}, .ca_file = {}}).message(),
              HasSubstr("source_profile gone does not exist"));
  EXPECT_THAT(ErrorOf({.profile = "e", .region = {}, .ca_file = {}}).message(),
              HasSubstr("k is a source_profile, but has no credentials"));
}

TEST_F(ChainTest, WebIdentityOfTheEnvironmentAndOfTheProfile) {
  const std::string token = File("token", "jwt+/\n");
  env_["AWS_WEB_IDENTITY_TOKEN_FILE"] = token;
  EXPECT_THAT(ErrorOf().message(), HasSubstr("AWS_ROLE_ARN is not"));
  env_["AWS_ROLE_ARN"] = "arn:web";
  env_["AWS_ROLE_SESSION_NAME"] = "pod";
  env_["AWS_REGION"] = "cn-north-1";
  http_.On("POST", "https://sts.cn-north-1.amazonaws.com.cn/", ScriptedAnswer(200, Sts("W")));
  EXPECT_EQ(Get().access_key_id, "W");
  EXPECT_EQ(Get().provider, "web identity (role arn:web)");
  const auto request = http_.requests().front();
  EXPECT_EQ(request.body,
            "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn=arn%3Aweb&RoleSessionName="
            "pod&WebIdentityToken=jwt%2B%2F");
  EXPECT_EQ(request.headers.Get("authorization"), std::nullopt);

  env_["AWS_WEB_IDENTITY_TOKEN_FILE"] = folder_ + "/none";
  const Error missing = ErrorOf();
  EXPECT_EQ(missing.code(), Errc::kDenied)
      << "a token that is missing must not let the chain go on";
  EXPECT_THAT(missing.message(), HasSubstr("/none"));

  env_.erase("AWS_WEB_IDENTITY_TOKEN_FILE");
  Config(fmt::format("[default]\nrole_arn = arn:p\nweb_identity_token_file = {}\n", token));
  EXPECT_EQ(Get().provider, "profile default (role arn:p)");
  EXPECT_THAT(http_.requests().back().body, HasSubstr("RoleArn=arn%3Ap"));
}

TEST_F(ChainTest, TheEndpointOfStsIsTakenFromTheFirstPlaceThatHasIt) {
  Config(
      "[services lab]\nsts =\n endpoint_url = http://sts.lab\n[default]\nrole_arn = "
      "arn:r\nsource_profile = k\nservices = lab\n"
      "endpoint_url = http://all.lab\n[profile k]\naws_access_key_id = K\naws_secret_access_key = "
      "S\n");
  http_.Otherwise([&](const auto&) { return ScriptedAnswer(200, Sts("R")); });
  const auto asked = [&] {
    Get();
    return http_.requests().back().url;
  };
  EXPECT_EQ(asked(), "http://sts.lab/");
  env_["AWS_ENDPOINT_URL"] = "http://env:8000";
  EXPECT_EQ(asked(), "http://env:8000/");
  env_["AWS_ENDPOINT_URL_STS"] = "http://env-sts/path";
  EXPECT_EQ(asked(), "http://env-sts/path");
  env_["AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"] = "true";
  EXPECT_EQ(asked(), "https://sts.us-east-1.amazonaws.com/");
}

TEST_F(ChainTest, ErrorsOfStsSayWhatItSaid) {
  Config(
      "[default]\nrole_arn = arn:r\nsource_profile = k\n[profile k]\naws_access_key_id = "
      "K\naws_secret_access_key = hunter2\n");
  const std::string url = "https://sts.us-east-1.amazonaws.com/";
  const auto error = [&](int status, std::string_view code) {
    http_.On("POST", url,
             ScriptedAnswer(
                 status,
                 fmt::format("<E><Error><Code>{}</Code><Message>why</Message></Error></E>", code)));
    return ErrorOf();
  };
  const Error denied = error(403, "AccessDenied");
  EXPECT_EQ(denied.code(), Errc::kDenied);
  EXPECT_EQ(denied.message(),
            "AWS profile default: assuming role arn:r at https://sts.us-east-1.amazonaws.com/: "
            "AccessDenied: why");
  EXPECT_EQ(error(400, "ExpiredTokenException").code(), Errc::kDenied);
  EXPECT_EQ(error(400, "ValidationError").code(), Errc::kInvalid);
  EXPECT_EQ(error(400, "Throttling").code(), Errc::kUnavailable);
  EXPECT_EQ(error(503, "InternalFailure").code(), Errc::kUnavailable);
  http_.On("POST", url, ScriptedAnswer(404, "<html>hunter2</html>"));
  EXPECT_EQ(ErrorOf().message().find("hunter2"), std::string::npos);
  http_.On("POST", url, ScriptedAnswer(200, "<html/>"));
  EXPECT_EQ(ErrorOf().code(), Errc::kCorrupt);
}

TEST_F(ChainTest, TheContainersRelativeUriComesBeforeTheFullOne) {
  env_["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = "http://127.0.0.1/full";
  http_.On("GET", "http://127.0.0.1/full", ScriptedAnswer(200, Json("F")));
  EXPECT_EQ(Get().access_key_id, "F");
  env_["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"] = "/v2/x?id=1";
  http_.On("GET", "http://169.254.170.2/v2/x?id=1", ScriptedAnswer(200, Json("C")));
  EXPECT_EQ(Get().access_key_id, "C");
  EXPECT_EQ(Get().provider, "container endpoint");
  EXPECT_TRUE(http_.requests().back().direct) << "a proxy must not see it";
}

TEST_F(ChainTest, TheContainersTokenGoesToLocalAddressesOnly) {
  http_.Otherwise([&](const auto&) { return ScriptedAnswer(200, Json("C")); });
  env_["AWS_CONTAINER_AUTHORIZATION_TOKEN"] = "hunter2";
  for (const char* good :
       {"http://127.0.0.1:81/x", "http://127.9.9.9/x", "http://localhost/x", "http://[::1]/x",
        "http://169.254.170.2/x", "http://169.254.170.23/v1/credentials", "http://[fd00:ec2::23]/x",
        "https://example.com/x"}) {
    env_["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = good;
    EXPECT_EQ(Get().access_key_id, "C") << good;
    EXPECT_EQ(http_.requests().back().headers.Get("Authorization"), "hunter2");
  }
  const std::size_t sent = http_.count();
  for (const char* bad :
       {"http://example.com/x", "http://169.254.170.3/x", "http://127.0.0.1.example.com/x",
        "http://[::2]/x", "ftp://127.0.0.1/", "http://128.0.0.1/x", "http://127.1@example.com/"}) {
    env_["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = bad;
    const Error error = ErrorOf();
    EXPECT_EQ(error.code(), Errc::kInvalid) << bad;
    EXPECT_EQ(error.message().find("hunter2"), std::string::npos);
  }
  EXPECT_EQ(http_.count(), sent);
}

TEST_F(ChainTest, TheContainersTokenFileIsReadAnewEachTime) {
  env_["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = "http://169.254.170.23/v1/credentials";
  env_["AWS_CONTAINER_AUTHORIZATION_TOKEN"] = "not this one";
  env_["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"] = File("token", "one\n");
  http_.Otherwise([&](const auto&) { return ScriptedAnswer(200, Json("C")); });
  const auto chain = Chain();
  ASSERT_TRUE(chain->Get({}));
  EXPECT_EQ(http_.requests().back().headers.Get("Authorization"), "one");
  File("token", "two");
  clock_.Advance(56min);
  ASSERT_TRUE(chain->Get({}));
  EXPECT_EQ(http_.requests().back().headers.Get("Authorization"), "two");
  File("token", "a\r\nInjected: 1");
  EXPECT_EQ(ErrorOf().code(), Errc::kInvalid);
  env_["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"] = folder_ + "/none";
  EXPECT_EQ(ErrorOf().code(), Errc::kDenied);
}

TEST_F(ChainTest, AContainerEndpointThatFailsStopsTheChain) {
  env_["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = "http://localhost/x";
  http_.On("GET", "http://localhost/x",
           ScriptedAnswer(403, R"({"code":"AccessDenied","message":"why"})"));
  const Error denied = ErrorOf();
  EXPECT_EQ(denied.code(), Errc::kDenied);
  EXPECT_EQ(denied.message(),
            "asking the container endpoint for credentials: localhost answered HTTP 403: "
            "AccessDenied: why");
  http_.On("GET", "http://localhost/x", ScriptedAnswer(500));
  EXPECT_EQ(ErrorOf().code(), Errc::kUnavailable);
  http_.On("GET", "http://localhost/x", ScriptedAnswer(404));
  EXPECT_EQ(ErrorOf().code(), Errc::kDenied);
}

TEST_F(ChainTest, ASourceThatGaveOnceIsNotForgottenWhenItIsAway) {
  env_["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = "http://localhost/x";
  http_.On("GET", "http://localhost/x", ScriptedAnswer(200, Json("C")));
  const auto chain = Chain();
  ASSERT_TRUE(chain->Get({}));
  env_.erase("AWS_CONTAINER_CREDENTIALS_FULL_URI");
  clock_.Advance(2h);
  const auto credentials = chain->Get({});
  ASSERT_FALSE(credentials) << "a run must not turn anonymous";
}

class InstanceMetadataTest : public ChainTest {
 protected:
  std::unique_ptr<CredentialProvider> Source(bool ec2) {
    return MakeInstanceMetadataSource(
        [this](std::string_view name) -> std::optional<std::string> {
          const auto found = env_.find(name);
          return found == env_.end() ? std::nullopt : std::optional(found->second);
        },
        http_, [ec2] { return ec2; });
  }
  void Serve(const std::string& base) {
    http_.On("PUT", base + "/latest/api/token", ScriptedAnswer(200, "tok=="));
    http_.On("GET", base + "/latest/meta-data/iam/security-credentials/",
             ScriptedAnswer(200, "train role\nother"));
    http_.On("GET", base + "/latest/meta-data/iam/security-credentials/train%20role",
             [this](const auto& request) {
               return request.headers.Get("X-aws-ec2-metadata-token") == "tok=="
                          ? ScriptedAnswer(200, Json("I"))
                          : ScriptedAnswer(401);
             });
  }
};

TEST_F(InstanceMetadataTest, IsAskedOnEc2AndNowhereElse) {
  env_.clear();
  Serve("http://169.254.169.254");
  EXPECT_EQ(Source(false)->Get({}).error().code(), Errc::kNotFound);
  EXPECT_EQ(http_.count(), 0u);
  const auto credentials = Source(true)->Get({});
  ASSERT_TRUE(credentials) << credentials.error().message();
  EXPECT_EQ(credentials->access_key_id, "I");
  EXPECT_EQ(credentials->provider, "instance metadata (role train role)");
  for (const auto& request : http_.requests()) EXPECT_TRUE(request.direct);
  EXPECT_EQ(http_.requests()[0].headers.Get("X-aws-ec2-metadata-token-ttl-seconds"), "21600");
  env_["AWS_EC2_METADATA_DISABLED"] = "TRUE";
  EXPECT_EQ(Source(true)->Get({}).error().code(), Errc::kNotFound);
  EXPECT_EQ(http_.count(), 3u);
}

TEST_F(InstanceMetadataTest, TheEndpointMayBeNamed) {
  env_ = {{"AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://imds.lab:81/"}};
  Serve("http://imds.lab:81");
  EXPECT_TRUE(Source(false)->Get({}));
  env_ = {{"AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "IPv6"}};
  Serve("http://[fd00:ec2::254]");
  EXPECT_TRUE(Source(true)->Get({}));
}

TEST_F(InstanceMetadataTest, WhatGaveNothingIsNotAskedAgain) {
  env_.clear();
  for (const int status : {403, 404, 405}) {
    http_.On("PUT", "http://169.254.169.254/latest/api/token", ScriptedAnswer(status));
    const auto source = Source(true);
    const std::size_t before = http_.count();
    EXPECT_EQ(source->Get({}).error().code(), Errc::kNotFound) << status;
    EXPECT_EQ(source->Get({}).error().code(), Errc::kNotFound) << status;
    EXPECT_EQ(http_.count(), before + 1) << status;
  }
  http_.On("PUT", "http://169.254.169.254/latest/api/token",
           [](const auto&) { return Fail(Errc::kUnavailable, "no route"); });
  EXPECT_EQ(Source(true)->Get({}).error().code(), Errc::kNotFound);
}

TEST_F(InstanceMetadataTest, AfterItGaveAFailureIsAFailure) {
  env_.clear();
  Serve("http://169.254.169.254");
  const auto source = Source(true);
  ASSERT_TRUE(source->Get({}));
  http_.On("PUT", "http://169.254.169.254/latest/api/token", ScriptedAnswer(500));
  EXPECT_EQ(source->Get({}).error().code(), Errc::kUnavailable);
  Serve("http://169.254.169.254");
  EXPECT_TRUE(source->Get({}));
}

TEST_F(InstanceMetadataTest, TheFirmwareSaysWhetherItIsEc2) {
  EXPECT_FALSE(MachineIsEc2(folder_));
  for (const auto& [file, text] :
       std::map<std::string, std::string>{{"sys_vendor", "Amazon EC2\n"},
                                          {"product_uuid", "EC2D2A5C-1\n"},
                                          {"bios_version", "4.11.amazon\n"},
                                          {"board_asset_tag", "i-0123456789abcdef0\n"}}) {
    File(file, text);
    EXPECT_TRUE(MachineIsEc2(folder_)) << file;
    File(file, "QEMU\n");
    EXPECT_FALSE(MachineIsEc2(folder_)) << file;
  }
}

TEST(StaticProvidersTest, GiveWhatTheyWereGiven) {
  EXPECT_TRUE(MakeAnonymous()->Get({})->anonymous());
  Credentials credentials;
  credentials.access_key_id = "K";
  EXPECT_EQ(MakeStatic(credentials)->Get({})->access_key_id, "K");
}

}  // namespace
}  // namespace leat::auth
