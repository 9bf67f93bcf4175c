#include "auth/credential_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>

#include "auth/credential_replies.h"
#include "os/file.h"

namespace leat::auth {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t kMostOutput = 256 << 10;

struct Pipe {
  os::UniqueFd read, write;
};
Result<Pipe> MakePipe() {
  std::array<int, 2> fds{};
  if (pipe2(fds.data(), O_CLOEXEC) != 0) return FailErrno(errno, "making a pipe");
  return Pipe{os::UniqueFd(fds[0]), os::UniqueFd(fds[1])};
}

Result<pid_t> Spawn(const std::string& command, int out, int err) {
  posix_spawn_file_actions_t files;
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_init(&files);
  posix_spawnattr_init(&attributes);
  const os::Cleanup free_them([&] {
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attributes);
  });
  posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&files, out, STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&files, err, STDERR_FILENO);
  posix_spawn_file_actions_addclosefrom_np(&files, STDERR_FILENO + 1);
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setpgroup(&attributes, 0);
  posix_spawnattr_setflags(&attributes,
                           POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
  std::string shell = "sh", option = "-c", script = command;
  std::array<char*, 4> argv = {shell.data(), option.data(), script.data(), nullptr};
  pid_t pid = 0;
  const int error = posix_spawn(&pid, "/bin/sh", &files, &attributes, argv.data(), environ);
  if (error != 0) return FailErrno(error, "starting /bin/sh");
  return pid;
}

// False at the end of the stream.
bool Drain(int fd, std::string& into) {
  std::array<char, 4096> buffer;
  const ssize_t n = read(fd, buffer.data(), buffer.size());
  if (n < 0) return errno == EINTR || errno == EAGAIN;
  if (into.size() < kMostOutput) into.append(buffer.data(), static_cast<std::size_t>(n));
  return n > 0;
}

Status TimeLeft(const CallContext& ctx, CallContext::Clock::time_point until) {
  if (ctx.cancelled()) return Fail(Errc::kCancelled, "the call was cancelled");
  if (ctx.expired()) return Fail(Errc::kDeadline, "it did not end in the time there was");
  if (CallContext::Clock::now() >= until)
    return Fail(Errc::kUnavailable, "it did not end in time and was killed");
  return {};
}

Status Pause(const CallContext& ctx, CallContext::Clock::time_point until) {
  poll(nullptr, 0, 5);
  return TimeLeft(ctx, until);
}

struct Output {
  std::string out, err;
};
// Until both streams have ended, or it is time to stop.
Status ReadBoth(int out, int err, const CallContext& ctx, CallContext::Clock::time_point until,
                Output& output) {
  std::array<pollfd, 2> fds = {pollfd{out, POLLIN, 0}, pollfd{err, POLLIN, 0}};
  while (fds[0].fd >= 0 || fds[1].fd >= 0) {
    LEAT_RETURN_IF_ERROR(TimeLeft(ctx, until));
    if (poll(fds.data(), fds.size(), 50) < 0 && errno != EINTR)
      return FailErrno(errno, "reading its output");
    if (fds[0].revents != 0 && !Drain(out, output.out)) fds[0].fd = -1;
    if (fds[1].revents != 0 && !Drain(err, output.err)) fds[1].fd = -1;
    fds[0].revents = fds[1].revents = 0;
  }
  return {};
}

}  // namespace

Result<Credentials> RunCredentialProcess(const std::string& command,
                                         std::chrono::milliseconds limit, const CallContext& ctx) {
  LEAT_ASSIGN_OR_RETURN(Pipe out, MakePipe());
  LEAT_ASSIGN_OR_RETURN(Pipe err, MakePipe());
  LEAT_ASSIGN_OR_RETURN(const pid_t pid, Spawn(command, out.write.get(), err.write.get()));
  out.write.Reset();
  err.write.Reset();

  const auto until = CallContext::Clock::now() + limit;
  Output output;
  Status finished = ReadBoth(out.read.get(), err.read.get(), ctx, until, output);
  if (!finished) kill(-pid, SIGKILL);
  // A program may close its streams and go on.
  int status = 0;
  pid_t waited = 0;
  while ((waited = waitpid(pid, &status, finished ? WNOHANG : 0)) == 0 ||
         (waited < 0 && errno == EINTR)) {
    if (waited == 0) finished = Pause(ctx, until);
    if (!finished) kill(-pid, SIGKILL);
  }

  const std::string said =
      output.err.empty() ? "" : fmt::format("; it said: {}", Quoted(output.err));
  if (!finished) return Fail(finished.error().code(), finished.error().message() + said);
  // Where somebody else collected the child, its output has to speak for it.
  if (waited == pid && WIFEXITED(status) && WEXITSTATUS(status) != 0) {
    return Fail(Errc::kDenied, fmt::format("it ended with status {}{}", WEXITSTATUS(status), said));
  }
  if (waited == pid && WIFSIGNALED(status)) {
    return Fail(Errc::kDenied, fmt::format("it was ended by signal {}{}", WTERMSIG(status), said));
  }
  auto credentials = ParseJsonCredentials(output.out, JsonReply::kProcess);
  if (!credentials) return Fail(credentials.error().code(), credentials.error().message() + said);
  return credentials;
}

}  // namespace leat::auth
