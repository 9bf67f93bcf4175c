// Numbers of bytes and hexadecimal text, as people write and read them.
#ifndef LEAT_BASE_BYTES_H_
#define LEAT_BASE_BYTES_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/error.h"

namespace leat {

inline constexpr std::uint64_t kKiB = 1024;
inline constexpr std::uint64_t kMiB = 1024 * kKiB;
inline constexpr std::uint64_t kGiB = 1024 * kMiB;

/// "5Gi" = 5 * 2^30, "5G" = 5 * 10^9, "512" = 512; K M G T and Ki Mi Gi Ti, optionally with a
/// trailing B, and decimals
/// ("1.5Gi"). kInvalid for anything else, for a negative number, and for what 64 bits cannot hold.
Result<std::uint64_t> ParseSize(std::string_view text);
/// "60", "60s", "5m", "1h30m", "1d". kInvalid otherwise.
Result<std::chrono::seconds> ParseSeconds(std::string_view text);
/// "9.1 MB", "1.0 GB": base 10, one decimal; below 1 kB "312 B".
std::string FormatBytes(std::uint64_t bytes);
/// "1,234,567".
std::string FormatCount(std::uint64_t n);

/// Lower-case hexadecimal.
std::string ToHex(std::span<const std::byte> bytes);
/// kInvalid when the text is not pairs of hexadecimal digits.
Result<std::string> FromHex(std::string_view hex);

inline std::span<const std::byte> AsBytes(std::string_view s) {
  return {reinterpret_cast<const std::byte*>(s.data()), s.size()};
}
inline std::string_view AsText(std::span<const std::byte> b) {
  return {reinterpret_cast<const char*>(b.data()), b.size()};
}

}  // namespace leat

#endif  // LEAT_BASE_BYTES_H_
