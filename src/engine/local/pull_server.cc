#include "engine/local/pull_server.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <limits.h>
#include <linux/openat2.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <utility>

#include "base/json_fields.h"
#include "base/log.h"
#include "base/memory_budget.h"
#include "config/aws_config.h"
#include "job/remote.h"

namespace leat::engine::local {
namespace {

constexpr std::size_t kMaxRequest = 64 * 1024;

/// Of a name with '@' in front: it is in no file system, so that every view of the machine has it.
socklen_t Address(const std::string& name, sockaddr_un& address) {
  address = {};
  address.sun_family = AF_UNIX;
  const std::size_t size = std::min(name.size(), sizeof(address.sun_path));
  std::memcpy(address.sun_path, name.data(), size);
  address.sun_path[0] = '\0';
  return static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + size);
}

/// One line; empty when the other end is gone, or has written more than a request.
std::string ReadLine(int fd) {
  std::string line;
  char byte;
  while (line.size() < kMaxRequest) {
    const ssize_t n = ::read(fd, &byte, 1);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return "";
    if (byte == '\n') return line;
    line += byte;
  }
  return "";
}

/// JSON holds no other names.
bool IsText(const nlohmann::json& document) {
  using nlohmann::json;
  return document.dump(-1, ' ', false, json::error_handler_t::replace) ==
         document.dump(-1, ' ', false, json::error_handler_t::ignore);
}

bool WriteLine(int fd, const nlohmann::json& document) {
  const std::string line =
      document.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  for (std::size_t at = 0; at < line.size();) {
    const ssize_t n = ::send(fd, line.data() + at, line.size() - at, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    at += static_cast<std::size_t>(n);
  }
  return true;
}

/// A path of this process that leads to what the job has at `real` (without links); nullopt: there
/// is none, or only to something else.
std::optional<std::string> OnHost(const std::string& real, const struct statx& theirs,
                                  const PullServer::Folders& folders) {
  std::vector<std::string> candidates = {real};
  for (const auto& [target, folder] : folders) {
    if (real == target || real.starts_with(target + "/"))
      candidates.push_back(folder + real.substr(target.size()));
  }
  for (const std::string& path : candidates) {
    struct statx ours = {};
    if (::statx(AT_FDCWD, path.c_str(), AT_SYMLINK_NOFOLLOW, STATX_INO, &ours) == 0 &&
        ours.stx_ino == theirs.stx_ino && ours.stx_dev_major == theirs.stx_dev_major &&
        ours.stx_dev_minor == theirs.stx_dev_minor) {
      return path;
    }
  }
  return std::nullopt;
}

/// Where this process finds what `pid` means by `dir`: by a path of its own, where one leads to the
/// same, so that the next job finds it there; else through that process's root. Links of folders
/// are followed, and `dir` itself need not be there. What the job may not write is refused.
Result<std::string> PathOf(pid_t pid, const std::string& dir, const PullServer::Folders& folders) {
  if (!dir.starts_with('/')) return Fail(Errc::kInvalid, dir + ": not an absolute path");
  const std::string root = fmt::format("/proc/{}/root", pid);
  const os::UniqueFd view(::open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!view) return FailErrno(errno, "looking into the job's files");
  // The deepest folder on the way that is there.
  std::string existing = std::filesystem::path(dir).lexically_normal().string();
  while (existing.size() > 1 && existing.ends_with('/')) existing.pop_back();
  const std::string whole = existing;
  os::UniqueFd fd;
  for (;;) {
    open_how how = {};
    how.flags = O_PATH | O_DIRECTORY | O_CLOEXEC;
    how.resolve = RESOLVE_IN_ROOT;
    fd.Reset(
        static_cast<int>(::syscall(SYS_openat2, view.get(), existing.c_str(), &how, sizeof(how))));
    if (fd || existing == "/") break;
    existing.resize(std::max<std::size_t>(existing.rfind('/'), 1));
  }
  struct statx theirs = {};
  char found[PATH_MAX];
  const ssize_t size =
      ::readlink(fmt::format("/proc/self/fd/{}", fd.get()).c_str(), found, sizeof(found));
  if (!fd || size <= 0 || ::statx(fd.get(), "", AT_EMPTY_PATH, STATX_INO, &theirs) != 0)
    return FailErrno(errno, dir);
  const std::string real(found, static_cast<std::size_t>(size));
  const std::string missing = whole.substr(existing == "/" ? 0 : existing.size());
  struct stat in_the_way;
  const std::size_t begin = missing.find_first_not_of('/');
  if (begin != missing.npos) {
    // A link that leads nowhere in the job's view may lead somewhere in this one's.
    const std::string next = missing.substr(begin, missing.find('/', begin) - begin);
    if (::fstatat(fd.get(), next.c_str(), &in_the_way, AT_SYMLINK_NOFOLLOW) == 0)
      return Fail(Errc::kConflict, dir + " is there, and is no folder");
  }
  struct statvfs disk;
  if (::fstatvfs(fd.get(), &disk) == 0 && (disk.f_flag & ST_RDONLY) != 0)
    return FailErrno(EROFS, dir);
  if (real == "/" && (missing.empty() || missing == "/"))
    return Fail(Errc::kInvalid, "a dataset cannot take the place of /");
  if (missing.empty() && (theirs.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0)
    return Fail(Errc::kInvalid, dir + " is a mount point; choose a folder in it");
  if (const auto path = OnHost(real, theirs, folders); path && *path != "/") return *path + missing;
  return root + (real == "/" ? "" : real) + missing;
}

/// A file or folder of the machine that the job sees, too: leat's home, which it does not see, is
/// none, by whatever link.
Result<std::string> SourceOf(pid_t pid, const std::string& path,
                             const PullServer::Folders& folders) {
  const os::UniqueFd view(
      ::open(fmt::format("/proc/{}/root", pid).c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  open_how how = {};
  how.flags = O_PATH | O_CLOEXEC;
  how.resolve = RESOLVE_IN_ROOT;
  const os::UniqueFd fd(
      static_cast<int>(::syscall(SYS_openat2, view.get(), path.c_str(), &how, sizeof(how))));
  struct statx theirs = {};
  char found[PATH_MAX];
  const ssize_t size =
      ::readlink(fmt::format("/proc/self/fd/{}", fd.get()).c_str(), found, sizeof(found));
  if (!path.starts_with('/') || !view || !fd || size <= 0 ||
      ::statx(fd.get(), "", AT_EMPTY_PATH, STATX_INO, &theirs) != 0) {
    return Fail(Errc::kNotFound, path + ": there is no such file or folder");
  }
  const std::string real(found, static_cast<std::size_t>(size));
  if (auto here = OnHost(real, theirs, folders)) return *here;
  return Fail(Errc::kInvalid, path + ": only the job sees it, which can copy it by itself");
}

}  // namespace

std::unique_ptr<PullServer> PullServer::Open(const std::string& run_id, job::Home home,
                                             Folders folders,
                                             std::function<void()> close_in_child) {
  os::UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_un address;
  const std::string name = "@leat-" + run_id.substr(run_id.size() > 80 ? run_id.size() - 80 : 0);
  const socklen_t size = Address(name, address);
  if (!socket || ::bind(socket.get(), reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      ::listen(socket.get(), 128) != 0) {
    Debug(fmt::format("no socket for the job's downloads: {}", std::strerror(errno)));
    return nullptr;
  }
  return std::unique_ptr<PullServer>(new PullServer(name, std::move(socket), std::move(home),
                                                    std::move(folders), std::move(close_in_child)));
}

void PullServer::OnConnection() {
  os::UniqueFd connection(::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!connection) return;
  ucred peer = {};
  socklen_t size = sizeof(peer);
  if (::getsockopt(connection.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0 ||
      peer.uid != ::geteuid()) {
    return;
  }
  const pid_t supervisor = ::getpid();
  if (::fork() != 0) return;
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != supervisor) ::_exit(1);
  ::prctl(PR_SET_NAME, "leat-pull");
  close_();
  socket_.Reset();
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  Serve(std::move(connection));
}

void PullServer::Serve(os::UniqueFd connection) {
  KeepHeapSmall();
  const auto answer = [&]() -> Result<job::Pulled> {
    ucred peer = {};
    socklen_t size = sizeof(peer);
    ::getsockopt(connection.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size);
    const nlohmann::json request = ParseJson(ReadLine(connection.get()));
    if (TextOf(request, "do") != "pull")
      return Fail(Errc::kInvalid, "the request is none that this version knows");
    job::Toolbox tools = job::MakeToolbox(config::ProcessEnvironment(), home_);
    LEAT_ASSIGN_OR_RETURN(job::MountSpec spec,
                          job::ParsePull(TextOf(request, "source"), tools.env));
    if (spec.source.kind == job::Source::Kind::kLocal) {
      LEAT_ASSIGN_OR_RETURN(spec.source.path, SourceOf(peer.pid, spec.source.path, folders_));
    }
    spec.strict_pins = spec.strict_pins || request.value("strict_pins", false);
    const std::string asked = TextOf(request, "dir");
    LEAT_ASSIGN_OR_RETURN(const std::string dir, PathOf(peer.pid, asked, folders_));
    LEAT_ASSIGN_OR_RETURN(job::Pulled pulled, job::PullDataset(spec, dir, tools, {}));
    pulled.dir = asked;
    return pulled;
  }();
  Progress("");
  if (answer) {
    WriteLine(connection.get(), {{"dir", answer->dir},
                                 {"files", answer->files},
                                 {"bytes", answer->bytes},
                                 {"requests", answer->requests},
                                 {"there_before", answer->there_before},
                                 {"etag", answer->etag},
                                 {"versionId", answer->version_id},
                                 {"pin", answer->pin}});
  } else {
    WriteLine(connection.get(), {{"error", answer.error().message()}});
  }
  ::_exit(0);
}

Result<job::Pulled> PullBySocket(const std::string& socket, const std::string& source,
                                 const std::string& dir, bool strict_pins) {
  const os::UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address;
  const socklen_t size = Address(socket, address);
  if (!fd || !socket.starts_with('@') ||
      ::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), size) != 0) {
    return Fail(Errc::kNotFound, "LEAT_SOCK names no leat that answers");
  }
  // (The name is free again when its run has ended.)
  ucred peer = {};
  socklen_t peer_size = sizeof(peer);
  if (::getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &peer, &peer_size) != 0 ||
      peer.uid != ::geteuid()) {
    return Fail(Errc::kNotFound, "LEAT_SOCK is somebody else's");
  }
  const nlohmann::json request = {
      {"do", "pull"}, {"source", source}, {"dir", dir}, {"strict_pins", strict_pins}};
  if (!IsText(request)) return Fail(Errc::kInvalid, Printable(dir) + ": its name is not UTF-8");
  if (!WriteLine(fd.get(), request)) {
    return Fail(Errc::kUnavailable, "the leat that runs this job does not answer");
  }
  const nlohmann::json answer = ParseJson(ReadLine(fd.get()));
  if (!answer.is_object()) return Fail(Errc::kUnavailable, "the leat that runs this job has gone");
  if (const std::string error = TextOf(answer, "error"); !error.empty())
    return Fail(Errc::kUnavailable, error);
  job::Pulled out;
  out.dir = TextOf(answer, "dir");
  out.files = answer.value("files", std::uint64_t{0});
  out.bytes = answer.value("bytes", std::uint64_t{0});
  out.requests = answer.value("requests", std::uint64_t{0});
  out.there_before = answer.value("there_before", false);
  out.etag = TextOf(answer, "etag");
  out.version_id = TextOf(answer, "versionId");
  out.pin = TextOf(answer, "pin");
  return out;
}

}  // namespace leat::engine::local
