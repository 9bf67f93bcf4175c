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
  /// both sides. Made of `at` or `end` and one printable ASCII character, cut between the
  /// characters of UTF-8, so that a server which wants UTF-8 gets it.
  std::optional<std::string> Between(std::string_view at, const std::string* end) const;

  /// How much of the way from `start` to `end` lies behind `at`, in parts of what lies before it: 2
  /// means twice as much. Nothing when that cannot be told. A guess: it takes keys to be spread
  /// evenly.
  std::optional<double> Ahead(std::string_view start, std::string_view at,
                              std::string_view end) const;

 private:
  using Bytes = std::bitset<256>;

  const Bytes& SeenAt(std::size_t position) const;
  std::optional<char> Middle(std::size_t position, unsigned char above, int below) const;
  double Place(std::string_view key, std::size_t from) const;

  const std::string prefix_;
  std::string first_;           // the first key ever learned
  std::vector<Bytes> seen_at_;  // by position behind the prefix
  Bytes seen_;
};

}  // namespace leat::snapshot

#endif  // LEAT_SNAPSHOT_CUT_POINTS_H_
