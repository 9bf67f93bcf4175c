// Strangers' compressed streams: no crash, and the same bytes with one thread and with several,
// whatever the pieces. What comes out is cut off at some MB.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <span>
#include <string>

#include "archive/decoder.h"
#include "digest/digest.h"

namespace {

constexpr std::uint64_t kMost = 8 << 20;

/// A digest of what comes out; nullopt where it fails, or is too much.
std::optional<leat::digest::Sha256> Decode(std::span<const std::byte> bytes, std::size_t threads,
                                           std::size_t piece) {
  std::uint64_t sum = 0;
  leat::digest::Hasher hasher(leat::digest::Kind::kSha256);
  const auto decoder =
      leat::archive::Decoder::Make(leat::archive::CodecOf(bytes), threads, 16 << 20,
                                   [&](std::span<const std::byte> decoded) -> leat::Status {
                                     sum += decoded.size();
                                     if (sum > kMost)
                                       return leat::Fail(leat::Errc::kNoSpace, "enough");
                                     hasher.Update(decoded);
                                     return {};
                                   });
  for (std::size_t at = 0; at < bytes.size(); at += piece) {
    if (!decoder->Write(bytes.subspan(at, std::min(piece, bytes.size() - at)))) return std::nullopt;
  }
  if (!decoder->Finish()) return std::nullopt;
  leat::digest::Sha256 out;
  const std::string text = hasher.Finish();
  std::ranges::transform(text, out.begin(), [](char c) { return static_cast<std::byte>(c); });
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  if (leat::archive::CodecOf(bytes) == leat::archive::Codec::kNone) return 0;
  const auto first = Decode(bytes, 1, size);
  if (Decode(bytes, 1, 61) != first) std::abort();
  if (Decode(bytes, 2, 4096) != first) std::abort();
  return 0;
}
