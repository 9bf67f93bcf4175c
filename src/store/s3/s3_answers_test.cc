// What the store makes of answers that no server at hand gives: of other vendors, of broken ones,
// of bad days.
#include <gtest/gtest.h>

#include <algorithm>

#include "base/bytes.h"
#include "net/url.h"
#include "store/decorators.h"
#include "store/s3/s3_store.h"
#include "testing/canned_transport.h"
#include "testing/fake_clock.h"

namespace leat::store::s3 {
namespace {

using testing::CannedAnswer;
using Headers = std::vector<std::pair<std::string, std::string>>;

/// Counts, and gives another key after each Invalidate.
class RenewingProvider final : public auth::CredentialProvider {
 public:
  Result<auth::Credentials> Get(const CallContext&) override {
    return auth::Credentials{.access_key_id = "AKID" + std::to_string(generation),
                             .secret_access_key = "topsecret",
                             .session_token = "tokensecret",
                             .expires = {},
                             .provider = "profile train"};
  }
  void Invalidate() override { generation += renews ? 1 : 0; }
  int generation = 0;
  bool renews = true;
};

CannedAnswer ErrorAnswer(int status, const std::string& code, const std::string& more = "",
                         Headers headers = {}) {
  headers.emplace_back("Content-Type", "application/xml");
  return {.status = status,
          .headers = std::move(headers),
          .body = "<?xml version=\"1.0\"?><Error><Code>" + code + "</Code>" + more + "</Error>"};
}
CannedAnswer Object(const std::string& body, Headers headers = {{"ETag", "\"e1\""}}) {
  return {.status = 200, .headers = std::move(headers), .body = body};
}

class S3AnswersTest : public ::testing::Test {
 protected:
  void Make(S3Options options = {}) {
    if (options.bucket.empty()) options.bucket = "bkt";
    auto made = MakeS3Store(options, credentials_, http_, clock_);
    ASSERT_TRUE(made) << made.error().message();
    store_ = *std::move(made);
  }
  void SetUp() override {
    Make();
    TakeRetryAfterHint();
  }
  Status Read(ReadOptions options = {}) {
    got_.clear();
    return store_->Read("k", options,
                        [&](std::span<const std::byte> piece) -> Status {
                          got_ += AsText(piece);
                          return {};
                        },
                        {});
  }
  std::string Sent(std::size_t i, const char* header) {
    return std::string(http_.requests().at(i).headers.Get(header).value_or("(none)"));
  }
  std::size_t requests() { return http_.requests().size(); }

