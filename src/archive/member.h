// A member of an archive, as its archive describes it: nothing of it is trusted.
#ifndef LEAT_ARCHIVE_MEMBER_H_
#define LEAT_ARCHIVE_MEMBER_H_

#include <cstdint>
#include <string>
#include <vector>

namespace leat::archive {

enum class MemberKind : std::uint8_t {
  kFile,
  kDirectory,
  kSymlink,
  kHardLink,  ///< to an earlier member
  kSpecial,   ///< a device, a fifo, a socket: is never made
};

/// Bytes of a sparse file that are there; all others are zeros.
struct Extent {
  std::uint64_t offset = 0, length = 0;
  bool operator==(const Extent&) const = default;
};

/// A value.
struct Member {
  std::string name;  ///< bytes, as they stand in the archive
  MemberKind kind = MemberKind::kFile;
  std::string link;           ///< of a link: its target, as it stands there
  std::uint64_t size = 0;     ///< of the file that it becomes
  std::uint32_t mode = 0644;  ///< permission bits; the others are dropped
  std::int64_t mtime_ns = 0;
  /// Where its bytes lie in the (uncompressed) tar, and how many; those of a sparse file are its
  /// extents', one after another.
  std::uint64_t offset = 0, stored = 0;
  bool sparse = false;
  std::vector<Extent> extents = {};  ///< sparse: in order, not overlapping, within size
};

}  // namespace leat::archive

#endif  // LEAT_ARCHIVE_MEMBER_H_
