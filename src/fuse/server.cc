#include "fuse/server.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <stop_token>
#include <string_view>
#include <system_error>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/log.h"
#include "fuse/protocol.h"

namespace leat::fuse {
namespace {

// No request of a read-only file system is longer; names are, at most, PATH_MAX.
constexpr std::size_t kRequestBytes = 68 * 1024;
constexpr std::uint64_t kForever = UINT64_MAX >> 1;
constexpr std::uint32_t kMaxRead = 1 << 20;

/// One request: its header and the bytes behind it.
struct Request {
  fuse_in_header header = {};
  std::span<const std::byte> body;

  template <typename T>
  std::optional<T> Argument() const {
    if (body.size() < sizeof(T)) return std::nullopt;
    T out;
    std::memcpy(&out, body.data(), sizeof(T));
    return out;
  }
  /// The NUL-terminated name at the body's start, after `skip` bytes.
  std::optional<std::string_view> Name(std::size_t skip = 0) const {
    if (body.size() <= skip) return std::nullopt;
    const auto* begin = reinterpret_cast<const char*>(body.data()) + skip;
    const auto* end = static_cast<const char*>(std::memchr(begin, 0, body.size() - skip));
    if (end == nullptr) return std::nullopt;
    return std::string_view(begin, static_cast<std::size_t>(end - begin));
  }
};

template <typename T>
std::span<const std::byte> BytesOf(const T& value) {
  return {reinterpret_cast<const std::byte*>(&value), sizeof(T)};
}

/// Whether the disk gives these bytes, which come straight from the cache file's mapping; they are
/// in memory then. A reply that cannot be read is too late: the kernel has ended its request by the
/// time it says EFAULT.
bool Readable(std::span<const std::byte> bytes) {
  constexpr std::uintptr_t kPage = 4096;
  const auto begin = reinterpret_cast<std::uintptr_t>(bytes.data()) / kPage * kPage;
  const auto end = reinterpret_cast<std::uintptr_t>(bytes.data()) + bytes.size();
  // (EINVAL: Linux before 5.14)
  return bytes.empty() ||
         ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_POPULATE_READ) == 0 ||
         errno == EINVAL;
}

/// False: the bytes could not be read after all.
bool Reply(int fd, std::uint64_t unique, int error, std::span<const std::byte> first = {},
           std::span<const std::byte> second = {}) {
  fuse_out_header header = {};
  header.len = static_cast<std::uint32_t>(sizeof(header) + first.size() + second.size());
  header.error = -error;
  header.unique = unique;
  const std::array<iovec, 3> parts = {{{&header, sizeof(header)},
                                       {const_cast<std::byte*>(first.data()), first.size()},
                                       {const_cast<std::byte*>(second.data()), second.size()}}};
  return ::writev(fd, parts.data(), parts.size()) >= 0 || errno != EFAULT;
}

/// Whether a thread is about to be killed (or is gone): then nobody waits for its read. Any other
/// signal is no reason to fail one.
bool IsBeingKilled(std::uint32_t tid) {
  const auto status = os::ReadFile("/proc/" + std::to_string(tid) + "/status", 64 * 1024);
  if (!status) return true;
  for (const char* field : {"\nSigPnd:\t", "\nShdPnd:\t"}) {
    const std::size_t at = status->find(field);
    if (at == std::string::npos) continue;
    const std::uint64_t pending =
        std::strtoull(status->c_str() + at + std::strlen(field), nullptr, 16);
    if ((pending & (1ULL << (SIGKILL - 1))) != 0) return true;
  }
  return false;
}

/// Attributes and, from `from` on, bytes of a node are to be asked for anew.
void NotifyInode(int fd, std::uint64_t node, std::int64_t from) {
  struct {
    fuse_out_header header;
    fuse_notify_inval_inode_out inode;
  } notice = {};
  notice.header.len = sizeof(notice);
  notice.header.error = FUSE_NOTIFY_INVAL_INODE;
  notice.inode.ino = node;
  notice.inode.off = from;  // length 0: to the end
  [[maybe_unused]] const ssize_t n = ::write(fd, &notice, sizeof(notice));
}

/// What the root has under a name is to be asked for anew.
void NotifyEntry(int fd, const std::string& name) {
  struct {
    fuse_out_header header;
    fuse_notify_inval_entry_out entry;
  } notice = {};
  notice.header.len = static_cast<std::uint32_t>(sizeof(notice) + name.size() + 1);
  notice.header.error = FUSE_NOTIFY_INVAL_ENTRY;
  notice.entry.parent = vfs::kRootNode;
  notice.entry.namelen = static_cast<std::uint32_t>(name.size());
  const std::array<iovec, 2> parts = {
      {{&notice, sizeof(notice)}, {const_cast<char*>(name.c_str()), name.size() + 1}}};
  [[maybe_unused]] const ssize_t n = ::writev(fd, parts.data(), parts.size());
}

/// The kinds of failure a read can have. That a reader was interrupted is its own doing; all else
/// is EIO.
int ErrnoOf(Errc code) { return code == Errc::kCancelled ? EINTR : EIO; }

}  // namespace

