// fault_proxy UPSTREAM_HOST:PORT [PORT [CONTROL_PORT]]: the fault proxy as a program
// (fault-proxy.md beside this file). Prints "PORT CONTROL_PORT" once it listens and runs until it
// is killed or its standard input, where that is a pipe, ends.
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <charconv>
#include <cstdio>
#include <string>
#include <string_view>

#include "testing/fault_proxy.h"

namespace {

bool ParsePort(std::string_view text, std::uint16_t& port) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  return error == std::errc() && end == text.data() + text.size();
}

/// Returns on SIGTERM, SIGINT or SIGHUP, and at the end of a pipe that was given as standard input.
void WaitForTheEnd(const sigset_t& signals) {
  struct stat in{};
  const bool piped = ::fstat(STDIN_FILENO, &in) == 0 && S_ISFIFO(in.st_mode);
  const timespec tick{.tv_sec = 0, .tv_nsec = 200'000'000};
  for (;;) {
    if (::sigtimedwait(&signals, nullptr, &tick) > 0) return;
    pollfd p{.fd = STDIN_FILENO, .events = POLLIN, .revents = 0};
    if (piped && ::poll(&p, 1, 0) > 0 && (p.revents & POLLHUP) != 0) return;
  }
}

}  // namespace

int main(int argc, char** argv) {
  leat::testing::FaultProxyOptions options;
  const std::string_view upstream = argc > 1 ? argv[1] : "";
  const auto colon = upstream.rfind(':');
  if (argc < 2 || argc > 4 || colon == std::string_view::npos ||
      !ParsePort(upstream.substr(colon + 1), options.upstream_port) ||
      (argc > 2 && !ParsePort(argv[2], options.port)) ||
      (argc > 3 && !ParsePort(argv[3], options.control_port))) {
    std::fputs("usage: fault_proxy UPSTREAM_HOST:PORT [PORT [CONTROL_PORT]]\n", stderr);
    return 2;
  }
  options.upstream_host = upstream.substr(0, colon);

  sigset_t signals;
  sigemptyset(&signals);
  for (const int s : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&signals, s);
  ::sigprocmask(SIG_BLOCK, &signals, nullptr);  // before threads, which inherit it
  const auto proxy = leat::testing::FaultProxy::Start(options);
  if (!proxy) {
    std::fprintf(stderr, "fault_proxy: %s\n", proxy.error().message().c_str());
    return 1;
  }
  std::printf("%d %d\n", (*proxy)->port(), (*proxy)->control_port());
  std::fflush(stdout);
  WaitForTheEnd(signals);
  return 0;
}
