#include "auth/credential_replies.h"

#include <gtest/gtest.h>

#include "net/url.h"

namespace leat::auth {
namespace {

TEST(JsonRepliesTest, MetadataAndProcessNameTheTokenDifferently) {
  const char* text =
      R"({"Version": 1, "AccessKeyId": "K", "SecretAccessKey": "S", "Token": "T", "SessionToken": "P", "Expiration": null})";
  EXPECT_EQ(ParseJsonCredentials(text, JsonReply::kMetadata)->session_token, "T");
  EXPECT_EQ(ParseJsonCredentials(text, JsonReply::kProcess)->session_token, "P");
  EXPECT_FALSE(ParseJsonCredentials(text, JsonReply::kProcess)->expires);
}

TEST(JsonRepliesTest, AnythingElseIsCorruptAndNotQuoted) {
  for (const char* text :
       {"", "hunter2", "[]", "null", "{}", R"({"AccessKeyId": "hunter2"})",
        R"({"AccessKeyId": 1, "SecretAccessKey": "hunter2"})",
        R"({"AccessKeyId": "hunter2", "SecretAccessKey": "S", "Expiration": "soon"})",
        R"({"AccessKeyId": "hunter2", "SecretAccessKey": "S", "Expiration": 5})",
        "{\"AccessKeyId\": \"\xff\"}"}) {
    const auto credentials = ParseJsonCredentials(text, JsonReply::kMetadata);
    ASSERT_FALSE(credentials) << text;
    EXPECT_EQ(credentials.error().code(), Errc::kCorrupt) << text;
    EXPECT_EQ(credentials.error().message().find("hunter2"), std::string::npos) << text;
  }
}

TEST(JsonRepliesTest, AProcessMustSayItsVersion) {
  const auto parse = [](const char* version) {
    return ParseJsonCredentials(
        std::string("{") + version + R"("AccessKeyId": "K", "SecretAccessKey": "S"})",
        JsonReply::kProcess);
  };
  EXPECT_TRUE(parse("\"Version\": 1,"));
  EXPECT_FALSE(parse(""));
  EXPECT_FALSE(parse("\"Version\": 2,"));
  EXPECT_FALSE(parse("\"Version\": \"1\","));
}

TEST(JsonRepliesTest, ErrorsOfTheServiceAreHandedOn) {
  const auto credentials = ParseJsonCredentials(
      R"({"Code": "AssumeRoleUnauthorizedAccess", "Message": "no\n"})", JsonReply::kMetadata);
  ASSERT_FALSE(credentials);
  EXPECT_EQ(credentials.error().code(), Errc::kDenied);
  EXPECT_EQ(credentials.error().message(),
            "the answer is an error: AssumeRoleUnauthorizedAccess: no");
  EXPECT_EQ(JsonErrorText(R"({"code": "X", "message": "y"})"), "X: y");
  EXPECT_EQ(JsonErrorText("no"), "");
}

TEST(StsRepliesTest, CredentialsAreFoundUnderAnyPrefixAndEntitiesAreDecoded) {
  const auto credentials = ParseStsCredentials(
      R"(<?xml version="1.0"?><a:R xmlns:a="x"><a:Result><a:Credentials><a:AccessKeyId>K</a:AccessKeyId>
         <a:SecretAccessKey>a&amp;b</a:SecretAccessKey><a:SessionToken>T==</a:SessionToken>
         <a:Expiration>2026-11-20T10:00:00.123Z</a:Expiration></a:Credentials></a:Result></a:R>)");
  ASSERT_TRUE(credentials) << credentials.error().message();
  EXPECT_EQ(credentials->secret_access_key, "a&b");
  EXPECT_EQ(credentials->expires, net::ParseIsoDate("2026-11-20T10:00:00.123Z"));
}

TEST(StsRepliesTest, AnythingElseIsCorrupt) {
  for (const char* text :
       {"", "no", "<a/>", "<Credentials><AccessKeyId>K</AccessKeyId></Credentials>",
        "<Credentials>"}) {
    EXPECT_FALSE(ParseStsCredentials(text)) << text;
  }
}

TEST(StsRepliesTest, Errors) {
  const StsError error = ParseStsError(
      "<ErrorResponse xmlns='x'><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>no "
      "\x01&lt;</Message></Error></ErrorResponse>");
  EXPECT_EQ(error.code, "AccessDenied");
  EXPECT_EQ(error.message, "no \\x01<");
  EXPECT_EQ(ParseStsError("<html>").code, "");
}

TEST(QuotedTest, LongTextIsCut) {
  EXPECT_EQ(Quoted(std::string(1000, 'x')), std::string(300, 'x') + "...");
  EXPECT_EQ(Quoted("a\n"), "a");
}

}  // namespace
}  // namespace leat::auth
