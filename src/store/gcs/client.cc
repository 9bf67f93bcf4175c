#include "store/gcs/client.h"

#include <fmt/format.h>

#include <algorithm>
#include <random>
#include <utility>

#include "base/bytes.h"
#include "base/log.h"
#include "net/ip.h"
#include "net/url.h"
#include "store/http_answer.h"

namespace leat::store::gcs {
namespace {

bool InTheClear(const std::string& endpoint) {
  const auto url = net::ParseUrl(endpoint);
  return url && url->scheme == "http" && url->host != "localhost" && url->host != "[::1]" &&
         !net::IsIpv4In(url->host, "127.");
}

std::string Boundary() {
  std::random_device random;
  return fmt::format("leat-{:08x}{:08x}{:08x}{:08x}", random(), random(), random(), random());
}

/// What the service has of a resumable upload, by the Range of its 308: "bytes=0-42"; none: 0.
std::uint64_t HeldBytes(const net::HttpResponse& response) {
  const std::string_view range = response.headers.Get("Range").value_or("");
  const std::size_t dash = range.find('-');
  if (!range.starts_with("bytes") || dash == range.npos) return 0;
  const auto last = ParseDecimal(range.substr(dash + 1));
  return last ? *last + 1 : 0;
}

}  // namespace

Client::Client(const GcsOptions& options, auth::CredentialProvider& credentials,
               net::HttpTransport& http, Clock& clock)
    : options_(options),
      user_project_(options.quota_project.empty() && options.requester_pays
                        ? options.project
                        : options.quota_project),
      in_the_clear_(InTheClear(options.endpoint)),
      credentials_(credentials),
      http_(http),
      clock_(clock) {}

Result<net::HttpResponse> Client::Send(const Spec& spec, const std::string& url,
                                       const CallContext& ctx) {
  for (bool renewed = false;; renewed = true) {
    auto given = credentials_.Get(ctx);
    if (!given) return Fail(std::move(given), url);
    if (in_the_clear_ && !given->session_token.empty()) {
      return Fail(Errc::kInvalid,
                  fmt::format("{}: {} is not https://, and a token must not go there in the clear",
                              url, options_.endpoint));
    }
    net::HttpRequest request;
    request.method = spec.method;
    request.url = options_.endpoint + spec.path + (spec.query.empty() ? "" : "?" + spec.query);
    request.headers = spec.headers;
    if (!given->session_token.empty())
      request.headers.Add("Authorization", "Bearer " + given->session_token);
    if (!user_project_.empty()) request.headers.Add("x-goog-user-project", user_project_);
    request.body = spec.body;
    request.stall_timeout = spec.stall_timeout;
    request.on_response = spec.on_response;
    request.sink = spec.sink;
    auto response = PerformFor(url, http_, std::move(request), ctx);
    if (!response) return response;
    if (response->status != 401 || renewed || given->session_token.empty()) return response;
    credentials_.Invalidate();
  }
}

Result<Resource> Client::Upload(std::string_view name, std::span<const std::byte> body,
                                const PutOptions& options, const std::string& url,
                                const CallContext& ctx) {
  const std::uint32_t crc32c = digest::Crc32c(body);
  const std::string resource = WriteObject(name, options.metadata, "", crc32c);
  const std::string query = options.if_absent ? "&ifGenerationMatch=0" : "";
  LEAT_ASSIGN_OR_RETURN(const net::HttpResponse response,
                        body.size() <= options_.resumable_from
                            ? UploadAtOnce(resource, body, query, url, ctx)
                            : UploadResumably(resource, body, query, url, ctx));
  if (response.status == 412 && options.if_absent)
    return Fail(Errc::kConflict, url + " exists already");
  if (!Ok(response)) return Explain(url, response, "bucket");
  auto made = ParseObject(response.body);
  if (!made) {
    return Fail(Errc::kInvalid, fmt::format("{}: the server does not speak Google's protocol: {}{}",
                                            url, made.error().message(), WhatItAnswered(response)));
  }
  if (made->info.size != body.size() || (made->crc32c && *made->crc32c != crc32c))
    return Fail(Errc::kUnavailable, url + " arrived damaged at the server");
  return made;
}

Result<net::HttpResponse> Client::UploadAtOnce(std::string_view resource,
                                               std::span<const std::byte> body, std::string query,
                                               const std::string& url, const CallContext& ctx) {
  const std::string boundary = Boundary();
  std::string whole = fmt::format(
      "--{0}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{1}\r\n--{0}\r\n"
      "Content-Type: application/octet-stream\r\n\r\n",
      boundary, resource);
  whole.reserve(whole.size() + body.size() + boundary.size() + 8);
  whole += AsText(body);
  whole += fmt::format("\r\n--{}--\r\n", boundary);
  Spec spec{.method = "POST", .body = AsBytes(whole)};
  spec.path = "/upload/storage/v1/b/" + net::PercentEncode(options_.bucket) + "/o";
  spec.query = "uploadType=multipart" + query;
  spec.headers.Add("Content-Type", "multipart/related; boundary=" + boundary);
  return Send(spec, url, ctx);
}

// https://cloud.google.com/storage/docs/performing-resumable-uploads
Result<net::HttpResponse> Client::UploadResumably(std::string_view resource,
                                                  std::span<const std::byte> body,
                                                  std::string query, const std::string& url,
                                                  const CallContext& ctx) {
  Spec spec{.method = "POST", .body = AsBytes(resource)};
  spec.path = "/upload/storage/v1/b/" + net::PercentEncode(options_.bucket) + "/o";
  spec.query = "uploadType=resumable" + query;
  spec.headers.Add("Content-Type", "application/json; charset=UTF-8");
  spec.headers.Add("X-Upload-Content-Type", "application/octet-stream");
  spec.headers.Add("X-Upload-Content-Length", std::to_string(body.size()));
  LEAT_ASSIGN_OR_RETURN(const net::HttpResponse begun, Send(spec, url, ctx));
  if (!Ok(begun)) return begun;
  const std::string session(begun.headers.Get("Location").value_or(""));
  if (session.empty())
    return Fail(Errc::kInvalid, url + ": the server began an upload and did not say where");
  if (options_.endpoint.starts_with("https://") && !session.starts_with("https://"))
    return Fail(Errc::kInvalid, url + ": the server wants the bytes in the clear");

  std::uint64_t held = 0;
  auto response = PutSession(session, 0, body, false, url, ctx);
  // What broke off may have arrived, in part or all of it: the service knows. As long as each
  // attempt brings something, it goes on.
  for (;;) {
    const bool lost = !response && response.error().code() == Errc::kUnavailable;
    const bool failed = response && response->status >= 500;
    if (!lost && !failed && !(response && response->status == 308)) return response;
    if (lost || failed) {
      auto asked = PutSession(session, 0, body, true, url, ctx);
      if (!asked || (asked->status != 308 && !Ok(*asked))) return response;
      if (Ok(*asked)) return asked;
      response = std::move(asked);
    }
    const std::uint64_t now = HeldBytes(*response);
    if (now <= held || now > body.size()) {
      return Fail(Errc::kUnavailable,
                  fmt::format("{}: the server has {} of {} bytes, and takes no more", url, now,
                              body.size()));
    }
    held = now;
    response = PutSession(session, held, body, false, url, ctx);
  }
}

Result<net::HttpResponse> Client::PutSession(const std::string& session, std::uint64_t from,
                                             std::span<const std::byte> body, bool ask,
                                             const std::string& url, const CallContext& ctx) {
  net::HttpRequest request{.method = "PUT", .url = session};
  if (ask) {
    request.headers.Add("Content-Range", fmt::format("bytes */{}", body.size()));
  } else {
    // (libcurl may send it twice, when the connection was closed on it: bytes that are there
    // already are passed over)
    request.body = body.subspan(from);
    request.headers.Add("Content-Range",
                        request.body.empty()
                            ? fmt::format("bytes */{}", body.size())
                            : fmt::format("bytes {}-{}/{}", from, body.size() - 1, body.size()));
  }
  // The session's address is good for it alone: no token goes with it.
  return PerformFor(url, http_, std::move(request), ctx);
}

std::unexpected<Error> Client::Explain(const std::string& url, const net::HttpResponse& response,
                                       std::string_view what) {
  NoteRetryAfter(response, clock_.Now());
  const ApiError said = ParseApiError(response.body);
  const std::string why = said.message.empty() ? "" : ": " + said.message;
  const auto mentions = [&](std::string_view word) {
    return said.message.find(word) != said.message.npos;
  };
  const auto reason = [&](std::string_view word) { return said.reason == word; };
  if (mentions("requester pays")) {
    return Fail(Errc::kDenied, url +
                                   ": the bucket's reader pays: give requester_pays, and a "
                                   "project that pays (GOOGLE_CLOUD_PROJECT)");
  }
  switch (response.status) {
    case 401:
    case 403: {
      if (reason("rateLimitExceeded") || reason("userRateLimitExceeded") || reason("SlowDown"))
        return Fail(Errc::kUnavailable, fmt::format("{}: the service is busy{}", url, why));
      auto given = credentials_.Get({});
      const bool anonymous = given && given->anonymous();
      if (anonymous) {
        return Fail(Errc::kDenied,
                    fmt::format("{}: access is denied without credentials, and none are "
                                "configured ({}{})",
                                url, response.status, why));
      }
      return Fail(Errc::kDenied,
                  fmt::format("{}: access is denied to {} ({}{})", url,
                              given ? given->provider : "the credentials", response.status, why));
    }
    case 404:
      if (what == "bucket" || mentions("bucket does not exist") || reason("NoSuchBucket")) {
        return Fail(Errc::kNotFound, fmt::format("{}: there is no bucket \"{}\" at {}", url,
                                                 Printable(options_.bucket), options_.endpoint));
      }
      return Fail(Errc::kNotFound, url + " does not exist");
    case 408:
    case 410:  // a resumable upload that the service has forgotten
    case 429:
      return Fail(Errc::kUnavailable,
                  fmt::format("{}: the server answered {}{}", url, response.status, why));
    case 400:
      if (mentions("CRC32C") || mentions("MD5") || mentions("crc32c"))
        return Fail(Errc::kUnavailable, url + " arrived damaged at the server" + why);
      break;
    default:
      break;
  }
  return Fail(response.status >= 500 ? Errc::kUnavailable : Errc::kInvalid,
              fmt::format("{}: the server answered {}{}", url, response.status, why));
}

}  // namespace leat::store::gcs
