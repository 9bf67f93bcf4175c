#include "store/gcs/gcs_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>

#include "auth/google.h"
#include "base/bytes.h"
#include "testing/conformance.h"
#include "testing/fake_clock.h"
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

// ---------------------------------------------------------------- what only this service does

class GcsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto server = GcsServer::FromEnvironment();
    ASSERT_TRUE(server) << server.error().message();
    server_ = *std::move(server);
    owner_ = auth::MakeGoogle(server_.owner, *http_, SystemClock());
    options_.bucket = GcsServer::NewBucket();
    options_.endpoint = server_.endpoint;
    options_.project = server_.project;
    options_.resumable_from = 1000;
    store_ = Make(options_, *owner_);
    const Status made = store_->MakeBucket({});
    ASSERT_TRUE(made) << made.error().message();
  }

  std::unique_ptr<store::ObjectStore> Make(const GcsOptions& options,
                                           auth::CredentialProvider& credentials) {
    auto store = MakeGcsStore(options, credentials, *http_, SystemClock());
    EXPECT_TRUE(store) << store.error().message();
    return store ? *std::move(store) : nullptr;
  }
  /// A request of the owner's that is not the driver's.
  net::HttpResponse Ask(std::string method, std::string target, std::string_view body = "",
                        std::string type = "application/json") {
    net::HttpRequest request{.method = std::move(method), .url = server_.endpoint + target};
    request.headers.Add("Authorization", "Bearer " + owner_->Get({})->session_token);
    request.headers.Add("Content-Type", std::move(type));
    request.body = AsBytes(body);
    const auto response = http_->Perform(request, {});
    EXPECT_TRUE(response) << response.error().message();
    EXPECT_EQ(response->status / 100, 2) << response->body;
    return *response;
  }
  void Fault(const std::string& what) {
    const Status set = server_.Control("bucket=" + options_.bucket + "&" + what);
    ASSERT_TRUE(set) << set.error().message();
  }
  Result<std::string> Read(std::string_view key, const store::ReadOptions& options = {}) {
    std::string body;
    LEAT_RETURN_IF_ERROR(store_->Read(key, options,
                                      [&](std::span<const std::byte> piece) -> Status {
                                        body += AsText(piece);
                                        return {};
                                      },
                                      {}));
    return body;
  }
  static std::string Bytes(std::size_t size) {
    std::string out;
    for (std::size_t i = 0; i < size; ++i) out += static_cast<char>(i * 31 + i / 251);
    return out;
  }

  GcsServer server_;
  const std::unique_ptr<net::HttpTransport> http_ = net::MakeHttpClient();
  std::unique_ptr<auth::CredentialProvider> owner_;
  GcsOptions options_;
  std::unique_ptr<store::ObjectStore> store_;
};

TEST_F(GcsTest, ABodyThatBrokeOffGoesOnWhereItBroke) {
  const std::string body = Bytes(3'000'000);
  Fault("cut=1500000&cuts=3");
  const auto put = store_->Put("x", AsBytes(body), {}, {});
  ASSERT_TRUE(put) << put.error().message();
  EXPECT_TRUE(Read("x").value_or("?") == body);
  // Below the least that the service keeps, nothing was there to go on with.
  Fault("cut=1000&cuts=100");
  const auto nothing = store_->Put("x", AsBytes(body), {}, {});
  Fault("cuts=0");
  ASSERT_FALSE(nothing);
  EXPECT_EQ(nothing.error().code(), Errc::kUnavailable);
}

