#include "auth/keystone.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <set>
#include <utility>

#include "auth/credential_replies.h"
#include "auth/refreshing.h"
#include "base/bytes.h"
#include "base/json_fields.h"
#include "base/log.h"
#include "net/url.h"

namespace leat::auth {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;

constexpr auto kLimit = 30s;

bool LooksLikeId(std::string_view text) {
  return text.size() >= 32 && std::ranges::all_of(text, [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || c == '-';
         });
}

/// A name in a domain, or an id that needs none.
json Named(const std::string& id, const std::string& name, const std::string& domain_id,
           const std::string& domain) {
  if (!id.empty()) return {{"id", id}};
  json out = {{"name", name}};
  if (!domain.empty()) {
    out["domain"] = {{"name", domain}};
  } else {
    out["domain"] = {{"id", domain_id.empty() ? "default" : domain_id}};
  }
  return out;
}

class Keystone final : public CredentialProvider {
 public:
  Keystone(config::OpenStackSettings settings, net::HttpTransport& http, Clock& clock)
      : s_(std::move(settings)), http_(http), clock_(clock) {}

  Result<Credentials> Get(const CallContext& ctx) override {
    // Both at hand: there is nothing to ask.
    if (s_.auth_url.empty() || (!s_.storage_url.empty() && !s_.token.empty())) {
      Credentials given{.session_token = s_.token, .endpoint = s_.storage_url, .provider = s_.from};
      while (given.endpoint.ends_with('/')) given.endpoint.pop_back();
      return given;
    }
    const auto url = net::ParseUrl(s_.auth_url);
    if (!url) return Fail(Errc::kInvalid, s_.from + ": the auth URL: " + url.error().message());
    const bool v1 = s_.auth_version == 1 ||
                    (s_.auth_version == 0 && (url->path + "/").find("/v1") != std::string::npos);
    if (s_.auth_version == 0 && url->path.find("/v2.0") != std::string::npos) {
      return Fail(
          Errc::kUnsupported,
          s_.from + ": Keystone v2.0 is not there any more; the auth URL of v3 ends in /v3");
    }
    auto got = v1 ? GetV1(ctx) : GetV3(*url, ctx);
    if (!got) return Fail(std::move(got), s_.from);
    if (!s_.storage_url.empty()) got->endpoint = s_.storage_url;
    while (got->endpoint.ends_with('/')) got->endpoint.pop_back();
    got->provider = s_.from;
    return got;
  }

 private:
  Result<net::HttpResponse> Ask(net::HttpRequest request, const CallContext& ctx) {
    request.ca_file = s_.ca_file;
    request.max_body = 4 * kMiB;
    auto response = http_.Perform(request, ctx.Within(kLimit));
    if (!response && response.error().code() == Errc::kDeadline && !ctx.expired())
      return Fail(Errc::kUnavailable, response.error().message());
    return response;
  }

  Result<Credentials> GetV3(net::Url url, const CallContext& ctx) {
    while (url.path.ends_with('/')) url.path.pop_back();
    if (url.path.find("/v3") == std::string::npos) url.path += "/v3";
    url.path += "/auth/tokens";
    const std::string server = url.scheme + "://" + url.Authority();
    LEAT_ASSIGN_OR_RETURN(const json body, RequestBody());
    std::string text;
    try {
      text = body.dump();
    } catch (const json::exception&) {
      return Fail(Errc::kInvalid, "a name or a secret is not UTF-8");
    }
    net::HttpRequest request{.method = "POST", .url = url.ToString()};
    request.headers.Add("Content-Type", "application/json");
    request.headers.Add("Accept", "application/json");
    request.body = AsBytes(text);
    LEAT_ASSIGN_OR_RETURN(const net::HttpResponse response, Ask(std::move(request), ctx));
    if (response.status != 201 && response.status != 200) return Explain(response, server);
    const auto token = response.headers.Get("X-Subject-Token");
    if (!token) {
      return Fail(Errc::kInvalid,
                  server + " does not speak Keystone v3: its answer has no X-Subject-Token");
    }
    auto out = ParseKeystoneToken(response.body, s_.region, s_.interface);
    // With a storage URL the catalogue does not matter.
    if (!out && out.error().code() == Errc::kNotFound && !s_.storage_url.empty())
      out = Credentials{};
    if (!out) return Fail(std::move(out), server);
    out->session_token = *token;
    return out;
  }

