#include "job/data_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <limits.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <stop_token>
#include <thread>
#include <utility>

#include "base/bytes.h"
#include "base/log.h"
#include "base/memory_budget.h"
#include "base/thread_pool.h"
#include "dataset/fill.h"
#include "job/dataset.h"
#include "job/lock.h"
#include "job/remote.h"
#include "transfer/tree.h"

namespace leat::job {
namespace {

constexpr std::uint64_t kLargeAverage = kMiB;

/// Everything one attachment needs while it is served. Members die in reverse order.
struct Served {
  std::unique_ptr<Remote> remote;
  std::shared_ptr<const snapshot::Content> content;  // shared with the file system's readers
  std::unique_ptr<cache::Cache> cache;
  std::shared_ptr<vfs::FileSystem> fs;
  std::atomic<int> device{-1};  // of the mount, once it is served
  std::unique_ptr<fuse::Server> server;
  bool expand = false;  // the source is an archive, and its contents are meant
  bool taken_is_folder = false;
  std::optional<digest::Expected> expected;      // of a single object
  std::optional<snapshot::LockedSource> locked;  // for the lock file
};

void BecomeDataProcess(pid_t supervisor) {
  // Before there is a channel to watch, a long listing or copy must not outlive its supervisor
  // either.
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != supervisor) ::_exit(1);
  // Each open large file takes two descriptors; the limit that the job sees stays what it was.
  rlimit files = {};
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &files);
  }
  KeepHeapSmall();
  ::setsid();  // what is typed at the terminal is for the job
  ::prctl(PR_SET_NAME, "leat-data");
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  // The job may take its time to end after a TERM to all, and reads meanwhile. The end of the
  // channel ends this process.
  for (const int sig :
       {SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGPIPE, SIGUSR1, SIGUSR2, SIGTSTP, SIGTTIN, SIGTTOU}) {
    ::signal(sig, SIG_IGN);
  }
  const int null = ::open("/dev/null", O_RDWR);
  ::dup2(null, STDIN_FILENO);
  ::dup2(null, STDOUT_FILENO);
  ::close(null);
}

class DataProcess {
 public:
  DataProcess(std::vector<Attachment>& attachments, const DataOptions& options)
      : attachments_(attachments),
        options_(options),
        budget_(options.home.memory_bytes),
        memory_(cache::MakeMemoryFiles(budget_)),
        served_(attachments.size()) {}

  void Run(Channel& channel) {
    tools_ = MakeToolbox(config::ProcessEnvironment(), options_.home);
    std::mutex mutex;  // guards channel and the notes on stderr
    std::optional<Error> failure;
    // A process that died had attached everything: its snapshots are the ones that the kernel
    // knows.
    const bool resuming = std::ranges::any_of(
        attachments_, [](const Attachment& a) { return static_cast<bool>(a.kept); });
    ParallelFor(attachments_.size(), 8, [&](std::size_t i) {
      Attachment& attachment = attachments_[i];
      if (attachment.spec.is_bind()) return true;
      const Status attached = resuming ? Resume(i) : Attach(i);
      const std::lock_guard lock(mutex);
      if (!attached) {
        if (!failure) failure = attached.error();
        // The others' listings and copies would be for nothing.
        stop_.request_stop();
        return false;
      }
      if (!resuming) {
        (void)channel.Send(MessageKind::kReady, static_cast<std::int64_t>(i),
                           attachment.result.Encode(), attachment.kept.get());
      }
      return true;
    });
    Progress("");
    if (!failure && !resuming && !options_.lock_file.empty()) {
      if (const Status locked = WriteLockFile(); !locked) failure = locked.error();
    }
    if (failure) {
      (void)channel.Send(MessageKind::kFailed, 0, failure->message());
      return;
    }
    for (Served& served : served_) {
      if (served.remote)
        served.remote->SetRetryTotal(std::chrono::seconds(options_.home.retry_seconds), 1000);
    }
    for (std::size_t i = 0; i < attachments_.size(); ++i) {
      if (attachments_[i].device) Serve(i, true);
    }
    if (!resuming) (void)channel.Send(MessageKind::kAttached);
    std::jthread refresher;
    if (options_.refresh)
      refresher = std::jthread([&](const std::stop_token& stop) { RefreshLoop(channel, stop); });
    while (auto message = channel.Receive()) {
      if (message->kind == MessageKind::kFinish) break;
      if (message->kind == MessageKind::kServe) {
        const auto i = static_cast<std::size_t>(message->number);
        attachments_[i].device = std::move(message->fd);
        Serve(i, false);
      }
      if (message->kind == MessageKind::kRefresh) {
        const std::lock_guard lock(refresh_mutex_);
        refresh_now_ = true;
        refresh_wake_.notify_all();
      }
    }
    if (refresher.joinable()) {
      refresher.request_stop();
      refresher.join();
    }
    // What is under way may be dropped at any moment; what is complete is worth a little time.
    const CallContext brief = CallContext{}.Within(std::chrono::seconds(4));
    for (Served& served : served_) {
      if (served.fs) served.fs->FinishFiles(brief);
      if (served.cache) served.cache->Shutdown();
    }
  }

