#include "engine/local/run.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <memory>
#include <optional>
#include <random>
#include <utility>

#include "base/log.h"
#include "dataset/storage.h"
#include "engine/local/data_supervisor.h"
#include "engine/local/links.h"
#include "engine/local/pull_server.h"
#include "engine/local/stats.h"
#include "job/dataset.h"
#include "job/isolation.h"
#include "net/url.h"
#include "os/mount.h"

namespace leat::engine::local {

using namespace std::chrono_literals;

namespace {

constexpr int kOurFailure = 125;
/// Where a job finds its context, and the datasets of the shared storage.
constexpr const char* kContext = "/context";
constexpr const char* kStorage = "/storage/data";

std::string NewRunId(const std::string& name) {
  std::random_device random;
  return fmt::format("{}{}{:08x}", name, name.empty() ? "" : "-", random());
}

/// Signals that end or steer a job; those of the terminal's job control stay what they are.
sigset_t HandledSignals() {
  sigset_t set;
  ::sigfillset(&set);
  for (const int sig :
       {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP, SIGTSTP, SIGTTIN, SIGTTOU, SIGCONT})
    ::sigdelset(&set, sig);
  return set;
}

/// A new file appears whole; what is no file (a terminal, a pipe, /dev/null) is written to, never
/// replaced.
Status WriteStats(const std::string& path, const std::string& json) {
  struct stat st;
  if (::stat(path.c_str(), &st) != 0 || S_ISREG(st.st_mode))
    return os::WriteFileAtomic(path, json, 0644);
  LEAT_ASSIGN_OR_RETURN(const os::UniqueFd fd, os::Open(path, O_WRONLY));
  if (::write(fd.get(), json.data(), json.size()) < 0)
    return FailErrno(errno, "writing to " + path);
  return {};
}

/// One run, from the sources to the exit status.
class Supervisor {
 public:
  explicit Supervisor(RunOptions options) : options_(std::move(options)) {}

  int Run() {
    for (int sig = 1; sig < NSIG; ++sig) {
      struct sigaction action;
      if (::sigaction(sig, nullptr, &action) == 0 && action.sa_handler == SIG_IGN)
        command_.ignored_signals.push_back(sig);
    }
    ::signal(SIGCHLD, SIG_DFL);  // ignored, its children would end unseen
    const sigset_t handled = HandledSignals();
    ::sigprocmask(SIG_BLOCK, &handled, nullptr);
    signals_.Reset(::signalfd(-1, &handled, SFD_CLOEXEC | SFD_NONBLOCK));
    ::prctl(PR_SET_CHILD_SUBREAPER, 1);

    if (const Status ready = Prepare(); !ready) return Refuse(ready.error());
    if (options_.dry_run) {
      const std::string plan = options_.json ? PlanJson(attachments_) : PlanTable(attachments_);
      [[maybe_unused]] const std::size_t n = std::fwrite(plan.data(), 1, plan.size(), stdout);
      return std::fflush(stdout) == 0 ? 0 : kOurFailure;
    }
    began_ = std::chrono::steady_clock::now();
    if (const Status started = StartJob(); !started) return Refuse(started.error());
    const int status = Watch();
    End(status);
    return status;
  }

 private:
  int Refuse(const Error& error) {
    Progress("");
    data_.reset();
    RemoveMade();
    folder_.reset();
    pulls_.reset();
    for (job::Attachment& attachment : attachments_) {
      if (attachment.spec.volume == job::Volume::kDynamic) attachment.kept.Reset();
    }
    if (!options_.home.dir.empty()) job::CleanVolumes(options_.home.volumes_dir());
    if (stop_signal_ != 0) return 128 + stop_signal_;
    Say(error.message());
    return kOurFailure;
  }

  // ------------------------------------------------------------------ before the job

