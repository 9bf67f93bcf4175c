// The context of a run: a folder whose contents are copied into a private working folder, as
// Determined's model definition.
#ifndef LEAT_JOB_CONTEXT_H_
#define LEAT_JOB_CONTEXT_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace leat::job {

/// Patterns of .gitignore (gitignore(5)), with git's own readings of what that leaves open: the
/// last that matches decides, "!" takes back, "/" anchors or means folders alone. A value.
class IgnoreRules {
 public:
  /// Adds the patterns of a file's contents.
  void Add(std::string_view text);
  /// `path` is relative, components joined by '/'. What lies in an ignored folder is ignored.
  bool Ignores(std::string_view path, bool is_dir) const;
  /// The same for one whose folder is not ignored: callers that do not go into ignored folders ask
  /// no more.
  bool IgnoresHere(std::string_view path, bool is_dir) const;

 private:
  struct Rule {
    std::string pattern;
    std::size_t literal = 0;  ///< so many bytes at its beginning stand for themselves
    bool negated = false, folders_only = false;
    bool whole_path = false;  ///< else a name in any folder
  };
  std::vector<Rule> rules_;
};

/// 96 MB: strictly less may be copied (Determined's documented limit).
inline constexpr std::uint64_t kContextLimit = 96'000'000;

struct ContextCopy {
  std::uint64_t files = 0;  ///< and symbolic links
  std::uint64_t bytes = 0;  ///< of the files
};

/// Copies the contents of the folder `from` into `to` (made, mode 0700), cloned where the disk can,
/// with modes (but setuid, setgid and sticky), times and symbolic links as they are; but for what
/// .detignore and .leatignore in it (both are read, ours last) name. Nothing is copied where the
/// files have `limit` bytes or more together: kInvalid, with the sum and the ten largest files.
/// kNotFound: no such folder. kInvalid: not a folder. kConflict: `to` is there and not empty.
/// Devices, fifos and sockets are left out, and `to`, where it lies in `from`. A file that changes
/// size meanwhile is copied as far as it goes, and no further than it went; one that vanishes is
/// left out. After any other failure there is no `to`.
Result<ContextCopy> CopyContext(const std::string& from, const std::string& to,
                                std::uint64_t limit = kContextLimit);

}  // namespace leat::job

#endif  // LEAT_JOB_CONTEXT_H_
