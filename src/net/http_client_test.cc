#include "net/http_client.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <mutex>
#include <thread>

#include "base/bytes.h"
#include "os/file.h"

namespace leat::net {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

// One accepted connection, as the server sees it.
class Peer {
 public:
  explicit Peer(int fd) : fd_(fd) {}

  // The head and, by its Content-Length, the body of the next request; empty at the end of the
  // connection.
  std::string ReadRequest() {
    std::string request;
    while (true) {
      const auto end = request.find("\r\n\r\n");
      if (end != request.npos) {
        const auto at = request.find("Content-Length: ");
        const std::size_t length = at < end ? std::stoul(request.substr(at + 16)) : 0;
        if (request.size() >= end + 4 + length) return request;
      }
      char buffer[65536];
      const ssize_t n = read(fd_.get(), buffer, sizeof(buffer));
      if (n <= 0) return {};
      request.append(buffer, static_cast<std::size_t>(n));
    }
  }
  bool Send(std::string_view data) {
    while (!data.empty()) {
      const ssize_t n = send(fd_.get(), data.data(), data.size(), MSG_NOSIGNAL);
      if (n <= 0) return false;
      data.remove_prefix(static_cast<std::size_t>(n));
    }
    return true;
  }
  // Ends with a RST instead of a FIN.
  void Reset() {
    const linger now{1, 0};
    setsockopt(fd_.get(), SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    // The number stays taken: the server's destructor looks at it.
    const os::UniqueFd nothing(open("/dev/null", O_RDONLY | O_CLOEXEC));
    dup3(nothing.get(), fd_.get(), O_CLOEXEC);
  }
  // Blocks until the client has gone.
  void WaitForClose() {
    char c;
    while (read(fd_.get(), &c, 1) > 0) {
    }
  }
  int fd() const { return fd_.get(); }

 private:
  os::UniqueFd fd_;
};

// Calls `serve` for each connection, in a thread of its own.
class RawServer {
 public:
  using Serve = std::function<void(Peer&)>;
  explicit RawServer(Serve serve) : serve_(std::move(serve)) {
    listener_ = os::UniqueFd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), size);
    listen(listener_.get(), 64);
    getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    acceptor_ = std::thread([this] { Accept(); });
  }
  ~RawServer() {
    shutdown(listener_.get(), SHUT_RDWR);
    acceptor_.join();
    {
      const std::lock_guard lock(mutex_);
      for (const auto& peer : peers_) shutdown(peer->fd(), SHUT_RDWR);
    }
    for (auto& thread : threads_) thread.join();
  }

  std::string Url(std::string_view path) const {
    return fmt::format("http://127.0.0.1:{}{}", port_, path);
  }
  int port() const { return port_; }
  int connections() const { return connections_; }

 private:
  void Accept() {
    while (true) {
      const int fd = accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC);
      if (fd < 0) return;
      ++connections_;
      const std::lock_guard lock(mutex_);
      peers_.push_back(std::make_unique<Peer>(fd));
      threads_.emplace_back([this, peer = peers_.back().get()] {
        serve_(*peer);
        shutdown(peer->fd(), SHUT_RDWR);
      });
    }
  }

  const Serve serve_;
  os::UniqueFd listener_;
  int port_ = 0;
  std::atomic<int> connections_ = 0;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Peer>> peers_;
  std::vector<std::thread> threads_;
  std::thread acceptor_;
};

// Answers every request on a kept connection with what `answer` makes of it.
RawServer::Serve Answering(std::function<std::string(const std::string& request)> answer) {
  return [answer = std::move(answer)](Peer& peer) {
    for (std::string request; !(request = peer.ReadRequest()).empty();) {
      if (!peer.Send(answer(request))) return;
    }
  };
}
RawServer::Serve Answering(std::string text) {
  return Answering([text = std::move(text)](const std::string&) { return text; });
}
// Sends a part of an answer and closes, or waits until the client goes.
RawServer::Serve Cutting(std::string text) {
  return [text = std::move(text)](Peer& peer) {
    peer.ReadRequest();
    peer.Send(text);
  };
}
RawServer::Serve Stalling(std::string text) {
  return [text = std::move(text)](Peer& peer) {
    peer.ReadRequest();
    peer.Send(text);
    peer.WaitForClose();
  };
}

