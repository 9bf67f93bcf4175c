// What Google Cloud Storage's JSON API answers, and what it is sent.
// https://cloud.google.com/storage/docs/json_api/v1
#ifndef LEAT_STORE_GCS_JSON_H_
#define LEAT_STORE_GCS_JSON_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "store/object_store.h"

namespace leat::store::gcs {

/// An object as the service tells of it. A value.
struct Resource {
  ObjectInfo info;                      ///< the etag is the generation
  std::optional<std::uint32_t> crc32c;  ///< of all its bytes; always given by the service itself
  std::string md5;                      ///< 16 bytes; empty where it was composed
  std::string upload;                   ///< the upload of leat's that made it
};
/// kCorrupt for what is no object, or has no name, size or generation.
Result<Resource> ParseObject(std::string_view document);

struct Listing {
  std::vector<Resource> objects;
  std::string next_page;
};
Result<Listing> ParseListing(std::string_view document);

struct BucketPage {
  std::vector<BucketInfo> buckets;
  std::string next_page;
};
Result<BucketPage> ParseBuckets(std::string_view document);

struct Rewrite {
  bool done = false;
  std::string token;  ///< to go on with
  Resource object;    ///< when it is done
};
Result<Rewrite> ParseRewrite(std::string_view document);

/// Of an error answer, in JSON or XML; printable and short, empty where there is none.
struct ApiError {
  std::string reason, message;
};
ApiError ParseApiError(std::string_view body);

/// x-goog-hash: "crc32c=n03x6A==,md5=Ojk9c3dhfxgoKVVHYwFbHQ==".
void ReadHashHeader(std::string_view value, Resource& object);
/// What the object is to be held to: MD5 where it has one, else CRC32C.
void SetExpected(Resource& object);

/// mtime is text to rclone ("2001-02-03T04:05:06.123456789Z", and whole seconds for gsutil beside
/// it) where it is a number in other stores.
Metadata FromService(const Metadata& theirs, std::string* upload);
Metadata ToService(const Metadata& ours);

/// The resource that an object is made with. `upload`: that it is noted with, or empty.
std::string WriteObject(std::string_view name, const Metadata& metadata, std::string_view upload,
                        std::optional<std::uint32_t> crc32c);
struct Component {
  std::string name;
  std::string generation;
  std::uint64_t size = 0;
  std::uint32_t crc32c = 0;
};
std::string WriteCompose(std::span<const Component> components, const Metadata& metadata,
                         std::string_view upload);
struct NewBucket {
  std::string name, location, storage_class;
  bool uniform_access = false;
};
std::string WriteBucket(const NewBucket& bucket);

/// Four bytes, big-endian, in base64: as the service writes it.
std::string CrcText(std::uint32_t crc32c);

}  // namespace leat::store::gcs

#endif  // LEAT_STORE_GCS_JSON_H_
