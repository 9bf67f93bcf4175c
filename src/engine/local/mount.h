// leat mount: a source at a folder of this machine, for whoever looks there.
#ifndef LEAT_ENGINE_LOCAL_MOUNT_H_
#define LEAT_ENGINE_LOCAL_MOUNT_H_

#include <chrono>
#include <optional>
#include <string>

#include "job/home.h"
#include "job/mount_spec.h"

namespace leat::engine::local {

struct MountOptions {
  job::MountSpec spec;  ///< target: the folder, an absolute path
  job::Home home;
  bool strict = false;
  bool allow_other = false;  ///< other users may read it, too: containers
  bool daemon = false;       ///< returns when the mount answers; a process in the background serves
  /// Set: follows its source, looking so often, and when SIGHUP says so (0: then alone).
  std::optional<std::chrono::seconds> refresh;
};
/// Mounts until it is unmounted, or interrupted. 0, or 1 with the reason on stderr.
int Mount(MountOptions options);
/// Ends such a mount, or any of leat's.
int Unmount(const std::string& dir);
/// The mounts of leat's that are seen here, but for those of runs.
int ListMounts(const job::Home& home, bool json);

}  // namespace leat::engine::local

#endif  // LEAT_ENGINE_LOCAL_MOUNT_H_
