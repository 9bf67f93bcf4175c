#include "snapshot/cut_points.h"

#include <algorithm>

namespace leat::snapshot {
namespace {

constexpr std::size_t kPositions = 512;  // behind these we do not look
constexpr std::size_t kDepth = 8;        // bytes of a key that are learned
constexpr std::size_t kPlaces = 32;      // bytes of a key that place it

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

using Bytes = std::bitset<256>;

Bytes Span(unsigned first, unsigned last) {
  Bytes bytes;
  for (unsigned c = first; c <= last; ++c) bytes.set(c);
  return bytes;
}

struct Choice {
  std::size_t count = 0;
  char middle = 0;
};

/// The printable ones of `bytes` that are greater than `above` and less than `below`.
Choice Choose(const Bytes& bytes, unsigned char above, unsigned below) {
  char found[128];
  std::size_t n = 0;
  for (unsigned c = std::max(above + 1U, 0x21U); c < std::min(below, 0x7fU); ++c) {
    if (bytes.test(c)) found[n++] = static_cast<char>(c);
  }
  return n == 0 ? Choice{} : Choice{n, found[n / 2]};
}

}  // namespace

void CutPoints::Learn(std::string_view before, std::string_view key) {
  const std::size_t from = std::max(CommonLength(before, key), prefix_.size());
  // The first of a page is learned whole, of the others what is new.
  const std::size_t depth = before.empty() ? kPositions : kDepth;
  const std::size_t to = std::min({from + depth, key.size(), prefix_.size() + kPositions});
  for (std::size_t i = from; i < to; ++i) {
    const std::size_t position = i - prefix_.size();
    if (seen_at_.size() <= position) seen_at_.resize(position + 1);
    seen_at_[position].set(Byte(key, i));
    seen_.set(Byte(key, i));
  }
}

/// What stands at a position: what was seen there, and where digits were seen all digits, for
/// numbers have them all in the end.
CutPoints::Bytes CutPoints::Likely(std::size_t position) const {
  static const Bytes kDigits = Span('0', '9');
  const std::size_t i = position - prefix_.size();
  if (i >= seen_at_.size()) return {};
  return (seen_at_[i] & kDigits).any() ? seen_at_[i] | kDigits : seen_at_[i];
}

std::optional<std::string> CutPoints::Between(std::string_view page_first, std::string_view at,
                                              const std::string* end, double pages) const {
  const std::size_t low = prefix_.size();
  if (at.size() <= low) return std::nullopt;
  const std::size_t top = end == nullptr ? low : std::max(low, CommonLength(at, *end));
  if (top >= at.size()) return std::nullopt;
  const unsigned end_byte = end != nullptr && top < end->size() ? Byte(*end, top) : 256;
  const auto below = [&](std::size_t i) { return i == top ? end_byte : 256U; };
  const auto cut = [&](std::size_t i, char c) { return std::string(at.substr(0, i)) + c; };
  // Keys count like numbers: the last page moved the character at `counting` on by some steps; a
  // step of the one before it takes as many pages as there are characters at `counting`, and so on
  // up. Cut where enough is left to count.
  const std::size_t counting = std::clamp(CommonLength(page_first, at), top, at.size() - 1);
  const int moved =
      counting < page_first.size() ? Byte(at, counting) - Byte(page_first, counting) : 1;
  double pages_a_step = 1.0 / std::max(moved, 1);
  std::optional<std::string> largest;
  for (std::size_t i = counting;; --i) {
    if (IsBoundary(at, i)) {
      const Choice choice = Choose(Likely(i), Byte(at, i), below(i));
      const double left = static_cast<double>(choice.count) * pages_a_step;
      if (left >= 1) largest = cut(i, choice.middle);
      if (left >= pages) return largest;
    }
    pages_a_step *= static_cast<double>(std::max<std::size_t>(Likely(i).count(), 1));
    if (i == top) break;
  }
  if (largest) return largest;
  if (end != nullptr && end->size() > top + 1 && end_byte < 0x7f && IsBoundary(*end, top + 1)) {
    return end->substr(0, top + 1);
  }
  // Into the unknown: characters that were seen elsewhere, then those of the same kind as the one
  // at hand, then all.
  for (const bool same_kind : {true, false}) {
    for (std::size_t i = counting;; --i) {
      const unsigned char kind = EndOfClass(Byte(at, i));
      if (IsBoundary(at, i) && (!same_kind || kind != 0)) {
        const unsigned limit = same_kind ? std::min<unsigned>(below(i), kind + 1U) : below(i);
        Choice choice = Choose(seen_, Byte(at, i), limit);
        if (choice.count == 0 && same_kind) {
          choice = Choose(Span(0x21, 0x7e), Byte(at, i), limit);
        }
        if (choice.count > 0) return cut(i, choice.middle);
      }
      if (i == top) break;
    }
  }
  return std::nullopt;
}

/// Where in [0, 1) the key stands among all that share its first `from` bytes.
double CutPoints::Place(std::string_view key, std::size_t from) const {
  double place = 0, unit = 1;
  for (std::size_t i = from; i < std::min(key.size(), from + kPlaces) && unit > 1e-15; ++i) {
    const Bytes likely = Likely(i);
    const unsigned char c = Byte(key, i);
    std::size_t below = 0;
    for (std::size_t b = 0; b < c; ++b) below += likely.test(b);
    if (likely.count() == 1 && likely.test(c)) continue;  // the same in all keys
    unit /= static_cast<double>(likely.count() + 2);
    // One more than those below: what ends here comes before what goes on.
    place += unit * static_cast<double>(below + 1);
  }
  return place;
}

std::optional<double> CutPoints::Ahead(std::string_view page_first, std::string_view at,
                                       std::string_view end) const {
  const std::size_t from = std::max(CommonLength(page_first, end), prefix_.size());
  const double step = Place(at, from) - Place(page_first, from);
  const double left = Place(end, from) - Place(at, from);
  if (step < 1e-12) return std::nullopt;
  return std::max(left, 0.0) / step;
}

}  // namespace leat::snapshot
