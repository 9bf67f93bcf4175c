#include "store/s3/s3_store.h"

#include <algorithm>
#include <mutex>
#include <utility>

#include "auth/sigv4.h"
#include "base/bytes.h"
#include "base/log.h"
#include "net/url.h"
#include "store/http_answer.h"
#include "store/s3/endpoint.h"
#include "store/s3/explain.h"
#include "store/s3/xml.h"

namespace leat::store::s3 {
namespace {

using std::chrono::system_clock;

/// A request before it has a host, a time and a signature.
struct Spec {
  std::string method = "GET";
  std::string key = {};  ///< empty: the bucket
  std::string version_id = {};
  std::string query = {};
  net::Headers headers = {};
  std::span<const std::byte> body = {};
  std::string payload_sha256 = std::string(auth::kEmptyPayloadSha256);
  std::function<Status(const net::HttpResponse&)> on_response = {};
  Sink sink = {};
};

/// An answer, and for what is no success the store's words for it.
struct Answer {
  net::HttpResponse response;
  S3Error error = {};
  Asked asked = {};

  bool ok() const { return response.status >= 200 && response.status < 300; }
  std::unexpected<Error> Failure() const {
    return std::unexpected(Explain(asked, response, error));
  }
};

std::string Header(const net::HttpResponse& response, std::string_view name) {
  return std::string(response.headers.Get(name).value_or(""));
}

Version VersionOf(const net::HttpResponse& response) {
  return {.etag = UnquoteEtag(Header(response, "ETag")),
          .version_id = Header(response, "x-amz-version-id")};
}

/// A checksum header's digest, unless it is one over the parts' checksums.
std::optional<digest::Expected> Checksum(const net::HttpResponse& response, std::string_view name,
                                         digest::Kind kind, std::size_t size) {
  const auto header = response.headers.Get(name);
  if (!header || header->find('-') != header->npos ||
      Header(response, "x-amz-checksum-type") == "COMPOSITE") {
    return std::nullopt;
  }
  auto value = digest::Base64Decode(*header);
  if (!value || value->size() != size) return std::nullopt;
  return digest::Expected{kind, *std::move(value)};
}

/// What the etag tells of the whole object, in the answer to a range too: the MD5 of what was put
/// in one piece and is not encrypted with a key of its own.
/// https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html
std::optional<digest::Expected> Md5Of(const net::HttpResponse& response) {
  if (Header(response, "x-amz-server-side-encryption").starts_with("aws:kms") ||
      response.headers.Get("x-amz-server-side-encryption-customer-algorithm")) {
    return std::nullopt;
  }
  const std::string etag = UnquoteEtag(Header(response, "ETag"));
  if (etag.size() != 32 || !digest::CanHash(digest::Kind::kMd5)) return std::nullopt;
  auto md5 = FromHex(etag);
  if (!md5) return std::nullopt;
  return digest::Expected{digest::Kind::kMd5, *std::move(md5)};
}

/// The strongest digest that the answer to a request for the whole object gives.
std::optional<digest::Expected> ExpectedOf(const net::HttpResponse& response) {
  if (auto sha = Checksum(response, "x-amz-checksum-sha256", digest::Kind::kSha256, 32)) return sha;
  if (auto crc = Checksum(response, "x-amz-checksum-crc32c", digest::Kind::kCrc32c, 4)) return crc;
  return Md5Of(response);
}

ObjectInfo InfoOf(std::string_view key, const net::HttpResponse& response) {
  ObjectInfo info;
  info.key = key;
  info.version = VersionOf(response);
  info.modified = net::ParseHttpDate(Header(response, "Last-Modified"));
  const std::string archive = Header(response, "x-amz-archive-status");
  const bool restored =
      Header(response, "x-amz-restore").find("ongoing-request=\"false\"") != std::string::npos;
  info.archived =
      !restored && (IsArchiveClass(Header(response, "x-amz-storage-class")) || !archive.empty());
  return info;
}

class S3Store final : public ObjectStore {
 public:
  S3Store(S3Options options, Endpoint endpoint, auth::CredentialProvider& credentials,
          net::HttpTransport& http, Clock& clock)
      : options_(std::move(options)),
        name_("s3://" + options_.bucket),
        identity_(endpoint.Name() + " " + name_),
        credentials_(credentials),
        http_(http),
        clock_(clock),
        endpoint_(std::move(endpoint)) {}

  std::string_view Describe() const override { return name_; }
  std::string_view Identity() const override { return identity_; }
  Capabilities capabilities() const override {
    return {.list = true,
            .ranges = true,
            .versions = true,
            .conditional_read = true,
            .put = true,
            .put_if_absent = true,
            .any_key = true};
  }

