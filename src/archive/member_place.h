// Where in an archive a member's bytes lie, as its etag says it (docs/formats/members.md). Private
// to this folder.
#ifndef LEAT_ARCHIVE_MEMBER_PLACE_H_
#define LEAT_ARCHIVE_MEMBER_PLACE_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "archive/zip_directory.h"
#include "base/error.h"

namespace leat::archive {

/// A value.
struct Place {
  enum class Kind : std::uint8_t { kTar, kZipStored, kZipDeflated };

  Kind kind = Kind::kTar;
  std::uint64_t begin = 0;       ///< tar: of its bytes; zip: of its local header
  std::uint64_t region = 0;      ///< so many bytes from `begin` on are its own
  std::uint64_t compressed = 0;  ///< zip: the bytes behind its local header
  std::uint64_t size = 0;
  std::uint32_t crc = 0;  ///< tar: CRC32C, zip: CRC32
  bool operator==(const Place&) const = default;
};

std::string EtagOf(const Place& place);
/// kCorrupt for all that EtagOf does not give for a place in an archive of that size: etags come
/// from disk.
Result<Place> PlaceOf(std::string_view etag, std::uint64_t archive_size);
/// Whether the archive's size and the format allow for it.
bool IsPossible(const Place& place, std::uint64_t archive_size);

}  // namespace leat::archive

#endif  // LEAT_ARCHIVE_MEMBER_PLACE_H_
