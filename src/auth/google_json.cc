#include <fmt/format.h>
#include <openssl/evp.h>
#include <openssl/pem.h>

#include <memory>

#include "auth/credential_replies.h"
#include "auth/google.h"
#include "base/bytes.h"
#include "base/json_fields.h"
#include "digest/digest.h"
#include "net/url.h"

namespace leat::auth {
namespace {

using nlohmann::json;

constexpr std::chrono::hours kLife{1};

/// Of JWTs: other letters than base64's, no padding (RFC 7515, 2).
std::string Base64Url(std::string_view bytes) {
  std::string text = digest::Base64Encode(AsBytes(bytes));
  while (text.ends_with('=')) text.pop_back();
  for (char& c : text) c = c == '+' ? '-' : c == '/' ? '_' : c;
  return text;
}

struct Free {
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
  void operator()(BIO* bio) const { BIO_free(bio); }
};

}  // namespace

Result<Credentials> ParseGoogleToken(std::string_view text,
                                     std::chrono::system_clock::time_point now) {
  constexpr std::int64_t kLongest = 10L * 365 * 86'400;
  const json document = ParseJson(text);
  Credentials out;
  out.session_token = TextOf(document, "access_token");
  if (out.session_token.empty()) return Fail(Errc::kCorrupt, "the answer has no access_token");
  const json& seconds = Field(document, "expires_in");
  if (!seconds.is_number_integer() || seconds.get<std::int64_t>() < 0 ||
      seconds.get<std::int64_t>() > kLongest) {
    return Fail(Errc::kCorrupt, "the answer does not say when the token ends");
  }
  out.expires = now + std::chrono::seconds(seconds.get<std::int64_t>());
  return out;
}

Result<Credentials> ParseImpersonatedToken(std::string_view text) {
  const json document = ParseJson(text);
  Credentials out;
  out.session_token = TextOf(document, "accessToken");
  if (out.session_token.empty()) return Fail(Errc::kCorrupt, "the answer has no accessToken");
  out.expires = net::ParseIsoDate(TextOf(document, "expireTime"));
  if (!out.expires) return Fail(Errc::kCorrupt, "the answer's expireTime is not a date");
  return out;
}

Result<std::string> ParseSubjectToken(std::string_view text, const std::string& field) {
  std::string token = TextOf(ParseJson(text), field.c_str());
  if (token.empty()) {
    return Fail(Errc::kCorrupt, fmt::format("there is no field \"{}\" with a token", field));
  }
  return token;
}

std::string GoogleErrorText(std::string_view text) {
  const json document = ParseJson(text);
  const json& error = Field(document, "error");
  // OAuth's has two texts; that of Google's APIs is an object.
  if (error.is_object()) {
    const std::string status = TextOf(error, "status"), message = TextOf(error, "message");
    return Quoted(status.empty() || message.empty() ? status + message : status + ": " + message);
  }
  const std::string code = TextOf(document, "error"), why = TextOf(document, "error_description");
  return Quoted(code.empty() || why.empty() ? code + why : code + ": " + why);
}

Result<std::string> SignedAssertion(const config::GoogleSettings& settings, std::string_view scope,
                                    std::chrono::system_clock::time_point now) {
  const std::unique_ptr<BIO, Free> bio(
      BIO_new_mem_buf(settings.private_key.data(), static_cast<int>(settings.private_key.size())));
  const std::unique_ptr<EVP_PKEY, Free> key(
      bio ? PEM_read_bio_PrivateKey(
                bio.get(), nullptr, [](char*, int, int, void*) { return 0; }, nullptr)
          : nullptr);
  if (!key || EVP_PKEY_get_base_id(key.get()) != EVP_PKEY_RSA) {
    return Fail(Errc::kInvalid,
                "its private_key is not an RSA key in PEM; download the key file again");
  }
  const auto seconds = [](std::chrono::system_clock::time_point t) {
    return std::chrono::floor<std::chrono::seconds>(t.time_since_epoch()).count();
  };
  json header = {{"alg", "RS256"}, {"typ", "JWT"}};
  if (!settings.private_key_id.empty()) header["kid"] = settings.private_key_id;
  const json claims = {{"iss", settings.client_email},
                       {"scope", scope},
                       {"aud", settings.token_url},
                       {"iat", seconds(now)},
                       {"exp", seconds(now + kLife)}};
  const auto dump = [](const json& document) {
    return document.dump(-1, ' ', false, json::error_handler_t::replace);
  };
  std::string text = Base64Url(dump(header)) + "." + Base64Url(dump(claims));
  const std::unique_ptr<EVP_MD_CTX, Free> context(EVP_MD_CTX_new());
  std::size_t size = 0;
  const auto* bytes = reinterpret_cast<const unsigned char*>(text.data());
  if (!context ||
      EVP_DigestSignInit(context.get(), nullptr, EVP_sha256(), nullptr, key.get()) != 1 ||
      EVP_DigestSign(context.get(), nullptr, &size, bytes, text.size()) != 1) {
    return Fail(Errc::kInternal, "OpenSSL does not sign with the private_key");
  }
  std::string signature(size, '\0');
  if (EVP_DigestSign(context.get(), reinterpret_cast<unsigned char*>(signature.data()), &size,
                     bytes, text.size()) != 1) {
    return Fail(Errc::kInternal, "OpenSSL does not sign with the private_key");
  }
  signature.resize(size);
  return text + "." + Base64Url(signature);
}

}  // namespace leat::auth