  Result<ObjectInfo> Stat(std::string_view key, std::string_view version_id,
                          const CallContext& ctx) override {
    LEAT_RETURN_IF_ERROR(CheckKey(key));
    Spec spec{.method = "HEAD", .key = std::string(key), .version_id = std::string(version_id)};
    spec.headers.Add("x-amz-checksum-mode", "ENABLED");
    LEAT_ASSIGN_OR_RETURN(const Answer answer, Send(spec, ctx));
    if (!answer.ok()) return answer.Failure();
    LEAT_RETURN_IF_ERROR(CheckIsS3(answer.response, key));
    const auto size = ParseDecimal(Header(answer.response, "Content-Length"));
    if (!size) return Fail(Errc::kCorrupt, UrlOf(key) + ": the server did not say how large it is");
    ObjectInfo info = InfoOf(key, answer.response);
    info.size = *size;
    info.expected = ExpectedOf(answer.response);
    return info;
  }

  Status Read(std::string_view key, const ReadOptions& options, const Sink& sink,
              const CallContext& ctx) override {
    LEAT_RETURN_IF_ERROR(CheckKey(key));
    RangeDelivery delivery(UrlOf(key), options);
    if (delivery.asks_nothing()) return ReadNothing(key, options, ctx);
    const Version& pin = options.if_version;
    Spec spec{.key = std::string(key), .version_id = pin.version_id};
    delivery.AddHeader(spec.headers);
    // A weak etag never matches in If-Match (RFC 9110, 13.1.1): the answer's is compared below.
    if (!pin.etag.empty() && !pin.weak()) spec.headers.Add("If-Match", QuoteEtag(pin.etag));
    if (delivery.asks_whole()) spec.headers.Add("x-amz-checksum-mode", "ENABLED");
    spec.on_response = [&](const net::HttpResponse& response) -> Status {
      LEAT_RETURN_IF_ERROR(CheckIsS3(response, key));
      ObjectInfo info = InfoOf(key, response);
      if (!SameVersion(pin, info.version)) return FailReplaced(UrlOf(key), pin, info.version);
      LEAT_RETURN_IF_ERROR(delivery.Begin(response));
      if (!delivery.size()) {
        return Fail(Errc::kCorrupt, UrlOf(key) + ": the server did not say how large it is");
      }
      info.size = *delivery.size();
      const bool whole = delivery.is_whole() && options.offset == 0 && options.length >= info.size;
      info.expected = whole ? ExpectedOf(response) : Md5Of(response);
      return options.on_info ? options.on_info(info) : Status();
    };
    spec.sink = [&](std::span<const std::byte> piece) { return delivery.Take(piece, sink); };
    auto answer = Send(spec, ctx);
    if (!answer && delivery.enough()) return {};
    if (!answer) return std::unexpected(std::move(answer).error());
    if (answer->ok()) return delivery.End();
    if (answer->response.status == 416) return ReadNothing(key, options, ctx);
    if (answer->response.status == 412) return FailWithPresent(key, pin, ctx);
    return answer->Failure();
  }

  Result<ListPage> List(std::string_view prefix, const ListOptions& options,
                        const CallContext& ctx) override {
    LEAT_ASSIGN_OR_RETURN(Listing listing, ListOnce(prefix, options, "", ctx));
    // Where a stretch holds nothing but what was deleted, a page may be empty and not the last.
    for (int empty_pages = 0; listing.objects.empty() && listing.truncated; ++empty_pages) {
      if (listing.next.empty() || empty_pages == 1000) {
        return Fail(Errc::kCorrupt,
                    UrlOf(prefix) + ": the listing is truncated but does not go on");
      }
      const std::string at = std::exchange(listing.next, "");
      LEAT_ASSIGN_OR_RETURN(listing, ListOnce(prefix, options, at, ctx));
    }
    ListPage page;
    page.objects = std::move(listing.objects);
    page.truncated = listing.truncated;
    std::string_view before = options.start_after;
    for (const ObjectInfo& info : page.objects) {
      if (!info.key.starts_with(prefix)) {
        return Fail(Errc::kCorrupt, UrlOf(prefix) + ": the listing has the key \"" +
                                        Printable(info.key) + "\" outside of it");
      }
      if (info.key <= before && !before.empty()) {
        return Fail(Errc::kCorrupt, UrlOf(prefix) + ": the listing is out of order at \"" +
                                        Printable(info.key) + "\"");
      }
      before = info.key;
    }
    if (page.truncated) page.next_after = page.objects.back().key;
    return page;
  }

