#include "store/s3/explain.h"

#include <algorithm>
#include <optional>

#include "base/log.h"
#include "net/url.h"
#include "store/http_answer.h"

namespace leat::store::s3 {
namespace {

bool OneOf(std::string_view code, std::initializer_list<std::string_view> codes) {
  return std::find(codes.begin(), codes.end(), code) != codes.end();
}

/// Quoted for a shell, for commands that people copy.
std::string Quoted(std::string_view text) {
  std::string out = "'";
  for (const char c : text) {
    if (c == '\'') {
      out += "'\\''";
    } else {
      out += c;
    }
  }
  return Printable(out + "'");
}

/// " (403 AccessDenied)".
std::string Detail(const net::HttpResponse& response, const S3Error& error) {
  return " (" + std::to_string(response.status) + (error.code.empty() ? "" : " ") +
         Printable(error.code) + ")";
}

std::string Credentials(const Asked& asked) {
  return asked.provider.empty() ? "the credentials" : "the credentials from " + asked.provider;
}

/// What the code says; nullopt when only the status can tell.
std::optional<Error> ByCode(const Asked& asked, const net::HttpResponse& response,
                            const S3Error& error) {
  const std::string_view code = error.code;
  const std::string& url = asked.url;
  const std::string detail = Detail(response, error);
  if (code == "NoSuchBucket") {
    return Error(Errc::kNotFound, url + " does not exist: there is no bucket \"" +
                                      Printable(asked.bucket) + "\" at " + asked.server);
  }
  if (code == "NoSuchVersion" || (code == "NoSuchKey" && !asked.version_id.empty())) {
    return Error(Errc::kNotFound, url + " has no version \"" + Printable(asked.version_id) + "\"");
  }
  if (code == "NoSuchKey") return Error(Errc::kNotFound, url + " does not exist");
  if (code == "MethodNotAllowed" && !asked.version_id.empty()) {
    return Error(Errc::kNotFound, url + ": version \"" + Printable(asked.version_id) +
                                      "\" is the mark of a deletion, not an object");
  }
  if (code == "InvalidAccessKeyId") {
    return Error(Errc::kDenied, url + ": " + asked.server + " does not know the access key of " +
                                    Credentials(asked) + detail);
  }
  if (code == "SignatureDoesNotMatch") {
    return Error(Errc::kDenied,
                 url + ": the secret key of " + Credentials(asked) + " is wrong" + detail);
  }
  if (OneOf(code, {"ExpiredToken", "TokenRefreshRequired"})) {
    return Error(Errc::kDenied, url + ": the session of " + Credentials(asked) +
                                    " has expired; log in again" + detail);
  }
  if (code == "InvalidToken") {
    return Error(Errc::kDenied, url + ": " + asked.server + " does not know the session token of " +
                                    Credentials(asked) + detail);
  }
  if (OneOf(code, {"RequestTimeTooSkewed", "RequestExpired"})) {
    std::string text = url + ": this machine's clock says " + net::FormatDate(asked.now);
    if (const auto date = response.headers.Get("Date")) {
      if (const auto server = net::ParseHttpDate(*date)) {
        text += ", the server's " + net::FormatDate(*server);
      }
    }
    return Error(Errc::kDenied, text + "; set the clock" + detail);
  }
  if (code == "InvalidObjectState") {
    const std::string of =
        error.storage_class.empty() ? "" : " in " + Printable(error.storage_class);
    return Error(Errc::kUnsupported,
                 url + " is archived" + of +
                     " and must be restored before it can be read: aws s3api restore-object"
                     " --bucket " +
                     Quoted(asked.bucket) + " --key " + Quoted(asked.key) +
                     " --restore-request Days=7");
  }
  if (OneOf(code, {"AccessDenied", "AllAccessDisabled", "AccountProblem", "Forbidden"})) {
    return Error(
        Errc::kDenied,
        url +
            (asked.anonymous ? ": access is denied without credentials, and none are configured"
                             : ": access is denied to " + Credentials(asked)) +
            detail);
  }
  if (code == "InvalidBucketName") {
    return Error(Errc::kInvalid, url + ": " + asked.server + " does not take \"" +
                                     Printable(asked.bucket) + "\" as a bucket's name");
  }
  if (code == "KeyTooLongError")
    return Error(Errc::kInvalid, url + ": the key is too long" + detail);
  if (OneOf(code, {"QuotaExceeded", "ServiceQuotaExceededException"})) {
    return Error(Errc::kNoSpace, url + ": the store's quota is used up" + detail);
  }
  if (OneOf(code, {"BadDigest", "XAmzContentSHA256Mismatch", "InvalidDigest"})) {
    return Error(Errc::kUnavailable, url + ": the bytes were damaged on the way" + detail);
  }
  if (OneOf(code, {"SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable",
                   "OperationAborted", "ConditionalRequestConflict", "TooManyRequests",
                   "RequestThrottled", "BandwidthLimitExceeded", "RequestLimitExceeded"})) {
    return Error(Errc::kUnavailable, url + ": " + asked.server + " cannot answer now" + detail);
  }
  if (code == "NotImplemented") {
    return Error(Errc::kUnsupported, url + ": " + asked.server + " cannot do that" + detail);
  }
  return std::nullopt;
}

}  // namespace

S3Error ErrorOf(const net::HttpResponse& response) {
  return ParseError(response.body).value_or(S3Error{});
}

bool IsAboutOldCredentials(std::string_view code) {
  return OneOf(code,
               {"ExpiredToken", "TokenRefreshRequired", "InvalidToken", "InvalidAccessKeyId"});
}

bool IsAboutRegion(const net::HttpResponse& response, std::string_view code) {
  return response.status == 301 ||
         OneOf(code, {"PermanentRedirect", "AuthorizationHeaderMalformed",
                      "IllegalLocationConstraintException", "InvalidLocationConstraint"});
}

Error Explain(const Asked& asked, const net::HttpResponse& response, const S3Error& error) {
  if (auto known = ByCode(asked, response, error)) {
    if (known->code() == Errc::kUnavailable) NoteRetryAfter(response, asked.now);
    return *std::move(known);
  }
  const std::string& url = asked.url;
  const std::string detail = Detail(response, error);
  const int status = response.status;
  if (status >= 500 || status == 429 || status == 408) {
    if (status == 501) {
      return {Errc::kUnsupported, url + ": " + asked.server + " cannot do that" + detail};
    }
    if (status == 507) return {Errc::kNoSpace, url + ": the store is full" + detail};
    NoteRetryAfter(response, asked.now);
    return {Errc::kUnavailable, url + ": " + asked.server + " cannot answer now" + detail};
  }
  if (IsAboutRegion(response, error.code)) {
    const std::string region =
        !error.region.empty()
            ? error.region
            : std::string(response.headers.Get("x-amz-bucket-region").value_or(""));
    const std::string other = !region.empty()           ? "region " + region
                              : !error.endpoint.empty() ? error.endpoint
                                                        : "another region";
    return {Errc::kInvalid, url + ": the bucket is in " + Printable(other) +
                                ", and the request went to " + Printable(asked.region) +
                                "; set the region or the endpoint" + detail};
  }
  if (status == 407) {
    return {Errc::kDenied, url + ": the proxy on the way wants a login" + detail};
  }
  // Whoever has a body and no <Error> in it is no S3; an answer to HEAD has none.
  if (error.code.empty() && !response.body.empty()) {
    return {Errc::kInvalid,
            url + ": " + asked.server + " does not speak S3" + WhatItAnswered(response)};
  }
  const std::string said = error.message.empty() ? "" : ": " + Printable(error.message);
  if (status == 404) return {Errc::kNotFound, url + " does not exist"};
  if (status == 401 || status == 403) {
    return {Errc::kDenied,
            url +
                (asked.anonymous ? ": access is denied without credentials, and none are configured"
                                 : ": access is denied to " + Credentials(asked)) +
                detail};
  }
  if (status == 405)
    return {Errc::kUnsupported, url + ": " + asked.server + " cannot do that" + detail};
  if (status >= 300 && status < 400) {
    return {Errc::kInvalid,
            url + ": " + asked.server + " sends us elsewhere and does not say where" + detail};
  }
  return {Errc::kInvalid, url + ": " + asked.server + " refused the request" + detail + said};
}

}  // namespace leat::store::s3
