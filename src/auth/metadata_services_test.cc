// The chain against tests/servers/metadata_server.py, which is strict about the services'
// protocols, over the real client.
#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>

#include "auth/credentials.h"
#include "auth/instance_metadata.h"
#include "base/bytes.h"
#include "testing/fake_clock.h"
#include "testing/source_root.h"

namespace leat::auth {
namespace {

using namespace std::chrono_literals;
using ::leat::testing::FakeClock;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class MetadataServer {
 public:
  MetadataServer() {
    const auto root = leat::testing::SourceRoot();
    std::string script = root / "tests/servers/metadata_server.py", python = "/usr/bin/python3";
    int in[2], out[2];
    if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0) return;
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, in[0], 0);
    posix_spawn_file_actions_adddup2(&files, out[1], 1);
    char* argv[] = {python.data(), script.data(), nullptr};
    posix_spawn(&pid_, python.c_str(), &files, nullptr, argv, environ);
    posix_spawn_file_actions_destroy(&files);
    close(in[0]);
    close(out[1]);
    keep_alive_ = in[1];
    std::string line;  // "PORT 43210"
    for (char c; read(out[0], &c, 1) == 1 && c != '\n';) line += c;
    close(out[0]);
    if (line.starts_with("PORT ")) base_ = "http://127.0.0.1:" + line.substr(5);
  }
  ~MetadataServer() {
    close(keep_alive_);  // it serves until its input ends
    if (pid_ > 0) waitpid(pid_, nullptr, 0);
  }
  const std::string& base() const { return base_; }

 private:
  pid_t pid_ = 0;
  int keep_alive_ = -1;
  std::string base_;
};

// What is meant for the fixed address of ECS goes to the test's server.
class Rerouted final : public net::HttpTransport {
 public:
  Rerouted(net::HttpTransport& inner, std::string base) : inner_(inner), base_(std::move(base)) {}
  Result<net::HttpResponse> Perform(const net::HttpRequest& request,
                                    const CallContext& ctx) override {
    constexpr std::string_view kEcs = "http://169.254.170.2/";
    if (!request.url.starts_with(kEcs)) return inner_.Perform(request, ctx);
    net::HttpRequest rerouted = request;
    rerouted.url = base_ + request.url.substr(kEcs.size() - 1);
    return inner_.Perform(rerouted, ctx);
  }

 private:
  net::HttpTransport& inner_;
  const std::string base_;
};

class MetadataServicesTest : public ::testing::Test {
 protected:
  MetadataServicesTest() : clock_(FakeClock::Mode::kJump, std::chrono::system_clock::now()) {
    char folder[] = "/tmp/leat-auth-XXXXXX";
    folder_ = mkdtemp(folder);
    env_ = {{"AWS_EC2_METADATA_DISABLED", "true"}};
  }
  ~MetadataServicesTest() override { std::filesystem::remove_all(folder_); }
  void SetUp() override { ASSERT_NE(server_.base(), ""); }

  void Config(std::string_view text) {
    auto parsed = config::AwsConfig::Parse(text, "config", "", "credentials");
    ASSERT_TRUE(parsed) << parsed.error().message();
    config_ = *std::move(parsed);
  }
  config::Environment Env() {
    return [this](std::string_view name) -> std::optional<std::string> {
      const auto found = env_.find(name);
      return found == env_.end() ? std::nullopt : std::optional(found->second);
    };
  }
  std::unique_ptr<CredentialProvider> Chain(std::string profile = {}) {
    return MakeAwsChain({.profile = std::move(profile), .region = {}, .ca_file = {}}, Env(),
                        config_, http_, clock_);
  }
  std::string KeyOf(CredentialProvider& provider) {
    const auto credentials = provider.Get({});
    return credentials ? credentials->access_key_id : "error: " + credentials.error().message();
  }
  void Control(const std::string& form) {
    ASSERT_TRUE(client_->Perform(
        {.method = "POST", .url = server_.base() + "/control", .body = AsBytes(form)}, {}));
  }
  std::string Log() {
    const auto log = client_->Perform({.url = server_.base() + "/log"}, {});
    return log ? log->body : "";
  }
  std::string File(const std::string& name, std::string_view text) {
    std::ofstream(folder_ + "/" + name) << text;
    return folder_ + "/" + name;
  }

  MetadataServer server_;
  const std::unique_ptr<net::HttpTransport> client_ = net::MakeHttpClient();
  Rerouted http_{*client_, server_.base()};
  FakeClock clock_;
  std::string folder_;
  std::map<std::string, std::string, std::less<>> env_;
  config::AwsConfig config_;
};