  Result<Version> Put(std::string_view key, std::span<const std::byte> body,
                      const PutOptions& options, const CallContext& ctx) override {
    LEAT_RETURN_IF_ERROR(CheckKey(key));
    Spec spec{.method = "PUT", .key = std::string(key), .body = body};
    spec.payload_sha256 = ToHex(digest::HashSha256(body));
    if (digest::CanHash(digest::Kind::kMd5)) {
      digest::Hasher md5(digest::Kind::kMd5);
      md5.Update(body);
      spec.headers.Add("Content-MD5", digest::Base64Encode(AsBytes(md5.Finish())));
    }
    if (options.if_absent) spec.headers.Add("If-None-Match", "*");
    LEAT_ASSIGN_OR_RETURN(const Answer answer, Send(spec, ctx));
    if (answer.response.status == 412 && options.if_absent) {
      return Fail(Errc::kConflict, UrlOf(key) + " exists already");
    }
    if (!answer.ok()) return answer.Failure();
    LEAT_RETURN_IF_ERROR(CheckIsS3(answer.response, key));
    return VersionOf(answer.response);
  }

  Status Remove(std::string_view key, const CallContext& ctx) override {
    LEAT_RETURN_IF_ERROR(CheckKey(key));
    LEAT_ASSIGN_OR_RETURN(const Answer answer,
                          Send({.method = "DELETE", .key = std::string(key)}, ctx));
    if (answer.ok() || answer.error.code == "NoSuchKey") return {};
    return answer.Failure();
  }

 private:
  Status CheckKey(std::string_view key) const {
    if (key.empty()) return Fail(Errc::kInvalid, name_ + ": a key must not be empty");
    return {};
  }

  /// What S3 says of an object always has an etag: a proxy's page, or an error behind a 200, has
  /// not.
  Status CheckIsS3(const net::HttpResponse& response, std::string_view key) const {
    if (response.headers.Get("ETag")) return {};
    const std::string type = Header(response, "Content-Type");
    if (type.find("xml") != std::string::npos) {
      return Fail(Errc::kUnavailable, UrlOf(key) +
                                          ": the server began to answer and sent an error"
                                          " in place of the object" +
                                          WhatItAnswered(response));
    }
    return Fail(Errc::kInvalid, UrlOf(key) + ": " + ServerName() +
                                    " does not speak S3: its answer has no ETag" +
                                    WhatItAnswered(response));
  }

  std::string ServerName() const { return identity_.substr(0, identity_.find(' ')); }

