// AWS's Security Token Service: exchanges credentials or an identity token for those of a role.
// https://docs.aws.amazon.com/STS/latest/APIReference/
#ifndef LEAT_AUTH_STS_H_
#define LEAT_AUTH_STS_H_

#include <string>
#include <string_view>

#include "auth/credentials.h"
#include "base/clock.h"
#include "config/aws_config.h"
#include "net/http_client.h"

namespace leat::auth {

struct RoleRequest {
  std::string role_arn = {};
  std::string session_name = {};
  std::string external_id = {};  ///< empty: none
  int duration_seconds = 0;      ///< 0: what STS gives
};

/// One request a call, nothing is kept. Thread-safe. Errors begin with the role and the endpoint.
class StsClient {
 public:
  /// `endpoint`: "https://sts.eu-west-1.amazonaws.com". `http` and `clock` outlive it.
  StsClient(std::string endpoint, std::string region, std::string ca_file, net::HttpTransport& http,
            Clock& clock);

  /// Signed with `source`.
  Result<Credentials> AssumeRole(const RoleRequest& role, const Credentials& source,
                                 const CallContext& ctx);
  /// Not signed: `token` says who asks.
  Result<Credentials> AssumeRoleWithWebIdentity(const RoleRequest& role, std::string_view token,
                                                const CallContext& ctx);

 private:
  Result<Credentials> Ask(std::string_view action, const RoleRequest& role, std::string form,
                          const Credentials& source, const CallContext& ctx);

  const std::string endpoint_, region_, ca_file_;
  net::HttpTransport& http_;
  Clock& clock_;
};

/// AWS_ENDPOINT_URL_STS, AWS_ENDPOINT_URL, the profile's services section and endpoint_url, else
/// AWS's own for the region.
std::string StsEndpoint(const config::Environment& env, const config::AwsConfig& config,
                        std::string_view profile, std::string_view region);

}  // namespace leat::auth

#endif  // LEAT_AUTH_STS_H_
