#include "dataset/lease.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cerrno>
#include <condition_variable>
#include <cstdlib>
#include <functional>
#include <mutex>
#include <random>
#include <string_view>
#include <utility>

#include "base/bytes.h"

namespace leat::dataset {
namespace {

using Clock = std::chrono::steady_clock;

/// "<machine> <pid> <random>\n<beats, ten digits>\n"
struct Text {
  std::string holder;
  std::string beats;

  static std::string Encode(const std::string& holder, std::uint64_t beats) {
    return fmt::format("{}\n{:010}\n", holder, beats % 10'000'000'000);
  }
  /// Read by a fresh open, which is what makes a network file system ask its server. Both empty:
  /// there is none.
  static Text Read(const std::string& path) {
    const auto text = os::ReadFile(path, 4096);
    if (!text) return {};
    const std::size_t end = text->find('\n');
    if (end == std::string::npos) return {*text, ""};
    return {text->substr(0, end), text->substr(end + 1)};
  }
  bool operator==(const Text&) const = default;
};

/// This machine since it was started: processes that share it share its locks.
const std::string& Machine() {
  static const std::string name = [] {
    utsname host = {};
    ::uname(&host);
    return fmt::format("{}/{}", host.nodename, os::BootId());
  }();
  return name;
}

std::string NewHolder() {
  std::random_device random;
  return fmt::format("{} {} {:08x}{:08x}", Machine(), ::getpid(), random(), random());
}

/// Whether its holder ran on this machine and has ended.
bool HasDied(const std::string& path, const Text& text) {
  if (!text.holder.starts_with(Machine() + " ")) return false;
  const auto file = os::Open(path, O_RDWR);
  return file && os::Flock(file->get(), true, false).has_value() && Text::Read(path) == text;
}

/// Removes the lease that says `text`, and no other. False: it is another by now.
bool Break(const std::string& path, const Text& text, const std::string& by) {
  // Only one rename of a file succeeds, but what is renamed may be the lease that another has taken
  // meanwhile.
  const std::string aside = fmt::format("{}.{}", path, by.substr(by.rfind(' ') + 1));
  if (::rename(path.c_str(), aside.c_str()) != 0) return false;
  const bool right = Text::Read(aside) == text;
  // (Where a third has come in between, the one that lives finds out by its next beat.)
  if (!right) (void)::link(aside.c_str(), path.c_str());
  ::unlink(aside.c_str());
  return right;
}

}  // namespace

LeaseTimes LeaseTimes::Default() {
  LeaseTimes times;
  if (const char* text = std::getenv("LEAT_LEASE_SECONDS")) {
    if (const auto seconds = ParseSeconds(text); seconds && seconds->count() > 0) {
      times.dead = *seconds;
      times.beat = times.dead / 10;
      times.look = times.dead / 20;
    }
  }
  return times;
}

Result<std::unique_ptr<Lease>> Lease::Take(
    const std::string& path, const LeaseTimes& times, const CallContext& ctx,
    const std::function<bool(const std::string& holder)>& waiting) {
  std::unique_ptr<Lease> lease(new Lease(path, NewHolder(), times));
  const std::string fresh =
      fmt::format("{}.{}", path, lease->holder_.substr(lease->holder_.rfind(' ') + 1));
  Text seen;
  Clock::time_point since = {};
  for (;;) {
    // It appears with its contents: a name for a file that is written and locked already.
    {
      LEAT_ASSIGN_OR_RETURN(lease->file_, os::Open(fresh, O_RDWR | O_CREAT | O_TRUNC, 0666));
      const os::Cleanup remove([&] { ::unlink(fresh.c_str()); });
      if (Status written =
              os::PwriteAll(lease->file_.get(), AsBytes(Text::Encode(lease->holder_, 0)), 0);
          !written) {
        return Fail(std::move(written), "taking the lease " + path);
      }
      // (Without locks, waiting for the beats to end does.)
      (void)os::Flock(lease->file_.get(), true, false);
      ::fsync(lease->file_.get());
      if (::link(fresh.c_str(), path.c_str()) == 0) break;
      // The answer to a link over a network may be lost; who has the name tells.
      const int error = errno;
      if (Text::Read(path).holder == lease->holder_) break;
      // (The lease's holder has swept the folder; where that is gone, there is nothing to take.)
      if (error == ENOENT && os::Exists(path.substr(0, path.rfind('/')))) continue;
      if (error != EEXIST) return FailErrno(error, "taking the lease " + path);
    }
    const Text now = Text::Read(path);
    if (!now.holder.empty() && !(now == seen)) {
      seen = now;
      since = Clock::now();
    }
    if (!now.holder.empty() && (HasDied(path, now) || Clock::now() - since > times.dead)) {
      (void)Break(path, now, lease->holder_);
      seen = {};
      continue;
    }
    if (ctx.cancelled()) return Fail(Errc::kCancelled, "cancelled");
    // (Nobody: it was given back just now, or this machine does not see yet that it is another's.)
    if (!now.holder.empty() && !waiting(now.holder.substr(0, now.holder.find('/'))))
      return Fail(Errc::kConflict, "another process holds the lease " + path);
    std::this_thread::sleep_for(times.look);
  }
  lease->heart_ =
      std::jthread([raw = lease.get()](const std::stop_token& stop) { raw->Beat(stop); });
  return lease;
}

Lease::~Lease() {
  heart_.request_stop();
  if (heart_.joinable()) heart_.join();
  if (Check()) ::unlink(path_.c_str());
}

Status Lease::Check() {
  if (!lost_.stop_requested() && Text::Read(path_).holder == holder_) return {};
  lost_.request_stop();
  return Fail(
      Errc::kConflict,
      fmt::format("the lease {} was taken over by another process, which took this one for dead",
                  path_));
}

void Lease::Beat(const std::stop_token& stop) {
  std::mutex mutex;
  std::condition_variable_any wake;
  std::unique_lock lock(mutex);
  for (;;) {
    wake.wait_for(lock, stop, times_.beat, [] { return false; });
    if (stop.stop_requested() || !Check()) return;
    // By a descriptor of its own: closing it is what sends the bytes to a server.
    if (const auto file = os::Open(path_, O_WRONLY)) {
      (void)os::PwriteAll(file->get(), AsBytes(Text::Encode(holder_, ++beats_)), 0);
      ::fsync(file->get());
    }
  }
}

}  // namespace leat::dataset
