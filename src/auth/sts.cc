#include "auth/sts.h"

#include <fmt/format.h>

#include <array>

#include "auth/credential_replies.h"
#include "auth/sigv4.h"
#include "base/bytes.h"
#include "digest/digest.h"
#include "net/url.h"

namespace leat::auth {
namespace {

using namespace std::chrono_literals;

constexpr auto kLimit = 30s;

Errc CodeOf(int status, std::string_view sts_code) {
  static constexpr std::array<std::string_view, 4> kTransient = {
      "Throttling", "ThrottlingException", "RequestTimeout", "IDPCommunicationError"};
  for (const std::string_view code : kTransient) {
    if (sts_code == code) return Errc::kUnavailable;
  }
  if (status >= 500 || status == 429) return Errc::kUnavailable;
  if (sts_code == "ValidationError" || sts_code == "MalformedPolicyDocument") return Errc::kInvalid;
  return Errc::kDenied;
}

}  // namespace

StsClient::StsClient(std::string endpoint, std::string region, std::string ca_file,
                     net::HttpTransport& http, Clock& clock)
    : endpoint_(std::move(endpoint)),
      region_(std::move(region)),
      ca_file_(std::move(ca_file)),
      http_(http),
      clock_(clock) {}

Result<Credentials> StsClient::AssumeRole(const RoleRequest& role, const Credentials& source,
                                          const CallContext& ctx) {
  return Ask("AssumeRole", role, {}, source, ctx);
}

Result<Credentials> StsClient::AssumeRoleWithWebIdentity(const RoleRequest& role,
                                                         std::string_view token,
                                                         const CallContext& ctx) {
  return Ask("AssumeRoleWithWebIdentity", role, "&WebIdentityToken=" + net::PercentEncode(token),
             {}, ctx);
}

Result<Credentials> StsClient::Ask(std::string_view action, const RoleRequest& role,
                                   std::string form, const Credentials& source,
                                   const CallContext& ctx) {
  form.insert(
      0, fmt::format("Action={}&Version=2011-06-15&RoleArn={}&RoleSessionName={}", action,
                     net::PercentEncode(role.role_arn), net::PercentEncode(role.session_name)));
  if (!role.external_id.empty()) form += "&ExternalId=" + net::PercentEncode(role.external_id);
  if (role.duration_seconds != 0) form += fmt::format("&DurationSeconds={}", role.duration_seconds);

  auto url = net::ParseUrl(endpoint_);
  if (!url) return Fail(std::move(url), "the endpoint of STS");
  const std::string doing =
      fmt::format("assuming role {} at {}", role.role_arn, url->ForMessages());

  net::HttpRequest request;
  request.method = "POST";
  request.url = url->ToString();
  request.headers.Add("Content-Type", "application/x-www-form-urlencoded; charset=utf-8");
  request.body = AsBytes(form);
  request.ca_file = ca_file_;
  request.max_body = kMiB;
  LEAT_RETURN_IF_ERROR(
      SignV4(request, source,
             {.region = region_, .service = "sts", .s3_path = false, .add_content_sha256 = false},
             clock_.Now(), ToHex(digest::HashSha256(request.body))));

  auto response = http_.Perform(request, ctx.Within(kLimit));
  if (!response) {
    Error error = std::move(response).error();
    // Our own limit ran out, not the caller's.
    if (error.code() == Errc::kDeadline && !ctx.expired())
      error = Error(Errc::kUnavailable, error.message());
    return std::unexpected(std::move(error).While(doing));
  }
  if (response->status != 200) {
    const StsError said = ParseStsError(response->body);
    if (said.code.empty()) {
      return Fail(
          CodeOf(response->status, {}),
          fmt::format("{}: the answer is HTTP {} and not one of STS", doing, response->status));
    }
    return Fail(CodeOf(response->status, said.code),
                fmt::format("{}: {}: {}", doing, said.code, said.message));
  }
  auto credentials = ParseStsCredentials(response->body);
  if (!credentials) return Fail(std::move(credentials), doing);
  return credentials;
}

std::string StsEndpoint(const config::Environment& env, const config::AwsConfig& config,
                        std::string_view profile, std::string_view region) {
  const auto ignore = env("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS");
  const std::string ignored =
      ignore ? *ignore : config.Get(profile, "ignore_configured_endpoint_urls").value_or("false");
  if (ignored != "true" && ignored != "True" && ignored != "TRUE") {
    for (const auto& candidate :
         {env("AWS_ENDPOINT_URL_STS"), env("AWS_ENDPOINT_URL"),
          config.Get(profile, "services.sts.endpoint_url"), config.Get(profile, "endpoint_url")}) {
      if (candidate) return *candidate;
    }
  }
  const std::string_view domain = region.starts_with("cn-") ? "amazonaws.com.cn" : "amazonaws.com";
  return fmt::format("https://sts.{}.{}", region, domain);
}

}  // namespace leat::auth
