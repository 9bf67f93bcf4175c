#include "auth/google.h"

#include <fmt/format.h>

#include <atomic>
#include <utility>
#include <vector>

#include "auth/credential_replies.h"
#include "auth/refreshing.h"
#include "base/bytes.h"
#include "base/log.h"
#include "base/text.h"
#include "digest/digest.h"
#include "net/ip.h"
#include "net/url.h"
#include "os/file.h"

namespace leat::auth {
namespace {

using namespace std::chrono_literals;
using Kind = config::GoogleSettings::Kind;

constexpr auto kLimit = 30s;
constexpr auto kMetadataLimit = 5s;
constexpr std::string_view kScope = "https://www.googleapis.com/auth/devstorage.full_control";
// What an account that asks for another's token must be good for itself.
constexpr std::string_view kAnyScope = "https://www.googleapis.com/auth/cloud-platform";

std::string Form(const std::vector<std::pair<std::string_view, std::string>>& fields) {
  std::string out;
  for (const auto& [name, value] : fields) {
    if (!out.empty()) out += '&';
    out += fmt::format("{}={}", name, net::PercentEncode(value));
  }
  return out;
}

/// Secrets go in the clear to this machine and its link alone.
bool IsLocal(const net::Url& url) {
  return url.host == "localhost" || url.host == "[::1]" || net::IsIpv4In(url.host, "127.") ||
         net::IsIpv4In(url.host, "169.254.");
}

std::string JsonText(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    if (static_cast<unsigned char>(c) >= ' ') out += c;
  }
  return out + "\"";
}

/// Asks anew at each Get; RefreshingProvider is around it.
class Google final : public CredentialProvider {
 public:
  Google(config::GoogleSettings settings, net::HttpTransport& http, Clock& clock,
         std::function<bool()> machine_is_google)
      : s_(std::move(settings)),
        http_(http),
        clock_(clock),
        machine_is_google_(std::move(machine_is_google)) {}

  void Invalidate() override { invalidated_ = true; }

  Result<Credentials> Get(const CallContext& ctx) override {
    auto got = Ask(s_, kScope, ctx);
    if (!got) return Fail(std::move(got), s_.from);
    got->provider = got->anonymous() ? "anonymous" : s_.from;
    return got;
  }

 private:
  Result<Credentials> Ask(const config::GoogleSettings& s, std::string_view scope,
                          const CallContext& ctx) {
    switch (s.kind) {
      case Kind::kAnonymous:
        return Credentials{};
      case Kind::kServiceAccount:
        return OfServiceAccount(s, scope, ctx);
      case Kind::kUser:
        return OfUser(s, ctx);
      case Kind::kExternal:
        return OfExternal(s, scope, ctx);
      case Kind::kImpersonated: {
        LEAT_ASSIGN_OR_RETURN(const Credentials source, Ask(*s.source, kAnyScope, ctx));
        return Impersonate(s, source, ctx);
      }
      case Kind::kMetadata:
        return OfMachine(s, scope, ctx);
    }
    return Fail(Errc::kInternal, "no such kind of credentials");
  }

  Result<Credentials> OfServiceAccount(const config::GoogleSettings& s, std::string_view scope,
                                       const CallContext& ctx) {
    LEAT_ASSIGN_OR_RETURN(const std::string assertion, SignedAssertion(s, scope, clock_.Now()));
    return AskToken(
        s.token_url,
        {{"grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"}, {"assertion", assertion}},
        {}, ctx);
  }

  Result<Credentials> OfUser(const config::GoogleSettings& s, const CallContext& ctx) {
    const auto end = net::ParseIsoDate(s.access_token_end);
    if (!s.access_token.empty() && !invalidated_ && end && *end > clock_.Now() + 1min)
      return Credentials{.session_token = s.access_token, .expires = end};
    if (s.refresh_token.empty() || s.client_id.empty()) {
      // (rclone's own client is rclone's alone)
      return Fail(Errc::kDenied,
                  fmt::format("its access token {}, and leat cannot renew it: {}",
                              end ? "ended on " + net::FormatDate(*end) : "is not good any more",
                              s.refresh_token.empty()
                                  ? "there is no refresh token"
                                  : "it was given to rclone's own client; let rclone renew it "
                                    "(rclone about or lsd), or use client_id and client_secret of "
                                    "your own, or a service account"));
    }
    return AskToken(s.token_url,
                    {{"grant_type", "refresh_token"},
                     {"client_id", s.client_id},
                     {"client_secret", s.client_secret},
                     {"refresh_token", s.refresh_token}},
                    {}, ctx);
  }