  testing::CannedTransport http_;
  testing::FakeClock clock_;
  RenewingProvider credentials_;
  std::unique_ptr<ObjectStore> store_;
  std::string got_;
};

void ExpectError(const Status& status, Errc code, const std::string& part) {
  ASSERT_FALSE(status);
  EXPECT_EQ(ErrcName(status.error().code()), ErrcName(code)) << status.error().message();
  EXPECT_NE(status.error().message().find(part), std::string::npos) << status.error().message();
  EXPECT_TRUE(status.error().message().starts_with("s3://bkt")) << status.error().message();
  EXPECT_EQ(status.error().message().find("topsecret"), std::string::npos);
  EXPECT_EQ(status.error().message().find("tokensecret"), std::string::npos);
}

TEST_F(S3AnswersTest, EachRefusalHasItsSentence) {
  const struct {
    int status;
    std::string code, more;
    Errc errc;
    std::string part;
  } cases[] = {
      {404, "NoSuchKey", "", Errc::kNotFound, "s3://bkt/k does not exist"},
      {404, "NoSuchBucket", "", Errc::kNotFound,
       "there is no bucket \"bkt\" at https://s3.amazonaws.com"},
      {403, "AccessDenied", "", Errc::kDenied,
       "access is denied to the credentials from profile train"},
      {403, "SignatureDoesNotMatch", "", Errc::kDenied,
       "the secret key of the credentials from profile train is wrong"},
      {403, "InvalidObjectState", "<StorageClass>GLACIER</StorageClass>", Errc::kUnsupported,
       "archived in GLACIER and must be restored"},
      {501, "NotImplemented", "", Errc::kUnsupported, "cannot do that"},
      {500, "InternalError", "", Errc::kUnavailable, "cannot answer now"},
      {503, "SlowDown", "", Errc::kUnavailable, "503 SlowDown"},
      {400, "RequestTimeout", "", Errc::kUnavailable, "400 RequestTimeout"},
      {409, "ConditionalRequestConflict", "", Errc::kUnavailable, "409"},
      {403, "QuotaExceeded", "", Errc::kNoSpace, "quota"},
      {400, "Whatever", "<Message>no &lt;idea&gt;</Message>", Errc::kInvalid, "no <idea>"},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.code);
    http_.Then(ErrorAnswer(c.status, c.code, c.more));
    ExpectError(Read(), c.errc, c.part);
  }
}

TEST_F(S3AnswersTest, StatusesWithoutABodySpeakForThemselves) {
  for (const auto& [status, code] :
       std::initializer_list<std::pair<int, Errc>>{{404, Errc::kNotFound},
                                                   {403, Errc::kDenied},
                                                   {401, Errc::kDenied},
                                                   {500, Errc::kUnavailable},
                                                   {502, Errc::kUnavailable},
                                                   {429, Errc::kUnavailable},
                                                   {507, Errc::kNoSpace},
                                                   {405, Errc::kUnsupported},
                                                   {418, Errc::kInvalid},
                                                   {302, Errc::kInvalid}}) {
    http_.Then({.status = status});
    ExpectError(Read(), code, "");
  }
}

TEST_F(S3AnswersTest, WhatIsNoS3IsNamed) {
  const CannedAnswer page{.status = 200,
                          .headers = {{"Content-Type", "text/html; charset=utf-8"}},
                          .body = "<!DOCTYPE html><html><p>Welcome</html>"};
  http_.Then(page);
  ExpectError(Read(), Errc::kInvalid, "does not speak S3");
  EXPECT_EQ(got_, "");
  http_.Then(page);
  const auto list = store_->List("", {}, {});
  ASSERT_FALSE(list);
  EXPECT_EQ(list.error().code(), Errc::kInvalid);
  EXPECT_NE(list.error().message().find("does not speak S3 (it answered 200, text/html)"),
            std::string::npos)
      << list.error().message();
  CannedAnswer missing = page;
  missing.status = 404;
  http_.Then(missing);
  ExpectError(Read(), Errc::kInvalid, "does not speak S3 (it answered 404, text/html)");
}

TEST_F(S3AnswersTest, AnErrorBehindA200IsNotTheObject) {
  CannedAnswer answer = ErrorAnswer(200, "InternalError");
  http_.Then(answer);
  ExpectError(Read(), Errc::kUnavailable, "an error in place of the object");
  EXPECT_EQ(got_, "");
  http_.Then(answer);
  EXPECT_EQ(store_->List("", {}, {}).error().code(), Errc::kUnavailable);
}

TEST_F(S3AnswersTest, ARetryAfterIsHandedUp) {
  http_.Then(ErrorAnswer(503, "SlowDown", "", {{"Retry-After", "3"}}));
  EXPECT_FALSE(Read());
  EXPECT_EQ(TakeRetryAfterHint(), std::chrono::seconds(3));
  // As a date it is measured by the clock that wrote it.
  http_.Then(ErrorAnswer(503, "SlowDown", "",
                         {{"Retry-After", "Sun, 06 Nov 1994 08:49:39 GMT"},
                          {"Date", "Sun, 06 Nov 1994 08:49:37 GMT"}}));
  EXPECT_FALSE(Read());
  EXPECT_EQ(TakeRetryAfterHint(), std::chrono::seconds(2));
}

TEST_F(S3AnswersTest, TheRegionIsLearntOnceAndKept) {
  http_.Then(ErrorAnswer(301, "PermanentRedirect", "", {{"x-amz-bucket-region", "eu-west-1"}}));
  http_.Then(Object("body"));
  http_.Then(Object("body"));
  EXPECT_TRUE(Read());
  EXPECT_TRUE(Read());
  ASSERT_EQ(requests(), 3u);
  EXPECT_EQ(http_.requests()[0].url, "https://bkt.s3.us-east-1.amazonaws.com/k");
  EXPECT_EQ(http_.requests()[1].url, "https://bkt.s3.eu-west-1.amazonaws.com/k");
  EXPECT_EQ(http_.requests()[2].url, "https://bkt.s3.eu-west-1.amazonaws.com/k");
  EXPECT_NE(Sent(2, "authorization").find("/eu-west-1/s3/"), std::string::npos);
}

TEST_F(S3AnswersTest, TheRegionIsLearntFromABodyToo) {
  Make({.bucket = "bkt", .endpoint = "http://lab:9000"});
  http_.Then(ErrorAnswer(400, "AuthorizationHeaderMalformed", "<Region>lab-1</Region>"));
  http_.Then(Object("body"));
  EXPECT_TRUE(Read());
  EXPECT_EQ(http_.requests()[1].url, "http://lab:9000/bkt/k");
  EXPECT_NE(Sent(1, "authorization").find("/lab-1/s3/"), std::string::npos);
}

TEST_F(S3AnswersTest, ARegionThatLeadsInACircleIsAnError) {
  http_.Otherwise([](const net::HttpRequest& request) {
    const bool first = request.url.find("us-east-1") != std::string::npos;
    return ErrorAnswer(301, "PermanentRedirect", "",
                       {{"x-amz-bucket-region", first ? "eu-west-1" : "us-east-1"}});
  });
  ExpectError(Read(), Errc::kInvalid, "the bucket is in region us-east-1");
  EXPECT_EQ(requests(), 2u);
}

TEST_F(S3AnswersTest, ATemporaryRedirectIsFollowed) {
  http_.Then(ErrorAnswer(307, "TemporaryRedirect", "",
                         {{"Location", "https://bkt.s3-eu.amazonaws.com/k"}}));
  http_.Then(Object("body"));
  EXPECT_TRUE(Read());
  EXPECT_EQ(http_.requests()[1].url, "https://bkt.s3-eu.amazonaws.com/k");
  http_.Then(ErrorAnswer(307, "TemporaryRedirect", "", {{"Location", "http://evil.example/k"}}));
  EXPECT_FALSE(Read()) << "never from TLS to plain text";
  EXPECT_EQ(requests(), 3u);
  http_.Then(ErrorAnswer(307, "TemporaryRedirect", "", {{"Location", "https://evil.example/k"}}));
  EXPECT_FALSE(Read()) << "with a signature to no strange host";
  EXPECT_EQ(requests(), 4u);
}

TEST_F(S3AnswersTest, TheServersTimeIsTakenOnce) {
  const auto server = net::ParseHttpDate("Sun, 06 Nov 1994 08:49:37 GMT");
  const CannedAnswer skewed =
      ErrorAnswer(403, "RequestTimeTooSkewed", "", {{"Date", "Sun, 06 Nov 1994 08:49:37 GMT"}});
  http_.Then(skewed);
  http_.Then(Object("body"));
  http_.Then(Object("body"));
  EXPECT_TRUE(Read());
  EXPECT_TRUE(Read());
  EXPECT_EQ(Sent(1, "x-amz-date"), net::FormatIsoBasic(*server));
  EXPECT_EQ(Sent(2, "x-amz-date"), net::FormatIsoBasic(*server));
  http_.Then(skewed);
  http_.Then(skewed);
  ExpectError(Read(), Errc::kDenied, "the server's 1994-11-06 08:49:37 UTC");
}

TEST_F(S3AnswersTest, ExpiredCredentialsAreRenewedOnce) {
  http_.Then(ErrorAnswer(400, "ExpiredToken"));
  http_.Then(Object("body"));
  EXPECT_TRUE(Read());
  EXPECT_NE(Sent(1, "authorization").find("AKID1/"), std::string::npos);
  http_.Then(ErrorAnswer(400, "ExpiredToken"));
  http_.Then(ErrorAnswer(400, "ExpiredToken"));
  ExpectError(Read(), Errc::kDenied, "has expired");
  credentials_.renews = false;
  const std::size_t before = requests();
  http_.Then(ErrorAnswer(403, "InvalidAccessKeyId"));
  ExpectError(Read(), Errc::kDenied, "does not know the access key");
  EXPECT_EQ(requests(), before + 1) << "the same credentials are not tried again";
}

TEST_F(S3AnswersTest, AReplacedObjectNamesBoth) {
  http_.Then(ErrorAnswer(412, "PreconditionFailed"));
  http_.Then(Object("x", {{"ETag", "\"38\""}}));
  const auto done = Read({.if_version = {.etag = "9a"}});
  EXPECT_EQ(Sent(0, "If-Match"), "\"9a\"");
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().message(),
            "s3://bkt/k was replaced while it was read (etag \"9a\" is now \"38\")");
  // A server that does not heed If-Match:
  http_.Then(Object("x", {{"ETag", "\"38\""}}));
  ExpectError(Read({.if_version = {.etag = "9a"}}), Errc::kConflict, "etag \"9a\" is now \"38\"");
  EXPECT_EQ(got_, "");
}

