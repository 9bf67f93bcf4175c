#include "engine/local/mount.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <functional>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string_view>
#include <utility>
#include <vector>

#include "base/log.h"
#include "engine/local/data_supervisor.h"
#include "engine/local/mount_record.h"
#include "engine/local/stats.h"
#include "job/isolation.h"
#include "net/url.h"
#include "os/mount.h"

namespace leat::engine::local {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr std::uint64_t kLongLog = 4 << 20;

/// The mount that is seen at a folder, if it is one of leat's: its number, else "".
std::string OurMount(const std::string& dir) {
  std::string id;
  for (const os::MountPoint& mount : os::MountTable()) {
    if (mount.dir == dir) id = mount.type == "fuse.leat" ? mount.id : "";
  }
  return id;
}
bool IsOurMount(const std::string& dir) { return !OurMount(dir).empty(); }

/// What whoever serves the folder answers, 0 or an errno: attributes the kernel would give by
/// itself also when nobody is there. A process of its own asks: who serves the mount must not wait
/// for it. `meanwhile` is called every few milliseconds; false ends the waiting (ETIMEDOUT).
int AskMount(const std::string& dir, const std::function<bool()>& meanwhile) {
  const pid_t pid = ::fork();
  if (pid == 0) {
    // What hangs must hang alone: whoever holds the device keeps the mount from ending.
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::close_range(3, ~0U, 0);
    char pin[256];
    ::_exit(::getxattr(dir.c_str(), "user.leat.pin", pin, sizeof(pin)) >= 0 ? 0 : errno);
  }
  int status = 0;
  while (pid > 0 && ::waitpid(pid, &status, WNOHANG) == 0) {
    if (meanwhile()) continue;
    // (whom the server has read the request of cannot be waited for, either)
    ::kill(pid, SIGKILL);
    return ETIMEDOUT;
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : EIO;
}
int AskMount(const std::string& dir) {
  const auto until = steady_clock::now() + milliseconds(2000);
  return AskMount(dir, [&] {
    ::usleep(2000);
    return steady_clock::now() < until;
  });
}

/// fusermount3 lets ordinary users open a mount to others only where root has allowed it.
Status MayAllowOther() {
  constexpr const char* kConf = "/etc/fuse.conf";
  const auto text = os::ReadFile(kConf);
  if (!text) {
    return Fail(Errc::kDenied, fmt::format("--allow-other: {} must say user_allow_other (echo "
                                           "user_allow_other | sudo tee -a {})",
                                           kConf, kConf));
  }
  std::istringstream lines(*text);
  int number = 0, commented = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    while (!line.empty() && (line.back() == ' ' || line.back() == '\r')) line.pop_back();
    if (line == "user_allow_other") return {};
    if (line.starts_with('#') && line.find_first_not_of("# ") != line.npos &&
        line.substr(line.find_first_not_of("# ")) == "user_allow_other") {
      commented = number;
    }
  }
  if (commented > 0) {
    return Fail(Errc::kDenied,
                fmt::format("--allow-other: line {} of {} is commented out; take the # away (sudo "
                            "sed -i '{}s/^# *//' {})",
                            commented, kConf, commented, kConf));
  }
  return Fail(Errc::kDenied, fmt::format("--allow-other: {} has no line user_allow_other (echo "
                                         "user_allow_other | sudo tee -a {})",
                                         kConf, kConf));
}

Status CheckOptions(const MountOptions& options, bool root) {
  const std::string source = options.spec.source.ForMessages();
  if (options.spec.source.kind == job::Source::Kind::kLocal)
    return Fail(Errc::kInvalid, source + " is on this machine already and needs no mount");
  if (options.spec.mode == job::Mode::kCopy)
    return Fail(Errc::kInvalid, source + ": mode=copy is for leat run; a mount streams");
  if (options.refresh && options.spec.pinned()) {
    return Fail(Errc::kInvalid,
                source + ": --refresh follows what changes, and a version or etag is asked for");
  }
  if (options.daemon && options.home.dir.empty())
    return Fail(Errc::kInvalid,
                "--daemon needs a place for its log: neither HOME nor LEAT_HOME is set");
  return options.allow_other && !root ? MayAllowOther() : Status{};
}

/// A folder that something can be mounted at. What a killed leat left there is taken away.
Status CheckFolder(const std::string& dir) {
  if (IsOurMount(dir)) {
    if (AskMount(dir) != ENOTCONN) {
      return Fail(Errc::kConflict,
                  fmt::format("{} is mounted already (leat unmount {})", dir, dir));
    }
    if (Unmount(dir) != 0) return Fail(Errc::kConflict, dir + " is still mounted");
    Note("took away the mount at " + dir + ", whose leat is gone");
  }
  struct stat st;
  if (::stat(dir.c_str(), &st) != 0) {
    return errno == ENOENT
               ? Fail(Errc::kNotFound,
                      fmt::format("{}: there is no such folder (mkdir -p {})", dir, dir))
               : FailErrno(errno, dir);
  }
  if (!S_ISDIR(st.st_mode)) return Fail(Errc::kInvalid, dir + " is not a folder");
  LEAT_ASSIGN_OR_RETURN(const std::vector<std::string> names, os::ListDir(dir));
  if (!names.empty()) return Fail(Errc::kConflict, dir + " is not empty");
  if (::access(dir.c_str(), W_OK) != 0) {
    return Fail(Errc::kDenied, fmt::format("{} is not yours (sudo chown \"$USER\" {})", dir, dir));
  }
  return {};
}

/// The part of a mount that its caller waits for, in a process of its own (--daemon).
class Background {
 public:
  /// In the child: -1. In the parent, when the mount answers or has failed: the exit status.
  int Start(const std::string& log) {
    auto out = os::Open(log, O_WRONLY | O_CREAT | O_APPEND);
    struct stat st;
    if (!out || ::fstat(out->get(), &st) != 0) return Refuse(out ? "" : out.error().message());
    if (static_cast<std::uint64_t>(st.st_size) > kLongLog && ::ftruncate(out->get(), 0) == 0)
      st.st_size = 0;
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return Refuse(std::strerror(errno));
    os::UniqueFd told(ends[0]);
    tell_.Reset(ends[1]);
    const pid_t parent = ::getpid(), pid = ::fork();
    if (pid < 0) return Refuse(std::strerror(errno));
    if (pid == 0) {
      // Until it answers, it is as if it were in the foreground.
      ::prctl(PR_SET_PDEATHSIG, SIGTERM);
      if (::getppid() != parent) ::_exit(1);
      ::dup2(out->get(), STDERR_FILENO);
      const int null = ::open("/dev/null", O_RDWR);
      ::dup2(null, STDIN_FILENO);
      ::dup2(null, STDOUT_FILENO);
      // Nobody waits for the end of a pipe, or for a lock, that the caller happened to have open.
      out->Release();
      told.Release();
      ::dup2(tell_.Release(), 3);
      ::close_range(4, ~0U, 0);
      ::fcntl(3, F_SETFD, FD_CLOEXEC);
      tell_.Reset(3);
      return -1;
    }
    tell_.Reset();
    return Await(told, pid, log, st.st_size);
  }
  /// In the child: it answers; from here on it is nobody's child.
  void Ready() {
    if (!tell_) return;
    ::prctl(PR_SET_PDEATHSIG, 0);
    ::setsid();
    [[maybe_unused]] const ssize_t n = ::write(tell_.get(), "r", 1);
    tell_.Reset();
  }