std::string Ok(std::string_view body, std::string_view headers = {}) {
  return fmt::format("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{}\r\n{}", body.size(), headers,
                     body);
}

class HttpClientTest : public ::testing::Test {
 protected:
  Result<HttpResponse> Perform(const HttpRequest& request) { return http_->Perform(request, ctx_); }
  Result<HttpResponse> Get(const std::string& url) { return Perform({.url = url}); }

  const std::unique_ptr<HttpTransport> http_ = MakeHttpClient();
  CallContext ctx_;
};

TEST_F(HttpClientTest, ABodyWithoutASinkIsInTheResponse) {
  RawServer server(Answering(Ok("hello", "ETag: \"x\"\r\nX-Empty:\r\n")));
  const auto response = Get(server.Url("/k"));
  ASSERT_TRUE(response) << response.error().message();
  EXPECT_EQ(response->status, 200);
  EXPECT_EQ(response->body, "hello");
  EXPECT_EQ(response->headers.Get("etag"), "\"x\"");
  EXPECT_EQ(response->headers.Get("X-EMPTY"), "");
  EXPECT_EQ(response->headers.Get("missing"), std::nullopt);
}

TEST_F(HttpClientTest, AHundredRequestsOfOneThreadShareAConnection) {
  RawServer server(Answering(Ok("x")));
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(Get(server.Url("/")));
  EXPECT_EQ(server.connections(), 1);
}

TEST_F(HttpClientTest, ConcurrentCallsDoNotWaitForEachOther) {
  std::atomic<int> waiting = 0;
  RawServer server(Answering([&](const std::string&) {
    ++waiting;
    while (waiting < 8) std::this_thread::yield();
    return Ok("x");
  }));
  std::vector<std::thread> threads;
  std::atomic<int> good = 0;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] { good += Get(server.Url("/")).has_value(); });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(good, 8);
}

TEST_F(HttpClientTest, TheTargetIsSentAsItStands) {
  std::string seen;
  RawServer server(Answering([&](const std::string& request) {
    seen = request;
    return Ok("");
  }));
  ASSERT_TRUE(Get(server.Url("/a/../b%2fc//d%20?x=%7e&y#gone")));
  EXPECT_TRUE(seen.starts_with("GET /a/../b%2fc//d%20?x=%7e&y HTTP/1.1\r\n")) << seen;
}

TEST_F(HttpClientTest, HeadersAreSentAndNoneIsInvented) {
  std::string seen;
  RawServer server(Answering([&](const std::string& request) {
    seen = request;
    return Ok("");
  }));
  HttpRequest request{.method = "PUT", .url = server.Url("/k")};
  request.headers.Add("X-One", "1");
  request.headers.Add("X-Empty", "");
  const std::string body(3 << 20, 'b');
  request.body = AsBytes(body);
  ASSERT_TRUE(Perform(request));
  EXPECT_THAT(seen, HasSubstr("\r\nX-One: 1\r\n"));
  EXPECT_THAT(seen, HasSubstr("\r\nX-Empty:\r\n"));
  EXPECT_THAT(seen, HasSubstr("\r\nContent-Length: 3145728\r\n"));
  EXPECT_TRUE(seen.ends_with(body));
  for (const char* absent : {"Expect:", "Content-Type:", "Accept-Encoding:", "Authorization:"}) {
    EXPECT_EQ(seen.substr(0, seen.size() - body.size()).find(absent), std::string::npos) << absent;
  }
}

