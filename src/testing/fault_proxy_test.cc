#include "testing/fault_proxy.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <algorithm>
#include <chrono>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "testing/fault_proxy_http.h"
#include "testing/fault_proxy_rules.h"

namespace leat::testing {
namespace {

/// An origin that answers every request with `body`, keeps connections alive and remembers the
/// heads it saw.
class Origin {
 public:
  explicit Origin(std::string body, bool chunked = false)
      : body_(std::move(body)),
        chunked_(chunked),
        listener_(*ListenLocal(0)),
        thread_([this] { Run(); }) {}
  ~Origin() {
    ::shutdown(listener_.fd(), SHUT_RDWR);
    thread_.join();
    const std::lock_guard lock(mutex_);
    for (const auto& s : streams_) ::shutdown(s.socket().fd(), SHUT_RDWR);
    for (auto& t : serving_) t.join();
  }
  std::uint16_t port() const { return LocalPort(listener_); }
  std::vector<Head> seen() const {
    const std::lock_guard lock(seen_mutex_);
    return seen_;
  }

 private:
  void Run() {
    for (;;) {
      Socket s(::accept(listener_.fd(), nullptr, nullptr));
      if (!s) return;
      const std::lock_guard lock(mutex_);
      Stream& stream = streams_.emplace_back(std::move(s));
      serving_.emplace_back([this, &stream] { Serve(stream); });
    }
  }
  void Serve(Stream& stream) {
    while (auto head = stream.ReadHead()) {
      stream.ReadBody(RequestFraming(*head), [](std::string_view) { return true; });
      const bool no_body = head->first_line.starts_with("HEAD");
      {
        const std::lock_guard lock(seen_mutex_);
        seen_.push_back(*head);
      }
      Head reply{.first_line = "HTTP/1.1 206 Partial Content",
                 .fields = {{"ETag", "\"abc\""}, {"Content-Range", "bytes 0-9/1000"}}};
      if (chunked_) {
        reply.Set("Transfer-Encoding", "chunked");
        stream.socket().Send(reply.ToWire() + "4\r\n" + body_.substr(0, 4) + "\r\n6;x=y\r\n" +
                             body_.substr(4, 6) + "\r\n0\r\nTrailer: x\r\n\r\n");
        continue;
      }
      reply.Set("Content-Length", std::to_string(body_.size()));
      if (!stream.socket().Send(reply.ToWire() + (no_body ? "" : body_))) return;
    }
  }

  const std::string body_;
  const bool chunked_;
  Socket listener_;
  std::mutex mutex_;  // guards streams_ and serving_
  std::list<Stream> streams_;
  std::vector<std::thread> serving_;
  mutable std::mutex seen_mutex_;
  std::vector<Head> seen_;
  std::thread thread_;
};

struct Answer {
  int status = 0;
  Head head;
  std::string body;
  bool complete = false;
};

class FaultProxyTest : public ::testing::Test {
 protected:
  void Begin(std::string body = "0123456789", bool chunked = false) {
    origin_ = std::make_unique<Origin>(std::move(body), chunked);
    auto proxy = FaultProxy::Start({.upstream_port = origin_->port()});
    ASSERT_TRUE(proxy);
    proxy_ = std::move(*proxy);
    Connect();
  }
  void Connect() { client_.emplace(*ConnectTo("127.0.0.1", proxy_->port())); }
  Answer Ask(const std::string& method = "GET", const std::string& target = "/b/k",
             const std::string& fields = "", const std::string& body = "") {
    client_->socket().Send(method + " " + target + " HTTP/1.1\r\nHost: b.example:81\r\n" + fields +
                           "\r\n" + body);
    Answer a;
    const auto head = client_->ReadHead();
    if (!head) return a;
    a.head = *head;
    a.status = std::stoi(head->first_line.substr(9));
    a.complete =
        client_->ReadBody(ResponseFraming(method, a.status, *head), [&](std::string_view piece) {
          a.body += piece;
          return true;
        });
    return a;
  }
  Answer AskWith(std::string_view rules) {
    EXPECT_TRUE(proxy_->AddRules(rules));
    return Ask();
  }
  std::string Control(const std::string& first_line, const std::string& body = "") {
    Stream control(*ConnectTo("127.0.0.1", proxy_->control_port()));
    control.socket().Send(first_line + " HTTP/1.1\r\nContent-Length: " +
                          std::to_string(body.size()) + "\r\n\r\n" + body);
    std::string answer;
    const auto head = control.ReadHead();
    EXPECT_TRUE(head);
    control.ReadBody(RequestFraming(*head), [&](std::string_view piece) {
      answer += piece;
      return true;
    });
    return answer;
  }

