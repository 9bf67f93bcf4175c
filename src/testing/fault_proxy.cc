#include "testing/fault_proxy.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <condition_variable>
#include <ctime>
#include <deque>
#include <functional>
#include <list>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "testing/fault_proxy_http.h"
#include "testing/fault_proxy_rules.h"

namespace leat::testing {
namespace {

using std::chrono::milliseconds;
using Millis = std::chrono::duration<double, std::milli>;

constexpr std::size_t kLogLines = 200'000;

std::string HttpDate(std::int64_t skew_s) {
  const std::time_t t = std::time(nullptr) + skew_s;
  std::tm parts{};
  ::gmtime_r(&t, &parts);
  char text[64];
  const std::size_t n = std::strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &parts);
  return {text, n};
}

std::string S3Error(const FaultRule& rule) {
  return "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>" + rule.code +
         "</Code><Message>" + rule.message + "</Message><RequestId>fault-proxy</RequestId></Error>";
}

constexpr std::string_view kWebPage =
    "<!DOCTYPE html>\n<html><head><title>Welcome</title></head><body><h1>Please sign "
    "in</h1></body></html>\n";

/// Sets the text of the first <name> of a listing, or adds the element to its root.
void SetElement(std::string& xml, const std::string& name, const std::string& text) {
  const std::string open = "<" + name + ">", close = "</" + name + ">";
  const auto begin = xml.find(open), end = xml.find(close);
  if (begin != std::string::npos && end != std::string::npos && begin < end) {
    xml.replace(begin + open.size(), end - begin - open.size(), text);
  } else if (const auto root = xml.rfind("</"); root != std::string::npos) {
    xml.insert(root, open + text + close);
  }
}

/// The target without what differs from page to page of one listing.
std::string ListingKey(std::string_view target) {
  const auto mark = target.find('?');
  std::string key(target.substr(0, mark));
  std::string_view query = mark == std::string_view::npos ? "" : target.substr(mark + 1);
  while (!query.empty()) {
    const auto end = query.find('&');
    const auto word = query.substr(0, end);
    if (!word.starts_with("continuation-token=") && !word.starts_with("marker=")) {
      key.append("&").append(word);
    }
    query.remove_prefix(end == std::string_view::npos ? query.size() : end + 1);
  }
  return key;
}

/// "bytes 0-99/1000" moved by `shift`.
std::string ShiftContentRange(const std::string& value, std::int64_t shift) {
  const auto space = value.find(' '), dash = value.find('-'), slash = value.find('/');
  if (space == std::string::npos || dash == std::string::npos || slash == std::string::npos)
    return value;
  std::int64_t first = 0, last = 0;
  std::from_chars(value.data() + space + 1, value.data() + dash, first);
  std::from_chars(value.data() + dash + 1, value.data() + slash, last);
  return "bytes " + std::to_string(first + shift) + "-" + std::to_string(last + shift) +
         value.substr(slash);
}

/// Who signed the request: the access key id, never more.
std::string SignedBy(const Head& head) {
  const auto* authorization = head.Find("Authorization");
  if (authorization == nullptr) return {};
  const auto begin = authorization->find("Credential=");
  if (begin == std::string::npos) return {};
  return authorization->substr(begin + 11, authorization->find('/', begin) - begin - 11);
}

/// What the rules that matched a request add up to.
struct Plan {
  explicit Plan(std::vector<FaultRule> matched) : rules(std::move(matched)) {
    for (const auto& r : rules) {
      delay += milliseconds(r.delay_ms);
      if (r.action != FaultAction::kPass) main = &r;
      edits = edits || r.date_skew_s || !r.strip.empty() || !r.set.empty();
    }
  }
  FaultAction action() const { return main == nullptr ? FaultAction::kPass : main->action; }
  void EditHead(Head& head) const {
    for (const auto& r : rules) {
      for (const auto& name : r.strip) head.Remove(name);
      for (const auto& [name, value] : r.set) head.Set(name, value);
      if (r.date_skew_s) head.Set("Date", HttpDate(*r.date_skew_s));
    }
  }

  std::vector<FaultRule> rules;
  const FaultRule* main = nullptr;
  milliseconds delay{};
  bool edits = false;
};

/// Sends a response; its head leaves together with the first bytes of the body.
class Reply {
 public:
  Reply(const Socket& client, const Head& head, bool chunked)
      : client_(client), pending_(head.ToWire()), chunked_(chunked) {}

