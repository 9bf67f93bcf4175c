#include "engine/local/data_supervisor.h"

#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/log.h"

namespace leat::engine::local {

using namespace std::chrono_literals;

namespace {

constexpr std::size_t kDeathsInAMinute = 5;

std::string HowItDied(int status) {
  if (WIFSIGNALED(status))
    return fmt::format("was killed by signal {} ({})", WTERMSIG(status),
                       ::strsignal(WTERMSIG(status)));
  return fmt::format("ended with status {}", WEXITSTATUS(status));
}

}  // namespace

DataSupervisor::DataSupervisor(std::vector<job::Attachment>& attachments, job::DataOptions options,
                               std::function<void()> close_in_child)
    : attachments_(attachments),
      options_(std::move(options)),
      close_in_child_(std::move(close_in_child)) {}

DataSupervisor::~DataSupervisor() {
  if (pid_ <= 0) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

Status DataSupervisor::Start() {
  LEAT_ASSIGN_OR_RETURN(auto ends, job::Channel::MakePair());
  const pid_t pid = ::fork();
  if (pid < 0) return FailErrno(errno, "starting the data process");
  if (pid == 0) {
    ends.first.Close();
    channel_.Close();
    close_in_child_();
    if (given_up_) job::RunErrorProcess(attachments_, options_, std::move(ends.second));
    job::RunDataProcess(attachments_, options_, std::move(ends.second));
  }
  pid_ = pid;
  channel_ = std::move(ends.first);
  return {};
}

Status DataSupervisor::Attach(int signals, const std::function<bool()>& interrupted) {
  LEAT_RETURN_IF_ERROR(Start());
  for (;;) {
    pollfd polled[2] = {{channel_.fd(), POLLIN, 0}, {signals, POLLIN, 0}};
    if (::poll(polled, 2, -1) < 0) {
      if (errno == EINTR) continue;
      return FailErrno(errno, "waiting for the data process");
    }
    if (polled[0].revents != 0) {
      auto message = channel_.Receive();
      if (!message) {
        int status = 0;
        ::waitpid(std::exchange(pid_, -1), &status, 0);
        return Fail(Errc::kInternal,
                    "the data process " + HowItDied(status) + " while it attached the sources");
      }
      switch (message->kind) {
        case job::MessageKind::kReady: {
          job::Attachment& attachment = attachments_[static_cast<std::size_t>(message->number)];
          attachment.result = job::AttachResult::Decode(message->text);
          attachment.kept = std::move(message->fd);
          break;
        }
        case job::MessageKind::kFailed:
          return Fail(Errc::kInvalid, message->text);
        case job::MessageKind::kAttached:
          return {};
        default:
          return Fail(Errc::kInternal, "the data process said something unexpected");
      }
      continue;
    }
    if (polled[1].revents != 0 && interrupted()) return Fail(Errc::kCancelled, "interrupted");
  }
}

Status DataSupervisor::Serve(std::size_t i, os::UniqueFd device) {
  const Status sent =
      channel_.Send(job::MessageKind::kServe, static_cast<std::int64_t>(i), "", device.get());
  attachments_[i].device = std::move(device);
  // A process that has just died gets its descriptor when it is started again.
  if (!sent) Debug(sent.error().message());
  return {};
}

void DataSupervisor::OnChannel() {
  if (auto message = channel_.Receive()) {
    if (message->kind == job::MessageKind::kFailed) Say(message->text);
    if (message->kind == job::MessageKind::kRefreshed) {
      attachments_[0].kept = std::move(message->fd);
      attachments_[0].generation = static_cast<std::uint64_t>(message->number);
    }
    return;
  }
  int status = 0;
  ::waitpid(pid_, &status, 0);
  pid_ = -1;
  const auto now = std::chrono::steady_clock::now();
  deaths_.push_back(now);
  while (now - deaths_.front() > 60s) deaths_.pop_front();
  if (given_up_) return GiveUp();
  if (deaths_.size() >= kDeathsInAMinute) {
    given_up_ = true;
    Say(
        fmt::format("the data process {} for the {}th time within a minute: from now on every read "
                    "of the data fails (EIO)",
                    HowItDied(status), deaths_.size()));
  } else {
    Say(fmt::format("the data process {}; it is started again, and reads go on",
                    HowItDied(status)));
  }
  StartAgain();
}

void DataSupervisor::Refresh() { (void)channel_.Send(job::MessageKind::kRefresh); }

void DataSupervisor::Retry() {
  if (retrying_) StartAgain();
}

void DataSupervisor::StartAgain() {
  const Status started = Start();
  const auto now = std::chrono::steady_clock::now();
  if (started) {
    retrying_ = false;
  } else if (!retrying_) {
    // Out of memory or of processes, for the moment perhaps.
    Say(started.error().message() + ": it is tried for half a minute");
    retrying_ = true;
    retrying_since_ = now;
  } else if (now - retrying_since_ > 30s) {
    Say(started.error().message() + ": from now on every read of the data fails");
    GiveUp();
  }
}

/// Nobody is left to answer: without the devices the kernel ends the reads instead of letting them
/// wait.
void DataSupervisor::GiveUp() {
  retrying_ = false;
  for (job::Attachment& attachment : attachments_) attachment.device.Reset();
  channel_.Close();
}

void DataSupervisor::Finish() {
  if (pid_ <= 0) return;
  (void)channel_.Send(job::MessageKind::kFinish);
  // It may be syncing files that it has just completed. Longer than this is not worth anybody's
  // waiting.
  pollfd polled = {channel_.fd(), POLLIN, 0};
  if (::poll(&polled, 1, 5000) == 0) ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

}  // namespace leat::engine::local
