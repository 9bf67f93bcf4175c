// What credential services answer, and what of it are credentials. Pure functions, fuzzed: the
// answers come from outside.
#ifndef LEAT_AUTH_CREDENTIAL_REPLIES_H_
#define LEAT_AUTH_CREDENTIAL_REPLIES_H_

#include <chrono>
#include <string>
#include <string_view>

#include "auth/credentials.h"
#include "base/error.h"

namespace leat::auth {

enum class JsonReply {
  kMetadata,  ///< container endpoint and IMDS: the session token is "Token"; a "Code" other than
              ///< Success is an error
  kProcess,   ///< credential_process: "Version" must be 1, the session token is "SessionToken"
};
/// kCorrupt for anything that is not the promised document; the message never quotes it (it may
/// hold a secret).
Result<Credentials> ParseJsonCredentials(std::string_view text, JsonReply kind);
/// The answer of SSO's GetRoleCredentials ("roleCredentials", expiration in milliseconds).
Result<Credentials> ParseSsoCredentials(std::string_view text);
/// What "aws sso login" left in its cache. kCorrupt: not such a file.
struct SsoToken {
  std::string access_token;
  std::chrono::system_clock::time_point expires;
};
Result<SsoToken> ParseSsoToken(std::string_view text);
/// "Code: message" of a JSON error answer, printable and short; empty when there is none.
std::string JsonErrorText(std::string_view text);

/// The Credentials element of an answer of AssumeRole or AssumeRoleWithWebIdentity.
/// https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html
Result<Credentials> ParseStsCredentials(std::string_view xml);
struct StsError {
  std::string code;     ///< "AccessDenied"; empty when the answer is not one of STS
  std::string message;  ///< printable and short
};
StsError ParseStsError(std::string_view xml);

/// `text` without control characters, at most 300 bytes: for what others said.
std::string Quoted(std::string_view text);

}  // namespace leat::auth

#endif  // LEAT_AUTH_CREDENTIAL_REPLIES_H_
