// Amazon S3 and what speaks its protocol (Ceph RGW, MinIO, R2 ...).
// https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations_Amazon_Simple_Storage_Service.html
#ifndef LEAT_STORE_S3_S3_STORE_H_
#define LEAT_STORE_S3_S3_STORE_H_

#include <memory>
#include <string>

#include "auth/credentials.h"
#include "base/clock.h"
#include "net/http_client.h"
#include "store/object_store.h"

namespace leat::store::s3 {

struct S3Options {
  std::string bucket = {};  ///< empty: the service, good for Buckets alone
  std::string region = "us-east-1";
  std::string endpoint = {};          ///< "http://127.0.0.1:7480"; empty: AWS's own for the region
  std::string addressing_style = {};  ///< "path", "virtual", or "auto": virtual on AWS where the
                                      ///< bucket's name allows it, else path
  std::string ca_file = {};           ///< empty: the system's
  bool requester_pays = false;
  net::Headers put_headers = {};  ///< of what is written: storage class, encryption, ACL
};

/// One bucket. Finds the right region from a redirect and keeps to it; corrects the clock once from
/// the server's Date when the store says that it is skewed; asks for new credentials once when the
/// store says that they have expired. `credentials`, `http` and `clock` outlive it. kInvalid when
/// bucket or endpoint is malformed.
Result<std::unique_ptr<ObjectStore>> MakeS3Store(S3Options options,
                                                 auth::CredentialProvider& credentials,
                                                 net::HttpTransport& http, Clock& clock);

}  // namespace leat::store::s3

#endif  // LEAT_STORE_S3_S3_STORE_H_
