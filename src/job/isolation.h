// The job's private view of the machine (design decision 11): its own mounts, its attachments, its
// own process numbers.
#ifndef LEAT_JOB_ISOLATION_H_
#define LEAT_JOB_ISOLATION_H_

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "job/channel.h"
#include "job/data_process.h"

namespace leat::job {

/// What this machine lets this user do; each "no" with its reason, for `leat doctor`.
struct Abilities {
  enum class Namespaces : std::uint8_t { kNone, kUser, kRoot } namespaces = Namespaces::kNone;
  std::string no_namespaces;  ///< why only kNone
  bool pid_namespace = false;
  std::string no_pid_namespace;
  bool fuse_direct = false;  ///< /dev/fuse can be opened and mounted
  bool fusermount = false;   ///< fusermount3 is there and set-user-id
  std::string no_fusermount;
  std::string no_fuse;  ///< why neither
  bool passthrough =
      false;  ///< files may be handed to the kernel (if it can do that: the connection says)
  bool container = false;  ///< the root's user namespace is not the machine's
};
/// /dev/fuse, or what LEAT_FUSE_DEVICE names.
std::string FuseDevice();
/// Forks once to try; about a
/// millisecond.
Abilities FindAbilities(const std::string& fuse_device);

struct Command {
  std::vector<std::string> words;        ///< of the job
  std::vector<std::string> environment;  ///< "NAME=value"
  std::string workdir;  ///< absolute; empty: `cwd` as far as it exists in the job's view
  std::string cwd;
  std::vector<int> ignored_signals;  ///< that leat was started with (nohup), and the job is too
};

/// Closes this process's descriptors that would not survive an exec, but for `keep`: a fork without
/// exec must not hold open what tells other processes, by its end, that leat is gone.
void CloseOwnDescriptors(const std::vector<int>& keep);

/// Kills all descendants of this process, which is their subreaper, but `spared` and its own.
void EndDescendants(pid_t spared);

struct Isolation {
  Abilities abilities;
  bool pid_namespace = false;
  std::vector<std::string> hidden;  ///< folders that the job does not see: leat's home and cache
  std::string fuse_device;
  uid_t uid = 0;
  gid_t gid = 0;
};

/// The process that builds the job's namespaces and starts its init; never returns. Tells `channel`
/// kDevice for each FUSE attachment, kMade for each folder that had to be made on the host, then
/// kStarted; on failure kFailed. FUSE attachments for which `mounted_dirs` names a folder are
/// mounted there already.
[[noreturn]] void RunBuilder(const std::vector<Attachment>& attachments,
                             const std::vector<std::string>& mounted_dirs,
                             const Isolation& isolation, const Command& command, Channel channel);

/// The job's init, PID 1 of its namespace where it has one: starts the command, reaps, passes on
/// the signals that the supervisor names, and ends everything when the command ends or the
/// supervisor is gone. Never returns.
[[noreturn]] void RunInit(const Isolation& isolation, const Command& command, Channel channel);

}  // namespace leat::job

#endif  // LEAT_JOB_ISOLATION_H_
