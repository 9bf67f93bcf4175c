#include <chrono>
#include <cstdint>

#include "auth/credential_replies.h"
#include "base/json_fields.h"
#include "base/log.h"
#include "net/url.h"

namespace leat::auth {
namespace {

using nlohmann::json;

}  // namespace

std::string Quoted(std::string_view text) {
  constexpr std::size_t kLongest = 300;
  while (!text.empty() && static_cast<unsigned char>(text.back()) <= ' ') text.remove_suffix(1);
  if (text.size() <= kLongest) return Printable(text);
  return Printable(text.substr(0, kLongest)) + "...";
}

Result<Credentials> ParseJsonCredentials(std::string_view text, JsonReply kind) {
  const json document = ParseJson(text);
  if (!document.is_object()) return Fail(Errc::kCorrupt, "the answer is not a JSON object");
  if (kind == JsonReply::kProcess) {
    const auto version = document.find("Version");
    if (version == document.end() || !version->is_number_integer() || *version != 1) {
      return Fail(Errc::kCorrupt, "the answer's Version is not 1");
    }
  } else if (const std::string code = TextOf(document, "Code");
             !code.empty() && code != "Success") {
    return Fail(Errc::kDenied, "the answer is an error: " + JsonErrorText(text));
  }
  Credentials credentials;
  credentials.access_key_id = TextOf(document, "AccessKeyId");
  credentials.secret_access_key = TextOf(document, "SecretAccessKey");
  credentials.session_token =
      TextOf(document, kind == JsonReply::kProcess ? "SessionToken" : "Token");
  if (credentials.access_key_id.empty() || credentials.secret_access_key.empty()) {
    return Fail(Errc::kCorrupt, "the answer has no AccessKeyId and SecretAccessKey");
  }
  if (const auto expiration = document.find("Expiration");
      expiration != document.end() && !expiration->is_null()) {
    credentials.expires = net::ParseIsoDate(TextOf(document, "Expiration"));
    if (!credentials.expires) return Fail(Errc::kCorrupt, "the answer's Expiration is not a date");
  }
  return credentials;
}

Result<Credentials> ParseSsoCredentials(std::string_view text) {
  const json document = ParseJson(text);
  const auto role = document.is_object() ? document.find("roleCredentials") : document.end();
  if (!document.is_object() || role == document.end() || !role->is_object())
    return Fail(Errc::kCorrupt, "the answer has no roleCredentials");
  Credentials credentials;
  credentials.access_key_id = TextOf(*role, "accessKeyId");
  credentials.secret_access_key = TextOf(*role, "secretAccessKey");
  credentials.session_token = TextOf(*role, "sessionToken");
  if (credentials.access_key_id.empty() || credentials.secret_access_key.empty())
    return Fail(Errc::kCorrupt, "the answer has no accessKeyId and secretAccessKey");
  const auto expiration = role->find("expiration");
  if (expiration != role->end() && expiration->is_number_unsigned() &&
      expiration->get<std::uint64_t>() < 1ULL << 43) {
    credentials.expires = std::chrono::system_clock::time_point(
        std::chrono::milliseconds(expiration->get<std::int64_t>()));
  }
  return credentials;
}

Result<SsoToken> ParseSsoToken(std::string_view text) {
  const json document = ParseJson(text);
  if (!document.is_object()) return Fail(Errc::kCorrupt, "it is not a JSON object");
  SsoToken token;
  token.access_token = TextOf(document, "accessToken");
  // "2026-11-20T10:15:00Z", and "...00UTC" by older versions.
  std::string date = TextOf(document, "expiresAt");
  if (date.ends_with("UTC")) date.replace(date.size() - 3, 3, "Z");
  const auto expires = net::ParseIsoDate(date);
  if (token.access_token.empty() || !expires)
    return Fail(Errc::kCorrupt, "it has no accessToken and expiresAt");
  token.expires = *expires;
  return token;
}

std::string JsonErrorText(std::string_view text) {
  const json document = ParseJson(text);
  if (!document.is_object()) return {};
  std::string code = TextOf(document, "Code");
  if (code.empty()) code = TextOf(document, "code");
  std::string message = TextOf(document, "Message");
  if (message.empty()) message = TextOf(document, "message");
  if (!code.empty() && !message.empty()) code += ": ";
  return Quoted(code + message);
}

}  // namespace leat::auth