TEST_F(HttpClientTest, AnEmptyPutHasALengthAndADeleteHasNone) {
  std::string seen;
  RawServer server(Answering([&](const std::string& request) {
    seen = request;
    return Ok("");
  }));
  ASSERT_TRUE(Perform({.method = "PUT", .url = server.Url("/k")}));
  EXPECT_TRUE(seen.starts_with("PUT /k ")) << seen;
  EXPECT_THAT(seen, HasSubstr("\r\nContent-Length: 0\r\n"));
  ASSERT_TRUE(Perform({.method = "DELETE", .url = server.Url("/k")}));
  EXPECT_TRUE(seen.starts_with("DELETE /k ")) << seen;
  EXPECT_EQ(seen.find("Content-Length"), std::string::npos) << seen;
  ASSERT_TRUE(Perform({.method = "PROPFIND", .url = server.Url("/k")}));
  EXPECT_TRUE(seen.starts_with("PROPFIND /k ")) << seen;
}

TEST_F(HttpClientTest, HeadHasALengthAndNoBody) {
  RawServer server(Answering("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"));
  int announced = 0;
  const auto response =
      Perform({.method = "HEAD", .url = server.Url("/k"), .on_response = [&](const HttpResponse&) {
                 ++announced;
                 return Status();
               }});
  ASSERT_TRUE(response) << response.error().message();
  EXPECT_EQ(response->headers.Get("Content-Length"), "1000");
  EXPECT_EQ(response->body, "");
  EXPECT_EQ(announced, 1);
}

TEST_F(HttpClientTest, TheSinkGetsTheBodyAfterTheHeaders) {
  const std::string body(5 << 20, 'x');
  RawServer server(Answering(Ok(body)));
  std::string got, order;
  HttpRequest request{.url = server.Url("/")};
  request.on_response = [&](const HttpResponse& response) {
    order += response.headers.Get("Content-Length") == "5242880" ? "h" : "?";
    return Status();
  };
  request.sink = [&](std::span<const std::byte> piece) {
    if (got.empty()) order += "b";
    got += AsText(piece);
    return Status();
  };
  const auto response = Perform(request);
  ASSERT_TRUE(response) << response.error().message();
  EXPECT_EQ(order, "hb");
  EXPECT_EQ(got, body);
  EXPECT_EQ(response->body, "");
}

TEST_F(HttpClientTest, OnlySuccessfulBodiesReachTheSink) {
  RawServer server(Answering("HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ngone"));
  HttpRequest request{.url = server.Url("/")};
  request.on_response = [](const HttpResponse&) { return Fail(Errc::kInternal, "not expected"); };
  request.sink = [](std::span<const std::byte>) { return Fail(Errc::kInternal, "not expected"); };
  const auto response = Perform(request);
  ASSERT_TRUE(response) << response.error().message();
  EXPECT_EQ(response->status, 404);
  EXPECT_EQ(response->body, "gone");
}

TEST_F(HttpClientTest, OfAnErrorsBodySixtyFourKibibytesAreKept) {
  const std::string body(1 << 20, 'e');
  RawServer server(
      Answering(fmt::format("HTTP/1.1 500 X\r\nContent-Length: {}\r\n\r\n{}", body.size(), body)));
  const auto response = Get(server.Url("/"));
  ASSERT_TRUE(response) << response.error().message();
  EXPECT_EQ(response->body, body.substr(0, 65536));
}

TEST_F(HttpClientTest, ABodyBeyondItsLimitIsAnError) {
  RawServer server(Answering(Ok(std::string(1000, 'x'))));
  EXPECT_TRUE(Perform({.url = server.Url("/"), .max_body = 1000}));
  const auto response = Perform({.url = server.Url("/"), .max_body = 999});
  ASSERT_FALSE(response);
  EXPECT_EQ(response.error().code(), Errc::kCorrupt);
}

TEST_F(HttpClientTest, AnErrorOfACallbackEndsTheRequestWithIt) {
  RawServer server(Answering(Ok("body")));
  HttpRequest request{.url = server.Url("/")};
  request.sink = [](std::span<const std::byte>) {
    return Fail(Errc::kNoSpace, "the disk is full");
  };
  const auto by_sink = Perform(request);
  ASSERT_FALSE(by_sink);
  EXPECT_EQ(by_sink.error().code(), Errc::kNoSpace);
  request.on_response = [](const HttpResponse&) { return Fail(Errc::kConflict, "replaced"); };
  const auto by_headers = Perform(request);
  ASSERT_FALSE(by_headers);
  EXPECT_EQ(by_headers.error().message(), "replaced");
}

