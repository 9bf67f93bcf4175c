#include "store/http/http_store.h"

#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <fstream>

#include "base/bytes.h"
#include "net/url.h"
#include "store/decorators.h"
#include "testing/canned_transport.h"
#include "testing/conformance.h"
#include "testing/s3_server.h"

namespace leat::testing {
namespace {

namespace fs = std::filesystem;
using store::http::MakeHttpStore;

/// A folder of the server's, new for each test.
class Folder {
 public:
  static Result<Folder> Make() {
    static std::atomic<unsigned> next{0};
    LEAT_ASSIGN_OR_RETURN(const auto root, TestVariable("LEAT_TEST_HTTP_ROOT", "nginx"));
    Folder folder;
    folder.name_ = "t" + std::to_string(next.fetch_add(1));
    folder.path_ = fs::path(root) / folder.name_;
    fs::remove_all(folder.path_);
    fs::create_directories(folder.path_);
    return folder;
  }
  const std::string& name() const { return name_; }
  Status Write(std::string_view name, std::string_view body) const {
    const fs::path path = path_ / fs::path(name);
    std::error_code error;
    fs::create_directories(path.parent_path(), error);
    // Beside and renamed, so that no reader sees a part.
    const fs::path part = path_ / ".part";
    std::ofstream(part, std::ios::binary) << body;
    fs::rename(part, path, error);
    if (error) return Fail(Errc::kInternal, error.message());
    return {};
  }

 private:
  std::string name_;
  fs::path path_;
};

class HttpSubject final : public Subject {
 public:
  HttpSubject(Folder folder, const std::string& origin, const std::string& ca, std::string below)
      : folder_(std::move(folder)), below_(std::move(below)) {
    store_ = MakeHttpStore({.origin = origin, .ca_file = ca}, *http_).value();
  }
  store::ObjectStore& store() override { return *store_; }
  std::string KeyOf(std::string_view name) override {
    return below_ + folder_.name() + "/" + net::PercentEncode(name, true);
  }
  Status Place(std::string_view name, std::string_view body) override {
    return folder_.Write(name, body);
  }

 private:
  const Folder folder_;
  const std::string below_;
  const std::unique_ptr<net::HttpTransport> http_ = net::MakeHttpClient();
  std::unique_ptr<store::ObjectStore> store_;
};

StoreCase CaseOf(std::string name, const char* origin_variable, std::string below) {
  return {.name = std::move(name), .make = [=]() -> std::unique_ptr<Subject> {
            auto folder = Folder::Make();
            auto origin = TestVariable(origin_variable, "nginx");
            auto ca = TestVariable("LEAT_TEST_HTTP_CA", "nginx");
            if (!folder || !origin || !ca) {
              ADD_FAILURE() << TestVariable("LEAT_TEST_HTTP_ROOT", "nginx").error().message();
              return nullptr;
            }
            return std::make_unique<HttpSubject>(*folder, *origin, *ca, below);
          }};
}

INSTANTIATE_TEST_SUITE_P(
    Nginx, ObjectStoreSuite,
    ::testing::Values(CaseOf("Plain", "LEAT_TEST_HTTP_ORIGIN", ""),
                      CaseOf("Tls", "LEAT_TEST_HTTP_TLS_ORIGIN", ""),
                      CaseOf("WithoutRanges", "LEAT_TEST_HTTP_ORIGIN", "no-ranges/"),
                      CaseOf("Redirected", "LEAT_TEST_HTTP_ORIGIN", "moved/"),
                      CaseOf("RedirectedToAnotherOrigin", "LEAT_TEST_HTTP_ORIGIN", "away/")),
    NameOfCase);

// What nginx's odd paths show.

class NginxTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto origin = TestVariable("LEAT_TEST_HTTP_ORIGIN", "nginx");
    ASSERT_TRUE(origin) << origin.error().message();
    auto folder = Folder::Make();
    ASSERT_TRUE(folder);
    folder_ = *folder;
    store_ = MakeHttpStore({.origin = *origin}, *http_).value();
    ASSERT_TRUE(folder_->Write("x", "0123456789"));
  }
  std::string Key(const std::string& habit) const { return habit + "/" + folder_->name() + "/x"; }
  Result<std::string> Read(const std::string& key, store::ReadOptions options = {}) {
    std::string body;
    LEAT_RETURN_IF_ERROR(store_->Read(key, options,
                                      [&](std::span<const std::byte> piece) -> Status {
                                        body += AsText(piece);
                                        return {};
                                      },
                                      {}));
    return body;
  }

