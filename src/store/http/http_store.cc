#include "store/http/http_store.h"

#include <algorithm>
#include <utility>

#include "base/bytes.h"
#include "base/log.h"
#include "net/url.h"
#include "store/http_answer.h"

namespace leat::store::http {
namespace {

constexpr int kMaxRedirects = 5;
/// A version made of a Last-Modified header begins with this.
constexpr std::string_view kLastModified = "lm:";

std::string Header(const net::HttpResponse& response, std::string_view name) {
  return std::string(response.headers.Get(name).value_or(""));
}

Version VersionOf(const net::HttpResponse& response) {
  Version version;
  if (const auto etag = response.headers.Get("ETag")) {
    version.etag = UnquoteEtag(*etag);
  } else if (const auto modified = response.headers.Get("Last-Modified")) {
    version.etag = std::string(kLastModified) + std::string(*modified);
  }
  return version;
}

/// Content-Encoding that was not asked for: the bytes are not those of the object.
bool IsEncoded(const net::HttpResponse& response) {
  const std::string encoding = Header(response, "Content-Encoding");
  return !encoding.empty() && encoding != "identity";
}

class HttpStore final : public ObjectStore {
 public:
  HttpStore(HttpOptions options, std::string origin, std::string name, net::HttpTransport& http)
      : options_(std::move(options)),
        origin_(std::move(origin)),
        name_(std::move(name)),
        http_(http) {}

  std::string_view Describe() const override { return name_; }
  std::string_view Identity() const override { return name_; }
  Capabilities capabilities() const override { return {.ranges = true}; }
  std::string UrlOf(std::string_view key) const override {
    return name_ + "/" + Printable(key.substr(0, key.find('?')));
  }

  Result<ObjectInfo> Stat(std::string_view key, std::string_view version_id,
                          const CallContext& ctx) override {
    if (!version_id.empty()) return NoVersions(key);
    net::HttpRequest head = RequestOf("HEAD", key);
    LEAT_ASSIGN_OR_RETURN(const auto response, Perform(head, key, ctx));
    // Presigned URLs are signed for GET alone, and some servers know no HEAD or give it no length.
    const auto size = ParseDecimal(Header(response, "Content-Length"));
    if (response.status == 200 && size) {
      LEAT_RETURN_IF_ERROR(CheckPlain(response, key));
      return InfoOf(key, response, *size);
    }
    if (response.status == 404 || response.status == 410 || response.status == 429 ||
        response.status >= 500) {
      if (response.status != 501) return Explain(key, response);
    }
    return StatByGet(key, ctx);
  }

  Status Read(std::string_view key, const ReadOptions& options, const Sink& sink,
              const CallContext& ctx) override {
    const Version& pin = options.if_version;
    if (!pin.version_id.empty()) return NoVersions(key);
    RangeDelivery delivery(UrlOf(key), options);
    if (delivery.asks_nothing()) return ReadNothing(key, options, ctx);
    net::HttpRequest request = RequestOf("GET", key);
    delivery.AddHeader(request.headers);
    if (pin.etag.starts_with(kLastModified)) {
      request.headers.Add("If-Unmodified-Since", pin.etag.substr(kLastModified.size()));
    } else if (!pin.etag.empty() && !pin.weak()) {
      request.headers.Add("If-Match", QuoteEtag(pin.etag));
    }
    bool ours = false;
    const auto note = [&](Status status) {
      ours = ours || !status;
      return status;
    };
    request.on_response = [&](const net::HttpResponse& response) -> Status {
      return note([&]() -> Status {
        LEAT_RETURN_IF_ERROR(CheckPlain(response, key));
        const Version now = VersionOf(response);
        if (!SameVersion(pin, now)) return FailReplaced(UrlOf(key), pin, now);
        LEAT_RETURN_IF_ERROR(delivery.Begin(response));
        if (!delivery.size()) return NoSize(key);
        ObjectInfo info = InfoOf(key, response, *delivery.size());
        info.comes_whole =
            response.status == 200 && (options.offset > 0 || options.length != UINT64_MAX);
        return options.on_info ? options.on_info(info) : Status();
      }());
    };
    request.sink = [&](std::span<const std::byte> piece) {
      return note(delivery.Take(piece, sink));
    };
    auto answer = http_.Perform(request, ctx);
    if (!answer && delivery.enough()) return {};
    if (!answer && ours) return std::unexpected(std::move(answer).error());
    if (!answer) return Fail(std::move(answer), UrlOf(key));
    if (answer->status >= 200 && answer->status < 300) return delivery.End();
    if (answer->status == 416) return ReadNothing(key, options, ctx);
    if (answer->status == 412) return FailWithPresent(key, pin, ctx);
    return Explain(key, *answer);
  }

