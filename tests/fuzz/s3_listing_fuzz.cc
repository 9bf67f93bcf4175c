// The listing parser: no input may crash it, and what it accepts is sane.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "store/s3/xml.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string document(reinterpret_cast<const char*>(data), size);
  const auto listing = leat::store::s3::ParseListing(document);
  if (!listing) return 0;
  for (const auto& info : listing->objects) {
    if (info.key.empty() || info.key.size() > size) std::abort();
  }
  return 0;
}