  bool Write(std::string_view payload) {
    bytes_ += payload.size();
    if (chunked_ && !payload.empty()) {
      char size[20];
      const auto [end, error] = std::to_chars(size, size + sizeof size, payload.size(), 16);
      pending_.append(size, end).append("\r\n").append(payload).append("\r\n");
      return Flush();
    }
    if (pending_.empty()) return client_.Send(payload);
    pending_ += payload;
    return Flush();
  }
  bool Flush() {
    const bool sent = client_.Send(pending_);
    pending_.clear();
    return sent;
  }
  bool Finish() {
    if (chunked_) pending_ += "0\r\n\r\n";
    return Flush();
  }
  std::uint64_t bytes() const { return bytes_; }

 private:
  const Socket& client_;
  std::string pending_;
  bool chunked_;
  std::uint64_t bytes_ = 0;
};

}  // namespace

class FaultProxy::Impl {
 public:
  Impl(const FaultProxyOptions& options, Socket data, Socket control)
      : options_(options),
        data_(std::move(data)),
        control_(std::move(control)),
        rules_(options.seed) {
    accepting_ = std::thread([this] { AcceptLoop(data_, [this](Connection& c) { Serve(c); }); });
    controlling_ =
        std::thread([this] { AcceptLoop(control_, [this](Connection& c) { Control(c); }); });
  }
  ~Impl();

  // One accepted connection; its thread runs until either side closes it or the proxy stops.
  struct Connection {
    std::optional<Stream> client, upstream;
    std::mutex mutex;  // guards the exchange of `upstream` against Stop's shutdown of it
    std::thread thread;
    std::atomic<bool> done = false;
  };
  struct Exchange {
    Connection& connection;
    Head request;
    std::string method, target, kind;
    Plan plan;
    int status = 0;
    std::uint64_t bytes = 0;
  };

  void AcceptLoop(const Socket& listener, const std::function<void(Connection&)>& serve);
  void Serve(Connection& c);
  void Control(Connection& c);
  std::string Answer(const Head& request, const std::string& body, int& status);
  bool Perform(Exchange& x);
  bool AnswerLocally(Exchange& x);
  std::optional<Head> AskUpstream(Exchange& x);
  bool RelayStreamed(Exchange& x, const Head& head);
  bool RelayBuffered(Exchange& x, Head head);
  bool SendPiece(const Exchange& x, Reply& reply, std::string_view piece, std::uint64_t at);
  void WriteLog(const Exchange& x, Millis took);
  /// False when the proxy stops meanwhile.
  bool Sleep(milliseconds time);
  /// Until the client goes, Release() or the end.
  void Hold(const Connection& c);
  std::string CountsJson() const;
  /// Counts at zero, but for the requests that are under way.
  FaultProxyCounts Fresh() const {
    FaultProxyCounts fresh;
    fresh.in_flight = counts_.in_flight;
    return fresh;
  }
  /// A client may have its answer before the request is in the counts and the log: waits a little
  /// for those under way.
  void Settle() const {
    std::unique_lock lock(mutex_);
    idle_.wait_for(lock, milliseconds(200), [this] { return counts_.in_flight == 0; });
  }

  const FaultProxyOptions options_;
  const Socket data_, control_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();

  mutable std::mutex mutex_;              // guards all below
  std::condition_variable woken_;         // the end, or a release
  mutable std::condition_variable idle_;  // no request is under way
  bool stopping_ = false;
  std::uint64_t releases_ = 0;
  FaultRuleSet rules_;
  FaultProxyCounts counts_;
  std::deque<std::string> log_;
  std::map<std::string, std::string> first_pages_;  // of endless listings
  std::uint64_t pages_ = 0;
  std::list<Connection> connections_;

  std::thread accepting_, controlling_;
};

FaultProxy::Impl::~Impl() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  woken_.notify_all();
  ::shutdown(data_.fd(), SHUT_RDWR);
  ::shutdown(control_.fd(), SHUT_RDWR);
  accepting_.join();
  controlling_.join();
  for (auto& c : connections_) {
    {
      const std::lock_guard lock(c.mutex);
      if (c.client) ::shutdown(c.client->socket().fd(), SHUT_RDWR);
      if (c.upstream) ::shutdown(c.upstream->socket().fd(), SHUT_RDWR);
    }
    c.thread.join();
  }
}