  std::optional<Folder> folder_;
  const std::unique_ptr<net::HttpTransport> http_ = net::MakeHttpClient();
  std::unique_ptr<store::ObjectStore> store_;
};

TEST_F(NginxTest, LastModifiedIsTheVersionWhereThereIsNoEtag) {
  const auto info = store_->Stat(Key("no-etag"), "", {});
  ASSERT_TRUE(info) << info.error().message();
  EXPECT_TRUE(info->version.etag.starts_with("lm:")) << info->version.etag;
  EXPECT_EQ(
      Read(Key("no-etag"), {.offset = 3, .length = 2, .if_version = info->version}).value_or("?"),
      "34");
  const auto stale =
      Read(Key("no-etag"), {.if_version = {.etag = "lm:Sun, 06 Nov 1994 08:49:37 GMT"}});
  ASSERT_FALSE(stale);
  EXPECT_EQ(stale.error().code(), Errc::kConflict);
  EXPECT_NE(stale.error().message().find("06 Nov 1994"), std::string::npos);
  EXPECT_NE(stale.error().message().find(info->version.etag), std::string::npos)
      << stale.error().message();
}

TEST_F(NginxTest, AServerThatNamesNoVersionIsReadAllTheSame) {
  const auto info = store_->Stat(Key("no-version"), "", {});
  ASSERT_TRUE(info) << info.error().message();
  EXPECT_TRUE(info->version.empty());
  EXPECT_EQ(Read(Key("no-version"), {.offset = 5}).value_or("?"), "56789");
}

TEST_F(NginxTest, WhatHasNoLengthIsUnsupportedAndSaysWhy) {
  for (const auto& failure :
       {store_->Stat(Key("chunked"), "", {}).error(), Read(Key("chunked")).error()}) {
    EXPECT_EQ(failure.code(), Errc::kUnsupported) << failure.message();
    EXPECT_NE(failure.message().find("does not say how large it is"), std::string::npos);
  }
}

TEST_F(NginxTest, StatusesBecomeCodes) {
  EXPECT_EQ(store_->Stat(Key("denied"), "", {}).error().code(), Errc::kDenied);
  EXPECT_EQ(store_->Stat(Key("login"), "", {}).error().code(), Errc::kDenied);
  EXPECT_EQ(Read(Key("denied")).error().code(), Errc::kDenied);
  EXPECT_EQ(Read(Key("loop")).error().code(), Errc::kInvalid);
  store::TakeRetryAfterHint();
  EXPECT_EQ(Read(Key("busy")).error().code(), Errc::kUnavailable);
  EXPECT_EQ(store::TakeRetryAfterHint(), std::chrono::seconds(7));
}

// Servers that are not as they should be.

class CannedTest : public ::testing::Test {
 protected:
  Status Read(const std::string& key, store::ReadOptions options = {}) {
    got_.clear();
    return store_->Read(key, options,
                        [&](std::span<const std::byte> piece) -> Status {
                          got_ += AsText(piece);
                          return {};
                        },
                        {});
  }
  CannedTransport http_;
  std::unique_ptr<store::ObjectStore> store_ =
      MakeHttpStore({.origin = "https://user:pw@data.example:8443"}, http_).value();
  std::string got_;
};

TEST_F(CannedTest, SecretsOfTheUrlAreInNoMessage) {
  EXPECT_EQ(store_->Describe(), "https://data.example:8443");
  EXPECT_EQ(store_->Identity(), "https://data.example:8443");
  const std::string key = "x.bin?X-Amz-Signature=topsecret";
  EXPECT_EQ(store_->UrlOf(key), "https://data.example:8443/x.bin");
  for (const int status : {400, 401, 403, 404, 412, 416, 500}) {
    http_.Otherwise([&](const net::HttpRequest&) { return CannedAnswer{.status = status}; });
    for (const auto& failure : {Read(key).error(), store_->Stat(key, "", {}).error()}) {
      EXPECT_EQ(failure.message().find("secret"), std::string::npos) << failure.message();
      EXPECT_EQ(failure.message().find("pw"), std::string::npos) << failure.message();
    }
  }
  EXPECT_EQ(http_.requests()[0].url,
            "https://user:pw@data.example:8443/x.bin?X-Amz-Signature=topsecret");
}