 private:
  /// What every attachment needs, new or not.
  Status Open(std::size_t i, SnapshotFile taken) {
    Attachment& attachment = attachments_[i];
    Served& served = served_[i];
    Board& board = *attachment.board;
    served.content =
        std::make_shared<const snapshot::Content>(taken.index, served.remote->shared_store());
    attachment.kept = std::move(taken.file);
    board.files = taken.index->file_count();
    board.bytes = taken.index->total_bytes();
    cache::CacheOptions cache;
    cache.dir = options_.home.cache_dir;
    cache.limit_bytes = options_.home.cache_bytes;
    cache.budget = &budget_;
    cache.memory = memory_;
    cache.counts = &board.cache;
    served.cache = cache::Cache::Open(cache);
    return {};
  }

  std::shared_ptr<vfs::FileSystem> MakeFileSystem(std::size_t i) {
    const Attachment& attachment = attachments_[i];
    Served& served = served_[i];
    Board& board = *attachment.board;
    vfs::FileSystemOptions fs;
    fs.content = served.content;
    fs.cache = served.cache.get();
    fs.counts = &board.reads;
    fs.extra_directories = attachment.nested;
    fs.file_systems = attachments_.size();
    fs.on_error = [target = attachment.spec.target](std::string_view path, const Error& error) {
      Say(fmt::format("{}/{}: {}", target, Printable(path), error.message()));
    };
    fs.on_wrong = [&device = served.device, generation = attachment.generation](vfs::Node node) {
      if (device >= 0) fuse::DropPages(device, fuse::KernelNode(generation, node));
    };
    auto made = std::make_shared<vfs::FileSystem>(std::move(fs));
    made->SetRootAttribute("user.leat.requests",
                           [&board] { return std::to_string(board.requests.requests()); });
    made->SetRootAttribute("user.leat.pin",
                           [content = served.content] { return content->index->pin(); });
    return made;
  }

  void RefreshLoop(Channel& channel, const std::stop_token& stop) {
    std::stop_callback wake(stop, [&] {
      const std::lock_guard lock(refresh_mutex_);
      refresh_wake_.notify_all();
    });
    std::string told;
    while (!stop.stop_requested()) {
      {
        std::unique_lock lock(refresh_mutex_);
        const auto woken = [&] { return refresh_now_ || stop.stop_requested(); };
        if (options_.refresh->count() > 0) {
          refresh_wake_.wait_for(lock, *options_.refresh, woken);
        } else {
          refresh_wake_.wait(lock, woken);
        }
        refresh_now_ = false;
      }
      if (stop.stop_requested() || !served_[0].server) continue;
      const Status looked = Refresh(channel, {stop});
      // A store that is away for an hour is said once.
      const std::string problem = looked ? "" : looked.error().message();
      if (!problem.empty() && problem != told && !stop.stop_requested())
        Say("looking for changes: " + problem + "; what is mounted stays as it is");
      told = problem;
    }
  }