  Result<ListPage> List(std::string_view prefix, const ListOptions&, const CallContext&) override {
    return Fail(Errc::kUnsupported, UrlOf(prefix) + ": a web server cannot be listed");
  }
  Result<Version> Put(std::string_view key, std::span<const std::byte>, const PutOptions&,
                      const CallContext&) override {
    return Fail(Errc::kUnsupported, UrlOf(key) + ": a web server cannot be written to");
  }
  Status Remove(std::string_view key, const CallContext&) override {
    return Fail(Errc::kUnsupported, UrlOf(key) + ": a web server cannot be written to");
  }

 private:
  net::HttpRequest RequestOf(std::string_view method, std::string_view key) const {
    net::HttpRequest request;
    request.method = method;
    request.url = origin_ + "/" + std::string(key);
    // Ranges of a compressed form would be others.
    request.headers.Add("Accept-Encoding", "identity");
    request.max_redirects = kMaxRedirects;
    request.ca_file = options_.ca_file;
    return request;
  }

  Result<net::HttpResponse> Perform(const net::HttpRequest& request, std::string_view key,
                                    const CallContext& ctx) {
    auto response = http_.Perform(request, ctx);
    if (!response) return Fail(std::move(response), UrlOf(key));
    return response;
  }

  /// The first byte's answer says how large the whole is; a server without ranges says it in the
  /// whole's, which is not read.
  Result<ObjectInfo> StatByGet(std::string_view key, const CallContext& ctx) {
    std::optional<ObjectInfo> info;
    net::HttpRequest get = RequestOf("GET", key);
    get.headers.Add("Range", "bytes=0-0");
    bool ours = false, looked = false;
    get.on_response = [&](const net::HttpResponse& response) -> Status {
      auto status = [&]() -> Status {
        LEAT_RETURN_IF_ERROR(CheckPlain(response, key));
        RangeDelivery first(UrlOf(key), {.length = 1});
        LEAT_RETURN_IF_ERROR(first.Begin(response));
        if (!first.size()) return NoSize(key);
        info = InfoOf(key, response, *first.size());
        return {};
      }();
      ours = !status;
      return status;
    };
    get.sink = [&](std::span<const std::byte>) -> Status {
      looked = true;
      return Fail(Errc::kCancelled, "seen enough");
    };
    auto response = http_.Perform(get, ctx);
    if (!response && looked && info) return *std::move(info);
    if (!response && ours) return std::unexpected(std::move(response).error());
    if (!response) return Fail(std::move(response), UrlOf(key));
    if (info) return *std::move(info);
    if (response->status == 416) {
      // Nothing has a first byte: it is empty.
      const auto range = ParseContentRange(Header(*response, "Content-Range"));
      if (range && range->size == std::optional<std::uint64_t>(0)) return InfoOf(key, *response, 0);
    }
    return Explain(key, *response);
  }

  /// For a range in which there is nothing to read: what the object is, and that it is there.
  Status ReadNothing(std::string_view key, const ReadOptions& options, const CallContext& ctx) {
    LEAT_ASSIGN_OR_RETURN(const ObjectInfo info, Stat(key, "", ctx));
    if (!SameVersion(options.if_version, info.version)) {
      return FailReplaced(UrlOf(key), options.if_version, info.version);
    }
    if (options.length > 0 && options.offset < info.size) {
      return Fail(Errc::kUnavailable,
                  UrlOf(key) + ": the server says that there is nothing at byte " +
                      std::to_string(options.offset) + " of " + std::to_string(info.size));
    }
    return options.on_info ? options.on_info(info) : Status();
  }

