// Folders of this machine that a job file or --bind names (Determined's bind_mounts).
#ifndef LEAT_JOB_BIND_H_
#define LEAT_JOB_BIND_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"

namespace leat::job {

enum class Propagation : std::uint8_t { kPrivate, kSlave, kShared };

struct BindMount {
  std::string host_path;       ///< absolute
  std::string container_path;  ///< absolute, or relative to the working directory, then never "."
                               ///< and without ".."
  bool read_only = false;
  Propagation propagation = Propagation::kPrivate;
};

/// HOST:CONTAINER[:ro|:rw]. kInvalid otherwise: a HOST that is not absolute, a CONTAINER that is
/// ".", empty or has "..".
Result<BindMount> ParseBind(std::string_view text);
/// "rprivate" "private" "rslave" "slave" "rshared" "shared".
Result<Propagation> ParsePropagation(std::string_view text);
/// The same checks for one that was put together otherwise.
Status CheckBind(const BindMount& bind);

/// What lies at the host path is what is meant: kNotFound where there is nothing; kUnavailable
/// where its file system does not answer within `seconds` or says that its handle is stale (a dead
/// NFS server); kNotFound too for an empty folder that is a mount point of /etc/fstab on which
/// nothing is mounted, or lies below one: a missing mount is never an empty dataset. `fstab` and
/// `mountinfo` for tests.
Status CheckHostPath(const std::string& path, int seconds = 5,
                     const std::string& fstab = "/etc/fstab",
                     const std::string& mountinfo = "/proc/self/mountinfo");

}  // namespace leat::job

#endif  // LEAT_JOB_BIND_H_
