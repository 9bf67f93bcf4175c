#include "job/isolation.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <map>
#include <numeric>
#include <utility>

#include "base/log.h"
#include "job/namespaces.h"
#include "os/mount.h"

namespace leat::job {
namespace {

constexpr std::size_t kMirrorLimit = 4096;
/// An extended attribute of folders of the host that were made as mount points.
constexpr const char* kMadeByLeat = "user.leat.mount-point";

/// What lies in a folder, ready to be attached in another one.
struct Entry {
  std::string name;
  bool is_dir = false;
  std::string link;   // of a symbolic link: where to
  os::UniqueFd tree;  // of anything else
};

class Builder {
 public:
  Builder(const std::vector<Attachment>& attachments, const std::vector<std::string>& mounted_dirs,
          const Isolation& isolation, Channel& channel)
      : attachments_(attachments),
        mounted_dirs_(mounted_dirs),
        isolation_(isolation),
        channel_(channel) {}

  Status Build() {
    const bool user = isolation_.abilities.namespaces == Abilities::Namespaces::kUser;
    const int flags =
        CLONE_NEWNS | (user ? CLONE_NEWUSER : 0) | (isolation_.pid_namespace ? CLONE_NEWPID : 0);
    if (::unshare(flags) != 0) return FailErrno(errno, "making namespaces for the job");
    if (user && !MapOwnIds(isolation_.uid, isolation_.gid))
      return FailErrno(errno, "keeping the user's id in the job's namespace");
    LEAT_RETURN_IF_ERROR(os::MakeAllSlave());
    // Everything is picked up by the paths of the host, before the root changes.
    LEAT_RETURN_IF_ERROR(PrepareAttachments());
    LEAT_ASSIGN_OR_RETURN(std::vector<Entry> top, PickUp("/"));
    LEAT_RETURN_IF_ERROR(ChangeRoot());
    LEAT_RETURN_IF_ERROR(PutDown("/", top));
    // /proc is the init's to mount where it has process numbers of its own.
    if (isolation_.pid_namespace && ::mkdir("/proc", 0555) != 0 && errno != EEXIST)
      return FailErrno(errno, "/proc");
    for (const std::string& path : isolation_.hidden) LEAT_RETURN_IF_ERROR(Hide(path));
    LEAT_RETURN_IF_ERROR(PlaceAttachments());
    for (const std::string& path : read_only_later_) LEAT_RETURN_IF_ERROR(os::SetReadOnlyAt(path));
    return os::SetReadOnlyAt("/");
  }

 private:
  Result<Entry> PickUpOne(const std::string& folder, const std::string& name, mode_t mode) {
    Entry entry;
    entry.name = name;
    const std::string path = folder + (folder.ends_with('/') ? "" : "/") + name;
    if (S_ISLNK(mode)) {
      entry.link.resize(PATH_MAX);
      const ssize_t n = ::readlink(path.c_str(), entry.link.data(), entry.link.size());
      if (n < 0) return FailErrno(errno, path);
      entry.link.resize(static_cast<std::size_t>(n));
      return entry;
    }
    entry.is_dir = S_ISDIR(mode);
    LEAT_ASSIGN_OR_RETURN(entry.tree, os::CloneTree(path));
    return entry;
  }

  Result<std::vector<Entry>> PickUp(const std::string& folder) {
    LEAT_ASSIGN_OR_RETURN(const std::vector<std::string> names, os::ListDir(folder));
    if (names.size() > kMirrorLimit) {
      return Fail(
          Errc::kUnsupported,
          fmt::format(
              "{} holds {} entries: no mount point can be made in it; choose another target",
              folder, names.size()));
    }
    std::vector<Entry> entries;
    for (const std::string& name : names) {
      if (folder == "/" && name == "proc" && isolation_.pid_namespace && !needs_old_proc_) continue;
      struct stat st;
      const std::string path = folder + (folder.ends_with('/') ? "" : "/") + name;
      if (::lstat(path.c_str(), &st) != 0) continue;
      auto entry = PickUpOne(folder, name, st.st_mode);
      // A dead network mount, say, must not keep a job from running that does not need it.
      if (!entry) {
        Debug(entry.error().message());
        continue;
      }
      entries.push_back(std::move(*entry));
    }
    return entries;
  }

