// nfs_like BACKING_DIR MOUNT_DIR [OPTION...]: shows a folder of this machine at MOUNT_DIR with the
// habits of an NFS client, so that two of them on one folder behave like two machines that share
// storage. It is no NFS: see "not like NFS" below and README.md beside this file.
//
// Runs in the foreground as root, mounts in the mount namespace it is started in, prints "ready"
// once it answers. SIGTERM (SIGINT, SIGHUP): unmounts lazily and ends. SIGUSR1: answers nothing
// from now on ("server not responding"); what waits can be killed. SIGUSR2: answers again.
//
// Options (defaults):
//   attr_ms=N    (3000) how long attributes, names, missing names and listings are believed without
//                asking, as acregmin and acdirmin; 0: always asks
//   nolock       (off) locks are this machine's own, as with mount -o nolock; else they are taken
//                in the backing folder, and all clients exclude each other
//   estale_open  (off) a file that another client removed is ESTALE even where it is open, as with
//                NFSv3; else what is open stays readable, as Linux' NFSv4 server has it
//   delay_ms=N   (0) every request takes so much longer
//
// Like NFS:
//   - Close to open: an open asks for the file again, by name and attributes, and drops what was
//     cached of it when its time or size changed. stat may be as old as attr_ms, and so may be that
//     a name is missing.
//   - renameat2 with flags is EINVAL. (Where the target exists, NOREPLACE is EEXIST: the kernel
//     looks first.)
//   - Unlinking, or renaming something over, what this client has open renames that to
//     .nfs<inode><counter> in its folder, which goes after the last close; unlinking it is EBUSY,
//     removing its folder ENOTEMPTY. For a moment of renaming over, the name is missing.
//   - What another client removed or replaced is ESTALE where it is not looked up by name anew: an
//     open or current folder, and files (see estale_open). What it renamed goes on working.
//   - flock is a lock of all bytes and conflicts with fcntl's: LOCK_EX needs a descriptor that may
//     write, LOCK_SH one that may read (else EBADF). Locks of folders are this machine's own.
//   - Appending writes at the end that this client believes in.
//   - No O_TMPFILE, fallocate, reflinks, extended attributes.
// Not like NFS:
//   - statfs and /proc/mounts say FUSE. Root is not squashed; users are those of this machine.
//   - Writes go to the backing folder at once: other clients see them before close, and no error
//     comes as late as close or fsync.
//   - Cached attributes are believed for one fixed time, not longer the longer they do not change.
//   - A client that dies loses its locks at once, not when its lease ends, and its .nfs files stay.
//   - A name that a hard link of an open file has is renamed to .nfs... only when the file was
//     opened by it, as far as FUSE tells.
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <climits>
#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "fuse/protocol.h"
#include "os/file.h"

namespace {

using leat::os::UniqueFd;
using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

constexpr std::size_t kMaxIo = 1 << 20;
// What a waiting lock is tried again after; NFS clients ask again, too, and more seldom.
constexpr milliseconds kLockTick{20};

struct Options {
  std::string backing;
  std::string mount;
  long attr_ms = 3000;
  long delay_ms = 0;
  bool nolock = false;
  bool estale_open = false;
};

std::string ProcPath(const UniqueFd& fd) { return "/proc/self/fd/" + std::to_string(fd.get()); }

/// An object of the backing folder that the kernel knows: as good as an NFS file handle, for it
/// leads to the object wherever that is renamed to.
struct Node {
  std::uint64_t id = 0;
  UniqueFd fd;  // O_PATH
  dev_t dev = 0;
  ino_t ino = 0;
  bool is_dir = false;
  std::atomic<int> opens{0};  // of a file

  // Guarded by Client::mutex_.
  std::uint64_t lookups = 0;
  std::shared_ptr<Node> parent;  // of a file: where it was seen last
  std::string name;
  std::shared_ptr<Node> silly_parent;  // of a file that is to go when it is closed
  std::string silly_name;
  struct stat told = {};           // what the kernel was told last
  Clock::time_point told_at = {};  // never: this client changed it since

  bool Is(const struct stat& st) const { return st.st_dev == dev && st.st_ino == ino; }
};
using NodePtr = std::shared_ptr<Node>;

struct Handle {
  NodePtr node;
  UniqueFd fd;
  int access = O_RDONLY;
  // The name it was opened by; guarded by Client::mutex_.
  std::uint64_t parent = 0;
  std::string name;
  struct Entry {
    std::string name;
    ino_t ino;
    unsigned char type;
  };
  std::vector<Entry> entries;  // of a folder, as it was when reading began; one reader at a time
};

struct Request {
  fuse_in_header header = {};
  std::vector<std::byte> body;

  template <typename T>
  T As() const {
    T out = {};
    std::memcpy(&out, body.data(), std::min(sizeof(T), body.size()));
    return out;
  }
  /// The string at `at`, which comes to lie behind it.
  std::string Text(std::size_t& at) const {
    const auto* begin = reinterpret_cast<const char*>(body.data()) + std::min(at, body.size());
    const std::string out(begin, ::strnlen(begin, body.size() - std::min(at, body.size())));
    at += out.size() + 1;
    return out;
  }
  std::string Name(std::size_t at = 0) const { return Text(at); }
};

struct Answer {
  std::vector<std::byte> bytes;
  NodePtr entry;         // that the kernel learns of
  std::uint64_t fh = 0;  // that was opened