TEST_F(MetadataServicesTest, InstanceMetadataIsRefreshedBeforeItExpires) {
  env_ = {{"AWS_EC2_METADATA_SERVICE_ENDPOINT", server_.base()}};
  const auto chain = Chain();
  EXPECT_EQ(KeyOf(*chain), "AKIA-imds-1") << Log();
  clock_.Advance(54min);
  EXPECT_EQ(KeyOf(*chain), "AKIA-imds-1");
  clock_.Advance(2min);
  EXPECT_EQ(KeyOf(*chain), "AKIA-imds-2");
  clock_.Advance(1min);
  chain->Invalidate();
  EXPECT_EQ(KeyOf(*chain), "AKIA-imds-3");
}

TEST_F(MetadataServicesTest, AnInstanceWithoutARoleIsAnonymous) {
  env_ = {{"AWS_EC2_METADATA_SERVICE_ENDPOINT", server_.base()}};
  Control("role=");
  EXPECT_EQ(Chain()->Get({})->provider, "anonymous");
  Control("role=x&imds=off");
  EXPECT_EQ(Chain()->Get({})->provider, "anonymous");
}

TEST_F(MetadataServicesTest, AnInstanceServiceThatCannotAnswerNowIsAskedAgain) {
  env_ = {{"AWS_EC2_METADATA_SERVICE_ENDPOINT", server_.base()}};
  const auto chain = Chain();
  Control("imds=busy");
  const auto busy = chain->Get({});
  ASSERT_FALSE(busy) << "anonymous for good, because of one bad moment";
  EXPECT_EQ(busy.error().code(), Errc::kUnavailable);
  Control("imds=on");
  clock_.Advance(1min);
  EXPECT_EQ(KeyOf(*chain), "AKIA-imds-1") << Log();
}

TEST_F(MetadataServicesTest, ASilentInstanceServiceCostsOneSecondOnce) {
  env_ = {{"AWS_EC2_METADATA_SERVICE_ENDPOINT", server_.base()}};
  Control("imds=silent");
  const auto source = MakeInstanceMetadataSource(Env(), http_, [] { return false; });
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(source->Get({}).error().code(), Errc::kNotFound);
  const auto first = std::chrono::steady_clock::now() - start;
  EXPECT_EQ(source->Get({}).error().code(), Errc::kNotFound);
  const auto both = std::chrono::steady_clock::now() - start;
  EXPECT_GE(first, 900ms);
  EXPECT_LT(both, 2s);
}

TEST_F(MetadataServicesTest, TheStrictServerRefusesAGetWithoutAToken) {
  const auto response =
      client_->Perform({.url = server_.base() + "/latest/meta-data/iam/security-credentials/"}, {});
  ASSERT_TRUE(response);
  EXPECT_EQ(response->status, 401);
}

