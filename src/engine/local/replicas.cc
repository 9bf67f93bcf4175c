#include "engine/local/replicas.h"

#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <map>

#include "base/log.h"
#include "os/file.h"

namespace leat::engine::local {

namespace {

/// "out/stats.worker-0.json" of "out/stats.json": a file of its own for each. What is no file is
/// written to by all.
std::string StatsOf(const std::string& stats, const std::string& replica) {
  struct stat st;
  if (stats.empty() || stats == "text" || stats == "json" ||
      (::stat(stats.c_str(), &st) == 0 && !S_ISREG(st.st_mode))) {
    return stats;
  }
  const std::size_t name = stats.rfind('/') + 1;
  const std::size_t dot = stats.rfind('.');
  const std::size_t at = dot == std::string::npos || dot <= name ? stats.size() : dot;
  return fmt::format("{}.{}{}", stats.substr(0, at), replica, stats.substr(at));
}

}  // namespace

int RunReplicas(const RunOptions& options,
                const std::vector<std::pair<std::string, unsigned>>& replicas) {
  unsigned all = 0;
  for (const auto& [name, count] : replicas) all += count;
  // What asks this process to end is for all of them; the terminal has told them itself.
  sigset_t handled, before;
  ::sigemptyset(&handled);
  for (const int sig : {SIGTERM, SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGCHLD})
    ::sigaddset(&handled, sig);
  ::sigprocmask(SIG_BLOCK, &handled, &before);
  const os::UniqueFd signals(::signalfd(-1, &handled, SFD_CLOEXEC));
  std::map<pid_t, std::string> running;
  const auto tell = [&](int sig) {
    for (const auto& [pid, name] : running) ::kill(pid, sig);
  };
  const pid_t all_of_them = ::getpid();
  unsigned rank = 0;
  for (const auto& [name, count] : replicas) {
    for (unsigned i = 0; i < count; ++i, ++rank) {
      RunOptions one = options;
      const std::string called = fmt::format("{}-{}", name, i);
      one.name = options.name.empty() ? called : fmt::format("{}-{}", options.name, called);
      if (rank > 0) one.lock_file.clear();  // one is enough
      if (one.stats) one.stats = StatsOf(*one.stats, called);
      const std::vector<std::string> variables = {
          fmt::format("LEAT_REPLICA={}", name), fmt::format("LEAT_REPLICA_INDEX={}", i),
          fmt::format("LEAT_RANK={}", rank), fmt::format("LEAT_LOCAL_RANK={}", rank),
          fmt::format("LEAT_WORLD_SIZE={}", all)};
      one.env.insert(one.env.begin(), variables.begin(), variables.end());
      const pid_t pid = ::fork();
      if (pid < 0) {
        Say(fmt::format("starting the replica {}: {}", called, std::strerror(errno)));
        tell(SIGTERM);
        return 125;
      }
      if (pid == 0) {
        // Killed, this process takes them along, as a single run's takes its job.
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (::getppid() != all_of_them) ::_exit(125);
        ::sigprocmask(SIG_SETMASK, &before, nullptr);
        ::_exit(Run(std::move(one)));
      }
      running[pid] = called;
    }
  }
  int result = 0;
  while (!running.empty()) {
    signalfd_siginfo info;
    if (::read(signals.get(), &info, sizeof(info)) != sizeof(info)) continue;
    const int sig = static_cast<int>(info.ssi_signo);
    if (sig != SIGCHLD) {
      if (info.ssi_code != SI_KERNEL) tell(sig);
      continue;
    }
    int status = 0;
    for (pid_t pid; (pid = ::waitpid(-1, &status, WNOHANG)) > 0;) {
      const auto ended = running.find(pid);
      if (ended == running.end()) continue;
      const std::string name = ended->second;
      running.erase(ended);
      const int code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
      if (code == 0 || result != 0) continue;
      result = code;
      if (!running.empty())
        Say(fmt::format("the replica {} ended with status {}; the others are asked to end", name,
                        code));
      tell(SIGTERM);
    }
  }
  return result;
}

}  // namespace leat::engine::local