  /// What a data process must not hold open.
  void Close() { tell_.Reset(); }

 private:
  static int Refuse(const std::string& why) {
    Say("starting in the background: " + why);
    return 1;
  }
  /// What the child writes to its log is shown as long as it is waited for.
  static int Await(const os::UniqueFd& told, pid_t pid, const std::string& log, off_t shown) {
    const auto fd = os::Open(log, O_RDONLY);
    const auto show = [&] {
      char buffer[4096];
      for (ssize_t n; fd && (n = ::pread(fd->get(), buffer, sizeof(buffer), shown)) > 0;) {
        shown += n;
        [[maybe_unused]] const ssize_t put =
            ::write(STDERR_FILENO, buffer, static_cast<std::size_t>(n));
      }
    };
    // Ctrl-C is the child's, too; its end is waited for.
    ::signal(SIGINT, SIG_IGN);
    for (;;) {
      pollfd polled = {told.get(), POLLIN, 0};
      const int n = ::poll(&polled, 1, 100);
      show();
      if (n <= 0) continue;
      char byte;
      if (::read(told.get(), &byte, 1) == 1) return 0;
      break;
    }
    int status = 0;
    ::waitpid(pid, &status, 0);
    show();
    if (WIFEXITED(status)) return WEXITSTATUS(status) == 0 ? 1 : WEXITSTATUS(status);
    Say(fmt::format("the process in the background was killed by signal {}", WTERMSIG(status)));
    return 1;
  }

