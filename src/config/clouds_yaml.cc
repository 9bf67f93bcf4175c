// clouds.yaml and secure.yaml.
// https://docs.openstack.org/openstacksdk/latest/user/config/configuration.html
#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <optional>
#include <utility>
#include <vector>

#include "config/openstack_config.h"
#include "os/file.h"

namespace leat::config {
namespace {

struct Cloud {
  YAML::Node node;
  std::vector<std::string> others;  // names beside it
};

/// The first of the places where such a file is looked for.
std::optional<std::string> FindFile(const Environment& env, const char* variable,
                                    const std::string& name) {
  if (const auto given = env(variable)) return *given;
  std::vector<std::string> places = {"./" + name};
  const std::string home = env("XDG_CONFIG_HOME").value_or("");
  places.push_back((home.empty() ? ExpandHome(env, "~/.config") : home) + "/openstack/" + name);
  places.push_back("/etc/openstack/" + name);
  for (const std::string& path : places) {
    if (os::Exists(path)) return path;
  }
  return std::nullopt;
}

Result<Cloud> Load(const std::string& path, const std::string& name) {
  LEAT_ASSIGN_OR_RETURN(const std::string text, os::ReadFile(path, 1 << 20));
  Cloud out;
  try {
    const YAML::Node root = YAML::Load(text);
    const YAML::Node clouds = root.IsMap() ? root["clouds"] : YAML::Node();
    if (!clouds.IsDefined() || !clouds.IsMap())
      return Fail(Errc::kInvalid, path + ": there is no \"clouds:\" with names below it");
    for (const auto& entry : clouds) {
      if (!entry.first.IsScalar()) continue;
      out.others.push_back(entry.first.Scalar());
      if (entry.first.Scalar() == name && entry.second.IsMap()) out.node = entry.second;
    }
    return out;
  } catch (const YAML::Exception& error) {
    // (its message quotes nothing of the file)
    return Fail(Errc::kInvalid, fmt::format("{}:{}: {}", path, error.mark.line + 1, error.msg));
  }
}

}  // namespace

Result<OpenStackSettings> OpenStackFromCloud(const std::string& name, const Environment& env) {
  const auto path = FindFile(env, "OS_CLIENT_CONFIG_FILE", "clouds.yaml");
  if (!path) {
    return Fail(Errc::kNotFound, fmt::format("cloud {}: there is no clouds.yaml here, in "
                                             "~/.config/openstack or in /etc/openstack",
                                             name));
  }
  LEAT_ASSIGN_OR_RETURN(const Cloud cloud, Load(*path, name));
  if (!cloud.node.IsMap()) {
    return Fail(Errc::kNotFound, fmt::format("{} has no cloud \"{}\" (it has: {})", *path, name,
                                             fmt::join(cloud.others, " ")));
  }
  // Secrets may lie in a file of their own, in the same form.
  Cloud secure;
  if (const auto file = FindFile(env, "OS_CLIENT_SECURE_FILE", "secure.yaml")) {
    LEAT_ASSIGN_OR_RETURN(secure, Load(*file, name));
  }
  const auto get = [&](const char* section, const char* key) -> std::string {
    for (const YAML::Node& node : {secure.node, cloud.node}) {
      if (!node.IsMap()) continue;
      const YAML::Node place = *section == '\0' ? node : node[section];
      if (!place.IsDefined() || !place.IsMap()) continue;
      if (const YAML::Node value = place[key]; value.IsDefined() && value.IsScalar())
        return value.Scalar();
    }
    return "";
  };
  const auto auth = [&](const char* key) { return get("auth", key); };
  OpenStackSettings s;
  s.from = "cloud " + name;
  s.auth_url = auth("auth_url");
  s.user = auth("username");
  s.user_id = auth("user_id");
  s.password = auth("password");
  s.user_domain = auth("user_domain_name");
  s.user_domain_id = auth("user_domain_id");
  s.project = auth("project_name");
  s.project_id = auth("project_id");
  s.project_domain = auth("project_domain_name");
  s.project_domain_id = auth("project_domain_id");
  if (s.user_domain.empty() && s.user_domain_id.empty()) s.user_domain = auth("domain_name");
  s.application_credential_id = auth("application_credential_id");
  s.application_credential_name = auth("application_credential_name");
  s.application_credential_secret = auth("application_credential_secret");
  s.token = auth("token");
  s.region = get("", "region_name");
  if (const std::string given = get("", "interface"); !given.empty()) s.interface = given;
  s.ca_file = get("", "cacert");
  if (!s.ca_file.empty()) s.ca_file = ExpandHome(env, s.ca_file);
  if (const auto region = env("OS_REGION_NAME")) s.region = *region;
  if (s.auth_url.empty()) {
    const std::string profile = get("", "profile");
    return Fail(Errc::kInvalid,
                fmt::format("{}: cloud {} has no auth_url{}", *path, name,
                            profile.empty() ? ""
                                            : fmt::format(", and what the profile \"{}\" would say "
                                                          "is not known here",
                                                          profile)));
  }
  return s;
}

}  // namespace leat::config
