// Where requests get their credentials from, and when they get new ones.
#ifndef LEAT_AUTH_CREDENTIALS_H_
#define LEAT_AUTH_CREDENTIALS_H_

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/context.h"
#include "base/error.h"
#include "config/aws_config.h"
#include "net/http_client.h"

namespace leat::auth {

/// AWS's three, or a bearer token alone.
struct Credentials {
  std::string access_key_id = {};
  std::string secret_access_key = {};
  std::string session_token = {};
  std::string endpoint = {};  ///< what the token is good for, where its giver says so
  std::optional<std::chrono::system_clock::time_point> expires = {};
  std::string provider = {};  ///< for people: "environment", "profile train (credential_process)"

  bool anonymous() const { return access_key_id.empty() && session_token.empty(); }
};

/// Thread-safe; blocks while it asks.
class CredentialProvider {
 public:
  virtual ~CredentialProvider() = default;
  /// Good for at least a minute from now where the provider could have it so. kNotFound: this
  /// provider is not configured (the chain goes on); any other error: it is configured and does not
  /// work (the chain stops: the user meant it).
  virtual Result<Credentials> Get(const CallContext& ctx) = 0;
  /// The store refused what Get gave last as expired or unknown: the next Get asks anew.
  virtual void Invalidate() {}
};

/// No credentials: requests are not signed.
std::unique_ptr<CredentialProvider> MakeAnonymous();
std::unique_ptr<CredentialProvider> MakeStatic(Credentials credentials);

struct AwsChainOptions {
  std::string profile;  ///< asked for by the mount; empty: AWS_PROFILE, then "default"
  std::string region;   ///< for STS
  std::string ca_file;
};
/// AWS's order: environment (unless a profile was asked for by the mount); web identity
/// (AWS_WEB_IDENTITY_TOKEN_FILE + AWS_ROLE_ARN, or the profile's); the profile's role_arn with
/// source_profile or credential_source; its static keys; its credential_process; the container
/// endpoint (AWS_CONTAINER_CREDENTIALS_*: ECS, EKS pod identity); IMDSv2. Where nothing is
/// configured: anonymous. What has been found is kept, and refreshed before it expires (in the call
/// that finds it within five minutes of its end; a failure to refresh matters only once it has
/// expired). `http`, `clock` and `config` outlive it.
std::unique_ptr<CredentialProvider> MakeAwsChain(AwsChainOptions options, config::Environment env,
                                                 const config::AwsConfig& config,
                                                 net::HttpTransport& http, Clock& clock);

}  // namespace leat::auth

#endif  // LEAT_AUTH_CREDENTIALS_H_
