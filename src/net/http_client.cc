#include "net/http_client.h"

#include <curl/curl.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <mutex>

#include "net/curl_library.h"
#include "net/http_errors.h"
#include "net/url.h"

namespace leat::net {
namespace {

using SteadyClock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr std::size_t kErrorBodyLimit = 64 << 10;
constexpr long kReceiveBuffer = 512 << 10;
constexpr long kConnectionsPerHandle = 8;

char LowerChar(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

bool EqualNames(std::string_view a, std::string_view b) {
  return std::ranges::equal(a, b, {}, LowerChar, LowerChar);
}

std::string_view Trim(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const auto begin = text.find_first_not_of(kSpace);
  if (begin == text.npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

// An easy handle with a multi handle of its own: that is what curl_easy_perform would make, but a
// stop request can wake this one at once.
struct Handle {
  const CurlLibrary* curl;
  void* easy;
  void* multi;

  Handle(const CurlLibrary* library, void* easy_handle, void* multi_handle)
      : curl(library), easy(easy_handle), multi(multi_handle) {}
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  ~Handle() {
    if (easy != nullptr) curl->FreeEasy(easy);
    if (multi != nullptr) curl->FreeMulti(multi);
  }
};

// Looked-up names and TLS sessions, for all handles of a client.
class Share {
 public:
  explicit Share(const CurlLibrary* curl) : curl_(curl), share_(curl->NewShare()) {
    if (share_ == nullptr) return;
    curl_->SetShare(share_, CURLSHOPT_USERDATA, static_cast<const void*>(this));
    curl_->SetShare(share_, CURLSHOPT_LOCKFUNC, reinterpret_cast<CurlLibrary::AnyFunction>(&Lock));
    curl_->SetShare(share_, CURLSHOPT_UNLOCKFUNC,
                    reinterpret_cast<CurlLibrary::AnyFunction>(&Unlock));
    curl_->SetShare(share_, CURLSHOPT_SHARE, static_cast<long>(CURL_LOCK_DATA_DNS));
    curl_->SetShare(share_, CURLSHOPT_SHARE, static_cast<long>(CURL_LOCK_DATA_SSL_SESSION));
  }
  Share(const Share&) = delete;
  Share& operator=(const Share&) = delete;
  ~Share() {
    if (share_ != nullptr) curl_->FreeShare(share_);
  }

  const void* get() const { return share_; }

 private:
  static void Lock(CURL*, curl_lock_data data, curl_lock_access, void* self) {
    static_cast<Share*>(self)->mutexes_.at(static_cast<std::size_t>(data)).lock();
  }
  static void Unlock(CURL*, curl_lock_data data, void* self) {
    static_cast<Share*>(self)->mutexes_.at(static_cast<std::size_t>(data)).unlock();
  }

  const CurlLibrary* const curl_;
  void* const share_;
  std::array<std::mutex, CURL_LOCK_DATA_LAST> mutexes_;
};

// One request to one URL: what libcurl's callbacks fill.
class Exchange {
 public:
  Exchange(const HttpRequest& request, const CallContext& ctx) : request_(request), ctx_(ctx) {}

  // Both return how much was taken; anything but `size` makes libcurl give up.
  std::size_t TakeHeader(std::string_view line) {
    bytes_ += line.size();
    if (headers_complete_) return line.size();  // trailers
    if (line.starts_with("HTTP/")) {            // also after a 1xx
      response_ = {};
      const auto space = line.find(' ');
      const std::string_view code =
          space == line.npos ? std::string_view() : line.substr(space + 1, 3);
      std::from_chars(code.data(), code.data() + code.size(), response_.status);
      return line.size();
    }
    if (Trim(line).empty() && !line.starts_with(' ') && !line.starts_with('\t')) {
      if (response_.status < 200) return line.size();  // the final answer follows
      headers_complete_ = true;
      if (successful() && request_.on_response &&
          !Call([&] { return request_.on_response(response_); })) {
        return 0;
      }
      return line.size();
    }
    const auto colon = line.find(':');
    if (colon != line.npos) {
      response_.headers.Add(std::string(Trim(line.substr(0, colon))),
                            std::string(Trim(line.substr(colon + 1))));
    }
    return line.size();
  }

  std::size_t TakeBody(std::span<const std::byte> piece) {
    bytes_ += piece.size();
    body_bytes_ += piece.size();
    if (ctx_.cancelled()) {
      error_ = Error(Errc::kCancelled, "the call was cancelled");
      return 0;
    }
    if (successful() && request_.sink) {
      return Call([&] { return request_.sink(piece); }) ? piece.size() : 0;
    }
    const std::size_t limit = successful() ? request_.max_body : kErrorBodyLimit;
    const std::size_t taken = std::min(piece.size(), limit - response_.body.size());
    response_.body.append(reinterpret_cast<const char*>(piece.data()), taken);
    if (taken == piece.size()) return taken;
    if (successful()) {
      error_ = Error(Errc::kCorrupt, fmt::format("the answer is larger than {} bytes", limit));
    } else {
      enough_ = true;
    }
    return 0;
  }

  bool successful() const { return response_.status >= 200 && response_.status < 300; }
  bool headers_complete() const { return headers_complete_; }
  // The rest of an error's body is not wanted.
  bool enough() const { return enough_; }
  std::uint64_t bytes() const { return bytes_; }
  std::uint64_t body_bytes() const { return body_bytes_; }
  SteadyClock::duration time_in_callbacks() const { return time_in_callbacks_; }
  std::optional<Error>& error() { return error_; }
  HttpResponse& response() { return response_; }

 private:
  template <typename F>
  bool Call(F callback) {
    const auto start = SteadyClock::now();
    Status status = callback();
    time_in_callbacks_ += SteadyClock::now() - start;
    if (!status) error_ = std::move(status).error();
    return !error_;
  }

  const HttpRequest& request_;
  const CallContext& ctx_;
  HttpResponse response_;
  std::optional<Error> error_;
  std::uint64_t bytes_ = 0, body_bytes_ = 0;
  SteadyClock::duration time_in_callbacks_{};
  bool headers_complete_ = false, enough_ = false;
};

std::size_t OnHeader(char* data, std::size_t size, std::size_t count, void* exchange) {
  return static_cast<Exchange*>(exchange)->TakeHeader({data, size * count});
}
std::size_t OnBody(char* data, std::size_t size, std::size_t count, void* exchange) {
  return static_cast<Exchange*>(exchange)->TakeBody(
      {reinterpret_cast<const std::byte*>(data), size * count});
}

// Notices that less than request.stall_bytes a second arrived for request.stall_timeout. The time
// that the caller's sink takes does not count.
class StallWatch {
 public:
  explicit StallWatch(const HttpRequest& request)
      : rate_(request.stall_bytes),
        limit_(request.stall_timeout),
        sampled_(SteadyClock::now()),
        slow_since_(sampled_) {}

  // `moved`: bytes so far in either direction; `connected`: there is a connection to watch.
  bool Stalled(std::uint64_t moved, bool connected, SteadyClock::duration in_callbacks) {
    if (rate_ <= 0 || limit_.count() <= 0) return false;
    const auto now = SteadyClock::now() - in_callbacks;
    const auto elapsed = std::chrono::duration<double>(now - sampled_).count();
    if (connected && elapsed < 1) return false;
    if (!connected || static_cast<double>(moved - moved_) >= elapsed * static_cast<double>(rate_))
      slow_since_ = now;
    sampled_ = now;
    moved_ = moved;
    return now - slow_since_ >= limit_;
  }

 private:
  const long rate_;
  const std::chrono::seconds limit_;
  SteadyClock::time_point sampled_, slow_since_;
  std::uint64_t moved_ = 0;
};

bool IsToken(std::string_view text) {
  constexpr std::string_view kSymbols = "!#$%&'*+-.^_`|~";
  return !text.empty() && std::ranges::all_of(text, [&](char c) {
    return (c >= '0' && c <= '9') || (LowerChar(c) >= 'a' && LowerChar(c) <= 'z') ||
           kSymbols.find(c) != kSymbols.npos;
  });
}

bool IsRedirect(int status) {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

// What says which bytes are wanted, and nothing about who wants them.
bool MayCrossHosts(std::string_view name) {
  const auto begins = [&](std::string_view prefix) {
    return EqualNames(name.substr(0, prefix.size()), prefix);
  };
  return EqualNames(name, "Range") || EqualNames(name, "User-Agent") || begins("If-") ||
         begins("Accept");
}

class HttpClient final : public HttpTransport {
 public:
  HttpClient() {
    const auto variable = [](const char* name) -> std::string {
      const char* value = std::getenv(name);
      return value == nullptr ? "" : value;
    };
    // As the curl tool does it; the library itself does not look.
    ca_file_ = variable("CURL_CA_BUNDLE");
    if (ca_file_.empty()) {
      ca_file_ = variable("SSL_CERT_FILE");
      ca_folder_ = variable("SSL_CERT_DIR");
    }
  }

  Result<HttpResponse> Perform(const HttpRequest& request, const CallContext& ctx) override {
    LEAT_ASSIGN_OR_RETURN(Url url, ParseUrl(request.url));
    if (!IsToken(request.method)) return Fail(Errc::kInvalid, "the HTTP method is not a word");
    if (request.max_redirects <= 0) return PerformOnce(request, url, ctx);
    HttpRequest current = request;
    for (int redirects = 0;; ++redirects) {
      LEAT_ASSIGN_OR_RETURN(HttpResponse response, PerformOnce(current, url, ctx));
      const bool same_method = response.status == 307 || response.status == 308 ||
                               current.method == "GET" || current.method == "HEAD";
      const auto location = response.headers.Get("Location");
      if (!IsRedirect(response.status) || !same_method || !location ||
          redirects >= request.max_redirects) {
        return response;
      }
      auto next = ResolveUrl(url, *location);
      if (!next)
        return Fail(std::move(next), fmt::format("following a redirect of {}", url.ForMessages()));
      if (url.scheme == "https" && next->scheme != "https") {
        return Fail(Errc::kInvalid, fmt::format("{} redirects to {}, which is not encrypted",
                                                url.ForMessages(), next->ForMessages()));
      }
      if (next->scheme != url.scheme || next->host != url.host ||
          next->EffectivePort() != url.EffectivePort()) {
        Headers kept;
        for (const auto& [name, value] : current.headers.fields()) {
          if (MayCrossHosts(name)) kept.Add(name, value);
        }
        current.headers = std::move(kept);
      }
      url = *std::move(next);
    }
  }

 private:
  Result<HttpResponse> PerformOnce(const HttpRequest& request, const Url& url,
                                   const CallContext& ctx) {
    if (ctx.cancelled()) return Fail(Errc::kCancelled, "the call was cancelled");
    if (ctx.expired())
      return Fail(Errc::kDeadline, fmt::format("no time was left to ask {}", url.host));
    LEAT_ASSIGN_OR_RETURN(std::unique_ptr<Handle> handle, TakeHandle());
    auto response = Transfer(*handle, request, url, ctx);
    const std::lock_guard lock(mutex_);
    idle_.push_back(std::move(handle));  // the last one used has the warmest connection
    return response;
  }

  Result<std::unique_ptr<Handle>> TakeHandle() {
    LEAT_ASSIGN_OR_RETURN(const CurlLibrary* const curl, CurlLibrary::Load());
    {
      const std::lock_guard lock(mutex_);
      if (!share_) share_ = std::make_unique<Share>(curl);
      if (!idle_.empty()) {
        auto handle = std::move(idle_.back());
        idle_.pop_back();
        return handle;
      }
    }
    auto handle = std::make_unique<Handle>(curl, curl->NewEasy(), curl->NewMulti());
    if (handle->easy == nullptr || handle->multi == nullptr) {
      return Fail(Errc::kInternal, "libcurl has no memory for a handle");
    }
    curl->SetMulti(handle->multi, CURLMOPT_MAXCONNECTS, kConnectionsPerHandle);
    return handle;
  }

  Result<HttpResponse> Transfer(Handle& handle, const HttpRequest& request, const Url& url,
                                const CallContext& ctx) {
    const CurlLibrary& curl = *handle.curl;
    void* const easy = handle.easy;
    Exchange exchange(request, ctx);
    std::array<char, CURL_ERROR_SIZE> error_text{};

    curl.Reset(easy);
    const std::string target = url.ToString();
    SetOptions(curl, easy, request);
    curl.Set(easy, CURLOPT_URL, target.c_str());
    curl.Set(easy, CURLOPT_ERRORBUFFER, static_cast<const void*>(error_text.data()));
    curl.Set(easy, CURLOPT_HEADERFUNCTION, reinterpret_cast<CurlLibrary::AnyFunction>(&OnHeader));
    curl.Set(easy, CURLOPT_HEADERDATA, static_cast<const void*>(&exchange));
    curl.Set(easy, CURLOPT_WRITEFUNCTION, reinterpret_cast<CurlLibrary::AnyFunction>(&OnBody));
    curl.Set(easy, CURLOPT_WRITEDATA, static_cast<const void*>(&exchange));
    LEAT_ASSIGN_OR_RETURN(void* const header_list, MakeHeaderList(curl, request));
    curl.Set(easy, CURLOPT_HTTPHEADER, static_cast<const void*>(header_list));

    Result<int> code = Run(handle, request, exchange, url, ctx);
    curl.FreeList(header_list);
    if (exchange.error()) return std::unexpected(std::move(*exchange.error()));
    if (!code) return std::unexpected(std::move(code).error());
    if (*code == CURLE_OK || exchange.enough()) return std::move(exchange.response());
    return std::unexpected(ExplainFailure({
        .code = *code,
        .text = error_text.data(),
        .code_text = curl.ErrorText(*code),
        .os_error = curl.GetLong(easy, CURLINFO_OS_ERRNO),
        .verify_result = curl.GetLong(easy, CURLINFO_SSL_VERIFYRESULT),
        .connected = curl.GetLong(easy, CURLINFO_PRETRANSFER_TIME_T) > 0,
        .headers = exchange.headers_complete() ? &exchange.response().headers : nullptr,
        .bytes = exchange.bytes(),
        .body_bytes = exchange.body_bytes(),
        .request = request,
        .url = url,
    }));
  }

  void SetOptions(const CurlLibrary& curl, void* easy, const HttpRequest& request) const {
    curl.Set(easy, CURLOPT_NOSIGNAL, 1L);
    curl.Set(easy, CURLOPT_BUFFERSIZE, kReceiveBuffer);
    curl.Set(easy, CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
    curl.Set(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl.Set(easy, CURLOPT_TCP_NODELAY, 1L);
    curl.Set(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    curl.Set(easy, CURLOPT_PATH_AS_IS, 1L);
    curl.Set(easy, CURLOPT_HTTP_CONTENT_DECODING, 0L);
    curl.Set(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    curl.Set(easy, CURLOPT_QUICK_EXIT,
             1L);  // a name that is still being looked up does not hold back a cancelled call
    curl.Set(easy, CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(request.connect_timeout.count()));
    curl.Set(easy, CURLOPT_SHARE, share_->get());
    if (request.direct) curl.Set(easy, CURLOPT_NOPROXY, "*");

    if (!request.ca_file.empty()) {
      curl.Set(easy, CURLOPT_CAINFO, request.ca_file.c_str());
      curl.Set(easy, CURLOPT_CAPATH, static_cast<const void*>(nullptr));
    } else {
      if (!ca_file_.empty()) curl.Set(easy, CURLOPT_CAINFO, ca_file_.c_str());
      if (!ca_folder_.empty()) curl.Set(easy, CURLOPT_CAPATH, ca_folder_.c_str());
    }

    const bool has_body = !request.body.empty() || request.method == "PUT" ||
                          request.method == "POST" || request.method == "PATCH";
    if (request.method == "HEAD") {
      curl.Set(easy, CURLOPT_NOBODY, 1L);
    } else if (has_body) {
      curl.Set(easy, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<long>(request.body.size()));
      curl.Set(easy, CURLOPT_POSTFIELDS,
               request.body.empty() ? static_cast<const void*>("")
                                    : static_cast<const void*>(request.body.data()));
      curl.Set(easy, CURLOPT_CUSTOMREQUEST, request.method.c_str());
    } else {
      curl.Set(easy, CURLOPT_HTTPGET, 1L);
      if (request.method != "GET") curl.Set(easy, CURLOPT_CUSTOMREQUEST, request.method.c_str());
    }
  }

  static Result<void*> MakeHeaderList(const CurlLibrary& curl, const HttpRequest& request) {
    std::vector<std::string> lines = {"Expect:"};
    bool content_type = false, user_agent = false;
    for (const auto& [name, value] : request.headers.fields()) {
      if (!IsToken(name) || value.find_first_of(std::string_view("\r\n\0", 3)) != value.npos) {
        return Fail(Errc::kInvalid, "a request header holds characters that headers cannot have");
      }
      content_type = content_type || EqualNames(name, "Content-Type");
      user_agent = user_agent || EqualNames(name, "User-Agent");
      // "Name:" would tell libcurl to leave the header out.
      lines.push_back(Trim(value).empty() ? name + ";" : fmt::format("{}: {}", name, value));
    }
    if (!content_type) lines.emplace_back("Content-Type:");  // else libcurl calls every body a form
    if (!user_agent) lines.emplace_back("User-Agent: leat");
    void* list = nullptr;
    for (const std::string& line : lines) {
      void* const longer = curl.Append(list, line.c_str());
      if (longer == nullptr) {
        curl.FreeList(list);
        return Fail(Errc::kInternal, "libcurl has no memory for headers");
      }
      list = longer;
    }
    return list;
  }

  // Returns libcurl's code, or why we gave up ourselves.
  static Result<int> Run(Handle& handle, const HttpRequest& request, Exchange& exchange,
                         const Url& url, const CallContext& ctx) {
    const CurlLibrary& curl = *handle.curl;
    if (curl.Add(handle.multi, handle.easy) != CURLM_OK)
      return Fail(Errc::kInternal, "libcurl refused a transfer");
    struct Removal {
      Handle& of;
      ~Removal() { of.curl->Remove(of.multi, of.easy); }
    } const removal{handle};
    const std::stop_callback wake(ctx.stop, [&] { curl.Wakeup(handle.multi); });
    StallWatch stall(request);
    const std::string peer = fmt::format("{}:{}", url.host, url.EffectivePort());
    while (true) {
      LEAT_ASSIGN_OR_RETURN(const CurlLibrary::Done step, curl.Step(handle.multi));
      if (step.done) return step.code;
      if (ctx.cancelled()) return Fail(Errc::kCancelled, "the call was cancelled");
      const auto now = CallContext::Clock::now();
      if (now >= ctx.deadline)
        return Fail(Errc::kDeadline, fmt::format("{} did not answer in the time there was", peer));
      const auto sent =
          static_cast<std::uint64_t>(curl.GetLong(handle.easy, CURLINFO_SIZE_UPLOAD_T));
      const bool connected = curl.GetLong(handle.easy, CURLINFO_PRETRANSFER_TIME_T) > 0;
      if (stall.Stalled(exchange.bytes() + sent, connected, exchange.time_in_callbacks())) {
        return Fail(
            Errc::kUnavailable,
            exchange.bytes() == 0
                ? fmt::format("{} sent nothing for {}", peer, FormatSeconds(request.stall_timeout))
                : fmt::format("{} sent less than {} bytes a second for {}", peer,
                              request.stall_bytes, FormatSeconds(request.stall_timeout)));
      }
      const auto wait =
          std::min<SteadyClock::duration>(ctx.deadline - now, std::chrono::milliseconds(500));
      curl.Poll(handle.multi, static_cast<int>(std::chrono::ceil<milliseconds>(wait).count()));
    }
  }

  std::string ca_file_, ca_folder_;
  std::mutex mutex_;
  std::unique_ptr<Share> share_;               // set before the first handle; outlives all of them
  std::vector<std::unique_ptr<Handle>> idle_;  // guarded by mutex_
};

}  // namespace

std::optional<std::string_view> Headers::Get(std::string_view name) const {
  for (const auto& [field, value] : fields_) {
    if (EqualNames(field, name)) return value;
  }
  return std::nullopt;
}

std::unique_ptr<HttpTransport> MakeHttpClient() { return std::make_unique<HttpClient>(); }

}  // namespace leat::net
