// ASCII, as configuration files and protocols compare and trim it.
#ifndef LEAT_BASE_TEXT_H_
#define LEAT_BASE_TEXT_H_

#include <algorithm>
#include <string>
#include <string_view>

namespace leat {

/// A to Z alone: bytes of UTF-8 stay as they are.
inline std::string Lower(std::string_view text) {
  std::string out(text);
  std::ranges::transform(out, out.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  return out;
}

/// Without spaces, tabs and carriage returns at both ends.
inline std::string_view Trim(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r";
  const auto begin = text.find_first_not_of(kSpace);
  if (begin == text.npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

}  // namespace leat

#endif  // LEAT_BASE_TEXT_H_
