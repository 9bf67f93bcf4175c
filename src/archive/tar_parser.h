// Reads tar archives as they come: v7, ustar, pax and GNU tar's long names and sparse files (old
// GNU, pax 0.0, 0.1, 1.0). POSIX.1-2017 pax;
// https://www.gnu.org/software/tar/manual/html_node/Tar-Internals.html
#ifndef LEAT_ARCHIVE_TAR_PARSER_H_
#define LEAT_ARCHIVE_TAR_PARSER_H_

#include <cstddef>
#include <memory>
#include <span>

#include "archive/member.h"
#include "base/error.h"

namespace leat::archive {

/// What becomes of the members, in order. An error ends the parsing with it.
class TarVisitor {
 public:
  virtual ~TarVisitor() = default;
  /// `member` stays what it is until OnMemberEnd returns.
  virtual Status OnMember(const Member& member) = 0;
  /// The member's stored bytes, in pieces; not called for a member without any.
  virtual Status OnData(std::span<const std::byte> bytes) = 0;
  /// The member is complete.
  virtual Status OnMemberEnd() = 0;
};

/// Whether these first 512 bytes are a tar's header (its checksum is right), or the end of an empty
/// one.
bool IsTar(std::span<const std::byte> first);

/// Not thread-safe. kCorrupt: no tar, or one that breaks off, or whose numbers cannot be.
class TarParser {
 public:
  explicit TarParser(TarVisitor& visitor);
  ~TarParser();
  /// Bytes in order, in pieces of any size. What follows the end of the archive (two blocks of
  /// zeros) is passed over.
  Status Write(std::span<const std::byte> bytes);
  /// kCorrupt where the archive is not at its end. (An archive without the blocks of zeros ends
  /// with its bytes, between two members, as with GNU tar.)
  Status Finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace leat::archive

#endif  // LEAT_ARCHIVE_TAR_PARSER_H_
