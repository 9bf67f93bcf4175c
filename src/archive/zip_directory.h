// A zip's central directory, which lies at its end. PKWARE's APPNOTE.TXT 6.3.10, sections 4.3
// and 4.5.
#ifndef LEAT_ARCHIVE_ZIP_DIRECTORY_H_
#define LEAT_ARCHIVE_ZIP_DIRECTORY_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "archive/member.h"
#include "base/error.h"

namespace leat::archive {

enum class ZipMethod : std::uint16_t {
  kStored = 0,
  kDeflate = 8,
  kBzip2 = 12,
  kLzma = 14,
  kZstd = 93,
  kXz = 95
};

struct ZipMember {
  Member member;  ///< kFile, kDirectory, kSymlink (its target is its contents) or kSpecial
  std::uint16_t method = 0;
  std::uint32_t crc32 = 0;
  std::uint64_t compressed = 0;  ///< bytes, behind its local header
  /// Where its local header begins, and where the next member's (or the directory) does: all that
  /// is its own lies between. Offsets count from the beginning of the object, also where something
  /// was put in front of the zip.
  std::uint64_t begin = 0, end = 0;
  bool encrypted = false;
};

/// Fills `out` from `offset`, whole, or fails.
using ReadAt = std::function<Status(std::uint64_t offset, std::span<std::byte> out)>;

/// Whether these first bytes are a zip's.
bool IsZip(std::span<const std::byte> first);

/// All members, in the order of their places in the archive. Reads the object's end, and the
/// directory where that is not in it: two or three reads. zip64 too. kCorrupt: no zip, one that
/// breaks off, members that overlap, numbers that cannot be. kUnsupported: an archive in several
/// volumes.
Result<std::vector<ZipMember>> ReadZipDirectory(std::uint64_t object_size, const ReadAt& read);

/// What can be said of one before its bytes are there. kUnsupported: encrypted, or of a method that
/// is none of ZipMethod's. kInvalid: a name that cannot come to lie in a folder.
Status CheckZipMember(const ZipMember& member);

/// The size of a member's local header from its first 30 bytes (kZipLocalHeader): its bytes begin
/// behind it. kCorrupt where it is none.
inline constexpr std::size_t kZipLocalHeader = 30;
Result<std::uint64_t> ZipLocalHeaderSize(std::span<const std::byte> first30);

}  // namespace leat::archive

#endif  // LEAT_ARCHIVE_ZIP_DIRECTORY_H_
