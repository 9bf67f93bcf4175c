#include "testing/scripted_transport.h"

#include "base/bytes.h"

namespace leat::testing {
namespace {

std::string Key(std::string_view method, std::string_view url) {
  return std::string(method) + " " + std::string(url);
}

ScriptedTransport::Responder Always(net::HttpResponse response) {
  return [response = std::move(response)](const ScriptedTransport::Recorded&) { return response; };
}

}  // namespace

void ScriptedTransport::On(std::string_view method, std::string_view url, Responder responder) {
  const std::lock_guard lock(mutex_);
  always_[Key(method, url)] = std::move(responder);
}
void ScriptedTransport::On(std::string_view method, std::string_view url,
                           net::HttpResponse response) {
  On(method, url, Always(std::move(response)));
}
void ScriptedTransport::Once(std::string_view method, std::string_view url, Responder responder) {
  const std::lock_guard lock(mutex_);
  once_[Key(method, url)].push_back(std::move(responder));
}
void ScriptedTransport::Once(std::string_view method, std::string_view url,
                             net::HttpResponse response) {
  Once(method, url, Always(std::move(response)));
}
void ScriptedTransport::Otherwise(Responder responder) {
  const std::lock_guard lock(mutex_);
  otherwise_ = std::move(responder);
}

std::vector<ScriptedTransport::Recorded> ScriptedTransport::requests() const {
  const std::lock_guard lock(mutex_);
  return requests_;
}
std::size_t ScriptedTransport::count() const {
  const std::lock_guard lock(mutex_);
  return requests_.size();
}

ScriptedTransport::Responder ScriptedTransport::Take(const std::string& key) {
  if (const auto queue = once_.find(key); queue != once_.end() && !queue->second.empty()) {
    Responder responder = std::move(queue->second.front());
    queue->second.pop_front();
    return responder;
  }
  const auto found = always_.find(key);
  return found != always_.end() ? found->second : otherwise_;
}

Result<net::HttpResponse> ScriptedTransport::Perform(const net::HttpRequest& request,
                                                     const CallContext& ctx) {
  if (ctx.cancelled()) return Fail(Errc::kCancelled, "the call was cancelled");
  if (ctx.expired()) return Fail(Errc::kDeadline, "no time was left");
  const Recorded recorded{.method = request.method,
                          .url = request.url,
                          .body = std::string(AsText(request.body)),
                          .headers = request.headers,
                          .direct = request.direct,
                          .ca_file = request.ca_file};
  Responder responder;
  {
    const std::lock_guard lock(mutex_);
    requests_.push_back(recorded);
    responder = Take(Key(request.method, request.url));
  }
  if (!responder) {
    return Fail(Errc::kUnavailable,
                "could not resolve host (nothing is scripted for " + recorded.url + ")");
  }
  // Not under the lock: it may block.
  LEAT_ASSIGN_OR_RETURN(net::HttpResponse response, responder(recorded));
  if (response.status < 200 || response.status >= 300) return response;
  std::string body = std::exchange(response.body, {});
  if (request.on_response) LEAT_RETURN_IF_ERROR(request.on_response(response));
  if (request.method == "HEAD") return response;
  if (request.sink) {
    if (!body.empty()) LEAT_RETURN_IF_ERROR(request.sink(AsBytes(body)));
    return response;
  }
  if (body.size() > request.max_body) return Fail(Errc::kCorrupt, "the answer is too large");
  response.body = std::move(body);
  return response;
}

net::HttpResponse ScriptedAnswer(int status, std::string body,
                                 const std::vector<std::pair<std::string, std::string>>& headers) {
  net::HttpResponse response;
  response.status = status;
  response.body = std::move(body);
  for (const auto& [name, value] : headers) response.headers.Add(name, value);
  return response;
}

}  // namespace leat::testing