  /// For a range in which there is nothing to read: what the object is, and that it is there.
  Status ReadNothing(std::string_view key, const ReadOptions& options, const CallContext& ctx) {
    LEAT_ASSIGN_OR_RETURN(ObjectInfo info, Stat(key, options.if_version.version_id, ctx));
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

  /// The condition did not hold: finds out what is there now, so that the message names both.
  std::unexpected<Error> FailWithPresent(std::string_view key, const Version& pin,
                                         const CallContext& ctx) {
    auto now = Stat(key, pin.version_id, ctx);
    if (now) return FailReplaced(UrlOf(key), pin, now->version);
    return Fail(Errc::kConflict, UrlOf(key) + " was replaced while it was read (" + NameOf(pin) +
                                     " was asked for; what is there now cannot be told: " +
                                     now.error().message() + ")");
  }

  Result<Listing> ListOnce(std::string_view prefix, const ListOptions& options,
                           const std::string& at, const CallContext& ctx) {
    for (;;) {
      const bool v1 = IsV1();
      Spec spec{.query = ListQuery(prefix, options, at, v1)};
      LEAT_ASSIGN_OR_RETURN(Answer answer, Send(spec, ctx));
      if (!answer.ok()) {
        if (!v1 && (answer.error.code == "NotImplemented" || answer.response.status == 501)) {
          NoteV1();
          continue;
        }
        answer.asked.url = UrlOf(prefix);
        return answer.Failure();
      }
      std::string& body = answer.response.body;
      const std::string_view start = std::string_view(body).substr(0, 512);
      const bool is_xml =
          start.find("<ListBucketResult") != start.npos || start.find("<?xml") != start.npos;
      if (!is_xml) {
        return Fail(Errc::kInvalid, UrlOf(prefix) + ": " + ServerName() + " does not speak S3" +
                                        WhatItAnswered(answer.response));
      }
      if (start.find("<Error") != start.npos) {
        if (const auto error = ParseError(body)) {
          answer.error = *error;
          answer.response.status = 500;  // an error behind a 200 came up while the server worked
          answer.asked.url = UrlOf(prefix);
          return answer.Failure();
        }
      }
      auto listing = ParseListing(body);
      if (!listing) return Fail(std::move(listing), UrlOf(prefix));
      // Version 1 does not know start-after; a first page is the same in both.
      if (!v1 && !listing->is_v2) {
        NoteV1();
        if (!options.start_after.empty()) continue;
      }
      return listing;
    }
  }

  static std::string ListQuery(std::string_view prefix, const ListOptions& options,
                               const std::string& at, bool v1) {
    std::string query = v1 ? "encoding-type=url" : "list-type=2&encoding-type=url";
    if (!at.empty()) {
      query += (v1 ? "&marker=" : "&continuation-token=") + net::PercentEncode(at);
    } else if (!options.start_after.empty()) {
      query += (v1 ? "&marker=" : "&start-after=") + net::PercentEncode(options.start_after);
    }
    if (options.max_keys > 0) query += "&max-keys=" + std::to_string(options.max_keys);
    if (!prefix.empty()) query += "&prefix=" + net::PercentEncode(prefix);
    return query;
  }

  /// One request; a second one where the first taught us the region, the time, or that the
  /// credentials are too old.
  Result<Answer> Send(const Spec& spec, const CallContext& ctx) {
    bool moved = false, corrected = false, renewed = false;
    int redirects = 0;
    std::string elsewhere;  // where a temporary redirect leads
    for (;;) {
      auto given = credentials_.Get(ctx);
      if (!given) return Fail(std::move(given), UrlOf(spec.key));
      const Endpoint endpoint = CurrentEndpoint();
      const system_clock::duration correction = ClockCorrection();
      LEAT_ASSIGN_OR_RETURN(Answer answer, Perform(spec, *given, endpoint, elsewhere, ctx));
      elsewhere.clear();
      if (answer.ok()) return answer;
      if (spec.method == "HEAD") LEAT_RETURN_IF_ERROR(AskWhy(spec, *given, endpoint, answer, ctx));
      const std::string_view code = answer.error.code;

      if (answer.response.status == 307 && redirects++ < 5) {
        elsewhere = RedirectOf(endpoint.UrlOf(spec.key, QueryOf(spec)), answer);
        if (!elsewhere.empty()) continue;
      }
      if (!moved && IsAboutRegion(answer.response, code)) {
        moved = true;
        if (SwitchRegion(endpoint, answer)) continue;
      }
      if (!corrected && code == "RequestTimeTooSkewed") {
        corrected = true;
        if (CorrectClock(answer.response, correction)) continue;
      }
      const bool is_over = given->expires && *given->expires <= Now();
      if (!renewed && (IsAboutOldCredentials(code) || (code == "AccessDenied" && is_over))) {
        renewed = true;
        const auto is_new = [&](const Result<auth::Credentials>& next) {
          return next && (next->access_key_id != given->access_key_id ||
                          next->session_token != given->session_token);
        };
        // Another call may have renewed them meanwhile.
        if (is_new(credentials_.Get(ctx))) continue;
        credentials_.Invalidate();
        if (is_new(credentials_.Get(ctx))) continue;
      }
      return answer;
    }
  }

  static std::string QueryOf(const Spec& spec) {
    if (spec.version_id.empty()) return spec.query;
    return (spec.query.empty() ? "" : spec.query + "&") +
           "versionId=" + net::PercentEncode(spec.version_id);
  }

  Result<Answer> Perform(const Spec& spec, const auth::Credentials& credentials,
                         const Endpoint& endpoint, const std::string& url, const CallContext& ctx) {
    net::HttpRequest request;
    request.method = spec.method;
    request.url = url.empty() ? endpoint.UrlOf(spec.key, QueryOf(spec)) : url;
    request.headers = spec.headers;
    request.body = spec.body;
    request.ca_file = options_.ca_file;
    if (options_.requester_pays) request.headers.Add("x-amz-request-payer", "requester");
    LEAT_RETURN_IF_ERROR(auth::SignV4(request, credentials, {.region = endpoint.region()}, Now(),
                                      spec.payload_sha256));
    // What the callbacks fail with is the caller's own error, not one of the connection.
    bool ours = false;
    if (spec.on_response) {
      request.on_response = [&](const net::HttpResponse& response) {
        auto status = spec.on_response(response);
        ours = ours || !status;
        return status;
      };
    }
    if (spec.sink) {
      request.sink = [&](std::span<const std::byte> piece) {
        auto status = spec.sink(piece);
        ours = ours || !status;
        return status;
      };
    }
    auto response = http_.Perform(request, ctx);
    if (!response && ours) return std::unexpected(std::move(response).error());
    if (!response) return Fail(std::move(response), UrlOf(spec.key));
    Answer answer{.response = *std::move(response)};
    if (!answer.ok()) answer.error = ErrorOf(answer.response);
    answer.asked = {.url = spec.key.empty() ? name_ : UrlOf(spec.key),
                    .bucket = options_.bucket,
                    .key = spec.key,
                    .version_id = spec.version_id,
                    .server = ServerName(),
                    .region = endpoint.region(),
                    .now = Now(),
                    .anonymous = credentials.anonymous(),
                    .provider = credentials.provider};
    return answer;
  }

  /// The answer to a HEAD has no body that says why it failed; that to a GET of the first byte has.
  Status AskWhy(const Spec& spec, const auth::Credentials& credentials, const Endpoint& endpoint,
                Answer& answer, const CallContext& ctx) {
    const int status = answer.response.status;
    const bool may_tell = status == 400 || status == 401 || status == 403 || status == 404 ||
                          (status == 301 && !answer.response.headers.Get("x-amz-bucket-region"));
    if (!may_tell) return {};
    Spec get = spec;
    get.method = "GET";
    get.headers = {};
    get.headers.Add("Range", "bytes=0-0");
    get.sink = [](std::span<const std::byte>) { return Status(); };
    LEAT_ASSIGN_OR_RETURN(Answer told, Perform(get, credentials, endpoint, "", ctx));
    if (told.response.status == status) answer = std::move(told);
    return {};
  }

  /// Where a 307 leads; never from TLS to plain text, and with a signature to no strange host.
  static std::string RedirectOf(const std::string& from, const Answer& answer) {
    const auto base = net::ParseUrl(from);
    const auto location = answer.response.headers.Get("Location");
    if (!base || !location) return {};
    const auto next = net::ResolveUrl(*base, *location);
    if (!next || (base->scheme == "https" && next->scheme != "https")) return {};
    if (next->host != base->host && !(IsAwsHost(next->host) && IsAwsHost(base->host))) return {};
    return next->ToString();
  }

  /// False when the answer does not say which region, or says the one that was asked.
  bool SwitchRegion(const Endpoint& asked, const Answer& answer) {
    std::string region = answer.error.region;
    if (region.empty()) region = Header(answer.response, "x-amz-bucket-region");
    const auto other =
        Endpoint::Make(options_.bucket, region, options_.endpoint, options_.addressing_style);
    if (!other || region == asked.region()) return false;
    const std::lock_guard lock(mutex_);
    if (endpoint_.region() == asked.region()) endpoint_ = asked.InRegion(region);
    return true;
  }

  /// Takes the server's time for ours from now on. False when it gave none, or the one that the
  /// request was signed with.
  bool CorrectClock(const net::HttpResponse& response, system_clock::duration used) {
    const auto server = net::ParseHttpDate(Header(response, "Date"));
    if (!server) return false;
    const system_clock::duration correction = *server - clock_.Now();
    if (std::chrono::abs(correction - used) < std::chrono::seconds(60)) return false;
    const std::lock_guard lock(mutex_);
    clock_correction_ = correction;
    return true;
  }
  system_clock::duration ClockCorrection() {
    const std::lock_guard lock(mutex_);
    return clock_correction_;
  }

  system_clock::time_point Now() {
    const auto now = clock_.Now();
    const std::lock_guard lock(mutex_);
    return now + clock_correction_;
  }
  Endpoint CurrentEndpoint() {
    const std::lock_guard lock(mutex_);
    return endpoint_;
  }
  bool IsV1() {
    const std::lock_guard lock(mutex_);
    return v1_;
  }
  void NoteV1() {
    const std::lock_guard lock(mutex_);
    v1_ = true;
  }

  const S3Options options_;
  const std::string name_, identity_;
  auth::CredentialProvider& credentials_;
  net::HttpTransport& http_;
  Clock& clock_;

  /// Guards what answers have taught us.
  std::mutex mutex_;
  Endpoint endpoint_;
  system_clock::duration clock_correction_{0};
  bool v1_ = false;  ///< the server lists by version 1 only
};

}  // namespace

Result<std::unique_ptr<ObjectStore>> MakeS3Store(S3Options options,
                                                 auth::CredentialProvider& credentials,
                                                 net::HttpTransport& http, Clock& clock) {
  LEAT_ASSIGN_OR_RETURN(
      Endpoint endpoint,
      Endpoint::Make(options.bucket, options.region, options.endpoint, options.addressing_style));
  return std::make_unique<S3Store>(std::move(options), std::move(endpoint), credentials, http,
                                   clock);
}

}  // namespace leat::store::s3
