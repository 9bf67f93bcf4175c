// Sources against an S3 bucket that is a map and speaks just enough of the protocol.
#include "job/remote.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <map>

#include "base/bytes.h"
#include "net/url.h"
#include "testing/canned_transport.h"

namespace leat::job {
namespace {

using testing::CannedAnswer;

struct Object {
  std::string body;
  std::string etag;
  std::string storage_class = "STANDARD";
  bool restored = false;
  std::string version_id = {};
};

class RemoteTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char path[] = "/tmp/leat-remote-test-XXXXXX";
    root_ = ::mkdtemp(path);
    NewRun();
  }
  void TearDown() override { ASSERT_TRUE(os::RemoveTree(root_)); }

  /// Another process: requests are counted anew.
  void NewRun() {
    tools_.env = [](std::string_view name) -> std::optional<std::string> {
      if (name == "AWS_REGION") return "us-east-1";
      if (name == "AWS_ENDPOINT_URL") return "http://s3.test";
      if (name == "AWS_CONFIG_FILE" || name == "AWS_SHARED_CREDENTIALS_FILE") return "/dev/null";
      return std::nullopt;
    };
    tools_.home.dir = root_;
    tools_.clock = &SystemClock();
    auto http = std::make_unique<testing::CannedTransport>();
    http->Otherwise([this](const net::HttpRequest& request) { return Answer(request); });
    http_ = http.get();
    tools_.http = std::move(http);
  }
  CannedAnswer Answer(const net::HttpRequest& request) {
    const std::string_view url = request.url;
    const std::string_view path = url.substr(std::min(url.find("/b"), url.size()));
    const auto query = path.find('?');
    if (url.starts_with("http://s3.test/b") && query != path.npos &&
        path.find("list-type=2") != path.npos) {
      return List(path.substr(query + 1));
    }
    std::string key = net::PercentDecode(
        path.substr(std::min<std::size_t>(3, path.size()), query == path.npos ? query : query - 3));
    if (url.starts_with("http://web.test/")) key = "web:" + std::string(url.substr(16));
    const auto it = objects_.find(key);
    if (it == objects_.end()) return {404, {}, ""};
    CannedAnswer answer;
    answer.headers = {{"ETag", "\"" + it->second.etag + "\""},
                      {"Last-Modified", "Fri, 20 Nov 2026 10:00:00 GMT"},
                      {"Accept-Ranges", "bytes"},
                      {"x-amz-request-id", "1"}};
    if (it->second.storage_class != "STANDARD")
      answer.headers.emplace_back("x-amz-storage-class", it->second.storage_class);
    if (it->second.restored)
      answer.headers.emplace_back("x-amz-restore", "ongoing-request=\"false\", expiry-date=\"x\"");
    if (!it->second.version_id.empty())
      answer.headers.emplace_back("x-amz-version-id", it->second.version_id);
    answer.body = it->second.body;
    return answer;
  }
  CannedAnswer List(std::string_view query) const {
    std::string prefix;
    if (const auto at = query.find("prefix="); at != query.npos)
      prefix = net::PercentDecode(query.substr(at + 7, query.find('&', at) - at - 7));
    std::string xml =
        "<?xml version=\"1.0\"?><ListBucketResult "
        "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>b</Name>"
        "<EncodingType>url</EncodingType><IsTruncated>false</IsTruncated>";
    for (const auto& [key, object] : objects_) {
      if (!key.starts_with(prefix) || key.starts_with("web:")) continue;
      xml += fmt::format(
          "<Contents><Key>{}</Key><LastModified>2026-11-20T10:00:00.000Z</LastModified>"
          "<ETag>&quot;{}&quot;</ETag><Size>{}</Size><StorageClass>{}</StorageClass></Contents>",
          key, object.etag, object.body.size(), object.storage_class);
    }
    return {200, {{"Content-Type", "application/xml"}}, xml + "</ListBucketResult>"};
  }