  os::UniqueFd tell_;
};

/// The folder's file system, served on the returned descriptor.
Result<os::UniqueFd> MountAt(const std::string& dir, bool as_root, bool allow_other,
                             const std::string& device) {
  if (!as_root) return os::FusermountMount(dir, allow_other);
  os::FuseMountOptions fuse;
  fuse.device = device;
  fuse.uid = ::geteuid();
  fuse.gid = ::getegid();
  fuse.allow_other = allow_other;
  LEAT_ASSIGN_OR_RETURN(os::FuseMount mount, os::NewFuseMount(fuse));
  os::SetReadahead(os::DeviceOf(mount.mount), 1024);
  LEAT_RETURN_IF_ERROR(os::AttachTree(mount.mount, dir));
  return std::move(mount.device);
}

}  // namespace

int Mount(MountOptions options) {
  const auto fail = [](const Error& error) {
    Progress("");
    Say(error.message());
    return 1;
  };
  const std::string dir = options.spec.target;
  const std::string device = job::FuseDevice();
  const job::Abilities abilities = job::FindAbilities(device);
  const bool root =
      abilities.namespaces == job::Abilities::Namespaces::kRoot && abilities.fuse_direct;
  if (const Status good = CheckOptions(options, root); !good) return fail(good.error());
  // From here on no other leat mounts there.
  os::UniqueFd record;
  if (!options.home.dir.empty()) {
    auto locked = LockMountRecord(options.home, dir, IsOurMount(dir));
    if (!locked && locked.error().code() == Errc::kConflict && !IsOurMount(dir))
      return fail(Error(Errc::kConflict, dir + " is being mounted by another leat"));
    if (locked) record = std::move(*locked);
  }
  if (const Status good = CheckFolder(dir); !good) return fail(good.error());

  Background background;
  const std::string log = options.daemon ? MountLogPath(options.home, dir) : "";
  if (options.daemon) {
    if (const Status made = os::MakeDirs(options.home.dir + "/mounts"); !made)
      return fail(made.error());
    record.Reset();  // (the child takes it again)
    if (const int status = background.Start(log); status >= 0) return status;
    if (auto locked = LockMountRecord(options.home, dir, false)) {
      record = std::move(*locked);
    } else {
      return fail(Error(Errc::kConflict, dir + " is being mounted by another leat"));
    }
  }

  sigset_t handled;
  ::sigemptyset(&handled);
  for (const int sig : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGCHLD}) {
    struct sigaction action;
    const bool ignored =
        ::sigaction(sig, nullptr, &action) == 0 && action.sa_handler == SIG_IGN;  // nohup
    if (!ignored || (sig == SIGHUP && options.refresh)) ::sigaddset(&handled, sig);
  }
  ::sigprocmask(SIG_BLOCK, &handled, nullptr);
  os::UniqueFd signals(::signalfd(-1, &handled, SFD_CLOEXEC | SFD_NONBLOCK));

  auto boards = os::Mapping::Shared(sizeof(job::Board));
  if (!boards) return fail(boards.error());
  std::vector<job::Attachment> attachments(1);
  attachments[0].spec = options.spec;
  attachments[0].board = reinterpret_cast<job::Board*>(boards->data());
  job::DataOptions data_options;
  data_options.home = options.home;
  data_options.strict = options.strict;
  data_options.refresh = options.refresh;
  data_options.passthrough = abilities.passthrough;
  data_options.fuse = root || abilities.fusermount;
  data_options.no_fuse_reason =
      abilities.no_fuse.empty() ? abilities.no_fusermount : abilities.no_fuse;
  data_options.uid = ::geteuid();
  data_options.gid = ::getegid();
  data_options.supervisor = ::getpid();
  data_options.fuse_device = device;
  DataSupervisor data(attachments, std::move(data_options), [&] {
    signals.Reset();
    background.Close();
    record.Reset();
  });
  bool look = false;  // SIGHUP has come
  const auto interrupted = [&] {
    bool stop = false;
    signalfd_siginfo info;
    while (::read(signals.get(), &info, sizeof(info)) == sizeof(info)) {
      const bool hangup = info.ssi_signo == SIGHUP;
      if (hangup && options.refresh) {
        look = true;
      } else if (hangup && options.daemon) {
        Say("SIGHUP: this mount was not made with --refresh, and does not look for changes");
      } else {
        stop |= info.ssi_signo != SIGCHLD;
      }
    }
    return stop;
  };
  if (const Status ready = data.Attach(signals.get(), interrupted); !ready) {
    return ready.error().code() == Errc::kCancelled ? 130 : fail(ready.error());
  }
  auto served = MountAt(dir, root, options.allow_other, device);
  if (!served) return fail(served.error());
  (void)data.Serve(0, std::move(*served));
  const std::string id = OurMount(dir);
  const int answer = AskMount(dir, [&] {
    pollfd polled = {data.running() ? data.fd() : -1, POLLIN, 0};
    if (::poll(&polled, 1, 5) > 0) data.OnChannel();
    data.Retry();
    return !interrupted();
  });
  if (answer != 0) {
    attachments[0].device.Reset();
    if (OurMount(dir) == id) (void)Unmount(dir);
    if (answer == ETIMEDOUT) return 130;
    return fail(Error(Errc::kUnavailable, fmt::format("{} was mounted and does not answer: {}", dir,
                                                      std::strerror(answer))));
  }
  if (record) {
    // A mount that cannot be listed serves all the same.
    const Status noted =
        WriteMountRecord(record, {options.spec.source.ForMessages(), ::getpid(),
                                  static_cast<std::int64_t>(std::time(nullptr)), log});
    if (!noted) Debug(noted.error().message());
  }
  Note(options.daemon ? fmt::format("{} is at {} (leat unmount {} ends it; log: {})",
                                    options.spec.source.ForMessages(), dir, dir, log)
                      : fmt::format("{} is at {} (Ctrl-C or leat unmount {} ends it)",
                                    options.spec.source.ForMessages(), dir, dir));
  background.Ready();
  int status = 0;
  bool there = true;  // as far as is known: a mount that others still use may be seen no more
  for (bool mounted = true; mounted;) {
    if (std::exchange(look, false)) data.Refresh();
    // When the mount is gone the kernel hangs up the device.
    pollfd polled[3] = {{signals.get(), POLLIN, 0},
                        {data.running() ? data.fd() : -1, POLLIN, 0},
                        {attachments[0].device.get(), 0, 0}};
    if (::poll(polled, 3, data.retry_ms()) < 0 && errno != EINTR) break;
    if (polled[2].revents != 0) {
      there = false;
      break;
    }
    if (polled[1].revents != 0) data.OnChannel();
    data.Retry();
    if (!attachments[0].device) break;
    if (interrupted()) mounted = false;
  }
  attachments[0].device.Reset();
  // Another leat's may be at the folder by now.
  if (there && !id.empty() && OurMount(dir) == id) status = Unmount(dir);
  if (record) RemoveMountRecord(options.home, dir, record);
  data.Finish();
  Note(Summary(attachments));
  return status;
}