  /// What is mounted follows its source.
  Status Refresh(Channel& channel, const CallContext& ctx) {
    Attachment& attachment = attachments_[0];
    Served& served = served_[0];
    LEAT_ASSIGN_OR_RETURN(SnapshotFile taken, served.remote->TakeSnapshot(ctx, {}));
    if (taken.index->pin() == served.content->index->pin() &&
        taken.index->store_identity() == served.content->index->store_identity()) {
      return {};
    }
    LEAT_RETURN_IF_ERROR(CheckLeftOut(attachment.spec.source.ForMessages(), taken.left_out));
    Note(fmt::format("{} has changed: {} files, {}", attachment.spec.source.ForMessages(),
                     FormatCount(taken.index->file_count()),
                     FormatBytes(taken.index->total_bytes())));
    // A process that follows this one must know what the kernel has seen.
    if (!channel.Send(MessageKind::kRefreshed, static_cast<std::int64_t>(attachment.generation + 1),
                      "", taken.file.get()))
      return {};
    ++attachment.generation;
    served.content =
        std::make_shared<const snapshot::Content>(taken.index, served.remote->shared_store());
    attachment.kept = std::move(taken.file);
    attachment.board->files = taken.index->file_count();
    attachment.board->bytes = taken.index->total_bytes();
    served.fs = MakeFileSystem(0);
    served.server->Replace(served.fs);
    return {};
  }

  Status Resume(std::size_t i) {
    Attachment& attachment = attachments_[i];
    Served& served = served_[i];
    LEAT_ASSIGN_OR_RETURN(served.remote,
                          Remote::Open(attachment.spec, tools_, &attachment.board->requests));
    // A tree needs nobody; the supervisor holds its lease.
    if (attachment.spec.mode == Mode::kCopy || attachment.spec.placed()) return {};
    LEAT_ASSIGN_OR_RETURN(SnapshotFile taken,
                          served.remote->ReopenSnapshot(std::move(attachment.kept)));
    LEAT_RETURN_IF_ERROR(Open(i, std::move(taken)));
    served_[i].fs = MakeFileSystem(i);
    return {};
  }

  Status CheckLeftOut(const std::string& url, const snapshot::LeftOut& out) {
    if (out.count == 0) return {};
    const std::string what = fmt::format(
        "{}: {} {} no file system can hold, first \"{}\" ({})", url, FormatCount(out.count),
        out.count == 1 ? "key that" : "keys that", Printable(out.first_key), out.first_why);
    if (options_.strict) return Fail(Errc::kInvalid, what);
    Note(what + ": left out");
    return {};
  }