TEST_F(HttpClientTest, HeadersOfAnInterimAnswerDoNotLeak) {
  RawServer server(
      Answering("HTTP/1.1 103 Early Hints\r\nX-Early: 1\r\n\r\n" + Ok("x", "X-Late: 1\r\n")));
  const auto response = Get(server.Url("/"));
  ASSERT_TRUE(response) << response.error().message();
  EXPECT_EQ(response->status, 200);
  EXPECT_EQ(response->headers.Get("X-Early"), std::nullopt);
  EXPECT_EQ(response->headers.Get("X-Late"), "1");
}

TEST_F(HttpClientTest, ChunkedBodiesAreJoinedAndTrailersAreNoHeaders) {
  RawServer server(
      Answering("HTTP/1.1 200 OK\r\nTransfer-Encoding: "
                "chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nX-Trailer: 1\r\n\r\n"));
  const auto response = Get(server.Url("/"));
  ASSERT_TRUE(response) << response.error().message();
  EXPECT_EQ(response->body, "abcde");
  EXPECT_EQ(response->headers.Get("X-Trailer"), std::nullopt);
}

TEST_F(HttpClientTest, CompressedBodiesStayCompressed) {
  RawServer server(Answering(Ok("\x1f\x8b not really", "Content-Encoding: gzip\r\n")));
  const auto response = Get(server.Url("/"));
  ASSERT_TRUE(response) << response.error().message();
  EXPECT_EQ(response->body, "\x1f\x8b not really");
}

TEST_F(HttpClientTest, RedirectsAreReturnedUnlessAskedFor) {
  RawServer server(Answering([](const std::string& request) {
    if (request.starts_with("GET /b")) return Ok("there");
    return std::string(
        "HTTP/1.1 302 Found\r\nLocation: /b\r\nX-Old: 1\r\nContent-Length: 0\r\n\r\n");
  }));
  const auto returned = Get(server.Url("/a"));
  ASSERT_TRUE(returned);
  EXPECT_EQ(returned->status, 302);
  const auto followed = Perform({.url = server.Url("/a"), .max_redirects = 3});
  ASSERT_TRUE(followed) << followed.error().message();
  EXPECT_EQ(followed->body, "there");
  EXPECT_EQ(followed->headers.Get("X-Old"), std::nullopt);
}

TEST_F(HttpClientTest, EndlessRedirectsEndWithTheLastOne) {
  RawServer server(Answering("HTTP/1.1 302 Found\r\nLocation: /a\r\nContent-Length: 0\r\n\r\n"));
  const auto response = Perform({.url = server.Url("/a"), .max_redirects = 5});
  ASSERT_TRUE(response) << response.error().message();
  EXPECT_EQ(response->status, 302);
}

TEST_F(HttpClientTest, SecretsDoNotFollowARedirectToAnotherHost) {
  std::string seen;
  RawServer other(Answering([&](const std::string& request) {
    seen = request;
    return Ok("x");
  }));
  RawServer server(Answering(fmt::format(
      "HTTP/1.1 307 X\r\nLocation: {}\r\nContent-Length: 0\r\n\r\n", other.Url("/elsewhere"))));
  std::string url = server.Url("/");
  url.insert(7, "user:hunter2@");
  HttpRequest request{.url = url, .max_redirects = 1};
  request.headers.Add("Authorization", "hunter2");
  request.headers.Add("x-amz-security-token", "hunter2");
  request.headers.Add("Cookie", "hunter2");
  request.headers.Add("Range", "bytes=0-1");
  request.headers.Add("If-Match", "\"v\"");
  ASSERT_TRUE(Perform(request));
  EXPECT_TRUE(seen.starts_with("GET /elsewhere ")) << seen;
  EXPECT_EQ(seen.find("hunter2"), std::string::npos) << seen;
  EXPECT_EQ(seen.find("Authorization"), std::string::npos) << seen;
  EXPECT_THAT(seen, HasSubstr("Range: bytes=0-1\r\n"));
  EXPECT_THAT(seen, HasSubstr("If-Match: \"v\"\r\n"));
}

