#include "base/bytes.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cmath>

namespace leat {

Result<std::uint64_t> ParseSize(std::string_view text) {
  const auto bad = [&] {
    return Fail(Errc::kInvalid,
                fmt::format("\"{}\" is not a size (use 500M, 10G, 10Gi ...)", text));
  };
  double value = 0;
  const auto [end, ec] =
      std::from_chars(text.data(), text.data() + text.size(), value, std::chars_format::fixed);
  if (ec != std::errc{} || value < 0 || !std::isfinite(value)) return bad();
  std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
  if (!unit.empty() && unit.back() == 'B') unit.remove_suffix(1);
  double factor = 1;
  if (!unit.empty()) {
    const std::size_t power =
        std::string_view("KMGT").find(unit.front() == 'k' ? 'K' : unit.front());
    if (power == std::string_view::npos) return bad();
    unit.remove_prefix(1);
    if (!unit.empty() && unit != "i") return bad();
    factor = std::pow(unit.empty() ? 1000.0 : 1024.0, static_cast<double>(power + 1));
  }
  const double bytes = value * factor;
  if (bytes >= 18446744073709551615.0) return bad();
  return static_cast<std::uint64_t>(std::llround(std::min(bytes, 9.2e18)));
}

std::string FormatBytes(std::uint64_t bytes) {
  static constexpr std::array<const char*, 6> kUnits = {"kB", "MB", "GB", "TB", "PB", "EB"};
  if (bytes < 1000) return fmt::format("{} B", bytes);
  double value = static_cast<double>(bytes) / 1000;
  std::size_t unit = 0;
  for (; value >= 999.95 && unit + 1 < kUnits.size(); ++unit) value /= 1000;
  return fmt::format("{:.1f} {}", value, kUnits[unit]);
}

std::string FormatCount(std::uint64_t n) {
  std::string digits = std::to_string(n);
  for (std::size_t i = digits.size(); i > 3; i -= 3) digits.insert(i - 3, ",");
  return digits;
}

std::string ToHex(std::span<const std::byte> bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const std::byte b : bytes) {
    out += kDigits[std::to_integer<unsigned>(b) >> 4];
    out += kDigits[std::to_integer<unsigned>(b) & 15];
  }
  return out;
}

Result<std::string> FromHex(std::string_view hex) {
  const auto digit = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
  };
  if (hex.size() % 2 != 0) return Fail(Errc::kInvalid, "odd number of hexadecimal digits");
  std::string out;
  out.reserve(hex.size() / 2);
  for (std::size_t i = 0; i < hex.size(); i += 2) {
    const int hi = digit(hex[i]);
    const int lo = digit(hex[i + 1]);
    if (hi < 0 || lo < 0) return Fail(Errc::kInvalid, "not hexadecimal");
    out += static_cast<char>(hi * 16 + lo);
  }
  return out;
}

}  // namespace leat
