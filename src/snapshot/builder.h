// Makes snapshots: from a listing, or entry by entry.
#ifndef LEAT_SNAPSHOT_BUILDER_H_
#define LEAT_SNAPSHOT_BUILDER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/context.h"
#include "base/error.h"
#include "snapshot/manifest.h"
#include "snapshot/snapshot.h"
#include "store/object_store.h"

namespace leat::snapshot {

/// Ends the identity of a store whose snapshot is of use only with its manifest's KeyMap.
inline constexpr std::string_view kMoved = " moved";

/// Collects entries in any order and writes the snapshot. Not thread-safe.
class Builder {
 public:
  /// `prefix`: "" or ends with '/'.
  Builder(std::string store_identity, std::string prefix);
  ~Builder();

  /// `info.key` begins with the prefix. A later entry of the same key replaces the earlier. Keys
  /// that end in '/' are folders. kCorrupt for a key outside the prefix or a size beyond 2^63;
  /// kUnsupported beyond 2^31 entries.
  Status Add(const store::ObjectInfo& info);
  /// Begins again; `moved`: some objects do not lie under the keys of their entries, which the
  /// snapshot's store_identity says by kMoved.
  void Clear(bool moved);
  /// Writes it to `fd` (empty, writable; synced only when `sync`). Entries that cannot be files are
  /// left out and told in `left_out` (may be null). The builder is empty afterwards.
  Status WriteTo(int fd, bool sync, LeftOut* left_out);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

struct ListingOptions {
  std::size_t threads = 8;
  /// A snapshot of the same source from an earlier day (may be null): its key ranges are listed
  /// side by side once the first page has come back truncated.
  std::shared_ptr<const Snapshot> hint = {};
  /// Entries have version ids; where the store lists versions.
  bool with_versions = false;
  /// Called now and then with what has been listed so far; from several threads, one at a time.
  std::function<void(std::uint64_t objects)> on_progress = {};
};

using AddObject = std::function<Status(const store::ObjectInfo&)>;

/// Hands everything below `prefix` to `add`, in any order, one call at a time: the first page alone
/// (a small folder costs one request); if it came back truncated, the key range is split among
/// `threads`, and split again where one has nothing left to do, so that a flat prefix of a million
/// keys is listed side by side too. kCorrupt for a listing out of order, outside the prefix, or
/// that does not advance (an endless one).
Status ListAll(store::ObjectStore& store, std::string_view prefix, const ListingOptions& options,
               const CallContext& ctx, const AddObject& add);
/// The same into `builder`, or what the folder's manifest says where it has one; then also where
/// objects lie that are not under their names. kNotFound when there is nothing below the prefix.
Result<KeyMap> BuildFromListing(store::ObjectStore& store, std::string_view prefix,
                                const ListingOptions& options, const CallContext& ctx,
                                Builder& builder);

}  // namespace leat::snapshot

#endif  // LEAT_SNAPSHOT_BUILDER_H_
