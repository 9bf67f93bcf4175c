// What an answer that is no success means: one sentence and a code.
// https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
#ifndef LEAT_STORE_S3_EXPLAIN_H_
#define LEAT_STORE_S3_EXPLAIN_H_

#include <chrono>
#include <string>
#include <string_view>

#include "auth/credentials.h"
#include "base/error.h"
#include "net/http_client.h"
#include "store/s3/xml.h"

namespace leat::store::s3 {

/// What was asked, for messages.
struct Asked {
  std::string url;  ///< "s3://bucket/key"
  std::string bucket;
  std::string key;
  std::string version_id;  ///< "" where none was named
  std::string server;      ///< "https://s3.amazonaws.com"
  std::string region;
  std::chrono::system_clock::time_point now;  ///< by this machine's clock
  bool anonymous = false;
  std::string provider;  ///< of the credentials
};

/// Why the store did not do it. Sets the Retry-After hint where the server gave one.
Error Explain(const Asked& asked, const net::HttpResponse& response, const S3Error& error);
/// The <Error> document of the answer; where there is none, an empty code.
S3Error ErrorOf(const net::HttpResponse& response);

/// The credentials may work once they are new.
bool IsAboutOldCredentials(std::string_view code);
/// The bucket lies in another region than the one asked or signed for.
bool IsAboutRegion(const net::HttpResponse& response, std::string_view code);

}  // namespace leat::store::s3

#endif  // LEAT_STORE_S3_EXPLAIN_H_