namespace {

constexpr std::uint64_t kNodeMask = (1ULL << 40) - 1;

/// A file system that the kernel knows nodes of.
struct View {
  std::shared_ptr<vfs::FileSystem> fs;
  std::uint64_t generation = 0;
  std::atomic<std::int64_t> lookups{0};  // that the kernel has not forgotten yet
  std::atomic<int> users{0};             // requests under way

  std::uint64_t NodeOf(vfs::Node node) const { return KernelNode(generation, node); }
};

}  // namespace

struct Server::State {
  std::mutex mutex;
  std::shared_mutex views_mutex;
  std::vector<std::unique_ptr<View>> views;  // guarded by views_mutex; the last is the root's

  std::atomic<std::uint64_t> latest{0};  // the last one's generation

  /// A view while a request is at it; null for one that is gone.
  class Use {
   public:
    Use(State& state, std::uint64_t node) : state_(state) {
      const std::shared_lock lock(state.views_mutex);
      for (auto it = state.views.rbegin(); it != state.views.rend() && view_ == nullptr; ++it) {
        if (node <= vfs::kRootNode || (*it)->generation == node >> 40) view_ = it->get();
      }
      if (view_ != nullptr) ++view_->users;
    }
    Use(const Use&) = delete;
    Use& operator=(const Use&) = delete;
    // Whoever is the last to be at a forgotten view drops it: a FORGET may come while others are.
    ~Use() {
      if (view_ == nullptr) return;
      const std::uint64_t generation = view_->generation;  // (then it may be gone)
      if (--view_->users == 0 && generation != state_.latest) state_.DropForgotten();
    }
    View* get() const { return view_; }

   private:
    State& state_;
    View* view_ = nullptr;
  };
  /// What is neither the root's nor known to the kernel, nor about to be, is gone.
  void DropForgotten() {
    std::vector<std::unique_ptr<View>> gone;  // their ends take time: without the lock
    const std::lock_guard lock(views_mutex);
    const View* const last = views.back().get();
    std::erase_if(views, [&](std::unique_ptr<View>& view) {
      const bool drop = view.get() != last && view->lookups <= 0 && view->users == 0;
      if (drop) gone.push_back(std::move(view));
      return drop;
    });
  }
  std::vector<std::thread> threads;  // guarded by mutex
  /// Reads that wait for bytes, by unique; guarded by mutex.
  struct Waiting {
    std::stop_source stop;
    std::uint32_t tid = 0;
    bool interrupted = false;
  };
  std::unordered_map<std::uint64_t, Waiting> waiting;
  std::jthread watcher;  // of interrupted reads, whose threads may yet be killed: the kernel does
                         // not tell twice
  std::array<std::mutex, 64>
      open_mutexes;  // one of them held while it is decided how a file is opened
  std::atomic<int> idle{0};
  std::atomic<bool> begun{false};
  os::UniqueFd clone;
  std::atomic<int> fd{-1};  // what is read from
};

namespace {

/// Everything that handling one request needs.
class Handler {
 public:
  Handler(const ServerOptions& options, std::array<std::mutex, 64>& open_mutexes, View& view,
          int fd, const Request& request)
      : options_(options),
        open_mutexes_(open_mutexes),
        view_(view),
        fs_(*view.fs),
        fd_(fd),
        in_(request) {}

  void Fail(int error) const { Reply(fd_, in_.header.unique, error); }
  bool Ok(std::span<const std::byte> bytes = {}) const {
    return Reply(fd_, in_.header.unique, 0, bytes);
  }

