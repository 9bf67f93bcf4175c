#include "engine/local/mount_record.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <sstream>

#include "base/bytes.h"
#include "digest/digest.h"

namespace leat::engine::local {
namespace {

std::string PathOf(const job::Home& home, const std::string& dir, const char* suffix) {
  return fmt::format("{}/mounts/{:016x}{}", home.dir, digest::Xxh3(AsBytes(dir)), suffix);
}

}  // namespace

std::string MountLogPath(const job::Home& home, const std::string& dir) {
  return PathOf(home, dir, ".log");
}

Result<os::UniqueFd> LockMountRecord(const job::Home& home, const std::string& dir, bool seen) {
  LEAT_RETURN_IF_ERROR(os::MakeDirs(home.dir + "/mounts"));
  const std::string path = PathOf(home, dir, "");
  auto fd = os::OpenLocked(path, O_RDWR | O_CREAT);
  if (!fd && fd.error().code() == Errc::kConflict && !seen && ReadMountRecord(home, dir)) {
    ::unlink(path.c_str());
    fd = os::OpenLocked(path, O_RDWR | O_CREAT);
  }
  // (empty: not mounted yet)
  if (fd && ::ftruncate(fd->get(), 0) != 0) return FailErrno(errno, path);
  return fd;
}

Status WriteMountRecord(const os::UniqueFd& locked, const MountRecord& record) {
  const std::string text =
      fmt::format("{}\n{}\n{}\n{}\n", record.pid, record.since, record.log, record.source);
  if (::ftruncate(locked.get(), 0) != 0) return FailErrno(errno, "noting a mount");
  return os::PwriteAll(locked.get(), AsBytes(text), 0);
}

std::optional<MountRecord> ReadMountRecord(const job::Home& home, const std::string& dir) {
  const std::string path = PathOf(home, dir, "");
  {
    const auto fd = os::Open(path, O_RDWR);
    if (!fd || os::Flock(fd->get(), false, false)) return std::nullopt;
  }
  const auto text = os::ReadFile(path);
  if (!text) return std::nullopt;
  MountRecord record;
  std::istringstream lines(*text);
  lines >> record.pid >> record.since;
  lines.ignore(1);
  if (!std::getline(lines, record.log) || !std::getline(lines, record.source)) return std::nullopt;
  return record;
}

void RemoveMountRecord(const job::Home& home, const std::string& dir, const os::UniqueFd& locked) {
  const std::string path = PathOf(home, dir, "");
  struct stat ours, there;
  if (::fstat(locked.get(), &ours) == 0 && ::stat(path.c_str(), &there) == 0 &&
      ours.st_ino == there.st_ino && ours.st_dev == there.st_dev) {
    ::unlink(path.c_str());
  }
}

}  // namespace leat::engine::local
