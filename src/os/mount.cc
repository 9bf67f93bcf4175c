#include "os/mount.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/mount.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <sstream>
#include <vector>

#include "os/program.h"

namespace leat::os {
namespace {

int OpenTree(int dir, const char* path, unsigned flags) {
  return static_cast<int>(::syscall(SYS_open_tree, dir, path, flags));
}
int MountSetattr(int dir, const char* path, unsigned flags, const mount_attr& attr) {
  return static_cast<int>(::syscall(SYS_mount_setattr, dir, path, flags, &attr, sizeof(attr)));
}

}  // namespace

Result<UniqueFd> CloneTree(const std::string& path) {
  UniqueFd fd(OpenTree(AT_FDCWD, path.c_str(), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE));
  if (!fd) return FailErrno(errno, "attaching " + path);
  return fd;
}

Status SetReadOnly(const UniqueFd& tree) {
  mount_attr attr = {};
  attr.attr_set = MOUNT_ATTR_RDONLY;
  attr.propagation = MS_PRIVATE;  // what came in later would be as it likes
  if (MountSetattr(tree.get(), "", AT_EMPTY_PATH | AT_RECURSIVE, attr) != 0)
    return FailErrno(errno, "making a mount read-only");
  return {};
}

Status SetPrivate(const UniqueFd& tree) {
  mount_attr attr = {};
  attr.propagation = MS_PRIVATE;
  if (MountSetattr(tree.get(), "", AT_EMPTY_PATH | AT_RECURSIVE, attr) != 0)
    return FailErrno(errno, "making a mount private");
  return {};
}

Status SetReadOnlyAt(const std::string& path) {
  mount_attr attr = {};
  attr.attr_set = MOUNT_ATTR_RDONLY;
  if (MountSetattr(AT_FDCWD, path.c_str(), 0, attr) != 0)
    return FailErrno(errno, "making " + path + " read-only");
  return {};
}

Status MakeAllSlave() {
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_SLAVE, nullptr) != 0)
    return FailErrno(errno, "making the mounts private");
  return {};
}

Status AttachTree(const UniqueFd& tree, const std::string& path) {
  if (::syscall(SYS_move_mount, tree.get(), "", AT_FDCWD, path.c_str(),
                MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_SYMLINKS) != 0) {
    return FailErrno(errno, "mounting at " + path);
  }
  return {};
}

Status MountTmpfs(const std::string& path, const std::string& options) {
  if (::mount("leat", path.c_str(), "tmpfs", MS_NOSUID | MS_NODEV, options.c_str()) != 0) {
    return FailErrno(errno, "mounting a tmpfs at " + path);
  }
  return {};
}

