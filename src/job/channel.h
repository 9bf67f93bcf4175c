// Messages between the supervisor, the data process and the job's builder: a kind, a text,
// descriptors.
#ifndef LEAT_JOB_CHANNEL_H_
#define LEAT_JOB_CHANNEL_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "os/file.h"

namespace leat::job {

enum class MessageKind : std::uint32_t {
  kReady,   ///< data process: attachment `number` is ready; text: how (see AttachResult); fd: what
            ///< the supervisor keeps of it (see Attachment)
  kFailed,  ///< either: text is the sentence to show
  kAttached,   ///< data process: all attachments are ready
  kRefreshed,  ///< data process: attachment 0 shows another snapshot from now on, `number` in its
               ///< row; fd: what is kept of it
  kRefresh,    ///< supervisor: look now whether the source has changed
  kServe,      ///< supervisor: serve attachment `number` on the descriptor
  kFinish,     ///< supervisor: the job has ended; exit
  kDevice,     ///< builder: the FUSE descriptor of attachment `number`
  kMade,       ///< builder: text is a folder of the host that was made as a mount point
  kUses,       ///< builder: fd is a folder of the host that a mount lies on, locked
  kRunning,    ///< init: the command has been executed, and has the terminal's signals itself
  kStarted,    ///< builder: number is the pid of the job's init
  kSignal,     ///< supervisor: number is a signal for the job
  kExited,     ///< init: number is the job's wait status
  kExecError,  ///< init: number is the errno of execve, text what was not executed
};

struct Message {
  MessageKind kind = MessageKind::kFailed;
  std::int64_t number = 0;
  std::string text;
  os::UniqueFd fd;
};

/// One end of a socket pair. Movable; not thread-safe.
class Channel {
 public:
  Channel() = default;
  explicit Channel(os::UniqueFd fd) : fd_(std::move(fd)) {}

  static Result<std::pair<Channel, Channel>> MakePair();
  Status Send(MessageKind kind, std::int64_t number = 0, const std::string& text = "", int fd = -1);
  /// Blocks; nullopt when the other end is gone.
  std::optional<Message> Receive();

  int fd() const { return fd_.get(); }
  void Close() { fd_.Reset(); }

 private:
  os::UniqueFd fd_;
};

}  // namespace leat::job

#endif  // LEAT_JOB_CHANNEL_H_