  Result<Credentials> OfExternal(const config::GoogleSettings& s, std::string_view scope,
                                 const CallContext& ctx) {
    LEAT_ASSIGN_OR_RETURN(std::string subject, SubjectToken(s, ctx));
    const bool goes_on = !s.impersonation_url.empty();
    std::vector<std::pair<std::string_view, std::string>> form = {
        {"grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"},
        {"requested_token_type", "urn:ietf:params:oauth:token-type:access_token"},
        {"audience", s.audience},
        {"scope", std::string(goes_on ? kAnyScope : scope)},
        {"subject_token_type", s.subject_token_type},
        {"subject_token", std::move(subject)}};
    if (!s.workforce_project.empty() && s.client_id.empty())
      form.emplace_back("options", "{\"userProject\":" + JsonText(s.workforce_project) + "}");
    net::Headers headers;
    if (!s.client_id.empty()) {
      headers.Add("Authorization",
                  "Basic " + digest::Base64Encode(AsBytes(s.client_id + ":" + s.client_secret)));
    }
    LEAT_ASSIGN_OR_RETURN(Credentials got, AskToken(s.token_url, form, std::move(headers), ctx));
    return goes_on ? Impersonate(s, got, ctx) : Result<Credentials>(std::move(got));
  }

  Result<std::string> SubjectToken(const config::GoogleSettings& s, const CallContext& ctx) {
    std::string text;
    if (!s.subject_file.empty()) {
      // Whoever keeps it fresh writes it anew.
      LEAT_ASSIGN_OR_RETURN(text, os::ReadFile(s.subject_file, kMiB));
    } else {
      net::HttpRequest request{.url = s.subject_url};
      for (const auto& [name, value] : s.subject_headers) request.headers.Add(name, value);
      LEAT_ASSIGN_OR_RETURN(const net::HttpResponse response, Send(std::move(request), ctx));
      if (response.status != 200) return Explain(s.subject_url, response);
      text = response.body;
    }
    const std::string place =
        s.subject_file.empty() ? net::Redacted(s.subject_url) : s.subject_file;
    if (!s.subject_field.empty()) {
      auto token = ParseSubjectToken(text, s.subject_field);
      if (!token) return Fail(std::move(token), place);
      return token;
    }
    while (text.ends_with('\n') || text.ends_with('\r') || text.ends_with(' ')) text.pop_back();
    if (text.empty()) return Fail(Errc::kInvalid, place + " is empty: there is no token in it");
    return text;
  }

  Result<Credentials> Impersonate(const config::GoogleSettings& s, const Credentials& source,
                                  const CallContext& ctx) {
    std::string body = fmt::format("{{\"scope\":[{}],\"lifetime\":\"{}s\"", JsonText(kScope),
                                   s.impersonation_seconds);
    if (!s.delegates.empty()) {
      body += ",\"delegates\":[";
      for (const std::string& delegate : s.delegates)
        body += (body.ends_with('[') ? "" : ",") + JsonText(delegate);
      body += "]";
    }
    body += "}";
    net::HttpRequest request{.method = "POST", .url = s.impersonation_url};
    request.headers.Add("Content-Type", "application/json");
    if (!source.session_token.empty())
      request.headers.Add("Authorization", "Bearer " + source.session_token);
    request.body = AsBytes(body);
    LEAT_ASSIGN_OR_RETURN(const net::HttpResponse response, Send(std::move(request), ctx));
    if (response.status != 200) return Explain(s.impersonation_url, response);
    auto got = ParseImpersonatedToken(response.body);
    if (!got) return Fail(std::move(got), net::Redacted(s.impersonation_url));
    return got;
  }

