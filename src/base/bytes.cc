#include "base/bytes.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

namespace leat {

Result<std::uint64_t> ParseSize(std::string_view text) {
  const auto bad = [&] {
    return Fail(Errc::kInvalid,
                fmt::format("\"{}\" is not a size (use 500M, 10G, 10Gi ...)", text));
  };
  // What stands in front: digits, and maybe more of them behind a point.
  const std::size_t digits = text.find_first_not_of("0123456789");
  const std::size_t number =
      digits < text.size() && text[digits] == '.'
          ? std::min(text.find_first_not_of("0123456789", digits + 1), text.size())
          : std::min(digits, text.size());
  std::string_view unit = text.substr(number);
  if (!unit.empty() && unit.back() == 'B') unit.remove_suffix(1);
  std::uint64_t factor = 1;
  if (!unit.empty()) {
    const std::size_t power =
        std::string_view("KMGT").find(unit.front() == 'k' ? 'K' : unit.front());
    if (power == std::string_view::npos) return bad();
    unit.remove_prefix(1);
    if (!unit.empty() && unit != "i") return bad();
    for (std::size_t i = 0; i <= power; ++i) factor *= unit.empty() ? 1000 : 1024;
  }
  const char* const end = text.data() + number;
  if (std::uint64_t whole = 0; number == std::min(digits, text.size())) {
    const auto [last, ec] = std::from_chars(text.data(), end, whole);
    std::uint64_t bytes = 0;
    if (ec != std::errc{} || last != end || __builtin_mul_overflow(whole, factor, &bytes))
      return bad();
    return bytes;
  }
  double value = 0;
  const auto [last, ec] = std::from_chars(text.data(), end, value, std::chars_format::fixed);
  if (ec != std::errc{} || last != end) return bad();
  const double bytes = value * static_cast<double>(factor);
  if (!(bytes < 9.2e18)) return bad();
  return static_cast<std::uint64_t>(std::llround(bytes));
}

Result<std::chrono::seconds> ParseSeconds(std::string_view text) {
  constexpr std::int64_t kLongest = 10LL * 365 * 86400;
  const auto bad = [&] {
    return Fail(Errc::kInvalid, fmt::format("\"{}\" is not a time (use 60s, 5m, 1h ...)", text));
  };
  std::int64_t total = 0;
  std::string_view rest = text;
  do {
    std::int64_t number = 0;
    const auto [last, ec] = std::from_chars(rest.data(), rest.data() + rest.size(), number);
    if (ec != std::errc{} || number < 0 || number > kLongest) return bad();
    rest.remove_prefix(static_cast<std::size_t>(last - rest.data()));
    const char unit = rest.empty() ? 's' : rest.front();
    const std::size_t which = std::string_view("smhd").find(unit);
    if (which == std::string_view::npos) return bad();
    if (!rest.empty()) rest.remove_prefix(1);
    total += number * std::array<std::int64_t, 4>{1, 60, 3600, 86400}[which];
    if (total > kLongest) return bad();
  } while (!rest.empty());
  return std::chrono::seconds(total);
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
