// A snapshot as a read-only file system: inodes, lookup, reads with readahead. Knows neither FUSE's
// protocol nor any store.
#ifndef LEAT_VFS_FILE_SYSTEM_H_
#define LEAT_VFS_FILE_SYSTEM_H_

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/context.h"
#include "base/error.h"
#include "base/thread_pool.h"
#include "cache/cache.h"
#include "snapshot/content.h"

namespace leat::vfs {

/// An inode's number: 1 is the root, then directories, then files, in the snapshot's order. The
/// same snapshot gives the same numbers, in every process that serves it.
using Node = std::uint64_t;
inline constexpr Node kRootNode = 1;

struct Attributes {
  Node node = 0;
  bool is_dir = false;
  std::uint64_t size = 0;
  std::int64_t mtime_ns = 0;
  std::uint32_t links = 1;
};

/// Moved by readers; zeroed memory is a valid value.
struct ReadCounts {
  std::atomic<std::uint64_t> reads{0}, read_bytes{0}, files{0}, errors{0};
  std::atomic<std::uint64_t> waited_ns{
      0};  ///< time that reads waited for bytes, added up over readers
};

struct FileSystemOptions {
  std::shared_ptr<const snapshot::Content> content;
  cache::Cache* cache = nullptr;  ///< outlives the file system
  ReadCounts* counts = nullptr;   ///< likewise
  /// Directories that exist beside the snapshot's, for what is mounted inside this tree: "extra",
  /// "a/b".
  std::vector<std::string> extra_directories = {};
  /// Told once a file why a read of it failed: its path below the root.
  std::function<void(std::string_view path, const Error&)> on_error = {};
  /// Told that bytes which were read of a large file have turned out wrong: what the caller keeps
  /// of them must go. Reads fail by then; on a thread for which no reader waits, as long as the
  /// cache lives.
  std::function<void(Node)> on_wrong = {};
  std::size_t file_systems = 1;  ///< of this process, which share its file descriptors
  std::uint64_t readahead_max = 32 * kMiB;
  std::uint32_t prefetch_files = 64;
  std::uint64_t prefetch_bytes = 32 * kMiB;
  std::size_t prefetch_threads = 32;
  bool sibling_prefetch = true;
};

/// Thread-safe.
class FileSystem {
 public:
  explicit FileSystem(FileSystemOptions options);
  ~FileSystem();
  FileSystem(const FileSystem&) = delete;
  FileSystem& operator=(const FileSystem&) = delete;

  std::optional<Node> Lookup(Node directory, std::string_view name) const;
  /// nullopt for a number that names nothing.
  std::optional<Attributes> Stat(Node node) const;
  Node Parent(Node directory) const;

  /// Entries of a directory from position `from` on (without . and ..), until `visit` returns
  /// false. Positions are stable.
  void ReadDirectory(Node directory, std::uint64_t from,
                     const std::function<bool(std::uint64_t position, std::string_view name,
                                              Node node)>& visit) const;

  /// The bytes [offset, offset + length), fewer at the end of the file, if no waiting is needed for
  /// them.
  std::optional<cache::Data> TryRead(Node file, std::uint64_t offset, std::uint64_t length);
  /// The same, fetched where they are not here.
  Result<cache::Data> Read(Node file, std::uint64_t offset, std::uint64_t length,
                           const CallContext& ctx);

  /// A descriptor from which the kernel itself may read the whole file; -1 where it is not complete
  /// in the cache.
  os::UniqueFd PassthroughFd(Node file);
  /// What Read gave for this range could not be read after all (its disk failed): it is not in the
  /// cache any more.
  void Forget(Node file, std::uint64_t offset, std::uint64_t length);
  /// Syncs and verifies the large files that have become complete, so that the next start may hand
  /// them to the kernel.
  void FinishFiles(const CallContext& ctx);

  /// "user.leat.source" and so on; nullopt: no such attribute.
  std::optional<std::string> Attribute(Node node, std::string_view name) const;
  std::vector<std::string> AttributeNames(Node node) const;
  /// More attributes of the root, computed when they are read.
  void SetRootAttribute(std::string name, std::function<std::string()> value);

  std::uint64_t total_bytes() const;
  std::uint64_t node_count() const { return first_extra_ + extra_.size() - 1; }
  bool IsDirectory(Node node) const;
  std::string PathOf(Node node) const;

 private:
  struct Extra {
    Node parent;
    std::string name;
  };
  struct Streams;
  struct Open;
  struct Table;
  struct Failures;
  class LargeFetcher;

  bool IsFile(Node node) const { return node >= first_file_ && node < first_extra_; }
  snapshot::FileIndex FileOf(Node node) const {
    return static_cast<snapshot::FileIndex>(node - first_file_);
  }
  cache::FileKey KeyOf(snapshot::FileIndex file) const;
  std::shared_ptr<Open> OpenLarge(snapshot::FileIndex file);
  void Plan(Open& open, std::uint64_t offset, std::uint64_t length);
  void Siblings(snapshot::FileIndex file, bool missed);
  void Prefetch(snapshot::FileIndex file);
  void NoteRead(snapshot::FileIndex file, std::uint64_t bytes);

  const FileSystemOptions options_;
  const snapshot::Snapshot& index_;
  const Node first_file_, first_extra_;
  std::vector<Extra> extra_;
  std::vector<std::pair<std::string, std::function<std::string()>>> root_attributes_;
  std::shared_ptr<cache::Lease> lease_;
  std::unique_ptr<Table> table_;
  std::unique_ptr<Streams> siblings_;
  std::shared_ptr<Failures> failures_;
  std::vector<std::atomic<std::uint64_t>> seen_;  // a bit a file: has been read
  std::stop_source stop_;
  std::unique_ptr<ThreadPool> prefetch_;
};

}  // namespace leat::vfs

#endif  // LEAT_VFS_FILE_SYSTEM_H_