  std::unique_ptr<Origin> origin_;
  std::unique_ptr<FaultProxy> proxy_;
  std::optional<Stream> client_;
};

TEST_F(FaultProxyTest, WithoutRulesRequestsAndAnswersPassUnchangedOnOneConnection) {
  Begin();
  for (int i = 0; i < 3; ++i) {
    const Answer a = Ask("GET", "/b/k%20?x=%2F", "Range: bytes=0-9\r\nx-Amz-Date: now\r\n");
    EXPECT_EQ(a.status, 206);
    EXPECT_EQ(a.body, "0123456789");
    EXPECT_EQ(*a.head.Find("etag"), "\"abc\"");
  }
  const auto seen = origin_->seen();
  ASSERT_EQ(seen.size(), 3u);
  EXPECT_EQ(seen[0].first_line, "GET /b/k%20?x=%2F HTTP/1.1");
  EXPECT_EQ(seen[0].ToWire(), seen[2].ToWire());
  EXPECT_EQ(*seen[0].Find("Host"), "b.example:81");
  EXPECT_EQ(proxy_->counts().connections, 1u);
  EXPECT_EQ(proxy_->counts().bytes_to_client, 30u);
}

TEST_F(FaultProxyTest, ChunkedAnswersAndPutsWithExpectPassThrough) {
  Begin("0123456789", /*chunked=*/true);
  EXPECT_EQ(Ask().body, "0123456789");
  client_->socket().Send(
      "PUT /b/k HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello");
  EXPECT_EQ(client_->ReadHead()->first_line, "HTTP/1.1 100 Continue");
  EXPECT_EQ(client_->ReadHead()->first_line, "HTTP/1.1 206 Partial Content");
  EXPECT_EQ(proxy_->counts().bytes_from_client, 5u);
  EXPECT_EQ(proxy_->counts().requests.at("put"), 1u);
}

TEST_F(FaultProxyTest, AnAnswerToHeadHasNoBody) {
  Begin();
  EXPECT_EQ(Ask("HEAD").status, 206);
  EXPECT_EQ(Ask().body, "0123456789");
}

TEST_F(FaultProxyTest, CutEndsTheBodyAfterTheGivenBytes) {
  for (const std::string how : {"close", "rst"}) {
    Begin();
    const Answer a = AskWith("action=cut bytes=4 how=" + how);
    EXPECT_EQ(*a.head.Find("Content-Length"), "10");
    EXPECT_FALSE(a.complete);
    if (how == "close") {
      EXPECT_EQ(a.body, "0123");  // a reset may overtake them
    }
  }
}

TEST_F(FaultProxyTest, CutAtZeroSendsTheHeadAndBeforeItNothing) {
  Begin();
  EXPECT_EQ(AskWith("action=cut times=1").status, 206);
  Connect();
  EXPECT_EQ(AskWith("action=cut bytes=-1 times=1").status, 0);
}

TEST_F(FaultProxyTest, OnlyADropKeepsTheRequestFromTheStore) {
  Begin();
  EXPECT_EQ(AskWith("action=cut bytes=-1 times=1").status, 0);
  EXPECT_EQ(origin_->seen().size(), 1U);
  Connect();
  EXPECT_EQ(AskWith("action=drop times=1").status, 0);
  EXPECT_EQ(origin_->seen().size(), 1U);
}

TEST_F(FaultProxyTest, StallHoldsTheRestUntilReleased) {
  Begin();
  ASSERT_TRUE(proxy_->AddRules("action=stall bytes=3"));
  std::thread releaser([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(150));
    proxy_->Release();
  });
  const auto begin = std::chrono::steady_clock::now();
  const Answer a = Ask();
  releaser.join();
  EXPECT_EQ(a.body, "012");
  EXPECT_FALSE(a.complete);
  EXPECT_GE(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(100));
}

TEST_F(FaultProxyTest, TheEndOfTheProxyDoesNotWaitForAStall) {
  Begin();
  ASSERT_TRUE(proxy_->AddRules("action=stall bytes=-1"));
  std::thread client([&] { EXPECT_EQ(Ask().status, 0); });
  while (proxy_->counts().in_flight == 0) std::this_thread::yield();
  proxy_.reset();
  client.join();
}

TEST_F(FaultProxyTest, TrickleSendsAtItsRate) {
  Begin();
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(AskWith("action=trickle rate=50 bytes=2").body, "0123456789");
  EXPECT_GE(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(90));
}

TEST_F(FaultProxyTest, DelayComesBeforeTheAnswer) {
  Begin();
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(AskWith("delay=50").body, "0123456789");
  EXPECT_GE(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(50));
  EXPECT_EQ(proxy_->counts().faults, 0u);
}

TEST_F(FaultProxyTest, FlipInvertsBytes) {
  Begin();
  EXPECT_EQ(AskWith("action=flip bytes=2 count=2").body,
            std::string("01") + char(~'2') + char(~'3') + "456789");
}

TEST_F(FaultProxyTest, LengthPromisesMoreOrFewerBytes) {
  Begin();
  const Answer fewer = AskWith("action=length add=-3 times=1");
  EXPECT_EQ(fewer.body, "0123456");
  EXPECT_TRUE(fewer.complete);
  const Answer more = AskWith("action=length add=3 times=1");
  EXPECT_EQ(more.body, "0123456789");
  EXPECT_FALSE(more.complete);
}

TEST_F(FaultProxyTest, OtherRangeSaysSoOrLies) {
  Begin();
  const Answer honest = AskWith("action=other-range shift=4 times=1");
  EXPECT_EQ(honest.body, "4567890123");
  EXPECT_EQ(*honest.head.Find("Content-Range"), "bytes 4-13/1000");
  const Answer lie = AskWith("action=other-range shift=-1 lie=1 times=1");
  EXPECT_EQ(lie.body, "9012345678");
  EXPECT_EQ(*lie.head.Find("Content-Range"), "bytes 0-9/1000");
}

TEST_F(FaultProxyTest, AnswersOfItsOwnDoNotReachTheStore) {
  Begin();
  const Answer slow = AskWith("action=slowdown retry-after=2 times=1");
  EXPECT_EQ(slow.status, 503);
  EXPECT_EQ(*slow.head.Find("Retry-After"), "2");
  EXPECT_NE(slow.body.find("<Code>SlowDown</Code>"), std::string::npos);
  const Answer expired = AskWith("action=expired times=1");
  EXPECT_EQ(expired.status, 403);
  EXPECT_NE(expired.body.find("<Code>ExpiredToken</Code>"), std::string::npos);
  const Answer in_body = AskWith("action=error-body code=InternalError times=1");
  EXPECT_EQ(in_body.status, 200);
  EXPECT_NE(in_body.body.find("<Code>InternalError</Code>"), std::string::npos);
  EXPECT_NE(AskWith("action=html times=1").body.find("<html>"), std::string::npos);
  EXPECT_EQ(AskWith("action=status status=418 code=Teapot message=\"no tea\" times=1").status, 418);
  EXPECT_TRUE(origin_->seen().empty());
  EXPECT_EQ(Ask().status, 206) << "and the connection goes on";
}

TEST_F(FaultProxyTest, HeadersAreStrippedSetAndDated) {
  Begin();
  const Answer a = AskWith("strip=ETag set=\"X-Note: say \\\"hi\\\"\" date=+3600");
  EXPECT_EQ(a.head.Find("ETag"), nullptr);
  EXPECT_EQ(*a.head.Find("X-Note"), "say \"hi\"");
  EXPECT_NE(a.head.Find("Date"), nullptr);
  EXPECT_EQ(a.body, "0123456789");
}

TEST_F(FaultProxyTest, FullBodyDropsTheRange) {
  Begin();
  ASSERT_TRUE(proxy_->AddRules("action=full-body"));
  Ask("GET", "/b/k", "Range: bytes=0-9\r\n");
  EXPECT_EQ(origin_->seen().at(0).Find("Range"), nullptr);
}

TEST_F(FaultProxyTest, AnEndlessListingRepeatsItsFirstPage) {
  Begin("<R><IsTruncated>false</IsTruncated><Key>a</Key></R>");
  ASSERT_TRUE(proxy_->AddRules("kind=list action=endless"));
  const std::string page =
      "<R><IsTruncated>true</IsTruncated><Key>a</Key>"
      "<NextContinuationToken>page-0</NextContinuationToken></R>";
  EXPECT_EQ(Ask("GET", "/b?list-type=2").body, page);
  EXPECT_EQ(Ask("GET", "/b?continuation-token=page-0&list-type=2").body, page);
  EXPECT_EQ(origin_->seen().size(), 1u);
  EXPECT_EQ(proxy_->counts().requests.at("list"), 2u);
}

TEST_F(FaultProxyTest, BrokenXmlEndsInTheMiddle) {
  Begin();
  const Answer a = AskWith("action=broken-xml");
  EXPECT_EQ(a.body, "01234");
  EXPECT_TRUE(a.complete);
}

TEST_F(FaultProxyTest, RulesChooseByMethodPathHeadAndCount) {
  Begin();
  ASSERT_TRUE(proxy_->AddRules("method=GET path=/big has=bytes=5- nth=2 action=internal"));
  EXPECT_EQ(Ask("GET", "/big", "Range: bytes=5-6\r\n").status, 206);
  EXPECT_EQ(Ask("GET", "/small", "Range: bytes=5-6\r\n").status, 206);
  EXPECT_EQ(Ask("GET", "/big", "Range: bytes=0-6\r\n").status, 206);
  EXPECT_EQ(Ask("GET", "/big", "Range: bytes=5-6\r\n").status, 500);
  EXPECT_EQ(Ask("GET", "/big", "Range: bytes=5-6\r\n").status, 206);
  proxy_->ClearRules();
  ASSERT_TRUE(proxy_->AddRules("every=3 action=internal"));
  std::string seen;
  for (int i = 0; i < 6; ++i) seen += Ask().status == 500 ? 'x' : '.';
  EXPECT_EQ(seen, "..x..x");
}

TEST_F(FaultProxyTest, TheStoreBeingAwayIsBadGateway) {
  Begin();
  origin_.reset();
  EXPECT_EQ(Ask().status, 502);
}

TEST_F(FaultProxyTest, SixtyFourConnectionsAreDelayedSideBySide) {
  Begin();
  ASSERT_TRUE(proxy_->AddRules("delay=2000"));
  std::list<Stream> clients;
  for (int i = 0; i < 64; ++i) {
    clients.emplace_back(*ConnectTo("127.0.0.1", proxy_->port()));
    clients.back().socket().Send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
  }
  for (auto& c : clients) EXPECT_TRUE(c.ReadHead());
  EXPECT_EQ(proxy_->counts().peak_in_flight, 64u);
}

TEST_F(FaultProxyTest, TheControlPortSetsRulesAndTellsCounts) {
  Begin();
  EXPECT_EQ(Control("POST /rules", "# a comment\n\naction=internal times=1\n"), "");
  EXPECT_EQ(Ask("GET", "/b/k", "Authorization: AWS4-HMAC-SHA256 Credential=AKID/x, Signature=s\r\n")
                .status,
            500);
  EXPECT_EQ(Ask().status, 206);
  EXPECT_EQ(Control("GET /rules"), "action=internal times=1 # matched 2, applied 1\n");
  EXPECT_NE(Control("GET /counts").find("{\"total\":2,\"list\":0,\"get\":2,"), std::string::npos);
  const std::string log = Control("GET /log");
  EXPECT_NE(log.find("GET /b/k kind=get status=500"), std::string::npos) << log;
  EXPECT_NE(log.find("signed-by=AKID rule=[action=internal times=1]"), std::string::npos) << log;
  EXPECT_EQ(log.find("Signature"), std::string::npos);
  EXPECT_EQ(Control("PUT /rules", "actoin=cut"),
            "rule \"actoin=cut\": actoin=cut is not understood\n");
  Control("DELETE /counts");
  EXPECT_EQ(proxy_->counts().total, 0u);
}

TEST(FaultRules, AProbabilityIsKeptToAndRepeatsWithItsSeed) {
  const auto applied = [](std::uint64_t seed) {
    FaultRuleSet rules(seed);
    rules.Add(*ParseFaultRules("probability=0.25 action=drop"));
    std::string hits;
    for (int i = 0; i < 1000; ++i)
      hits += rules.Match({.method = "GET", .target = "/", .kind = "get", .head = ""}).empty()
                  ? '.'
                  : 'x';
    return hits;
  };
  const std::string hits = applied(7);
  EXPECT_NEAR(static_cast<double>(std::ranges::count(hits, 'x')), 250, 60);
  EXPECT_EQ(hits, applied(7));
}

TEST(FaultRules, WhatIsNotUnderstoodIsRefused) {
  for (const auto* bad : {"action=explode", "nth=x", "how=gently", "set=NoColon", "message=\"open",
                          "rate=0", "cut"}) {
    EXPECT_FALSE(ParseFaultRules(bad)) << bad;
  }
}

TEST(FaultRules, KindsFollowTheQuery) {
  EXPECT_EQ(RequestKind("GET", "/b/k"), "get");
  EXPECT_EQ(RequestKind("GET", "/b/k?versionId=3"), "get");
  EXPECT_EQ(RequestKind("GET", "/b?list-type=2&prefix=x"), "list");
  EXPECT_EQ(RequestKind("GET", "/b?location"), "other");
  EXPECT_EQ(RequestKind("HEAD", "/b/k"), "head");
}

}  // namespace
}  // namespace leat::testing
