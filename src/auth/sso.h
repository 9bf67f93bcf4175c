// AWS IAM Identity Center ("SSO"): the sign-in that "aws sso login" made with a browser.
// https://docs.aws.amazon.com/singlesignon/latest/PortalAPIReference/API_GetRoleCredentials.html
#ifndef LEAT_AUTH_SSO_H_
#define LEAT_AUTH_SSO_H_

#include <string>
#include <string_view>

#include "auth/credentials.h"
#include "auth/profile.h"
#include "base/context.h"
#include "base/error.h"

namespace leat::auth {

/// The file in ~/.aws/sso/cache that holds the token of a session (by its name) or, without one, of
/// a start URL.
std::string SsoCacheName(std::string_view session_or_start_url);

/// Credentials of the profile's account and role. kDenied where nobody has signed in, or too long
/// ago: the sentence says with which command. A token is never renewed here: that would take it
/// from under the aws command.
Result<Credentials> SsoCredentials(const SourceContext& context, const std::string& profile,
                                   const CallContext& ctx);

}  // namespace leat::auth

#endif  // LEAT_AUTH_SSO_H_