  /// What is attached beside the mounts: binds, the context, the shared storage.
  Status AddMounts() {
    LEAT_RETURN_IF_ERROR(job::CheckTargets(options_.mounts));
    if (!options_.context.empty()) {
      if (options_.dry_run) {
        options_.workdir = options_.workdir.empty() ? kContext : options_.workdir;
      } else {
        LEAT_ASSIGN_OR_RETURN(folder_, RunFolder::Make(options_.home.mounts_dir(), run_id_));
        const std::string copy = folder_->path() + "/context";
        LEAT_RETURN_IF_ERROR(job::CopyContext(options_.context, copy, options_.context_limit));
        AddFolder(copy, kContext, true);
        if (options_.workdir.empty()) options_.workdir = kContext;
      }
    }
    for (const job::BindMount& bind : options_.binds) {
      LEAT_RETURN_IF_ERROR(job::CheckBind(bind));
      if (Status there = job::CheckHostPath(bind.host_path); !there)
        return Fail(std::move(there), "bind mount");
      std::string target = bind.container_path;
      if (!target.starts_with('/')) {
        char cwd[PATH_MAX];
        const std::string here = !options_.workdir.empty()               ? options_.workdir
                                 : ::getcwd(cwd, sizeof(cwd)) != nullptr ? cwd
                                                                         : "/";
        target = here + "/" + target;
      }
      LEAT_ASSIGN_OR_RETURN(job::MountSpec spec,
                            job::FolderMount(bind.host_path, target, !bind.read_only));
      spec.follows_host = bind.propagation != job::Propagation::kPrivate;
      options_.mounts.push_back(std::move(spec));
    }
    LEAT_RETURN_IF_ERROR(job::CheckTargets(options_.mounts));
    const bool taken = std::ranges::any_of(options_.mounts, [](const job::MountSpec& mount) {
      return mount.target == "/storage" || mount.target == kStorage ||
             mount.target.starts_with(std::string(kStorage) + "/");
    });
    // What every run sees of the datasets that were downloaded.
    const dataset::Storage storage(options_.home.storage_dir);
    bool shared = std::ranges::any_of(options_.mounts, [](const job::MountSpec& mount) {
      return mount.volume == job::Volume::kShared;
    });
    if (options_.dry_run || taken || abilities_.namespaces == job::Abilities::Namespaces::kNone) {
      shared = false;
    } else if (shared) {
      LEAT_RETURN_IF_ERROR(job::MakeHome(options_.home));
      LEAT_RETURN_IF_ERROR(os::MakeDirs(storage.data_dir(), 0777));
    } else {
      shared = os::Exists(storage.data_dir());
    }
    if (shared) AddFolder(storage.data_dir(), kStorage, options_.storage_writable);
    if (shared && options_.storage_writable) {
      LEAT_ASSIGN_OR_RETURN(stored_, storage.List());
    }
    return {};
  }

  void AddFolder(const std::string& folder, const char* target, bool writable) {
    job::MountSpec spec;
    spec.source.text = spec.source.path = folder;
    spec.target = target;
    spec.writable = writable;
    spec.internal = true;
    options_.mounts.push_back(std::move(spec));
  }

