#include "volume/image.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <vector>

#include "base/bytes.h"
#include "base/log.h"
#include "os/mount.h"
#include "os/program.h"

namespace leat::volume {
namespace {

constexpr std::uint64_t kBlock = 4096;
constexpr std::uint64_t kSmallestXfs = 300 * kMiB;  // mkfs.xfs refuses what is smaller
/// Of a name in its folder: the entry, its hash, and the quarter of a block that a split leaves.
constexpr std::uint64_t kNameBytes = 128;
constexpr std::uint64_t kXfsInodeBytes = 512, kExt4InodeBytes = 256;

std::uint64_t InBlocks(std::uint64_t bytes) { return (bytes + kBlock - 1) / kBlock * kBlock; }

/// What a file system is to be made of, and what must be free in it then.
struct Plan {
  bool xfs = false;
  std::uint64_t inodes = 0;
  std::uint64_t free = 0;  ///< bytes
  std::uint64_t size = 0;  ///< of the image: at first what should do, see MakeImage
};
Plan PlanFor(std::uint64_t bytes, std::uint64_t inodes) {
  Plan plan;
  plan.xfs = bytes >= kSmallestXfs;
  plan.inodes = inodes;
  // The last part: for the extents of files that lie in pieces.
  plan.free = InBlocks(bytes) + inodes * kNameBytes + 64 * kBlock + bytes / 512;
  if (plan.xfs) {
    plan.free += inodes * kXfsInodeBytes;  // (ext4 has them in tables of their own)
    // Its log, what it holds back lest it run full in the middle of a change, and its trees.
    plan.size =
        plan.free + 66 * kMiB + std::min(32 * kMiB, plan.free / 19 + 4 * kMiB) + plan.free / 512;
  } else {
    plan.size = plan.free + inodes * kExt4InodeBytes + 32 * kBlock + plan.free / 40;
  }
  plan.size = InBlocks(plan.size);
  return plan;
}

/// A file without a name, all of whose blocks are there.
Result<os::UniqueFd> MakeFile(const std::string& dir, std::uint64_t size) {
  struct statvfs fs;
  if (::statvfs(dir.c_str(), &fs) != 0) return FailErrno(errno, dir);
  const auto no_room = [&] {
    return Fail(Errc::kNoSpace, fmt::format("{} has {} free, and the volume needs {}", dir,
                                            FormatBytes(std::uint64_t{fs.f_bavail} * fs.f_frsize),
                                            FormatBytes(size)));
  };
  // (A disk that is filled up for a moment hurts others.)
  if (std::uint64_t{fs.f_bavail} * fs.f_frsize < size) return no_room();
  os::UniqueFd file(::open(dir.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (!file) {
    std::string name = dir + "/.leat-image-XXXXXX";
    file.Reset(::mkostemp(name.data(), O_CLOEXEC));
    if (!file) return FailErrno(errno, dir);
    ::unlink(name.c_str());
  }
  // On btrfs what is preallocated is so for the first write alone, unless it is written in place.
  int flags = 0;
  if (::ioctl(file.get(), FS_IOC_GETFLAGS, &flags) == 0) {
    flags |= FS_NOCOW_FL;
    ::ioctl(file.get(), FS_IOC_SETFLAGS, &flags);
  }
  while (::fallocate(file.get(), 0, 0, static_cast<off_t>(size)) != 0) {
    if (errno == EINTR) continue;
    if (errno == ENOSPC || errno == EFBIG || errno == EDQUOT) return no_room();
    if (errno == EOPNOTSUPP) {
      return Fail(Errc::kUnsupported,
                  dir +
                      ": its file system cannot reserve room (fallocate), as a volume with a size "
                      "of its own needs it");
    }
    return FailErrno(errno, "reserving room in " + dir);
  }
  return file;
}

Status MakeFileSystem(const os::UniqueFd& file, const Plan& plan) {
  std::vector<std::string> words;
  if (plan.xfs) {
    // Without reflinks, for which it would reserve room. Sectors of 4 KiB: any disk takes them
    // without a copy. All room may be used for inodes.
    words = {"mkfs.xfs",  "-q", "-f",        "-K", "-s",
             "size=4096", "-m", "reflink=0", "-i", "maxpct=100"};
  } else {
    // A group's inodes have a bitmap of one block; many small files need smaller groups.
    const std::uint64_t groups = plan.inodes / (kBlock * 7) + 1;
    const std::uint64_t in_group =
        std::clamp(plan.size / kBlock / groups / 8 * 8, std::uint64_t{256}, kBlock * 8);
    words = {"mkfs.ext4", "-q", "-F", "-m", "0", "-b", std::to_string(kBlock), "-I",
             std::to_string(kExt4InodeBytes),
             // The first eleven are its own.
             "-N", std::to_string(plan.inodes + 16), "-g", std::to_string(in_group), "-O",
             "^has_journal,^resize_inode", "-E", "nodiscard,lazy_itable_init=1"};
  }
  words.push_back("/proc/self/fd/3");
  const auto end = os::RunProgram(words, file.get());
  if (!end && end.error().code() == Errc::kNotFound) {
    const char* package = plan.xfs ? "xfsprogs" : "e2fsprogs";
    return Fail(Errc::kUnsupported,
                fmt::format("{}; a volume with a size of its own needs it (apt-get install {})",
                            end.error().message(), package));
  }
  if (!end) return std::unexpected(end.error());
  if (!end->succeeded)
    return Fail(Errc::kInternal, fmt::format("{} failed: {}", words[0], Printable(end->said)));
  return {};
}

struct Loop {
  os::UniqueFd device;
  std::string path;
};
/// Where there is none, errno says why.
os::UniqueFd OpenLoop(int number, const std::string& path) {
  os::UniqueFd device(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (device || errno != ENOENT) return device;
  // A container's /dev does not follow the machine's.
  unsigned major = 0, minor = 0;
  const auto numbers = os::ReadFile(fmt::format("/sys/block/loop{}/dev", number));
  if (!numbers || std::sscanf(numbers->c_str(), "%u:%u", &major, &minor) != 2 ||
      (::mknod(path.c_str(), S_IFBLK | 0600, ::makedev(major, minor)) != 0 && errno != EEXIST)) {
    errno = ENOENT;
    return device;
  }
  device.Reset(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  return device;
}

/// The device is cleared when the last who has it open closes it.
Result<Loop> AttachLoop(const os::UniqueFd& file) {
  const auto missing = [](const std::string& what) {
    return Fail(Errc::kUnsupported,
                what +
                    " is missing: a volume with a size of its own needs loop devices (modprobe "
                    "loop; in a container: --privileged)");
  };
  const auto control = os::Open("/dev/loop-control", O_RDWR);
  if (!control && control.error().code() == Errc::kNotFound) return missing("/dev/loop-control");
  if (!control) return std::unexpected(control.error());
  // Another may be faster at the one that is free.
  for (int attempt = 0; attempt < 100; ++attempt) {
    const int number = ::ioctl(control->get(), LOOP_CTL_GET_FREE);
    if (number < 0) return FailErrno(errno, "finding a loop device");
    Loop loop;
    loop.path = fmt::format("/dev/loop{}", number);
    loop.device = OpenLoop(number, loop.path);
    if (!loop.device && errno == ENOENT) return missing(loop.path);
    if (!loop.device && (errno == EBUSY || errno == ENXIO)) continue;
    if (!loop.device) return FailErrno(errno, loop.path);
    loop_config config = {};
    config.fd = static_cast<std::uint32_t>(file.get());
    config.block_size = kBlock;
    config.info.lo_flags = LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO;
    if (::ioctl(loop.device.get(), LOOP_CONFIGURE, &config) == 0) return loop;
    if (errno == EINVAL) {  // Where the file system has no direct I/O.
      config.info.lo_flags = LO_FLAGS_AUTOCLEAR;
      if (::ioctl(loop.device.get(), LOOP_CONFIGURE, &config) == 0) return loop;
    }
    if (errno != EBUSY) return FailErrno(errno, loop.path);
  }
  return Fail(Errc::kUnavailable, "no loop device was free in a hundred attempts");
}

Result<os::UniqueFd> MakeAndMount(const std::string& dir, const Plan& plan) {
  LEAT_ASSIGN_OR_RETURN(const os::UniqueFd file, MakeFile(dir, plan.size));
  LEAT_RETURN_IF_ERROR(MakeFileSystem(file, plan));
  LEAT_ASSIGN_OR_RETURN(const Loop loop, AttachLoop(file));
  return plan.xfs ? os::NewMount("xfs", loop.path, {})
                  : os::NewMount("ext4", loop.path, {"noinit_itable"});
}

}  // namespace

Result<os::UniqueFd> MakeImage(const std::string& dir, std::uint64_t bytes, std::uint64_t inodes) {
  if (::geteuid() != 0) {
    return Fail(Errc::kDenied,
                "a volume with a size of its own needs root: it is a file system on a loop device");
  }
  if (bytes > 1ULL << 60 || inodes > 1ULL << 40) {
    return Fail(Errc::kInvalid, fmt::format("a volume of {} for {} files is too large",
                                            FormatBytes(bytes), FormatCount(inodes)));
  }
  Plan plan = PlanFor(bytes, inodes);
  // How much a file system takes for itself, only it can say.
  for (int attempt = 0; attempt < 5; ++attempt) {
    LEAT_ASSIGN_OR_RETURN(os::UniqueFd mount, MakeAndMount(dir, plan));
    if (::unlinkat(mount.get(), "lost+found", AT_REMOVEDIR) != 0 && errno != ENOENT)
      return FailErrno(errno, "the root of the volume");
    if (::fchownat(mount.get(), "", ::geteuid(), ::getegid(), AT_EMPTY_PATH) != 0 ||
        ::fchmodat(mount.get(), ".", 0755, 0) != 0) {
      return FailErrno(errno, "the root of the volume");
    }
    struct statvfs fs;
    if (::fstatvfs(mount.get(), &fs) != 0) return FailErrno(errno, "the room of the volume");
    const std::uint64_t free = std::uint64_t{fs.f_bavail} * fs.f_frsize;
    Debug(fmt::format("an image of {} ({}) has {} free of {} asked for, and {} inodes",
                      FormatBytes(plan.size), plan.xfs ? "xfs" : "ext4", FormatBytes(free),
                      FormatBytes(plan.free), FormatCount(fs.f_favail)));
    if (free >= plan.free && fs.f_favail >= inodes) return mount;
    const std::uint64_t lacking = plan.free - std::min(free, plan.free);
    plan.size = InBlocks(plan.size + lacking + lacking / 16 + 16 * kBlock);
    if (fs.f_favail < inodes) plan.inodes += inodes - fs.f_favail;
  }
  return Fail(Errc::kInternal, fmt::format("no file system of {} for {} files could be made",
                                           FormatBytes(bytes), FormatCount(inodes)));
}

}  // namespace leat::volume
