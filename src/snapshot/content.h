// The bytes of a snapshot's entries: where they are in the store, pinned to the version that the
// snapshot saw.
#ifndef LEAT_SNAPSHOT_CONTENT_H_
#define LEAT_SNAPSHOT_CONTENT_H_

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "base/context.h"
#include "base/error.h"
#include "digest/digest.h"
#include "snapshot/snapshot.h"
#include "store/object_store.h"

namespace leat::snapshot {

/// A snapshot and the store that it was taken of. Immutable and thread-safe.
struct Content {
  std::shared_ptr<const Snapshot> index;
  std::shared_ptr<store::ObjectStore> store;

  /// What tells this file's bytes from all others: its store, key, version and size.
  std::string IdentityOf(FileIndex file) const;
  store::Version VersionOf(FileIndex file) const;
  /// "s3://bucket/key"
  std::string UrlOf(FileIndex file) const { return store->UrlOf(index->KeyOfFile(file)); }
};

/// Reads one entry. Movable; Read may be called from several threads.
class EntryReader {
 public:
  EntryReader(std::shared_ptr<const Content> content, FileIndex file);

  /// Delivers exactly [offset, offset + length) of the version that the snapshot saw. A read of the
  /// whole is checked against the digest that the store promises (kCorrupt); kConflict: the object
  /// has been replaced.
  Status Read(std::uint64_t offset, std::uint64_t length, const store::Sink& sink,
              const CallContext& ctx);
  /// The digest of the whole, once a response has told it.
  std::optional<digest::Expected> expected() const;
  std::string url() const { return content_->UrlOf(file_); }

 private:
  struct Shared {
    std::mutex mutex;
    std::optional<digest::Expected> expected;
  };

  std::shared_ptr<const Content> content_;
  FileIndex file_;
  std::shared_ptr<Shared> shared_;  // owned by this reader and its copies
};

}  // namespace leat::snapshot

#endif  // LEAT_SNAPSHOT_CONTENT_H_