  Result<json> RequestBody() const {
    json identity;
    bool scoped = true;
    if (s_.has_application_credential()) {
      json credential = {{"secret", s_.application_credential_secret}};
      if (!s_.application_credential_id.empty()) {
        credential["id"] = s_.application_credential_id;
      } else {
        if (s_.user_id.empty() && s_.user.empty()) {
          return Fail(Errc::kInvalid,
                      "an application credential that is given by its name needs the user too "
                      "(user_id, or user and domain)");
        }
        credential["name"] = s_.application_credential_name;
        credential["user"] = Named(s_.user_id, s_.user, s_.user_domain_id, s_.user_domain);
      }
      identity = {{"methods", {"application_credential"}}, {"application_credential", credential}};
      scoped = false;  // it has its project
    } else if (!s_.application_credential_id.empty() || !s_.application_credential_name.empty()) {
      return Fail(Errc::kInvalid, "the application credential has no secret");
    } else if (!s_.password.empty()) {
      if (s_.user_id.empty() && s_.user.empty())
        return Fail(Errc::kInvalid, "there is a password, but no user");
      json user = Named(s_.user_id, s_.user, s_.user_domain_id, s_.user_domain);
      user["password"] = s_.password;
      identity = {{"methods", {"password"}}, {"password", {{"user", user}}}};
    } else if (!s_.token.empty()) {
      identity = {{"methods", {"token"}}, {"token", {{"id", s_.token}}}};
    } else {
      return Fail(Errc::kInvalid,
                  "there is neither an application credential nor a password nor a token");
    }
    json auth = {{"identity", identity}};
    if (scoped && (!s_.project_id.empty() || !s_.project.empty())) {
      // The user's domain where the project names none.
      const bool own = !s_.project_domain_id.empty() || !s_.project_domain.empty();
      auth["scope"] = {{"project", Named(s_.project_id, s_.project,
                                         own ? s_.project_domain_id : s_.user_domain_id,
                                         own ? s_.project_domain : s_.user_domain)}};
    }
    return json{{"auth", auth}};
  }

  /// Keystone says as little as it can about why.
  std::unexpected<Error> Explain(const net::HttpResponse& response, const std::string& server) {
    const json document = ParseJson(response.body);
    const std::string said = TextOf(Field(document, "error"), "message");
    if (response.status >= 500 || response.status == 429) {
      return Fail(Errc::kUnavailable, fmt::format("{} answered {}{}{}", server, response.status,
                                                  said.empty() ? "" : ": ", Quoted(said)));
    }
    const bool refused = response.status == 401 || response.status == 403 || response.status == 404;
    if (!refused || !document.is_object()) {
      return Fail(Errc::kInvalid,
                  fmt::format("{} answered {}{}{}; is it a Keystone of version 3?", server,
                              response.status, said.empty() ? "" : ": ", Quoted(said)));
    }
    if (s_.has_application_credential()) {
      const bool by_id = !s_.application_credential_id.empty();
      const std::string& name =
          by_id ? s_.application_credential_id : s_.application_credential_name;
      if (!by_id && !s_.user_id.empty() && !LooksLikeId(s_.user_id)) {
        return Fail(Errc::kDenied,
                    fmt::format("{} does not know the user_id \"{}\": that looks like a user's "
                                "name; the id is the long number that the dashboard shows below "
                                "Identity > Users, or openstack user show",
                                server, Printable(s_.user_id)));
      }
      if (response.status == 404) {
        return Fail(Errc::kDenied,
                    fmt::format("{} does not know the application credential {}: it was deleted, "
                                "or belongs to another cloud",
                                server, Printable(name)));
      }
      return Fail(Errc::kDenied,
                  fmt::format("{} refuses the application credential {}: its secret is wrong, or "
                              "it has expired (the time of its end is UTC); it is now {}",
                              server, Printable(name), net::FormatDate(clock_.Now())));
    }
    if (!s_.user_id.empty() && !LooksLikeId(s_.user_id)) {
      return Fail(Errc::kDenied,
                  fmt::format("{} does not know the user_id \"{}\": that looks like a user's name, "
                              "which is the option user",
                              server, Printable(s_.user_id)));
    }
    return Fail(Errc::kDenied,
                fmt::format("{} refuses {}: {}", server,
                            s_.token.empty() ? "the user and the password" : "the token",
                            said.empty() ? "no reason is given" : Quoted(said)));
  }

