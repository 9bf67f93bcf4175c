// What a run resolved its datasets to, made for git: docs/formats/lock.md.
#ifndef LEAT_SNAPSHOT_LOCK_FILE_H_
#define LEAT_SNAPSHOT_LOCK_FILE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "snapshot/snapshot.h"
#include "store/object_store.h"

namespace leat::snapshot {

class Builder;

/// One source. A value; sorted by name, then source, in a lock file.
struct LockedSource {
  std::string name;      ///< of the dataset, or the target of a mount: what the run knows it by
  std::string source;    ///< "s3://bucket/key", without secrets and signatures
  std::string endpoint;  ///< "https://s3.amazonaws.com": wins over the environment's
  std::string region;
  std::string etag, version_id;  ///< of an object
  std::uint64_t size = 0;        ///< of the object, or of all files
  std::string digest;  ///< "md5:<hex>", "sha256:<hex>", "crc32c:<hex>" of an object, where known;
                       ///< "mf:<hex>" of a folder
  std::string expand;  ///< "zip", "tar.gz" ...: how it was expanded; empty: it was not
  std::optional<std::uint64_t> files;  ///< of a folder: how many
  bool operator==(const LockedSource&) const = default;
};

struct LockFile {
  std::vector<LockedSource> sources;
};

/// JSON, sources sorted, keys in a fixed order, two spaces, one trailing newline: the same contents
/// are the same bytes.
std::string EncodeLock(const LockFile& lock);
/// kCorrupt with a sentence for anything that is not a lock file of a version that is known, whole
/// and consistent. The sources come sorted.
Result<LockFile> DecodeLock(std::string_view text);
/// Reads FILE. kNotFound, kCorrupt name the file.
Result<LockFile> ReadLock(const std::string& path);
/// Writes FILE atomically (synced, renamed). kInvalid for what DecodeLock would refuse: a secret, a
/// name twice, bytes that JSON cannot hold.
Status WriteLock(const std::string& path, const LockFile& lock);

/// One file of a locked folder. A value.
struct LockedEntry {
  std::string key;  ///< relative to the folder
  std::uint64_t size = 0;
  std::string etag, version_id;
  bool operator==(const LockedEntry&) const = default;
};
/// All that the snapshot's pin is over, in byte order of the keys.
std::vector<LockedEntry> EntriesOf(const Snapshot& snapshot);
/// Adds them below the builder's prefix: its snapshot has the pin that was locked. What the pin
/// does not know is not there: times, folders without files, what was archived.
Status AddEntries(const std::vector<LockedEntry>& entries, std::string_view prefix,
                  Builder& builder);
/// FILE.d/<hex of the digest>.zst: the entries in byte order of their keys, compressed by zstd;
/// written before the lock file itself, atomically; nothing is written where it is there and
/// complete. `mf`: "mf:<hex>"; kInvalid where it does not name the entries.
Status WriteLockedEntries(const std::string& lock_path, std::string_view mf,
                          const std::vector<LockedEntry>& entries);
/// kNotFound: it is not there; kCorrupt: it is not what `mf` names (the digest over the entries is
/// computed anew). In byte order of the keys.
Result<std::vector<LockedEntry>> ReadLockedEntries(const std::string& lock_path,
                                                   std::string_view mf);

/// How a folder differs from what was locked, by keys.
struct LockDifference {
  std::vector<std::string> added, removed, changed;
  bool empty() const { return added.empty() && removed.empty() && changed.empty(); }
  /// "3 added (a b c), 1 removed (d), 12 changed (e f g h i j k l m n ...)": the first ten of each;
  /// "nothing" where it is empty.
  std::string Describe() const;
};
/// By size and etag: as the pin, it does not know versions. `locked` is in byte order of the keys.
LockDifference Compare(const std::vector<LockedEntry>& locked, const Snapshot& now);

}  // namespace leat::snapshot

#endif  // LEAT_SNAPSHOT_LOCK_FILE_H_
