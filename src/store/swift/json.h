// The JSON documents that Swift answers with.
#ifndef LEAT_STORE_SWIFT_JSON_H_
#define LEAT_STORE_SWIFT_JSON_H_

#include <string>
#include <string_view>
#include <vector>

#include "store/object_store.h"

namespace leat::store::swift {

struct Listing {
  std::vector<ObjectInfo> objects;
  /// Those that may be more than they seem: an entry without bytes may stand for a dynamic large
  /// object. By index.
  std::vector<std::size_t> empty;
};
/// A container's. kCorrupt for what is none, or has an entry without name or size.
Result<Listing> ParseListing(std::string_view document);
/// An account's.
Result<std::vector<BucketInfo>> ParseContainers(std::string_view document);

/// A piece of a static large object: PUT and GET with multipart-manifest.
struct Segment {
  std::string path;  ///< "/container/object"
  std::string etag;
  std::uint64_t size = 0;
};
/// What multipart-manifest=get answers with.
Result<std::vector<PartDigest>> ParseManifest(std::string_view document);
std::string WriteManifest(const std::vector<Segment>& segments);
/// The names ("/container/object") of its segments.
Result<std::vector<std::string>> ParseManifestNames(std::string_view document);
/// What a bulk delete could not remove: "name: 403 Forbidden"; empty for nothing. kCorrupt for what
/// is no such answer.
Result<std::string> ParseBulkErrors(std::string_view document);

}  // namespace leat::store::swift

#endif  // LEAT_STORE_SWIFT_JSON_H_
