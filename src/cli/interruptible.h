// Commands that can be asked to end while they work. Private to this folder.
#ifndef LEAT_CLI_INTERRUPTIBLE_H_
#define LEAT_CLI_INTERRUPTIBLE_H_

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <atomic>
#include <stop_token>
#include <thread>

#include "base/context.h"
#include "os/file.h"

namespace leat::cli {

/// Ctrl-C and the others ask the work to end, once; the second one ends the process.
class Interruptible {
 public:
  Interruptible() {
    sigset_t set;
    sigemptyset(&set);
    for (const int sig : {SIGINT, SIGTERM, SIGHUP}) {
      struct sigaction now;
      if (::sigaction(sig, nullptr, &now) == 0 && now.sa_handler != SIG_IGN) sigaddset(&set, sig);
    }
    ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
    signals_.Reset(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
    over_.Reset(::eventfd(0, EFD_CLOEXEC));
    watcher_ = std::jthread([this, set](const std::stop_token& done) {
      const std::stop_callback wake(done, [this] { ::eventfd_write(over_.get(), 1); });
      while (!done.stop_requested()) {
        pollfd polled[2] = {{signals_.get(), POLLIN, 0}, {over_.get(), POLLIN, 0}};
        if (::poll(polled, 2, -1) <= 0 || polled[0].revents == 0) continue;
        signalfd_siginfo info;
        if (::read(signals_.get(), &info, sizeof(info)) != sizeof(info)) continue;
        signal_ = static_cast<int>(info.ssi_signo);
        stop_.request_stop();
        ::pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
      }
    });
  }
  CallContext context() const { return {.stop = stop_.get_token()}; }
  /// Of the process: 128 + the signal that asked it to end, else `otherwise`.
  int ExitStatus(int otherwise) const { return signal_ == 0 ? otherwise : 128 + signal_; }

 private:
  std::stop_source stop_;
  std::atomic<int> signal_{0};
  os::UniqueFd signals_, over_;
  std::jthread watcher_;
};

}  // namespace leat::cli

#endif  // LEAT_CLI_INTERRUPTIBLE_H_