  template <typename T>
  void Add(const T& value) {
    const auto* begin = reinterpret_cast<const std::byte*>(&value);
    bytes.insert(bytes.end(), begin, begin + sizeof(T));
  }
};

fuse_attr AttrOf(const struct stat& st) {
  fuse_attr out = {};
  out.ino = st.st_ino;
  out.size = static_cast<std::uint64_t>(st.st_size);
  out.blocks = static_cast<std::uint64_t>(st.st_blocks);
  out.atime = static_cast<std::uint64_t>(st.st_atim.tv_sec);
  out.mtime = static_cast<std::uint64_t>(st.st_mtim.tv_sec);
  out.ctime = static_cast<std::uint64_t>(st.st_ctim.tv_sec);
  out.atimensec = static_cast<std::uint32_t>(st.st_atim.tv_nsec);
  out.mtimensec = static_cast<std::uint32_t>(st.st_mtim.tv_nsec);
  out.ctimensec = static_cast<std::uint32_t>(st.st_ctim.tv_nsec);
  out.mode = st.st_mode;
  out.nlink = static_cast<std::uint32_t>(st.st_nlink);
  out.uid = st.st_uid;
  out.gid = st.st_gid;
  out.rdev = static_cast<std::uint32_t>(st.st_rdev);
  out.blksize = static_cast<std::uint32_t>(kMaxIo);
  return out;
}

class Client {
 public:
  explicit Client(Options options) : options_(std::move(options)) {}