  std::unexpected<Error> FailWithPresent(std::string_view key, const Version& pin,
                                         const CallContext& ctx) {
    auto now = Stat(key, "", ctx);
    if (now) return FailReplaced(UrlOf(key), pin, now->version);
    return Fail(Errc::kConflict, UrlOf(key) + " was replaced while it was read (" + NameOf(pin) +
                                     " was asked for; what is there now cannot be told: " +
                                     now.error().message() + ")");
  }

  static ObjectInfo InfoOf(std::string_view key, const net::HttpResponse& response,
                           std::uint64_t size) {
    ObjectInfo info;
    info.key = key;
    info.size = size;
    info.version = VersionOf(response);
    info.modified = net::ParseHttpDate(Header(response, "Last-Modified"));
    return info;
  }

  Status CheckPlain(const net::HttpResponse& response, std::string_view key) const {
    if (!IsEncoded(response)) return {};
    return Fail(Errc::kUnsupported, UrlOf(key) + ": the server sends it only compressed (" +
                                        Printable(Header(response, "Content-Encoding")) + ")");
  }
  std::unexpected<Error> NoSize(std::string_view key) const {
    return Fail(
        Errc::kUnsupported,
        UrlOf(key) + ": the server does not say how large it is (it makes the answer as it goes)");
  }
  std::unexpected<Error> NoVersions(std::string_view key) const {
    return Fail(Errc::kUnsupported, UrlOf(key) + ": a web server keeps no versions");
  }

  std::unexpected<Error> Explain(std::string_view key, const net::HttpResponse& response) const {
    const std::string url = UrlOf(key);
    const int status = response.status;
    const std::string detail = " (" + std::to_string(status) + ")";
    if (status == 404 || status == 410) return Fail(Errc::kNotFound, url + " does not exist");
    if (status == 401) return Fail(Errc::kDenied, url + ": the server wants a login" + detail);
    if (status == 403) {
      // A query is most often a signature, and most often it is too old.
      const bool presigned = key.find('?') != key.npos;
      return Fail(Errc::kDenied, url + ": access is denied" +
                                     (presigned ? "; the URL's signature may have expired" : "") +
                                     detail);
    }
    if (status == 407) {
      return Fail(Errc::kDenied, url + ": the proxy on the way wants a login" + detail);
    }
    if (status == 408 || status == 425 || status == 429 || (status >= 500 && status != 501)) {
      NoteRetryAfter(response, std::chrono::system_clock::now());
      return Fail(Errc::kUnavailable, url + ": the server cannot answer now" + detail);
    }
    if (status >= 300 && status < 400) {
      return Fail(Errc::kInvalid, url + ": more than " + std::to_string(kMaxRedirects) +
                                      " redirects, or one that leads nowhere" + detail);
    }
    if (status == 405 || status == 501) {
      return Fail(Errc::kUnsupported, url + ": the server cannot do that" + detail);
    }
    return Fail(Errc::kInvalid, url + ": the server refused the request" + detail);
  }

  const HttpOptions options_;
  const std::string origin_;  ///< what requests begin with; may hold a user and a password
  const std::string name_;
  net::HttpTransport& http_;
};

}  // namespace

Result<std::unique_ptr<ObjectStore>> MakeHttpStore(HttpOptions options, net::HttpTransport& http) {
  LEAT_ASSIGN_OR_RETURN(net::Url url, net::ParseUrl(options.origin));
  if ((url.path != "/" && !url.path.empty()) || !url.query.empty()) {
    return Fail(Errc::kInvalid, url.ForMessages() + " is more than an origin");
  }
  std::string name = url.scheme + "://" + url.Authority();
  std::string origin =
      url.scheme + "://" + (url.user_info.empty() ? "" : url.user_info + "@") + url.Authority();
  return std::make_unique<HttpStore>(std::move(options), std::move(origin), std::move(name), http);
}

}  // namespace leat::store::http
