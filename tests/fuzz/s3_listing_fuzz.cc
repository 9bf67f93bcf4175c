// The listing parsers: no input may crash it, and what it accepts is sane.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "store/s3/xml.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string document(reinterpret_cast<const char*>(data), size);
  std::string versions = document;
  const auto check = [&](const auto& listing) {
    if (!listing) return;
    for (const auto& info : listing->objects) {
      if (info.key.empty() || info.key.size() > size) std::abort();
    }
  };
  check(leat::store::s3::ParseListing(document));
  const auto listed = leat::store::s3::ParseVersions(versions);
  check(listed);
  if (listed && listed->truncated && listed->last_key.empty()) std::abort();
  return 0;
}