TEST_F(GcsTest, AnAnswerThatWasLostIsFoundOutAbout) {
  const std::string body = Bytes(700'000);
  Fault("lose=1");
  const auto put = store_->Put("x", AsBytes(body), {.if_absent = true}, {});
  ASSERT_TRUE(put) << put.error().message();
  EXPECT_EQ(put->etag, store_->Stat("x", "", {})->version.etag);
  EXPECT_EQ(store_->Put("x", AsBytes(body), {.if_absent = true}, {}).error().code(),
            Errc::kConflict);
}

TEST_F(GcsTest, ATokenThatIsNotTakenIsReplacedOnce) {
  ASSERT_TRUE(store_->Put("x", AsBytes("x"), {}, {}));
  FakeClock clock(FakeClock::Mode::kJump, std::chrono::system_clock::now());
  const auto renewing = auth::MakeGoogle(server_.owner, *http_, clock);
  const auto store = Make(options_, *renewing);
  ASSERT_TRUE(store->Stat("x", "", {}));
  ASSERT_TRUE(server_.Control("revoke=" + renewing->Get({})->session_token));
  clock.Advance(std::chrono::seconds(10));
  const auto info = store->Stat("x", "", {});
  EXPECT_TRUE(info) << info.error().message();
  const auto wrong = auth::MakeStatic({.session_token = "guessed", .provider = "nobody"});
  const auto denied = Make(options_, *wrong)->Stat("x", "", {});
  ASSERT_FALSE(denied);
  EXPECT_EQ(denied.error().code(), Errc::kDenied);
  EXPECT_THAT(denied.error().message(), HasSubstr("access is denied to nobody (401"));
  EXPECT_EQ(denied.error().message().find("guessed"), std::string::npos);
}

TEST_F(GcsTest, ATokenDoesNotGoThroughANetworkInTheClear) {
  options_.endpoint = "http://gcs.example";
  const auto info = Make(options_, *owner_)->Stat("x", "", {});
  ASSERT_FALSE(info);
  EXPECT_EQ(info.error().code(), Errc::kInvalid);
  EXPECT_THAT(info.error().message(), HasSubstr("a token must not go there in the clear"));
}

TEST_F(GcsTest, EveryKindOfCredentialsIsTaken) {
  for (const std::string kind : {"owner", "user", "external-file", "external-url"}) {
    SCOPED_TRACE(kind);
    const auto settings = server_.Key(kind);
    ASSERT_TRUE(settings) << settings.error().message();
    const auto credentials = auth::MakeGoogle(*settings, *http_, SystemClock());
    const auto put = Make(options_, *credentials)->Put("x", AsBytes("x"), {}, {});
    EXPECT_TRUE(put) << put.error().message();
  }
  config::GoogleSettings machine;
  machine.metadata_host = server_.endpoint.substr(7);
  const auto credentials = auth::MakeGoogle(machine, *http_, SystemClock());
  EXPECT_TRUE(Make(options_, *credentials)->Stat("x", "", {}));
  const auto anonymous = auth::MakeAnonymous();
  const auto denied = Make(options_, *anonymous)->Stat("x", "", {});
  ASSERT_FALSE(denied);
  EXPECT_THAT(denied.error().message(),
              HasSubstr("access is denied without credentials, and none are configured (401: "
                        "Anonymous caller does not have storage.objects.get access"));
  Fault("public=1");
  EXPECT_TRUE(Make(options_, *anonymous)->Stat("x", "", {}));
}

TEST_F(GcsTest, TimesAreThoseOfRcloneAndGsutil) {
  const std::string path = "/storage/v1/b/" + options_.bucket + "/o/x";
  store::PutOptions put;
  store::SetMtime(put.metadata, 981'173'106'123'456'000);
  ASSERT_TRUE(store_->Put("x", AsBytes("x"), put, {}));
  const std::string told = Ask("GET", path).body;
  EXPECT_THAT(told, HasSubstr(R"("mtime": "2001-02-03T04:05:06.123456Z")"));
  EXPECT_THAT(told, HasSubstr(R"("goog-reserved-file-mtime": "981173106")"));
  store::SetMtime(put.metadata, -1'500'000'000);
  ASSERT_TRUE(store_->Put("x", AsBytes("x"), put, {}));
  EXPECT_THAT(Ask("GET", path).body, HasSubstr(R"("mtime": "1969-12-31T23:59:58.5Z")"));
  Ask("PUT", path, R"({"metadata":{"mtime":"2001-02-03T05:05:06.123456789+01:00","Other":"a"}})");
  const auto info = store_->Stat("x", "", {});
  EXPECT_EQ(store::MtimeOf(info->metadata), 981'173'106'123'456'789);
  EXPECT_EQ(info->metadata.at("other"), "a");
  Ask("PUT", path, R"({"metadata":{"goog-reserved-file-mtime":"12"}})");
  EXPECT_EQ(store::MtimeOf(store_->Stat("x", "", {})->metadata), 12'000'000'000);
}

TEST_F(GcsTest, WhatIsStoredCompressedComesAsItIsStored) {
  // (gzip of "stored compressed")
  const std::string gz =
      FromHex("1f8b08000000000002ff2b2ec92f4a4d5148cecf2d284a2d2e4e4d0100c7f8e92211000000").value();
  const std::string body =
      "--B\r\nContent-Type: application/json\r\n\r\n"
      R"({"name":"gz","contentEncoding":"gzip"})"
      "\r\n--B\r\nContent-Type: text/plain\r\n\r\n" +
      gz + "\r\n--B--\r\n";
  Ask("POST", "/upload/storage/v1/b/" + options_.bucket + "/o?uploadType=multipart", body,
      "multipart/related; boundary=B");
  EXPECT_EQ(store_->Stat("gz", "", {})->size, gz.size());
  EXPECT_TRUE(Read("gz").value_or("?") == gz);
  EXPECT_TRUE(Read("gz", {.offset = 5, .length = 7}).value_or("?") == gz.substr(5, 7));
}

TEST_F(GcsTest, AVersionThatTheBucketKeepsIsStillRead) {
  options_.bucket = GcsServer::NewBucket();
  Ask("POST", "/storage/v1/b?project=" + server_.project,
      R"({"name":")" + options_.bucket + R"(","versioning":{"enabled":true}})");
  store_ = Make(options_, *owner_);
  const auto old = store_->Put("x", AsBytes("old"), {}, {});
  ASSERT_TRUE(store_->Put("x", AsBytes("newer"), {}, {}));
  EXPECT_EQ(Read("x", {.if_version = *old}).value_or("?"), "old");
  EXPECT_EQ(store_->Stat("x", old->etag, {})->size, 3u);
  EXPECT_EQ(Read("x", {.if_version = {.version_id = old->etag}}).value_or("?"), "old");
  for (const std::string version : {"12345", "nonsense", "99999999999999999999"}) {
    const auto missing = store_->Stat("x", version, {});
    ASSERT_FALSE(missing);
    EXPECT_EQ(missing.error().code(), Errc::kNotFound);
    EXPECT_THAT(missing.error().message(), HasSubstr("x has no version \"" + version + "\""));
  }
  ASSERT_TRUE(store_->Remove("x", {}));
  const Status full = store_->RemoveBucket({});
  EXPECT_THAT(full.error().message(), HasSubstr("old versions"));
}

TEST_F(GcsTest, WhoReadsPaysWhereTheBucketSaysSo) {
  options_.bucket = GcsServer::NewBucket();
  Ask("POST", "/storage/v1/b?project=" + server_.project,
      R"({"name":")" + options_.bucket + R"(","billing":{"requesterPays":true}})");
  store_ = Make(options_, *owner_);
  EXPECT_THAT(store_->List("", {}, {}).error().message(), HasSubstr("give requester_pays"));
  EXPECT_THAT(Read("x").error().message(), HasSubstr("give requester_pays"));
  options_.requester_pays = true;
  store_ = Make(options_, *owner_);
  ASSERT_TRUE(store_->Put("x", AsBytes("x"), {}, {}));
  EXPECT_EQ(Read("x").value_or("?"), "x");
}

TEST_F(GcsTest, ManyPartsAreComposedInATreeAndLeaveNothingBehind) {
  const auto upload = store_->BeginUpload("whole", {}, {});
  ASSERT_TRUE(upload) << upload.error().message();
  std::vector<store::Part> parts;
  std::string whole;
  for (std::size_t i = 1; i <= 70; ++i) {
    const std::string body = "part " + std::to_string(i) + ";";
    const auto part = store_->PutPart("whole", *upload, i, AsBytes(body), {});
    ASSERT_TRUE(part) << part.error().message();
    parts.push_back(*part);
    whole += body;
  }
  EXPECT_EQ(store_->List("", {}, {})->objects.size(), 0u);
  EXPECT_EQ(store_->List(".leat-uploads/", {}, {})->objects.size(), 70u);
  const auto made = store_->CompleteUpload("whole", *upload, parts, {.if_absent = true}, {});
  ASSERT_TRUE(made) << made.error().message();
  EXPECT_EQ(Read("whole", {.if_version = *made}).value_or("?"), whole);
  EXPECT_EQ(store_->List(".leat-uploads/", {}, {})->objects.size(), 0u);
  const auto info = store_->Stat("whole", "", {});
  ASSERT_TRUE(info->expected);
  EXPECT_EQ(info->expected->kind, digest::Kind::kCrc32c);
  EXPECT_FALSE(info->metadata.contains("leat-upload"));
  // As if its answer had been lost.
  EXPECT_EQ(store_->CompleteUpload("whole", *upload, parts, {.if_absent = true}, {})->etag,
            made->etag);
  const auto other = store_->BeginUpload("whole", {}, {});
  const auto part = store_->PutPart("whole", *other, 1, AsBytes("x"), {});
  EXPECT_EQ(store_->CompleteUpload("whole", *other, std::vector{*part}, {.if_absent = true}, {})
                .error()
                .code(),
            Errc::kConflict);
  ASSERT_TRUE(store_->AbortUpload("whole", *other, {}));
}

TEST_F(GcsTest, APartThatIsAnotherByNowIsNotComposed) {
  const auto upload = store_->BeginUpload("x", {}, {});
  const auto part = store_->PutPart("x", *upload, 1, AsBytes("one"), {});
  ASSERT_TRUE(store_->PutPart("x", *upload, 1, AsBytes("two"), {}));
  const auto made = store_->CompleteUpload("x", *upload, std::vector{*part}, {}, {});
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code(), Errc::kNotFound);
  EXPECT_THAT(made.error().message(), HasSubstr("part 1 of its upload is not there"));
}

TEST_F(GcsTest, ABucketIsNotEmptyForWhatUploadsLeftBehind) {
  const auto upload = store_->BeginUpload("x", {}, {});
  ASSERT_TRUE(store_->PutPart("x", *upload, 1, AsBytes("one"), {}));
  // Keys around the place are shown, page by page.
  for (const char* key : {".leat-upload", ".leat-uploads", ".leat-uploads-", ".leat-uploads0", "z"})
    ASSERT_TRUE(store_->Put(key, AsBytes("x"), {}, {}));
  std::vector<std::string> keys;
  for (store::ListOptions page{.max_keys = 1};;) {
    const auto got = store_->List("", page, {});
    ASSERT_TRUE(got) << got.error().message();
    for (const auto& object : got->objects) keys.push_back(object.key);
    if (!got->truncated) break;
    page.start_after = got->next_after;
  }
  EXPECT_THAT(keys, ::testing::ElementsAre(".leat-upload", ".leat-uploads", ".leat-uploads-",
                                           ".leat-uploads0", "z"));
  EXPECT_EQ(store_->RemoveBucket({}).error().code(), Errc::kConflict);
  for (const std::string& key : keys) ASSERT_TRUE(store_->Remove(key, {}));
  const Status removed = store_->RemoveBucket({});
  EXPECT_TRUE(removed) << removed.error().message();
}

TEST_F(GcsTest, ALargeObjectIsCopiedInSeveralSteps) {
  const std::string body = Bytes(9'000'000);
  const auto put = store_->Put("from", AsBytes(body), {}, {});
  ASSERT_TRUE(put) << put.error().message();
  const auto copied = store_->CopyFrom(options_.bucket, "from", *put, "to", {});
  ASSERT_TRUE(copied) << copied.error().message();
  EXPECT_TRUE(Read("to", {.if_version = *copied}).value_or("?") == body);
}

TEST_F(GcsTest, BucketsAreThoseOfTheProject) {
  const auto buckets = store_->Buckets({});
  ASSERT_TRUE(buckets) << buckets.error().message();
  EXPECT_NE(std::ranges::find(*buckets, options_.bucket, &store::BucketInfo::name), buckets->end());
  const auto other = auth::MakeGoogle(server_.other, *http_, SystemClock());
  const Status taken = Make(options_, *other)->MakeBucket({});
  ASSERT_FALSE(taken);
  EXPECT_EQ(taken.error().code(), Errc::kConflict);
  EXPECT_THAT(taken.error().message(), HasSubstr("belongs to somebody else"));
  options_.project.clear();
  EXPECT_TRUE(Make(options_, *owner_)->MakeBucket({})) << "it is there";
  EXPECT_THAT(Make(options_, *owner_)->Buckets({}).error().message(),
              HasSubstr("GOOGLE_CLOUD_PROJECT"));
  options_.bucket = GcsServer::NewBucket();
  EXPECT_THAT(Make(options_, *owner_)->MakeBucket({}).error().message(),
              HasSubstr("GOOGLE_CLOUD_PROJECT"));
}

TEST_F(GcsTest, WhatTheServiceSaysIsOneSentence) {
  const auto fails = [&](int status) {
    Fault("fail=" + std::to_string(status));
    const auto info = store_->Stat("x", "", {});
    EXPECT_FALSE(info);
    return info ? Error(Errc::kInternal, "") : info.error();
  };
  for (const int status : {408, 429, 500, 503}) {
    SCOPED_TRACE(status);
    const Error error = fails(status);
    EXPECT_EQ(error.code(), Errc::kUnavailable);
    EXPECT_EQ(error.message(), store_->UrlOf("x") + ": the server answered " +
                                   std::to_string(status) + ": As the test wants it.");
  }
  EXPECT_EQ(fails(400).code(), Errc::kInvalid);
  EXPECT_EQ(fails(403).code(), Errc::kDenied);
  options_.bucket = "leat-there-is-none";
  EXPECT_EQ(Make(options_, *owner_)->Put("x", AsBytes("x"), {}, {}).error().message(),
            "gs://leat-there-is-none/x: there is no bucket \"leat-there-is-none\" at " +
                server_.endpoint);
  for (const std::string name : {"A", "ab", "with space", "a/b"}) {
    options_.bucket = name;
    EXPECT_FALSE(MakeGcsStore(options_, *owner_, *http_, SystemClock())) << name;
  }
}

}  // namespace
}  // namespace leat::testing
