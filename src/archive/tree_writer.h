// Members become files, folders and links below a folder, by several threads. Private to this
// folder.
#ifndef LEAT_ARCHIVE_TREE_WRITER_H_
#define LEAT_ARCHIVE_TREE_WRITER_H_

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "archive/buffers.h"
#include "archive/expand.h"
#include "archive/failure.h"
#include "archive/member.h"
#include "archive/zip_directory.h"
#include "os/file.h"

namespace leat::archive {

/// How many bytes a member may have to be held whole, before it is written.
inline constexpr std::uint64_t kSmallMember = std::uint64_t{1} << 20;

class FileTask;
struct WriteJob;

/// For one thread, but for written(). No link is followed that the archive may have made: folders
/// are opened without following any, and links are made when everything else is there.
class TreeWriter {
 public:
  /// All outlive it. `threads` write.
  TreeWriter(const ExpandOptions& options, int root, std::size_t threads,
             std::shared_ptr<BufferPool> pool, Failure& failure);
  ~TreeWriter();

  /// Whether there is room for so much; kNoSpace with what is needed.
  Status CheckRoom(std::uint64_t bytes, std::uint64_t inodes) const;

  /// One member after the other: Begin, Data, End. `zip`: what comes is encoded as that says.
  Status Begin(const Member& member, const ZipMember* zip = nullptr);
  /// Without an owner the bytes are copied.
  Status Data(std::span<const std::byte> bytes, const std::shared_ptr<const Buffer>& owner);
  Status End();
  /// Hands on what has been gathered: before whoever brings bytes is waited for.
  Status Flush();
  /// Makes a member's place known, which an earlier attempt has finished.
  Status Adopt(const Member& member);
  /// Whether an earlier attempt has finished it.
  bool IsFinished(const Member& member) const;

  /// When all members have come: links, and the times of folders.
  Result<Expanded> Finish();

  std::uint64_t written() const { return written_; }

 private:
  struct Node {
    enum class Kind : std::uint8_t { kDirectory, kFile, kHardLink, kSymlink } kind = Kind::kFile;
    std::uint64_t bytes = 0;                    // that were counted
    std::optional<std::int64_t> mtime_ns = {};  // of a directory that is a member; of a symlink
    std::string target = {};                    // of a symlink
  };
  struct HardLink {
    std::string path, target;
  };
  using Directory = std::shared_ptr<os::UniqueFd>;  // shared by what is to be written into it
  struct Worker {
    std::deque<WriteJob> jobs;
    std::uint64_t bytes = 0;
    bool busy = false;
    std::jthread thread;
  };

  Result<Directory> DirectoryAt(std::string_view path, std::string_view member);
  Status MakeDirectories(std::string_view path, std::string_view member);
  Result<Directory> OpenDirectory(const std::string& path) const;
  Status MakeDirectory(const std::string& path, const Member& member);
  /// The place is free then: of something that stood there before, the last wins.
  Status Claim(const std::string& path, Node node, std::string_view member);
  Status AddHardLink(const std::string& path, const Member& member);
  Status AddSymlink(const std::string& path, const Member& member, std::string target);
  Status MakeHardLinks();
  Status MakeSymlinks();
  Status SetDirectoryTimes();
  bool LeadsOut(const std::string& path, const std::string& target) const;
  Status Count(std::uint64_t bytes, std::uint64_t inodes, std::string_view member);
  void Note(std::string note);

  void Add(std::span<const std::byte> bytes, std::shared_ptr<const Buffer> owner);
  Status AddCopied(std::span<const std::byte> bytes);
  Status Submit(bool last);
  Status Drain();
  void Work(std::size_t worker);

  const ExpandOptions& options_;
  const int root_;
  const std::shared_ptr<BufferPool> pool_;  // shared with its buffers
  Failure& failure_;
  std::atomic<std::uint64_t> written_{0}, resumed_{0};

  // What is in the tree; the root is "".
  std::unordered_map<std::string, Node> nodes_;
  std::uint64_t names_bytes_ = 0;
  std::unordered_set<std::uint64_t> folded_;  // hashes of names in lower case
  std::uint64_t only_case_ = 0, replaced_ = 0;
  std::string first_only_case_, first_replaced_;
  std::vector<std::string> symlinks_;
  std::vector<HardLink> hard_links_;
  std::vector<std::pair<std::string, Directory>> directories_;  // used last; the last is the newest
  std::uint64_t inodes_ = 0;
  Expanded result_;

  // The member under way.
  std::shared_ptr<FileTask> task_;  // shared with its jobs
  std::vector<Slice> slices_;
  std::uint64_t sliced_ = 0;
  std::size_t worker_of_task_ = SIZE_MAX;
  bool streamed_ = false;            // parts of it have been submitted
  std::shared_ptr<Buffer> copy_;     // copied bytes go here
  std::optional<std::string> text_;  // a symlink's target, as its contents
  const ZipMember* zip_ = nullptr;
  Member member_;

  std::shared_ptr<FileTask> streaming_;  // has been begun by worker_of_task_; shared with its jobs
  std::vector<WriteJob> batch_;
  std::uint64_t batch_bytes_ = 0;

  std::mutex mutex_;  // guards what follows
  std::condition_variable_any wake_, room_;
  std::vector<Worker> workers_;
  std::uint64_t queued_ = 0;
  bool closing_ = false;
};

}  // namespace leat::archive

#endif  // LEAT_ARCHIVE_TREE_WRITER_H_