  fuse_attr AttrOf(const vfs::Attributes& a) const {
    fuse_attr out = {};
    out.ino = view_.NodeOf(a.node);
    out.size = a.size;
    out.blocks = (a.size + 511) / 512;
    const auto seconds = a.mtime_ns / 1'000'000'000;
    out.mtime = out.ctime = out.atime = static_cast<std::uint64_t>(seconds);
    out.mtimensec = out.ctimensec = out.atimensec =
        static_cast<std::uint32_t>(a.mtime_ns - seconds * 1'000'000'000);
    out.mode = a.is_dir ? S_IFDIR | 0555U : S_IFREG | 0444U;
    out.nlink = a.links;
    out.uid = options_.uid;
    out.gid = options_.gid;
    out.blksize = static_cast<std::uint32_t>(cache::kBlock);
    return out;
  }
  fuse_entry_out EntryOf(const vfs::Attributes& a) const {
    fuse_entry_out out = {};
    out.nodeid = view_.NodeOf(a.node);
    out.entry_valid = out.attr_valid = kForever;
    out.attr = AttrOf(a);
    return out;
  }

  void Init();
  void Lookup() const;
  void GetAttr() const;
  void Open() const;
  void Release() const;
  void ReadDirectory(bool plus) const;
  void StatFs() const;
  void GetXattr() const;
  void ListXattr() const;

 private:
  std::int32_t BackingId(vfs::Node node, OpenRecord& record) const;

  const ServerOptions& options_;
  std::array<std::mutex, 64>& open_mutexes_;
  View& view_;
  vfs::FileSystem& fs_;
  const int fd_;
  const Request& in_;
};

void Handler::Init() {
  // flags2 came with 7.36; older kernels send less.
  fuse_init_in init = {};
  std::memcpy(&init, in_.body.data(), std::min(in_.body.size(), sizeof(init)));
  if (in_.body.size() < 16) return Fail(EPROTO);
  fuse_init_out out = {};
  out.major = kMajor;
  if (init.major > kMajor) {
    Ok(BytesOf(out));
    return;
  }  // the kernel asks again with ours
  if (init.major < kMajor || init.minor < 31) return Fail(EPROTO);
  std::uint64_t offered = init.flags;
  if ((init.flags & FUSE_INIT_EXT) != 0) offered |= static_cast<std::uint64_t>(init.flags2) << 32;
  std::uint64_t wanted = FUSE_ASYNC_READ | FUSE_PARALLEL_DIROPS | FUSE_DO_READDIRPLUS |
                         FUSE_MAX_PAGES | FUSE_EXPLICIT_INVAL_DATA | FUSE_INIT_EXT;
  if (options_.use_resend) wanted |= kInitHasResend;
  if (options_.open_mode) {
    wanted |= kInitPassthrough;
  } else {
    wanted |= FUSE_NO_OPEN_SUPPORT;
  }
  wanted |= FUSE_NO_OPENDIR_SUPPORT;
  const std::uint64_t agreed = offered & wanted;
  out.minor = std::min(init.minor, kMinor);
  out.max_readahead = 32 << 20;
  out.flags = static_cast<std::uint32_t>(agreed);
  out.flags2 = static_cast<std::uint32_t>(agreed >> 32);
  out.max_background = 128;
  out.congestion_threshold = 96;
  out.max_write = 4096;
  out.max_pages = kMaxRead / 4096;
  out.time_gran = 1;
  if ((agreed & kInitPassthrough) != 0) SetMaxStackDepth(out, 1);
  if (options_.connection != nullptr) {
    options_.connection->has_resend = (agreed & kInitHasResend) != 0 ? 1 : 0;
    options_.connection->has_passthrough = (agreed & kInitPassthrough) != 0 ? 1 : 0;
    options_.connection->initialised = 1;
  }
  Ok(BytesOf(out));
}

void Handler::Lookup() const {
  const auto name = in_.Name();
  if (!name) return Fail(EINVAL);
  if (!fs_.IsDirectory(in_.header.nodeid)) return Fail(ENOTDIR);
  if (name->size() > 255) return Fail(ENAMETOOLONG);
  std::optional<vfs::Node> node;
  if (*name == ".") {
    node = in_.header.nodeid;
  } else if (*name == "..") {
    node = fs_.Parent(in_.header.nodeid);
  } else {
    node = fs_.Lookup(in_.header.nodeid, *name);
  }
  if (!node) {
    fuse_entry_out none = {};  // node 0: the kernel may remember that it is not there
    none.entry_valid = kForever;
    {
      Ok(BytesOf(none));
      return;
    }
  }
  ++view_.lookups;
  if (!Ok(BytesOf(EntryOf(*fs_.Stat(*node))))) --view_.lookups;
}

void Handler::GetAttr() const {
  const auto attributes = fs_.Stat(in_.header.nodeid);
  if (!attributes) return Fail(ESTALE);
  fuse_attr_out out = {};
  out.attr_valid = kForever;
  out.attr = AttrOf(*attributes);
  Ok(BytesOf(out));
}

std::int32_t Handler::BackingId(vfs::Node node, OpenRecord& record) const {
  const std::int32_t known = record.backing_id.load();
  if (known > 0) return known;
  const os::UniqueFd fd = fs_.PassthroughFd(node);
  if (!fd) return -1;
  BackingMap map = {fd.get(), 0, 0};
  const int id = ::ioctl(fd_, kIocBackingOpen, &map);
  if (id <= 0) return -1;
  // Kept for the connection's life: every open of the file must use the same.
  record.backing_id = id;
  return id;
}

void Handler::Open() const {
  if (!options_.open_mode) return Fail(ENOSYS);
  const auto open = in_.Argument<fuse_open_in>();
  if (!open) return Fail(EINVAL);
  if ((open->flags & O_ACCMODE) != O_RDONLY) return Fail(EROFS);
  fuse_open_out out = {};
  out.open_flags = FOPEN_KEEP_CACHE;
  if (!options_.opens.empty()) {
    OpenRecord& record = options_.opens[in_.header.nodeid % options_.opens.size()];
    // A file is either read by us or by the kernel, as long as anybody has it open.
    const std::lock_guard lock(open_mutexes_[in_.header.nodeid % open_mutexes_.size()]);
    const bool may = options_.connection == nullptr || options_.connection->has_passthrough != 0;
    std::int32_t id = -1;
    if (may && record.plain_opens == 0) id = BackingId(in_.header.nodeid, record);
    if (id > 0) {
      out.open_flags = kOpenPassthrough;
      SetBackingId(out, id);
      out.fh = 1;
    } else {
      ++record.plain_opens;
    }
  }
  Ok(BytesOf(out));
}

void Handler::Release() const {
  if (const auto release = in_.Argument<fuse_release_in>();
      release && release->fh == 0 && !options_.opens.empty()) {
    // One that is sent again may have been counted by the server that died: rather one file that
    // stays with us than two readers in each other's way.
    OpenRecord& record = options_.opens[in_.header.nodeid % options_.opens.size()];
    const std::lock_guard lock(open_mutexes_[in_.header.nodeid % open_mutexes_.size()]);
    if ((in_.header.unique & kUniqueResend) == 0 && record.plain_opens > 0) --record.plain_opens;
  }
  Ok();
}

void Handler::ReadDirectory(bool plus) const {
  const auto read = in_.Argument<fuse_read_in>();
  if (!read) return Fail(EINVAL);
  if (!fs_.IsDirectory(in_.header.nodeid)) return Fail(ENOTDIR);
  const std::size_t room = std::min(read->size, kMaxRead);
  std::vector<std::byte> out;
  out.reserve(room);
  const auto add = [&](std::uint64_t next, std::string_view name, vfs::Node node, bool dot) {
    const std::size_t head = plus ? FUSE_NAME_OFFSET_DIRENTPLUS : FUSE_NAME_OFFSET;
    const std::size_t size = FUSE_DIRENT_ALIGN(head + name.size());
    if (out.size() + size > room) return false;
    const std::size_t at = out.size();
    out.resize(at + size);
    const auto attributes = fs_.Stat(node);
    fuse_dirent entry = {};
    entry.ino = view_.NodeOf(node);
    entry.off = next;
    entry.namelen = static_cast<std::uint32_t>(name.size());
    entry.type = attributes->is_dir ? DT_DIR : DT_REG;
    if (plus) {
      // "." and ".." carry no node: the kernel must not count a lookup of them.
      const fuse_entry_out full = dot ? fuse_entry_out{} : EntryOf(*attributes);
      if (!dot) ++view_.lookups;
      std::memcpy(out.data() + at, &full, sizeof(full));
    }
    std::memcpy(out.data() + at + head - FUSE_NAME_OFFSET, &entry, FUSE_NAME_OFFSET);
    std::memcpy(out.data() + at + head, name.data(), name.size());
    return true;
  };
  std::uint64_t position = read->offset;
  bool more = true;
  if (position == 0) more = add(++position, ".", in_.header.nodeid, true);
  if (more && position == 1) more = add(++position, "..", fs_.Parent(in_.header.nodeid), true);
  if (more) {
    fs_.ReadDirectory(in_.header.nodeid, position - 2,
                      [&](std::uint64_t i, std::string_view name, vfs::Node node) {
                        return add(i + 3, name, node, false);
                      });
  }
  Ok(out);
}

void Handler::StatFs() const {
  fuse_statfs_out out = {};
  out.st.bsize = out.st.frsize = 4096;
  out.st.blocks = (fs_.total_bytes() + 4095) / 4096;
  out.st.files = fs_.node_count();
  out.st.namelen = 255;
  Ok(BytesOf(out));
}

void Handler::GetXattr() const {
  const auto get = in_.Argument<fuse_getxattr_in>();
  const auto name = in_.Name(sizeof(fuse_getxattr_in));
  if (!get || !name) return Fail(EINVAL);
  const auto value = fs_.Attribute(in_.header.nodeid, *name);
  if (!value) return Fail(ENODATA);
  if (get->size == 0) {
    fuse_getxattr_out out = {};
    out.size = static_cast<std::uint32_t>(value->size());
    {
      Ok(BytesOf(out));
      return;
    }
  }
  if (value->size() > get->size) return Fail(ERANGE);
  Ok(AsBytes(*value));
}

void Handler::ListXattr() const {
  const auto get = in_.Argument<fuse_getxattr_in>();
  if (!get) return Fail(EINVAL);
  std::string names;
  for (const std::string& name : fs_.AttributeNames(in_.header.nodeid))
    names.append(name).push_back('\0');
  if (get->size == 0) {
    fuse_getxattr_out out = {};
    out.size = static_cast<std::uint32_t>(names.size());
    {
      Ok(BytesOf(out));
      return;
    }
  }
  if (names.size() > get->size) return Fail(ERANGE);
  Ok(AsBytes(names));
}

}  // namespace

Server::Server(ServerOptions options)
    : options_(std::move(options)), state_(std::make_unique<State>()) {
  state_->fd = options_.fd;
  auto view = std::make_unique<View>();
  view->fs = std::move(options_.fs);
  view->generation = options_.generation;
  // What a server that died was asked for, nobody knows: never all forgotten.
  if (options_.resume) view->lookups = INT64_MAX / 2;
  state_->latest = view->generation;
  state_->views.push_back(std::move(view));
}

Server::~Server() { Wait(); }

void Server::Start() {
  const ConnectionRecord* connection = options_.connection;
  if (options_.resume && connection != nullptr && connection->initialised != 0 &&
      connection->has_resend == 0) {
    UseClone();
  } else if (options_.resume) {
    fuse_out_header resend = {};
    resend.len = sizeof(resend);
    resend.error = kNotifyResend;
    [[maybe_unused]] const ssize_t n = ::write(options_.fd, &resend, sizeof(resend));
  }
  SpawnThread();  // the second one comes when the first has read a request
}

void Server::UseClone() {
  if (options_.device.empty()) return;
  auto clone = os::Open(options_.device, O_RDWR);
  std::uint32_t of = static_cast<std::uint32_t>(options_.fd);
  if (!clone || ::ioctl(clone->get(), kIocClone, &of) != 0) return;
  state_->clone = std::move(*clone);
  state_->fd = state_->clone.get();
}

void Server::SpawnThread() {
  const std::lock_guard lock(state_->mutex);
  if (state_->threads.size() >= options_.max_threads) return;
  try {
    state_->threads.emplace_back([this] { Loop(); });
  } catch (const std::system_error&) {
    if (state_->threads.empty()) std::abort();  // the supervisor starts another process
  }
}

void Server::Wait() {
  for (;;) {
    std::vector<std::thread> threads;
    {
      const std::lock_guard lock(state_->mutex);
      threads.swap(state_->threads);
    }
    if (threads.empty()) return;
    for (std::thread& t : threads) t.join();
  }
}

void Server::Loop() {
  std::vector<std::byte> buffer(kRequestBytes);
  for (;;) {
    const int fd = state_->fd;
    ++state_->idle;
    const ssize_t n = ::read(fd, buffer.data(), buffer.size());
    const int error = errno;
    --state_->idle;
    if (n < 0 && (error == EINTR || error == EAGAIN || error == ENOENT)) continue;
    if (n <= 0) return;  // ENODEV: unmounted
    HandleOn(fd, {buffer.data(), static_cast<std::size_t>(n)});
    if (!state_->begun.exchange(true)) {
      const bool old = options_.connection != nullptr && options_.connection->initialised != 0 &&
                       options_.connection->has_resend == 0;
      if (old && !state_->clone) UseClone();
      SpawnThread();
    }
  }
}

bool Server::Interrupt(std::uint64_t unique) {
  const std::lock_guard lock(state_->mutex);
  const auto it = state_->waiting.find(unique);
  // Not begun yet, or just answered: the kernel knows which, and asks again if need be.
  if (it == state_->waiting.end()) return false;
  if (IsBeingKilled(it->second.tid)) {
    it->second.stop.request_stop();
    return true;
  }
  it->second.interrupted = true;
  if (state_->watcher.joinable()) return true;
  state_->watcher = std::jthread([this](const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
      const std::lock_guard guard(state_->mutex);
      for (auto& [id, waiting] : state_->waiting) {
        if (waiting.interrupted && IsBeingKilled(waiting.tid)) waiting.stop.request_stop();
      }
    }
  });
  return true;
}

