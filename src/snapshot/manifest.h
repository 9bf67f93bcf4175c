// What a folder of a store holds, published in one object: who replaces a tree puts the new one
// beside the old and then exchanges this. docs/formats/manifest.md
#ifndef LEAT_SNAPSHOT_MANIFEST_H_
#define LEAT_SNAPSHOT_MANIFEST_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/context.h"
#include "base/error.h"
#include "store/object_store.h"

namespace leat::snapshot {

/// Below it, relative to the folder, is what is not part of the tree.
inline constexpr std::string_view kControl = ".leat/";
inline constexpr std::string_view kManifestKey = ".leat/manifest";
/// Where what replaces an object lies until it may take its place.
inline constexpr std::string_view kStaged = ".leat/new/";

/// An object's key by the key that the tree gives it, where these differ.
using KeyMap = std::map<std::string, std::string, std::less<>>;

struct ManifestEntry {
  std::string path;  ///< relative to the folder
  std::uint64_t size = 0;
  std::int64_t mtime_ns = 0;
  std::string etag;
  std::string key;  ///< relative to the folder; empty: path
  bool operator==(const ManifestEntry&) const = default;
};

/// A value.
struct Manifest {
  std::vector<ManifestEntry> entries;  ///< in byte order of their paths, each once

  std::string Encode() const;
  /// kCorrupt for anything else than Encode makes.
  static Result<Manifest> Decode(std::string_view text);
  /// What lies elsewhere; keys with the folder's prefix.
  KeyMap Moved(const std::string& prefix) const;
};

/// kNotFound where the folder has none. One that is replaced meanwhile is read anew, some times;
/// `tries`: how often it has been.
Result<Manifest> ReadManifest(store::ObjectStore& store, const std::string& prefix,
                              const CallContext& ctx, int tries = 0);

}  // namespace leat::snapshot

#endif  // LEAT_SNAPSHOT_MANIFEST_H_
