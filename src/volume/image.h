// A file system of a size of its own (design decision 13): a preallocated image on a loop device,
// that nobody sees but who holds its descriptor.
#ifndef LEAT_VOLUME_IMAGE_H_
#define LEAT_VOLUME_IMAGE_H_

#include <cstdint>
#include <string>

#include "base/error.h"
#include "os/file.h"

namespace leat::volume {

/// Makes an image in the folder `dir` in which a user can fill `bytes` and make `inodes` files (the
/// file system's own needs come on top; `bytes` counts as df does, in blocks of 4096), and mounts
/// it detached. It never has a name: with the last descriptor and the last place where it is
/// attached the mount, the loop device and the room are gone, however that came about. XFS from 300
/// MiB on, else ext4; preallocated, direct I/O. The root directory is empty, owned by the caller,
/// mode 0755.
///
/// The descriptor is that of a detached mount: os::AttachTree puts it in its place, openat() and
/// /proc/self/fd/N see into it. kDenied: not root (of the machine). kNoSpace: `dir` has not that
/// much room. kUnsupported: mkfs.xfs or mkfs.ext4 is missing (the sentence names the package),
/// there are no loop devices.
Result<os::UniqueFd> MakeImage(const std::string& dir, std::uint64_t bytes, std::uint64_t inodes);

}  // namespace leat::volume

#endif  // LEAT_VOLUME_IMAGE_H_
