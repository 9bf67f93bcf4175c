#include "testing/canned_transport.h"

#include <algorithm>

#include "base/bytes.h"

namespace leat::testing {

Result<net::HttpResponse> CannedTransport::Perform(const net::HttpRequest& request,
                                                   const CallContext& ctx) {
  if (ctx.cancelled()) return Fail(Errc::kCancelled, "cancelled");
  if (ctx.expired()) return Fail(Errc::kDeadline, "out of time");
  CannedAnswer answer{.status = 404};
  {
    const std::lock_guard lock(mutex_);
    net::HttpRequest seen;
    seen.method = request.method;
    seen.url = request.url;
    seen.headers = request.headers;
    requests_.push_back(std::move(seen));
    if (!script_.empty()) {
      answer = std::move(script_.front());
      script_.pop_front();
    } else if (fallback_) {
      answer = fallback_(request);
    }
  }
  net::HttpResponse response;
  response.status = answer.status;
  for (auto& [name, value] : answer.headers) response.headers.Add(name, value);
  if (!response.headers.Get("Content-Length") && !response.headers.Get("Transfer-Encoding")) {
    response.headers.Add("Content-Length", std::to_string(answer.body.size()));
  }
  if (request.method == "HEAD") answer.body.clear();
  const bool success = answer.status >= 200 && answer.status < 300;
  if (success && request.on_response) LEAT_RETURN_IF_ERROR(request.on_response(response));
  if (success && request.sink) {
    // In small pieces, as a network would have it.
    for (std::string_view rest = answer.body; !rest.empty();) {
      const auto piece = rest.substr(0, 1000);
      LEAT_RETURN_IF_ERROR(request.sink(AsBytes(piece)));
      rest.remove_prefix(piece.size());
    }
  } else {
    response.body = std::move(answer.body);
  }
  return response;
}

}  // namespace leat::testing
