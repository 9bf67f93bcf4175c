// An HttpTransport whose answers a test writes.
#ifndef LEAT_TESTING_CANNED_TRANSPORT_H_
#define LEAT_TESTING_CANNED_TRANSPORT_H_

#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "net/http_client.h"

namespace leat::testing {

struct CannedAnswer {
  int status = 200;
  std::vector<std::pair<std::string, std::string>> headers = {};
  std::string body = {};
};

/// Thread-safe. Answers in the order of the script, then as `fallback` says (404 when unset), which
/// may make requests itself. Bodies of HEAD answers are not sent; a Content-Length is added where
/// the answer has none.
class CannedTransport final : public net::HttpTransport {
 public:
  void Then(CannedAnswer answer) {
    const std::lock_guard lock(mutex_);
    script_.push_back(std::move(answer));
  }
  void Otherwise(std::function<CannedAnswer(const net::HttpRequest&)> fallback) {
    fallback_ = std::move(fallback);
  }
  /// Without bodies and callbacks.
  std::vector<net::HttpRequest> requests() const {
    const std::lock_guard lock(mutex_);
    return requests_;
  }

  Result<net::HttpResponse> Perform(const net::HttpRequest& request,
                                    const CallContext& ctx) override;

 private:
  mutable std::recursive_mutex mutex_;
  std::deque<CannedAnswer> script_;
  std::function<CannedAnswer(const net::HttpRequest&)> fallback_;
  std::vector<net::HttpRequest> requests_;
};

}  // namespace leat::testing

#endif  // LEAT_TESTING_CANNED_TRANSPORT_H_