  Status PutDown(const std::string& folder, const std::vector<Entry>& entries) {
    for (const Entry& entry : entries) {
      const std::string path = folder + (folder.ends_with('/') ? "" : "/") + entry.name;
      if (!entry.link.empty()) {
        if (::symlink(entry.link.c_str(), path.c_str()) != 0) return FailErrno(errno, path);
        continue;
      }
      if (entry.is_dir) {
        if (::mkdir(path.c_str(), 0755) != 0) return FailErrno(errno, path);
      } else {
        LEAT_ASSIGN_OR_RETURN(const os::UniqueFd file, os::Open(path, O_WRONLY | O_CREAT, 0644));
      }
      LEAT_RETURN_IF_ERROR(os::AttachTree(entry.tree, path));
    }
    return {};
  }

  Status ChangeRoot() {
    // Any folder that is always there may be the place where the new root is made.
    LEAT_RETURN_IF_ERROR(os::MountTmpfs("/proc", "mode=755,size=16m"));
    if (::chdir("/proc") != 0 || ::syscall(SYS_pivot_root, ".", ".") != 0)
      return FailErrno(errno, "exchanging the root directory");
    if (::umount2(".", MNT_DETACH) != 0 || ::chdir("/") != 0)
      return FailErrno(errno, "leaving the old root directory");
    return {};
  }

  Status PrepareAttachments() {
    trees_.resize(attachments_.size());
    for (std::size_t i = 0; i < attachments_.size(); ++i) {
      const AttachResult& result = attachments_[i].result;
      if (result.how == AttachResult::How::kBind || result.how == AttachResult::How::kBindFile) {
        LEAT_ASSIGN_OR_RETURN(trees_[i], os::CloneTree(result.path));
      } else if (result.how == AttachResult::How::kMount) {
        trees_[i].Reset(::fcntl(attachments_[i].kept.get(), F_DUPFD_CLOEXEC, 3));
      } else if (!mounted_dirs_[i].empty()) {
        LEAT_ASSIGN_OR_RETURN(trees_[i], os::CloneTree(mounted_dirs_[i]));
      } else {
        os::FuseMountOptions options;
        options.device = isolation_.fuse_device;
        options.uid = isolation_.uid;
        options.gid = isolation_.gid;
        options.allow_other = isolation_.abilities.namespaces == Abilities::Namespaces::kRoot;
        LEAT_ASSIGN_OR_RETURN(os::FuseMount mount, os::NewFuseMount(options));
        LEAT_RETURN_IF_ERROR(channel_.Send(MessageKind::kDevice, static_cast<std::int64_t>(i), "",
                                           mount.device.get()));
        trees_[i] = std::move(mount.mount);
      }
      if (!attachments_[i].spec.writable) LEAT_RETURN_IF_ERROR(os::SetReadOnly(trees_[i]));
      if (!attachments_[i].spec.follows_host) LEAT_RETURN_IF_ERROR(os::SetPrivate(trees_[i]));
    }
    return {};
  }