void Server::Replace(std::shared_ptr<vfs::FileSystem> next) {
  std::vector<std::string> names;
  const auto collect = [&](const vfs::FileSystem& fs) {
    fs.ReadDirectory(vfs::kRootNode, 0, [&](std::uint64_t, std::string_view name, vfs::Node) {
      names.emplace_back(name);
      return true;
    });
  };
  // Names that are new may be known as missing.
  collect(*next);
  {
    const std::lock_guard lock(state_->views_mutex);
    collect(*state_->views.back()->fs);
    auto view = std::make_unique<View>();
    view->fs = std::move(next);
    view->generation = state_->views.back()->generation + 1;
    state_->latest = view->generation;
    state_->views.push_back(std::move(view));
  }
  for (const std::string& name : names) NotifyEntry(options_.fd, name);
  NotifyInode(options_.fd, vfs::kRootNode, 0);  // with the listing that the kernel keeps
  state_->DropForgotten();
}

void Server::Forget(const std::span<const std::byte> body, std::uint64_t node, bool batch) {
  const auto forget = [&](std::uint64_t id, std::uint64_t lookups) {
    if (id <= vfs::kRootNode) return;
    const State::Use view(*state_, id);
    if (view.get() != nullptr) view.get()->lookups -= static_cast<std::int64_t>(lookups);
  };
  if (!batch) {
    fuse_forget_in one = {};
    if (body.size() < sizeof(one)) return;
    std::memcpy(&one, body.data(), sizeof(one));
    forget(node, one.nlookup);
  } else {
    fuse_batch_forget_in head = {};
    if (body.size() < sizeof(head)) return;
    std::memcpy(&head, body.data(), sizeof(head));
    const std::size_t count = (body.size() - sizeof(head)) / sizeof(fuse_forget_one);
    for (std::size_t i = 0; i < std::min<std::size_t>(head.count, count); ++i) {
      fuse_forget_one one = {};
      std::memcpy(&one, body.data() + sizeof(head) + i * sizeof(one), sizeof(one));
      forget(one.nodeid, one.nlookup);
    }
  }
}

