// The kernel's FUSE protocol <-> vfs, nothing else (design decisions 6 and 7).
#ifndef LEAT_FUSE_SERVER_H_
#define LEAT_FUSE_SERVER_H_

#include <sys/types.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "base/error.h"
#include "os/file.h"
#include "vfs/file_system.h"

namespace leat::fuse {

/// What must outlive a server that dies, in memory that its successor sees too: how often a file is
/// open past the cache's complete state, and the kernel's number of its backing file (0: none yet).
struct OpenRecord {
  std::atomic<std::uint32_t> plain_opens;
  std::atomic<std::int32_t> backing_id;
};

/// Zeroed memory is a valid value.
struct ConnectionRecord {
  std::atomic<std::uint32_t> initialised;
  std::atomic<std::uint32_t> has_resend;
  std::atomic<std::uint32_t> has_passthrough;
};

/// The kernel's number of a node of the `generation`th file system that a connection shows. The
/// root is the latest one's; every other node stays what it was.
constexpr std::uint64_t KernelNode(std::uint64_t generation, vfs::Node node) {
  return node == vfs::kRootNode ? node : generation << 40 | node;
}

struct ServerOptions {
  std::shared_ptr<vfs::FileSystem> fs;
  std::uint64_t generation = 0;  ///< of fs: how often it has been replaced before
  int fd = -1;                   ///< /dev/fuse (or a SOCK_SEQPACKET that plays it); borrowed
  /// Files are opened and released (so that complete large ones can be handed to the kernel); else
  /// OPEN is answered ENOSYS and no file costs a round trip to open. Holds for the connection's
  /// life.
  bool open_mode = false;
  std::span<OpenRecord> opens =
      {};  ///< of the files, by node number modulo its size; for open_mode
  ConnectionRecord* connection = nullptr;  ///< may be null
  /// The kernel has been through INIT with a server that died: asks it to send again what that one
  /// left unanswered.
  bool resume = false;
  /// Before Linux 6.9 a new server cannot ask again for what the dead one had read. There requests
  /// are read through clones of `fd` that only this process holds, opened from `device`: with their
  /// end the kernel fails those requests instead of leaving them waiting for ever. Empty: no
  /// clones.
  std::string device = {};
  bool use_resend = true;  ///< false: as on an old kernel
  uid_t uid = 0;
  gid_t gid = 0;
  std::size_t max_threads = 128;
};

/// Serves one connection on threads of its own until the kernel ends it. What it reads is trusted
/// to be from the kernel no further than that nothing in it can make the server read or write out
/// of bounds.
class Server {
 public:
  explicit Server(ServerOptions options);
  /// The connection must have ended (or the process is about to).
  ~Server();

  void Start();
  /// Returns when the connection has ended.
  void Wait();

  /// From now on the root is that of `next`, the file system of the next generation: what is opened
  /// is `next`'s, what is open stays what it is. A file system is let go of when the kernel has
  /// forgotten all its nodes. Not for open_mode; one thread at a time, none that answers requests.
  void Replace(std::shared_ptr<vfs::FileSystem> next);

  /// Handles one request as it was read; for fuzzing and tests.
  void Handle(std::span<const std::byte> request);

 private:
  struct State;
  void Loop();
  void SpawnThread();
  void UseClone();
  bool Interrupt(std::uint64_t unique);
  void Forget(const std::span<const std::byte> body, std::uint64_t node, bool batch);
  void HandleOn(int fd, std::span<const std::byte> request);

  ServerOptions options_;  // .fs went to the first view
  std::unique_ptr<State> state_;
};

/// Makes the kernel drop what it keeps of the file's bytes; on any thread but one that is to
/// answer a read, which the kernel would wait for. `fd` as ServerOptions::fd. Nothing happens where
/// the connection has ended. `node`: see KernelNode.
void DropPages(int fd, std::uint64_t node);

/// Answers everything with EIO: for the time after the data process has died too often.
void ServeErrors(int fd);

}  // namespace leat::fuse

#endif  // LEAT_FUSE_SERVER_H_