  Status Prepare() {
    uid_ = ::geteuid();
    gid_ = ::getegid();
    run_id_ = NewRunId(options_.name);
    fuse_device_ = job::FuseDevice();
    abilities_ = job::FindAbilities(fuse_device_);
    if (!options_.home.dir.empty()) job::CleanVolumes(options_.home.volumes_dir());
    LEAT_RETURN_IF_ERROR(AddMounts());
    LEAT_ASSIGN_OR_RETURN(
        boards_,
        os::Mapping::Shared(std::max<std::size_t>(1, options_.mounts.size()) * sizeof(job::Board)));
    bool remote = false;
    for (std::size_t i = 0; i < options_.mounts.size(); ++i) {
      job::Attachment attachment;
      attachment.spec = options_.mounts[i];
      attachment.board = reinterpret_cast<job::Board*>(boards_.data()) + i;
      for (const job::MountSpec& other : options_.mounts) {
        if (other.target.starts_with(attachment.spec.target + "/")) {
          attachment.nested.push_back(other.target.substr(attachment.spec.target.size() + 1));
        }
      }
      if (attachment.spec.is_bind()) {
        LEAT_ASSIGN_OR_RETURN(attachment.result, job::AttachLocal(attachment.spec));
      } else {
        remote = true;
      }
      attachments_.push_back(std::move(attachment));
    }
    if (!remote && options_.lock_file.empty()) return {};
    if (!options_.home.cache_note.empty()) Note(options_.home.cache_note);
    job::DataOptions data;
    data.home = options_.home;
    data.strict = options_.strict;
    data.plan_only = options_.dry_run;
    if (!options_.dry_run) data.lock_file = options_.lock_file;
    data.passthrough = abilities_.passthrough;
    data.fuse = abilities_.no_fuse.empty();
    data.no_fuse_reason = abilities_.no_fuse;
    data.uid = uid_;
    data.gid = gid_;
    data.supervisor = ::getpid();
    data.fuse_device = fuse_device_;
    data.use_resend = std::getenv("LEAT_NO_RESEND") == nullptr;
    data_ = std::make_unique<DataSupervisor>(attachments_, std::move(data), [this] {
      builder_.Close();
      signals_.Reset();
    });
    return data_->Attach(signals_.get(), [this] {
      ReadSignals();
      return stop_signal_ != 0;
    });
  }

  bool WantsOwnPids() const {
    if (options_.pid == PidMode::kOwn) return true;
    if (options_.pid == PidMode::kHost) return false;
    // Ranks beside each other share memory and need to see each other's processes (CUDA IPC, CMA).
    return std::ranges::none_of(
        std::array{"SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK"},
        [](const char* variable) { return std::getenv(variable) != nullptr; });
  }

  Status StartJob() {
    using job::Abilities;
    if (options_.pid == PidMode::kOwn && !abilities_.pid_namespace) {
      return Fail(Errc::kUnsupported, "--pid=own cannot be had: " + abilities_.no_pid_namespace);
    }
    isolation_.abilities = abilities_;
    isolation_.pid_namespace = WantsOwnPids() && abilities_.pid_namespace;
    for (const std::string& dir : {options_.home.dir, options_.home.cache_dir}) {
      // Where a link leads to is what an attached folder would show.
      char resolved[PATH_MAX];
      if (::realpath(dir.c_str(), resolved) != nullptr) isolation_.hidden.emplace_back(resolved);
    }
    isolation_.fuse_device = fuse_device_;
    isolation_.uid = uid_;
    isolation_.gid = gid_;
    command_.words = options_.command;
    command_.workdir = options_.workdir;
    char cwd[PATH_MAX];
    command_.cwd = ::getcwd(cwd, sizeof(cwd)) != nullptr ? cwd : "/";
    // (Without it a job downloads by itself.)
    PullServer::Folders folders;
    for (const job::Attachment& attachment : attachments_) {
      if (attachment.spec.is_bind() && attachment.result.how == job::AttachResult::How::kBind)
        folders.emplace_back(attachment.spec.target, attachment.result.path);
    }
    pulls_ = PullServer::Open(run_id_, options_.home, std::move(folders), [this] {
      builder_.Close();
      signals_.Reset();
      if (data_) ::close(data_->fd());
    });
    MakeEnvironment();

    const bool none = abilities_.namespaces == Abilities::Namespaces::kNone;
    std::vector<std::string> mounted_dirs(attachments_.size());
    const bool by_helper = none || !abilities_.fuse_direct;
    for (std::size_t i = 0; i < attachments_.size(); ++i) {
      const auto how = attachments_[i].result.how;
      const bool fuse =
          how == job::AttachResult::How::kFuse || how == job::AttachResult::How::kFuseOpens;
      if (!none && (!fuse || !by_helper)) continue;
      if (folder_ == nullptr) {
        LEAT_ASSIGN_OR_RETURN(folder_, RunFolder::Make(options_.home.mounts_dir(), run_id_));
      }
      if (fuse) {
        LEAT_ASSIGN_OR_RETURN(os::UniqueFd device, folder_->MountFuse(i, false));
        mounted_dirs[i] = fmt::format("{}/{}", folder_->path(), i);
        LEAT_RETURN_IF_ERROR(data_->Serve(i, std::move(device)));
      }
      if (none) {
        if (how == job::AttachResult::How::kMount) {
          return Fail(Errc::kUnsupported,
                      fmt::format("{}: a volume of its own needs a namespace to be seen in; "
                                  "size=advisory does without",
                                  attachments_[i].spec.target));
        }
        if (!attachments_[i].spec.writable && attachments_[i].spec.is_bind()) {
          Note(
              fmt::format("{} can be written through {}: without namespaces a folder of this "
                          "machine cannot be made read-only",
                          attachments_[i].spec.source.ForMessages(), attachments_[i].spec.target));
        }
        LEAT_RETURN_IF_ERROR(folder_->Link(i, attachments_[i]));
      }
    }

    LEAT_ASSIGN_OR_RETURN(auto ends, job::Channel::MakePair());
    const pid_t pid = ::fork();
    if (pid < 0) return FailErrno(errno, "starting the job");
    if (pid == 0) {
      signals_.Reset();
      ends.first.Close();
      if (pulls_) ::close(pulls_->fd());
      if (data_) ::close(data_->fd());
      // Signals stay blocked until there is a job to have them.
      job::RunBuilder(attachments_, mounted_dirs, isolation_, command_, std::move(ends.second));
    }
    builder_ = std::move(ends.first);
    return {};
  }

