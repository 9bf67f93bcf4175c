#include "auth/instance_metadata.h"

#include <fmt/format.h>

#include <atomic>

#include "auth/credential_replies.h"
#include "base/bytes.h"
#include "base/log.h"
#include "base/text.h"
#include "net/url.h"
#include "os/file.h"

namespace leat::auth {
namespace {

using namespace std::chrono_literals;

constexpr auto kLimitElsewhere = 1s;
constexpr auto kLimitOnEc2 = 5s;
constexpr std::string_view kRoles = "/latest/meta-data/iam/security-credentials/";

class InstanceMetadataSource final : public CredentialProvider {
 public:
  InstanceMetadataSource(config::Environment env, net::HttpTransport& http,
                         std::function<bool()> machine_is_ec2)
      : env_(std::move(env)), http_(http), machine_is_ec2_(std::move(machine_is_ec2)) {}

  Result<Credentials> Get(const CallContext& ctx) override {
    const auto endpoint = env_("AWS_EC2_METADATA_SERVICE_ENDPOINT");
    if (Lower(env_("AWS_EC2_METADATA_DISABLED").value_or("")) == "true") {
      return Fail(Errc::kNotFound, "AWS_EC2_METADATA_DISABLED is set");
    }
    const bool on_ec2 = machine_is_ec2_();
    if (!on_ec2 && !endpoint) return Fail(Errc::kNotFound, "this machine is not EC2");
    if (gave_nothing_)
      return Fail(Errc::kNotFound, "the instance metadata service gave nothing before");

    std::string base = endpoint.value_or("");
    if (base.empty()) {
      const bool v6 = Lower(env_("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE").value_or("")) == "ipv6";
      base = v6 ? "http://[fd00:ec2::254]" : "http://169.254.169.254";
    }
    while (base.ends_with('/')) base.pop_back();

    auto credentials = Ask(base, ctx.Within(on_ec2 ? kLimitOnEc2 : kLimitElsewhere));
    // Where it must be, silence is asked twice what it means.
    if (!credentials && IsNobody(credentials.error()) && on_ec2 && !answered_ && !ctx.cancelled())
      credentials = Ask(base, ctx.Within(kLimitOnEc2));
    if (credentials) {
      gave_ = true;
      return credentials;
    }
    Error error = std::move(credentials).error().While("asking the instance metadata service");
    if (ctx.cancelled() || ctx.expired()) return std::unexpected(std::move(error));
    const bool nobody = IsNobody(error);
    // A service that is there and cannot answer now must not turn a run anonymous.
    if (nobody && (gave_ || answered_)) return Fail(Errc::kUnavailable, error.message());
    if (nobody || error.code() == Errc::kNotFound) {
      Debug(error.message());
      if (!gave_) gave_nothing_ = true;
      return Fail(gave_ ? Errc::kDenied : Errc::kNotFound, error.message());
    }
    return std::unexpected(std::move(error));
  }

 private:
  static bool IsNobody(const Error& error) {
    return error.code() == Errc::kUnavailable || error.code() == Errc::kDeadline;
  }

  Result<net::HttpResponse> Send(net::HttpRequest request, const CallContext& ctx) {
    request.direct = true;
    request.max_body = kMiB;
    request.connect_timeout = 1s;
    LEAT_ASSIGN_OR_RETURN(net::HttpResponse response, http_.Perform(request, ctx));
    answered_ = true;
    if (response.status == 200) return response;
    Errc code = Errc::kDenied;
    if (response.status >= 500 || response.status == 429) code = Errc::kUnavailable;
    // 403: switched off; 404, 405: no role, or a service that is not IMDSv2.
    if (response.status == 403 || response.status == 404 || response.status == 405)
      code = Errc::kNotFound;
    return Fail(code, fmt::format("it answered HTTP {}", response.status));
  }

  Result<Credentials> Ask(const std::string& base, const CallContext& ctx) {
    net::HttpRequest for_token{.method = "PUT", .url = base + "/latest/api/token"};
    for_token.headers.Add("X-aws-ec2-metadata-token-ttl-seconds", "21600");
    LEAT_ASSIGN_OR_RETURN(const net::HttpResponse token, Send(std::move(for_token), ctx));
    const auto get = [&](std::string path) {
      net::HttpRequest request{.url = base + std::move(path)};
      request.headers.Add("X-aws-ec2-metadata-token", token.body);
      return Send(std::move(request), ctx);
    };
    LEAT_ASSIGN_OR_RETURN(const net::HttpResponse roles, get(std::string(kRoles)));
    std::string role = roles.body.substr(0, roles.body.find_first_of("\r\n"));
    if (role.empty()) return Fail(Errc::kNotFound, "the machine has no role");
    LEAT_ASSIGN_OR_RETURN(const net::HttpResponse reply,
                          get(std::string(kRoles) + net::PercentEncode(role)));
    LEAT_ASSIGN_OR_RETURN(Credentials credentials,
                          ParseJsonCredentials(reply.body, JsonReply::kMetadata));
    credentials.provider = fmt::format("instance metadata (role {})", Quoted(role));
    return credentials;
  }

  const config::Environment env_;
  net::HttpTransport& http_;
  const std::function<bool()> machine_is_ec2_;
  std::atomic<bool> gave_ = false, gave_nothing_ = false, answered_ = false;
};

}  // namespace

bool MachineIsEc2(const std::string& folder) {
  const auto read = [&](const char* name) {
    return Lower(os::ReadFile(folder + "/" + name, 4 * kKiB).value_or(""));
  };
  return read("sys_vendor").starts_with("amazon ec2") || read("product_uuid").starts_with("ec2") ||
         read("bios_version").find("amazon") != std::string::npos ||
         read("board_asset_tag").starts_with("i-");
}

std::unique_ptr<CredentialProvider> MakeInstanceMetadataSource(
    config::Environment env, net::HttpTransport& http, std::function<bool()> machine_is_ec2) {
  return std::make_unique<InstanceMetadataSource>(std::move(env), http, std::move(machine_is_ec2));
}

}  // namespace leat::auth
