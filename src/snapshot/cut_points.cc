#include "snapshot/cut_points.h"

#include <algorithm>

namespace leat::snapshot {
namespace {

constexpr std::size_t kPositions = 512;  // behind these we do not look
constexpr std::size_t kDepth = 8;        // bytes of a key that are learned, and that place it

std::size_t CommonLength(std::string_view a, std::string_view b) {
  const std::size_t n = std::min(a.size(), b.size());
  std::size_t i = 0;
  while (i < n && a[i] == b[i]) ++i;
  return i;
}

unsigned char Byte(std::string_view s, std::size_t i) { return static_cast<unsigned char>(s[i]); }

/// A cut before position `i` leaves whole characters of UTF-8.
bool IsBoundary(std::string_view s, std::size_t i) {
  return i >= s.size() || (Byte(s, i) & 0xc0) != 0x80;
}

/// The last of the digits, of the small or of the capital letters, where `c` is one; else 0.
unsigned char EndOfClass(unsigned char c) {
  if (c >= '0' && c <= '9') return '9';
  if (c >= 'a' && c <= 'z') return 'z';
  if (c >= 'A' && c <= 'Z') return 'Z';
  return 0;
}

}  // namespace

void CutPoints::Learn(std::string_view before, std::string_view key) {
  if (first_.empty()) first_ = key;
  const std::size_t from = std::max(CommonLength(before, key), prefix_.size());
  const std::size_t to = std::min({from + kDepth, key.size(), prefix_.size() + kPositions});
  for (std::size_t i = from; i < to; ++i) {
    const std::size_t position = i - prefix_.size();
    if (seen_at_.size() <= position) seen_at_.resize(position + 1);
    seen_at_[position].set(Byte(key, i));
    seen_.set(Byte(key, i));
  }
}

const CutPoints::Bytes& CutPoints::SeenAt(std::size_t position) const {
  static const Bytes kNone;
  const std::size_t i = position - prefix_.size();
  return i < seen_at_.size() ? seen_at_[i] : kNone;
}

/// The middle one of the characters between the two that are most likely to occur at this position:
/// those that were seen there, or were seen anywhere and are digits or letters like the one at
/// hand, or any like it, or any seen.
std::optional<char> CutPoints::Middle(std::size_t position, unsigned char above, int below) const {
  const unsigned char like = EndOfClass(above);
  const auto pick = [&](auto&& likely) -> std::optional<char> {
    char found[128];
    std::size_t n = 0;
    for (int c = std::max<int>(above + 1, 0x21); c < std::min(below, 0x7f); ++c) {
      if (likely(static_cast<unsigned char>(c))) found[n++] = static_cast<char>(c);
    }
    if (n == 0) return std::nullopt;
    return found[n / 2];
  };
  const Bytes& here = SeenAt(position);
  if (auto c = pick([&](unsigned char x) { return here.test(x); })) return c;
  if (auto c = pick([&](unsigned char x) { return x <= like && seen_.test(x); })) return c;
  if (auto c = pick([&](unsigned char x) { return x <= like; })) return c;
  return pick([&](unsigned char x) { return seen_.test(x); });
}

std::optional<std::string> CutPoints::Between(std::string_view at, const std::string* end) const {
  const std::size_t low = prefix_.size();
  if (at.size() <= low) return std::nullopt;
  const std::size_t top = end == nullptr ? low : std::max(low, CommonLength(at, *end));
  // The end's byte at `top`, where there is one; at deeper positions everything above `at` is below
  // the end.
  const int end_byte = end != nullptr && top < end->size() ? Byte(*end, top) : 256;
  const auto cut_at = [&](std::size_t i) -> std::optional<std::string> {
    if (i >= at.size() || !IsBoundary(at, i)) return std::nullopt;
    const auto c = Middle(i, Byte(at, i), i == top ? end_byte : 256);
    if (!c) return std::nullopt;
    return std::string(at.substr(0, i)) + *c;
  };
  if (end != nullptr && top < at.size()) {
    // What has been seen at the very place where both differ is the best guess, and next the end's
    // own beginning.
    const Bytes& here = SeenAt(top);
    for (int c = Byte(at, top) + 1; c < std::min(end_byte, 0x7f); ++c) {
      if (here.test(static_cast<std::size_t>(c))) return cut_at(top);
    }
    if (end->size() > top + 1 && end_byte < 0x7f && IsBoundary(*end, top + 1)) {
      return end->substr(0, top + 1);
    }
  }
  // Keys count upwards like numbers: from the place that has been counting since the first key, go
  // up while that place has not much left to count.
  const std::size_t counting = std::min(std::max(CommonLength(first_, at), top), at.size() - 1);
  if (counting < first_.size()) {
    const int used = Byte(at, counting) - Byte(first_, counting) + 1;
    const int left = EndOfClass(Byte(at, counting)) - Byte(at, counting);
    if (left >= 2 * used) {
      if (auto cut = cut_at(counting)) return cut;
    }
  }
  for (std::size_t i = counting; i-- > top;) {
    if (auto cut = cut_at(i)) return cut;
  }
  for (std::size_t i = counting; i < std::min(at.size(), low + kPositions); ++i) {
    if (auto cut = cut_at(i)) return cut;
  }
  return std::nullopt;
}

/// Where in [0, 1) the key stands among all that share its first `from` bytes: by the characters
/// seen at each position, and where digits were seen by all digits, for numbers have them all in
/// the end.
double CutPoints::Place(std::string_view key, std::size_t from) const {
  static const Bytes kDigits = [] {
    Bytes digits;
    for (std::size_t c = '0'; c <= '9'; ++c) digits.set(c);
    return digits;
  }();
  double place = 0, unit = 1;
  for (std::size_t i = from; i < std::min(key.size(), from + kDepth); ++i) {
    Bytes likely = SeenAt(i);
    if ((likely & kDigits).any()) likely |= kDigits;
    const unsigned char c = Byte(key, i);
    std::size_t below = 0;
    for (std::size_t b = 0; b < c; ++b) below += likely.test(b);
    unit /= static_cast<double>(likely.count() + 2);
    // One more than those below: what ends here comes before what goes on.
    place += unit * static_cast<double>(below + 1);
  }
  return place;
}

std::optional<double> CutPoints::Ahead(std::string_view start, std::string_view at,
                                       std::string_view end) const {
  const std::size_t from = std::max(CommonLength(start, end), prefix_.size());
  const double done = Place(at, from) - Place(start, from);
  const double left = Place(end, from) - Place(at, from);
  if (done <= 0) return std::nullopt;
  return std::max(left, 0.0) / done;
}

}  // namespace leat::snapshot