  Result<SnapshotFile> Take(const std::string& source) {
    auto spec = ParseMount(source);
    EXPECT_TRUE(spec) << spec.error().message();
    auto remote = Remote::Open(*spec, tools_, &counts_);
    EXPECT_TRUE(remote) << remote.error().message();
    (*remote)->SetRetryTotal(std::chrono::milliseconds(0), 1);
    auto taken = (*remote)->TakeSnapshot({}, [](std::uint64_t) {});
    remote_ = std::move(*remote);
    return taken;
  }
  std::string Refusal(const std::string& source) {
    const auto taken = Take(source);
    EXPECT_FALSE(taken) << source;
    return taken ? "" : taken.error().message();
  }
  std::string BytesOf(const SnapshotFile& taken) {
    auto content = std::make_shared<snapshot::Content>();
    content->index = taken.index;
    content->store = remote_->shared_store();
    snapshot::EntryReader reader(content, 0);
    std::string out;
    const Status read = reader.Read(0, taken.index->file(0).size,
                                    [&](std::span<const std::byte> piece) -> Status {
                                      out += AsText(piece);
                                      return {};
                                    },
                                    {});
    EXPECT_TRUE(read) << read.error().message();
    return out;
  }

  std::string root_;
  Toolbox tools_;
  testing::CannedTransport* http_ = nullptr;
  store::RequestCounts counts_;
  std::unique_ptr<Remote> remote_;
  std::map<std::string, Object> objects_ = {
      {"dir/a", {"aaaa", "9a000000000000000000000000000001-2"}},
      {"dir/sub/b", {"bb", "9a000000000000000000000000000002-2"}},
      {"one.bin", {"the one", "9a000000000000000000000000000003-2"}},
      {"both", {"object", "9a000000000000000000000000000004-2"}},
      {"both/x", {"folder", "9a000000000000000000000000000005-2"}}};
};

TEST_F(RemoteTest, ObjectLiesInTheTreeUnderItsOwnName) {
  const auto taken = Take("s3://b/one.bin");
  ASSERT_TRUE(taken) << taken.error().message();
  EXPECT_FALSE(taken->is_folder);
  ASSERT_EQ(taken->index->file_count(), 1u);
  EXPECT_EQ(taken->index->PathOfFile(0), "one.bin");
  EXPECT_EQ(BytesOf(*taken), "the one");
  EXPECT_EQ(counts_.lists, 0u) << "one HEAD was enough";
}

TEST_F(RemoteTest, NameGivesItAnotherOneAndItsBytesStayItsOwn) {
  const auto taken = Take("s3://b/dir/a,name=other");
  ASSERT_TRUE(taken) << taken.error().message();
  EXPECT_EQ(taken->index->PathOfFile(0), "other");
  EXPECT_EQ(BytesOf(*taken), "aaaa");
}

TEST_F(RemoteTest, FolderWithAndWithoutASlashIsTheSame) {
  const auto without = Take("s3://b/dir");
  const auto with = Take("s3://b/dir/");
  ASSERT_TRUE(without && with);
  EXPECT_TRUE(without->is_folder);
  EXPECT_EQ(without->index->pin(), with->index->pin());
  EXPECT_EQ(with->index->file_count(), 2u);
  EXPECT_EQ(with->index->PathOfFile(1), "sub/b");
}

TEST_F(RemoteTest, WhereBothExistASlashAsksForTheFolder) {
  EXPECT_EQ(Take("s3://b/both")->index->PathOfFile(0), "both");
  EXPECT_EQ(Take("s3://b/both/")->index->PathOfFile(0), "x");
}

TEST_F(RemoteTest, WhatIsNotThereIsSaid) {
  EXPECT_EQ(Refusal("s3://b/nothing"),
            "s3://b/nothing: there is no such object, and no folder of that name");
  EXPECT_NE(Refusal("s3://b/nothing/").find("s3://b/nothing/"), std::string::npos);
}

TEST_F(RemoteTest, PinnedEtagMatchesWhateverItsQuotesAndCase) {
  for (const char* etag :
       {"9a000000000000000000000000000003-2", "9A000000000000000000000000000003-2",
        "\"9a000000000000000000000000000003-2\"", "W/\"9a000000000000000000000000000003-2\""}) {
    EXPECT_TRUE(Take(std::string("s3://b/one.bin,etag=") + etag)) << etag;
  }
}

