// HTTP/1.1 requests by libcurl (decision 4), one blocking call each.
#ifndef LEAT_NET_HTTP_CLIENT_H_
#define LEAT_NET_HTTP_CLIENT_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/context.h"
#include "base/error.h"

namespace leat::net {

/// In order of arrival; names compare without case.
class Headers {
 public:
  void Add(std::string name, std::string value) {
    fields_.emplace_back(std::move(name), std::move(value));
  }
  /// The first value of that name; nullopt when absent.
  std::optional<std::string_view> Get(std::string_view name) const;
  const std::vector<std::pair<std::string, std::string>>& fields() const { return fields_; }

 private:
  std::vector<std::pair<std::string, std::string>> fields_;
};

struct HttpResponse {
  int status = 0;
  Headers headers;
  /// What no sink took: the whole body where the request has none, of any other status than 2xx the
  /// first 64 KiB.
  std::string body;
};

struct HttpRequest {
  std::string method = "GET";
  /// Sent as it stands (no dot segments are removed, nothing is escaped again).
  std::string url;
  Headers headers = {};
  /// Borrowed for the call.
  std::span<const std::byte> body = {};
  /// Called once, when the headers of a 2xx answer are complete and before the first byte of its
  /// body (also if there is none), on the calling thread. An error ends the request with it.
  std::function<Status(const HttpResponse&)> on_response = {};
  /// Takes the 2xx body piece by piece, on the calling thread, straight from the receive buffer. An
  /// error ends the request with it. Without a sink the body goes to HttpResponse::body, of at most
  /// `max_body` bytes.
  std::function<Status(std::span<const std::byte>)> sink = {};
  std::size_t max_body = 64 << 20;
  /// Redirects that are followed, for GET and HEAD, and 307 and 308 for any method; what lies
  /// beyond is the caller's answer. Never from https to http (kInvalid). The request's headers are
  /// sent again only to the same scheme, host and port; elsewhere none but Range, If-*, Accept* and
  /// User-Agent.
  int max_redirects = 0;
  /// A PEM file that replaces the system's certificate authorities; empty: the system's.
  std::string ca_file = {};
  /// Without the proxy that the environment names: for services on this machine or its link
  /// (metadata of cloud machines).
  bool direct = false;
  std::chrono::milliseconds connect_timeout{10'000};
  /// Less than `stall_bytes` a second for this long ends the request (kUnavailable).
  std::chrono::seconds stall_timeout{20};
  long stall_bytes = 512;
};

/// What is done with requests, so that tests can stand in for a network. Thread-safe.
class HttpTransport {
 public:
  virtual ~HttpTransport() = default;
  /// Any status that the server sends is a success here. Errors: kUnavailable (not resolved,
  /// refused, reset, cut short, stalled, timed out: the message says which, on what host), kInvalid
  /// (malformed URL, TLS certificate not trusted), kCancelled, kDeadline, and what the callbacks
  /// return. A body that is shorter than its Content-Length is kUnavailable.
  virtual Result<HttpResponse> Perform(const HttpRequest& request, const CallContext& ctx) = 0;
};

/// libcurl with kept connections: one handle a thread that is in a call, 512 KiB receive buffers.
/// Proxies come from the environment. The library is loaded on first use: its 30 dependencies cost
/// 7 ms of start that a run without remote data does not owe.
std::unique_ptr<HttpTransport> MakeHttpClient();

}  // namespace leat::net

#endif  // LEAT_NET_HTTP_CLIENT_H_