  Status Attach(std::size_t i) {
    Attachment& attachment = attachments_[i];
    Served& served = served_[i];
    const MountSpec& spec = attachment.spec;
    Board& board = *attachment.board;
    const std::string url = spec.source.ForMessages();
    if (spec.mode == Mode::kStream && !options_.fuse) {
      return Fail(Errc::kUnsupported,
                  fmt::format("{}: mode=stream needs FUSE, and {}; mode=copy works without", url,
                              options_.no_fuse_reason));
    }
    LEAT_ASSIGN_OR_RETURN(served.remote, Remote::Open(spec, tools_, &board.requests));
    const CallContext attach = {stop_.get_token()};
    if (!options_.lock_file.empty()) served.remote->WantVersions();
    LEAT_ASSIGN_OR_RETURN(const bool found, FindPlaced(i));
    if (found) return {};
    const auto listing = [&](std::uint64_t objects) {
      Progress(fmt::format("listing {}: {} objects", url, FormatCount(objects)));
    };
    LEAT_ASSIGN_OR_RETURN(SnapshotFile taken, served.remote->TakeSnapshot(attach, listing));
    for (const std::string& note : taken.notes) Note(note);
    LEAT_RETURN_IF_ERROR(CheckLeftOut(url, taken.left_out));
    if (!options_.lock_file.empty()) {
      LEAT_ASSIGN_OR_RETURN(served.locked, LockOf(spec, *served.remote, taken, options_.lock_file));
    }
    LEAT_ASSIGN_OR_RETURN(served.expand, served.remote->Expands(taken));
    if (served.expand && !spec.placed() && spec.mode == Mode::kStream) {
      LEAT_ASSIGN_OR_RETURN(taken,
                            served.remote->TakeMembers(taken, attach, [&](std::uint64_t bytes) {
                              Progress(fmt::format("indexing {}: {}", url, FormatBytes(bytes)));
                            }));
    }
    served.taken_is_folder = taken.is_folder;
    served.expected = taken.expected;
    LEAT_RETURN_IF_ERROR(Open(i, std::move(taken)));
    const std::string why = options_.home.cache_dir.empty()
                                ? "neither HOME nor LEAT_CACHE_DIR is set"
                                : served.cache->problem();
    if (!why.empty()) {
      std::call_once(no_cache_told_, [&] { Say("reading without a cache: " + why); });
    }
    const auto& content = served.content;
    const snapshot::Snapshot& index = *content->index;
    if (spec.placed()) return AttachPlaced(i, attach);
    if (spec.mode == Mode::kCopy) return AttachCopy(i, content, attach);
    served_[i].fs = MakeFileSystem(i);

    std::uint64_t large_bytes = 0;
    std::uint32_t first = UINT32_MAX;
    for (std::uint32_t f = 0; f < index.file_count(); ++f) {
      const std::uint64_t size = index.file(f).size;
      if (size >= cache::kLargeFile) large_bytes += size;
      if (size > 0 && first == UINT32_MAX) first = f;
    }
    const bool opens = options_.passthrough && !options_.refresh && index.file_count() > 0 &&
                       index.file_count() <= kOpenRecords &&
                       large_bytes * 2 >= index.total_bytes() &&
                       index.total_bytes() / index.file_count() >= kLargeAverage;
    attachment.result.how = opens ? AttachResult::How::kFuseOpens : AttachResult::How::kFuse;
    if (options_.plan_only) {
      Estimate(*content, served, board);
      return {};
    }
    if (spec.locked) {
      Estimate(*content, served, board);
      if (board.cached_bytes < board.bytes)
        LEAT_RETURN_IF_ERROR(served.remote->CheckLock(index, attach));
    }
    // What only a GET can show is shown before the command starts.
    if (first != UINT32_MAX) {
      const vfs::Node node = vfs::kRootNode + index.directory_count() + first;
      vfs::FileSystemOptions probe;
      probe.content = content;
      probe.cache = served.cache.get();
      probe.sibling_prefetch = false;
      probe.readahead_max = 0;
      vfs::FileSystem quiet(std::move(probe));
      const auto data = quiet.TryRead(node, 0, 1);
      if (!data) {
        if (const auto read = quiet.Read(node, 0, 1, attach); !read)
          return Explained(served, read.error(), attach);
      }
    }
    return {};
  }

  Status AttachCopy(std::size_t i, const std::shared_ptr<const snapshot::Content>& content,
                    const CallContext& ctx) {
    Attachment& attachment = attachments_[i];
    transfer::TreeOptions options;
    options.content = content;
    options.cache = served_[i].cache.get();
    options.fallback_dir = options_.home.dir.empty() ? "" : options_.home.dir + "/trees";
    options.source = attachment.spec.source.ForMessages();
    if (served_[i].expand) dataset::ExpandInto(options, budget_);
    if (options_.plan_only) {
      if (transfer::IsPublished(options)) {
        attachment.board->cached_bytes = content->index->total_bytes();
      } else {
        Estimate(*content, served_[i], *attachment.board);
      }
      attachment.result.how = AttachResult::How::kBind;
      return {};
    }
    auto published = transfer::PublishTree(options, ctx);
    if (!published) return Explained(served_[i], std::move(published).error(), ctx);
    transfer::Tree tree = std::move(*published);
    attachment.board->cached_bytes = tree.reused ? content->index->total_bytes() : 0;
    attachment.result.how = AttachResult::How::kBind;
    attachment.result.path = tree.path;
    attachment.kept = std::move(tree.lease);
    return {};
  }

  /// A dataset that is pinned or locked, and complete in the shared storage, needs no request.
  Result<bool> FindPlaced(std::size_t i) {
    Attachment& attachment = attachments_[i];
    const MountSpec& spec = attachment.spec;
    // (What is locked has its name by its contents: they are known without a request, too.)
    if (spec.volume != Volume::kShared || !spec.pinned() || spec.locked != nullptr ||
        !options_.lock_file.empty() || spec.etag.starts_with("mf:")) {
      return false;
    }
    dataset::Storage storage(options_.home.storage_dir);
    LEAT_ASSIGN_OR_RETURN(auto there, storage.Find(RequestFor(spec, *served_[i].remote, nullptr)));
    if (!there) return false;
    if (there->record.expanded == (spec.expand == Expand::kNever)) return false;
    Use(attachment, std::move(*there));
    return true;
  }

