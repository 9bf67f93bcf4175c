// The entries beside a lock file (docs/formats/lock.md), without the file. Private to this folder.
#ifndef LEAT_SNAPSHOT_LOCK_ENTRIES_H_
#define LEAT_SNAPSHOT_LOCK_ENTRIES_H_

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "digest/digest.h"
#include "snapshot/format.h"
#include "snapshot/lock_file.h"

namespace leat::snapshot {

/// The hexadecimal digits of "mf:<hex>"; nullopt for anything else.
std::optional<std::string_view> HexOfPin(std::string_view mf);

/// "mf:<hex>" over entries in byte order.
std::string PinOf(const std::vector<LockedEntry>& entries);

/// Reads the text in pieces of any size.
class EntryTextReader {
 public:
  EntryTextReader();
  /// kCorrupt for what is no such text.
  Status Feed(std::string_view piece);
  const std::vector<LockedEntry>& entries() const { return entries_; }  ///< so far
  /// What was read, where `mf` names it. kCorrupt otherwise.
  Result<std::vector<LockedEntry>> Finish(std::string_view mf);

 private:
  Status Take(std::string_view line);

  std::vector<LockedEntry> entries_;
  format::RecordHasher hasher_;
  std::string record_, rest_;  ///< rest_: the beginning of a line
  bool begun_ = false;
};

/// Text in byte order, compressed.
Result<std::string> EncodeEntries(const std::vector<LockedEntry>& entries);
/// The inverse; kCorrupt for what EncodeEntries does not write, or what `mf` does not name.
Result<std::vector<LockedEntry>> DecodeEntries(std::string_view compressed, std::string_view mf);

}  // namespace leat::snapshot

#endif  // LEAT_SNAPSHOT_LOCK_ENTRIES_H_