TEST_F(S3AnswersTest, AWeakEtagIsComparedAndNotSent) {
  http_.Then(Object("x", {{"ETag", "W/\"1\""}}));
  EXPECT_TRUE(Read({.if_version = {.etag = "W/1"}}));
  EXPECT_EQ(Sent(0, "If-Match"), "(none)");
}

TEST_F(S3AnswersTest, AnotherRangeThanAskedForIsCorrupt) {
  for (const char* range : {"bytes 0-4/100", "bytes 10-13/100", "bytes 10-14/14", ""}) {
    http_.Then(
        {.status = 206, .headers = {{"ETag", "\"e\""}, {"Content-Range", range}}, .body = "abcde"});
    ExpectError(Read({.offset = 10, .length = 5}), Errc::kCorrupt, "");
    EXPECT_EQ(got_, "");
  }
  http_.Then(Object(std::string(10, '.') + "abcde" + std::string(1'000'000, '.')));
  EXPECT_TRUE(Read({.offset = 10, .length = 5})) << "a 200 to a range";
  EXPECT_EQ(got_, "abcde");
}

TEST_F(S3AnswersTest, TheStrongestDigestIsExpected) {
  const std::string md5 = "900150983cd24fb0d6963f7d28e17f72";
  const std::string sha = "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=";
  const auto expected = [&](Headers headers) {
    headers.emplace_back("Content-Length", "3");
    http_.Then({.status = 200, .headers = std::move(headers)});
    return store_->Stat("k", "", {}).value().expected;
  };
  const std::string etag = '"' + md5 + '"';
  EXPECT_EQ(expected({{"ETag", etag}})->kind, digest::Kind::kMd5);
  EXPECT_EQ(expected({{"ETag", etag}, {"x-amz-checksum-crc32c", "Nks/tw=="}})->kind,
            digest::Kind::kCrc32c);
  EXPECT_EQ(
      expected(
          {{"ETag", etag}, {"x-amz-checksum-crc32c", "Nks/tw=="}, {"x-amz-checksum-sha256", sha}})
          ->kind,
      digest::Kind::kSha256);
  EXPECT_EQ(expected({{"ETag", etag}, {"x-amz-checksum-sha256", sha + "-3"}})->kind,
            digest::Kind::kMd5);
  EXPECT_EQ(
      expected(
          {{"ETag", etag}, {"x-amz-checksum-sha256", sha}, {"x-amz-checksum-type", "COMPOSITE"}})
          ->kind,
      digest::Kind::kMd5);
  EXPECT_FALSE(expected({{"ETag", '"' + md5 + "-2\""}}));
  EXPECT_FALSE(expected({{"ETag", "W/" + etag}}));
  EXPECT_FALSE(expected({{"ETag", etag}, {"x-amz-server-side-encryption", "aws:kms"}}));
  EXPECT_FALSE(
      expected({{"ETag", etag}, {"x-amz-server-side-encryption-customer-algorithm", "AES256"}}));
  EXPECT_TRUE(expected({{"ETag", etag}, {"x-amz-server-side-encryption", "AES256"}}));

  // A checksum in the answer to a range may be the range's; the etag is the object's.
  std::optional<digest::Expected> of_range;
  http_.Then({.status = 206,
              .headers = {{"ETag", etag},
                          {"x-amz-checksum-sha256", sha},
                          {"Content-Range", "bytes 10-14/100"}},
              .body = "abcde"});
  EXPECT_TRUE(Read({.offset = 10, .length = 5, .on_info = [&](const ObjectInfo& info) -> Status {
                      of_range = info.expected;
                      return {};
                    }}));
  ASSERT_TRUE(of_range);
  EXPECT_EQ(of_range->kind, digest::Kind::kMd5);
  EXPECT_EQ(ToHex(AsBytes(of_range->value)), md5);
}