TEST_F(RemoteTest, WrongEtagNamesBothAndWhenItWasReplaced) {
  const std::string said = Refusal("s3://b/one.bin,etag=38ff");
  EXPECT_EQ(
      said.find("s3://b/one.bin has etag \"9a000000000000000000000000000003-2\", but \"38ff\" "
                "was asked for; it was replaced on "),
      0u)
      << said;
  EXPECT_NE(said.find("2026"), std::string::npos) << said;
  EXPECT_NE(Refusal("s3://b/one.bin,etag=mf:" + std::string(64, '0')).size(), 0u);
}

TEST_F(RemoteTest, PinnedFolderIsListedOnceForAllRuns) {
  const auto first = Take("s3://b/dir");
  ASSERT_TRUE(first);
  const std::string pin = first->index->pin();
  NewRun();
  const auto again = Take("s3://b/dir,etag=" + pin);
  ASSERT_TRUE(again) << again.error().message();
  EXPECT_TRUE(again->known);
  EXPECT_EQ(http_->requests().size(), 0u) << "nothing was asked";
  // What is not pinned is listed again, and the pin is held to what is there now.
  objects_["dir/new"] = {"n", "9a000000000000000000000000000009-2"};
  NewRun();
  const auto now = Take("s3://b/dir");
  ASSERT_TRUE(now);
  EXPECT_NE(now->index->pin(), pin);
  const std::string wrong = "mf:" + std::string(64, '1');
  const std::string said = Refusal("s3://b/dir,etag=" + wrong);
  EXPECT_NE(said.find(wrong), std::string::npos) << said;
  EXPECT_NE(said.find(now->index->pin()), std::string::npos) << said;
}

TEST_F(RemoteTest, OptionsOfAMountReachTheStore) {
  objects_["f/one"] = {"x", "e1"};
  std::vector<net::Headers> asked;
  http_->Otherwise([&](const net::HttpRequest& request) {
    asked.push_back(request.headers);
    return Answer(request);
  });
  tools_.env = [env = tools_.env](std::string_view name) -> std::optional<std::string> {
    if (name == "AWS_ACCESS_KEY_ID") return "AKID";
    if (name == "AWS_SECRET_ACCESS_KEY") return "secret";
    return env(name);
  };
  const auto header = [&](std::string_view name) {
    return std::string(asked.back().Get(name).value_or("none"));
  };
  ASSERT_TRUE(Take("s3://b/f/"));
  EXPECT_EQ(header("x-amz-request-payer"), "none");
  EXPECT_NE(header("Authorization").find("/us-east-1/s3/"), std::string::npos);
  ASSERT_TRUE(Take("s3://b/f/,requester_pays,region=eu-north-1"));
  EXPECT_EQ(header("x-amz-request-payer"), "requester");
  EXPECT_NE(header("Authorization").find("/eu-north-1/s3/"), std::string::npos);
  ASSERT_TRUE(Take("s3://b/f/,anon"));
  EXPECT_EQ(header("Authorization"), "none");
}

TEST_F(RemoteTest, PinsThatAFolderCannotHaveAreNotedNotObeyed) {
  const auto taken = Take("s3://b/dir/,etag=38ff");
  ASSERT_TRUE(taken);
  ASSERT_EQ(taken->notes.size(), 1u);
  EXPECT_NE(taken->notes[0].find("etag= is ignored"), std::string::npos) << taken->notes[0];
}

TEST_F(RemoteTest, ArchivedObjectsAreSaidBeforeAnythingRuns) {
  objects_["dir/a"].storage_class = "GLACIER";
  const std::string folder = Refusal("s3://b/dir/");
  EXPECT_NE(folder.find("1 of 2 objects"), std::string::npos) << folder;
  EXPECT_NE(folder.find("restore"), std::string::npos) << folder;
  EXPECT_NE(Refusal("s3://b/dir/a").find("is archived (Glacier)"), std::string::npos);
}