  // https://cloud.google.com/compute/docs/metadata/querying-metadata
  Result<Credentials> OfMachine(const config::GoogleSettings& s, std::string_view scope,
                                const CallContext& ctx) {
    if (s.metadata_host.empty() && !machine_is_google_()) return Credentials{};
    const std::string base =
        "http://" + (s.metadata_host.empty() ? "169.254.169.254" : s.metadata_host);
    net::HttpRequest request{
        .url = base + "/computeMetadata/v1/instance/service-accounts/default/token?scopes=" +
               net::PercentEncode(scope)};
    request.headers.Add("Metadata-Flavor", "Google");
    request.direct = true;
    request.connect_timeout = 2s;
    request.max_body = kMiB;
    auto response = http_.Perform(request, ctx.Within(kMetadataLimit));
    if (!response) {
      if (response.error().code() == Errc::kDeadline && !ctx.expired())
        return Fail(Errc::kUnavailable, response.error().message());
      return std::unexpected(std::move(response).error());
    }
    if (!response->headers.Get("Metadata-Flavor")) {
      return Fail(Errc::kInvalid, fmt::format("{} is not Google's metadata server (it answered {})",
                                              base, response->status));
    }
    // The machine has no service account: as if nothing were configured, but not in mid-run.
    if (response->status == 404 && !gave_) return Credentials{};
    if (response->status != 200) return Explain(base, *response);
    auto got = ParseGoogleToken(response->body, clock_.Now());
    if (!got) return Fail(std::move(got), base);
    gave_ = true;
    return got;
  }

  Result<Credentials> AskToken(const std::string& url,
                               const std::vector<std::pair<std::string_view, std::string>>& fields,
                               net::Headers headers, const CallContext& ctx) {
    const std::string form = Form(fields);
    net::HttpRequest request{.method = "POST", .url = url, .headers = std::move(headers)};
    request.headers.Add("Content-Type", "application/x-www-form-urlencoded");
    request.headers.Add("Accept", "application/json");
    request.body = AsBytes(form);
    LEAT_ASSIGN_OR_RETURN(const net::HttpResponse response, Send(std::move(request), ctx));
    if (response.status != 200) return Explain(url, response);
    auto got = ParseGoogleToken(response.body, clock_.Now());
    if (!got) return Fail(std::move(got), net::Redacted(url));
    return got;
  }

  Result<net::HttpResponse> Send(net::HttpRequest request, const CallContext& ctx) {
    const auto url = net::ParseUrl(request.url);
    if (!url) return Fail(Errc::kInvalid, "a URL of its file: " + url.error().message());
    if (url->scheme != "https" && !IsLocal(*url)) {
      return Fail(Errc::kInvalid,
                  fmt::format("{} is not https://, and a token must not go there in the clear",
                              url->ForMessages()));
    }
    request.max_body = kMiB;
    auto response = http_.Perform(request, ctx.Within(kLimit));
    if (!response && response.error().code() == Errc::kDeadline && !ctx.expired())
      return Fail(Errc::kUnavailable, response.error().message());
    return response;
  }

  std::unexpected<Error> Explain(const std::string& url, const net::HttpResponse& response) const {
    const std::string said = GoogleErrorText(response.body);
    const std::string answer = fmt::format("{} answered {}{}{}", net::Redacted(url),
                                           response.status, said.empty() ? "" : ": ", said);
    if (response.status >= 500 || response.status == 429) return Fail(Errc::kUnavailable, answer);
    const auto has = [&](std::string_view word) { return said.find(word) != said.npos; };
    std::string hint;
    if (has("iat and exp") || has("reasonable timeframe")) {
      hint = fmt::format("; this machine's clock says {}", net::FormatDate(clock_.Now()));
    } else if (has("Invalid JWT Signature") || has("account not found")) {
      hint = "; the key was deleted, or it is another account's";
    } else if (has("invalid_grant") && (has("expired or revoked") || has("invalid_rapt"))) {
      hint = "; log in again: gcloud auth application-default login";
    } else if (has("invalid_client")) {
      hint = "; client_id and client_secret are wrong";
    }
    return Fail(Errc::kDenied, answer + hint);
  }

  const config::GoogleSettings s_;
  net::HttpTransport& http_;
  Clock& clock_;
  const std::function<bool()> machine_is_google_;
  std::atomic<bool> gave_ = false, invalidated_ = false;
};

}  // namespace

bool MachineIsGoogle(const std::string& folder) {
  return Lower(os::ReadFile(folder + "/product_name", 4 * kKiB).value_or("")).starts_with("google");
}

std::unique_ptr<CredentialProvider> MakeGoogle(config::GoogleSettings settings,
                                               net::HttpTransport& http, Clock& clock,
                                               std::function<bool()> machine_is_google) {
  return std::make_unique<RefreshingProvider>(
      std::make_unique<Google>(std::move(settings), http, clock, std::move(machine_is_google)),
      clock);
}

}  // namespace leat::auth
