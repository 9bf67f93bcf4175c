// Against the signatures that AWS publishes: its Signature Version 4 test suite, and the examples
// of the S3 API reference
// ("Signature Calculations for the Authorization Header: Transferring Payload in a Single Chunk").
#include "auth/sigv4.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "digest/digest.h"

namespace leat::auth {
namespace {

using Fields = std::vector<std::pair<std::string, std::string>>;

std::chrono::system_clock::time_point At(std::int64_t unix_seconds) {
  return std::chrono::system_clock::time_point(std::chrono::seconds(unix_seconds));
}

std::string Sha256Hex(std::string_view text) { return ToHex(digest::HashSha256(AsBytes(text))); }

std::string Authorization(const net::HttpRequest& request) {
  return std::string(request.headers.Get("Authorization").value_or("none"));
}

constexpr std::string_view kSuiteToken =
    "AQoDYXdzEPT//////////"
    "wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx"
    "7"
    "mSEI/qkPpKPi/"
    "kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNV"
    "XAkiY9q6d"
    "+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+"
    "scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA==";
constexpr std::string_view kUnreserved =
    "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

struct SuiteCase {
  std::string name;
  std::string target;  // path and query as they are sent
  std::string signed_headers;
  std::string signature;
  std::string method = "GET";
  Fields headers = {};
  std::string body = {};
  std::string token = {};
  bool s3_path = false;  // where the suite's path is what is sent, encoded once
};

class SuiteTest : public ::testing::TestWithParam<SuiteCase> {};

TEST_P(SuiteTest, GivesThePublishedSignature) {
  const SuiteCase& c = GetParam();
  net::HttpRequest request{.method = c.method, .url = "https://example.amazonaws.com" + c.target};
  for (const auto& [name, value] : c.headers) request.headers.Add(name, value);
  const Credentials credentials{.access_key_id = "AKIDEXAMPLE",
                                .secret_access_key = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
                                .session_token = c.token,
                                .expires = {},
                                .provider = {}};
  ASSERT_TRUE(SignV4(request, credentials,
                     {.region = "us-east-1",
                      .service = "service",
                      .s3_path = c.s3_path,
                      .add_content_sha256 = false},
                     At(1440938160), Sha256Hex(c.body)));
  EXPECT_EQ(Authorization(request),
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
            "SignedHeaders=" +
                c.signed_headers + ", Signature=" + c.signature);
}

INSTANTIATE_TEST_SUITE_P(
    Aws, SuiteTest,
    ::testing::Values(
        SuiteCase{"get-vanilla", "/", "host;x-amz-date",
                  "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
        SuiteCase{"get-vanilla-empty-query-key", "/?Param1=value1", "host;x-amz-date",
                  "a67d582fa61cc504c4bae71f336f98b97f1ea3c7a6bfe1b6e45aec72011b9aeb"},
        SuiteCase{"get-vanilla-query-order-key-case", "/?Param2=value2&Param1=value1",
                  "host;x-amz-date",
                  "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"},
        SuiteCase{"get-vanilla-query-order-key", "/?Param1=value2&Param1=Value1", "host;x-amz-date",
                  "eedbc4e291e521cf13422ffca22be7d2eb8146eecf653089df300a15b2382bd1"},
        SuiteCase{"get-vanilla-query-order-value", "/?Param1=value2&Param1=value1",
                  "host;x-amz-date",
                  "5772eed61e12b33fae39ee5e7012498b51d56abc0abb7c60486157bd471c4694"},
        SuiteCase{"get-vanilla-query-order-encoded",
                  "/?Param-3=Value3&Param=Value2&%E1%88%B4=Value1", "host;x-amz-date",
                  "371d3713e185cc334048618a97f809c9ffe339c62934c032af5a0e595648fcac"},
        SuiteCase{"get-vanilla-query-unreserved",
                  "/?" + std::string(kUnreserved) + "=" + std::string(kUnreserved),
                  "host;x-amz-date",
                  "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197"},
        SuiteCase{"get-vanilla-utf8-query", "/?%E1%88%B4=bar", "host;x-amz-date",
                  "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04"},
        SuiteCase{"get-unreserved", "/" + std::string(kUnreserved), "host;x-amz-date",
                  "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f"},
        SuiteCase{"get-utf8", "/\u1234", "host;x-amz-date",
                  "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85"},
        SuiteCase{.name = "get-utf8 as S3 has it",
                  .target = "/%E1%88%B4",
                  .signed_headers = "host;x-amz-date",
                  .signature = "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85",
                  .s3_path = true},
        SuiteCase{.name = "get-space",
                  .target = "/example%20space/",
                  .signed_headers = "host;x-amz-date",
                  .signature = "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741",
                  .s3_path = true},
        SuiteCase{"get-special-character", "/example/$delete", "host;x-amz-date",
                  "a853c9b21b528b19643d00910d35b83a10c366a10833ceefb45edd6c80e40f27"},
        SuiteCase{"get-relative", "/example/..", "host;x-amz-date",
                  "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
        SuiteCase{"get-relative-relative", "/example1/example2/../..", "host;x-amz-date",
                  "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
        SuiteCase{"get-slash", "//", "host;x-amz-date",
                  "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
        SuiteCase{"get-slash-dot-slash", "/./", "host;x-amz-date",
                  "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
        SuiteCase{"get-slash-pointless-dot", "/./example", "host;x-amz-date",
                  "ef75d96142cf21edca26f06005da7988e4f8dc83a165a80865db7089db637ec5"},
        SuiteCase{"get-slashes", "//example//", "host;x-amz-date",
                  "9a624bd73a37c9a373b5312afbebe7a714a789de108f0bdfe846570885f57e84"},
        SuiteCase{.name = "get-header-key-duplicate",
                  .target = "/",
                  .signed_headers = "host;my-header1;x-amz-date",
                  .signature = "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea",
                  .headers = {{"My-Header1", "value2"},
                              {"My-Header1", "value2"},
                              {"My-Header1", "value1"}}},
        SuiteCase{.name = "get-header-value-order",
                  .target = "/",
                  .signed_headers = "host;my-header1;x-amz-date",
                  .signature = "08c7e5a9acfcfeb3ab6b2185e75ce8b1deb5e634ec47601a50643f830c755c01",
                  .headers = {{"My-Header1", "value4"},
                              {"My-Header1", "value1"},
                              {"My-Header1", "value3"},
                              {"My-Header1", "value2"}}},
        SuiteCase{.name = "get-header-value-trim",
                  .target = "/",
                  .signed_headers = "host;my-header1;my-header2;x-amz-date",
                  .signature = "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
                  .headers = {{"My-Header1", " value1"}, {"My-Header2", "\"a   b   c\""}}},
        SuiteCase{.name = "post-vanilla",
                  .target = "/",
                  .signed_headers = "host;x-amz-date",
                  .signature = "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
                  .method = "POST"},
        SuiteCase{.name = "post-vanilla-query",
                  .target = "/?Param1=value1",
                  .signed_headers = "host;x-amz-date",
                  .signature = "28038455d6de14eafc1f9222cf5aa6f1a96197d7deb8263271d420d138af7f11",
                  .method = "POST"},
        SuiteCase{.name = "post-header-key-sort",
                  .target = "/",
                  .signed_headers = "host;my-header1;x-amz-date",
                  .signature = "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c",
                  .method = "POST",
                  .headers = {{"My-Header1", "value1"}}},
        SuiteCase{.name = "post-header-value-case",
                  .target = "/",
                  .signed_headers = "host;my-header1;x-amz-date",
                  .signature = "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d",
                  .method = "POST",
                  .headers = {{"My-Header1", "VALUE1"}}},
        SuiteCase{.name = "post-x-www-form-urlencoded",
                  .target = "/",
                  .signed_headers = "content-type;host;x-amz-date",
                  .signature = "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
                  .method = "POST",
                  .headers = {{"Content-Type", "application/x-www-form-urlencoded"}},
                  .body = "Param1=value1"},
        SuiteCase{.name = "post-x-www-form-urlencoded-parameters",
                  .target = "/",
                  .signed_headers = "content-type;host;x-amz-date",
                  .signature = "1a72ec8f64bd914b0e42e42607c7fbce7fb2c7465f63e3092b3b0d39fa77a6fe",
                  .method = "POST",
                  .headers = {{"Content-Type", "application/x-www-form-urlencoded; charset=utf8"}},
                  .body = "Param1=value1"},
        SuiteCase{.name = "post-sts-header-before",
                  .target = "/",
                  .signed_headers = "host;x-amz-date;x-amz-security-token",
                  .signature = "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead",
                  .method = "POST",
                  .token = std::string(kSuiteToken)},
        SuiteCase{.name = "get-vanilla-with-session-token",
                  .target = "/",
                  .signed_headers = "host;x-amz-date;x-amz-security-token",
                  .signature = "07ec1639c89043aa0e3e2de82b96708f198cceab042d4a97044c66dd9f74e7f8",
                  .token = "6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267"}),
    [](const auto& param) {
      std::string name = param.param.name;
      for (char& c : name) {
        if (c == '-' || c == ' ') c = '_';
      }
      return name;
    });

const Credentials& S3Example() {
  static const Credentials credentials{
      .access_key_id = "AKIAIOSFODNN7EXAMPLE",
      .secret_access_key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
      .session_token = {},
      .expires = {},
      .provider = {}};
  return credentials;
}

std::string SignatureOf(net::HttpRequest request,
                        std::string_view payload_sha256 = kEmptyPayloadSha256) {
  EXPECT_TRUE(
      SignV4(request, S3Example(), {.region = "us-east-1"}, At(1369353600), payload_sha256));
  const std::string authorization = Authorization(request);
  return authorization.substr(authorization.rfind('=') + 1);
}

TEST(S3SignatureTest, GetObjectWithRange) {
  net::HttpRequest request{.url = "https://examplebucket.s3.amazonaws.com/test.txt"};
  request.headers.Add("Range", "bytes=0-9");
  EXPECT_EQ(SignatureOf(request),
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
}

TEST(S3SignatureTest, PutObject) {
  net::HttpRequest request{.method = "PUT",
                           .url = "https://examplebucket.s3.amazonaws.com/test%24file.text"};
  request.headers.Add("Date", "Fri, 24 May 2013 00:00:00 GMT");
  request.headers.Add("x-amz-storage-class", "REDUCED_REDUNDANCY");
  EXPECT_EQ(SignatureOf(request, Sha256Hex("Welcome to Amazon S3.")),
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");
}

TEST(S3SignatureTest, GetBucketLifecycle) {
  EXPECT_EQ(SignatureOf({.url = "https://examplebucket.s3.amazonaws.com/?lifecycle"}),
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
}

TEST(S3SignatureTest, ListObjects) {
  EXPECT_EQ(SignatureOf({.url = "https://examplebucket.s3.amazonaws.com/?prefix=J&max-keys=2"}),
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
}

TEST(SignV4Test, AddsWhatTheStoreWants) {
  Credentials credentials = S3Example();
  credentials.session_token = "token";
  net::HttpRequest request{.url = "http://h:9000/b/k"};
  ASSERT_TRUE(SignV4(request, credentials, {.region = "r"}, At(1369353600), kUnsignedPayload));
  EXPECT_EQ(request.headers.Get("host"), "h:9000");
  EXPECT_EQ(request.headers.Get("x-amz-date"), "20130524T000000Z");
  EXPECT_EQ(request.headers.Get("x-amz-content-sha256"), kUnsignedPayload);
  EXPECT_EQ(request.headers.Get("x-amz-security-token"), "token");
  EXPECT_NE(Authorization(request).find(
                "SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-security-token,"),
            std::string::npos);
}

TEST(SignV4Test, ASecondSignatureReplacesTheFirst) {
  net::HttpRequest once{.url = "https://h/k"}, twice{.url = "https://h/k"};
  ASSERT_TRUE(SignV4(twice, S3Example(), {.region = "r"}, At(1000)));
  ASSERT_TRUE(SignV4(twice, S3Example(), {.region = "r"}, At(1369353600)));
  ASSERT_TRUE(SignV4(once, S3Example(), {.region = "r"}, At(1369353600)));
  EXPECT_EQ(once.headers.fields(), twice.headers.fields());
}

TEST(SignV4Test, AnonymousRequestsStayAsTheyAre) {
  net::HttpRequest request{.url = "https://h/k"};
  ASSERT_TRUE(SignV4(request, Credentials{}, {.region = "r"}, At(1369353600)));
  EXPECT_TRUE(request.headers.fields().empty());
}

TEST(SignV4Test, AMalformedUrlIsInvalid) {
  net::HttpRequest request{.url = "s3://b/k"};
  const Status status = SignV4(request, S3Example(), {.region = "r"}, At(1369353600));
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code(), Errc::kInvalid);
}

}  // namespace
}  // namespace leat::auth
