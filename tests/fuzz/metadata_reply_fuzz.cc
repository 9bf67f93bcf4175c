// Answers of the services that credentials come from: no crash, and nothing half is taken for
// credentials.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "auth/credential_replies.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto check = [](const leat::Result<leat::auth::Credentials>& credentials) {
    if (credentials &&
        (credentials->access_key_id.empty() || credentials->secret_access_key.empty())) {
      std::abort();
    }
  };
  check(leat::auth::ParseJsonCredentials(text, leat::auth::JsonReply::kMetadata));
  check(leat::auth::ParseJsonCredentials(text, leat::auth::JsonReply::kProcess));
  check(leat::auth::ParseStsCredentials(text));
  check(leat::auth::ParseSsoCredentials(text));
  if (const auto token = leat::auth::ParseSsoToken(text); token && token->access_token.empty())
    std::abort();
  for (const auto& shown :
       {leat::auth::JsonErrorText(text), leat::auth::ParseStsError(text).message}) {
    for (const char c : shown) {
      if (static_cast<unsigned char>(c) < ' ') std::abort();
    }
  }
  return 0;
}
