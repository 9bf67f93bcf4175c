// Lock files of runs: what each source was resolved to, and runs that are held to it.
#ifndef LEAT_JOB_LOCK_H_
#define LEAT_JOB_LOCK_H_

#include <string>
#include <vector>

#include "base/error.h"
#include "config/aws_config.h"
#include "job/mount_spec.h"
#include "job/remote.h"
#include "snapshot/lock_file.h"

namespace leat::job {

/// What the lock file at `lock_path` is to say of a source; of a folder its entries are written
/// beside it.
Result<snapshot::LockedSource> LockOf(const MountSpec& spec, Remote& remote,
                                      const SnapshotFile& taken, const std::string& lock_path);
/// What a run knows a source by: a dataset's name, a mount's target.
std::string LockName(const MountSpec& spec);
/// Each source, but for folders of this machine, is what the lock file says of it from now on.
/// kInvalid where it says nothing of one.
Status ApplyLock(const std::string& path, std::vector<MountSpec>& mounts,
                 const config::Environment& env);

}  // namespace leat::job

#endif  // LEAT_JOB_LOCK_H_
