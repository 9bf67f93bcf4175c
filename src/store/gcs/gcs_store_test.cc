#include "store/gcs/gcs_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "auth/google.h"
#include "base/bytes.h"
#include "testing/conformance.h"
#include "testing/gcs_server.h"

namespace leat::testing {
namespace {

using store::gcs::GcsOptions;
using store::gcs::MakeGcsStore;
using ::testing::HasSubstr;

/// A bucket of its own. The server is a value, so that it may be another program.
class GcsSubject final : public Subject {
 public:
  GcsSubject(const GcsServer& server, std::uint64_t resumable_from)
      : server_(server),
        bucket_(GcsServer::NewBucket()),
        resumable_from_(resumable_from),
        owner_(auth::MakeGoogle(server.owner, *http_, SystemClock())),
        other_(auth::MakeGoogle(server.other, *http_, SystemClock())),
        store_(Make(bucket_, *owner_)) {
    const Status made = store_->MakeBucket({});
    EXPECT_TRUE(made) << made.error().message();
  }
  store::ObjectStore& store() override { return *store_; }
  std::unique_ptr<store::ObjectStore> MissingBucket() override {
    return Make("leat-there-is-none", *owner_);
  }
  std::unique_ptr<store::ObjectStore> Denied() override {
    return server_.other.from.empty() ? nullptr : Make(bucket_, *other_);
  }

 private:
  std::unique_ptr<store::ObjectStore> Make(const std::string& bucket,
                                           auth::CredentialProvider& credentials) {
    GcsOptions options;
    options.bucket = bucket;
    options.endpoint = server_.endpoint;
    options.project = server_.project;
    options.resumable_from = resumable_from_;
    auto store = MakeGcsStore(options, credentials, *http_, SystemClock());
    EXPECT_TRUE(store) << store.error().message();
    return store ? *std::move(store) : nullptr;
  }

  const GcsServer server_;
  const std::unique_ptr<net::HttpTransport> http_ = net::MakeHttpClient();
  const std::string bucket_;
  const std::uint64_t resumable_from_;
  const std::unique_ptr<auth::CredentialProvider> owner_, other_;
  std::unique_ptr<store::ObjectStore> store_;
};

std::unique_ptr<Subject> MakeSubjectWith(std::uint64_t resumable_from) {
  auto server = GcsServer::FromEnvironment();
  if (!server) {
    ADD_FAILURE() << server.error().message();
    return nullptr;
  }
  return std::make_unique<GcsSubject>(*server, resumable_from);
}

INSTANTIATE_TEST_SUITE_P(Gcs, ObjectStoreSuite,
                         ::testing::Values(StoreCase{.name = "AtOnce",
                                                     .make =
                                                         [] { return MakeSubjectWith(UINT64_MAX); },
                                                     .has_buckets = true,
                                                     .has_users = true,
                                                     .no_line_breaks = true},
                                           StoreCase{.name = "Resumable",
                                                     .make = [] { return MakeSubjectWith(0); },
                                                     .has_buckets = true,
                                                     .has_users = true,
                                                     .no_line_breaks = true}),
                         NameOfCase);

// An emulator that is not ours, where one is running.
std::unique_ptr<Subject> MakeEmulatorSubject() {
  GcsServer server;
  server.endpoint = std::getenv("LEAT_TEST_GCS_EMULATOR");
  server.project = "test";
  server.owner.kind = server.other.kind = config::GoogleSettings::Kind::kAnonymous;
  return std::make_unique<GcsSubject>(server, kMiB);
}
std::vector<StoreCase> Emulators() {
  const char* endpoint = std::getenv("LEAT_TEST_GCS_EMULATOR");
  if (endpoint == nullptr || *endpoint == '\0') return {};
  return {StoreCase{.name = "Emulator",
                    .make = MakeEmulatorSubject,
                    .has_buckets = true,
                    .no_line_breaks = true,
                    .ignores_copy_condition = true}};
}
INSTANTIATE_TEST_SUITE_P(FakeGcs, ObjectStoreSuite, ::testing::ValuesIn(Emulators()), NameOfCase);

}  // namespace
}  // namespace leat::testing
