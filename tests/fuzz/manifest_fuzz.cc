// Manifests of trees: no crash, and what is read is written the same again.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "digest/digest.h"
#include "snapshot/manifest.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  // As it is, and as lines in a frame whose sum is right.
  std::string framed = "leat-manifest 1\n" + std::string(text);
  framed += "sha256 " + leat::ToHex(leat::digest::HashSha256(leat::AsBytes(framed))) + "\n";
  for (const std::string_view input : {text, std::string_view(framed)}) {
    const auto manifest = leat::snapshot::Manifest::Decode(input);
    if (manifest && manifest->Encode() != input) std::abort();
  }
  return 0;
}