TEST_F(RemoteTest, RestoredObjectsAreNotArchivedThoughTheListingSaysSo) {
  objects_["dir/a"].storage_class = "GLACIER";
  objects_["dir/a"].restored = true;
  ASSERT_TRUE(Take("s3://b/dir/"));
  ASSERT_TRUE(Take("s3://b/dir/a"));
  objects_["dir/c"] = {"c", "9a000000000000000000000000000007-2", "DEEP_ARCHIVE"};
  const std::string one = Refusal("s3://b/dir/");
  EXPECT_NE(one.find("1 of 3 objects"), std::string::npos) << one;
  EXPECT_NE(one.find("first c"), std::string::npos) << one;
}

TEST_F(RemoteTest, ObjectIsAskedForByItsVersionIdOnlyWhereSomebodyNamedOne) {
  objects_["one.bin"].version_id = "v7";
  const auto newest = Take("s3://b/one.bin");
  ASSERT_TRUE(newest);
  EXPECT_EQ(BytesOf(*newest), "the one");
  for (const auto& request : http_->requests())
    EXPECT_EQ(request.url.find("versionId"), std::string::npos) << request.url;
  NewRun();
  const auto named = Take("s3://b/one.bin,version=v7");
  ASSERT_TRUE(named);
  EXPECT_EQ(BytesOf(*named), "the one");
  EXPECT_NE(http_->requests().back().url.find("versionId=v7"), std::string::npos);
}

TEST_F(RemoteTest, SignatureInAnAddressSaysNothingOfTheObjectAndAllElseDoes) {
  const auto identity = [&](const std::string& query) {
    objects_["web:get?" + query] = {"zip", "w1"};
    const auto taken = Take("http://web.test/get?" + query);
    EXPECT_TRUE(taken) << taken.error().message();
    return std::string(taken ? taken->index->store_identity() : "");
  };
  const std::string one = identity("shard=1&Expires=1&Signature=aaa&Key-Pair-Id=k");
  EXPECT_EQ(identity("shard=1&Expires=2&Signature=bbb&Key-Pair-Id=k"), one);
  EXPECT_EQ(identity("X-Amz-Date=d&shard=1&X-Amz-Signature=c"), one);
  EXPECT_NE(identity("shard=2&Expires=1&Signature=aaa&Key-Pair-Id=k"), one);
  EXPECT_NE(identity("shard=1&Expires=1"), identity("shard=1&Expires=2")) << "nothing is signed";
}

TEST_F(RemoteTest, WebAddressIsOneFileUnderItsLastName) {
  objects_["web:d/set%201.zip?sig=hush"] = {"zip", "w1"};
  const auto taken = Take("http://web.test/d/set%201.zip?sig=hush");
  ASSERT_TRUE(taken) << taken.error().message();
  EXPECT_EQ(taken->index->PathOfFile(0), "set 1.zip");
  EXPECT_EQ(BytesOf(*taken), "zip");
  EXPECT_EQ(Refusal("http://web.test/d/none?sig=hush").find("hush"), std::string::npos);
}

TEST_F(RemoteTest, RunThatTakesOverReadsTheSameSnapshot) {
  for (const char* source : {"s3://b/one.bin", "s3://b/dir/a,name=other"}) {
    auto taken = Take(source);
    ASSERT_TRUE(taken);
    const std::string bytes = BytesOf(*taken);
    NewRun();
    auto remote = Remote::Open(*ParseMount(source), tools_, &counts_);
    ASSERT_TRUE(remote);
    auto reopened = (*remote)->ReopenSnapshot(std::move(taken->file));
    ASSERT_TRUE(reopened);
    EXPECT_EQ(http_->requests().size(), 0u);
    EXPECT_EQ(reopened->index->pin(), taken->index->pin());
    remote_ = std::move(*remote);
    EXPECT_EQ(BytesOf(*reopened), bytes) << source;
  }
}

}  // namespace
}  // namespace leat::job
