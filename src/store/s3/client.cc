#include "store/s3/client.h"

#include <utility>

#include "base/bytes.h"
#include "base/log.h"
#include "digest/digest.h"
#include "net/url.h"
#include "store/http_answer.h"

namespace leat::store::s3 {

using std::chrono::system_clock;

namespace {

std::string QueryOf(const Spec& spec) {
  if (spec.version_id.empty()) return spec.query;
  return (spec.query.empty() ? "" : spec.query + "&") +
         "versionId=" + net::PercentEncode(spec.version_id);
}

/// Where a 307 leads; never from TLS to plain text, and with a signature to no strange host.
std::string RedirectOf(const std::string& from, const Answer& answer) {
  const auto base = net::ParseUrl(from);
  const auto location = answer.response.headers.Get("Location");
  if (!base || !location) return {};
  const auto next = net::ResolveUrl(*base, *location);
  if (!next || (base->scheme == "https" && next->scheme != "https")) return {};
  if (next->host != base->host && !(IsAwsHost(next->host) && IsAwsHost(base->host))) return {};
  return next->ToString();
}

}  // namespace

std::string Header(const net::HttpResponse& response, std::string_view name) {
  return std::string(response.headers.Get(name).value_or(""));
}

std::string S3Client::UrlOf(std::string_view key) const { return name_ + "/" + Printable(key); }

std::string S3Client::region() { return CurrentEndpoint().region(); }

bool S3Client::encrypted() { return CurrentEndpoint().encrypted(); }

Result<Answer> S3Client::Send(const Spec& spec, const CallContext& ctx) {
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

Result<Answer> S3Client::Perform(const Spec& spec, const auth::Credentials& credentials,
                                 const Endpoint& endpoint, const std::string& url,
                                 const CallContext& ctx) {
  net::HttpRequest request;
  request.method = spec.method;
  request.url = url.empty() ? endpoint.UrlOf(spec.key, QueryOf(spec)) : url;
  request.headers = spec.headers;
  request.body = spec.body;
  request.stall_timeout = spec.stall_timeout;
  request.ca_file = options_.ca_file;
  if (options_.requester_pays) request.headers.Add("x-amz-request-payer", "requester");
  // A signature holds the server to the body's SHA-256; without one its MD5 does.
  if (credentials.anonymous() && !spec.body.empty() && !spec.headers.Get("Content-MD5") &&
      digest::CanHash(digest::Kind::kMd5)) {
    digest::Hasher md5(digest::Kind::kMd5);
    md5.Update(spec.body);
    request.headers.Add("Content-MD5", digest::Base64Encode(AsBytes(md5.Finish())));
  }
  LEAT_RETURN_IF_ERROR(auth::SignV4(request, credentials, {.region = endpoint.region()}, Now(),
                                    spec.payload_sha256));
  request.on_response = spec.on_response;
  request.sink = spec.sink;
  auto response = PerformFor(UrlOf(spec.key), http_, std::move(request), ctx);
  if (!response) return std::unexpected(std::move(response).error());
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
Status S3Client::AskWhy(const Spec& spec, const auth::Credentials& credentials,
                        const Endpoint& endpoint, Answer& answer, const CallContext& ctx) {
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

/// False when the answer does not say which region, or says the one that was asked.
bool S3Client::SwitchRegion(const Endpoint& asked, const Answer& answer) {
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
bool S3Client::CorrectClock(const net::HttpResponse& response, system_clock::duration used) {
  const auto server = net::ParseHttpDate(Header(response, "Date"));
  if (!server) return false;
  const system_clock::duration correction = *server - clock_.Now();
  if (std::chrono::abs(correction - used) < std::chrono::seconds(60)) return false;
  const std::lock_guard lock(mutex_);
  clock_correction_ = correction;
  return true;
}
system_clock::duration S3Client::ClockCorrection() {
  const std::lock_guard lock(mutex_);
  return clock_correction_;
}

system_clock::time_point S3Client::Now() {
  const auto now = clock_.Now();
  const std::lock_guard lock(mutex_);
  return now + clock_correction_;
}
Endpoint S3Client::CurrentEndpoint() {
  const std::lock_guard lock(mutex_);
  return endpoint_;
}
}  // namespace leat::store::s3
