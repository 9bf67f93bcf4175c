// leat mount and leat unmount.
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string_view>
#include <utility>
#include <vector>

#include "base/log.h"
#include "engine/local/data_supervisor.h"
#include "engine/local/run.h"
#include "engine/local/stats.h"
#include "job/isolation.h"
#include "os/mount.h"

namespace leat::engine::local {
namespace {

bool IsOurMount(const std::string& dir) {
  const auto text = os::ReadFile("/proc/self/mountinfo");
  if (!text) return false;
  // Spaces and the like are written as \040.
  std::string escaped;
  for (const char c : dir) {
    if (c == ' ' || c == '\t' || c == '\n' || c == '\\') {
      escaped += fmt::format("\\{:03o}", static_cast<unsigned>(c));
    } else {
      escaped += c;
    }
  }
  bool ours = false;
  for (std::size_t begin = 0; begin < text->size();) {
    const std::size_t end = std::min(text->find('\n', begin), text->size());
    const std::string_view line = std::string_view(*text).substr(begin, end - begin);
    begin = end + 1;
    std::string_view rest = line;
    for (int i = 0; i < 4; ++i) rest.remove_prefix(std::min(rest.find(' ') + 1, rest.size()));
    if (rest.substr(0, rest.find(' ')) == escaped) {
      ours = line.find(" - fuse.leat leat ") != std::string_view::npos;
    }
  }
  return ours;
}

/// A process of its own asks: who can start the data process again must not wait for it.
bool Answers(const std::string& dir, DataSupervisor& data) {
  const pid_t pid = ::fork();
  if (pid == 0) {
    struct stat st;
    ::_exit(::stat(dir.c_str(), &st) == 0 ? 0 : 1);
  }
  int status = 1;
  while (pid > 0 && ::waitpid(pid, &status, WNOHANG) == 0) {
    pollfd polled = {data.running() ? data.fd() : -1, POLLIN, 0};
    if (::poll(&polled, 1, 5) > 0) data.OnChannel();
    data.Retry();
  }
  return status == 0;
}

}  // namespace

int MountForeground(MountOptions options) {
  const auto fail = [](const Error& error) {
    Progress("");
    Say(error.message());
    return 1;
  };
  const std::string dir = options.spec.target;
  if (options.spec.source.kind == job::Source::Kind::kLocal) {
    return fail(Error(Errc::kInvalid, options.spec.source.ForMessages() +
                                          " is on this machine already and needs no mount"));
  }
  if (options.spec.mode == job::Mode::kCopy) {
    return fail(Error(Errc::kInvalid, options.spec.source.ForMessages() +
                                          ": mode=copy is for leat run; a mount streams"));
  }
  struct stat st;
  if (::stat(dir.c_str(), &st) != 0) return fail(FailErrno(errno, dir).error());
  if (!S_ISDIR(st.st_mode)) return fail(Error(Errc::kInvalid, dir + " is not a folder"));
  if (IsOurMount(dir))
    return fail(Error(Errc::kConflict, dir + " is mounted already (leat unmount " + dir + ")"));
  if (const auto names = os::ListDir(dir); !names) {
    return fail(names.error());
  } else if (!names->empty()) {
    return fail(Error(Errc::kConflict, dir + " is not empty"));
  }

  sigset_t handled;
  ::sigemptyset(&handled);
  for (const int sig : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGCHLD}) {
    struct sigaction action;
    const bool ignored =
        ::sigaction(sig, nullptr, &action) == 0 && action.sa_handler == SIG_IGN;  // nohup
    if (!ignored) ::sigaddset(&handled, sig);
  }
  ::sigprocmask(SIG_BLOCK, &handled, nullptr);
  os::UniqueFd signals(::signalfd(-1, &handled, SFD_CLOEXEC | SFD_NONBLOCK));

  auto boards = os::Mapping::Shared(sizeof(job::Board));
  if (!boards) return fail(boards.error());
  const std::string device = job::FuseDevice();
  const job::Abilities abilities = job::FindAbilities(device);
  const bool root =
      abilities.namespaces == job::Abilities::Namespaces::kRoot && abilities.fuse_direct;
  std::vector<job::Attachment> attachments(1);
  attachments[0].spec = options.spec;
  attachments[0].board = reinterpret_cast<job::Board*>(boards->data());
  job::DataOptions data_options;
  data_options.home = options.home;
  data_options.strict = options.strict;
  data_options.passthrough = abilities.passthrough;
  data_options.fuse = root || abilities.fusermount;
  data_options.no_fuse_reason = abilities.no_fuse.empty()
                                    ? "fusermount3 is not here (Debian: apt-get install fuse3)"
                                    : abilities.no_fuse;
  data_options.uid = ::geteuid();
  data_options.gid = ::getegid();
  data_options.supervisor = ::getpid();
  data_options.fuse_device = device;
  DataSupervisor data(attachments, std::move(data_options), [&] { signals.Reset(); });
  const auto interrupted = [&] {
    bool stop = false;
    signalfd_siginfo info;
    while (::read(signals.get(), &info, sizeof(info)) == sizeof(info))
      stop |= info.ssi_signo != SIGCHLD;
    return stop;
  };
  if (const Status ready = data.Attach(signals.get(), interrupted); !ready) {
    return ready.error().code() == Errc::kCancelled ? 130 : fail(ready.error());
  }
  if (root) {
    os::FuseMountOptions fuse;
    fuse.device = device;
    fuse.uid = ::geteuid();
    fuse.gid = ::getegid();
    auto mount = os::NewFuseMount(fuse);
    if (!mount) return fail(mount.error());
    os::SetReadahead(os::DeviceOf(mount->mount), 1024);
    if (const Status attached = os::AttachTree(mount->mount, dir); !attached)
      return fail(attached.error());
    (void)data.Serve(0, std::move(mount->device));
  } else {
    auto fd = os::FusermountMount(dir, false);
    if (!fd) return fail(fd.error());
    (void)data.Serve(0, std::move(*fd));
  }
  if (!Answers(dir, data)) {
    attachments[0].device.Reset();
    (void)Unmount(dir);
    return fail(Error(Errc::kUnavailable, dir + " was mounted and does not answer"));
  }
  Note(fmt::format("{} is at {} (Ctrl-C or leat unmount {} ends it)",
                   options.spec.source.ForMessages(), dir, dir));
  int status = 0;
  for (bool mounted = true; mounted;) {
    // When the mount is gone the kernel hangs up the device.
    pollfd polled[3] = {{signals.get(), POLLIN, 0},
                        {data.running() ? data.fd() : -1, POLLIN, 0},
                        {attachments[0].device.get(), 0, 0}};
    if (::poll(polled, 3, data.retry_ms()) < 0 && errno != EINTR) break;
    if (polled[2].revents != 0) break;
    if (polled[1].revents != 0) data.OnChannel();
    data.Retry();
    if (!attachments[0].device) break;
    if (interrupted()) mounted = false;
  }
  attachments[0].device.Reset();
  if (IsOurMount(dir)) status = Unmount(dir);
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

}  // namespace leat::engine::local