Result<UniqueFd> NewMount(const std::string& type, const std::string& device,
                          const std::vector<std::string>& options) {
  const UniqueFd fs(static_cast<int>(::syscall(SYS_fsopen, type.c_str(), FSOPEN_CLOEXEC)));
  if (!fs && errno == ENODEV) {
    return Fail(Errc::kUnsupported, fmt::format("the kernel has no {} (modprobe {})", type, type));
  }
  const std::string doing = fmt::format("mounting {} ({})", device, type);
  if (!fs ||
      ::syscall(SYS_fsconfig, fs.get(), FSCONFIG_SET_STRING, "source", device.c_str(), 0) != 0)
    return FailErrno(errno, doing);
  for (const std::string& option : options) {
    if (::syscall(SYS_fsconfig, fs.get(), FSCONFIG_SET_FLAG, option.c_str(), nullptr, 0) != 0)
      return FailErrno(errno, doing + ": " + option);
  }
  if (::syscall(SYS_fsconfig, fs.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0)
    return FailErrno(errno, doing);
  UniqueFd mount(static_cast<int>(
      ::syscall(SYS_fsmount, fs.get(), FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)));
  if (!mount) return FailErrno(errno, doing);
  return mount;
}

Result<FuseMount> NewFuseMount(const FuseMountOptions& options) {
  FuseMount out;
  LEAT_ASSIGN_OR_RETURN(out.device, Open(options.device, O_RDWR));
  const UniqueFd fs(static_cast<int>(::syscall(SYS_fsopen, "fuse", FSOPEN_CLOEXEC)));
  if (!fs) return FailErrno(errno, "opening the FUSE file system");
  const auto set = [&](const char* key, const std::string& value) {
    return ::syscall(SYS_fsconfig, fs.get(), FSCONFIG_SET_STRING, key, value.c_str(), 0) == 0;
  };
  const auto flag = [&](const char* key) {
    return ::syscall(SYS_fsconfig, fs.get(), FSCONFIG_SET_FLAG, key, nullptr, 0) == 0;
  };
  if (!set("source", "leat") || !set("subtype", "leat") ||
      !set("fd", std::to_string(out.device.get())) || !set("rootmode", "40555") ||
      !set("user_id", std::to_string(options.uid)) ||
      !set("group_id", std::to_string(options.gid)) || !flag("default_permissions") ||
      (options.allow_other && !flag("allow_other"))) {
    return FailErrno(errno, "setting up a FUSE mount");
  }
  if (::syscall(SYS_fsconfig, fs.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0) {
    return FailErrno(errno, "making a FUSE mount");
  }
  out.mount.Reset(
      static_cast<int>(::syscall(SYS_fsmount, fs.get(), FSMOUNT_CLOEXEC,
                                 MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_RDONLY)));
  if (!out.mount) return FailErrno(errno, "making a FUSE mount");
  return out;
}

namespace {

/// Runs fusermount3; its words, joined in one line, are the reason of a failure.
Status RunFusermount(std::vector<std::string> words, int comm_fd) {
  words.insert(words.begin(), "fusermount3");
  const auto end = RunProgram(words, comm_fd, comm_fd >= 0 ? "_FUSE_COMMFD=3" : "");
  if (!end && end.error().code() == Errc::kNotFound) {
    return Fail(Errc::kDenied, "fusermount3 is not installed (Debian: apt-get install fuse3)");
  }
  if (!end) return std::unexpected(end.error());
  if (!end->succeeded)
    return Fail(Errc::kDenied, end->said.empty() ? "fusermount3 failed" : end->said);
  return {};
}

}  // namespace

Result<UniqueFd> FusermountMount(const std::string& dir, bool allow_other) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
    return FailErrno(errno, "fusermount3");
  const UniqueFd ours(ends[0]);
  UniqueFd theirs(ends[1]);
  const std::string options =
      fmt::format("ro,nosuid,nodev,fsname=leat,subtype=leat,default_permissions{}",
                  allow_other ? ",allow_other" : "");
  LEAT_RETURN_IF_ERROR(RunFusermount({"-o", options, "--", dir}, theirs.get()));
  theirs.Reset();
  char byte;
  iovec io = {&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
  msghdr message = {};
  message.msg_iov = &io;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  if (::recvmsg(ours.get(), &message, MSG_CMSG_CLOEXEC) <= 0)
    return FailErrno(errno, "fusermount3");
  const cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (header == nullptr || header->cmsg_type != SCM_RIGHTS)
    return Fail(Errc::kInternal, "fusermount3 sent no descriptor");
  int fd;
  std::memcpy(&fd, CMSG_DATA(header), sizeof(fd));
  return UniqueFd(fd);
}

Status FusermountUnmount(const std::string& dir) {
  return RunFusermount({"-u", "-z", "--", dir}, -1);
}

std::string PlainMountPath(std::string_view text) {
  const auto octal = [&](std::size_t i) { return text[i] >= '0' && text[i] <= '7'; };
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size() && octal(i + 1) && octal(i + 2) && octal(i + 3)) {
      out += static_cast<char>((text[i + 1] - '0') << 6 | (text[i + 2] - '0') << 3 |
                               (text[i + 3] - '0'));
      i += 3;
    } else {
      out += text[i];
    }
  }
  return out;
}

std::vector<MountPoint> MountTable(const std::string& mountinfo) {
  std::vector<MountPoint> table;
  const auto text = ReadFile(mountinfo);
  if (!text) return table;
  std::istringstream lines(*text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string id, parent, device, root, dir, word, type, source, options;
    words >> id >> parent >> device >> root >> dir;
    while (words >> word && word != "-") {
    }
    words >> type >> source >> options;
    table.push_back({id, PlainMountPath(dir), PlainMountPath(root), type, options});
  }
  return table;
}

std::string DeviceOf(const UniqueFd& tree) {
  struct statx st;
  if (::statx(tree.get(), "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE, &st) != 0) return "";
  return fmt::format("{}:{}", st.stx_dev_major, st.stx_dev_minor);
}

void SetReadahead(const std::string& device, unsigned kib) {
  if (device.empty()) return;
  const auto fd = Open("/sys/class/bdi/" + device + "/read_ahead_kb", O_WRONLY);
  if (!fd) return;
  const std::string text = std::to_string(kib);
  [[maybe_unused]] const ssize_t n = ::write(fd->get(), text.data(), text.size());
}

}  // namespace leat::os