  Result<Credentials> GetV1(const CallContext& ctx) {
    net::HttpRequest request{.url = s_.auth_url};
    request.headers.Add("X-Auth-User", s_.user);
    request.headers.Add("X-Auth-Key", s_.password);
    LEAT_ASSIGN_OR_RETURN(const net::HttpResponse response, Ask(std::move(request), ctx));
    const auto url = net::ParseUrl(s_.auth_url);
    const std::string server = url->scheme + "://" + url->Authority();
    if (response.status == 401 || response.status == 403)
      return Fail(Errc::kDenied,
                  fmt::format("{} refuses the user {} and the key", server, Printable(s_.user)));
    const auto storage = response.headers.Get("X-Storage-Url");
    auto token = response.headers.Get("X-Auth-Token");
    if (!token) token = response.headers.Get("X-Storage-Token");
    if (response.status / 100 != 2 || !storage || !token) {
      return Fail(response.status >= 500 ? Errc::kUnavailable : Errc::kInvalid,
                  fmt::format("{} answered {} and gave no token", server, response.status));
    }
    Credentials out{.session_token = std::string(*token), .endpoint = std::string(*storage)};
    if (const auto expires = response.headers.Get("X-Auth-Token-Expires")) {
      long seconds = 0;
      if (std::from_chars(expires->data(), expires->data() + expires->size(), seconds).ec ==
              std::errc() &&
          seconds > 0 && seconds < 10L * 365 * 86400) {
        out.expires = clock_.Now() + std::chrono::seconds(seconds);
      }
    }
    return out;
  }

  const config::OpenStackSettings s_;
  net::HttpTransport& http_;
  Clock& clock_;
};

}  // namespace

Result<Credentials> ParseKeystoneToken(std::string_view body, std::string_view region,
                                       std::string_view interface) {
  const json document = ParseJson(body);
  const json& token = Field(document, "token");
  if (!token.is_object()) return Fail(Errc::kCorrupt, "the answer has no token");
  Credentials out;
  if (const std::string expires = TextOf(token, "expires_at"); !expires.empty()) {
    out.expires = net::ParseIsoDate(expires);
    if (!out.expires) return Fail(Errc::kCorrupt, "the token's expires_at is not a date");
  }
  if (!Field(token, "catalog").is_array() || Field(token, "catalog").empty()) {
    return Fail(Errc::kNotFound, "the token is for no project: name one (tenant, OS_PROJECT_NAME)");
  }
  std::set<std::string> regions;
  for (const json& service : Field(token, "catalog")) {
    if (TextOf(service, "type") != "object-store" || !Field(service, "endpoints").is_array())
      continue;
    for (const json& endpoint : Field(service, "endpoints")) {
      const std::string there = TextOf(endpoint, "region").empty() ? TextOf(endpoint, "region_id")
                                                                   : TextOf(endpoint, "region");
      std::string kind = TextOf(endpoint, "interface");
      if (kind != interface && kind + "URL" != interface) continue;
      regions.insert(there);
      if (!region.empty() && region != there) continue;
      if (!out.endpoint.empty() && region.empty() && regions.size() > 1) {
        return Fail(Errc::kInvalid, fmt::format("there are several regions ({}): name one",
                                                fmt::join(regions, ", ")));
      }
      out.endpoint = TextOf(endpoint, "url");
    }
  }
  if (!out.endpoint.empty()) return out;
  if (regions.empty()) {
    return Fail(Errc::kNotFound,
                fmt::format("the project has no object store ({} endpoint)", Printable(interface)));
  }
  return Fail(Errc::kNotFound, fmt::format("there is no region \"{}\"; there is {}",
                                           Printable(region), fmt::join(regions, ", ")));
}

std::unique_ptr<CredentialProvider> MakeKeystone(config::OpenStackSettings settings,
                                                 net::HttpTransport& http, Clock& clock) {
  return std::make_unique<RefreshingProvider>(
      std::make_unique<Keystone>(std::move(settings), http, clock), clock);
}

}  // namespace leat::auth