  Status PlaceAttachments() {
    // Outer targets before those inside them.
    std::vector<std::size_t> order(attachments_.size());
    std::iota(order.begin(), order.end(), 0UL);
    std::ranges::sort(order, {}, [&](std::size_t i) {
      return std::ranges::count(ResolvedTarget(attachments_[i].spec), '/');
    });
    for (const std::size_t i : order) {
      const Attachment& attachment = attachments_[i];
      const std::string& target = attachment.spec.target;
      LEAT_RETURN_IF_ERROR(MakeMountPoint(target));
      if (attachment.result.how == AttachResult::How::kBindFile) {
        LEAT_RETURN_IF_ERROR(os::MountTmpfs(target, "mode=755,size=1m"));
        const std::string path = target + "/" + attachment.result.name;
        {
          LEAT_ASSIGN_OR_RETURN(const os::UniqueFd file, os::Open(path, O_WRONLY | O_CREAT, 0644));
        }
        LEAT_RETURN_IF_ERROR(os::AttachTree(trees_[i], path));
        read_only_later_.push_back(target);
        continue;
      }
      const bool fuse = attachment.result.how == AttachResult::How::kFuse ||
                        attachment.result.how == AttachResult::How::kFuseOpens;
      if (fuse && isolation_.abilities.passthrough) os::SetReadahead(os::DeviceOf(trees_[i]), 1024);
      LEAT_RETURN_IF_ERROR(os::AttachTree(trees_[i], target));
      // An attached folder may hold what the job must not see.
      for (const std::string& hidden : isolation_.hidden) {
        const std::string source = attachment.result.path == "/" ? "" : attachment.result.path;
        if (attachment.spec.is_bind() && !attachment.spec.internal &&
            hidden.starts_with(source + "/")) {
          LEAT_RETURN_IF_ERROR(Hide(target + hidden.substr(source.size())));
        }
      }
    }
    return {};
  }

  /// The attachment that `path` lies in, below its target; the innermost one, null for none.
  const Attachment* Around(const std::string& path) const {
    const Attachment* in = nullptr;
    for (const Attachment& attachment : attachments_) {
      const bool inside = path.starts_with(attachment.spec.target + "/");
      if (inside && (in == nullptr || in->spec.target.size() < attachment.spec.target.size())) {
        in = &attachment;
      }
    }
    return in;
  }

