#include "auth/profile.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <vector>

#include "auth/container.h"
#include "auth/credential_process.h"
#include "auth/instance_metadata.h"
#include "auth/sso.h"
#include "auth/sts.h"
#include "base/bytes.h"
#include "os/file.h"

namespace leat::auth {
namespace {

using namespace std::chrono_literals;

constexpr auto kProcessLimit = 60s;

std::string Region(const SourceContext& context, std::string_view profile) {
  if (!context.options.region.empty()) return context.options.region;
  for (const auto& candidate : {context.env("AWS_REGION"), context.env("AWS_DEFAULT_REGION"),
                                context.config.Get(profile, "region")}) {
    if (candidate) return *candidate;
  }
  return "us-east-1";
}

StsClient MakeSts(const SourceContext& context, std::string_view profile) {
  const std::string region = Region(context, profile);
  return {StsEndpoint(context.env, context.config, profile, region), region,
          context.options.ca_file, context.http, context.clock};
}

std::string DefaultSessionName(const SourceContext& context) {
  if (const auto name = context.env("AWS_ROLE_SESSION_NAME")) return *name;
  const auto now =
      std::chrono::floor<std::chrono::seconds>(context.clock.Now()).time_since_epoch().count();
  return fmt::format("leat-{}", now);
}

Result<Credentials> AssumeWithToken(const SourceContext& context, std::string_view profile,
                                    const RoleRequest& role, const std::string& token_file,
                                    const CallContext& ctx) {
  auto token = os::ReadFile(config::ExpandHome(context.env, token_file), kMiB);
  if (!token) return Fail(Errc::kDenied, "the web identity token: " + token.error().message());
  while (!token->empty() && static_cast<unsigned char>(token->back()) <= ' ') token->pop_back();
  if (token->empty())
    return Fail(Errc::kDenied, fmt::format("the web identity token file {} is empty", token_file));
  return MakeSts(context, profile).AssumeRoleWithWebIdentity(role, *token, ctx);
}

class WebIdentitySource final : public CredentialProvider {
 public:
  explicit WebIdentitySource(SourceContext context) : context_(std::move(context)) {}

  Result<Credentials> Get(const CallContext& ctx) override {
    const auto file = context_.env("AWS_WEB_IDENTITY_TOKEN_FILE");
    const auto role = context_.env("AWS_ROLE_ARN");
    if (!file) return Fail(Errc::kNotFound, "AWS_WEB_IDENTITY_TOKEN_FILE is not set");
    if (!role)
      return Fail(Errc::kInvalid, "AWS_WEB_IDENTITY_TOKEN_FILE is set, but AWS_ROLE_ARN is not");
    const std::string profile =
        config::AwsConfig::ProfileName(context_.env, context_.options.profile);
    auto credentials = AssumeWithToken(
        context_, profile, {.role_arn = *role, .session_name = DefaultSessionName(context_)}, *file,
        ctx);
    if (credentials) credentials->provider = fmt::format("web identity (role {})", *role);
    return credentials;
  }

 private:
  const SourceContext context_;
};

class ProfileSource final : public CredentialProvider {
 public:
  explicit ProfileSource(SourceContext context) : context_(std::move(context)) {
    container_ = MakeContainerSource(context_.env, context_.http);
    instance_ =
        MakeInstanceMetadataSource(context_.env, context_.http, [] { return MachineIsEc2(); });
  }

  Result<Credentials> Get(const CallContext& ctx) override {
    const std::string profile =
        config::AwsConfig::ProfileName(context_.env, context_.options.profile);
    LEAT_RETURN_IF_ERROR(context_.config.CheckProfile(profile));
    std::vector<std::string> visited;
    return Resolve(profile, visited, ctx);
  }

 private:
  using Value = std::optional<std::string>;

  // `visited`: the profiles whose source_profile led here.
  Result<Credentials> Resolve(const std::string& profile, std::vector<std::string>& visited,
                              const CallContext& ctx) {
    const auto get = [&](std::string_view key) { return context_.config.Get(profile, key); };
    const bool is_source = !visited.empty();
    visited.push_back(profile);
    const Value key = get("aws_access_key_id"), secret = get("aws_secret_access_key");
    if (key.has_value() != secret.has_value()) {
      return Fail(Errc::kInvalid, fmt::format("AWS profile {} has {} without {}", profile,
                                              key ? "aws_access_key_id" : "aws_secret_access_key",
                                              key ? "aws_secret_access_key" : "aws_access_key_id"));
    }
    Credentials keys{.access_key_id = key.value_or(""),
                     .secret_access_key = secret.value_or(""),
                     .session_token = get("aws_session_token").value_or(""),
                     .expires = {},
                     .provider = "profile " + profile};
    // Of a profile that is a source the keys come before its role.
    if (key && is_source) return keys;
    if (get("role_arn") || get("web_identity_token_file")) {
      auto credentials = Assume(profile, visited, ctx);
      if (!credentials) return Fail(std::move(credentials), fmt::format("AWS profile {}", profile));
      credentials->provider = fmt::format("profile {} (role {})", profile, *get("role_arn"));
      return credentials;
    }
    if (key) return keys;
    if (const Value command = get("credential_process")) {
      auto credentials = RunCredentialProcess(*command, kProcessLimit, ctx);
      if (!credentials)
        return Fail(std::move(credentials),
                    fmt::format("AWS profile {}: credential_process", profile));
      credentials->provider = fmt::format("profile {} (credential_process)", profile);
      return credentials;
    }
    if (get("sso_session") || get("sso_start_url") || get("sso_account_id") ||
        get("sso_role_name")) {
      auto credentials = SsoCredentials(context_, profile, ctx);
      if (!credentials) return Fail(std::move(credentials), fmt::format("AWS profile {}", profile));
      return credentials;
    }
    if (is_source) {
      return Fail(
          Errc::kInvalid,
          fmt::format("AWS profile {} is a source_profile, but has no credentials", profile));
    }
    return Fail(Errc::kNotFound, fmt::format("AWS profile {} has no credentials", profile));
  }

