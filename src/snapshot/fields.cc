#include "snapshot/fields.h"

#include <algorithm>
#include <array>

namespace leat::snapshot {
namespace {

constexpr auto kStays = [] {
  std::array<bool, 256> stays{};
  for (const char c : std::string_view("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                       "0123456789-._~/"))
    stays[static_cast<unsigned char>(c)] = true;
  return stays;
}();
constexpr std::string_view kDigits = "0123456789ABCDEF";

bool Stays(char c) { return kStays[static_cast<unsigned char>(c)]; }

}  // namespace

void AppendField(std::string& out, std::string_view text) {
  if (text.empty() || text == "-") {
    out += text.empty() ? "-" : "%2D";
    return;
  }
  while (!text.empty()) {
    const auto end = std::ranges::find_if_not(text, Stays);
    out.append(text.begin(), end);
    text.remove_prefix(static_cast<std::size_t>(end - text.begin()));
    if (text.empty()) return;
    const auto byte = static_cast<unsigned char>(text.front());
    out += '%';
    out += kDigits[byte >> 4];
    out += kDigits[byte & 15];
    text.remove_prefix(1);
  }
}

std::optional<std::string> ReadField(std::string_view field) {
  if (field == "-") return std::string();
  if (field == "%2D") return std::string("-");
  if (field.empty()) return std::nullopt;
  std::string out;
  while (!field.empty()) {
    const auto end = std::ranges::find_if_not(field, Stays);
    out.append(field.begin(), end);
    field.remove_prefix(static_cast<std::size_t>(end - field.begin()));
    if (field.empty()) break;
    if (field.front() != '%' || field.size() < 3) return std::nullopt;
    const std::size_t high = kDigits.find(field[1]), low = kDigits.find(field[2]);
    if (high == kDigits.npos || low == kDigits.npos) return std::nullopt;
    const auto byte = static_cast<char>(high << 4 | low);
    if (Stays(byte)) return std::nullopt;
    out += byte;
    field.remove_prefix(3);
  }
  return out;
}

}  // namespace leat::snapshot