TEST_F(HttpClientTest, ARedirectToAnotherSchemeThanHttpIsRefused) {
  RawServer server(
      Answering("HTTP/1.1 302 X\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n"));
  const auto response = Perform({.url = server.Url("/"), .max_redirects = 1});
  ASSERT_FALSE(response);
  EXPECT_EQ(response.error().code(), Errc::kInvalid);
}

TEST_F(HttpClientTest, ARequestThatHeadersCannotHoldIsInvalid) {
  HttpRequest request{.url = "http://127.0.0.1:1/"};
  request.headers.Add("X", "a\r\nInjected: 1");
  EXPECT_EQ(Perform(request).error().code(), Errc::kInvalid);
  EXPECT_EQ(Perform({.method = "GET /x", .url = "http://127.0.0.1:1/"}).error().code(),
            Errc::kInvalid);
  EXPECT_EQ(Get("gopher://127.0.0.1/").error().code(), Errc::kInvalid);
}

TEST_F(HttpClientTest, ACutBodyIsSaidWithItsBytes) {
  for (const std::size_t cut : {0, 1, 1234, 4999}) {
    RawServer server(
        Cutting("HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + std::string(cut, 'x')));
    std::size_t got = 0;
    const auto response =
        Perform({.url = server.Url("/"), .sink = [&](std::span<const std::byte> piece) {
                   got += piece.size();
                   return Status();
                 }});
    ASSERT_FALSE(response) << cut;
    EXPECT_EQ(response.error().code(), Errc::kUnavailable);
    EXPECT_EQ(response.error().message(),
              fmt::format("the connection to 127.0.0.1:{} broke after {} of 5000 bytes",
                          server.port(), cut));
    EXPECT_EQ(got, cut);
  }
}

TEST_F(HttpClientTest, ACutChunkedBodyIsAnError) {
  RawServer server(Cutting("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"));
  const auto response = Get(server.Url("/"));
  ASSERT_FALSE(response);
  EXPECT_EQ(response.error().code(), Errc::kUnavailable);
  EXPECT_THAT(response.error().message(), HasSubstr("broke after"));
}

TEST_F(HttpClientTest, AResetConnectionIsUnavailable) {
  RawServer server([](Peer& peer) {
    peer.ReadRequest();
    peer.Send("HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\nabc");
    std::this_thread::sleep_for(
        20ms);  // what was sent must have arrived: a RST drops what is on its way
    peer.Reset();
  });
  const auto response = Get(server.Url("/"));
  ASSERT_FALSE(response);
  EXPECT_EQ(response.error().code(), Errc::kUnavailable);
  EXPECT_THAT(response.error().message(), HasSubstr("broke after 3 of 5000 bytes (it was reset)"));
}

TEST_F(HttpClientTest, AConnectionThatClosesWithoutAnAnswerIsUnavailable) {
  RawServer server([](Peer& peer) { peer.ReadRequest(); });
  const auto response = Get(server.Url("/"));
  ASSERT_FALSE(response);
  EXPECT_EQ(response.error().code(), Errc::kUnavailable);
  EXPECT_THAT(response.error().message(), HasSubstr("closed the connection without an answer"));
}

TEST_F(HttpClientTest, AKeptConnectionThatTheServerClosedIsOpenedAnew) {
  RawServer server([](Peer& peer) {
    if (!peer.ReadRequest().empty()) peer.Send(Ok("x"));
  });
  const std::string body = "payload";
  for (int i = 0; i < 5; ++i) {
    const auto response = Perform({.method = "PUT", .url = server.Url("/"), .body = AsBytes(body)});
    ASSERT_TRUE(response) << response.error().message();
  }
  EXPECT_EQ(server.connections(), 5);
}

TEST_F(HttpClientTest, WhatIsNotHttpIsSaid) {
  RawServer server([](Peer& peer) {
    peer.ReadRequest();
    peer.Send("SSH-2.0-OpenSSH_9.2\r\n");
  });
  const auto response = Get(server.Url("/"));
  ASSERT_FALSE(response);
  EXPECT_EQ(response.error().code(), Errc::kUnavailable);
  EXPECT_THAT(response.error().message(), HasSubstr("does not answer in HTTP"));
}

TEST_F(HttpClientTest, ARefusedConnectionNamesTheHost) {
  int port = 0;
  {
    port = RawServer(Answering("")).port();
  }
  const auto response = Get(fmt::format("http://u:hunter2@127.0.0.1:{}/k?s=hunter2", port));
  ASSERT_FALSE(response);
  EXPECT_EQ(response.error().code(), Errc::kUnavailable);
  EXPECT_EQ(response.error().message(), fmt::format("connection refused by 127.0.0.1:{}", port));
}

TEST_F(HttpClientTest, AHostThatDoesNotResolveIsNamed) {
  const auto response = Perform({.url = "http://no-such-host.invalid/k", .direct = true});
  ASSERT_FALSE(response);
  EXPECT_EQ(response.error().code(), Errc::kUnavailable);
  EXPECT_EQ(response.error().message(), "could not resolve host no-such-host.invalid");
}

TEST_F(HttpClientTest, SilenceIsNoticed) {
  RawServer server(Stalling(""));
  const auto response = Perform({.url = server.Url("/"), .stall_timeout = 1s});
  ASSERT_FALSE(response);
  EXPECT_EQ(response.error().code(), Errc::kUnavailable);
  EXPECT_EQ(response.error().message(),
            fmt::format("127.0.0.1:{} sent nothing for 1 s", server.port()));
}

TEST_F(HttpClientTest, AStallInTheMiddleOfABodyIsNoticed) {
  RawServer server(
      Stalling("HTTP/1.1 200 OK\r\nContent-Length: 500000\r\n\r\n" + std::string(300000, 'x')));
  const auto start = std::chrono::steady_clock::now();
  const auto response = Perform({.url = server.Url("/"), .stall_timeout = 1s});
  ASSERT_FALSE(response);
  EXPECT_EQ(response.error().code(), Errc::kUnavailable);
  EXPECT_THAT(response.error().message(), HasSubstr("less than 512 bytes a second for 1 s"));
  EXPECT_LT(std::chrono::steady_clock::now() - start, 5s);
}

TEST_F(HttpClientTest, ATrickleIsAStallAndASteadyStreamIsNot) {
  const auto trickle = [](std::string_view piece) {
    return [piece](Peer& peer) {
      peer.ReadRequest();
      peer.Send("HTTP/1.1 200 OK\r\nContent-Length: 6000\r\n\r\n");
      for (int i = 0; i < 30 && peer.Send(piece); ++i) std::this_thread::sleep_for(100ms);
    };
  };
  const std::string pieces(200, 'x');
  RawServer slow(trickle("x"));
  EXPECT_EQ(Perform({.url = slow.Url("/"), .stall_timeout = 1s}).error().code(),
            Errc::kUnavailable);
  RawServer steady(trickle(pieces));  // 2,000 bytes a second, for 3 s
  const auto response = Perform({.url = steady.Url("/"), .stall_timeout = 1s});
  EXPECT_TRUE(response) << response.error().message();
}

TEST_F(HttpClientTest, ASinkThatTakesItsTimeIsNoStall) {
  RawServer server(Answering(Ok(std::string(2000, 'x'))));
  const auto response = Perform({.url = server.Url("/"),
                                 .sink =
                                     [](std::span<const std::byte>) {
                                       std::this_thread::sleep_for(2500ms);
                                       return Status();
                                     },
                                 .stall_timeout = 1s});
  EXPECT_TRUE(response) << response.error().message();
}

TEST_F(HttpClientTest, CancellingWakesACallAtOnce) {
  std::stop_source stop;
  ctx_.stop = stop.get_token();
  std::atomic<bool> asked = false;
  RawServer server([&](Peer& peer) {
    peer.ReadRequest();
    asked = true;
    peer.WaitForClose();
  });
  std::chrono::steady_clock::time_point stopped;
  std::thread stopper([&] {
    while (!asked) std::this_thread::yield();
    stopped = std::chrono::steady_clock::now();
    stop.request_stop();
  });
  const auto response = Get(server.Url("/"));
  const auto ended = std::chrono::steady_clock::now();
  stopper.join();
  ASSERT_FALSE(response);
  EXPECT_EQ(response.error().code(), Errc::kCancelled);
  EXPECT_LT(ended - stopped, 400ms);
  EXPECT_EQ(Get(server.Url("/")).error().code(), Errc::kCancelled);
  EXPECT_EQ(server.connections(), 1);
}

TEST_F(HttpClientTest, CancellingStopsABodyThatKeepsComing) {
  std::stop_source stop;
  ctx_.stop = stop.get_token();
  RawServer server([](Peer& peer) {
    peer.ReadRequest();
    peer.Send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n");
    const std::string piece(1 << 20, 'x');
    while (peer.Send(piece)) {
    }
  });
  std::size_t pieces = 0;
  const auto response = Perform({.url = server.Url("/"), .sink = [&](std::span<const std::byte>) {
                                   if (++pieces == 10) stop.request_stop();
                                   return Status();
                                 }});
  ASSERT_FALSE(response);
  EXPECT_EQ(response.error().code(), Errc::kCancelled);
  EXPECT_EQ(pieces, 10u);
}

TEST_F(HttpClientTest, TheDeadlineEndsACall) {
  RawServer server(Stalling(""));
  const auto start = CallContext::Clock::now();
  const auto response = http_->Perform({.url = server.Url("/")}, ctx_.Within(200ms));
  ASSERT_FALSE(response);
  EXPECT_EQ(response.error().code(), Errc::kDeadline);
  EXPECT_LT(CallContext::Clock::now() - start, 600ms);
}

TEST_F(HttpClientTest, AfterAFailureTheNextRequestIsWhole) {
  RawServer server(Answering([](const std::string& request) {
    if (request.starts_with("GET /big")) return Ok(std::string(1 << 20, 'x'));
    return Ok("small");
  }));
  HttpRequest failing{.url = server.Url("/big")};
  failing.sink = [](std::span<const std::byte>) { return Fail(Errc::kNoSpace, "full"); };
  ASSERT_FALSE(Perform(failing));
  const auto response = Get(server.Url("/small"));
  ASSERT_TRUE(response) << response.error().message();
  EXPECT_EQ(response->body, "small");
}

TEST_F(HttpClientTest, TheProxyOfTheEnvironmentIsUsedUnlessTheRequestIsDirect) {
  std::string seen;
  RawServer proxy(Answering([&](const std::string& request) {
    seen = request;
    return Ok("by proxy");
  }));
  RawServer server(Answering(Ok("direct")));
  ASSERT_EQ(setenv("http_proxy", proxy.Url("").c_str(), 1), 0);
  const auto by_proxy = Get("http://store.invalid/k");
  const auto direct = Perform({.url = server.Url("/"), .direct = true});
  int port = 0;
  {
    port = RawServer(Answering("")).port();
  }
  setenv("http_proxy", fmt::format("http://127.0.0.1:{}", port).c_str(), 1);
  const auto refused = Get("http://store.invalid/k");
  unsetenv("http_proxy");
  ASSERT_TRUE(by_proxy) << by_proxy.error().message();
  EXPECT_EQ(by_proxy->body, "by proxy");
  EXPECT_TRUE(seen.starts_with("GET http://store.invalid/k ")) << seen;
  ASSERT_TRUE(direct) << direct.error().message();
  EXPECT_EQ(direct->body, "direct");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().message(),
            fmt::format("connection refused by the proxy 127.0.0.1:{}", port));
}

// A TLS server of OpenSSL's command with a certificate that nobody signed.
class TlsServer {
 public:
  explicit TlsServer(const std::string& name) {
    char folder[] = "/tmp/leat-tls-XXXXXX";
    folder_ = mkdtemp(folder);
    const int made = std::system(
        fmt::format(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 "
            "-subj /CN={} -addext subjectAltName={} -keyout {}/key -out {}/cert 2>/dev/null",
            "leat-test", name, folder_, folder_)
            .c_str());
    if (made != 0) return;
    int out[2];
    if (pipe2(out, O_CLOEXEC) != 0) return;
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, out[1], 1);
    std::string script = fmt::format(
        "exec openssl s_server -accept 127.0.0.1:0 -www -key {}/key -cert {}/cert 2>/dev/null "
        "</dev/null",
        folder_, folder_);
    std::string shell = "sh", option = "-c";
    char* argv[] = {shell.data(), option.data(), script.data(), nullptr};
    posix_spawn(&pid_, "/bin/sh", &files, nullptr, argv, environ);
    posix_spawn_file_actions_destroy(&files);
    close(out[1]);
    std::string said;  // "ACCEPT 127.0.0.1:43210"
    for (char c; read(out[0], &c, 1) == 1;) {
      said += c;
      const auto at = said.find("ACCEPT 127.0.0.1:");
      if (c == '\n' && at != said.npos) {
        port_ = std::stoi(said.substr(at + 17));
        break;
      }
    }
    close(out[0]);
  }
  ~TlsServer() {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
    std::filesystem::remove_all(folder_);
  }
  int port() const { return port_; }
  std::string cert() const { return folder_ + "/cert"; }

 private:
  std::string folder_;
  pid_t pid_ = 0;
  int port_ = 0;
};