  Status MakeMountPoint(const std::string& target) {
    for (;;) {
      LEAT_RETURN_IF_ERROR(FindOrMake(target));
      const Attachment* const in = Around(target);
      if (in != nullptr && in->result.how != AttachResult::How::kBind) return {};
      // A folder of the host that leat has made is removed by the last run that uses it: removed by
      // another, it would take this job's mount with it.
      const os::UniqueFd folder(::open(target.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
      struct stat held, there;
      // (Who removes it holds it for a moment.)
      if (!folder || !os::FlockWithin(folder.get(), false, std::chrono::seconds(2))) return {};
      if (::fstat(folder.get(), &held) != 0 || ::stat(target.c_str(), &there) != 0 ||
          held.st_ino != there.st_ino || held.st_dev != there.st_dev) {
        continue;
      }
      return channel_.Send(MessageKind::kUses, 0, "", folder.get());
    }
  }

  Status FindOrMake(const std::string& target) {
    struct stat st;
    if (::stat(target.c_str(), &st) == 0) {
      if (S_ISDIR(st.st_mode)) {
        // What another run has made, with what is around it, which may end before this one.
        std::vector<std::string> made;
        for (std::string path = target;
             ::getxattr(path.c_str(), kMadeByLeat, nullptr, 0) >= 0 && path.size() > 1;
             path.resize(std::max<std::size_t>(path.rfind('/'), 1))) {
          made.push_back(OnHost(path));
        }
        for (; !made.empty(); made.pop_back())
          (void)channel_.Send(MessageKind::kMade, 0, made.back());
        return {};
      }
      return Fail(Errc::kInvalid,
                  fmt::format("the target {} is a file; a target is a folder", target));
    }
    // The deepest folder on the way that exists.
    std::string existing = target;
    do {
      existing.resize(std::max<std::size_t>(existing.rfind('/'), 1));
    } while (::stat(existing.c_str(), &st) != 0 && existing != "/");
    if (!S_ISDIR(st.st_mode))
      return Fail(Errc::kInvalid,
                  fmt::format("the target {} lies below {}, which is a file", target, existing));
    const bool ours = existing == "/" || IsOurs(existing);
    for (bool mirrored = ours;;) {
      const int error = MakeFolders(existing, target, !mirrored);
      if (error == 0) return {};
      if (mirrored) return FailErrno(error, "making the mount point " + target);
      LEAT_RETURN_IF_ERROR(Mirror(existing));
      mirrored = true;
    }
  }

  bool IsOurs(const std::string& path) const {
    return std::ranges::any_of(read_only_later_,
                               [&](const std::string& tmpfs) { return path == tmpfs; });
  }

  /// Makes what is missing between `existing` and `target`; the errno of the first failure, 0
  /// without.
  int MakeFolders(const std::string& existing, const std::string& target, bool on_host) {
    for (std::size_t at = existing == "/" ? 0 : existing.size(); at < target.size();) {
      at = std::min(target.find('/', at + 1), target.size());
      const std::string path = target.substr(0, at);
      if (::mkdir(path.c_str(), 0755) != 0) {
        if (errno != EEXIST) return errno;
        continue;
      }
      if (!on_host) continue;
      ::setxattr(path.c_str(), kMadeByLeat, "", 0, 0);
      (void)channel_.Send(MessageKind::kMade, 0, OnHost(path));
    }
    return 0;
  }

  /// Where the host has what the job sees at `path`: elsewhere, below an attached folder.
  std::string OnHost(const std::string& path) const {
    const Attachment* const in = Around(path);
    return in == nullptr ? path : in->result.path + path.substr(in->spec.target.size());
  }

  /// Puts a folder of ours, which holds all that `folder` holds, over it: so that a mount point can
  /// be made where nothing may be written.
  Status Mirror(const std::string& folder) {
    struct stat st;
    if (::stat(folder.c_str(), &st) != 0) return FailErrno(errno, folder);
    LEAT_ASSIGN_OR_RETURN(const std::vector<Entry> entries, PickUp(folder));
    LEAT_RETURN_IF_ERROR(
        os::MountTmpfs(folder, fmt::format("mode={:o},size=16m", st.st_mode & 07777)));
    read_only_later_.push_back(folder);
    return PutDown(folder, entries);
  }

  Status Hide(const std::string& path) {
    struct stat st;
    if (::stat(path.c_str(), &st) != 0 || !S_ISDIR(st.st_mode)) return {};
    LEAT_RETURN_IF_ERROR(os::MountTmpfs(path, "mode=555,size=4k"));
    return os::SetReadOnlyAt(path);
  }

  const std::vector<Attachment>& attachments_;
  const std::vector<std::string>& mounted_dirs_;
  const Isolation& isolation_;
  Channel& channel_;
  /// In a user namespace the kernel mounts a new /proc only where one is to be seen already; the
  /// new one lies over it.
  const bool needs_old_proc_ = isolation_.abilities.container ||
                               isolation_.abilities.namespaces == Abilities::Namespaces::kUser;
  std::vector<os::UniqueFd> trees_;
  std::vector<std::string> read_only_later_;
};

}  // namespace

void RunBuilder(const std::vector<Attachment>& attachments,
                const std::vector<std::string>& mounted_dirs, const Isolation& isolation,
                const Command& command, Channel channel) {
  ::prctl(PR_SET_NAME, "leat-builder");
  if (isolation.abilities.namespaces != Abilities::Namespaces::kNone) {
    Builder builder(attachments, mounted_dirs, isolation, channel);
    if (const Status built = builder.Build(); !built) {
      (void)channel.Send(MessageKind::kFailed, 0, built.error().message());
      ::_exit(125);
    }
  }
  // The init begins when the supervisor has been told its number.
  int go[2] = {-1, -1};
  [[maybe_unused]] const int piped = ::pipe2(go, O_CLOEXEC);
  const pid_t init = ::fork();
  if (init < 0) {
    (void)channel.Send(MessageKind::kFailed, 0,
                       fmt::format("starting the job: {}", std::strerror(errno)));
    ::_exit(125);
  }
  if (init == 0) {
    ::close(go[1]);
    char end;
    while (::read(go[0], &end, 1) < 0 && errno == EINTR) {
    }
    RunInit(isolation, command, std::move(channel));
  }
  (void)channel.Send(MessageKind::kStarted, init);
  ::_exit(0);
}

}  // namespace leat::job
