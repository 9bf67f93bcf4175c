#include <fcntl.h>
#include <fmt/format.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "job/isolation.h"
#include "os/file.h"

namespace leat::job {
namespace {

/// Without it no mount can be changed, whoever the job is in its namespace.
void DropMountRights() {
  ::prctl(PR_CAPBSET_DROP, CAP_SYS_ADMIN);
  ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  if (::syscall(SYS_capget, &header, data) != 0) return;
  for (auto* set : {&data[0].inheritable, &data[0].permitted, &data[0].effective})
    *set &= ~(1U << CAP_SYS_ADMIN);
  ::syscall(SYS_capset, &header, data);
}

/// The job itself: from here on nothing of leat's may be left but the descriptors that close on
/// exec.
[[noreturn]] void Execute(const Isolation& isolation, const Command& command, int report) {
  const auto fail = [&](const std::string& what) {
    const int error = errno;
    const std::string text =
        std::string(reinterpret_cast<const char*>(&error), sizeof(error)) + what;
    [[maybe_unused]] const ssize_t n = ::write(report, text.data(), text.size());
    ::_exit(127);
  };
  const std::string& dir = command.workdir.empty() ? command.cwd : command.workdir;
  if (::chdir(dir.c_str()) != 0) fail("\nthe working directory " + dir);
  // The init ends all that it can find; when it is killed itself, the kernel ends this much.
  if (!isolation.pid_namespace) ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  for (int sig = 1; sig < NSIG; ++sig) ::signal(sig, SIG_DFL);
  for (const int sig : command.ignored_signals) ::signal(sig, SIG_IGN);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  std::vector<char*> argv, envp;
  for (const std::string& word : command.words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  for (const std::string& variable : command.environment)
    envp.push_back(const_cast<char*>(variable.c_str()));
  envp.push_back(nullptr);
  // The command is looked for in the PATH that it will have.
  environ = envp.data();
  ::execvp(argv[0], argv.data());
  fail(command.words[0]);
  ::_exit(127);
}

/// All descendants of this process but `spared` and its own, for machines where it is not the PID 1
/// of a namespace.
std::vector<pid_t> Descendants(pid_t spared) {
  std::multimap<pid_t, pid_t> children;
  const auto names = os::ListDir("/proc");
  if (!names) return {};
  for (const std::string& name : *names) {
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    const auto stat = os::ReadFile("/proc/" + name + "/stat", 4096);
    if (!stat) continue;
    // The name in parentheses may hold anything, parentheses too.
    const std::size_t end = stat->rfind(')');
    if (end == std::string::npos || end + 4 > stat->size()) continue;
    children.emplace(static_cast<pid_t>(std::atoi(stat->c_str() + end + 4)),
                     static_cast<pid_t>(std::atoi(name.c_str())));
  }
  std::vector<pid_t> found, open = {::getpid()};
  while (!open.empty()) {
    const pid_t parent = open.back();
    open.pop_back();
    for (auto [it, last] = children.equal_range(parent); it != last; ++it) {
      if (it->second == spared) continue;
      found.push_back(it->second);
      open.push_back(it->second);
    }
  }
  return found;
}

[[noreturn]] void End(const Isolation& isolation, int status) {
  // With the namespace's PID 1 the kernel ends all that is in it.
  if (!isolation.pid_namespace) EndDescendants(-1);
  ::_exit(status);
}

}  // namespace

void EndDescendants(pid_t spared) {
  for (int rounds = 0; rounds < 100; ++rounds) {
    const std::vector<pid_t> left = Descendants(spared);
    if (left.empty()) break;
    // By descriptors: the number of one that ends meanwhile may be a stranger's.
    std::map<pid_t, os::UniqueFd> processes;
    for (const pid_t pid : left) {
      os::UniqueFd process(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
      // (A container's filter may not know the call.)
      if (process || errno != ESRCH) processes[pid] = std::move(process);
    }
    for (const pid_t pid : Descendants(spared)) {
      const auto it = processes.find(pid);
      if (it == processes.end()) continue;
      if (!it->second ||
          ::syscall(SYS_pidfd_send_signal, it->second.get(), SIGKILL, nullptr, 0) != 0)
        ::kill(pid, SIGKILL);
      ::waitpid(pid, nullptr, WNOHANG);
    }
    ::usleep(2000);
  }
}

void CloseOwnDescriptors(const std::vector<int>& keep) {
  const auto names = os::ListDir("/proc/self/fd");
  if (!names) return;
  for (const std::string& name : *names) {
    const int fd = std::atoi(name.c_str());
    if (std::ranges::find(keep, fd) != keep.end()) continue;
    const int flags = ::fcntl(fd, F_GETFD);
    if (flags >= 0 && (flags & FD_CLOEXEC) != 0) ::close(fd);
  }
}

void RunInit(const Isolation& isolation, const Command& command, Channel channel) {
  ::prctl(PR_SET_NAME, "leat-init");
  if (isolation.pid_namespace) {
    if (::mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr) != 0) {
      (void)channel.Send(MessageKind::kFailed, 0,
                         fmt::format("mounting the job's /proc: {}", std::strerror(errno)));
      ::_exit(125);
    }
  } else {
    ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  }
  // Before the job exists, which could trace its init.
  if (isolation.abilities.namespaces != Abilities::Namespaces::kNone) DropMountRights();
  CloseOwnDescriptors({channel.fd()});
  sigset_t all;
  ::sigfillset(&all);
  ::sigprocmask(SIG_SETMASK, &all, nullptr);
  const os::UniqueFd signals(::signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK));
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) ::_exit(125);
  os::UniqueFd report_out(ends[0]), report_in(ends[1]);
  const pid_t job = ::fork();
  if (job == 0) Execute(isolation, command, report_in.get());
  report_in.Reset();
  if (job < 0) {
    (void)channel.Send(MessageKind::kFailed, 0,
                       fmt::format("starting the job: {}", std::strerror(errno)));
    ::_exit(125);
  }
  char buffer[8192];
  const ssize_t n = ::read(report_out.get(), buffer, sizeof(buffer));  // ends at exec
  if (n >= static_cast<ssize_t>(sizeof(int))) {
    int error;
    std::memcpy(&error, buffer, sizeof(error));
    (void)channel.Send(
        MessageKind::kExecError, error,
        std::string(buffer + sizeof(error), static_cast<std::size_t>(n) - sizeof(error)));
    End(isolation, 127);
  }
  (void)channel.Send(MessageKind::kRunning);
  pollfd polled[2] = {{signals.get(), POLLIN, 0}, {channel.fd(), POLLIN, 0}};
  for (;;) {
    if (::poll(polled, 2, -1) < 0 && errno != EINTR) End(isolation, 125);
    if ((polled[0].revents & POLLIN) != 0) {
      signalfd_siginfo info[16];
      while (::read(signals.get(), info, sizeof(info)) > 0) {
      }
      // Signals of the terminal go to the whole group, so the job has had them; others come through
      // the channel.
      int status = 0;
      for (pid_t pid; (pid = ::waitpid(-1, &status, WNOHANG)) > 0;) {
        if (pid != job) continue;
        (void)channel.Send(MessageKind::kExited, status);
        End(isolation, 0);
      }
    }
    if (polled[1].revents != 0) {
      const auto message = channel.Receive();
      if (!message) End(isolation, 125);  // the supervisor is gone
      if (message->kind == MessageKind::kSignal) ::kill(job, static_cast<int>(message->number));
    }
  }
}

}  // namespace leat::job
