#include "job/bind.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <optional>
#include <sstream>
#include <vector>

#include "base/log.h"
#include "os/file.h"
#include "os/mount.h"

namespace leat::job {
namespace {

/// Without empty components and "."; nullopt where there is "..".
std::optional<std::string> NormalPath(std::string_view path) {
  std::string out = path.starts_with('/') ? "/" : "";
  while (!path.empty()) {
    const std::string_view part = path.substr(0, path.find('/'));
    path.remove_prefix(std::min(part.size() + 1, path.size()));
    if (part == "..") return std::nullopt;
    if (part.empty() || part == ".") continue;
    if (!out.empty() && out != "/") out += '/';
    out += part;
  }
  return out;
}

/// `path` is `folder` or lies in it.
bool IsWithin(std::string_view path, std::string_view folder) {
  if (folder == "/") return true;
  return path.starts_with(folder) && (path.size() == folder.size() || path[folder.size()] == '/');
}

/// What the prober has seen.
struct Seen {
  int error = 0;
  bool empty_folder = false;
  char path[PATH_MAX] = {};  ///< without symbolic links, as far as there is something
};

/// Where `path` leads. What is missing is kept as it is written.
void FindPath(const char* path, char (&out)[PATH_MAX]) {
  char known[PATH_MAX];
  std::strncpy(known, path, sizeof(known) - 1);
  known[sizeof(known) - 1] = '\0';
  for (std::size_t size = std::strlen(known); size > 0;) {
    const int fd = ::open(known, O_PATH | O_CLOEXEC);
    if (fd >= 0) {
      char link[32] = "/proc/self/fd/";
      char digits[12];
      int n = 0;
      for (int rest = fd; n == 0 || rest > 0; rest /= 10)
        digits[n++] = static_cast<char>('0' + rest % 10);
      for (char* end = link + std::strlen(link); n > 0;) *end++ = digits[--n];
      const ssize_t length = ::readlink(link, out, sizeof(out) - 1);
      ::close(fd);
      if (length <= 0) return;
      out[length] = '\0';
      const std::size_t rest = std::strlen(path) - size;
      if (rest + static_cast<std::size_t>(length) < sizeof(out))
        std::memcpy(out + length, path + size, rest + 1);
      return;
    }
    while (size > 0 && known[size - 1] != '/') --size;
    while (size > 1 && known[size - 1] == '/') --size;
    known[size] = '\0';
  }
}

/// In a process that may never come back from here. (Where it was forked by one of several threads
/// it may make system calls, and nothing else.)
void Probe(const char* path, Seen& seen) {
  struct statx st;
  if (::statx(AT_FDCWD, path, AT_STATX_FORCE_SYNC, STATX_TYPE, &st) != 0) {
    seen.error = errno;
    FindPath(path, seen.path);
    return;
  }
  FindPath(path, seen.path);
  if (!S_ISDIR(st.stx_mode)) return;
  const int fd = ::open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) {
    // Who may only pass through it may still use what is in it.
    if (errno != EACCES) seen.error = errno;
    return;
  }
  alignas(dirent64) char buffer[4096];
  std::size_t entries = 0;
  for (;;) {
    const long n = ::syscall(SYS_getdents64, fd, buffer, sizeof(buffer));
    if (n < 0) seen.error = errno;
    if (n <= 0) break;
    for (long at = 0; at < n; ++entries)
      at += reinterpret_cast<const dirent64*>(buffer + at)->d_reclen;
    if (entries > 2) break;  // "." and ".." among them
  }
  seen.empty_folder = entries <= 2;
}

/// Waits for a prober that is about to end, but not for one that hangs in the kernel, which no
/// signal reaches: that one ends when its file system answers, or with its mount.
void EndProber(pid_t prober) {
  ::kill(prober, SIGKILL);
  for (int milliseconds = 0; milliseconds < 100; ++milliseconds) {
    const pid_t ended = ::waitpid(prober, nullptr, WNOHANG);
    if (ended == prober || (ended < 0 && errno != EINTR)) return;
    ::poll(nullptr, 0, 1);
  }
}

/// kUnavailable when there is no answer in time.
Result<Seen> ProbeWithin(const std::string& path, int seconds) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return FailErrno(errno, path);
  const os::UniqueFd from(ends[0]);
  os::UniqueFd to(ends[1]);
  const pid_t prober = ::fork();
  if (prober < 0) return FailErrno(errno, path);
  if (prober == 0) {
    // It keeps nothing open that others wait to see closed.
    ::dup2(to.get(), 0);
    ::close_range(1, ~0U, 0);
    static Seen seen;
    Probe(path.c_str(), seen);
    [[maybe_unused]] const ssize_t n = ::write(0, &seen, sizeof(seen));
    ::_exit(0);
  }
  to.Reset();
  const os::Cleanup end([&] { EndProber(prober); });
  Seen seen;
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
  for (std::size_t size = 0; size < sizeof(seen);) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(until - std::chrono::steady_clock::now());
    pollfd ready = {from.get(), POLLIN, 0};
    const int polled = left.count() <= 0 ? 0 : ::poll(&ready, 1, static_cast<int>(left.count()));
    if (polled < 0 && errno == EINTR) continue;
    if (polled <= 0) {
      return Fail(Errc::kUnavailable,
                  fmt::format("{}: its file system has not answered within {} s (is its server "
                              "down?)",
                              Printable(path), seconds));
    }
    const ssize_t n =
        ::read(from.get(), reinterpret_cast<char*>(&seen) + size, sizeof(seen) - size);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return Fail(Errc::kInternal, Printable(path) + ": its prober has ended");
    size += static_cast<std::size_t>(n);
  }
  return seen;
}