void FaultProxy::Impl::AcceptLoop(const Socket& listener,
                                  const std::function<void(Connection&)>& serve) {
  for (;;) {
    Socket s(::accept4(listener.fd(), nullptr, nullptr, SOCK_CLOEXEC));
    const std::lock_guard lock(mutex_);
    if (stopping_) return;
    connections_.remove_if([](Connection& c) {
      if (c.done) c.thread.join();
      return c.done.load();
    });
    if (!s) continue;
    s.SendAtOnce();
    if (&listener == &data_) ++counts_.connections;
    Connection& c = connections_.emplace_back();
    c.client.emplace(std::move(s));
    c.thread = std::thread([&c, serve] {
      serve(c);
      const std::lock_guard connection_lock(c.mutex);
      c.client.reset();
      c.upstream.reset();
      c.done = true;
    });
  }
}

void FaultProxy::Impl::Serve(Connection& c) {
  while (auto head = c.client->ReadHead()) {
    const auto first = head->first_line.find(' '), second = head->first_line.rfind(' ');
    if (first == std::string::npos || second <= first) return;
    std::string method = head->first_line.substr(0, first);
    std::string target = head->first_line.substr(first + 1, second - first - 1);
    std::string kind(RequestKind(method, target));
    const std::string wire = head->ToWire();
    std::unique_lock lock(mutex_);
    Plan plan(rules_.Match({.method = method, .target = target, .kind = kind, .head = wire}));
    ++counts_.total;
    ++counts_.requests[kind];
    if (plan.main != nullptr || plan.edits) ++counts_.faults;
    counts_.peak_in_flight = std::max(counts_.peak_in_flight, ++counts_.in_flight);
    lock.unlock();

    const auto begin = std::chrono::steady_clock::now();
    Exchange x{.connection = c,
               .request = std::move(*head),
               .method = std::move(method),
               .target = std::move(target),
               .kind = std::move(kind),
               .plan = std::move(plan)};
    const bool again = Perform(x);
    const auto* connection = x.request.Find("Connection");
    WriteLog(x, std::chrono::steady_clock::now() - begin);
    if (!again || (connection != nullptr && EqualsIgnoreCase(*connection, "close"))) return;
  }
}

/// False when the connection is to be closed.
bool FaultProxy::Impl::Perform(Exchange& x) {
  Connection& c = x.connection;
  const FaultRule* rule = x.plan.main;
  if (x.plan.delay.count() > 0 && !Sleep(x.plan.delay)) return false;
  switch (x.plan.action()) {
    case FaultAction::kDrop:
      if (rule->reset) c.client->socket().ResetOnClose();
      return false;
    case FaultAction::kStatus:
    case FaultAction::kHtml:
    case FaultAction::kErrorBody:
      return AnswerLocally(x);
    case FaultAction::kStall:
      if (rule->bytes >= 0) break;
      Hold(c);
      if (rule->reset) c.client->socket().ResetOnClose();
      return false;
    case FaultAction::kFullBody:
      x.request.Remove("Range");
      break;
    case FaultAction::kEndless: {
      std::unique_lock lock(mutex_);
      const auto page = first_pages_.find(ListingKey(x.target));
      if (page == first_pages_.end()) break;
      std::string body = page->second;
      if (rule->fresh_tokens)
        SetElement(body, "NextContinuationToken", "page-" + std::to_string(++pages_));
      lock.unlock();
      Head head{.first_line = "HTTP/1.1 200 OK", .fields = {{"Content-Type", "application/xml"}}};
      head.Set("Content-Length", std::to_string(body.size()));
      x.status = 200;
      x.bytes = body.size();
      return c.client->socket().Send(head.ToWire() + body);
    }
    default:
      break;
  }

  auto response = AskUpstream(x);
  if (!response) return false;
  x.plan.EditHead(*response);
  switch (x.plan.action()) {
    case FaultAction::kCut:
      if (rule->bytes >= 0) return RelayStreamed(x, *response);
      if (rule->reset) c.client->socket().ResetOnClose();
      return false;
    case FaultAction::kLength:
    case FaultAction::kOtherRange:
    case FaultAction::kEndless:
    case FaultAction::kBrokenXml:
      return RelayBuffered(x, std::move(*response));
    default:
      return RelayStreamed(x, *response);
  }
}

