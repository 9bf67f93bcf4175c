#include "net/url.h"

#include <gtest/gtest.h>

namespace leat::net {
namespace {

using std::chrono::seconds;
using std::chrono::system_clock;

system_clock::time_point At(std::int64_t unix_seconds) {
  return system_clock::time_point(seconds(unix_seconds));
}

TEST(UrlTest, PiecesAreKeptAsTheyWereWritten) {
  const auto url = ParseUrl("HTTPS://User:p%40ss@Example.COM:8443/a%2fB/../c?x=%41&y#fragment");
  ASSERT_TRUE(url) << url.error().message();
  EXPECT_EQ(url->scheme, "https");
  EXPECT_EQ(url->user_info, "User:p%40ss");
  EXPECT_EQ(url->host, "example.com");
  EXPECT_EQ(url->port, 8443);
  EXPECT_EQ(url->path, "/a%2fB/../c");
  EXPECT_EQ(url->query, "x=%41&y");
  EXPECT_EQ(url->ToString(), "https://User:p%40ss@example.com:8443/a%2fB/../c?x=%41&y");
}

TEST(UrlTest, WhatIsRedactedKeepsItsPlaceAndLosesItsSecrets) {
  EXPECT_EQ(Redacted("https://me:secret@h/k?X-Amz-Signature=secret"), "https://...@h/k...");
  EXPECT_EQ(Redacted("https://me:sec/ret@h/k"), "https://...@h/k");
  EXPECT_EQ(Redacted("http:/me:secret@h/k"), "...@h/k");
  EXPECT_EQ(Redacted("unexpected: --x=http:/me:secret@h/k#secret"), "unexpected: --x=...@h/k...");
  EXPECT_EQ(Redacted("s3://key:secret@bucket/a@b"), "s3://...@b");
  EXPECT_EQ(Redacted("https://me:pa#secret@h/k?secret"), "https://...@h/k...");
  EXPECT_EQ(Redacted("./image@2x.png"), "./image@2x.png");
  EXPECT_EQ(Redacted("plain\nwords"), "plain\\x0awords");
}

TEST(UrlTest, MessagesShowNeitherUserNorQuery) {
  const auto url = ParseUrl("https://me:secret@h/k?X-Amz-Signature=secret");
  ASSERT_TRUE(url);
  EXPECT_EQ(url->ForMessages(), "https://h/k");
}

TEST(UrlTest, TheSchemesOwnPortIsLeftOutOfTheAuthority) {
  EXPECT_EQ(ParseUrl("http://h:80/")->Authority(), "h");
  EXPECT_EQ(ParseUrl("https://h:443/")->Authority(), "h");
  EXPECT_EQ(ParseUrl("http://h:443/")->Authority(), "h:443");
  EXPECT_EQ(ParseUrl("http://h:/")->EffectivePort(), 80);
  EXPECT_EQ(ParseUrl("https://h")->EffectivePort(), 443);
}

TEST(UrlTest, AMissingPathIsTheRoot) {
  EXPECT_EQ(ParseUrl("http://h")->path, "/");
  const auto url = ParseUrl("http://h?a=b");
  ASSERT_TRUE(url);
  EXPECT_EQ(url->path, "/");
  EXPECT_EQ(url->query, "a=b");
}

TEST(UrlTest, Ipv6AddressesKeepTheirBrackets) {
  const auto url = ParseUrl("http://[FD00:ec2::254]:80/x");
  ASSERT_TRUE(url) << url.error().message();
  EXPECT_EQ(url->host, "[fd00:ec2::254]");
  EXPECT_EQ(url->port, 80);
  EXPECT_FALSE(ParseUrl("http://[::1/x"));
  EXPECT_FALSE(ParseUrl("http://[]/x"));
  EXPECT_FALSE(ParseUrl("http://[::1]x/"));
}

TEST(UrlTest, WhatIsNotAUsableUrlIsRefused) {
  for (const char* text :
       {"", "h/k", "ftp://h/k", "http://", "http:///k", "http://h:0/", "http://h:65536/",
        "http://h:8x/", "http://h:-1/", "http://h /", "http://h/a b", "http://h/a\nb",
        "http://h/\x7f", "http://a\\b/", "http://a:1:2/", "http:/h", "http://h<>/"}) {
    const auto url = ParseUrl(text);
    ASSERT_FALSE(url) << text;
    EXPECT_EQ(url.error().code(), Errc::kInvalid) << text;
  }
}

TEST(UrlTest, TheErrorHidesWhatMayBeSecret) {
  const auto url = ParseUrl("http://me:hunter2@h:99999/k?sig=hunter2");
  ASSERT_FALSE(url);
  EXPECT_EQ(url.error().message().find("hunter2"), std::string::npos) << url.error().message();
  EXPECT_NE(url.error().message().find("h:99999/k"), std::string::npos) << url.error().message();
}

TEST(UrlTest, AnAtSignInThePathIsNoUser) {
  const auto url = ParseUrl("http://h/a@b");
  ASSERT_TRUE(url);
  EXPECT_EQ(url->host, "h");
  EXPECT_EQ(url->path, "/a@b");
}

TEST(ResolveUrlTest, LocationsMeanWhatRfc3986Says) {
  const Url base = *ParseUrl("http://u@a:81/b/c/d?q");
  const auto resolve = [&](std::string_view reference) {
    const auto url = ResolveUrl(base, reference);
    return url ? url->ToString() : "error: " + url.error().message();
  };
  EXPECT_EQ(resolve("g"), "http://u@a:81/b/c/g");
  EXPECT_EQ(resolve("http://a:81/x"), "http://u@a:81/x") << "the same origin";
  EXPECT_EQ(resolve("http://a/x"), "http://a/x");
  EXPECT_EQ(resolve("./g?y"), "http://u@a:81/b/c/g?y");
  EXPECT_EQ(resolve("/g"), "http://u@a:81/g");
  EXPECT_EQ(resolve("?y"), "http://u@a:81/b/c/d?y");
  EXPECT_EQ(resolve("../../../g"), "http://u@a:81/g");
  EXPECT_EQ(resolve("//g/h"), "http://g/h");
  EXPECT_EQ(resolve("https://g/h#x"), "https://g/h");
  EXPECT_EQ(resolve("/a b"), "http://u@a:81/a%20b");
  EXPECT_EQ(resolve("g?a=http://x/../y"), "http://u@a:81/b/c/g?a=http://x/../y");
  EXPECT_TRUE(resolve("file:///etc/passwd").starts_with("error")) << resolve("file:///etc/passwd");
  EXPECT_TRUE(resolve("javascript:x").starts_with("error"));
}

TEST(RemoveDotSegmentsTest, DotsGoAndEmptySegmentsStay) {
  EXPECT_EQ(RemoveDotSegments("/a/b/c/./../../g"), "/a/g");
  EXPECT_EQ(RemoveDotSegments("/.."), "/");
  EXPECT_EQ(RemoveDotSegments("/a/.."), "/");
  EXPECT_EQ(RemoveDotSegments("/a/."), "/a/");
  EXPECT_EQ(RemoveDotSegments("//a//..b/"), "//a//..b/");
  EXPECT_EQ(RemoveDotSegments("/"), "/");
}

TEST(PercentTest, OnlyUnreservedCharactersStay) {
  EXPECT_EQ(PercentEncode("aZ09-._~"), "aZ09-._~");
  EXPECT_EQ(PercentEncode("a b/c+d%é"), "a%20b%2Fc%2Bd%25%C3%A9");
  EXPECT_EQ(PercentEncode("a/b c", true), "a/b%20c");
  EXPECT_EQ(PercentEncode(std::string_view("\0\xff", 2)), "%00%FF");
}

TEST(PercentTest, DecodingKeepsWhatIsMalformed) {
  EXPECT_EQ(PercentDecode("a%20b%2fc+d"), "a b/c+d");
  EXPECT_EQ(PercentDecode("%"), "%");
  EXPECT_EQ(PercentDecode("%4"), "%4");
  EXPECT_EQ(PercentDecode("%zz%41"), "%zzA");
  for (int c = 0; c < 256; ++c) {
    const std::string byte(1, static_cast<char>(c));
    EXPECT_EQ(PercentDecode(PercentEncode(byte)), byte);
  }
}

TEST(DateTest, HttpDates) {
  EXPECT_EQ(ParseHttpDate("Sun, 06 Nov 1994 08:49:37 GMT"), At(784111777));
  for (const char* text : {"", "Sun, 06 Nov 1994 08:49:37", "Sun, 31 Feb 1994 08:49:37 GMT",
                           "Sun, 06 Nov 1994 24:49:37 GMT", "Sun, 06 Nov 9994 08:49:37 GMT",
                           "Sunday, 06-Nov-94 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:37 CET"}) {
    EXPECT_EQ(ParseHttpDate(text), std::nullopt) << text;
  }
}

TEST(DateTest, IsoDates) {
  EXPECT_EQ(ParseIsoDate("2011-02-23T23:36:00.000Z"), At(1298504160));
  EXPECT_EQ(ParseIsoDate("2011-02-23T23:36:00Z"), At(1298504160));
  EXPECT_EQ(ParseIsoDate("2011-02-23T23:36:00"), At(1298504160));
  EXPECT_EQ(ParseIsoDate("2011-02-24T01:36:00+02:00"), At(1298504160));
  EXPECT_EQ(ParseIsoDate("2011-02-23T18:06:00-0530"), At(1298504160));
  EXPECT_EQ(ParseIsoDate("2011-02-23T23:36:00.5Z"),
            At(1298504160) + std::chrono::milliseconds(500));
  for (const char* text :
       {"", "2011-02-23", "2011-02-29T00:00:00Z", "2011-02-23T23:36:00.Z", "2011-02-23T23:36:00+",
        "2011-02-23T23:36:00Zx", "2011-02-23T23:36:00+2"}) {
    EXPECT_EQ(ParseIsoDate(text), std::nullopt) << text;
  }
}

TEST(DateTest, Formats) {
  EXPECT_EQ(FormatIsoBasic(At(1369353600)), "20130524T000000Z");
  EXPECT_EQ(FormatDate(At(784111777)), "1994-11-06 08:49:37 UTC");
}

}  // namespace
}  // namespace leat::net
