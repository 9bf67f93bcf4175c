#include "store/swift/client.h"

#include <fmt/format.h>

#include <utility>

#include "base/bytes.h"
#include "base/log.h"
#include "digest/md5_lanes.h"
#include "store/http_answer.h"

namespace leat::store::swift {

std::string Header(const net::HttpResponse& response, std::string_view name) {
  return std::string(response.headers.Get(name).value_or(""));
}

Version VersionOf(const net::HttpResponse& response) {
  Version version{.etag = UnquoteEtag(Header(response, "ETag")),
                  .version_id = Header(response, "X-Object-Version-Id")};
  if (version.version_id == "null") version.version_id.clear();
  return version;
}

std::string Client::UrlOf(std::string_view key) const {
  const std::string container = "swift://" + options_.container;
  return key.empty() ? container : container + "/" + Printable(key);
}

Result<Version> Client::PutBody(Spec spec, std::string_view key, const CallContext& ctx) {
  std::string md5;
  if (digest::CanHash(digest::Kind::kMd5)) {
    md5 = ToHex(AsBytes(digest::Md5(spec.body)));
    spec.headers.Add("ETag", md5);
  }
  spec.headers.Add("Content-Type", "application/octet-stream");
  LEAT_ASSIGN_OR_RETURN(const net::HttpResponse response, Send(spec, key, ctx));
  if (response.status == 412 && spec.headers.Get("If-None-Match"))
    return Fail(Errc::kConflict, UrlOf(key) + " exists already");
  if (!Ok(response)) return Explain(response.status == 404 ? "" : key, response);
  if (response.status == 202)
    return Fail(Errc::kUnavailable, UrlOf(key) + ": another writer was at it in the same moment");
  LEAT_RETURN_IF_ERROR(CheckIsSwift(response, key));
  Version version = VersionOf(response);
  if (!md5.empty() && version.etag != md5)
    return Fail(Errc::kUnavailable, UrlOf(key) + " arrived damaged at the server");
  return version;
}

Status Client::CheckIsSwift(const net::HttpResponse& response, std::string_view key) const {
  if (response.headers.Get("ETag")) return {};
  return Fail(Errc::kInvalid, UrlOf(key) +
                                  ": the server does not speak Swift: its answer has no "
                                  "ETag" +
                                  WhatItAnswered(response));
}

Result<net::HttpResponse> Client::Send(const Spec& spec, std::string_view key,
                                       const CallContext& ctx) {
  for (bool renewed = false;; renewed = true) {
    auto given = credentials_.Get(ctx);
    if (!given) return Fail(std::move(given), UrlOf(key));
    net::HttpRequest request;
    request.method = spec.method;
    request.url = given->endpoint + (spec.path.empty() ? "" : "/" + spec.path) +
                  (spec.query.empty() ? "" : "?" + spec.query);
    request.headers = spec.headers;
    if (!given->session_token.empty()) request.headers.Add("X-Auth-Token", given->session_token);
    request.body = spec.body;
    request.stall_timeout = spec.stall_timeout;
    request.ca_file = options_.ca_file;
    request.on_response = spec.on_response;
    request.sink = spec.sink;
    auto response = PerformFor(UrlOf(key), http_, std::move(request), ctx);
    if (!response) return response;
    if (response->status != 401 || renewed || given->session_token.empty()) return response;
    credentials_.Invalidate();
  }
}

std::unexpected<Error> Client::Explain(std::string_view key, const net::HttpResponse& response) {
  NoteRetryAfter(response, clock_.Now());
  const std::string url = UrlOf(key);
  const std::string server = options_.account.substr(0, options_.account.find(' '));
  switch (response.status) {
    case 401:
    case 403:
      return Fail(Errc::kDenied,
                  fmt::format("{}: access denied by the object store of {}", url, server));
    case 404:
      if (key.empty()) return Fail(Errc::kNotFound, url + ": there is no such container");
      return Fail(Errc::kNotFound, url + " does not exist");
    case 412:
      return Fail(Errc::kInvalid, url + ": the server does not take that name (412)");
    case 413:
      return Fail(Errc::kInvalid, url + ": it is too large, or the account is full (413)");
    case 422:
      return Fail(Errc::kUnavailable, url + " arrived damaged at the server (422)");
    case 408:
    case 409:  // another writer was at it in the same moment
    case 429:
    case 498:
      return Fail(Errc::kUnavailable,
                  fmt::format("{}: the server answered {}", url, response.status));
    default:
      break;
  }
  std::string said = response.body.substr(0, 200);
  if (said.find('<') != std::string::npos) said.clear();
  return Fail(response.status >= 500 ? Errc::kUnavailable : Errc::kInvalid,
              fmt::format("{}: the server answered {}{}{}", url, response.status,
                          said.empty() ? "" : ": ", Printable(said)));
}

}  // namespace leat::store::swift
