// The JSON documents that Swift answers with.
#ifndef LEAT_STORE_SWIFT_JSON_H_
#define LEAT_STORE_SWIFT_JSON_H_

#include <cstdint>
#include <map>
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
/// What became of a bulk delete. https://docs.openstack.org/swift/latest/middleware.html#bulk
struct BulkDelete {
  std::uint64_t gone = 0;                     ///< removed, or never there
  std::map<std::string, std::string> errors;  ///< "/container/object": "403 Forbidden"
  std::string refused;                        ///< why it was not done at all
};
/// kCorrupt for what is no such answer.
Result<BulkDelete> ParseBulkDelete(std::string_view document);

}  // namespace leat::store::swift

#endif  // LEAT_STORE_SWIFT_JSON_H_