TEST_F(CannedTest, AUrlThatIsSignedForGetAloneCanBeStatted) {
  http_.Then({.status = 403});
  http_.Then({.status = 206,
              .headers = {{"Content-Range", "bytes 0-0/77"}, {"ETag", "\"e\""}},
              .body = "x"});
  const auto info = store_->Stat("x?sig=1", "", {});
  ASSERT_TRUE(info) << info.error().message();
  EXPECT_EQ(info->size, 77u);
  EXPECT_EQ(info->version.etag, "e");
}

TEST_F(CannedTest, AnotherRangeThanAskedForIsCorrupt) {
  for (const char* range :
       {"bytes 0-4/100", "bytes 11-15/100", "bytes 10-20/100", "bytes 10-12/100", "bytes 10-14/12",
        "bytes 10-14", "items 10-14/100", ""}) {
    SCOPED_TRACE(range);
    http_.Then(
        {.status = 206, .headers = {{"Content-Range", range}, {"ETag", "\"e\""}}, .body = "abcde"});
    const auto done = Read("x", {.offset = 10, .length = 5});
    ASSERT_FALSE(done);
    EXPECT_EQ(done.error().code(), Errc::kCorrupt) << done.error().message();
    EXPECT_EQ(got_, "");
  }
  http_.Then({.status = 206, .headers = {{"Content-Range", "bytes 10-14/100"}}, .body = "abcde"});
  EXPECT_TRUE(Read("x", {.offset = 10, .length = 5}));
  EXPECT_EQ(got_, "abcde");
}

TEST_F(CannedTest, LengthsThatDoNotFitAreNoticed) {
  http_.Then({.status = 206,
              .headers = {{"Content-Range", "bytes 10-14/100"}, {"Content-Length", "4"}},
              .body = "abcd"});
  EXPECT_EQ(Read("x", {.offset = 10, .length = 5}).error().code(), Errc::kCorrupt);
  http_.Then({.status = 200, .headers = {{"Content-Length", "10"}}, .body = "abcd"});
  EXPECT_EQ(Read("x").error().code(), Errc::kUnavailable);
  http_.Then({.status = 200, .headers = {{"Content-Length", "2"}}, .body = "abcd"});
  EXPECT_EQ(Read("x").error().code(), Errc::kCorrupt);
  http_.Then({.status = 200, .headers = {{"Content-Length", "many"}}, .body = "abcd"});
  EXPECT_EQ(Read("x").error().code(), Errc::kCorrupt);
}

TEST_F(CannedTest, AWholeAnswerToARangeIsCutToTheRange) {
  http_.Then({.status = 200, .headers = {{"ETag", "\"e\""}}, .body = std::string(2'000'000, 'x')});
  EXPECT_TRUE(Read("x", {.offset = 1'234'567, .length = 10}));
  EXPECT_EQ(got_, "xxxxxxxxxx");
}

TEST_F(CannedTest, AWeakEtagIsComparedAndNotSent) {
  http_.Then({.status = 200, .headers = {{"ETag", "W/\"1\""}}, .body = "abc"});
  EXPECT_TRUE(Read("x", {.if_version = {.etag = "W/1"}}));
  EXPECT_FALSE(http_.requests()[0].headers.Get("If-Match"));
  http_.Then({.status = 200, .headers = {{"ETag", "W/\"2\""}}, .body = "abc"});
  const auto replaced = Read("x", {.if_version = {.etag = "W/1"}});
  ASSERT_FALSE(replaced);
  EXPECT_EQ(
      replaced.error().message(),
      "https://data.example:8443/x was replaced while it was read (etag \"W/1\" is now \"W/2\")");
}

TEST_F(CannedTest, CompressedBytesAreNotTakenForTheObject) {
  http_.Then({.status = 200, .headers = {{"Content-Encoding", "gzip"}}, .body = "abc"});
  EXPECT_EQ(Read("x").error().code(), Errc::kUnsupported);
}

TEST(HttpStore, MoreThanAnOriginIsRefused) {
  CannedTransport http;
  for (const char* origin : {"https://host/path", "https://host/?q", "ftp://host", "nonsense"}) {
    EXPECT_FALSE(MakeHttpStore({.origin = origin}, http)) << origin;
  }
}

}  // namespace
}  // namespace leat::testing