TEST_F(HttpClientTest, ACertificateIsTrustedOnlyWithItsAuthority) {
  TlsServer server("IP:127.0.0.1");
  ASSERT_NE(server.port(), 0);
  const std::string url = fmt::format("https://127.0.0.1:{}/", server.port());
  const auto untrusted = Get(url);
  ASSERT_FALSE(untrusted);
  EXPECT_EQ(untrusted.error().code(), Errc::kInvalid);
  EXPECT_THAT(untrusted.error().message(),
              HasSubstr("the certificate of 127.0.0.1 is not trusted (unknown authority); name its "
                        "CA in SSL_CERT_FILE"));
  const auto trusted = Perform({.url = url, .ca_file = server.cert()});
  ASSERT_TRUE(trusted) << trusted.error().message();
  EXPECT_EQ(trusted->status, 200);

  setenv("CURL_CA_BUNDLE", server.cert().c_str(), 1);
  const auto by_environment = MakeHttpClient()->Perform({.url = url}, ctx_);
  unsetenv("CURL_CA_BUNDLE");
  EXPECT_TRUE(by_environment) << by_environment.error().message();

  const auto bad_file = Perform({.url = url, .ca_file = "/no/such/file"});
  ASSERT_FALSE(bad_file);
  EXPECT_EQ(bad_file.error().code(), Errc::kInvalid);
  EXPECT_THAT(bad_file.error().message(), HasSubstr("/no/such/file"));
}

TEST_F(HttpClientTest, ACertificateOfAnotherNameIsRefused) {
  TlsServer server("DNS:other.example");
  ASSERT_NE(server.port(), 0);
  const auto response = Perform(
      {.url = fmt::format("https://127.0.0.1:{}/", server.port()), .ca_file = server.cert()});
  ASSERT_FALSE(response);
  EXPECT_EQ(response.error().code(), Errc::kInvalid);
  EXPECT_THAT(response.error().message(), HasSubstr("made out to another name"));
}

TEST_F(HttpClientTest, TlsToAPlainServerIsSaid) {
  RawServer server(Cutting("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"));
  // The raw server waits for the end of a head that never comes; a short answer to anything will
  // do.
  RawServer plain([](Peer& peer) {
    char c;
    if (read(peer.fd(), &c, 1) == 1)
      peer.Send("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
  });
  const auto response = Get(fmt::format("https://127.0.0.1:{}/", plain.port()));
  ASSERT_FALSE(response);
  EXPECT_EQ(response.error().code(), Errc::kInvalid);
  EXPECT_THAT(response.error().message(), HasSubstr("does not speak TLS"));
}

}  // namespace
}  // namespace leat::net
