#include "os/program.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <sstream>

#include "os/file.h"

namespace leat::os {
namespace {

constexpr std::size_t kMostOutput = 4096;

/// Empty where there is none.
std::string FindProgram(const std::string& name) {
  const char* const path = std::getenv("PATH");
  std::istringstream folders((path == nullptr ? "" : path + std::string(":")) +
                             "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin");
  for (std::string folder; std::getline(folders, folder, ':');) {
    const std::string file = folder + "/" + name;
    if (folder.starts_with('/') && ::access(file.c_str(), X_OK) == 0) return file;
  }
  return "";
}

Result<pid_t> Spawn(const std::string& file, const std::vector<std::string>& words, int out, int fd,
                    const std::string& variable) {
  std::vector<char*> argv, variables;
  for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  for (char** v = environ; *v != nullptr; ++v) variables.push_back(*v);
  if (!variable.empty()) variables.push_back(const_cast<char*>(variable.c_str()));
  variables.push_back(nullptr);

  posix_spawn_file_actions_t files;
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_init(&files);
  posix_spawnattr_init(&attributes);
  const Cleanup free_them([&] {
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attributes);
  });
  posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&files, out, STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&files, out, STDERR_FILENO);
  if (fd >= 0) posix_spawn_file_actions_adddup2(&files, fd, 3);
  posix_spawn_file_actions_addclosefrom_np(&files, fd >= 0 ? 4 : 3);
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  pid_t pid = 0;
  if (const int error =
          posix_spawn(&pid, file.c_str(), &files, &attributes, argv.data(), variables.data());
      error != 0) {
    return FailErrno(error, "starting " + file);
  }
  return pid;
}

}  // namespace

Result<ProgramEnd> RunProgram(const std::vector<std::string>& words, int fd,
                              const std::string& variable) {
  const std::string file = FindProgram(words.front());
  if (file.empty()) return Fail(Errc::kNotFound, words.front() + " is not installed");
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return FailErrno(errno, words.front());
  const UniqueFd out(ends[0]);
  UniqueFd in(ends[1]);
  LEAT_ASSIGN_OR_RETURN(const pid_t pid, Spawn(file, words, in.get(), fd, variable));
  in.Reset();

  ProgramEnd end;
  char buffer[kMostOutput];
  for (ssize_t n; (n = ::read(out.get(), buffer, sizeof(buffer))) != 0;) {
    if (n < 0 && errno != EINTR) break;
    if (n > 0) end.said.append(buffer, static_cast<std::size_t>(n));
    if (end.said.size() > kMostOutput) end.said.resize(kMostOutput);
  }
  while (end.said.ends_with('\n')) end.said.pop_back();
  // (Where somebody else collects the children, what it has made must speak for it.)
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  end.succeeded = status == 0;
  return end;
}

}  // namespace leat::os
