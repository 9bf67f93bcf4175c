// How an OpenStack cloud is reached: what openrc files (OS_* variables) and rclone's swift remotes
// say. https://docs.openstack.org/python-openstackclient/latest/cli/man/openstack.html
#ifndef LEAT_CONFIG_OPENSTACK_CONFIG_H_
#define LEAT_CONFIG_OPENSTACK_CONFIG_H_

#include <string>

#include "base/error.h"
#include "config/aws_config.h"
#include "config/rclone_config.h"

namespace leat::config {

/// A value.
struct OpenStackSettings {
  std::string from;      ///< for messages: "remote chi_tacc", "OS_* variables"
  std::string auth_url;  ///< "https://host:5000/v3", or ".../auth/v1.0"
  int auth_version = 0;  ///< 1 or 3; 0: by the URL
  std::string user, user_id, password, user_domain, user_domain_id;
  std::string project, project_id, project_domain, project_domain_id;
  std::string application_credential_id, application_credential_name, application_credential_secret;
  std::string token;        ///< there is one already
  std::string storage_url;  ///< wins over the catalogue's
  std::string region;       ///< empty: the only one
  std::string interface = "public";
  std::string ca_file;

  bool has_application_credential() const { return !application_credential_secret.empty(); }
};

/// A cloud of clouds.yaml, with what secure.yaml adds: in the working directory, in
/// ~/.config/openstack, in /etc/openstack. kNotFound: no file, or no such cloud in it.
Result<OpenStackSettings> OpenStackFromCloud(const std::string& name, const Environment& env);
/// The cloud that OS_CLOUD names; else OS_* and, for v1, ST_* variables. kNotFound where neither
/// OS_AUTH_URL nor OS_STORAGE_URL (nor ST_AUTH) is set: the sentence says what to do.
Result<OpenStackSettings> OpenStackFromVariables(const Environment& env);
/// A remote of type swift; with `env_auth` the variables fill in what it leaves open. kInvalid when
/// a needed option is missing.
Result<OpenStackSettings> OpenStackFromRemote(const RcloneRemote& remote, const Environment& env);

}  // namespace leat::config

#endif  // LEAT_CONFIG_OPENSTACK_CONFIG_H_