  Result<Credentials> Assume(const std::string& profile, std::vector<std::string>& visited,
                             const CallContext& ctx) {
    const auto get = [&](std::string_view key) { return context_.config.Get(profile, key); };
    if (!get("role_arn"))
      return Fail(Errc::kInvalid, "it has web_identity_token_file without role_arn");
    if (get("mfa_serial")) {
      return Fail(Errc::kUnsupported,
                  "its role wants a code from an MFA device (mfa_serial), which leat cannot ask "
                  "for: get a session with "
                  "\"aws sts get-session-token\" or \"aws configure export-credentials\" and hand "
                  "it on in AWS_* variables");
    }
    RoleRequest role{
        .role_arn = *get("role_arn"),
        .session_name = get("role_session_name").value_or(DefaultSessionName(context_)),
        .external_id = get("external_id").value_or("")};
    if (const Value text = get("duration_seconds")) {
      const auto [end, ec] =
          std::from_chars(text->data(), text->data() + text->size(), role.duration_seconds);
      if (ec != std::errc{} || end != text->data() + text->size() || role.duration_seconds < 900 ||
          role.duration_seconds > 43200) {
        return Fail(Errc::kInvalid, "its duration_seconds is not a number from 900 to 43200");
      }
    }
    if (const Value token_file = get("web_identity_token_file")) {
      return AssumeWithToken(context_, profile, role, *token_file, ctx);
    }
    LEAT_ASSIGN_OR_RETURN(const Credentials source, Source(profile, visited, ctx));
    return MakeSts(context_, profile).AssumeRole(role, source, ctx);
  }

  // The credentials that `profile`'s role is asked for with.
  Result<Credentials> Source(const std::string& profile, std::vector<std::string>& visited,
                             const CallContext& ctx) {
    const Value source_profile = context_.config.Get(profile, "source_profile");
    const Value credential_source = context_.config.Get(profile, "credential_source");
    if (source_profile && credential_source) {
      return Fail(Errc::kInvalid, "it has both source_profile and credential_source");
    }
    if (source_profile) {
      if (!context_.config.HasProfile(*source_profile)) {
        return Fail(Errc::kInvalid,
                    fmt::format("its source_profile {} does not exist", *source_profile));
      }
      // A profile may be its own source if it has keys.
      const bool own_keys =
          *source_profile == profile && context_.config.Get(profile, "aws_access_key_id");
      if (!own_keys && std::ranges::find(visited, *source_profile) != visited.end()) {
        return Fail(Errc::kInvalid, fmt::format("its source_profile leads in a circle ({} -> {})",
                                                fmt::join(visited, " -> "), *source_profile));
      }
      return Resolve(*source_profile, visited, ctx);
    }
    if (!credential_source) {
      return Fail(
          Errc::kInvalid,
          "it has role_arn without source_profile, credential_source or web_identity_token_file");
    }
    const auto from = [&](Result<Credentials> credentials) -> Result<Credentials> {
      if (credentials || credentials.error().code() != Errc::kNotFound) return credentials;
      return Fail(Errc::kInvalid, fmt::format("its credential_source {}: {}", *credential_source,
                                              credentials.error().message()));
    };
    if (*credential_source == "Environment") return from(EnvironmentCredentials(context_.env));
    if (*credential_source == "EcsContainer") return from(container_->Get(ctx));
    if (*credential_source == "Ec2InstanceMetadata") return from(instance_->Get(ctx));
    return Fail(Errc::kInvalid, fmt::format("its credential_source is \"{}\", but must be "
                                            "Environment, EcsContainer or Ec2InstanceMetadata",
                                            *credential_source));
  }

  const SourceContext context_;
  std::unique_ptr<CredentialProvider> container_, instance_;
};

}  // namespace

Result<Credentials> EnvironmentCredentials(const config::Environment& env) {
  const auto key = env("AWS_ACCESS_KEY_ID"), secret = env("AWS_SECRET_ACCESS_KEY");
  if (!key && !secret) return Fail(Errc::kNotFound, "AWS_ACCESS_KEY_ID is not set");
  if (!key)
    return Fail(Errc::kInvalid, "AWS_SECRET_ACCESS_KEY is set, but AWS_ACCESS_KEY_ID is not");
  if (!secret)
    return Fail(Errc::kInvalid, "AWS_ACCESS_KEY_ID is set, but AWS_SECRET_ACCESS_KEY is not");
  return Credentials{.access_key_id = *key,
                     .secret_access_key = *secret,
                     .session_token = env("AWS_SESSION_TOKEN").value_or(""),
                     .expires = {},
                     .provider = "environment"};
}

std::unique_ptr<CredentialProvider> MakeWebIdentitySource(SourceContext context) {
  return std::make_unique<WebIdentitySource>(std::move(context));
}

std::unique_ptr<CredentialProvider> MakeProfileSource(SourceContext context) {
  return std::make_unique<ProfileSource>(std::move(context));
}

}  // namespace leat::auth
