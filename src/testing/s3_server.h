// The S3 server that tests/servers started.
#ifndef LEAT_TESTING_S3_SERVER_H_
#define LEAT_TESTING_S3_SERVER_H_

#include <string>
#include <string_view>

#include "auth/credentials.h"
#include "base/error.h"
#include "net/http_client.h"

namespace leat::testing {

/// A value. Its requests go through a client of its own, so that counts of the code under test stay
/// right.
struct S3Server {
  std::string endpoint;      ///< "http://127.0.0.1:7480"
  std::string tls_endpoint;  ///< "https://127.0.0.1:7481"
  std::string ca_file;       ///< that signed the TLS endpoint's certificate
  auth::Credentials owner;   ///< makes buckets
  auth::Credentials other;   ///< may do nothing in the owner's buckets

  /// From LEAT_TEST_S3_*; an error that names the command to run where they are not set.
  static Result<S3Server> FromEnvironment();

  /// A new, empty bucket; gives its name.
  Result<std::string> MakeBucket(bool versioned = false) const;
  /// Any request, signed by the owner; an error for anything but a 2xx. `path_and_query` begins
  /// with '/'.
  Result<net::HttpResponse> Request(std::string_view method, std::string_view path_and_query,
                                    std::string_view body = "",
                                    const net::Headers& headers = {}) const;
};

/// The value of an environment variable that tests/servers/with sets; an error that names the
/// command to run where it is not.
Result<std::string> TestVariable(const char* name, std::string_view server);

}  // namespace leat::testing

#endif  // LEAT_TESTING_S3_SERVER_H_
