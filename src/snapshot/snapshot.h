// The immutable index of a tree: what a source held at one moment (design decision 16). docs/formats/snapshot.md is its format.
#ifndef LEAT_SNAPSHOT_SNAPSHOT_H_
#define LEAT_SNAPSHOT_SNAPSHOT_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/error.h"

namespace leat::snapshot {

/// Index of a file (0 .. file_count-1, in byte order of the keys) or of a directory (0 .. directory_count-1; 0 is the root).
using FileIndex = std::uint32_t;
using DirIndex = std::uint32_t;
inline constexpr DirIndex kRoot = 0;

/// What a directory holds: a file or a directory.
struct Child {
  bool is_dir = false;
  std::uint32_t index = 0;
  bool operator==(const Child&) const = default;
};

struct FileInfo {
  std::string_view name;        ///< the last component; valid while the snapshot lives, as all views here
  DirIndex parent = kRoot;
  std::uint64_t size = 0;
  std::int64_t mtime_ns = 0;    ///< since 1970
  std::string_view etag;
  std::string_view version_id;
  bool archived = false;
};

/// Reads a snapshot that lies mapped in memory. Immutable and thread-safe; no call allocates but those that return std::string,
/// none does I/O but page faults. What was read from a file was checked (bounds, order, digest) when it was opened, so that no
/// index can lead outside.
class Snapshot {
 public:
  /// Maps `fd` (borrowed) whole. kCorrupt when it is not a snapshot of this version, whole and consistent.
  static Result<std::shared_ptr<const Snapshot>> Open(int fd);
  ~Snapshot();
  Snapshot(const Snapshot&) = delete;
  Snapshot& operator=(const Snapshot&) = delete;

  /// The store's Identity() and the prefix (its key prefix, with trailing '/', or "") that was listed; "source" for messages.
  std::string_view store_identity() const;
  std::string_view prefix() const;

  std::uint32_t file_count() const;
  std::uint32_t directory_count() const;  ///< the root among them
  std::uint64_t total_bytes() const;
  /// "mf:" + 64 hexadecimal digits (docs/formats/snapshot.md says over what).
  const std::string& pin() const;

  FileInfo file(FileIndex i) const;
  std::string_view directory_name(DirIndex d) const;  ///< "" for the root
  DirIndex directory_parent(DirIndex d) const;        ///< the root's is the root
  /// In byte order of their names.
  std::uint32_t child_count(DirIndex d) const;
  Child child(DirIndex d, std::uint32_t i) const;
  /// Where directory d's child called `name` is; by binary search.
  std::optional<Child> Lookup(DirIndex d, std::string_view name) const;
  /// Position of file i among the children of its directory.
  std::uint32_t PositionInDirectory(FileIndex i) const;

  /// The path below the root: "train/0/1.png"; "" for the root.
  std::string PathOfFile(FileIndex i) const;
  std::string PathOfDirectory(DirIndex d) const;
  /// The object's key in its store (prefix + path, but for a snapshot of one object, whose key is the prefix itself).
  std::string KeyOfFile(FileIndex i) const;

  /// First keys of the blocks (key ranges, relative to the prefix), for listing them again side by side.
  std::uint32_t block_count() const;
  std::string BlockFirstKey(std::uint32_t b) const;

 private:
  Snapshot();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace leat::snapshot

#endif  // LEAT_SNAPSHOT_SNAPSHOT_H_