  int Start() {
    const auto failed = [](const std::string& doing) {
      std::fprintf(stderr, "nfs_like: %s: %s\n", doing.c_str(), std::strerror(errno));
      return 1;
    };
    // Each object that the kernel knows is a descriptor.
    rlimit files = {1 << 20, 1 << 20};
    if (::setrlimit(RLIMIT_NOFILE, &files) != 0 && ::getrlimit(RLIMIT_NOFILE, &files) == 0) {
      files.rlim_cur = files.rlim_max;
      ::setrlimit(RLIMIT_NOFILE, &files);
    }
    ::umask(0);
    UniqueFd root(::open(options_.backing.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    struct stat st;
    if (!root || ::fstatat(root.get(), "", &st, AT_EMPTY_PATH) != 0)
      return failed(options_.backing);
    NodeOf(std::move(root), st);
    fuse_.Reset(::open("/dev/fuse", O_RDWR | O_CLOEXEC | O_NONBLOCK));
    if (!fuse_) return failed("/dev/fuse");
    const std::string data = "fd=" + std::to_string(fuse_.get()) +
                             ",rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other";
    if (::mount(options_.backing.c_str(), options_.mount.c_str(), "fuse.nfs_like",
                MS_NOSUID | MS_NODEV, data.c_str()) != 0)
      return failed("mounting at " + options_.mount + " (as root?)");
    return 0;
  }

  [[noreturn]] void Run() {
    sigset_t signals;
    sigemptyset(&signals);
    for (const int s : {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2}) sigaddset(&signals, s);
    const UniqueFd signal_fd(::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
    std::vector<std::byte> buffer(kMaxIo + 64 * 1024);
    bool ending = false, hung = false;
    for (;;) {
      // What a server that hangs has not been told can be given up by who asked.
      std::array<pollfd, 2> polled = {{{signal_fd.get(), POLLIN, 0}, {fuse_.get(), POLLIN, 0}}};
      if (::poll(polled.data(), hung ? 1 : 2, ending ? 1000 : -1) == 0) ::_exit(0);
      signalfd_siginfo signal;
      if (::read(signal_fd.get(), &signal, sizeof(signal)) == sizeof(signal)) {
        if (signal.ssi_signo == SIGUSR1 || signal.ssi_signo == SIGUSR2) {
          const std::lock_guard lock(hung_mutex_);
          hung = hung_ = signal.ssi_signo == SIGUSR1;
          answering_.notify_all();
        } else if (!ending) {
          // The unmount may write what is left, which is served here; who has files open yet does
          // not keep us for longer than a second.
          ending = true;
          std::thread([this] { ::umount2(options_.mount.c_str(), MNT_DETACH); }).detach();
        }
      }
      if (hung || polled[1].revents == 0) continue;
      const ssize_t n = ::read(fuse_.get(), buffer.data(), buffer.size());
      if (n < 0 && errno == ENODEV) ::_exit(0);  // unmounted
      if (n < static_cast<ssize_t>(sizeof(fuse_in_header))) continue;
      Request in;
      std::memcpy(&in.header, buffer.data(), sizeof(in.header));
      in.body.assign(buffer.data() + sizeof(in.header), buffer.data() + n);
      HandleNow(std::move(in));
    }
  }

 private:
  // ---- Nodes, attributes, handles

  NodePtr Find(std::uint64_t id) {
    const std::lock_guard lock(mutex_);
    const auto it = nodes_.find(id);
    return it == nodes_.end() ? nullptr : it->second;
  }

  std::shared_ptr<Handle> FindHandle(std::uint64_t fh) {
    const std::lock_guard lock(mutex_);
    const auto it = handles_.find(fh);
    return it == handles_.end() ? nullptr : it->second;
  }

  /// The node of an O_PATH descriptor; the kernel knows it once more.
  NodePtr NodeOf(UniqueFd fd, const struct stat& st) {
    const std::lock_guard lock(mutex_);
    NodePtr& node = inodes_[{st.st_dev, st.st_ino}];
    if (node == nullptr) {
      node = std::make_shared<Node>();
      node->id = nodes_.empty() ? FUSE_ROOT_ID : ++last_node_;
      node->fd = std::move(fd);
      node->dev = st.st_dev;
      node->ino = st.st_ino;
      node->is_dir = S_ISDIR(st.st_mode);
      nodes_[node->id] = node;
    }
    ++node->lookups;
    return node;
  }

  void Forget(std::uint64_t id, std::uint64_t count) {
    const std::lock_guard lock(mutex_);
    const auto it = nodes_.find(id);
    if (it == nodes_.end() || id == FUSE_ROOT_ID) return;
    const NodePtr node = it->second;
    node->lookups -= std::min(node->lookups, count);
    if (node->lookups > 0) return;
    nodes_.erase(it);
    inodes_.erase({node->dev, node->ino});
  }

  /// ESTALE for what is gone.
  int Stat(const Node& node, struct stat& st) const {
    if (::fstatat(node.fd.get(), "", &st, AT_EMPTY_PATH) != 0) return errno;
    return st.st_nlink > 0 || (node.opens > 0 && !options_.estale_open) ? 0 : ESTALE;
  }

  void Tell(Node& node, const struct stat& st) {
    const std::lock_guard lock(mutex_);
    node.told = st;
    node.told_at = Clock::now();
  }

  /// What was told about this is to be asked for again.
  void Outdate(Node& node) {
    const std::lock_guard lock(mutex_);
    node.told_at = {};
  }
  void Outdate(const struct stat& st) {
    const std::lock_guard lock(mutex_);
    const auto it = inodes_.find({st.st_dev, st.st_ino});
    if (it != inodes_.end()) it->second->told_at = {};
  }
  /// By the kernel, too; attributes alone.
  void Notify(Node& node) {
    Outdate(node);
    struct {
      fuse_out_header header;
      fuse_notify_inval_inode_out inode;
    } notice = {};
    notice.header.len = sizeof(notice);
    notice.header.error = FUSE_NOTIFY_INVAL_INODE;
    notice.inode.ino = node.id;
    notice.inode.off = -1;
    [[maybe_unused]] const ssize_t n = ::write(fuse_.get(), &notice, sizeof(notice));
  }

  void AddAttr(const struct stat& st, milliseconds valid, Answer& out) {
    fuse_attr_out attr = {};
    attr.attr_valid = static_cast<std::uint64_t>(valid.count() / 1000);
    attr.attr_valid_nsec = static_cast<std::uint32_t>(valid.count() % 1000 * 1'000'000);
    attr.attr = AttrOf(st);
    out.Add(attr);
  }

  /// The kernel asks more often than an NFS client would, as after each read for the time of
  /// access.
  bool AddCachedAttr(Node& node, Answer& out) {
    const std::lock_guard lock(mutex_);
    const auto left = std::chrono::duration_cast<milliseconds>(
        node.told_at + milliseconds(options_.attr_ms) - Clock::now());
    if (node.told_at == Clock::time_point() || left.count() <= 0) return false;
    AddAttr(node.told, left, out);
    return true;
  }

  int AddFreshAttr(Node& node, Answer& out) {
    struct stat st;
    if (const int error = Stat(node, st); error != 0) return error;
    Tell(node, st);
    AddAttr(st, milliseconds(options_.attr_ms), out);
    return 0;
  }

  /// `node` may be null: the name is missing.
  void AddEntry(const NodePtr& node, const struct stat& st, Answer& out) {
    fuse_entry_out entry = {};
    entry.entry_valid = entry.attr_valid = static_cast<std::uint64_t>(options_.attr_ms / 1000);
    entry.entry_valid_nsec = entry.attr_valid_nsec =
        static_cast<std::uint32_t>(options_.attr_ms % 1000 * 1'000'000);
    if (node != nullptr) {
      entry.nodeid = node->id;
      Tell(*node, st);
      entry.attr = AttrOf(st);
    }
    out.entry = node;
    out.Add(entry);
  }

  int AddNamed(const NodePtr& dir, const std::string& name, Answer& out) {
    UniqueFd fd(::openat(dir->fd.get(), name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    struct stat st;
    if (!fd || ::fstatat(fd.get(), "", &st, AT_EMPTY_PATH) != 0) return errno;
    const NodePtr node = NodeOf(std::move(fd), st);
    if (!node->is_dir) {
      const std::lock_guard lock(mutex_);
      node->parent = dir;
      node->name = name;
    }
    AddEntry(node, st, out);
    return 0;
  }

  std::uint64_t AddHandle(const NodePtr& node, UniqueFd fd, int flags) {
    auto handle = std::make_shared<Handle>();
    handle->node = node;
    handle->fd = std::move(fd);
    handle->access = flags & O_ACCMODE;
    const std::lock_guard lock(mutex_);
    if (!node->is_dir) {
      ++node->opens;
      if (node->parent != nullptr) handle->parent = node->parent->id;
      handle->name = node->name;
    }
    handles_[++last_handle_] = std::move(handle);
    return last_handle_;
  }

  // ---- Names

  int Lookup(const Request& in, const NodePtr& dir, Answer& out) {
    const int error = AddNamed(dir, in.Name(), out);
    if (error != ENOENT) return error;
    AddEntry(nullptr, {}, out);
    return 0;
  }

  /// What was just made belongs to who asked for it.
  void Own(const Request& in, const Node& dir, const std::string& name) const {
    struct stat st;
    if (::fstatat(dir.fd.get(), "", &st, AT_EMPTY_PATH) != 0) return;
    const gid_t gid = (st.st_mode & S_ISGID) != 0 ? static_cast<gid_t>(-1) : in.header.gid;
    [[maybe_unused]] const int n =
        ::fchownat(dir.fd.get(), name.c_str(), in.header.uid, gid, AT_SYMLINK_NOFOLLOW);
  }

  int Make(const Request& in, const NodePtr& dir, Answer& out) {
    const int at = dir->fd.get();
    std::string name;
    int failed = -1;
    if (in.header.opcode == FUSE_MKNOD) {
      const auto mknod = in.As<fuse_mknod_in>();
      name = in.Name(sizeof(mknod));
      failed = ::mknodat(at, name.c_str(), mknod.mode, mknod.rdev);
    } else if (in.header.opcode == FUSE_MKDIR) {
      const auto mkdir = in.As<fuse_mkdir_in>();
      name = in.Name(sizeof(mkdir));
      failed = ::mkdirat(at, name.c_str(), mkdir.mode);
    } else {
      std::size_t next = 0;
      name = in.Text(next);
      failed = ::symlinkat(in.Name(next).c_str(), at, name.c_str());
    }
    if (failed != 0) return errno;
    Own(in, *dir, name);
    return AddNamed(dir, name, out);
  }

  int Link(const Request& in, const NodePtr& dir, Answer& out) {
    const auto link = in.As<fuse_link_in>();
    const std::string name = in.Name(sizeof(link));
    const NodePtr node = Find(link.oldnodeid);
    struct stat st;
    if (node == nullptr || Stat(*node, st) != 0) return ESTALE;
    if (::linkat(AT_FDCWD, ProcPath(node->fd).c_str(), dir->fd.get(), name.c_str(),
                 AT_SYMLINK_FOLLOW) != 0)
      return errno;
    return AddNamed(dir, name, out);
  }

  /// The names that this client knows a file by move with it. Called with mutex_ held.
  void Renamed(Node& node, const Node& from, const std::string& name, const NodePtr& to,
               const std::string& new_name) {
    node.parent = to;
    node.name = new_name;
    for (const auto& [fh, handle] : handles_) {
      if (handle->node.get() != &node || handle->parent != from.id || handle->name != name)
        continue;
      handle->parent = to->id;
      handle->name = new_name;
    }
  }

  /// 0: what had the name is open here and has another now. ENOENT: there was no need.
  int SillyRename(const NodePtr& dir, const std::string& name, const struct stat& st) {
    const std::lock_guard lock(mutex_);
    const auto it = inodes_.find({st.st_dev, st.st_ino});
    if (it == inodes_.end() || it->second->opens == 0) return ENOENT;
    Node& node = *it->second;
    if (node.silly_parent == dir && node.silly_name == name) return EBUSY;
    const bool used =
        st.st_nlink == 1 || std::any_of(handles_.begin(), handles_.end(), [&](const auto& h) {
          return h.second->node.get() == &node && h.second->parent == dir->id &&
                 h.second->name == name;
        });
    if (!used || node.silly_parent != nullptr) return ENOENT;
    for (;;) {
      std::array<char, 32> silly;
      std::snprintf(silly.data(), silly.size(), ".nfs%016llx%08x",
                    static_cast<unsigned long long>(node.ino), ++last_silly_);
      if (::renameat2(dir->fd.get(), name.c_str(), dir->fd.get(), silly.data(), RENAME_NOREPLACE) !=
          0) {
        if (errno == EEXIST) continue;
        return errno;
      }
      node.silly_parent = dir;
      node.silly_name = silly.data();
      Renamed(node, *dir, name, dir, node.silly_name);
      return 0;
    }
  }

  int Remove(const Request& in, const NodePtr& dir) {
    const std::string name = in.Name();
    const bool is_dir = in.header.opcode == FUSE_RMDIR;
    struct stat st;
    if (::fstatat(dir->fd.get(), name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) return errno;
    int error = is_dir ? ENOENT : SillyRename(dir, name, st);
    if (error == ENOENT)
      error = ::unlinkat(dir->fd.get(), name.c_str(), is_dir ? AT_REMOVEDIR : 0) == 0 ? 0 : errno;
    Outdate(st);
    return error;
  }

  int Rename(const Request& in, const NodePtr& dir) {
    std::size_t at = sizeof(fuse_rename_in);
    if (in.header.opcode == FUSE_RENAME2) {
      at = sizeof(fuse_rename2_in);
      if (in.As<fuse_rename2_in>().flags != 0) return EINVAL;
    }
    const std::string name = in.Text(at), new_name = in.Text(at);
    const NodePtr to = Find(in.As<fuse_rename_in>().newdir);
    struct stat st, old = {};
    if (to == nullptr || Stat(*to, st) != 0) return ESTALE;
    if (::fstatat(dir->fd.get(), name.c_str(), &old, AT_SYMLINK_NOFOLLOW) != 0) return errno;
    if (::fstatat(to->fd.get(), new_name.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0 &&
        !S_ISDIR(st.st_mode) && !S_ISDIR(old.st_mode) &&
        (st.st_dev != old.st_dev || st.st_ino != old.st_ino)) {
      const int error = SillyRename(to, new_name, st);
      if (error != 0 && error != ENOENT) return error;
      Outdate(st);
    }
    if (::renameat(dir->fd.get(), name.c_str(), to->fd.get(), new_name.c_str()) != 0) return errno;
    Outdate(old);
    const std::lock_guard lock(mutex_);
    to->told_at = {};
    const auto it = inodes_.find({old.st_dev, old.st_ino});
    if (it != inodes_.end() && !it->second->is_dir) Renamed(*it->second, *dir, name, to, new_name);
    return 0;
  }

  // ---- Attributes

  int SetAttr(const Request& in, Node& node, Answer& out) {
    const auto set = in.As<fuse_setattr_in>();
    const std::string path = ProcPath(node.fd);
    if ((set.valid & FATTR_MODE) != 0 && ::chmod(path.c_str(), set.mode & 07777) != 0) return errno;
    if ((set.valid & (FATTR_UID | FATTR_GID)) != 0) {
      const uid_t uid = (set.valid & FATTR_UID) != 0 ? set.uid : static_cast<uid_t>(-1);
      const gid_t gid = (set.valid & FATTR_GID) != 0 ? set.gid : static_cast<gid_t>(-1);
      if (::fchownat(node.fd.get(), "", uid, gid, AT_EMPTY_PATH) != 0) return errno;
    }
    if ((set.valid & FATTR_SIZE) != 0 &&
        ::truncate(path.c_str(), static_cast<off_t>(set.size)) != 0)
      return errno;
    if ((set.valid & (FATTR_ATIME | FATTR_MTIME)) != 0) {
      const auto time = [&](std::uint32_t flag, std::uint32_t now, std::uint64_t s,
                            std::uint32_t ns) {
        if ((set.valid & flag) == 0) return timespec{0, UTIME_OMIT};
        if ((set.valid & now) != 0) return timespec{0, UTIME_NOW};
        return timespec{static_cast<time_t>(s), static_cast<long>(ns)};
      };
      const std::array<timespec, 2> times = {
          time(FATTR_ATIME, FATTR_ATIME_NOW, set.atime, set.atimensec),
          time(FATTR_MTIME, FATTR_MTIME_NOW, set.mtime, set.mtimensec)};
      if (::utimensat(node.fd.get(), "", times.data(), AT_EMPTY_PATH) != 0) return errno;
    }
    return AddFreshAttr(node, out);
  }

  int StatFs(const Node& node, Answer& out) const {
    struct statfs fs;
    if (::fstatfs(node.fd.get(), &fs) != 0) return errno;
    fuse_statfs_out reply = {};
    reply.st.blocks = fs.f_blocks;
    reply.st.bfree = fs.f_bfree;
    reply.st.bavail = fs.f_bavail;
    reply.st.files = fs.f_files;
    reply.st.ffree = fs.f_ffree;
    reply.st.bsize = static_cast<std::uint32_t>(fs.f_bsize);
    reply.st.namelen = 255;
    reply.st.frsize = static_cast<std::uint32_t>(fs.f_frsize);
    out.Add(reply);
    return 0;
  }

  // ---- Open files

  int Open(const NodePtr& node, const Request& in, Answer& out) {
    struct stat st, named;
    if (const int error = Stat(*node, st); error != 0) return error;
    fuse_open_out reply = {};
    if (in.header.opcode == FUSE_OPENDIR) {
      // The kernel holds a cached listing against the folder's time, which it believes for attr_ms.
      reply.open_flags = FOPEN_CACHE_DIR | FOPEN_KEEP_CACHE;
    } else {
      std::unique_lock lock(mutex_);
      const NodePtr parent = node->parent;
      const std::string name = node->name;
      const struct stat told = node->told;
      lock.unlock();
      // NFSv4 opens by name. The kernel looks the name up anew and tries once more.
      if (parent == nullptr ||
          ::fstatat(parent->fd.get(), name.c_str(), &named, AT_SYMLINK_NOFOLLOW) != 0 ||
          !node->Is(named))
        return ESTALE;
      const auto same = [](const timespec& a, const timespec& b) {
        return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
      };
      if (st.st_size == told.st_size && same(st.st_mtim, told.st_mtim) &&
          same(st.st_ctim, told.st_ctim)) {
        reply.open_flags = FOPEN_KEEP_CACHE;
      } else {
        Notify(*node);  // the size; without KEEP_CACHE the bytes are dropped
      }
    }
    // (not O_APPEND: writes come with the place that this client takes for the end)
    const int flags = static_cast<int>(in.As<fuse_open_in>().flags);
    UniqueFd fd(::open(ProcPath(node->fd).c_str(),
                       (flags & (O_ACCMODE | O_SYNC | O_DSYNC)) | O_CLOEXEC | O_NONBLOCK));
    if (!fd) return errno;
    reply.fh = out.fh = AddHandle(node, std::move(fd), flags);
    out.Add(reply);
    return 0;
  }

  int Create(const Request& in, const NodePtr& dir, Answer& out) {
    const auto create = in.As<fuse_create_in>();
    const std::string name = in.Name(sizeof(create));
    const int asked = static_cast<int>(create.flags);
    const int flags =
        (asked & (O_ACCMODE | O_SYNC | O_DSYNC | O_TRUNC)) | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
    UniqueFd fd;
    for (;;) {
      fd.Reset(
          ::openat(dir->fd.get(), name.c_str(), flags | O_CREAT | O_EXCL, create.mode & 07777));
      if (fd) {
        Own(in, *dir, name);
        break;
      }
      if (errno != EEXIST || (asked & O_EXCL) != 0) return errno;
      fd.Reset(::openat(dir->fd.get(), name.c_str(), flags));  // another client was first
      if (fd) break;
      if (errno != ENOENT) return errno == ELOOP || errno == EISDIR ? ESTALE : errno;
    }
    UniqueFd path(::open(ProcPath(fd).c_str(), O_PATH | O_CLOEXEC));
    struct stat st;
    if (!path || ::fstatat(path.get(), "", &st, AT_EMPTY_PATH) != 0) return errno;
    if (!S_ISREG(st.st_mode)) return ESTALE;
    const NodePtr node = NodeOf(std::move(path), st);
    {
      const std::lock_guard lock(mutex_);
      node->parent = dir;
      node->name = name;
    }
    AddEntry(node, st, out);
    fuse_open_out open = {};
    open.fh = out.fh = AddHandle(node, std::move(fd), asked);
    out.Add(open);
    return 0;
  }

  void Release(std::uint64_t fh, const fuse_release_in& release) {
    NodePtr silly_parent;
    std::string silly_name;
    std::shared_ptr<Handle> handle;
    {
      const std::lock_guard lock(mutex_);
      const auto it = handles_.find(fh);
      if (it == handles_.end()) return;
      handle = std::move(it->second);
      handles_.erase(it);
      Node& node = *handle->node;
      if (!node.is_dir && --node.opens == 0) {
        silly_parent = std::exchange(node.silly_parent, nullptr);
        silly_name = std::exchange(node.silly_name, "");
      }
    }
    if ((release.release_flags & FUSE_RELEASE_FLOCK_UNLOCK) != 0)
      Unlock(handle->node->id, release.lock_owner, true);
    struct stat st;
    if (silly_parent == nullptr ||
        ::fstatat(silly_parent->fd.get(), silly_name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0 ||
        !handle->node->Is(st))
      return;
    ::unlinkat(silly_parent->fd.get(), silly_name.c_str(), 0);
    Notify(*silly_parent);
  }

  int Read(const Request& in, const Handle& handle, Answer& out) {
    const auto read = in.As<fuse_read_in>();
    out.bytes.resize(std::min<std::size_t>(read.size, kMaxIo));
    const ssize_t n = ::pread(handle.fd.get(), out.bytes.data(), out.bytes.size(),
                              static_cast<off_t>(read.offset));
    out.bytes.resize(n < 0 ? 0 : static_cast<std::size_t>(n));
    return n < 0 ? errno : 0;
  }

  int Write(const Request& in, const Handle& handle, Answer& out) {
    const auto write = in.As<fuse_write_in>();
    const auto data = std::span(in.body).subspan(std::min(sizeof(write), in.body.size()));
    const ssize_t n =
        ::pwrite(handle.fd.get(), data.data(), data.size(), static_cast<off_t>(write.offset));
    if (n < 0) return errno;
    fuse_write_out reply = {};
    reply.size = static_cast<std::uint32_t>(n);
    out.Add(reply);
    return 0;
  }

  int ReadDir(const Request& in, Handle& handle, Answer& out) {
    const auto read = in.As<fuse_read_in>();
    if (read.offset == 0) {
      handle.entries.clear();
      DIR* dir = ::opendir(ProcPath(handle.node->fd).c_str());
      if (dir == nullptr) return errno;
      while (const dirent* entry = ::readdir(dir))
        handle.entries.push_back({entry->d_name, entry->d_ino, entry->d_type});
      ::closedir(dir);
    }
    for (std::size_t i = read.offset; i < handle.entries.size(); ++i) {
      const Handle::Entry& entry = handle.entries[i];
      fuse_dirent head = {};
      head.ino = entry.ino;
      head.off = i + 1;
      head.namelen = static_cast<std::uint32_t>(entry.name.size());
      head.type = entry.type;
      const std::size_t start = out.bytes.size();
      const std::size_t size = FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + entry.name.size());
      if (start + size > read.size) break;
      out.bytes.resize(start + size);
      std::memcpy(out.bytes.data() + start, &head, FUSE_NAME_OFFSET);
      std::memcpy(out.bytes.data() + start + FUSE_NAME_OFFSET, entry.name.data(),
                  entry.name.size());
    }
    return 0;
  }

  // ---- Locks

  int Lock(const Request& in, const Node& node, Answer& out) {
    const auto lk = in.As<fuse_lk_in>();
    const bool flock = (lk.lk_flags & FUSE_LK_FLOCK) != 0;
    const auto handle = FindHandle(lk.fh);
    if (handle == nullptr) return EBADF;
    if (flock && ((lk.lk.type == F_WRLCK && handle->access == O_RDONLY) ||
                  (lk.lk.type == F_RDLCK && handle->access == O_WRONLY)))
      return EBADF;
    std::unique_lock lock(mutex_);
    std::shared_ptr<UniqueFd>& entry = locks_[{node.id, lk.owner, flock}];
    if (entry == nullptr) {
      entry = std::make_shared<UniqueFd>(::open(ProcPath(handle->fd).c_str(), O_RDWR | O_CLOEXEC));
    }
    const std::shared_ptr<UniqueFd> fd = entry;
    if (!*fd) return ENOLCK;
    struct flock range = {};
    range.l_type = static_cast<short>(lk.lk.type);
    range.l_start = static_cast<off_t>(lk.lk.start);
    range.l_len = lk.lk.end >= INT64_MAX ? 0 : static_cast<off_t>(lk.lk.end - lk.lk.start + 1);
    if (in.header.opcode == FUSE_GETLK) {
      if (::fcntl(fd->get(), F_OFD_GETLK, &range) != 0) return errno;
      fuse_lk_out reply = {};
      reply.lk.type = static_cast<std::uint32_t>(range.l_type);
      reply.lk.start = static_cast<std::uint64_t>(range.l_start);
      reply.lk.end = range.l_len == 0 ? static_cast<std::uint64_t>(INT64_MAX)
                                      : static_cast<std::uint64_t>(range.l_start + range.l_len - 1);
      out.Add(reply);
      return 0;
    }
    for (;;) {
      if (::fcntl(fd->get(), F_OFD_SETLK, &range) == 0) return 0;
      if (errno != EAGAIN && errno != EACCES) return errno;
      if (in.header.opcode == FUSE_SETLK) return EAGAIN;
      const auto interrupted = [&] { return interrupted_.contains(in.header.unique); };
      if (interrupt_.wait_for(lock, kLockTick, interrupted)) return EINTR;
    }
  }

  void Unlock(std::uint64_t node, std::uint64_t owner, bool flock) {
    const std::lock_guard lock(mutex_);
    locks_.erase({node, owner, flock});
  }

  // ---- Requests

  int Do(const Request& in, Answer& out) {
    const NodePtr node = Find(in.header.nodeid);
    if (node == nullptr) return ESTALE;
    // What needs nothing of the node, or is right when that is gone.
    switch (in.header.opcode) {
      case FUSE_RELEASE:
      case FUSE_RELEASEDIR: {
        const auto release = in.As<fuse_release_in>();
        Release(release.fh, release);
        return 0;
      }
      case FUSE_FLUSH:  // at each close; locks of fcntl end with the first
        Unlock(node->id, in.As<fuse_flush_in>().lock_owner, false);
        return 0;
      case FUSE_GETLK:
      case FUSE_SETLK:
      case FUSE_SETLKW:
        return Lock(in, *node, out);
      case FUSE_TMPFILE:
      case FUSE_FALLOCATE:
        return EOPNOTSUPP;
      case FUSE_IOCTL:
        return ENOTTY;
      default:
        break;
    }
    if (in.header.opcode == FUSE_GETATTR && AddCachedAttr(*node, out)) return 0;
    struct stat st;
    if (const int error = Stat(*node, st); error != 0) return error;
    switch (in.header.opcode) {
      case FUSE_LOOKUP:
        return Lookup(in, node, out);
      case FUSE_GETATTR:
        return AddFreshAttr(*node, out);
      case FUSE_SETATTR:
        return SetAttr(in, *node, out);
      case FUSE_READLINK: {
        out.bytes.resize(PATH_MAX);
        const ssize_t n = ::readlinkat(node->fd.get(), "",
                                       reinterpret_cast<char*>(out.bytes.data()), out.bytes.size());
        out.bytes.resize(n < 0 ? 0 : static_cast<std::size_t>(n));
        return n < 0 ? errno : 0;
      }
      case FUSE_SYMLINK:
      case FUSE_MKNOD:
      case FUSE_MKDIR:
        return Make(in, node, out);
      case FUSE_UNLINK:
      case FUSE_RMDIR:
        return Remove(in, node);
      case FUSE_RENAME:
      case FUSE_RENAME2:
        return Rename(in, node);
      case FUSE_LINK:
        return Link(in, node, out);
      case FUSE_OPEN:
      case FUSE_OPENDIR:
        return Open(node, in, out);
      case FUSE_CREATE:
        return Create(in, node, out);
      case FUSE_STATFS:
        return StatFs(*node, out);
      case FUSE_READ:
      case FUSE_WRITE:
      case FUSE_READDIR:
      case FUSE_FSYNC:
      case FUSE_FSYNCDIR: {
        const auto handle = FindHandle(in.As<std::uint64_t>());  // all begin with it
        if (handle == nullptr) return EBADF;
        if (in.header.opcode == FUSE_READ) return Read(in, *handle, out);
        if (in.header.opcode == FUSE_WRITE) return Write(in, *handle, out);
        if (in.header.opcode == FUSE_READDIR) return ReadDir(in, *handle, out);
        const bool data = (in.As<fuse_fsync_in>().fsync_flags & FUSE_FSYNC_FDATASYNC) != 0;
        return (data ? ::fdatasync(handle->fd.get()) : ::fsync(handle->fd.get())) == 0 ? 0 : errno;
      }
      default:
        return ENOSYS;
    }
  }

  bool Send(std::uint64_t unique, int error, std::span<const std::byte> bytes) {
    if (error != 0) bytes = {};
    fuse_out_header header = {};
    header.len = static_cast<std::uint32_t>(sizeof(header) + bytes.size());
    header.error = -error;
    header.unique = unique;
    const std::array<iovec, 2> parts = {
        {{&header, sizeof(header)}, {const_cast<std::byte*>(bytes.data()), bytes.size()}}};
    return ::writev(fuse_.get(), parts.data(), parts.size()) >= 0;
  }

  /// What this client changes it knows to be changed.
  void Renew(const Request& in) {
    static constexpr std::array kChange = {FUSE_WRITE, FUSE_MKNOD,  FUSE_MKDIR,
                                           FUSE_LINK,  FUSE_CREATE, FUSE_SYMLINK,
                                           FUSE_RMDIR, FUSE_UNLINK, FUSE_RENAME};
    if (std::ranges::none_of(kChange, [&](auto op) { return in.header.opcode == op; })) return;
    if (const NodePtr node = Find(in.header.nodeid)) Outdate(*node);
  }

  void Serve(const Request& in) {
    if (options_.delay_ms > 0) std::this_thread::sleep_for(milliseconds(options_.delay_ms));
    Answer out;
    const int error = Do(in, out);
    Renew(in);
    if (in.header.opcode == FUSE_SETLKW) {
      const std::lock_guard lock(mutex_);
      waiting_.erase(in.header.unique);
      interrupted_.erase(in.header.unique);
    }
    {
      std::unique_lock lock(hung_mutex_);
      answering_.wait(lock, [this] { return !hung_; });
    }
    if (Send(in.header.unique, error, out.bytes)) return;
    // Nobody waits for it any more.
    if (out.fh != 0) Release(out.fh, {});
    if (out.entry != nullptr) Forget(out.entry->id, 1);
  }

  void Work() {
    for (;;) {
      std::unique_lock lock(queue_mutex_);
      ++idle_;
      queued_.wait(lock, [this] { return !queue_.empty(); });
      --idle_;
      const Request in = std::move(queue_.front());
      queue_.pop_front();
      lock.unlock();
      Serve(in);
    }
  }

  void Init(const Request& in) {
    const auto init = in.As<fuse_init_in>();
    fuse_init_out out = {};
    out.major = leat::fuse::kMajor;
    out.minor = std::min(init.minor, leat::fuse::kMinor);
    out.max_readahead = kMaxIo;
    out.flags = FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_MAX_PAGES | FUSE_PARALLEL_DIROPS |
                FUSE_AUTO_INVAL_DATA;
    if (!options_.nolock) out.flags |= FUSE_POSIX_LOCKS | FUSE_FLOCK_LOCKS;
    out.flags &= init.flags;
    out.max_background = 64;
    out.congestion_threshold = 48;
    out.max_write = kMaxIo;
    out.max_pages = kMaxIo / 4096;
    out.time_gran = 1;
    const auto* begin = reinterpret_cast<const std::byte*>(&out);
    if (init.major != leat::fuse::kMajor) {
      Send(in.header.unique, EPROTO, {});
      return;
    }
    Send(in.header.unique, 0, {begin, sizeof(out)});
    std::puts("ready");
    std::fflush(stdout);
  }

  /// What is done in the order in which it comes; all else waits for a thread.
  void HandleNow(Request in) {
    switch (in.header.opcode) {
      case FUSE_INIT:
        Init(in);
        return;
      case FUSE_FORGET:
        Forget(in.header.nodeid, in.As<fuse_forget_in>().nlookup);
        return;
      case FUSE_BATCH_FORGET: {
        const auto batch = in.As<fuse_batch_forget_in>();
        for (std::size_t i = 0; i < batch.count; ++i) {
          fuse_forget_one one;
          const std::size_t at = sizeof(batch) + i * sizeof(one);
          if (at + sizeof(one) > in.body.size()) return;
          std::memcpy(&one, in.body.data() + at, sizeof(one));
          Forget(one.nodeid, one.nlookup);
        }
        return;
      }
      case FUSE_INTERRUPT: {
        const std::lock_guard lock(mutex_);
        const std::uint64_t unique = in.As<fuse_interrupt_in>().unique;
        if (waiting_.contains(unique)) interrupted_.insert(unique);
        interrupt_.notify_all();
        return;
      }
      case FUSE_DESTROY:
        Send(in.header.unique, 0, {});
        return;
      case FUSE_SETLKW: {
        const std::lock_guard lock(mutex_);
        waiting_.insert(in.header.unique);
        break;
      }
      default:
        break;
    }
    const std::lock_guard lock(queue_mutex_);
    queue_.push_back(std::move(in));
    // One that waits, for a lock or for its turn to answer, keeps nobody else waiting.
    if (std::cmp_less(idle_, queue_.size())) std::thread([this] { Work(); }).detach();
    queued_.notify_one();
  }

  const Options options_;
  UniqueFd fuse_;
  std::mutex mutex_;
  std::unordered_map<std::uint64_t, NodePtr> nodes_;
  std::map<std::pair<dev_t, ino_t>, NodePtr> inodes_;
  std::unordered_map<std::uint64_t, std::shared_ptr<Handle>> handles_;
  std::uint64_t last_node_ = FUSE_ROOT_ID;
  std::uint64_t last_handle_ = 0;
  std::uint32_t last_silly_ = 0;
  /// By node, owner and whether it is flock's: an open file that has the owner's locks.
  std::map<std::tuple<std::uint64_t, std::uint64_t, bool>, std::shared_ptr<UniqueFd>> locks_;
  std::set<std::uint64_t> waiting_;  // requests for a lock, by unique
  std::set<std::uint64_t> interrupted_;
  std::condition_variable interrupt_;

  std::mutex queue_mutex_;
  std::deque<Request> queue_;
  int idle_ = 0;  // threads without work
  std::condition_variable queued_;

  std::mutex hung_mutex_;
  bool hung_ = false;
  std::condition_variable answering_;
};

bool ParseNumber(std::string_view word, std::string_view key, long& out) {
  if (!word.starts_with(key)) return false;
  const char* end = word.data() + word.size();
  const auto [at, error] = std::from_chars(word.data() + key.size(), end, out);
  return error == std::errc() && at == end && out >= 0;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  bool good = argc >= 3;
  for (int i = 3; i < argc; ++i) {
    const std::string_view word = argv[i];
    if (word == "nolock") {
      options.nolock = true;
    } else if (word == "estale_open") {
      options.estale_open = true;
    } else {
      good = good && (ParseNumber(word, "attr_ms=", options.attr_ms) ||
                      ParseNumber(word, "delay_ms=", options.delay_ms));
    }
  }
  if (!good) {
    std::fputs(
        "usage: nfs_like BACKING_DIR MOUNT_DIR [attr_ms=3000] [nolock] [estale_open] "
        "[delay_ms=0]\n",
        stderr);
    return 2;
  }
  options.backing = argv[1];
  options.mount = argv[2];
  sigset_t signals;
  sigemptyset(&signals);
  for (const int s : {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2}) sigaddset(&signals, s);
  ::sigprocmask(SIG_BLOCK, &signals, nullptr);    // before threads, which inherit it
  auto* client = new Client(std::move(options));  // for threads that run until the process ends
  if (const int status = client->Start(); status != 0) return status;
  client->Run();
}