struct FstabEntry {
  std::string source;
  std::string dir;
};
std::vector<FstabEntry> ReadFstab(const std::string& file) {
  std::vector<FstabEntry> entries;
  std::istringstream lines(os::ReadFile(file).value_or(""));
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string source, dir, type;
    words >> source >> dir >> type;
    if (type.empty() || type == "swap" || source.starts_with('#')) continue;
    if (const auto normal = NormalPath(os::PlainMountPath(dir)); normal && dir.starts_with('/')) {
      entries.push_back({os::PlainMountPath(source), *normal});
    }
  }
  return entries;
}

/// The mount of fstab that `path` should lie on, and does not. `real` is the same without symbolic
/// links.
std::optional<FstabEntry> MissingMount(const std::string& path, const std::string& real,
                                       const std::string& fstab, const std::string& mountinfo) {
  std::optional<FstabEntry> nearest;
  for (FstabEntry& entry : ReadFstab(fstab)) {
    if (!IsWithin(real, entry.dir)) {
      // A link on the way: what it leads to has answered, other folders of fstab might not.
      char led[PATH_MAX];
      if (!IsWithin(path, entry.dir) || ::realpath(entry.dir.c_str(), led) == nullptr) continue;
      entry.dir = led;
      if (!IsWithin(real, entry.dir)) continue;
    }
    if (!nearest || entry.dir.size() > nearest->dir.size()) nearest = std::move(entry);
  }
  if (!nearest) return std::nullopt;
  for (const os::MountPoint& mount : os::MountTable(mountinfo)) {
    if (mount.dir.size() >= nearest->dir.size() && IsWithin(real, mount.dir)) return std::nullopt;
  }
  return nearest;
}

/// Errors of a server that does not answer as it should; it may later.
bool IsOfServer(int error) {
  return error == ENOTCONN || error == EIO || error == ETIMEDOUT || error == EHOSTUNREACH ||
         error == EHOSTDOWN || error == ECONNREFUSED || error == ECONNRESET ||
         error == ECONNABORTED || error == ENETUNREACH || error == EREMOTEIO;
}

}  // namespace

