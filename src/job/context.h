// The context of a run: a folder whose contents are copied into a private working folder, as
// Determined's model definition.
#ifndef LEAT_JOB_CONTEXT_H_
#define LEAT_JOB_CONTEXT_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace leat::job {

/// Patterns of .gitignore (gitignore(5)): the last that matches decides, "!" takes back, "/"
/// anchors or means folders alone. A value.
class IgnoreRules {
 public:
  /// Adds the patterns of a file's contents.
  void Add(std::string_view text);
  /// `path` is relative, components joined by '/'. What lies in an ignored folder is ignored
  /// (callers do not go into it).
  bool Ignores(std::string_view path, bool is_dir) const;

 private:
  struct Rule {
    std::string pattern;
    bool negated = false, folders_only = false, anchored = false;
  };
  std::vector<Rule> rules_;
};

/// 96 MB: strictly less may be copied (Determined's documented limit).
inline constexpr std::uint64_t kContextLimit = 96'000'000;

struct ContextCopy {
  std::uint64_t files = 0, bytes = 0;
};

/// Copies the contents of the folder `from` into `to` (made, mode 0700), cloned where the disk can,
/// with modes, times and symbolic links as they are; but for what .leatignore and .detignore in it
/// (both are read) name. Nothing is copied where the files have `limit` bytes or more together:
/// kInvalid, with the sum and the ten largest files. kNotFound: no such folder. Devices, fifos and
/// sockets are left out. A file that changes size meanwhile is copied as far as it goes.
Result<ContextCopy> CopyContext(const std::string& from, const std::string& to,
                                std::uint64_t limit = kContextLimit);

}  // namespace leat::job

#endif  // LEAT_JOB_CONTEXT_H_
