#include <fcntl.h>
#include <fmt/format.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <sstream>

#include "job/isolation.h"
#include "job/namespaces.h"
#include "os/file.h"
#include "os/mount.h"

namespace leat::job {
namespace {

bool HasSysAdmin() {
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  return ::syscall(SYS_capget, &header, data) == 0 &&
         (data[0].effective & (1U << CAP_SYS_ADMIN)) != 0;
}

bool InFirstUserNamespace() {
  const auto map = os::ReadFile("/proc/self/uid_map", 4096);
  if (!map) return true;  // no /proc, no user namespaces
  std::istringstream words(*map);
  std::uint64_t inside = 1, outside = 1, count = 0;
  words >> inside >> outside >> count;
  return inside == 0 && outside == 0 && count == 4294967295ULL;
}

/// The steps that a job's namespace needs, tried in a child. 0, or the step that failed times 256
/// plus its errno.
enum Step { kUnshare = 1, kMap, kSlave, kTmpfs, kPivot };
int TryNamespaces(bool user) {
  const pid_t pid = ::fork();
  if (pid < 0) return kUnshare * 256 + errno;
  if (pid == 0) {
    const uid_t uid = ::geteuid();
    const gid_t gid = ::getegid();
    const auto fail = [](Step step) { ::_exit(step); };
    if (::unshare(CLONE_NEWNS | (user ? CLONE_NEWUSER : 0)) != 0) fail(kUnshare);
    if (user && !MapOwnIds(uid, gid)) fail(kMap);
    if (!os::MakeAllSlave()) fail(kSlave);
    if (!os::MountTmpfs("/proc", "mode=755,size=1m")) fail(kTmpfs);
    if (::chdir("/proc") != 0 || ::syscall(SYS_pivot_root, ".", ".") != 0) fail(kPivot);
    ::_exit(0);
  }
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : kUnshare;
}

/// Nothing is known here that could keep root from what it may do: no chroot, no security module's
/// profile, no filter of system calls. Spares the try, which costs a millisecond.
bool RootIsFree() {
  struct statx root;
  if (::statx(AT_FDCWD, "/", AT_STATX_DONT_SYNC, STATX_TYPE, &root) != 0 ||
      (root.stx_attributes & STATX_ATTR_MOUNT_ROOT) == 0) {
    return false;
  }
  const auto profile = os::ReadFile("/proc/self/attr/current", 4096);
  if (profile && !profile->empty() && !profile->starts_with("unconfined") &&
      !profile->starts_with("kernel"))
    return false;
  const auto status = os::ReadFile("/proc/self/status", 64 * 1024);
  return status && status->find("\nSeccomp:\t0\n") != std::string::npos;
}

std::string WhyNot(int step, bool user) {
  switch (step) {
    case kUnshare:
      return user ? "this system lets users make no namespaces (sysctl user.max_user_namespaces, "
                    "or a container's policy)"
                  : "root may not make mount namespaces here (a container without CAP_SYS_ADMIN)";
    case kMap:
    case kSlave:
    case kTmpfs: {
      const auto restricted =
          os::ReadFile("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", 64);
      if (restricted && restricted->starts_with('1')) {
        return "AppArmor keeps users' namespaces without rights; leat's profile allows it: sudo "
               "install -m 644 PREFIX/share/leat/apparmor/leat /etc/apparmor.d/leat && sudo "
               "apparmor_parser -r /etc/apparmor.d/leat (PREFIX: where leat is installed)";
      }
      return "a namespace of this user may not mount anything here";
    }
    default:
      return "the root directory cannot be exchanged here (a chroot)";
  }
}

/// What hides parts of /proc from a container forbids a fresh one; binfmt_misc lies on an empty
/// folder, which does not.
bool ProcIsWhole() {
  const std::vector<os::MountPoint> table = os::MountTable();
  if (table.empty()) return false;
  for (const auto& [id, point, root, type, options] : table) {
    if (point.starts_with("/proc/") && point != "/proc/sys/fs/binfmt_misc") return false;
    if (point == "/proc" && root != "/") return false;
  }
  return true;
}

std::string FindInPath(const std::string& name) {
  const char* path = std::getenv("PATH");
  std::istringstream dirs(path == nullptr ? "/usr/bin:/bin" : path);
  for (std::string dir; std::getline(dirs, dir, ':');) {
    const std::string candidate = dir + "/" + name;
    if (::access(candidate.c_str(), X_OK) == 0) return candidate;
  }
  return "";
}

}  // namespace

bool MapOwnIds(uid_t uid, gid_t gid) {
  const auto write = [](const char* path, const std::string& text) {
    const os::UniqueFd fd(::open(path, O_WRONLY | O_CLOEXEC));
    return fd && ::write(fd.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
  };
  return write("/proc/self/setgroups", "deny") &&
         write("/proc/self/uid_map", fmt::format("{0} {0} 1", uid)) &&
         write("/proc/self/gid_map", fmt::format("{0} {0} 1", gid));
}

std::string FuseDevice() {
  const char* device = std::getenv("LEAT_FUSE_DEVICE");
  return device != nullptr && *device != 0 ? device : "/dev/fuse";
}

Abilities FindAbilities(const std::string& fuse_device) {
  Abilities out;
  const bool first = InFirstUserNamespace();
  const bool admin = HasSysAdmin();
  out.container = !first;
  if (admin) {
    const int step = first && RootIsFree() ? 0 : TryNamespaces(false);
    if (step == 0) {
      out.namespaces = Abilities::Namespaces::kRoot;
    } else {
      out.no_namespaces = WhyNot(step, false);
    }
  }
  if (out.namespaces == Abilities::Namespaces::kNone) {
    const int step = TryNamespaces(true);
    if (step == 0) {
      out.namespaces = Abilities::Namespaces::kUser;
    } else if (out.no_namespaces.empty()) {
      out.no_namespaces = WhyNot(step, true);
    }
  }
  if (out.namespaces == Abilities::Namespaces::kNone) {
    out.no_pid_namespace = "it needs the other namespaces";
  } else if ((out.namespaces == Abilities::Namespaces::kRoot && first) || ProcIsWhole()) {
    out.pid_namespace = true;
  } else {
    out.no_pid_namespace =
        "parts of /proc are hidden here, so that a fresh one cannot be mounted (a container)";
  }

  const os::UniqueFd device(::open(fuse_device.c_str(), O_RDWR | O_CLOEXEC));
  const int device_error = errno;
  out.fuse_direct = device && out.namespaces != Abilities::Namespaces::kNone;
  const std::string fusermount = FindInPath("fusermount3");
  // (it opens the device as the user)
  const bool usable = ::access("/dev/fuse", R_OK | W_OK) == 0;
  struct stat st;
  // As root it needs no set-user-id bit, but mounting must be allowed at all.
  out.fusermount = !fusermount.empty() && os::Exists("/dev/fuse") &&
                   ::stat(fusermount.c_str(), &st) == 0 &&
                   (::geteuid() == 0 ? admin : (st.st_mode & S_ISUID) != 0 && usable);
  if (!out.fusermount) {
    out.no_fusermount = fusermount.empty()
                            ? "fusermount3 is not here (Debian: apt-get install fuse3)"
                        : usable ? fusermount + " may not mount here"
                                 : "/dev/fuse may not be used by this user";
  }
  if (!out.fuse_direct && !out.fusermount) {
    out.no_fuse =
        !device ? fmt::format("{} cannot be opened ({})", fuse_device, std::strerror(device_error))
                : "FUSE may not be mounted here (fusermount3 of Debian's fuse3 would help)";
  }
  out.passthrough = first && ::geteuid() == 0 && admin && out.fuse_direct;
  return out;
}

}  // namespace leat::job
