// A file that arrives in blocks, in any order: invisible until it is whole, gone on with where an
// earlier process was killed.
#ifndef LEAT_TRANSFER_PARTIAL_FILE_H_
#define LEAT_TRANSFER_PARTIAL_FILE_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "os/file.h"

namespace leat::transfer {

/// While it is under way its bytes lie in a hidden file beside its place, followed by what they
/// are, of which boot, and one byte a block: 1 when it is there. Threads write different blocks at
/// once.
class PartialFile {
 public:
  /// `identity` names the bytes (object and version): what an earlier attempt left of others is
  /// thrown away; "": of any, and nothing is kept for a next attempt. `block`: bytes, more than 0.
  /// The folder exists.
  static Result<std::unique_ptr<PartialFile>> Open(const std::string& folder,
                                                   const std::string& name, std::uint64_t size,
                                                   std::string_view identity, std::uint64_t block);
  /// What is not published stays for the next attempt, unless nothing of it is there.
  ~PartialFile();

  std::size_t blocks() const { return there_.size(); }
  bool Has(std::size_t i) const { return there_[i].load(std::memory_order_acquire) != 0; }
  int fd() const { return fd_.get(); }

  Status Write(std::span<const std::byte> bytes, std::uint64_t offset);
  /// Its last byte has been written.
  Status Done(std::size_t i);
  /// Under its own name, in place of what is there, with `mtime_ns`. kUnsupported: not so, but from
  /// now on another way will be taken, from Open on.
  Status Publish(std::int64_t mtime_ns);
  /// It is not wanted any more.
  void Discard();

 private:
  PartialFile() = default;
  std::string path_, temporary_;
  std::uint64_t size_ = 0;
  os::UniqueFd fd_;
  std::vector<std::atomic<char>> there_;
  std::mutex turn_;  // to write: others would wait for the inode's lock, and spin
  bool finished_ = false;
};

/// A hidden name that nobody else has.
std::string TemporaryName();
/// Sets a file's modification time.
Status SetFileTime(int fd, std::int64_t mtime_ns);

}  // namespace leat::transfer

#endif  // LEAT_TRANSFER_PARTIAL_FILE_H_
