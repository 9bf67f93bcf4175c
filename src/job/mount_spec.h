// What `-m [TARGET=]SOURCE[,option...]` says (design section 2), and what a source's URL means.
#ifndef LEAT_JOB_MOUNT_SPEC_H_
#define LEAT_JOB_MOUNT_SPEC_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace leat::job {

/// Where bytes come from. A value.
struct Source {
  enum class Kind : std::uint8_t { kLocal, kS3, kHttp };
  Kind kind = Kind::kLocal;
  std::string text;    ///< as it was written
  std::string bucket;  ///< kS3
  std::string
      key;  ///< kS3: key or prefix, taken literally; kHttp: path and query after the origin's '/'
  std::string origin;     ///< kHttp: "https://host:port"
  std::string user_info;  ///< kHttp: "user:password", for requests alone
  std::string path;       ///< kLocal

  /// For messages: without what may be a secret.
  std::string ForMessages() const;
};

/// kInvalid with a sentence for a malformed URL or a scheme that there is not.
Result<Source> ParseSource(std::string_view text);

enum class Mode : std::uint8_t { kStream, kCopy };

struct MountSpec {
  std::string target;  ///< absolute, without a trailing '/' or "." components
  Source source;
  bool writable = false;
  Mode mode = Mode::kStream;
  std::string etag, version, name, profile, region, endpoint;
  bool anonymous = false;
  bool requester_pays = false;
};

/// Reads the argument of -m. A word behind the last commas is an option only if it is one that leat
/// knows; everything before belongs to the source. kInvalid: a malformed source or target, an
/// option twice, with a bad value, or of a kind that this source or this version does not have.
Result<MountSpec> ParseMount(std::string_view text);
/// Only SOURCE[,option...].
Result<MountSpec> ParseSourceWithOptions(std::string_view text);

/// The target with what links in it lead to.
std::string ResolvedTarget(const MountSpec& mount);
/// kInvalid for the same target twice, by whatever names.
Status CheckTargets(const std::vector<MountSpec>& mounts);

}  // namespace leat::job

#endif  // LEAT_JOB_MOUNT_SPEC_H_