int Unmount(const std::string& dir) {
  if (!IsOurMount(dir)) {
    Say(dir + " is no mount of leat's");
    return 1;
  }
  if (::umount2(dir.c_str(), MNT_DETACH) == 0) return 0;
  if (const Status done = os::FusermountUnmount(dir); !done) {
    Say(fmt::format("unmounting {}: {}", dir, done.error().message()));
    return 1;
  }
  return 0;
}

int ListMounts(const job::Home& home, bool json) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  std::string text;
  for (const os::MountPoint& mount : os::MountTable()) {
    if (mount.type != "fuse.leat" || mount.dir.starts_with(home.mounts_dir() + "/")) continue;
    const auto record = ReadMountRecord(home, mount.dir);
    const bool dead = !record && AskMount(mount.dir) == ENOTCONN;
    const bool others = ("," + mount.options + ",").find(",allow_other,") != std::string::npos;
    // A mount of another user's has its record in that user's home.
    const char* const state = record ? "serving" : dead ? "dead" : "of another home";
    if (json) {
      nlohmann::ordered_json entry = {
          {"dir", mount.dir}, {"state", state}, {"read_only", true}, {"allow_other", others}};
      if (record) {
        entry["source"] = record->source;
        entry["pid"] = record->pid;
        entry["since"] = net::FormatDate(std::chrono::system_clock::from_time_t(record->since));
        if (!record->log.empty()) entry["log"] = record->log;
      }
      list.push_back(std::move(entry));
    } else {
      text += fmt::format("{}  {}  {}{}\n", Printable(mount.dir),
                          record ? Printable(record->source) : "?", state,
                          record ? fmt::format(" (process {})", record->pid) : "");
    }
  }
  if (json) {
    text = nlohmann::ordered_json{{"mounts", std::move(list)}}.dump(
               2, ' ', false, nlohmann::json::error_handler_t::replace) +
           "\n";
  }
  std::fwrite(text.data(), 1, text.size(), stdout);
  return 0;
}

}  // namespace leat::engine::local
