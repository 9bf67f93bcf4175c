#include "auth/credential_process.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

namespace leat::auth {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

constexpr auto kLong = 20s;

TEST(CredentialProcessTest, PrintedCredentialsAreTaken) {
  const auto credentials = RunCredentialProcess(
      R"(echo '{"Version": 1, "AccessKeyId": "K", "SecretAccessKey": "S", "SessionToken": "T",
               "Expiration": "2026-11-20T10:00:00Z"}'; echo noise >&2)",
      kLong, {});
  ASSERT_TRUE(credentials) << credentials.error().message();
  EXPECT_EQ(credentials->access_key_id, "K");
  EXPECT_EQ(credentials->secret_access_key, "S");
  EXPECT_EQ(credentials->session_token, "T");
  EXPECT_TRUE(credentials->expires);
}

TEST(CredentialProcessTest, WhatItWritesToStderrIsShownAndStdoutNever) {
  const auto credentials =
      RunCredentialProcess("echo hunter2; printf 'no\\033 login\\n' >&2; exit 3", kLong, {});
  ASSERT_FALSE(credentials);
  EXPECT_EQ(credentials.error().code(), Errc::kDenied);
  EXPECT_EQ(credentials.error().message(), "it ended with status 3; it said: no\\x1b login");
}

TEST(CredentialProcessTest, AnAnswerThatIsNotOneIsNotQuoted) {
  const auto credentials = RunCredentialProcess("echo hunter2", kLong, {});
  ASSERT_FALSE(credentials);
  EXPECT_EQ(credentials.error().message().find("hunter2"), std::string::npos);
}

TEST(CredentialProcessTest, ASignalIsSaid) {
  const auto credentials = RunCredentialProcess("kill -9 $$", kLong, {});
  ASSERT_FALSE(credentials);
  EXPECT_THAT(credentials.error().message(), HasSubstr("signal 9"));
}

TEST(CredentialProcessTest, ItIsKilledWithItsChildrenWhenItTakesTooLong) {
  for (const char* command :
       {"echo waiting >&2; sleep 100 & sleep 100", "exec >&- 2>&-; sleep 100"}) {
    const auto start = std::chrono::steady_clock::now();
    const auto credentials = RunCredentialProcess(command, 200ms, {});
    ASSERT_FALSE(credentials);
    EXPECT_EQ(credentials.error().code(), Errc::kUnavailable);
    EXPECT_THAT(credentials.error().message(), HasSubstr("did not end in time"));
    EXPECT_LT(std::chrono::steady_clock::now() - start, 5s);
  }
}

TEST(CredentialProcessTest, CancellingKillsIt) {
  std::stop_source stop;
  std::jthread stopper([&] {
    std::this_thread::sleep_for(50ms);
    stop.request_stop();
  });
  const auto credentials = RunCredentialProcess("sleep 100", kLong, {.stop = stop.get_token()});
  ASSERT_FALSE(credentials);
  EXPECT_EQ(credentials.error().code(), Errc::kCancelled);
}

TEST(CredentialProcessTest, EndlessOutputIsAnErrorAndNotOurMemory) {
  const auto credentials = RunCredentialProcess("head -c 5000000 /dev/zero", kLong, {});
  ASSERT_FALSE(credentials);
  EXPECT_EQ(credentials.error().code(), Errc::kCorrupt);
}

TEST(CredentialProcessTest, ItGetsNoInputAndNoDescriptors) {
  const auto credentials = RunCredentialProcess(
      "test -z \"$(cat)\" || exit 4; ls /proc/self/fd | grep -qvx '[0-3]' && exit 5; echo fine "
      ">&2; exit 6",
      kLong, {});
  ASSERT_FALSE(credentials);
  EXPECT_THAT(credentials.error().message(), HasSubstr("status 6"));
}

}  // namespace
}  // namespace leat::auth