  static void Use(Attachment& attachment, dataset::Placed placed) {
    Board& board = *attachment.board;
    board.files = placed.record.shape.files;
    board.bytes = placed.record.shape.bytes;
    board.cached_bytes = placed.reused ? placed.record.shape.bytes : 0;
    attachment.result.how = AttachResult::How::kBind;
    attachment.result.path = placed.path;
    attachment.kept = std::move(placed.used);
  }

  Status AttachPlaced(std::size_t i, const CallContext& ctx) {
    Attachment& attachment = attachments_[i];
    Served& served = served_[i];
    const MountSpec& spec = attachment.spec;
    Resolved resolved;
    resolved.content = served.content;
    resolved.taken.index = served.content->index;
    resolved.taken.is_folder = served.taken_is_folder;
    resolved.taken.expected = served.expected;
    resolved.expand = served.expand;
    const FillTools tools = {served.cache.get(), &budget_};
    dataset::Storage storage(options_.home.storage_dir);
    if (options_.plan_only) {
      attachment.result.how = AttachResult::How::kBind;
      if (spec.volume == Volume::kDynamic && !spec.advisory_size)
        attachment.result.how = AttachResult::How::kMount;
      if (spec.volume == Volume::kShared) {
        LEAT_ASSIGN_OR_RETURN(const auto there,
                              storage.Find(RequestFor(spec, *served.remote, &resolved)));
        if (there) {
          attachment.board->cached_bytes = served.content->index->total_bytes();
          return {};
        }
      }
      Estimate(*served.content, served, *attachment.board);
      return {};
    }
    attachment.kept.Reset();
    if (spec.volume == Volume::kShared) {
      LEAT_RETURN_IF_ERROR(MakeHome(options_.home));
      auto placed = PlaceShared(spec, *served.remote, resolved, storage, tools, ctx);
      if (!placed) return Explained(served, std::move(placed).error(), ctx);
      Use(attachment, std::move(*placed));
      return {};
    }
    auto volume = PlaceDynamic(spec, resolved, options_.home.volumes_dir(), tools, ctx);
    if (!volume) return Explained(served, std::move(volume).error(), ctx);
    attachment.kept = std::move(volume->kept);
    attachment.result.path = volume->path;
    attachment.result.how =
        volume->path.empty() ? AttachResult::How::kMount : AttachResult::How::kBind;
    return {};
  }

  static Status Explained(Served& served, Error error, const CallContext& ctx) {
    return std::unexpected(served.remote->ExplainLock(std::move(error), ctx));
  }

  Status WriteLockFile() {
    snapshot::LockFile lock;
    for (std::size_t i = 0; i < attachments_.size(); ++i) {
      if (served_[i].locked) lock.sources.push_back(*served_[i].locked);
    }
    return snapshot::WriteLock(options_.lock_file, lock);
  }

  void Estimate(const snapshot::Content& content, Served& served, Board& board) {
    std::uint64_t cached = 0, requests = 0;
    for (std::uint32_t f = 0; f < content.index->file_count(); ++f) {
      const std::uint64_t size = content.index->file(f).size;
      if (size == 0) continue;
      const cache::FileKey key{cache::Identity::Of(content.IdentityOf(f)), size};
      const std::uint64_t here = size >= cache::kLargeFile      ? served.cache->PresentBytes(key)
                                 : served.cache->FindSmall(key) ? size
                                                                : 0;
      cached += here;
      if (here < size)
        requests += size >= cache::kLargeFile ? (size - here + 8 * kMiB - 1) / (8 * kMiB) : 1;
    }
    board.cached_bytes = cached;
    board.estimated_requests = requests;
  }

