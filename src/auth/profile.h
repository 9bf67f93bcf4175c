// What a profile of AWS's shared files says about credentials.
// https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html
#ifndef LEAT_AUTH_PROFILE_H_
#define LEAT_AUTH_PROFILE_H_

#include <memory>
#include <string>

#include "auth/credentials.h"

namespace leat::auth {

/// Everything that a source of the chain needs; copied by each. `config`, `http` and `clock`
/// outlive the sources.
struct SourceContext {
  AwsChainOptions options;
  config::Environment env;
  const config::AwsConfig& config;
  net::HttpTransport& http;
  Clock& clock;
};

/// AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN. Asks at each Get; kNotFound where the first is not
/// set.
std::unique_ptr<CredentialProvider> MakeWebIdentitySource(SourceContext context);

/// The profile that AwsConfig::ProfileName gives: role_arn with web_identity_token_file,
/// source_profile (which may have a role itself) or credential_source; static keys;
/// credential_process. Asks at each Get; kNotFound for a profile that has none of these, an error
/// for one that is half said, that needs a person (mfa_serial) or SSO.
std::unique_ptr<CredentialProvider> MakeProfileSource(SourceContext context);

/// AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN. kInvalid when one of the first two
/// is missing.
Result<Credentials> EnvironmentCredentials(const config::Environment& env);

}  // namespace leat::auth

#endif  // LEAT_AUTH_PROFILE_H_