TEST_F(S3AnswersTest, ArchivedObjectsAreToldUnlessRestored) {
  const auto archived = [&](Headers headers) {
    headers.emplace_back("ETag", "\"e\"");
    headers.emplace_back("Content-Length", "3");
    http_.Then({.status = 200, .headers = std::move(headers)});
    return store_->Stat("k", "", {}).value().archived;
  };
  EXPECT_FALSE(archived({}));
  EXPECT_TRUE(archived({{"x-amz-storage-class", "GLACIER"}}));
  EXPECT_TRUE(archived(
      {{"x-amz-storage-class", "DEEP_ARCHIVE"}, {"x-amz-restore", "ongoing-request=\"true\""}}));
  EXPECT_FALSE(archived({{"x-amz-storage-class", "GLACIER"},
                         {"x-amz-restore", "ongoing-request=\"false\", expiry-date=\"x\""}}));
  EXPECT_FALSE(archived({{"x-amz-storage-class", "GLACIER_IR"}}));
  EXPECT_TRUE(archived({{"x-amz-archive-status", "ARCHIVE_ACCESS"}}));
}

TEST_F(S3AnswersTest, RequestsCarryWhatTheyShould) {
  Make({.bucket = "bkt", .ca_file = "/ca.pem", .requester_pays = true});
  http_.Then(Object("x"));
  EXPECT_TRUE(Read());
  EXPECT_EQ(Sent(0, "x-amz-request-payer"), "requester");
  EXPECT_EQ(Sent(0, "x-amz-checksum-mode"), "ENABLED");
  EXPECT_EQ(Sent(0, "Range"), "(none)");
  http_.Then(Object("x"));
  EXPECT_TRUE(store_->Put("k", AsBytes("abc"), {.if_absent = true}, {}));
  EXPECT_EQ(Sent(1, "Content-MD5"), "(none)") << "the signature holds the server to the SHA-256";
  EXPECT_EQ(Sent(1, "If-None-Match"), "*");
  EXPECT_EQ(Sent(1, "x-amz-content-sha256"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST_F(S3AnswersTest, AnonymousRequestsAreNotSigned) {
  const auto anonymous = auth::MakeAnonymous();
  S3Options options;
  options.bucket = "bkt";
  const auto store = MakeS3Store(options, *anonymous, http_, clock_).value();
  http_.Then(ErrorAnswer(403, "AccessDenied"));
  const auto list = store->List("", {}, {});
  EXPECT_EQ(Sent(0, "authorization"), "(none)");
  http_.Then({.headers = {{"ETag", "\"x\""}}});
  EXPECT_TRUE(store->Put("k", AsBytes("abc"), {}, {}));
  EXPECT_EQ(Sent(1, "Content-MD5"), "kAFQmDzST7DWlj99KOF/cg==");
  http_.Then({.body = "<DeleteResult/>"});
  EXPECT_TRUE(store->RemoveMany(std::vector<Removal>{{.key = "a"}, {.key = "b"}}, {})[0]);
  EXPECT_EQ(std::ranges::count_if(http_.requests().back().headers.fields(),
                                  [](const auto& field) { return field.first == "Content-MD5"; }),
            1);
  EXPECT_NE(list.error().message().find("without credentials"), std::string::npos)
      << list.error().message();
}

// Checksums of what is sent. (No server at hand confirms them.)

constexpr const char* kAbcSha256 =
    "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
constexpr const char* kAbcCrc32c = "Nks/tw==";

Status PutAbc(ObjectStore& store) {
  const auto put = store.Put("k", AsBytes("abc"), {}, {});
  return put ? Status() : std::unexpected(put.error());
}
CannedAnswer Confirmed(const std::string& checksum = kAbcCrc32c) {
  return {.headers = {{"ETag", "\"x\""}, {"x-amz-checksum-crc32c", checksum}}};
}

TEST_F(S3AnswersTest, AConfirmedChecksumReplacesTheSignatureOfTheBodyOnAnEncryptedLine) {
  http_.Then(Confirmed());
  EXPECT_TRUE(PutAbc(*store_));
  EXPECT_EQ(Sent(0, "x-amz-checksum-crc32c"), kAbcCrc32c);
  EXPECT_EQ(Sent(0, "x-amz-content-sha256"), kAbcSha256) << "nothing is confirmed yet";
  http_.Then(Confirmed());
  EXPECT_TRUE(PutAbc(*store_));
  EXPECT_EQ(Sent(1, "x-amz-checksum-crc32c"), kAbcCrc32c);
  EXPECT_EQ(Sent(1, "x-amz-content-sha256"), "UNSIGNED-PAYLOAD");
  // Not confirmed any more: once again, signed, and so from here on.
  http_.Then({.headers = {{"ETag", "\"x\""}}});
  http_.Then({.headers = {{"ETag", "\"x\""}}});
  EXPECT_TRUE(PutAbc(*store_));
  ASSERT_EQ(requests(), 4u);
  EXPECT_EQ(Sent(3, "x-amz-content-sha256"), kAbcSha256);
  http_.Then({.headers = {{"ETag", "\"x\""}}});
  EXPECT_TRUE(PutAbc(*store_));
  ASSERT_EQ(requests(), 5u);
  EXPECT_EQ(Sent(4, "x-amz-checksum-crc32c"), "(none)");
  EXPECT_EQ(Sent(4, "x-amz-content-sha256"), kAbcSha256);
}

TEST_F(S3AnswersTest, OnAPlainLineBodiesAreAlwaysSigned) {
  for (const char* endpoint : {"http://minio.lab:9000", "http://s3.us-east-1.amazonaws.com"}) {
    Make({.bucket = "bkt", .endpoint = endpoint});
    for (int i = 0; i < 2; ++i) {
      http_.Then(Confirmed());
      EXPECT_TRUE(PutAbc(*store_));
      EXPECT_EQ(Sent(requests() - 1, "x-amz-checksum-crc32c"), kAbcCrc32c);
      EXPECT_EQ(Sent(requests() - 1, "x-amz-content-sha256"), kAbcSha256);
    }
  }
}

TEST_F(S3AnswersTest, WhereChecksumsAreRefusedThereAreNone) {
  http_.Then(ErrorAnswer(501, "NotImplemented"));
  http_.Then({.headers = {{"ETag", "\"x\""}}});
  EXPECT_TRUE(PutAbc(*store_));
  ASSERT_EQ(requests(), 2u);
  EXPECT_EQ(Sent(1, "x-amz-checksum-crc32c"), "(none)");
  http_.Then({.headers = {{"ETag", "\"x\""}}});
  EXPECT_TRUE(PutAbc(*store_));
  EXPECT_EQ(Sent(2, "x-amz-checksum-crc32c"), "(none)");
}

TEST_F(S3AnswersTest, WhoWasOnTheWayWhenChecksumsWereRefusedIsSentAgainToo) {
  bool nested = false;
  http_.Otherwise([&](const net::HttpRequest& request) {
    if (!request.headers.Get("x-amz-checksum-crc32c"))
      return CannedAnswer{.headers = {{"ETag", "\"x\""}}};
    // Another one is refused before this one's answer comes.
    if (!std::exchange(nested, true)) {
      EXPECT_TRUE(PutAbc(*store_));
    }
    return ErrorAnswer(400, "InvalidArgument");
  });
  EXPECT_TRUE(PutAbc(*store_));
  EXPECT_EQ(requests(), 4u);
}

TEST_F(S3AnswersTest, ABodyIsSignedWhereThatIsDemanded) {
  http_.Then(Confirmed());
  EXPECT_TRUE(PutAbc(*store_));
  http_.Then(ErrorAnswer(403, "AccessDenied"));
  http_.Then(Confirmed());
  EXPECT_TRUE(PutAbc(*store_));
  EXPECT_EQ(Sent(1, "x-amz-content-sha256"), "UNSIGNED-PAYLOAD");
  EXPECT_EQ(Sent(2, "x-amz-content-sha256"), kAbcSha256);
  http_.Then(Confirmed());
  EXPECT_TRUE(PutAbc(*store_));
  EXPECT_EQ(Sent(3, "x-amz-content-sha256"), kAbcSha256) << "it is remembered";
}

TEST_F(S3AnswersTest, AnotherChecksumThanTheOneThatWasSentIsAnError) {
  http_.Then(Confirmed("AAAAAA=="));
  ExpectError(PutAbc(*store_), Errc::kUnavailable, "received other bytes");
}

TEST_F(S3AnswersTest, PartsHaveChecksumsWhereTheUploadWasBegunWithThem) {
  const std::string begun =
      "<InitiateMultipartUploadResult><UploadId>u/1</UploadId></InitiateMultipartUploadResult>";
  http_.Then({.body = begun});  // (not every server repeats what it was told)
  const auto upload = store_->BeginUpload("k", {}, {});
  ASSERT_TRUE(upload);
  EXPECT_EQ(Sent(0, "x-amz-checksum-algorithm"), "CRC32C");
  http_.Then(Confirmed());
  const auto part = store_->PutPart("k", *upload, 1, AsBytes("abc"), {});
  ASSERT_TRUE(part);
  EXPECT_EQ(part->checksum, kAbcCrc32c);
  EXPECT_EQ(Sent(1, "x-amz-checksum-crc32c"), kAbcCrc32c);
  EXPECT_TRUE(http_.requests()[1].url.ends_with("?partNumber=1&uploadId=u%2F1"));
  // What another process has brought names them, too.
  http_.Then(
      {.body = "<ListPartsResult><IsTruncated>false</IsTruncated><Part><PartNumber>1</PartNumber>"
               "<Size>3</Size><ETag>x</ETag><ChecksumCRC32C>Nks/tw==</ChecksumCRC32C></Part>"
               "</ListPartsResult>"});
  const auto parts = store_->UploadedParts("k", *upload, {});
  ASSERT_TRUE(parts);
  ASSERT_EQ(parts->size(), 1u);
  EXPECT_EQ(parts->at(0).checksum, kAbcCrc32c);
  std::string sent;
  http_.Otherwise([&](const net::HttpRequest& request) {
    sent = AsText(request.body);
    return CannedAnswer{
        .body = "<CompleteMultipartUploadResult><ETag>y-1</ETag></CompleteMultipartUploadResult>"};
  });
  EXPECT_TRUE(store_->CompleteUpload("k", *upload, *parts, {}, {}));
  EXPECT_NE(sent.find("<ChecksumCRC32C>Nks/tw==</ChecksumCRC32C>"), std::string::npos) << sent;

  // Begun without, where they are refused.
  Make();
  http_.Then(ErrorAnswer(501, "NotImplemented"));
  http_.Then({.body = begun});
  const auto plain = store_->BeginUpload("k", {}, {});
  ASSERT_TRUE(plain);
  http_.Then({.headers = {{"ETag", "\"x\""}}});
  const auto without = store_->PutPart("k", *plain, 1, AsBytes("abc"), {});
  ASSERT_TRUE(without);
  EXPECT_EQ(without->checksum, "");
  EXPECT_EQ(http_.requests().back().headers.Get("x-amz-checksum-crc32c"), std::nullopt);
}

// Listings.

std::string Entry(const std::string& key) {
  return "<Contents><Key>" + key + "</Key><Size>1</Size><ETag>&quot;e&quot;</ETag></Contents>";
}
constexpr auto kDeleted = "<DeleteResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"/>";

TEST_F(S3AnswersTest, WhatIsRefusedOfSeveralIsAskedForByItself) {
  std::string sent, refusals;
  http_.Otherwise([&](const net::HttpRequest& request) {
    const std::string key = request.url.substr(request.url.rfind('/') + 1);
    sent += request.method + " " + key + " " + std::string(AsText(request.body)) + "\n";
    if (request.method == "POST")
      return CannedAnswer{.body = "<DeleteResult>" + refusals + "</DeleteResult>"};
    return key == "b%26" ? ErrorAnswer(403, "AccessDenied") : CannedAnswer{.status = 204};
  });
  const std::vector<Removal> keys = {{.key = "a"}, {.key = "b&"},   {.key = "c"},
                                     {.key = "d"}, {.key = "\x01"}, {.key = "\xff"}};
  refusals =
      "<Error><Key>b&amp;</Key><Code>AccessDenied</Code></Error>"
      "<Error><Key>c</Key><Code>SlowDownWrite</Code></Error>"
      "<Error><Key>d</Key><Code>NoSuchKey</Code></Error>";
  auto done = store_->RemoveMany(keys, {});
  ASSERT_EQ(done.size(), keys.size());
  EXPECT_TRUE(done[0] && done[2] && done[3] && done[4] && done[5]);
  ExpectError(done[1], Errc::kDenied, "s3://bkt/b&: access is denied");
  EXPECT_EQ(sent,
            "POST ?delete <Delete><Quiet>true</Quiet>"
            "<Object><Key>a</Key></Object><Object><Key>b&#38;</Key></Object><Object><Key>c</Key>"
            "</Object><Object><Key>d</Key></Object></Delete>\n"
            "DELETE b%26 \nDELETE c \nDELETE %01 \nDELETE %FF \n");
  EXPECT_EQ(Sent(0, "Content-MD5").size(), 24u);
  // A refusal that names none of them may be of any.
  sent.clear();
  refusals = "<Error><Key/><Code>AccessDenied</Code></Error>";
  done = store_->RemoveMany(std::span(keys).first(2), {});
  EXPECT_TRUE(done[0]);
  EXPECT_FALSE(done[1]);
  EXPECT_TRUE(sent.ends_with("DELETE a \nDELETE b%26 \n")) << sent;
}

TEST_F(S3AnswersTest, WhereManyCannotBeRemovedAtOnceEachIsByItself) {
  for (const CannedAnswer& refusal :
       {ErrorAnswer(501, "NotImplemented"), ErrorAnswer(405, "MethodNotAllowed"),
        CannedAnswer{.status = 404, .body = "<html>"}, CannedAnswer{.body = "<html>"}}) {
    Make();
    const std::size_t before = requests();
    EXPECT_EQ(store_->max_removals(), 1000u);
    http_.Otherwise([&](const net::HttpRequest& request) {
      return request.method == "POST" ? refusal : CannedAnswer{.status = 204};
    });
    for (const bool first : {true, false}) {
      const auto done = store_->RemoveMany(std::vector<Removal>{{.key = "a"}, {.key = "b"}}, {});
      EXPECT_TRUE(done[0] && done[1]);
      EXPECT_EQ(store_->max_removals(), 1u);
      EXPECT_EQ(requests() - before, first ? 3u : 5u);
    }
  }
}

TEST_F(S3AnswersTest, AServerThatIsBusyHasRemovedNothing) {
  http_.Then(ErrorAnswer(400, "RequestTimeout"));
  EXPECT_FALSE(store_->RemoveMany(std::vector<Removal>{{.key = "a"}, {.key = "b"}}, {})[0]);
  EXPECT_EQ(store_->max_removals(), 1000u);
  http_.Then(ErrorAnswer(503, "SlowDown"));
  auto done = store_->RemoveMany(std::vector<Removal>{{.key = "a"}, {.key = "b"}}, {});
  ExpectError(done[0], Errc::kUnavailable, "s3://bkt");
  ExpectError(done[1], Errc::kUnavailable, "s3://bkt");
  http_.Then({.body = kDeleted});
  done = store_->RemoveMany(std::vector<Removal>{{.key = "a"}, {.key = "b"}}, {});
  EXPECT_TRUE(done[0] && done[1]);
  EXPECT_EQ(requests(), 3u);
}

TEST_F(S3AnswersTest, APartIsCopiedWithItsChecksum) {
  http_.Then({.body = "<CopyPartResult><ETag>&quot;e&quot;</ETag><ChecksumCRC32C>Nks/tw=="
                      "</ChecksumCRC32C></CopyPartResult>"});
  const auto copy = [&](std::string_view source) {
    return store_->CopyPart("other", source, {.etag = "e1", .version_id = "v1"}, 10, 5, "k",
                            "crc32c:u", 2, {});
  };
  const auto part = copy("a b");
  ASSERT_TRUE(part) << part.error().message();
  EXPECT_EQ(part->number, 2u);
  EXPECT_EQ(part->size, 5u);
  EXPECT_EQ(part->etag, "e");
  EXPECT_EQ(part->checksum, "Nks/tw==");
  EXPECT_TRUE(http_.requests()[0].url.ends_with("/k?partNumber=2&uploadId=u"));
  EXPECT_EQ(Sent(0, "x-amz-copy-source"), "/other/a%20b?versionId=v1");
  EXPECT_EQ(Sent(0, "x-amz-copy-source-range"), "bytes=10-14");
  EXPECT_EQ(Sent(0, "x-amz-copy-source-if-match"), "\"e1\"");
  http_.Then({.status = 412});
  EXPECT_EQ(copy("a").error().code(), Errc::kConflict);
  http_.Then(ErrorAnswer(200, "InternalError"));
  EXPECT_EQ(copy("a").error().code(), Errc::kUnavailable);
  http_.Then({.body = "<html>"});
  EXPECT_EQ(copy("a").error().code(), Errc::kCorrupt);
  const std::size_t before = requests();
  for (const char* twice : {"a%41", "a?versionId=1"})
    EXPECT_EQ(copy(twice).error().code(), Errc::kUnsupported);
  EXPECT_EQ(requests(), before);
}

TEST_F(S3AnswersTest, TheSizesOfPartsAreAskedFor) {
  const auto answer = [](const char* size, Headers more = {}) {
    more.emplace_back("ETag", "\"e-3\"");
    more.emplace_back("Content-Length", size);
    more.emplace_back("x-amz-mp-parts-count", "3");
    return CannedAnswer{.status = 206, .headers = std::move(more)};
  };
  http_.Otherwise([&](const net::HttpRequest& request) {
    return answer(request.url.ends_with("?partNumber=1")   ? "6"
                  : request.url.ends_with("?partNumber=2") ? "5"
                                                           : "7");
  });
  const auto parts = store_->PartDigests("k", {.etag = "e-3"}, {});
  ASSERT_TRUE(parts) << parts.error().message();
  std::string sizes;
  for (const PartDigest& part : *parts) sizes += std::to_string(part.size) + part.md5 + " ";
  EXPECT_EQ(sizes, "6 5 7 ");
  EXPECT_EQ(store_->PartDigests("k", {.etag = "e-4"}, {}).error().code(), Errc::kConflict);
  // A server that takes it for the whole object; one whose etags are no digests.
  http_.Otherwise([](const net::HttpRequest&) {
    return CannedAnswer{.headers = {{"ETag", "\"e-3\""}, {"Content-Length", "18"}}};
  });
  EXPECT_EQ(store_->PartDigests("k", {.etag = "e-3"}, {}).error().code(), Errc::kUnsupported);
  http_.Otherwise([&](const net::HttpRequest&) {
    return answer("6", {{"x-amz-server-side-encryption", "aws:kms"}});
  });
  EXPECT_EQ(store_->PartDigests("k", {.etag = "e-3"}, {}).error().code(), Errc::kUnsupported);
}

CannedAnswer Listing(const std::string& inside, bool truncated = false) {
  return {.status = 200,
          .headers = {{"Content-Type", "application/xml"}},
          .body = "<?xml version=\"1.0\"?><ListBucketResult><IsTruncated>" +
                  std::string(truncated ? "true" : "false") + "</IsTruncated>" + inside +
                  "</ListBucketResult>"};
}

TEST_F(S3AnswersTest, WhereVersion2IsMissingVersion1IsUsed) {
  // An old server ignores list-type and start-after: it sends the first page again.
  http_.Otherwise([](const net::HttpRequest& request) {
    if (request.url.find("marker=a") != std::string::npos) return Listing(Entry("b"));
    return Listing(Entry("a"), true);
  });
  const auto first = store_->List("", {}, {});
  ASSERT_TRUE(first);
  EXPECT_EQ(first->next_after, "a");
  const auto second = store_->List("", {.start_after = "a"}, {});
  ASSERT_TRUE(second) << second.error().message();
  EXPECT_EQ(second->objects.at(0).key, "b");
  EXPECT_EQ(requests(), 2u) << "it remembers";
}

std::string VersionOf(const std::string& key, const std::string& id, bool latest = true,
                      const std::string& name = "Version") {
  return "<" + name + "><Key>" + key + "</Key><VersionId>" + id + "</VersionId><IsLatest>" +
         (latest ? "true" : "false") + "</IsLatest><ETag>\"e\"</ETag><Size>1</Size></" + name + ">";
}
CannedAnswer Versions(const std::string& inside, bool truncated = false) {
  return {.status = 200,
          .headers = {{"Content-Type", "application/xml"}},
          .body = "<?xml version=\"1.0\"?><ListVersionsResult><IsTruncated>" +
                  std::string(truncated ? "true" : "false") + "</IsTruncated>" + inside +
                  "</ListVersionsResult>"};
}

TEST_F(S3AnswersTest, AListingWithVersionsAsksForThemAndNamesThem) {
  http_.Then(Versions(
      VersionOf("p/a", "v2") + VersionOf("p/a", "v1", false) + VersionOf("p/b", "null"), true));
  const auto list =
      store_->List("p/", {.start_after = "p/ +", .max_keys = 3, .with_versions = true}, {});
  ASSERT_TRUE(list) << list.error().message();
  EXPECT_EQ(http_.requests()[0].url,
            "https://bkt.s3.us-east-1.amazonaws.com/?versions&encoding-type=url&"
            "key-marker=p%2F%20%2B&max-keys=3&prefix=p%2F");
  ASSERT_EQ(list->objects.size(), 2u);
  EXPECT_EQ(list->objects[0].version, (Version{"e", "v2"}));
  EXPECT_EQ(list->objects[1].version, (Version{"e", "null"}));
  EXPECT_EQ(list->next_after, "p/b");
}

TEST_F(S3AnswersTest, APageOfWhatWasDeletedOrReplacedGoesOn) {
  const ListOptions options{.start_after = "a", .with_versions = true};
  http_.Then(
      Versions(VersionOf("b", "v1", true, "DeleteMarker") + VersionOf("c", "v2", false), true));
  const auto deleted = store_->List("", options, {});
  ASSERT_TRUE(deleted) << deleted.error().message();
  EXPECT_TRUE(deleted->objects.empty());
  EXPECT_TRUE(deleted->truncated);
  EXPECT_EQ(deleted->next_after, "b") << "what c is now is not known yet";
  // The marker's own versions again (Ceph), more than a page of them; then what comes next.
  http_.Then(Versions(VersionOf("a", "v9") + VersionOf("a", "v8", false), true));
  http_.Then(Versions(VersionOf("a", "v7", false) + VersionOf("b", "v1"), true));
  const auto next = store_->List("", options, {});
  ASSERT_TRUE(next) << next.error().message();
  ASSERT_EQ(next->objects.size(), 1u);
  EXPECT_EQ(next->objects[0].key, "b");
  EXPECT_EQ(next->next_after, "b");
  EXPECT_NE(http_.requests().back().url.find("key-marker=a&version-id-marker=v8"),
            std::string::npos)
      << http_.requests().back().url;
  // One that never does.
  http_.Otherwise([](const net::HttpRequest&) { return Versions(VersionOf("a", "v9"), true); });
  EXPECT_EQ(store_->List("", options, {}).error().code(), Errc::kCorrupt);
  EXPECT_EQ(requests(), 5u);
}

TEST_F(S3AnswersTest, WhoCannotListVersionsIsToldSo) {
  const ListOptions options{.with_versions = true};
  http_.Then(ErrorAnswer(403, "AccessDenied"));
  const auto denied = store_->List("", options, {});
  ASSERT_FALSE(denied);
  EXPECT_EQ(denied.error().code(), Errc::kDenied);
  EXPECT_NE(denied.error().message().find("s3:ListBucketVersions"), std::string::npos);
  http_.Then(ErrorAnswer(501, "NotImplemented"));
  EXPECT_EQ(store_->List("", options, {}).error().code(), Errc::kUnsupported);
  http_.Then(Listing(Entry("b")));
  EXPECT_EQ(store_->List("", options, {}).error().code(), Errc::kUnsupported);
  for (const std::string& inside :
       {VersionOf("b", "1") + VersionOf("a", "2"), VersionOf("b", "1") + VersionOf("b", "2")}) {
    http_.Then(Versions(inside));
    EXPECT_EQ(store_->List("", options, {}).error().code(), Errc::kCorrupt) << inside;
  }
}

TEST_F(S3AnswersTest, AServerThatSaysSoIsListedByVersion1) {
  http_.Then(ErrorAnswer(501, "NotImplemented"));
  http_.Then(Listing(Entry("b")));
  EXPECT_TRUE(store_->List("", {.start_after = "a"}, {}));
  EXPECT_EQ(http_.requests()[1].url.find("list-type"), std::string::npos);
  EXPECT_NE(http_.requests()[1].url.find("marker=a"), std::string::npos);
}

TEST_F(S3AnswersTest, ABrokenListingIsCorrupt) {
  const std::string v2 = "<KeyCount>2</KeyCount>";
  for (const CannedAnswer& answer :
       {Listing(v2 + Entry("b") + Entry("a")), Listing(v2 + Entry("a") + Entry("a")),
        Listing(v2, true), Listing(v2 + Entry("Z")),
        CannedAnswer{.status = 200,
                     .headers = {},
                     .body = "<?xml version=\"1.0\"?><ListBucketResult><Contents>"}}) {
    http_.Then(answer);
    const auto list = store_->List("", {.start_after = "_"}, {});
    ASSERT_FALSE(list) << answer.body;
    EXPECT_EQ(list.error().code(), Errc::kCorrupt) << list.error().message();
  }
  http_.Then(Listing(v2 + Entry("other/x")));
  EXPECT_EQ(store_->List("prefix/", {}, {}).error().code(), Errc::kCorrupt);
}

TEST_F(S3AnswersTest, AnEmptyPageThatGoesOnIsFollowedButNotForEver) {
  http_.Then(
      Listing("<KeyCount>0</KeyCount><NextContinuationToken>t/1</NextContinuationToken>", true));
  http_.Then(Listing("<KeyCount>1</KeyCount>" + Entry("x")));
  const auto list = store_->List("", {}, {});
  ASSERT_TRUE(list) << list.error().message();
  EXPECT_EQ(list->objects.size(), 1u);
  EXPECT_NE(http_.requests()[1].url.find("continuation-token=t%2F1"), std::string::npos);
  http_.Otherwise([](const net::HttpRequest&) {
    return Listing("<KeyCount>0</KeyCount><NextContinuationToken>t</NextContinuationToken>", true);
  });
  EXPECT_EQ(store_->List("", {}, {}).error().code(), Errc::kCorrupt);
}

}  // namespace
}  // namespace leat::store::s3
