// The process that holds all data paths of a run: attaches sources, serves FUSE requests, fills the
// cache. It may die at any moment and be started again (design decision 12).
#ifndef LEAT_JOB_DATA_PROCESS_H_
#define LEAT_JOB_DATA_PROCESS_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cache/cache.h"
#include "fuse/server.h"
#include "job/channel.h"
#include "job/home.h"
#include "job/mount_spec.h"
#include "os/file.h"
#include "store/decorators.h"
#include "vfs/file_system.h"

namespace leat::job {

inline constexpr std::size_t kOpenRecords = 1 << 16;

/// What is known of one attachment, in memory that supervisor and data processes share, so that it
/// outlives each data process. Zeroed memory is a valid value.
struct Board {
  store::RequestCounts requests;
  cache::CacheCounts cache;
  vfs::ReadCounts reads;
  fuse::ConnectionRecord connection;
  std::atomic<std::uint64_t> files, bytes,
      cached_bytes;  ///< of the snapshot; in the cache when attached
  std::atomic<std::uint64_t> estimated_requests;
  fuse::OpenRecord opens[kOpenRecords];
};

/// How an attachment is to be put at its target.
struct AttachResult {
  enum class How : std::uint8_t {
    kFuse,       ///< small files: no file costs a round trip to open
    kFuseOpens,  ///< large files: complete ones are handed to the kernel
    kBind,       ///< a folder of the host
    kBindFile,   ///< a file of the host, under its name in the target
    kMount,      ///< a file system that is nowhere else: Attachment::kept is its detached mount
  } how = How::kFuse;
  std::string path;  ///< kBind: of the folder; kBindFile: of the file
  std::string name;  ///< kBindFile: its name in the target

  std::string Encode() const;
  static AttachResult Decode(const std::string& text);
};

struct Attachment {
  MountSpec spec;
  Board* board = nullptr;
  std::vector<std::string> nested;  ///< targets of other attachments inside this one, relative
  // Known once it has been attached:
  AttachResult result;
  os::UniqueFd kept;  ///< the snapshot's file; of a copy, what keeps its tree; of a mount, itself
  std::uint64_t generation = 0;  ///< how often the snapshot has been replaced
  os::UniqueFd device;
};

struct DataOptions {
  Home home;
  bool strict = false;       ///< names that cannot be files are an error
  bool plan_only = false;    ///< --dry-run: no probe, no copy
  std::string lock_file;     ///< gets what the sources were resolved to; empty: none
  bool passthrough = false;  ///< this user may hand files to the kernel
  bool fuse = true;          ///< false: stream is impossible here; why
  std::string no_fuse_reason;
  uid_t uid = 0;
  gid_t gid = 0;
  std::string fuse_device;
  /// Set: looks for changes of attachment 0's source, so often and when it is told to (0: then
  /// alone).
  std::optional<std::chrono::seconds> refresh;
  bool use_resend = true;  ///< false: as on a kernel before 6.9
  pid_t supervisor = 0;    ///< without which a data process ends
};

/// The body of the data process; never returns. Attaches (or, where devices are there already, goes
/// on serving them), says so on `channel`, and serves until the channel ends.
[[noreturn]] void RunDataProcess(std::vector<Attachment>& attachments, const DataOptions& options,
                                 Channel channel);

/// The body of the process that answers with EIO after too many deaths.
[[noreturn]] void RunErrorProcess(const std::vector<Attachment>& attachments,
                                  const DataOptions& options, Channel channel);

/// A folder or file of this machine as an attachment.
Result<AttachResult> AttachLocal(const MountSpec& spec);

}  // namespace leat::job

#endif  // LEAT_JOB_DATA_PROCESS_H_