bool FaultProxy::Impl::AnswerLocally(Exchange& x) {
  const FaultRule& rule = *x.plan.main;
  const auto& client = x.connection.client;
  // A body that was never sent for (Expect) or is still coming is not waited for: the connection is
  // closed instead.
  const bool has_body =
      RequestFraming(x.request).kind != Framing::kLength || RequestFraming(x.request).length > 0;
  const bool page = rule.action == FaultAction::kHtml;
  const std::string body = page ? std::string(kWebPage) : S3Error(rule);
  x.status = rule.action == FaultAction::kStatus ? rule.status : 200;
  Head head{.first_line = "HTTP/1.1 " + std::to_string(x.status) + " " + (page ? "OK" : rule.code),
            .fields = {{"Content-Type", page ? "text/html" : "application/xml"},
                       {"Content-Length", std::to_string(body.size())},
                       {"Date", HttpDate(0)}}};
  if (has_body) head.Set("Connection", "close");
  x.plan.EditHead(head);
  x.bytes = x.method == "HEAD" ? 0 : body.size();
  return client->socket().Send(head.ToWire() + (x.method == "HEAD" ? "" : body)) && !has_body;
}

/// Forwards the request and returns the head of the store's answer; nothing when either side
/// failed.
std::optional<Head> FaultProxy::Impl::AskUpstream(Exchange& x) {
  Connection& c = x.connection;
  if (!c.upstream || c.upstream->socket().PeerClosed()) {
    auto socket = ConnectTo(options_.upstream_host, options_.upstream_port);
    if (!socket) {
      x.status = 502;
      c.client->socket().Send(
          "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
      return std::nullopt;
    }
    const std::lock_guard lock(c.mutex);
    c.upstream.emplace(std::move(*socket));
  }
  if (x.request.Find("Expect") != nullptr) {
    x.request.Remove("Expect");
    if (!c.client->socket().Send("HTTP/1.1 100 Continue\r\n\r\n")) return std::nullopt;
  }
  const Framing framing = RequestFraming(x.request);
  Reply forward(c.upstream->socket(), x.request, framing.kind == Framing::kChunked);
  const bool sent = c.client->ReadBody(framing, [&](std::string_view piece) {
    return forward.Write(piece);
  }) && forward.Finish();
  {
    const std::lock_guard lock(mutex_);
    counts_.bytes_from_client += forward.bytes();
  }
  if (!sent) return std::nullopt;
  for (;;) {
    auto response = c.upstream->ReadHead();
    if (!response) return std::nullopt;
    const auto space = response->first_line.find(' ');
    if (space == std::string::npos) return std::nullopt;
    const std::string_view line = response->first_line;
    std::from_chars(line.data() + space + 1, line.data() + line.size(), x.status);
    if (x.status / 100 != 1) return response;  // interim answers were given by ourselves
  }
}

bool FaultProxy::Impl::RelayStreamed(Exchange& x, const Head& head) {
  Connection& c = x.connection;
  const Framing framing = ResponseFraming(x.method, x.status, head);
  const auto* connection = head.Find("Connection");
  const bool last = framing.kind == Framing::kUntilClose ||
                    (connection != nullptr && EqualsIgnoreCase(*connection, "close"));
  Reply reply(c.client->socket(), head, framing.kind == Framing::kChunked);
  std::uint64_t at = 0;
  const bool whole = c.upstream->ReadBody(framing, [&](std::string_view piece) {
    const bool sent = SendPiece(x, reply, piece, at);
    at += piece.size();
    return sent;
  });
  x.bytes = reply.bytes();
  return whole && reply.Finish() && !last;
}

/// Sends what the rule lets through of `piece`, which lies at `at` in the body.
bool FaultProxy::Impl::SendPiece(const Exchange& x, Reply& reply, std::string_view piece,
                                 std::uint64_t at) {
  const FaultRule* rule = x.plan.main;
  if (rule == nullptr) return reply.Write(piece);
  const auto point = static_cast<std::uint64_t>(std::max<std::int64_t>(rule->bytes, 0));
  const std::string_view before =
      piece.substr(0, point > at ? std::min(point - at, piece.size()) : 0);
  const Socket& client = x.connection.client->socket();
  switch (rule->action) {
    case FaultAction::kCut:
    case FaultAction::kStall:
      if (before.size() == piece.size()) return reply.Write(piece);
      if (!reply.Write(before) || !reply.Flush()) return false;  // the head at least
      if (rule->action == FaultAction::kStall) Hold(x.connection);
      if (rule->reset) client.ResetOnClose();
      return false;
    case FaultAction::kTrickle: {
      if (!before.empty() && !reply.Write(before)) return false;
      piece.remove_prefix(before.size());
      const std::size_t step = std::max<std::uint64_t>(rule->rate / 10, 1);
      const milliseconds pause(1000 * step / rule->rate);
      while (!piece.empty()) {
        const auto now = piece.substr(0, step);
        if (!reply.Write(now) || client.PeerClosed() || !Sleep(pause)) return false;
        piece.remove_prefix(now.size());
      }
      return true;
    }
    case FaultAction::kFlip: {
      std::string changed(piece);
      const std::uint64_t first = std::max(point, at);
      const std::uint64_t end = std::min(point + rule->count, at + piece.size());
      for (std::uint64_t i = first; i < end; ++i)
        changed[i - at] = static_cast<char>(~changed[i - at]);
      return reply.Write(changed);
    }
    default:
      return reply.Write(piece);
  }
}

bool FaultProxy::Impl::RelayBuffered(Exchange& x, Head head) {
  Connection& c = x.connection;
  const FaultRule& rule = *x.plan.main;
  std::string body;
  if (!c.upstream->ReadBody(ResponseFraming(x.method, x.status, head), [&](std::string_view piece) {
        body += piece;
        return true;
      })) {
    return false;
  }
  const auto size = static_cast<std::int64_t>(body.size());
  std::int64_t promised = size;
  if (x.status / 100 == 2) {
    switch (rule.action) {
      case FaultAction::kLength:
        promised = std::max<std::int64_t>(size + rule.add, 0);
        if (promised < size) body.resize(static_cast<std::size_t>(promised));
        break;
      case FaultAction::kOtherRange:
        if (size > 0) std::ranges::rotate(body, body.begin() + (rule.shift % size + size) % size);
        if (const auto* range = head.Find("Content-Range"); range != nullptr && !rule.lie) {
          head.Set("Content-Range", ShiftContentRange(*range, rule.shift));
        }
        break;
      case FaultAction::kEndless: {
        SetElement(body, "IsTruncated", "true");
        SetElement(body, "NextContinuationToken", "page-0");
        const std::lock_guard lock(mutex_);
        first_pages_[ListingKey(x.target)] = body;
        promised = static_cast<std::int64_t>(body.size());
        break;
      }
      case FaultAction::kBrokenXml:
        body.resize(body.size() / 2);
        promised = static_cast<std::int64_t>(body.size());
        break;
      default:
        break;
    }
  }
  head.Remove("Transfer-Encoding");
  if (x.method != "HEAD") head.Set("Content-Length", std::to_string(promised));
  x.bytes = body.size();
  return c.client->socket().Send(head.ToWire() + body) &&
         promised <= static_cast<std::int64_t>(body.size());
}

void FaultProxy::Impl::WriteLog(const Exchange& x, Millis took) {
  std::string line = x.method + " " + x.target + " kind=" + x.kind +
                     " status=" + std::to_string(x.status) + " bytes=" + std::to_string(x.bytes) +
                     " ms=" + std::to_string(static_cast<std::int64_t>(took.count()));
  for (const auto* name : {"Range", "If-Match", "x-amz-request-payer"}) {
    if (const auto* value = x.request.Find(name))
      line.append(" ").append(name).append("=").append(*value);
  }
  if (const auto by = SignedBy(x.request); !by.empty()) line += " signed-by=" + by;
  for (const auto& r : x.plan.rules) line += " rule=[" + r.text + "]";
  const std::lock_guard lock(mutex_);
  if (--counts_.in_flight == 0) idle_.notify_all();
  counts_.bytes_to_client += x.bytes;
  if (log_.size() == kLogLines) log_.pop_front();
  log_.push_back(std::move(line));
}

bool FaultProxy::Impl::Sleep(milliseconds time) {
  std::unique_lock lock(mutex_);
  return !woken_.wait_for(lock, time, [this] { return stopping_; });
}

void FaultProxy::Impl::Hold(const Connection& c) {
  std::unique_lock lock(mutex_);
  const auto releases = releases_;
  while (!stopping_ && releases_ == releases && !c.client->socket().PeerClosed()) {
    woken_.wait_for(lock, milliseconds(50));
  }
}

std::string FaultProxy::Impl::CountsJson() const {
  const std::lock_guard lock(mutex_);
  std::string json = "{\"total\":" + std::to_string(counts_.total);
  for (const std::string kind : {"list", "get", "head", "put", "post", "delete", "other"}) {
    const auto it = counts_.requests.find(kind);
    json += ",\"" + kind + "\":" + std::to_string(it == counts_.requests.end() ? 0 : it->second);
  }
  const std::pair<const char*, std::uint64_t> numbers[] = {
      {"faults", counts_.faults},
      {"connections", counts_.connections},
      {"in_flight", counts_.in_flight},
      {"peak_in_flight", counts_.peak_in_flight},
      {"bytes_to_client", counts_.bytes_to_client},
      {"bytes_from_client", counts_.bytes_from_client},
  };
  for (const auto& [name, value] : numbers) {
    json.append(",\"").append(name).append("\":").append(std::to_string(value));
  }
  return json + "}\n";
}

void FaultProxy::Impl::Control(Connection& c) {
  while (const auto head = c.client->ReadHead()) {
    std::string body;
    if (head->Find("Expect") != nullptr) c.client->socket().Send("HTTP/1.1 100 Continue\r\n\r\n");
    if (!c.client->ReadBody(RequestFraming(*head), [&](std::string_view piece) {
          body += piece;
          return true;
        })) {
      return;
    }
    int status = 200;
    const std::string answer = Answer(*head, body, status);
    const Head reply{
        .first_line = "HTTP/1.1 " + std::to_string(status) + (status == 200 ? " OK" : " Refused"),
        .fields = {{"Content-Length", std::to_string(answer.size())}}};
    if (!c.client->socket().Send(reply.ToWire() + answer)) return;
  }
}

std::string FaultProxy::Impl::Answer(const Head& request, const std::string& body, int& status) {
  const auto asked = request.first_line.substr(0, request.first_line.rfind(' '));
  if (asked == "GET /counts" || asked == "GET /log") Settle();
  if (asked == "GET /counts") return CountsJson();
  if (asked == "POST /rules" || asked == "PUT /rules") {
    auto rules = ParseFaultRules(body);
    if (!rules) {
      status = 400;
      return rules.error().message() + "\n";
    }
    const std::lock_guard lock(mutex_);
    if (asked.starts_with("PUT")) rules_.Clear();
    rules_.Add(std::move(*rules));
    return {};
  }
  const std::lock_guard lock(mutex_);
  std::string answer;
  if (asked == "GET /rules") {
    for (const auto& use : rules_.uses()) {
      answer += use.text + " # matched " + std::to_string(use.matched) + ", applied " +
                std::to_string(use.applied) + "\n";
    }
  } else if (asked == "GET /log") {
    for (const auto& line : log_) answer += line + "\n";
  } else if (asked == "DELETE /rules") {
    rules_.Clear();
    first_pages_.clear();
  } else if (asked == "DELETE /counts") {
    counts_ = Fresh();
  } else if (asked == "DELETE /log") {
    log_.clear();
  } else if (asked == "POST /release") {
    ++releases_;
    woken_.notify_all();
  } else {
    status = 404;
    answer = "the control port knows /rules, /counts, /log and /release, not \"" + asked + "\"\n";
  }
  return answer;
}

FaultProxy::FaultProxy(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
FaultProxy::~FaultProxy() = default;

Result<std::unique_ptr<FaultProxy>> FaultProxy::Start(const FaultProxyOptions& options) {
  LEAT_ASSIGN_OR_RETURN(Socket data, ListenLocal(options.port));
  LEAT_ASSIGN_OR_RETURN(Socket control, ListenLocal(options.control_port));
  return std::unique_ptr<FaultProxy>(
      new FaultProxy(std::make_unique<Impl>(options, std::move(data), std::move(control))));
}

std::uint16_t FaultProxy::port() const { return LocalPort(impl_->data_); }
std::uint16_t FaultProxy::control_port() const { return LocalPort(impl_->control_); }

Status FaultProxy::AddRules(std::string_view text) {
  LEAT_ASSIGN_OR_RETURN(auto rules, ParseFaultRules(text));
  const std::lock_guard lock(impl_->mutex_);
  impl_->rules_.Add(std::move(rules));
  return {};
}

void FaultProxy::ClearRules() {
  const std::lock_guard lock(impl_->mutex_);
  impl_->rules_.Clear();
  impl_->first_pages_.clear();
}

void FaultProxy::Release() {
  const std::lock_guard lock(impl_->mutex_);
  ++impl_->releases_;
  impl_->woken_.notify_all();
}

FaultProxyCounts FaultProxy::counts() const {
  impl_->Settle();
  const std::lock_guard lock(impl_->mutex_);
  return impl_->counts_;
}

void FaultProxy::ResetCounts() {
  const std::lock_guard lock(impl_->mutex_);
  impl_->counts_ = impl_->Fresh();
}

std::string FaultProxy::log() const {
  impl_->Settle();
  const std::lock_guard lock(impl_->mutex_);
  std::string all;
  for (const auto& line : impl_->log_) all += line + "\n";
  return all;
}

}  // namespace leat::testing
