#include "config/openstack_config.h"

#include <fmt/format.h>

#include <initializer_list>

namespace leat::config {
namespace {

Status Check(const OpenStackSettings& s) {
  if (!s.auth_url.empty() || !s.storage_url.empty()) return {};
  return Fail(Errc::kInvalid, fmt::format("{}: there is no auth URL", s.from));
}

}  // namespace

Result<OpenStackSettings> OpenStackFromVariables(const Environment& env) {
  const auto first_of = [&](std::initializer_list<std::string_view> names) {
    for (const std::string_view name : names) {
      if (const auto value = env(name)) return *value;
    }
    return std::string();
  };
  if (const std::string cloud = first_of({"OS_CLOUD"}); !cloud.empty())
    return OpenStackFromCloud(cloud, env);
  OpenStackSettings s;
  s.from = "OS_* variables";
  s.auth_url = first_of({"OS_AUTH_URL"});
  s.user = first_of({"OS_USERNAME"});
  s.user_id = first_of({"OS_USER_ID"});
  s.password = first_of({"OS_PASSWORD"});
  s.user_domain = first_of({"OS_USER_DOMAIN_NAME"});
  s.user_domain_id = first_of({"OS_USER_DOMAIN_ID"});
  s.project = first_of({"OS_PROJECT_NAME", "OS_TENANT_NAME"});
  s.project_id = first_of({"OS_PROJECT_ID", "OS_TENANT_ID"});
  s.project_domain = first_of({"OS_PROJECT_DOMAIN_NAME"});
  s.project_domain_id = first_of({"OS_PROJECT_DOMAIN_ID"});
  s.application_credential_id = first_of({"OS_APPLICATION_CREDENTIAL_ID"});
  s.application_credential_name = first_of({"OS_APPLICATION_CREDENTIAL_NAME"});
  s.application_credential_secret = first_of({"OS_APPLICATION_CREDENTIAL_SECRET"});
  s.token = first_of({"OS_AUTH_TOKEN", "OS_TOKEN"});
  s.storage_url = first_of({"OS_STORAGE_URL"});
  s.region = first_of({"OS_REGION_NAME"});
  if (const std::string given = first_of({"OS_INTERFACE", "OS_ENDPOINT_TYPE"}); !given.empty())
    s.interface = given;
  s.ca_file = first_of({"OS_CACERT"});
  if (s.auth_url.empty() && env("ST_AUTH")) {
    s.from = "ST_* variables";
    s.auth_url = first_of({"ST_AUTH"});
    s.user = first_of({"ST_USER"});
    s.password = first_of({"ST_KEY"});
    s.auth_version = 1;
  }
  if (s.auth_url.empty() && s.storage_url.empty()) {
    return Fail(Errc::kNotFound,
                "no OpenStack cloud is configured: source its openrc file (OS_AUTH_URL and the "
                "others), name a cloud of clouds.yaml (--os-cloud), or name a remote of "
                "rclone.conf (NAME:container); for a public container "
                "OS_STORAGE_URL is enough");
  }
  return s;
}

Result<OpenStackSettings> OpenStackFromRemote(const RcloneRemote& remote, const Environment& env) {
  OpenStackSettings s;
  if (remote.IsSet("env_auth")) {
    auto variables = OpenStackFromVariables(env);
    if (variables) s = *std::move(variables);
  }
  s.from = "remote " + remote.name;
  const auto take = [&](std::string& to, std::string_view option) {
    if (auto value = remote.Get(option)) to = *std::move(value);
  };
  if (remote.Get("auth")) s.auth_version = 0;
  take(s.auth_url, "auth");
  take(s.user, "user");
  take(s.user_id, "user_id");
  take(s.password, "key");
  take(s.user_domain, "domain");
  take(s.project, "tenant");
  take(s.project_id, "tenant_id");
  take(s.project_domain, "tenant_domain");
  take(s.application_credential_id, "application_credential_id");
  take(s.application_credential_name, "application_credential_name");
  take(s.application_credential_secret, "application_credential_secret");
  take(s.token, "auth_token");
  take(s.storage_url, "storage_url");
  take(s.region, "region");
  take(s.interface, "endpoint_type");
  if (const auto version = remote.Get("auth_version"); version && *version != "0") {
    if (*version != "1" && *version != "3") {
      return Fail(Errc::kUnsupported,
                  fmt::format("{}: auth_version {} is not there any more; clouds speak 3 (and "
                              "Ceph 1)",
                              s.from, *version));
    }
    s.auth_version = *version == "1" ? 1 : 3;
  }
  LEAT_RETURN_IF_ERROR(Check(s));
  return s;
}

}  // namespace leat::config