  void Serve(std::size_t i, bool resume) {
    Attachment& attachment = attachments_[i];
    fuse::ServerOptions server;
    server.fs = served_[i].fs;
    server.generation = attachment.generation;
    server.fd = attachment.device.get();
    server.open_mode = attachment.result.how == AttachResult::How::kFuseOpens;
    server.opens = attachment.board->opens;
    server.connection = &attachment.board->connection;
    server.resume = resume;
    server.device = options_.fuse_device;
    server.use_resend = options_.use_resend;
    server.uid = options_.uid;
    server.gid = options_.gid;
    served_[i].server = std::make_unique<fuse::Server>(server);
    served_[i].device = attachment.device.get();
    served_[i].server->Start();
  }

  std::vector<Attachment>& attachments_;
  const DataOptions& options_;
  Toolbox tools_;
  MemoryBudget budget_;
  std::shared_ptr<cache::MemoryFiles> memory_;  // shared by all attachments' caches
  std::vector<Served> served_;
  std::stop_source stop_;  // of attaching
  std::mutex refresh_mutex_;
  std::condition_variable refresh_wake_;
  bool refresh_now_ = false;  // guarded by refresh_mutex_
  std::once_flag no_cache_told_;
};

}  // namespace

std::string AttachResult::Encode() const {
  return fmt::format("{}\n{}\n{}", static_cast<int>(how), path.size(), path + name);
}

AttachResult AttachResult::Decode(const std::string& text) {
  AttachResult out;
  const std::size_t first = text.find('\n');
  const std::size_t second = text.find('\n', first + 1);
  out.how = static_cast<How>(std::atoi(text.c_str()));
  const auto size = static_cast<std::size_t>(std::atoll(text.c_str() + first + 1));
  out.path = text.substr(second + 1, size);
  out.name = text.substr(second + 1 + size);
  return out;
}

Result<AttachResult> AttachLocal(const MountSpec& spec) {
  const std::string& path = spec.source.path;
  char resolved[PATH_MAX];
  if (::realpath(path.c_str(), resolved) == nullptr) {
    return Fail(Errc::kNotFound, fmt::format("{}: {}", Printable(path),
                                             errno == ENOENT ? "there is no such file or folder"
                                                             : std::strerror(errno)));
  }
  struct stat st;
  if (::stat(resolved, &st) != 0) return FailErrno(errno, path);
  AttachResult out;
  out.path = resolved;
  if (S_ISDIR(st.st_mode)) {
    out.how = AttachResult::How::kBind;
    if (::access(resolved, R_OK | X_OK) != 0)
      return Fail(Errc::kDenied, path + ": the folder may not be read");
    if (spec.writable && ::access(resolved, W_OK) != 0)
      return Fail(Errc::kDenied, path + ": the folder may not be written, but rw was asked for");
    return out;
  }
  if (!S_ISREG(st.st_mode)) return Fail(Errc::kInvalid, path + " is neither a file nor a folder");
  if (::access(resolved, R_OK) != 0)
    return Fail(Errc::kDenied, path + ": the file may not be read");
  out.how = AttachResult::How::kBindFile;
  out.name = spec.name;
  if (out.name.empty()) {
    // The name that the user wrote, not that of what a link leads to.
    std::string written = path;
    while (written.ends_with('/')) written.pop_back();
    out.name = written.substr(written.rfind('/') + 1);
  }
  return out;
}

void RunDataProcess(std::vector<Attachment>& attachments, const DataOptions& options,
                    Channel channel) {
  BecomeDataProcess(options.supervisor);
  {
    DataProcess process(attachments, options);
    process.Run(channel);
    // Threads may still wait for a kernel that has nothing to say any more; nothing that matters is
    // lost without destructors.
    ::_exit(0);
  }
}

void RunErrorProcess(const std::vector<Attachment>& attachments, const DataOptions& options,
                     Channel channel) {
  BecomeDataProcess(options.supervisor);
  for (const Attachment& attachment : attachments) {
    if (attachment.device)
      std::thread([fd = attachment.device.get()] { fuse::ServeErrors(fd); }).detach();
  }
  while (const auto message = channel.Receive()) {
    if (message->kind == MessageKind::kFinish) break;
  }
  ::_exit(0);
}

}  // namespace leat::job
