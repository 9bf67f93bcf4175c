// What is known of a mount beside the kernel's table: a file in the home, locked as long as its
// process lives.
#ifndef LEAT_ENGINE_LOCAL_MOUNT_RECORD_H_
#define LEAT_ENGINE_LOCAL_MOUNT_RECORD_H_

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>

#include "base/error.h"
#include "job/home.h"
#include "os/file.h"

namespace leat::engine::local {

struct MountRecord {
  std::string source;  ///< for messages: without secrets
  pid_t pid = 0;
  std::int64_t since = 0;  ///< seconds since 1970
  std::string log;         ///< of a mount in the background
};

/// Where the log of a mount in the background at `dir` is.
std::string MountLogPath(const job::Home& home, const std::string& dir);
/// As long as the descriptor is open, a leat mounts there. kConflict: another does. `seen`: whether
/// a mount of leat's is at the folder; where none is, one that has been mounted has been taken
/// away, though programs may still use it, and counts no more.
Result<os::UniqueFd> LockMountRecord(const job::Home& home, const std::string& dir, bool seen);
Status WriteMountRecord(const os::UniqueFd& locked, const MountRecord& record);
/// nullopt: there is none, or its process is gone.
std::optional<MountRecord> ReadMountRecord(const job::Home& home, const std::string& dir);
/// Unless another leat has its own there by now.
void RemoveMountRecord(const job::Home& home, const std::string& dir, const os::UniqueFd& locked);

}  // namespace leat::engine::local

#endif  // LEAT_ENGINE_LOCAL_MOUNT_RECORD_H_
