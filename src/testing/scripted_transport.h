// An HttpTransport without a network: answers are scripted, requests are recorded.
#ifndef LEAT_TESTING_SCRIPTED_TRANSPORT_H_
#define LEAT_TESTING_SCRIPTED_TRANSPORT_H_

#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/context.h"
#include "base/error.h"
#include "net/http_client.h"

namespace leat::testing {

/// Keeps HttpTransport's promises: a 2xx body goes to on_response and sink, or to the response
/// within max_body; what is cancelled or expired before it begins is not sent. Redirects are not
/// followed. Thread-safe.
class ScriptedTransport final : public net::HttpTransport {
 public:
  /// A request as it was sent; the body is copied.
  struct Recorded {
    std::string method, url, body;
    net::Headers headers;
    bool direct = false;
    std::string ca_file;
  };
  using Responder = std::function<Result<net::HttpResponse>(const Recorded& request)>;

  /// Answers every request of that method and URL from now on.
  void On(std::string_view method, std::string_view url, Responder responder);
  void On(std::string_view method, std::string_view url, net::HttpResponse response);
  /// Answers one request only; those given first are used first, and before what On gave.
  void Once(std::string_view method, std::string_view url, Responder responder);
  void Once(std::string_view method, std::string_view url, net::HttpResponse response);
  /// Answers what nothing else does; without it, that is kUnavailable ("could not resolve host").
  void Otherwise(Responder responder);

  std::vector<Recorded> requests() const;
  std::size_t count() const;

  Result<net::HttpResponse> Perform(const net::HttpRequest& request,
                                    const CallContext& ctx) override;

 private:
  Responder Take(const std::string& key);

  mutable std::mutex mutex_;
  std::map<std::string, std::deque<Responder>> once_;
  std::map<std::string, Responder> always_;
  Responder otherwise_;
  std::vector<Recorded> requests_;
};

/// A response in one line.
net::HttpResponse ScriptedAnswer(
    int status, std::string body = {},
    const std::vector<std::pair<std::string, std::string>>& headers = {});

}  // namespace leat::testing

#endif  // LEAT_TESTING_SCRIPTED_TRANSPORT_H_
