// What Keystone and Swift answer with: no crash; what is taken has what it must have. The first
// byte chooses the document.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "auth/keystone.h"
#include "store/swift/json.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 5) {
    case 0:
      if (const auto token = leat::auth::ParseKeystoneToken(text, "", "public"))
        if (token->endpoint.empty()) std::abort();
      break;
    case 1:
      if (const auto listing = leat::store::swift::ParseListing(text)) {
        for (const auto& object : listing->objects)
          if (object.key.empty()) std::abort();
        for (const std::size_t i : listing->empty)
          if (i >= listing->objects.size()) std::abort();
      }
      break;
    case 2:
      if (const auto containers = leat::store::swift::ParseContainers(text)) {
        for (const auto& container : *containers)
          if (container.name.empty()) std::abort();
      }
      break;
    case 3:
      if (const auto parts = leat::store::swift::ParseManifest(text)) {
        for (const auto& part : *parts)
          if (part.md5.size() != 16) std::abort();
      }
      break;
    default:
      (void)leat::store::swift::ParseBulkDelete(text);
  }
  return 0;
}
