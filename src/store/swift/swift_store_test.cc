#include "store/swift/swift_store.h"

#include <gtest/gtest.h>

#include "auth/keystone.h"
#include "base/bytes.h"
#include "testing/conformance.h"
#include "testing/swift_server.h"

namespace leat::testing {
namespace {

using store::swift::MakeSwiftStore;
using store::swift::SwiftOptions;

class SwiftSubject final : public Subject {
 public:
  explicit SwiftSubject(const SwiftServer& server)
      : container_(SwiftServer::NewContainer()),
        owner_(auth::MakeKeystone(server.owner, *http_, SystemClock())),
        other_(auth::MakeKeystone(server.other, *http_, SystemClock())),
        store_(Make(container_, *owner_)) {
    const auto token = owner_->Get({});
    EXPECT_TRUE(token) << token.error().message();
    if (!token) return;
    account_ = token->endpoint;
    const Status made = store_->MakeBucket({});
    EXPECT_TRUE(made) << made.error().message();
    // Somebody of another project asks for this one's account.
    auto stranger = other_->Get({});
    EXPECT_TRUE(stranger) << stranger.error().message();
    if (!stranger) return;
    stranger->endpoint = account_;
    denied_ = auth::MakeStatic(*stranger);
  }
  store::ObjectStore& store() override { return *store_; }
  std::unique_ptr<store::ObjectStore> MissingBucket() override {
    return Make("leat-there-is-none", *owner_);
  }
  std::unique_ptr<store::ObjectStore> Denied() override { return Make(container_, *denied_); }

 private:
  std::unique_ptr<store::ObjectStore> Make(const std::string& container,
                                           auth::CredentialProvider& credentials) {
    SwiftOptions options;
    options.container = container;
    options.account = "http://keystone.test test";
    auto store = MakeSwiftStore(options, credentials, *http_, SystemClock());
    EXPECT_TRUE(store) << store.error().message();
    return store ? *std::move(store) : nullptr;
  }

  const std::unique_ptr<net::HttpTransport> http_ = net::MakeHttpClient();
  const std::string container_;
  std::string account_;
  const std::unique_ptr<auth::CredentialProvider> owner_, other_;
  std::unique_ptr<auth::CredentialProvider> denied_;
  std::unique_ptr<store::ObjectStore> store_;
};

std::unique_ptr<Subject> MakeSwiftSubject() {
  auto server = SwiftServer::FromEnvironment();
  if (!server) {
    ADD_FAILURE() << server.error().message();
    return nullptr;
  }
  return std::make_unique<SwiftSubject>(*server);
}

INSTANTIATE_TEST_SUITE_P(Swift, ObjectStoreSuite,
                         ::testing::Values(StoreCase{.name = "Plain",
                                                     .make = MakeSwiftSubject,
                                                     .has_buckets = true,
                                                     .has_users = true,
                                                     .several_may_win = true}),
                         NameOfCase);

}  // namespace
}  // namespace leat::testing
