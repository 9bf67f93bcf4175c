// Which files of a folder are meant: --include, --exclude, --filter-from, --files-from and sizes,
// as rclone has them. https://rclone.org/filtering/
#ifndef LEAT_TRANSFER_FILTER_H_
#define LEAT_TRANSFER_FILTER_H_

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"

namespace leat::transfer {

/// A glob over paths with '/': '*' and '?' stay within a name, "**" does not, "[a-z]" and "{a,b}"
/// are what they are in a shell. With a leading '/' it is matched from the root, else from any
/// name on; with a trailing '/' it means all that lies below. kInvalid where it is malformed.
class Glob {
 public:
  static Result<Glob> Parse(std::string_view pattern);
  bool Matches(std::string_view path) const;

 private:
  std::vector<std::string> alternatives_;  // without braces
  bool rooted_ = false;
};

/// A value. The first rule that matches decides; where none does, a file is meant unless there was
/// an --include.
class Filter {
 public:
  Status Include(std::string_view pattern);
  Status Exclude(std::string_view pattern);
  /// Lines "+ PATTERN", "- PATTERN", "!" (forgets the rules before); "#" and ";" begin comments.
  Status AddRules(std::string_view text);
  /// Only these paths, a line each.
  void AddFiles(std::string_view text);
  void SetSizes(std::uint64_t min, std::uint64_t max) { min_size_ = min, max_size_ = max; }

  bool Means(std::string_view path, std::uint64_t size) const;
  bool MeansSize(std::uint64_t size) const { return size >= min_size_ && size <= max_size_; }
  bool all() const;  ///< nothing is left out
  /// Of AddFiles; nullopt where it was not called.
  const std::optional<std::set<std::string, std::less<>>>& files() const { return files_; }

 private:
  std::vector<std::pair<bool, Glob>> rules_;
  bool included_ = false;
  std::optional<std::set<std::string, std::less<>>> files_;
  std::uint64_t min_size_ = 0, max_size_ = UINT64_MAX;
};

}  // namespace leat::transfer

#endif  // LEAT_TRANSFER_FILTER_H_
