#include "testing/step_killer.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <set>

namespace leat::testing {
namespace {

bool ChangesTheDisk(const __ptrace_syscall_info& info) {
  switch (info.entry.nr) {
    case SYS_openat:
      return (info.entry.args[2] & (O_CREAT | O_TRUNC)) != 0;
    case SYS_write:
    case SYS_pwrite64:
    case SYS_ftruncate:
    case SYS_truncate:
    case SYS_fallocate:
    case SYS_fsync:
    case SYS_fdatasync:
    case SYS_syncfs:
    case SYS_sync_file_range:
    case SYS_msync:
    case SYS_flock:
    case SYS_fchmod:
    case SYS_fchmodat:
    case SYS_utimensat:
    case SYS_linkat:
    case SYS_unlinkat:
    case SYS_symlinkat:
    case SYS_mkdirat:
    case SYS_renameat:
    case SYS_renameat2:
#ifdef SYS_rename  // not on newer architectures
    case SYS_rename:
    case SYS_link:
    case SYS_unlink:
    case SYS_mkdir:
    case SYS_rmdir:
    case SYS_chmod:
#endif
      return true;
    default:
      return false;
  }
}

[[noreturn]] void Die(const char* what) {
  std::perror(what);
  std::abort();
}

}  // namespace

bool KilledAtStep(int step, const std::function<void()>& body) {
  const pid_t child = ::fork();
  if (child < 0) Die("fork");
  if (child == 0) {
    if (::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) Die("ptrace");
    ::raise(SIGSTOP);
    body();
    ::_exit(0);
  }
  int status = 0;
  if (::waitpid(child, &status, 0) != child || !WIFSTOPPED(status)) Die("waiting for the child");
  const long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL;
  if (::ptrace(PTRACE_SETOPTIONS, child, nullptr, options) != 0) Die("ptrace");
  ::ptrace(PTRACE_SYSCALL, child, nullptr, 0L);
  int steps = 0;
  bool killed = false;
  for (pid_t thread; (thread = ::waitpid(-1, &status, __WALL)) > 0;) {
    if (WIFEXITED(status) || WIFSIGNALED(status)) {
      if (thread == child) return killed;
      continue;
    }
    long deliver = 0;
    const int sig = WSTOPSIG(status);
    if (sig == (SIGTRAP | 0x80)) {
      __ptrace_syscall_info info = {};
      if (!killed && ::ptrace(PTRACE_GET_SYSCALL_INFO, thread, sizeof(info), &info) > 0 &&
          info.op == PTRACE_SYSCALL_INFO_ENTRY && ChangesTheDisk(info) && steps++ == step) {
        killed = true;
        ::kill(child, SIGKILL);
        continue;
      }
    } else if (sig != SIGTRAP && sig != SIGSTOP) {  // of ptrace's own: new threads
      deliver = sig;
    }
    ::ptrace(PTRACE_SYSCALL, thread, nullptr, deliver);
  }
  return killed;
}

}  // namespace leat::testing
