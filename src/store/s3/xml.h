// The XML documents that S3 answers with.
// https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html and
// RESTErrorResponses.html
#ifndef LEAT_STORE_S3_XML_H_
#define LEAT_STORE_S3_XML_H_

#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "store/object_store.h"

namespace leat::store::s3 {

struct S3Error {
  std::string code;      ///< "NoSuchKey"
  std::string message;   ///< for people, in the server's words
  std::string region;    ///< of the bucket, where this endpoint is not
  std::string endpoint;  ///< that should be asked instead
  std::string storage_class;
};

struct Listing {
  std::vector<ObjectInfo> objects;
  bool truncated = false;
  /// The server knows version 2: without it start-after was ignored.
  bool is_v2 = false;
  /// Where the server would go on: NextContinuationToken, or V1's NextMarker.
  std::string next;
};
/// Parses in place: `document` is scratch afterwards. Keys are decoded where the server says that
/// it encoded them. kCorrupt for what is not well-formed, has another root, or an entry without key
/// or size. Order is the caller's to check.
Result<Listing> ParseListing(std::string& document);

/// A page of a ListVersionsResult.
/// https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectVersions.html
struct VersionListing {
  std::vector<ObjectInfo> objects;  ///< what is there now, with version ids
  bool truncated = false;
  /// The greatest key of which nothing on a later page can tell more; empty: none.
  std::string settled;
  std::string last_key, last_version;  ///< of the last entry: where the server would go on
};
/// As ParseListing; versions of one key follow each other.
Result<VersionListing> ParseVersions(std::string& document);

/// The UploadId of an InitiateMultipartUploadResult.
Result<std::string> ParseUpload(std::string_view document);
/// A page of a ListPartsResult.
struct PartsPage {
  std::vector<Part> parts;
  bool truncated = false;
};
Result<PartsPage> ParseParts(std::string_view document);
Result<std::vector<BucketInfo>> ParseBuckets(std::string_view document);
/// A CopyPartResult, without number and size.
Result<Part> ParseCopiedPart(std::string_view document);
/// XML has no way to write most control characters, and nothing that is not UTF-8.
bool XmlCanHold(std::string_view key);
/// What a DeleteObjects request asks for; of keys that XML can hold.
std::string WriteDelete(std::span<const std::string_view> keys);
/// The keys of a DeleteResult that were not removed.
Result<std::set<std::string>> ParseDeleteErrors(std::string_view document);
/// The etag in a CompleteMultipartUploadResult or a CopyObjectResult.
Result<std::string> ParseResultEtag(std::string_view document);

/// nullopt for anything that is not an <Error> document.
std::optional<S3Error> ParseError(std::string_view document);

/// Whether objects of that class must be restored before they can be read (GLACIER_IR need not).
bool IsArchiveClass(std::string_view storage_class);

}  // namespace leat::store::s3

#endif  // LEAT_STORE_S3_XML_H_
