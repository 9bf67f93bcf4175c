#include "auth/sso.h"

#include <fmt/format.h>

#include <chrono>

#include "auth/credential_replies.h"
#include "base/bytes.h"
#include "digest/digest.h"
#include "net/url.h"
#include "os/file.h"

namespace leat::auth {

using namespace std::chrono_literals;

std::string SsoCacheName(std::string_view session_or_start_url) {
  digest::Hasher sha1(digest::Kind::kSha1);
  sha1.Update(AsBytes(session_or_start_url));
  return ToHex(AsBytes(sha1.Finish())) + ".json";
}

Result<Credentials> SsoCredentials(const SourceContext& context, const std::string& profile,
                                   const CallContext& ctx) {
  const auto get = [&](std::string_view key) {
    return context.config.Get(profile, key).value_or("");
  };
  const std::string session = get("sso_session"), start = get("sso_start_url");
  const std::string region = get("sso_region"), account = get("sso_account_id");
  const std::string role = get("sso_role_name");
  for (const auto& [name, value] : {std::pair("sso_region", region),
                                    {"sso_start_url", start},
                                    {"sso_account_id", account},
                                    {"sso_role_name", role}}) {
    if (value.empty())
      return Fail(Errc::kInvalid, fmt::format("it signs in by SSO, but has no {}", name));
  }
  const std::string login = fmt::format("sign in with \"aws sso login --profile {}\"", profile);
  const std::string path = config::ExpandHome(
      context.env, "~/.aws/sso/cache/" + SsoCacheName(session.empty() ? start : session));
  if (!os::Exists(path)) return Fail(Errc::kDenied, "nobody is signed in by SSO; " + login);
  LEAT_ASSIGN_OR_RETURN(const std::string text, os::ReadFile(path, kMiB));
  auto token = ParseSsoToken(text);
  if (!token) return Fail(std::move(token), path);
  if (token->expires <= context.clock.Now()) {
    return Fail(Errc::kDenied, fmt::format("the sign-in by SSO ended on {}; {}",
                                           net::FormatDate(token->expires), login));
  }
  net::HttpRequest request;
  request.method = "GET";
  request.url = fmt::format(
      "https://portal.sso.{}.amazonaws.com{}/federation/credentials?account_id={}&role_name={}",
      region, region.starts_with("cn-") ? ".cn" : "", net::PercentEncode(account),
      net::PercentEncode(role));
  request.headers.Add("x-amz-sso_bearer_token", token->access_token);
  request.ca_file = context.options.ca_file;
  request.max_body = kMiB;
  const std::string doing = fmt::format("the SSO of {}", region);
  auto response = context.http.Perform(request, ctx.Within(30s));
  if (!response) return Fail(std::move(response), doing);
  if (response->status == 401) {
    return Fail(Errc::kDenied,
                fmt::format("{}: the sign-in is not valid any more; {}", doing, login));
  }
  if (response->status != 200) {
    const std::string said = JsonErrorText(response->body);
    const bool busy = response->status == 429 || response->status / 100 == 5;
    return Fail(busy ? Errc::kUnavailable : Errc::kDenied,
                fmt::format("{}: account {}, role {}: HTTP {} {}", doing, account, role,
                            response->status, said));
  }
  auto credentials = ParseSsoCredentials(response->body);
  if (!credentials) return Fail(std::move(credentials), doing);
  credentials->provider = fmt::format("profile {} (SSO)", profile);
  return credentials;
}

}  // namespace leat::auth
