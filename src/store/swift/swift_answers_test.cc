// What the store makes of answers that no Swift at hand gives: of others that speak its protocol,
// of proxies, of bad days.
#include <gtest/gtest.h>

#include "auth/credentials.h"
#include "base/bytes.h"
#include "store/swift/swift_store.h"
#include "testing/canned_transport.h"
#include "testing/fake_clock.h"

namespace leat::store::swift {
namespace {

using testing::CannedAnswer;

class SwiftAnswersTest : public ::testing::Test {
 protected:
  void SetUp() override {
    SwiftOptions options;
    options.container = "c";
    options.account = "http://keystone.test test";
    auto made = MakeSwiftStore(options, *credentials_, http_, clock_);
    ASSERT_TRUE(made) << made.error().message();
    store_ = *std::move(made);
  }
  std::vector<Status> RemoveBoth() {
    return store_->RemoveMany(std::vector<Removal>{{.key = "a b"}, {.key = "ü"}}, {});
  }
  /// Answers a bulk delete so, and finds each object where it is asked for alone.
  void Answer(const CannedAnswer& answer) {
    SetUp();
    asked_.clear();
    http_.Otherwise([this, answer](const net::HttpRequest& request) {
      asked_ += request.method + " " + request.url + " " + std::string(AsText(request.body)) + "|";
      if (request.method == "POST") return answer;
      return CannedAnswer{.status = request.method == "HEAD" ? 200 : 204};
    });
  }

  testing::CannedTransport http_;
  testing::FakeClock clock_;
  std::unique_ptr<auth::CredentialProvider> credentials_ =
      auth::MakeStatic({.session_token = "token", .endpoint = "http://swift.test/v1/AUTH_a"});
  std::unique_ptr<ObjectStore> store_;
  std::string asked_;
};

TEST_F(SwiftAnswersTest, WhatIsRefusedOfSeveralIsAskedForByItself) {
  const CannedAnswer refusal{.body = R"( {"Number Deleted": 0, "Number Not Found": 1,
      "Response Status": "400 Bad Request", "Errors": [["/c/%C3%BC", "403 Forbidden"]]})"};
  const std::string bulk = "POST http://swift.test/v1/AUTH_a?bulk-delete /c/a%20b\n/c/%C3%BC\n|";
  Answer(refusal);
  auto done = RemoveBoth();
  EXPECT_TRUE(done[0] && done[1]);
  EXPECT_EQ(asked_, bulk +
                        "HEAD http://swift.test/v1/AUTH_a/c/%C3%BC |"
                        "DELETE http://swift.test/v1/AUTH_a/c/%C3%BC |");
  EXPECT_EQ(store_->max_removals(), 1000u);
  // Still refused.
  Answer(refusal);
  http_.Otherwise([&](const net::HttpRequest& request) {
    return request.method == "POST" ? refusal : CannedAnswer{.status = 403};
  });
  done = RemoveBoth();
  EXPECT_TRUE(done[0]);
  ASSERT_FALSE(done[1]);
  EXPECT_EQ(done[1].error().code(), Errc::kDenied);
  EXPECT_TRUE(done[1].error().message().starts_with("swift://c/ü: "));
}

TEST_F(SwiftAnswersTest, WhereManyCannotBeRemovedAtOnceEachIsByItself) {
  const std::string alone =
      "HEAD http://swift.test/v1/AUTH_a/c/a%20b |DELETE http://swift.test/v1/AUTH_a/c/a%20b |"
      "HEAD http://swift.test/v1/AUTH_a/c/%C3%BC |DELETE http://swift.test/v1/AUTH_a/c/%C3%BC |";
  for (const CannedAnswer& answer :
       {CannedAnswer{.status = 204},  // taken for the account's metadata
        CannedAnswer{.status = 403}, CannedAnswer{.status = 404}, CannedAnswer{.body = "<html>"},
        CannedAnswer{.body = R"({"Number Deleted": 0, "Response Status":
            "413 Request Entity Too Large", "Errors": []})"}}) {
    Answer(answer);
    auto done = RemoveBoth();
    EXPECT_TRUE(done[0] && done[1]);
    EXPECT_EQ(store_->max_removals(), 1u);
    EXPECT_EQ(asked_.substr(asked_.find('|') + 1), alone);
    asked_.clear();
    done = RemoveBoth();
    EXPECT_TRUE(done[0] && done[1]);
    EXPECT_EQ(asked_, alone);
  }
  // Not told of one of them.
  Answer({.body = R"({"Number Deleted": 1, "Response Status": "200 OK", "Errors": []})"});
  const auto done = RemoveBoth();
  EXPECT_TRUE(done[0] && done[1]);
  EXPECT_EQ(asked_.substr(asked_.find('|') + 1), alone);
}

TEST_F(SwiftAnswersTest, AServerThatIsBusyHasRemovedNothing) {
  for (const CannedAnswer& answer :
       {CannedAnswer{.status = 503}, CannedAnswer{.body = R"({"Number Deleted": 0,
            "Response Status": "500 Internal Error", "Errors": []})"}}) {
    Answer(answer);
    for (const Status& each : RemoveBoth()) {
      ASSERT_FALSE(each);
      EXPECT_EQ(each.error().code(), Errc::kUnavailable) << each.error().message();
    }
    EXPECT_EQ(store_->max_removals(), 1000u);
  }
}

TEST_F(SwiftAnswersTest, WhatHasPartsOrANameOfSlashesIsRemovedByItself) {
  Answer({.body = R"({"Number Deleted": 2, "Response Status": "200 OK", "Errors": []})"});
  const auto done = store_->RemoveMany(
      std::vector<Removal>{{.key = "//"}, {.key = "a"}, {"large", true}, {.key = "b"}}, {});
  for (const Status& each : done) EXPECT_TRUE(each);
  EXPECT_EQ(asked_,
            "POST http://swift.test/v1/AUTH_a?bulk-delete /c/a\n/c/b\n|"
            "HEAD http://swift.test/v1/AUTH_a/c/// |DELETE http://swift.test/v1/AUTH_a/c/// |"
            "HEAD http://swift.test/v1/AUTH_a/c/large |"
            "DELETE http://swift.test/v1/AUTH_a/c/large |");
}

}  // namespace
}  // namespace leat::store::swift