TEST_F(MetadataServicesTest, TheContainerEndpointWantsItsToken) {
  env_["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = server_.base() + "/pod/credentials";
  EXPECT_THAT(KeyOf(*Chain()),
              HasSubstr("HTTP 401: AccessDenied: the authorization is missing or wrong"));
  env_["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"] = File("token", "container-secret");
  const auto chain = Chain();
  EXPECT_EQ(KeyOf(*chain), "AKIA-container-1");
  // The token is replaced while the run goes on.
  Control("container_token=rotated");
  File("token", "rotated");
  clock_.Advance(56min);
  EXPECT_EQ(KeyOf(*chain), "AKIA-container-2");
}

TEST_F(MetadataServicesTest, TheRelativeUriOfEcs) {
  env_["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"] = "/v2/credentials/task";
  env_["AWS_CONTAINER_AUTHORIZATION_TOKEN"] = "container-secret";
  EXPECT_EQ(KeyOf(*Chain()), "AKIA-container-1");
}

TEST_F(MetadataServicesTest, AServiceThatFailsForAMomentIsAskedAgainLater) {
  env_["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = server_.base() + "/pod/credentials";
  env_["AWS_CONTAINER_AUTHORIZATION_TOKEN"] = "container-secret";
  const auto chain = Chain();
  EXPECT_EQ(KeyOf(*chain), "AKIA-container-1");
  Control("fail=500");
  clock_.Advance(56min);
  EXPECT_EQ(KeyOf(*chain), "AKIA-container-1");
  clock_.Advance(31s);
  EXPECT_EQ(KeyOf(*chain), "AKIA-container-2");
}

TEST_F(MetadataServicesTest, ARoleIsAssumedWithASignatureThatHolds) {
  env_["AWS_ENDPOINT_URL_STS"] = server_.base();
  Config(
      "[profile a]\nrole_arn = arn:aws:iam::1:role/a\nsource_profile = b\n[profile b]\nrole_arn = "
      "arn:aws:iam::1:role/external\n"
      "external_id = external & secret\nsource_profile = c\nregion = eu-west-1\n"
      "[profile c]\naws_access_key_id = AKIDSESSION\naws_secret_access_key = "
      "session-secret\naws_session_token = session-token\n");
  const auto chain = Chain("a");
  EXPECT_EQ(KeyOf(*chain), "AKIA-sts-2") << Log();
  clock_.Advance(56min);
  const std::string refreshed = KeyOf(*chain);
  // The strict server refuses what was signed 56 minutes ahead of its clock; the old ones go on.
  EXPECT_EQ(refreshed, "AKIA-sts-2");
  EXPECT_THAT(Log(), HasSubstr("403 the signature has expired"));
}

TEST_F(MetadataServicesTest, AShortRoleIsRefreshedInTheMiddleOfARun) {
  env_["AWS_ENDPOINT_URL_STS"] = server_.base() + "/sts";
  Control("lifetime=900");
  Config(
      "[default]\nrole_arn = arn:aws:iam::1:role/a\nsource_profile = c\n[profile "
      "c]\naws_access_key_id = AKIDSOURCE\n"
      "aws_secret_access_key = source-secret\n");
  const auto chain = Chain();
  EXPECT_EQ(KeyOf(*chain), "AKIA-sts-1") << Log();
  clock_.Advance(599s);
  EXPECT_EQ(KeyOf(*chain), "AKIA-sts-1");
  clock_.Advance(5s);
  EXPECT_EQ(KeyOf(*chain), "AKIA-sts-2") << Log();
}

TEST_F(MetadataServicesTest, WhatStsRefusesIsSaid) {
  env_["AWS_ENDPOINT_URL_STS"] = server_.base();
  const auto with = [&](std::string_view role, std::string_view key, std::string_view secret) {
    Config(
        fmt::format("[default]\nrole_arn = arn:aws:iam::1:role/{}\nsource_profile = c\n[profile "
                    "c]\naws_access_key_id = {}\n"
                    "aws_secret_access_key = {}\n",
                    role, key, secret));
    return KeyOf(*Chain());
  };
  EXPECT_THAT(with("a", "AKIDSOURCE", "hunter2"),
              HasSubstr("SignatureDoesNotMatch: the signature does not match"));
  EXPECT_THAT(with("a", "AKIDOTHER", "hunter2"), HasSubstr("InvalidClientTokenId"));
  EXPECT_THAT(with("forbidden", "AKIDSOURCE", "source-secret"), HasSubstr("AccessDenied"));
  EXPECT_THAT(with("external", "AKIDSOURCE", "source-secret"), HasSubstr("external id"));
  EXPECT_THAT(with("a", "AKIDSOURCE", "source-secret"), StartsWith("AKIA-sts-"));
}

TEST_F(MetadataServicesTest, WebIdentityTokensAreReadAnewAtEachRefresh) {
  env_["AWS_ENDPOINT_URL"] = server_.base();
  env_["AWS_ROLE_ARN"] = "arn:aws:iam::1:role/pod";
  env_["AWS_WEB_IDENTITY_TOKEN_FILE"] = File("jwt", "identity-secret\n");
  const auto chain = Chain();
  EXPECT_EQ(KeyOf(*chain), "AKIA-sts-1") << Log();
  Control("web_token=a.b/c+d%3D%3D");
  File("jwt", "a.b/c d==");
  env_["AWS_WEB_IDENTITY_TOKEN_FILE"] = File("jwt", "wrong");
  EXPECT_THAT(KeyOf(*Chain()), HasSubstr("InvalidIdentityToken"));
  File("jwt", "a.b/c d==");
  clock_.Advance(56min);
  EXPECT_EQ(KeyOf(*chain), "AKIA-sts-2") << Log();
}

TEST_F(MetadataServicesTest, AContainerIsTheSourceOfARole) {
  env_["AWS_ENDPOINT_URL_STS"] = server_.base();
  env_["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = server_.base() + "/pod/credentials";
  env_["AWS_CONTAINER_AUTHORIZATION_TOKEN"] = "container-secret";
  Config("[default]\nrole_arn = arn:aws:iam::1:role/a\ncredential_source = EcsContainer\n");
  EXPECT_EQ(KeyOf(*Chain()), "AKIA-sts-2") << Log();
}

}  // namespace
}  // namespace leat::auth
