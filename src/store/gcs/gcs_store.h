// Google Cloud Storage: its JSON API, and for reads its XML API, whose answers alone tell what is
// kept beside an object. https://cloud.google.com/storage/docs/json_api/v1 and
// https://cloud.google.com/storage/docs/xml-api/get-object-download
#ifndef LEAT_STORE_GCS_GCS_STORE_H_
#define LEAT_STORE_GCS_GCS_STORE_H_

#include <cstdint>
#include <memory>
#include <string>

#include "auth/credentials.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "net/http_client.h"
#include "store/object_store.h"

namespace leat::store::gcs {

struct GcsOptions {
  std::string bucket = {};  ///< empty: the project, good for Buckets alone
  std::string endpoint = "https://storage.googleapis.com";
  std::string project = {};        ///< whose buckets are listed and made; empty: not known
  std::string quota_project = {};  ///< x-goog-user-project; empty: none
  bool requester_pays = false;     ///< quota_project pays, or else project
  std::string location = {};       ///< of buckets that are made; empty: the service's
  std::string storage_class = {};
  bool uniform_access = false;  ///< buckets that are made have no access lists
  /// Bodies larger than this go by the resumable protocol, so that what is lost on the way is found
  /// out about; smaller ones in one request, for which they are copied once.
  std::uint64_t resumable_from = kMiB;
};

/// One bucket. A version's etag is the object's generation. `credentials` give a bearer token
/// (auth/google.h); they are asked for a new one once when the service does not take it. An
/// upload's parts are objects below ".leat-uploads/" in the bucket, composed in the end and
/// removed; a listing does not show them, but one of that prefix itself. `credentials` and `http`
/// outlive it. kInvalid for a malformed name.
Result<std::unique_ptr<ObjectStore>> MakeGcsStore(GcsOptions options,
                                                  auth::CredentialProvider& credentials,
                                                  net::HttpTransport& http, Clock& clock);

}  // namespace leat::store::gcs

#endif  // LEAT_STORE_GCS_GCS_STORE_H_
