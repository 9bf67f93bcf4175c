// Where to cut a range of keys that nobody has listed yet, so that two may list it side by side.
// Private to this folder.
#ifndef LEAT_SNAPSHOT_CUT_POINTS_H_
#define LEAT_SNAPSHOT_CUT_POINTS_H_

#include <bitset>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace leat::snapshot {

/// Learns from the keys that have been listed how keys go on. All keys begin with the prefix. Not
/// thread-safe.
class CutPoints {
 public:
  explicit CutPoints(std::string prefix) : prefix_(std::move(prefix)) {}

  /// `key` was listed next after `before` ("" when it is the first of its page).
  void Learn(std::string_view before, std::string_view key);

  /// A string between `at` and `end` (null: behind the last possible key), likely to have keys on
  /// both sides, and to have at least `pages` like the last one up to where the numbers or letters
  /// that it cuts come to their end. The last page went from `page_first` to `at`. The string is a
  /// head of `at` or `end` and one printable ASCII character, cut between characters of UTF-8, so
  /// that a server which wants UTF-8 gets it.
  std::optional<std::string> Between(std::string_view page_first, std::string_view at,
                                     const std::string* end, double pages) const;

  /// How many pages like the last one lie between `at` and `end`. Nothing when the page was too
  /// small a step to tell. A guess: it takes keys to be spread evenly.
  std::optional<double> Ahead(std::string_view page_first, std::string_view at,
                              std::string_view end) const;

 private:
  using Bytes = std::bitset<256>;

  Bytes Likely(std::size_t position) const;
  double Place(std::string_view key, std::size_t from) const;

  const std::string prefix_;
  std::vector<Bytes> seen_at_;  // by position behind the prefix
  Bytes seen_;
};

}  // namespace leat::snapshot

#endif  // LEAT_SNAPSHOT_CUT_POINTS_H_
