// The immutable index of a tree: what a source held at one moment (design decision 16).
// docs/formats/snapshot.md is its format.
#ifndef LEAT_SNAPSHOT_SNAPSHOT_H_
#define LEAT_SNAPSHOT_SNAPSHOT_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/error.h"

namespace leat::snapshot {

/// Index of a file (0 .. file_count-1, in byte order of the keys) or of a directory (0 ..
/// directory_count-1; 0 is the root).
using FileIndex = std::uint32_t;
using DirIndex = std::uint32_t;
inline constexpr DirIndex kRoot = 0;

/// What a directory holds: a file or a directory.
struct Child {
  bool is_dir = false;
  std::uint32_t index = 0;
  bool operator==(const Child&) const = default;
};

/// An etag as the store wrote it. A value that holds its text: MD5s are kept as 16 bytes in the
/// snapshot, so that there is no text to point to. Its views live as long as it does, which is why
/// a temporary gives none.
class EtagText {
 public:
  EtagText() = default;
  /// `text` must outlive it.
  explicit EtagText(std::string_view text) : elsewhere_(text.data()), size_(text.size()) {}

  std::string_view view() const& { return {elsewhere_ != nullptr ? elsewhere_ : inline_, size_}; }
  std::string_view view() && = delete;
  operator std::string_view() const& { return view(); }  // NOLINT(google-explicit-constructor)
  operator std::string_view() && = delete;
  std::string str() const { return std::string(view()); }
  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  bool starts_with(std::string_view head) const { return view().starts_with(head); }
  friend bool operator==(const EtagText& a, std::string_view b) { return a.view() == b; }
  friend bool operator==(const EtagText& a, const EtagText& b) { return a.view() == b.view(); }

 private:
  friend class Snapshot;
  const char* elsewhere_ = nullptr;
  std::size_t size_ = 0;
  char inline_[48] = {};
};

/// Keys that no file system can hold, and were left out.
struct LeftOut {
  std::uint64_t count = 0;
  std::string first_key;  ///< the least, in byte order; as the store has it, prefix and all
  std::string first_why;  ///< "a file that is also a folder", "a name of 300 bytes", "an empty path
                          ///< component", ...
};

struct FileInfo {
  std::string_view name;  ///< the last component; valid while the snapshot lives, as all views here
  DirIndex parent = kRoot;
  std::uint64_t size = 0;
  std::int64_t mtime_ns = 0;  ///< since 1970; 0 where the store gave none
  EtagText etag;
  std::string_view version_id;
  bool archived = false;
};

/// Reads a snapshot that lies mapped in memory. Immutable and thread-safe; no call allocates but
/// those that return std::string, none does I/O but page faults. What was read from a file was
/// checked (bounds, order, digest) when it was opened, so that no index can lead outside.
class Snapshot {
 public:
  /// Maps `fd` (borrowed) whole. kCorrupt when it is not a snapshot of this version, whole and
  /// consistent.
  static Result<std::shared_ptr<const Snapshot>> Open(int fd);
  ~Snapshot();
  Snapshot(const Snapshot&) = delete;
  Snapshot& operator=(const Snapshot&) = delete;

  /// The store's Identity() and the prefix (its key prefix, with trailing '/', or "") that was
  /// listed; "source" for messages.
  std::string_view store_identity() const;
  std::string_view prefix() const;

  std::uint32_t file_count() const;
  std::uint32_t directory_count() const;  ///< the root among them
  std::uint64_t total_bytes() const;
  /// "mf:" + 64 hexadecimal digits (docs/formats/snapshot.md says over what).
  const std::string& pin() const;
  /// What the listing held beside the entries. The same as the builder told.
  const LeftOut& left_out() const;

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
  /// The object's key in its store: prefix + path.
  std::string KeyOfFile(FileIndex i) const;

  /// First keys of the blocks (key ranges, relative to the prefix), for listing them again side by
  /// side.
  std::uint32_t block_count() const;
  std::string BlockFirstKey(std::uint32_t b) const;

  /// All that the pin is over: files and what was left out, in byte order of the keys (relative to
  /// the prefix). The views are valid during the call.
  struct Listed {
    std::string_view key;
    std::uint64_t size = 0;
    std::string_view etag, version_id;
  };
  void ForEachListed(const std::function<void(const Listed&)>& visit) const;

  /// Computes the pin and the blocks' digests anew from the entries (Open only compares the file's
  /// fast checksums). kCorrupt where they differ from what the file says of itself.
  Status VerifyPin() const;

 private:
  Snapshot();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace leat::snapshot

#endif  // LEAT_SNAPSHOT_SNAPSHOT_H_
