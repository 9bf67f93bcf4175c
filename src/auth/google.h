// Tokens of Google Cloud: a service account's signed request (RFC 7523), a refresh token (RFC 6749,
// 6), another provider's token exchanged (RFC 8693), an account that stands in for another, and the
// machine's own. https://cloud.google.com/docs/authentication
#ifndef LEAT_AUTH_GOOGLE_H_
#define LEAT_AUTH_GOOGLE_H_

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "auth/credentials.h"
#include "base/clock.h"
#include "config/google_config.h"
#include "net/http_client.h"

namespace leat::auth {

/// What the firmware of Google's machines calls itself. `folder` stands in for /sys/class/dmi/id in
/// tests.
bool MachineIsGoogle(const std::string& folder = "/sys/class/dmi/id");

/// Gives a bearer token (Credentials::session_token); kept, and renewed before it ends. Without any
/// credentials (a machine that is not Google's, where nothing is configured): anonymous. kDenied:
/// the sentence says which credentials were refused, and why. `http` and `clock` outlive it.
std::unique_ptr<CredentialProvider> MakeGoogle(
    config::GoogleSettings settings, net::HttpTransport& http, Clock& clock,
    std::function<bool()> machine_is_google = [] { return MachineIsGoogle(); });

/// {"access_token", "expires_in"}: what token endpoints and the metadata server answer. kCorrupt
/// for what is none; the message never quotes it.
Result<Credentials> ParseGoogleToken(std::string_view text,
                                     std::chrono::system_clock::time_point now);
/// {"accessToken", "expireTime"}: what generateAccessToken answers.
Result<Credentials> ParseImpersonatedToken(std::string_view text);
/// The field of a JSON document that holds another provider's token. kCorrupt where there is none.
Result<std::string> ParseSubjectToken(std::string_view text, const std::string& field);
/// "invalid_grant: Invalid JWT Signature." of an error answer, printable and short; empty when
/// there is none.
std::string GoogleErrorText(std::string_view text);

/// The assertion of a service account, good for an hour from `now`. kInvalid for a key that is no
/// RSA key in PEM.
Result<std::string> SignedAssertion(const config::GoogleSettings& settings, std::string_view scope,
                                    std::chrono::system_clock::time_point now);

}  // namespace leat::auth

#endif  // LEAT_AUTH_GOOGLE_H_
