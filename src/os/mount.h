// Mounts, by the calls that work on descriptors (Linux 5.12 and later): a tree is made ready before
// it is visible anywhere.
#ifndef LEAT_OS_MOUNT_H_
#define LEAT_OS_MOUNT_H_

#include <sys/types.h>

#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "os/file.h"

namespace leat::os {

/// A detached copy of the tree at `path` with all mounts below it.
Result<UniqueFd> CloneTree(const std::string& path);
/// Everything in a detached tree becomes read-only, recursively; no superblock is touched. What is
/// mounted below its original later does not come in.
Status SetReadOnly(const UniqueFd& tree);
/// What is mounted below a detached tree's original from here on does not come in.
Status SetPrivate(const UniqueFd& tree);
/// The mount at `path` alone.
Status SetReadOnlyAt(const std::string& path);
/// What happens to the mounts of the whole namespace from here on comes in, and does not go out.
Status MakeAllSlave();
Status AttachTree(const UniqueFd& tree, const std::string& path);
/// `options` as for mount(8): "mode=755,size=1m".
Status MountTmpfs(const std::string& path, const std::string& options);

/// A detached mount of a file system of `type` on a block device, nosuid and nodev; `options` are
/// such without a value. It lives as long as its descriptor or a place where it is attached.
/// kUnsupported: the kernel does not know the type.
Result<UniqueFd> NewMount(const std::string& type, const std::string& device,
                          const std::vector<std::string>& options);

/// A FUSE file system whose server has not begun: the descriptor to serve and the detached mount.
/// The device is opened and the mount made in the calling process's user namespace, which must be
/// the same for both.
struct FuseMount {
  UniqueFd device;
  UniqueFd mount;
};
struct FuseMountOptions {
  std::string device = "/dev/fuse";
  uid_t uid = 0;
  gid_t gid = 0;
  bool allow_other = false;
};
Result<FuseMount> NewFuseMount(const FuseMountOptions& options);
/// The same through fusermount3, attached at `dir`: for users who may not mount.
Result<UniqueFd> FusermountMount(const std::string& dir, bool allow_other);
Status FusermountUnmount(const std::string& dir);

/// A line of /proc/self/mountinfo; the last of one folder is what is seen there.
struct MountPoint {
  std::string id;  ///< of this mount, as long as it lives
  std::string dir;
  std::string root;     ///< of the file system, what is seen at dir
  std::string type;     ///< "fuse.leat"
  std::string options;  ///< of the file system
};
/// In the order in which they were made. Asks no file system. (Another file for tests.)
std::vector<MountPoint> MountTable(const std::string& mountinfo = "/proc/self/mountinfo");
/// "a\040b" of mountinfo and fstab is "a b".
std::string PlainMountPath(std::string_view text);

/// "0:45" of the file system that a descriptor is on, without asking its server; empty if that is
/// not known.
std::string DeviceOf(const UniqueFd& tree);
/// The kernel's readahead of a file system, where that may be set.
void SetReadahead(const std::string& device, unsigned kib);

}  // namespace leat::os

#endif  // LEAT_OS_MOUNT_H_
