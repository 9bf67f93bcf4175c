#include "store/s3/s3_store.h"

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "store/decorators.h"
#include "testing/canned_transport.h"
#include "testing/conformance.h"
#include "testing/fake_clock.h"
#include "testing/s3_server.h"

namespace leat::testing {
namespace {

using store::s3::MakeS3Store;
using store::s3::S3Options;

// The conformance suite on a real server.

enum class Kind { kPlain, kVersioned, kTls, kVirtualHost };

class S3Subject final : public Subject {
 public:
  explicit S3Subject(Kind kind, S3Server server, std::string bucket)
      : server_(std::move(server)), kind_(kind), bucket_(std::move(bucket)) {
    store_ = Make(bucket_, *owner_);
  }
  store::ObjectStore& store() override { return *store_; }
  std::unique_ptr<store::ObjectStore> MissingBucket() override {
    return Make("leat-there-is-none", *owner_);
  }
  std::unique_ptr<store::ObjectStore> Denied() override { return Make(bucket_, *other_); }

 private:
  std::unique_ptr<store::ObjectStore> Make(const std::string& bucket,
                                           auth::CredentialProvider& credentials) {
    S3Options options{};
    options.bucket = bucket;
    options.endpoint = server_.endpoint;
    if (kind_ == Kind::kTls) {
      options.endpoint = server_.tls_endpoint;
      options.ca_file = server_.ca_file;
    }
    if (kind_ == Kind::kVirtualHost) {
      options.endpoint.replace(options.endpoint.find("127.0.0.1"), 9, "localhost");
      options.addressing_style = "virtual";
    }
    auto store = MakeS3Store(options, credentials, *http_, SystemClock());
    EXPECT_TRUE(store) << store.error().message();
    return store ? *std::move(store) : nullptr;
  }

  const S3Server server_;
  const Kind kind_;
  const std::string bucket_;
  const std::unique_ptr<net::HttpTransport> http_ = net::MakeHttpClient();
  const std::unique_ptr<auth::CredentialProvider> owner_ = auth::MakeStatic(server_.owner);
  const std::unique_ptr<auth::CredentialProvider> other_ = auth::MakeStatic(server_.other);
  std::unique_ptr<store::ObjectStore> store_;
};

std::unique_ptr<Subject> MakeS3Subject(Kind kind) {
  auto server = S3Server::FromEnvironment();
  if (!server) {
    ADD_FAILURE() << server.error().message();
    return nullptr;
  }
  auto bucket = server->MakeBucket(kind == Kind::kVersioned);
  if (!bucket) {
    ADD_FAILURE() << bucket.error().message();
    return nullptr;
  }
  return std::make_unique<S3Subject>(kind, *std::move(server), *std::move(bucket));
}

StoreCase CaseOf(std::string name, Kind kind) {
  return {.name = std::move(name),
          .make = [kind] { return MakeS3Subject(kind); },
          .has_buckets = true,
          .has_users = true,
          .ignores_put_if_absent = kind == Kind::kVersioned,
          .keeps_old_versions = kind == Kind::kVersioned};
}

INSTANTIATE_TEST_SUITE_P(Ceph, ObjectStoreSuite,
                         ::testing::Values(CaseOf("Plain", Kind::kPlain),
                                           CaseOf("Versioned", Kind::kVersioned),
                                           CaseOf("Tls", Kind::kTls),
                                           CaseOf("VirtualHost", Kind::kVirtualHost)),
                         NameOfCase);

}  // namespace
}  // namespace leat::testing