Result<BindMount> ParseBind(std::string_view text) {
  const auto wrong = [&](std::string_view why) {
    return Fail(Errc::kInvalid, fmt::format("the bind \"{}\": {}", Printable(text), why));
  };
  const std::size_t first = text.find(':');
  if (first == text.npos) return wrong("it is not HOST:CONTAINER, with :ro or :rw after it or not");
  const std::size_t second = text.find(':', first + 1);
  BindMount bind;
  bind.host_path = text.substr(0, first);
  bind.container_path = text.substr(first + 1, second == text.npos ? second : second - first - 1);
  if (second != text.npos) {
    const std::string_view mode = text.substr(second + 1);
    if (mode != "ro" && mode != "rw") return wrong("after the second colon comes ro or rw");
    bind.read_only = mode == "ro";
  }
  LEAT_RETURN_IF_ERROR(CheckBind(bind));
  bind.host_path = NormalPath(bind.host_path).value_or(bind.host_path);
  bind.container_path = NormalPath(bind.container_path).value_or(bind.container_path);
  return bind;
}

Result<Propagation> ParsePropagation(std::string_view text) {
  if (text == "rprivate" || text == "private") return Propagation::kPrivate;
  if (text == "rslave" || text == "slave") return Propagation::kSlave;
  if (text == "rshared" || text == "shared") return Propagation::kShared;
  return Fail(Errc::kInvalid, fmt::format("the propagation \"{}\" is none of rprivate, private, "
                                          "rslave, slave, rshared and shared",
                                          Printable(text)));
}

Status CheckBind(const BindMount& bind) {
  const auto wrong = [&](std::string_view why) {
    return Fail(Errc::kInvalid, fmt::format("the bind \"{}:{}\": {}", Printable(bind.host_path),
                                            Printable(bind.container_path), why));
  };
  if (!bind.host_path.starts_with('/'))
    return wrong("the path on the host must be absolute (it must begin with /)");
  const auto container = NormalPath(bind.container_path);
  if (!container) return wrong("the path in the container must not have \"..\"");
  if (bind.container_path.empty()) return wrong("the path in the container is empty");
  if (container->empty()) return wrong("the path in the container must not be \".\"");
  if (*container == "/") return wrong("the path in the container must not be \"/\"");
  return {};
}

Status CheckHostPath(const std::string& path, int seconds, const std::string& fstab,
                     const std::string& mountinfo) {
  if (!path.starts_with('/'))
    return Fail(Errc::kInvalid, Printable(path) + ": the path on the host must be absolute");
  LEAT_ASSIGN_OR_RETURN(const Seen seen, ProbeWithin(path, seconds));
  if (seen.error == ESTALE) {
    return Fail(Errc::kUnavailable,
                Printable(path) +
                    ": its file handle is stale: the server has gone or exports it "
                    "anew (unmount it with umount -l, and mount it again)");
  }
  if (IsOfServer(seen.error)) {
    return Fail(Errc::kUnavailable, fmt::format("{}: its file system does not work: {}",
                                                Printable(path), ::strerrordesc_np(seen.error)));
  }
  if (seen.error == ENOENT || seen.empty_folder) {
    const std::string normal = NormalPath(path).value_or(seen.path);
    const std::string real = seen.path[0] != '/' ? normal : seen.path;
    if (const auto missing = MissingMount(normal, real, fstab, mountinfo)) {
      const std::string dir = Printable(missing->dir);
      return Fail(Errc::kNotFound,
                  fmt::format("{}: /etc/fstab mounts {} {}, but it is not mounted (mount {})",
                              Printable(path), Printable(missing->source),
                              missing->dir == normal ? "there" : "at " + dir, dir));
    }
  }
  if (seen.error != 0) return FailErrno(seen.error, Printable(path));
  return {};
}

}  // namespace leat::job
