#include "engine/local/links.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>

#include "base/log.h"
#include "os/mount.h"

namespace leat::engine::local {
namespace {

std::string ReadLink(const std::string& path) {
  std::string out(PATH_MAX, '\0');
  const ssize_t n = ::readlink(path.c_str(), out.data(), out.size());
  out.resize(n < 0 ? 0 : static_cast<std::size_t>(n));
  return out;
}

/// Takes away a run's folder: mounts first, so that nothing behind them is touched.
void Remove(const std::string& path) {
  const auto names = os::ListDir(path);
  if (!names) return;
  for (const std::string& name : *names) {
    const std::string entry = path + "/" + name;
    if (::unlink(entry.c_str()) == 0 || ::rmdir(entry.c_str()) == 0) continue;
    if (name == "context") {  // never a mount: a job has it in its own namespace
      (void)os::RemoveTree(entry);
      continue;
    }
    const Status unmounted = os::FusermountUnmount(entry);
    if (::rmdir(entry.c_str()) == 0) continue;
    if (errno != EBUSY) {
      (void)os::RemoveTree(entry);
    } else if (!unmounted) {
      // Nobody may be there to answer who looks into it.
      Say(fmt::format("{} stays mounted: {}", entry, unmounted.error().message()));
    }
  }
  ::rmdir(path.c_str());
}

/// One run at a time makes its folder, or looks at what others have left: in between, what is new
/// looks like what is left over. Beside the folder of the runs, which is empty when none lives.
Result<os::UniqueFd> LockRuns(const std::string& mounts_dir) {
  LEAT_ASSIGN_OR_RETURN(os::UniqueFd lock, os::Open(mounts_dir + ".lock", O_RDWR | O_CREAT));
  LEAT_RETURN_IF_ERROR(os::FlockWithin(lock.get(), true, std::chrono::seconds(30)));
  return lock;
}

}  // namespace

Result<std::unique_ptr<RunFolder>> RunFolder::Make(const std::string& mounts_dir,
                                                   const std::string& run_id) {
  LEAT_RETURN_IF_ERROR(os::MakeDirs(mounts_dir, 0700));
  LEAT_ASSIGN_OR_RETURN(const os::UniqueFd alone, LockRuns(mounts_dir));
  if (const auto runs = os::ListDir(mounts_dir)) {
    for (const std::string& run : *runs) {
      const std::string path = mounts_dir + "/" + run;
      const auto lock = os::Open(path + "/lock", O_RDWR);
      if (!lock || os::Flock(lock->get(), true, false)) Remove(path);
    }
  }
  std::unique_ptr<RunFolder> folder(new RunFolder(mounts_dir, mounts_dir + "/" + run_id));
  LEAT_RETURN_IF_ERROR(os::MakeDirs(folder->path_, 0700));
  LEAT_ASSIGN_OR_RETURN(folder->lock_, os::Open(folder->path_ + "/lock", O_RDWR | O_CREAT));
  LEAT_RETURN_IF_ERROR(os::Flock(folder->lock_.get(), true, true));
  return folder;
}

RunFolder::~RunFolder() {
  for (const std::string& link : links_) {
    if (ReadLink(link).starts_with(path_ + "/")) ::unlink(link.c_str());
  }
  Remove(path_);
}

Result<os::UniqueFd> RunFolder::MountFuse(std::size_t i, bool allow_other) {
  const std::string dir = fmt::format("{}/{}", path_, i);
  LEAT_RETURN_IF_ERROR(os::MakeDirs(dir, 0700));
  return os::FusermountMount(dir, allow_other);
}

bool RunFolder::IsStale(const std::string& link) const {
  const std::string to = ReadLink(link);
  if (!to.starts_with(mounts_dir_ + "/") || to.starts_with(path_ + "/")) return false;
  const std::string run = to.substr(0, to.find('/', mounts_dir_.size() + 1));
  const auto lock = os::Open(run + "/lock", O_RDWR);
  return !lock || os::Flock(lock->get(), true, false).has_value();
}

Status RunFolder::Link(std::size_t i, const job::Attachment& attachment) {
  const std::string& target = attachment.spec.target;
  const std::string place = fmt::format("{}/{}", path_, i);
  if (attachment.result.how == job::AttachResult::How::kBind) {
    if (::symlink(attachment.result.path.c_str(), place.c_str()) != 0)
      return FailErrno(errno, place);
  } else if (attachment.result.how == job::AttachResult::How::kBindFile) {
    LEAT_RETURN_IF_ERROR(os::MakeDirs(place, 0700));
    if (::symlink(attachment.result.path.c_str(), (place + "/" + attachment.result.name).c_str()) !=
        0)
      return FailErrno(errno, place);
  }
  LEAT_ASSIGN_OR_RETURN(const os::UniqueFd alone, LockRuns(mounts_dir_));
  if (os::Exists(target)) {
    if (!IsStale(target) || ::unlink(target.c_str()) != 0) {
      return Fail(Errc::kConflict, fmt::format("the target {} exists, and without namespaces "
                                               "nothing can be put over it; choose a path where "
                                               "nothing is",
                                               target));
    }
  }
  if (::symlink(place.c_str(), target.c_str()) != 0) {
    const int error = errno;
    const std::string parent = target.substr(0, std::max<std::size_t>(target.rfind('/'), 1));
    return FailErrno(error, fmt::format("the target {} needs a link in {}, since there are no "
                                        "namespaces here, and that cannot be made",
                                        target, parent));
  }
  links_.push_back(target);
  return {};
}

}  // namespace leat::engine::local
