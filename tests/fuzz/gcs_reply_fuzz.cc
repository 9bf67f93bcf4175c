// What Google's token services and Cloud Storage answer with: no crash; what is taken has what it
// must have. The first byte chooses the document.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "auth/google.h"
#include "config/google_config.h"
#include "store/gcs/json.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace leat;
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  const auto check = [](const store::gcs::Resource& object) {
    if (object.info.key.empty() || object.info.version.etag.empty()) std::abort();
    if (!object.md5.empty() && object.md5.size() != 16) std::abort();
    // A time that was understood is written so that it is understood again.
    const auto again =
        store::gcs::FromService(store::gcs::ToService(object.info.metadata), nullptr);
    if (store::MtimeOf(again) != store::MtimeOf(object.info.metadata)) std::abort();
  };
  switch (data[0] % 9) {
    case 0:
      if (const auto token = auth::ParseGoogleToken(text, {}))
        if (token->session_token.empty() || !token->expires) std::abort();
      break;
    case 1:
      if (const auto token = auth::ParseImpersonatedToken(text))
        if (token->session_token.empty() || !token->expires) std::abort();
      break;
    case 2:
      (void)auth::GoogleErrorText(text);
      (void)auth::ParseSubjectToken(text, "token");
      break;
    case 3:
      if (const auto settings = config::ParseGoogleCredentials(text, "file"))
        if (settings->from.empty() || settings->token_url.empty()) std::abort();
      break;
    case 4:
      if (const auto object = store::gcs::ParseObject(text)) check(*object);
      break;
    case 5:
      if (const auto listing = store::gcs::ParseListing(text)) {
        for (const auto& object : listing->objects) check(object);
      }
      break;
    case 6:
      if (const auto page = store::gcs::ParseBuckets(text)) {
        for (const auto& bucket : page->buckets)
          if (bucket.name.empty()) std::abort();
      }
      break;
    case 7:
      if (const auto rewrite = store::gcs::ParseRewrite(text)) {
        if (rewrite->done) check(rewrite->object);
        if (!rewrite->done && rewrite->token.empty()) std::abort();
      }
      break;
    default: {
      (void)store::gcs::ParseApiError(text);
      store::gcs::Resource object;
      store::gcs::ReadHashHeader(text, object);
      store::gcs::SetExpected(object);
    }
  }
  return 0;
}
