#include "config/google_config.h"

#include <fmt/format.h>

#include "base/json_fields.h"
#include "base/log.h"
#include "os/file.h"

namespace leat::config {
namespace {

using nlohmann::json;
using Kind = GoogleSettings::Kind;

constexpr std::uint64_t kLargest = 1 << 20;
constexpr std::string_view kService = "https://storage.googleapis.com";
constexpr std::string_view kTokenUrl = "https://oauth2.googleapis.com/token";

Status ReadExternal(const json& document, std::string_view name, GoogleSettings& s) {
  s.kind = Kind::kExternal;
  s.audience = TextOf(document, "audience");
  s.subject_token_type = TextOf(document, "subject_token_type");
  s.token_url = TextOf(document, "token_url");
  s.client_id = TextOf(document, "client_id");
  s.client_secret = TextOf(document, "client_secret");
  s.workforce_project = TextOf(document, "workforce_pool_user_project");
  s.impersonation_url = TextOf(document, "service_account_impersonation_url");
  const json& lifetime =
      Field(Field(document, "service_account_impersonation"), "token_lifetime_seconds");
  if (lifetime.is_number_unsigned()) s.impersonation_seconds = lifetime.get<std::uint64_t>();
  const json& source = Field(document, "credential_source");
  if (source.contains("executable") || source.contains("environment_id")) {
    return Fail(Errc::kUnsupported,
                fmt::format("{}: its credential_source is a program or AWS, which leat does not "
                            "ask; a file or a URL works",
                            name));
  }
  s.subject_file = TextOf(source, "file");
  s.subject_url = TextOf(source, "url");
  if (const json& headers = Field(source, "headers"); headers.is_object()) {
    for (const auto& [header, value] : headers.items()) {
      if (value.is_string()) s.subject_headers.emplace_back(header, value.get<std::string>());
    }
  }
  const json& format = Field(source, "format");
  if (TextOf(format, "type") == "json")
    s.subject_field = TextOf(format, "subject_token_field_name");
  if (s.audience.empty() || s.subject_token_type.empty() || s.token_url.empty() ||
      s.subject_file.empty() == s.subject_url.empty()) {
    return Fail(Errc::kInvalid,
                fmt::format("{}: an external account needs audience, subject_token_type, "
                            "token_url, and a file or a URL as credential_source",
                            name));
  }
  s.from = fmt::format("external account ({})", name);
  return {};
}

Result<GoogleSettings> ParseJson(const json& document, std::string_view name, int depth) {
  if (!document.is_object()) {
    return Fail(Errc::kInvalid, fmt::format("{} is not a credential file of Google's: it is not "
                                            "a JSON object",
                                            name));
  }
  GoogleSettings s;
  s.endpoint = kService;
  s.project = TextOf(document, "project_id");
  s.quota_project = TextOf(document, "quota_project_id");
  const std::string type = TextOf(document, "type");
  if (type == "service_account") {
    s.kind = Kind::kServiceAccount;
    s.client_email = TextOf(document, "client_email");
    s.private_key = TextOf(document, "private_key");
    s.private_key_id = TextOf(document, "private_key_id");
    s.token_url = TextOf(document, "token_uri");
    if (s.client_email.empty() || s.private_key.empty()) {
      return Fail(Errc::kInvalid,
                  fmt::format("{}: a service account's key needs client_email and private_key; "
                              "download it again",
                              name));
    }
    s.from = fmt::format("service account {} ({})", Printable(s.client_email), name);
  } else if (type == "authorized_user") {
    s.kind = Kind::kUser;
    s.client_id = TextOf(document, "client_id");
    s.client_secret = TextOf(document, "client_secret");
    s.refresh_token = TextOf(document, "refresh_token");
    s.token_url = TextOf(document, "token_uri");
    if (s.client_id.empty() || s.client_secret.empty() || s.refresh_token.empty()) {
      return Fail(Errc::kInvalid,
                  fmt::format("{}: a user's credentials need client_id, client_secret and "
                              "refresh_token; log in again: gcloud auth application-default login",
                              name));
    }
    s.from = fmt::format("gcloud user ({})", name);
  } else if (type == "external_account") {
    LEAT_RETURN_IF_ERROR(ReadExternal(document, name, s));
  } else if (type == "impersonated_service_account" && depth == 0) {
    s.kind = Kind::kImpersonated;
    s.impersonation_url = TextOf(document, "service_account_impersonation_url");
    if (const json& delegates = Field(document, "delegates"); delegates.is_array()) {
      for (const json& delegate : delegates) {
        if (delegate.is_string()) s.delegates.push_back(delegate.get<std::string>());
      }
    }
    LEAT_ASSIGN_OR_RETURN(GoogleSettings source,
                          ParseJson(Field(document, "source_credentials"), name, depth + 1));
    s.source = std::make_shared<const GoogleSettings>(std::move(source));
    if (s.impersonation_url.empty()) {
      return Fail(Errc::kInvalid,
                  fmt::format("{}: there is no service_account_impersonation_url", name));
    }
    s.from = fmt::format("impersonated service account ({})", name);
  } else {
    return Fail(Errc::kUnsupported,
                fmt::format("{}: its type is \"{}\", which leat does not speak (service_account, "
                            "authorized_user, external_account and impersonated_service_account "
                            "are known)",
                            name, Printable(type.substr(0, 60))));
  }
  if (s.token_url.empty()) s.token_url = kTokenUrl;
  return s;
}

Result<GoogleSettings> Load(const std::string& file) {
  LEAT_ASSIGN_OR_RETURN(const std::string text, os::ReadFile(file, kLargest));
  return ParseGoogleCredentials(text, file);
}

/// Whatever the credentials: the projects that variables name.
void FillFromVariables(const Environment& env, GoogleSettings& s) {
  if (const auto quota = env("GOOGLE_CLOUD_QUOTA_PROJECT")) s.quota_project = *quota;
  for (const std::string_view name : {"GOOGLE_CLOUD_PROJECT", "CLOUDSDK_CORE_PROJECT"}) {
    if (const auto project = env(name)) {
      s.project = *project;
      return;
    }
  }
}

/// The folder in which gcloud keeps what it knows.
std::string GcloudFolder(const Environment& env) {
  if (const auto folder = env("CLOUDSDK_CONFIG")) return ExpandHome(env, *folder);
  const auto home = env("HOME");
  return home ? *home + "/.config/gcloud" : "";
}

Result<GoogleSettings> FindCredentials(const Environment& env) {
  if (const auto named = env("GOOGLE_APPLICATION_CREDENTIALS")) {
    auto s = Load(ExpandHome(env, *named));
    if (!s) return Fail(std::move(s), "GOOGLE_APPLICATION_CREDENTIALS");
    return s;
  }
  const std::string folder = GcloudFolder(env);
  const std::string file = folder + "/application_default_credentials.json";
  if (!folder.empty() && os::Exists(file)) return Load(file);
  GoogleSettings s;
  s.endpoint = kService;
  s.from = "metadata server";
  if (const auto host = env("GCE_METADATA_HOST")) s.metadata_host = *host;
  return s;
}

std::string WithScheme(std::string endpoint, std::string_view scheme) {
  if (endpoint.find("://") == std::string::npos) endpoint.insert(0, scheme);
  while (endpoint.ends_with('/')) endpoint.pop_back();
  return endpoint;
}

GoogleSettings Anonymous(std::string endpoint) {
  GoogleSettings s;
  s.kind = Kind::kAnonymous;
  s.from = "anonymous";
  s.endpoint = std::move(endpoint);
  return s;
}

/// What rclone's own login left: {"access_token", "refresh_token", "expiry"}.
Result<GoogleSettings> FromRcloneToken(const RcloneRemote& remote, const std::string& token) {
  const json document = json::parse(token, nullptr, /*allow_exceptions=*/false);
  GoogleSettings s;
  s.kind = Kind::kUser;
  s.endpoint = kService;
  s.access_token = TextOf(document, "access_token");
  s.refresh_token = TextOf(document, "refresh_token");
  s.access_token_end = TextOf(document, "expiry");
  s.client_id = remote.GetOr("client_id", "");
  s.client_secret = remote.GetOr("client_secret", "");
  s.token_url = remote.GetOr("token_url", kTokenUrl);
  if (s.access_token.empty() && s.refresh_token.empty()) {
    return Fail(Errc::kInvalid,
                fmt::format("remote {}: its token is none of rclone's (rclone config reconnect "
                            "{}: makes a new one)",
                            remote.name, remote.name));
  }
  return s;
}

}  // namespace

Result<GoogleSettings> ParseGoogleCredentials(std::string_view text, std::string_view name) {
  return ParseJson(json::parse(text, nullptr, /*allow_exceptions=*/false), name, 0);
}

Result<GoogleSettings> GoogleFromVariables(const Environment& env) {
  GoogleSettings s;
  if (const auto emulator = env("STORAGE_EMULATOR_HOST")) {
    s = Anonymous(WithScheme(*emulator, "http://"));
    s.project = "emulator";
  } else {
    LEAT_ASSIGN_OR_RETURN(s, FindCredentials(env));
  }
  FillFromVariables(env, s);
  return s;
}

Result<GoogleSettings> GoogleFromRemote(const RcloneRemote& remote, const Environment& env) {
  GoogleSettings s;
  const std::string name = "remote " + remote.name;
  if (remote.IsSet("anonymous")) {
    s = Anonymous(std::string(kService));
  } else if (const auto key = remote.Get("service_account_credentials")) {
    LEAT_ASSIGN_OR_RETURN(s, ParseGoogleCredentials(*key, name + ": service_account_credentials"));
  } else if (const auto file = remote.Get("service_account_file")) {
    auto loaded = Load(ExpandHome(env, *file));
    if (!loaded) return Fail(std::move(loaded), name);
    s = *std::move(loaded);
  } else if (const auto token = remote.Get("token"); token && !remote.IsSet("env_auth")) {
    LEAT_ASSIGN_OR_RETURN(s, FromRcloneToken(remote, *token));
  } else {
    // As rclone does it: with env_auth, and where nothing else is said.
    LEAT_ASSIGN_OR_RETURN(s, FindCredentials(env));
    FillFromVariables(env, s);
  }
  s.from = s.kind == Kind::kServiceAccount
               ? fmt::format("{} (service account {})", name, Printable(s.client_email))
               : fmt::format("{}{}", name, s.kind == Kind::kAnonymous ? " (anonymous)" : "");
  if (const auto project = remote.Get("project_number")) s.project = *project;
  if (s.project.empty()) FillFromVariables(env, s);
  if (const auto project = remote.Get("user_project")) s.quota_project = *project;
  if (const auto endpoint = remote.Get("endpoint")) {
    // rclone's has the API's path behind it.
    constexpr std::string_view kPath = "/storage/v1";
    s.endpoint = WithScheme(*endpoint, "https://");
    if (s.endpoint.ends_with(kPath)) s.endpoint.resize(s.endpoint.size() - kPath.size());
  }
  return s;
}

}  // namespace leat::config