void Server::Handle(std::span<const std::byte> request) { HandleOn(options_.fd, request); }

void Server::HandleOn(int fd, std::span<const std::byte> bytes) {
  Request in;
  if (bytes.size() < sizeof(in.header)) return;
  std::memcpy(&in.header, bytes.data(), sizeof(in.header));
  in.body = bytes.subspan(sizeof(in.header));
  // These have no answer.
  if (in.header.opcode == FUSE_FORGET || in.header.opcode == FUSE_BATCH_FORGET)
    return Forget(in.body, in.header.nodeid, in.header.opcode == FUSE_BATCH_FORGET);
  const std::uint64_t unique = in.header.unique;
  const State::Use use(*state_, in.header.nodeid);
  View* const view = use.get();
  if (view == nullptr) {
    Reply(fd, unique, ESTALE);
    return;
  }
  in.header.nodeid &= kNodeMask;
  vfs::FileSystem& fs = *view->fs;
  Handler handler(options_, state_->open_mutexes, *view, fd, in);
  switch (in.header.opcode) {
    case FUSE_INIT:
      return handler.Init();
    case FUSE_LOOKUP:
      return handler.Lookup();
    case FUSE_GETATTR:
      return handler.GetAttr();
    case FUSE_OPEN:
      return handler.Open();
    case FUSE_RELEASE:
      return handler.Release();
    case FUSE_READDIR:
      return handler.ReadDirectory(false);
    case FUSE_READDIRPLUS:
      return handler.ReadDirectory(true);
    case FUSE_STATFS:
      return handler.StatFs();
    case FUSE_GETXATTR:
      return handler.GetXattr();
    case FUSE_LISTXATTR:
      return handler.ListXattr();
    case FUSE_DESTROY:
      handler.Ok();
      return;
    case FUSE_INTERRUPT: {
      const auto interrupt = in.Argument<fuse_interrupt_in>();
      if (!interrupt) return handler.Fail(EINVAL);
      if (!Interrupt(interrupt->unique)) handler.Fail(EAGAIN);
      return;
      // asks again if need be
    }
    case FUSE_READ: {
      const auto read = in.Argument<fuse_read_in>();
      if (!read) return handler.Fail(EINVAL);
      const std::uint64_t length = std::min(read->size, kMaxRead);
      if (const auto data = fs.TryRead(in.header.nodeid, read->offset, length)) {
        if (Readable(data->bytes) && handler.Ok(data->bytes)) return;
        fs.Forget(in.header.nodeid, read->offset, length);
      }
      // This thread is going to wait: another must be there to listen.
      if (state_->idle == 0) SpawnThread();
      std::stop_source stop;
      {
        const std::lock_guard lock(state_->mutex);
        state_->waiting[unique] = {stop, in.header.pid, false};
      }
      int error = EIO;
      for (int attempt = 0; attempt < 3; ++attempt) {
        const auto data = fs.Read(in.header.nodeid, read->offset, length,
                                  {stop.get_token(), CallContext{}.deadline});
        error = data ? EIO : ErrnoOf(data.error().code());
        if (!data) break;
        if (Readable(data->bytes) && handler.Ok(data->bytes)) {
          error = 0;
          break;
        }
        // The store has what the cache's disk cannot give any more.
        fs.Forget(in.header.nodeid, read->offset, length);
      }
      {
        const std::lock_guard lock(state_->mutex);
        state_->waiting.erase(unique);
      }
      if (error != 0) handler.Fail(error);
      return;
    }
    case FUSE_ACCESS: {
      const auto access = in.Argument<fuse_access_in>();
      return handler.Fail(access && (access->mask & W_OK) != 0 ? EROFS : 0);
    }
    case FUSE_SETATTR:
    case FUSE_MKNOD:
    case FUSE_MKDIR:
    case FUSE_UNLINK:
    case FUSE_RMDIR:
    case FUSE_RENAME:
    case FUSE_RENAME2:
    case FUSE_LINK:
    case FUSE_SYMLINK:
    case FUSE_WRITE:
    case FUSE_CREATE:
    case FUSE_SETXATTR:
    case FUSE_REMOVEXATTR:
    case FUSE_TMPFILE:
      return handler.Fail(EROFS);
    // ENOSYS tells the kernel not to ask again: OPENDIR and FLUSH cost no round trip then, LSEEK
    // and POLL fall back to its own.
    default:
      return handler.Fail(ENOSYS);
  }
}

void DropPages(int fd, std::uint64_t node) { NotifyInode(fd, node, 0); }

void ServeErrors(int fd) {
  std::vector<std::byte> buffer(kRequestBytes);
  fuse_out_header resend = {};
  resend.len = sizeof(resend);
  resend.error = kNotifyResend;
  [[maybe_unused]] const ssize_t sent = ::write(fd, &resend, sizeof(resend));
  for (;;) {
    const ssize_t n = ::read(fd, buffer.data(), buffer.size());
    if (n < 0 && (errno == EINTR || errno == EAGAIN || errno == ENOENT)) continue;
    if (n <= 0) return;
    fuse_in_header header;
    if (static_cast<std::size_t>(n) < sizeof(header)) continue;
    std::memcpy(&header, buffer.data(), sizeof(header));
    if (header.opcode == FUSE_FORGET || header.opcode == FUSE_BATCH_FORGET ||
        header.opcode == FUSE_INTERRUPT)
      continue;
    Reply(fd, header.unique, EIO);
  }
}

}  // namespace leat::fuse