  void MakeEnvironment() {
    std::vector<std::string> variables;
    for (char** e = environ; *e != nullptr; ++e) variables.emplace_back(*e);
    const auto set = [&](const std::string& name, const std::string& value) {
      std::erase_if(variables, [&](const std::string& v) { return v.starts_with(name + "="); });
      variables.push_back(name + "=" + value);
    };
    const auto first_of = [](std::initializer_list<const char*> names, const char* otherwise) {
      for (const char* name : names) {
        if (const char* value = std::getenv(name)) return std::string(value);
      }
      return std::string(otherwise);
    };
    set("LEAT_RUN_ID", run_id_);
    set("LEAT_RANK", first_of({"SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "RANK"}, "0"));
    set("LEAT_WORLD_SIZE",
        first_of({"SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "WORLD_SIZE"}, "1"));
    set("LEAT_LOCAL_RANK",
        first_of({"SLURM_LOCALID", "OMPI_COMM_WORLD_LOCAL_RANK", "LOCAL_RANK"}, "0"));
    set("LEAT_NODE_RANK",
        first_of({"SLURM_NODEID", "OMPI_COMM_WORLD_NODE_RANK", "NODE_RANK"}, "0"));
    set("LEAT_MOUNTS", MountsJson(attachments_));
    set("LEAT_DATA_CONFIG", options_.data_config);
    if (pulls_) set("LEAT_SOCK", pulls_->name());
    for (const std::string& variable : options_.env) {
      const std::size_t equals = variable.find('=');
      set(variable.substr(0, equals), variable.substr(equals + 1));
    }
    command_.environment = std::move(variables);
  }

  // ------------------------------------------------------------------ while it runs

  int Watch() {
    for (;;) {
      pollfd polled[4] = {{signals_.get(), POLLIN, 0},
                          {builder_.fd(), POLLIN, 0},
                          {data_ && data_->running() ? data_->fd() : -1, POLLIN, 0},
                          {pulls_ ? pulls_->fd() : -1, POLLIN, 0}};
      if (::poll(polled, 4, data_ ? data_->retry_ms() : -1) < 0 && errno != EINTR)
        return kOurFailure;
      if (polled[1].revents != 0) {
        if (const auto status = OnBuilder()) return *status;
      }
      if (polled[0].revents != 0) ReadSignals();
      if (polled[2].revents != 0) data_->OnChannel();
      if (polled[3].revents != 0) pulls_->OnConnection();
      if (data_) data_->Retry();
    }
  }

  /// What the builder, and then the init, says; the exit status once there is one.
  std::optional<int> OnBuilder() {
    auto message = builder_.Receive();
    if (!message) {
      // Killed from outside, and with it the job.
      job_ran_ = true;
      Say("the job's init was killed");
      return 128 + SIGKILL;
    }
    switch (message->kind) {
      case job::MessageKind::kDevice:
        if (const Status served =
                data_->Serve(static_cast<std::size_t>(message->number), std::move(message->fd));
            !served) {
          Say(served.error().message());
        }
        return std::nullopt;
      case job::MessageKind::kMade:
        made_.push_back(message->text);
        return std::nullopt;
      case job::MessageKind::kUses:
        used_.push_back(std::move(message->fd));
        return std::nullopt;
      case job::MessageKind::kRunning:
        running_ = true;
        return std::nullopt;
      case job::MessageKind::kStarted:
        init_ = static_cast<pid_t>(message->number);
        while (!pending_.empty()) {
          Forward(pending_.front());
          pending_.erase(pending_.begin());
        }
        return std::nullopt;
      case job::MessageKind::kExecError: {
        const int error = static_cast<int>(message->number);
        if (message->text.starts_with('\n')) {
          Say(fmt::format("{}: {}", message->text.substr(1), std::strerror(error)));
          return kOurFailure;
        }
        const bool missing = error == ENOENT || error == ENOTDIR;
        // A source that was meant for -m may stand where the command is expected.
        const bool url = message->text.find(":/") != std::string::npos;
        Say(fmt::format("{}: {}", url ? net::Redacted(message->text) : message->text,
                        missing ? "command not found" : std::strerror(error)));
        return missing ? 127 : 126;
      }
      case job::MessageKind::kExited: {
        job_ran_ = true;
        const int status = static_cast<int>(message->number);
        return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
      }
      case job::MessageKind::kFailed:
        Say(message->text);
        return kOurFailure;
      default:
        return std::nullopt;
    }
  }

  void ReadSignals() {
    signalfd_siginfo info;
    while (::read(signals_.get(), &info, sizeof(info)) == sizeof(info)) {
      const int sig = static_cast<int>(info.ssi_signo);
      if (sig == SIGCHLD || sig == SIGPIPE) {
        Reap();
        continue;
      }
      if (began_ == std::chrono::steady_clock::time_point{}) {  // there is no job yet
        const bool stops = sig == SIGINT || sig == SIGTERM || sig == SIGHUP || sig == SIGQUIT;
        if (stops && !WasIgnored(sig)) stop_signal_ = sig;
        continue;
      }
      // The terminal's own signals go to the whole foreground group: the job has had them, once it
      // runs. A terminal that goes away is told to the session's leader alone.
      const bool for_all =
          info.ssi_code == SI_KERNEL && running_ && !(sig == SIGHUP && ::getsid(0) == ::getpid());
      if (!for_all) Forward(sig);
    }
  }

  bool WasIgnored(int sig) const {
    return std::ranges::find(command_.ignored_signals, sig) != command_.ignored_signals.end();
  }

  void Forward(int sig) {
    if (init_ <= 0) {
      pending_.push_back(sig);
      return;
    }
    if (sig == SIGTERM) {
      const auto now = std::chrono::steady_clock::now();
      if (first_term_ == std::chrono::steady_clock::time_point{}) {
        first_term_ = now;
      } else if (now - first_term_ > 10s) {
        Say("asked a second time to end: the job is killed");
        ::kill(init_, SIGKILL);
        (void)builder_.Send(job::MessageKind::kSignal, SIGKILL);
        return;
      }
    }
    (void)builder_.Send(job::MessageKind::kSignal, sig);
  }

  void Reap() {
    // An init that is reaped before its start is told would be waited for in vain.
    if (init_ == 0) return;
    // The data process is waited for where its channel ends; all others are only to be reaped.
    for (;;) {
      siginfo_t info = {};
      if (::waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == 0) return;
      if (data_ && info.si_pid == data_->pid()) return;
      if (info.si_pid == init_) init_ = -1;  // the number may belong to somebody else from now on
      ::waitpid(info.si_pid, nullptr, WNOHANG);
    }
  }

  // ------------------------------------------------------------------ afterwards

  void RemoveMade() {
    // Other runs may use the same folders: without a lock on what it lies on, a mount would go with
    // its mount point.
    used_.clear();
    for (auto it = made_.rbegin(); it != made_.rend(); ++it) {
      const os::UniqueFd folder(::open(it->c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
      if (folder && os::Flock(folder.get(), true, false)) ::rmdir(it->c_str());
    }
    made_.clear();
  }

  /// Where the job has removed a dataset's name, what lay behind it goes, too.
  void CleanStorage() {
    dataset::Storage storage(options_.home.storage_dir);
    for (const dataset::Stored& before : stored_) {
      if (!storage.Lost(before)) continue;
      if (const Status removed = storage.Remove(before); !removed)
        Note(fmt::format("what {} was stays until leat dataset clean: {}", before.folder,
                         removed.error().message()));
    }
  }

  void End(int status) {
    // The namespace's last process takes the mounts with it.
    builder_.Close();
    if (init_ > 0) ::kill(init_, SIGKILL);
    // A process that waits for data ends when it is answered, if need be by another data process.
    while (init_ > 0) {
      Reap();
      if (init_ <= 0) break;
      pollfd polled[2] = {{signals_.get(), POLLIN, 0},
                          {data_ && data_->running() ? data_->fd() : -1, POLLIN, 0}};
      ::poll(polled, 2, 100);
      if (polled[0].revents != 0) ReadSignals();
      if (polled[1].revents != 0) data_->OnChannel();
      if (data_) data_->Retry();
    }
    // An init that was killed has left its orphans to this process.
    // What downloads for it is for nobody any more.
    if (!isolation_.pid_namespace || pulls_) job::EndDescendants(data_ ? data_->pid() : -1);
    if (data_) data_->Finish();
    CleanStorage();
    RemoveMade();
    folder_.reset();
    pulls_.reset();
    for (job::Attachment& attachment : attachments_) {
      if (attachment.spec.volume == job::Volume::kDynamic) attachment.kept.Reset();
    }
    if (!options_.home.dir.empty()) job::CleanVolumes(options_.home.volumes_dir());
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - began_).count();
    if (!job_ran_) return;
    if (const std::string summary = Summary(attachments_); !summary.empty()) Note(summary);
    if (!options_.stats || options_.stats->empty()) return;
    if (*options_.stats == "text") {
      const std::string table = StatsTable(attachments_);
      [[maybe_unused]] const ssize_t n = ::write(STDERR_FILENO, table.data(), table.size());
    } else {
      const std::string json = StatsJson(attachments_, status, seconds);
      if (*options_.stats == "json") {
        [[maybe_unused]] const ssize_t n = ::write(STDERR_FILENO, json.data(), json.size());
      } else if (const Status written = WriteStats(*options_.stats, json); !written) {
        Say(written.error().message());
      }
    }
  }

  RunOptions options_;
  job::Abilities abilities_;
  job::Isolation isolation_;
  job::Command command_;
  uid_t uid_ = 0;
  gid_t gid_ = 0;
  std::string run_id_, fuse_device_;
  os::Mapping boards_;
  std::vector<job::Attachment> attachments_;
  std::vector<dataset::Stored> stored_;  // before the job, where it may remove some
  std::unique_ptr<RunFolder> folder_;
  std::unique_ptr<DataSupervisor> data_;
  std::unique_ptr<PullServer> pulls_;
  job::Channel builder_;  // the init's, later
  os::UniqueFd signals_;
  pid_t init_ = 0;                  // not told yet; -1: gone
  std::vector<int> pending_;        // signals that came before there was a job
  std::vector<std::string> made_;   // mount points on the host, to be removed
  std::vector<os::UniqueFd> used_;  // those that mounts lie on, locked
  bool running_ = false;            // the command has been executed
  int stop_signal_ = 0;
  bool job_ran_ = false;
  std::chrono::steady_clock::time_point began_ = {}, first_term_ = {};
};

}  // namespace

int Run(RunOptions options) { return Supervisor(std::move(options)).Run(); }

}  // namespace leat::engine::local
