#include "auth/container.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include "auth/credential_replies.h"
#include "base/bytes.h"
#include "net/url.h"
#include "os/file.h"

namespace leat::auth {
namespace {

using namespace std::chrono_literals;

constexpr auto kLimit = 10s;

// Only there may a token be sent in the clear.
bool IsLocal(const std::string& host) {
  if (host == "localhost" || host == "169.254.170.2" || host == "169.254.170.23" ||
      host == "[fd00:ec2::23]")
    return true;
  if (in_addr v4{}; inet_pton(AF_INET, host.c_str(), &v4) == 1)
    return (ntohl(v4.s_addr) >> 24) == 127;
  if (!host.starts_with('[')) return false;
  in6_addr v6{};
  return inet_pton(AF_INET6, host.substr(1, host.size() - 2).c_str(), &v6) == 1 &&
         IN6_IS_ADDR_LOOPBACK(&v6);
}

class ContainerSource final : public CredentialProvider {
 public:
  ContainerSource(config::Environment env, net::HttpTransport& http)
      : env_(std::move(env)), http_(http) {}

  Result<Credentials> Get(const CallContext& ctx) override {
    const auto relative = env_("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
    const auto full = env_("AWS_CONTAINER_CREDENTIALS_FULL_URI");
    if (!relative && !full) return Fail(Errc::kNotFound, "no container endpoint is configured");
    auto credentials = Ask(relative ? "http://169.254.170.2" + *relative : *full, ctx);
    if (!credentials)
      return Fail(std::move(credentials), "asking the container endpoint for credentials");
    credentials->provider = "container endpoint";
    return credentials;
  }

 private:
  Result<Credentials> Ask(const std::string& address, const CallContext& ctx) {
    LEAT_ASSIGN_OR_RETURN(const net::Url url, net::ParseUrl(address));
    if (url.scheme != "https" && !IsLocal(url.host)) {
      return Fail(Errc::kInvalid, fmt::format("AWS_CONTAINER_CREDENTIALS_FULL_URI names {}, which "
                                              "is neither https nor this machine nor "
                                              "an address of ECS or EKS",
                                              url.host));
    }
    net::HttpRequest request;
    request.url = url.ToString();
    request.direct = url.scheme == "http";
    request.max_body = kMiB;
    request.connect_timeout = 2s;
    request.headers.Add("Accept", "application/json");
    LEAT_ASSIGN_OR_RETURN(std::string token, Token());
    if (!token.empty()) request.headers.Add("Authorization", std::move(token));

    auto response = http_.Perform(request, ctx.Within(kLimit));
    if (!response) {
      if (response.error().code() == Errc::kDeadline && !ctx.expired()) {
        return Fail(Errc::kUnavailable, response.error().message());
      }
      return std::unexpected(std::move(response).error());
    }
    if (response->status != 200) {
      const std::string said = JsonErrorText(response->body);
      return Fail(
          response->status >= 500 || response->status == 429 ? Errc::kUnavailable : Errc::kDenied,
          fmt::format("{} answered HTTP {}{}{}", url.Authority(), response->status,
                      said.empty() ? "" : ": ", said));
    }
    return ParseJsonCredentials(response->body, JsonReply::kMetadata);
  }

  Result<std::string> Token() const {
    std::string token;
    if (const auto path = env_("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")) {
      auto text = os::ReadFile(*path, kMiB);
      if (!text)
        return Fail(Errc::kDenied,
                    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: " + text.error().message());
      token = *std::move(text);
      while (token.ends_with('\n') || token.ends_with('\r')) token.pop_back();
    } else {
      token = env_("AWS_CONTAINER_AUTHORIZATION_TOKEN").value_or("");
    }
    if (token.find_first_of(std::string_view("\r\n\0", 3)) != token.npos) {
      return Fail(Errc::kInvalid, "the container's authorization token holds a line break");
    }
    return token;
  }

  const config::Environment env_;
  net::HttpTransport& http_;
};

}  // namespace

std::unique_ptr<CredentialProvider> MakeContainerSource(config::Environment env,
                                                        net::HttpTransport& http) {
  return std::make_unique<ContainerSource>(std::move(env), http);
}

}  // namespace leat::auth
