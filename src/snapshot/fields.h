// Fields of our text formats: bytes of any kind as one word of ASCII. Private to this folder.
#ifndef LEAT_SNAPSHOT_FIELDS_H_
#define LEAT_SNAPSHOT_FIELDS_H_

#include <array>
#include <charconv>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace leat::snapshot {

/// Percent-encoded (unreserved characters and '/' stay); "-" stands for nothing, and "%2D" for "-"
/// alone.
void AppendField(std::string& out, std::string_view text);
/// nullopt for anything that AppendField does not write.
std::optional<std::string> ReadField(std::string_view field);

/// At each space but those of the last, which is the rest of the line.
template <std::size_t N>
std::optional<std::array<std::string_view, N>> SplitFields(std::string_view line) {
  std::array<std::string_view, N> fields;
  for (std::size_t i = 0; i + 1 < N; ++i) {
    const std::size_t end = line.find(' ');
    if (end == line.npos) return std::nullopt;
    fields[i] = line.substr(0, end);
    line.remove_prefix(end + 1);
  }
  fields[N - 1] = line;
  return fields;
}

/// Without a sign for T that has none, without leading zeros.
template <typename T>
std::optional<T> ReadNumber(std::string_view text) {
  T out = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), out);
  if (ec != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  if (text.size() > 1 && (text.starts_with('0') || text.starts_with("-0"))) return std::nullopt;
  return out;
}

}  // namespace leat::snapshot

#endif  // LEAT_SNAPSHOT_FIELDS_H_
