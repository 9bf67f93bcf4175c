#include "testing/s3_server.h"

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>

#include "auth/sigv4.h"
#include "base/bytes.h"
#include "digest/digest.h"

namespace leat::testing {

Result<std::string> TestVariable(const char* name, std::string_view server) {
  const char* value = std::getenv(name);
  if (value != nullptr && *value != '\0') return std::string(value);
  return Fail(Errc::kNotFound, std::string(name) +
                                   " is not set: run this test as tests/servers/with " +
                                   std::string(server) + " -- COMMAND");
}

Result<S3Server> S3Server::FromEnvironment() {
  S3Server server;
  const auto read = [](std::string& to, const char* name) -> Status {
    LEAT_ASSIGN_OR_RETURN(to, TestVariable(name, "ceph"));
    return {};
  };
  LEAT_RETURN_IF_ERROR(read(server.endpoint, "LEAT_TEST_S3_ENDPOINT"));
  LEAT_RETURN_IF_ERROR(read(server.tls_endpoint, "LEAT_TEST_S3_TLS_ENDPOINT"));
  LEAT_RETURN_IF_ERROR(read(server.ca_file, "LEAT_TEST_S3_CA"));
  LEAT_RETURN_IF_ERROR(read(server.owner.access_key_id, "LEAT_TEST_S3_ACCESS_KEY"));
  LEAT_RETURN_IF_ERROR(read(server.owner.secret_access_key, "LEAT_TEST_S3_SECRET_KEY"));
  LEAT_RETURN_IF_ERROR(read(server.other.access_key_id, "LEAT_TEST_S3_OTHER_ACCESS_KEY"));
  LEAT_RETURN_IF_ERROR(read(server.other.secret_access_key, "LEAT_TEST_S3_OTHER_SECRET_KEY"));
  server.owner.provider = server.other.provider = "the test";
  return server;
}

Result<net::HttpResponse> S3Server::Request(std::string_view method,
                                            std::string_view path_and_query, std::string_view body,
                                            const net::Headers& headers) const {
  const auto http = net::MakeHttpClient();
  net::HttpRequest request;
  request.method = method;
  request.url = endpoint + std::string(path_and_query);
  request.headers = headers;
  request.body = AsBytes(body);
  request.direct = true;
  LEAT_RETURN_IF_ERROR(auth::SignV4(request, owner, {.region = "us-east-1"},
                                    std::chrono::system_clock::now(),
                                    ToHex(digest::HashSha256(AsBytes(body)))));
  LEAT_ASSIGN_OR_RETURN(auto response, http->Perform(request, {}));
  if (response.status >= 200 && response.status < 300) return response;
  return Fail(Errc::kInternal, std::string(method) + " " + request.url + " answered " +
                                   std::to_string(response.status) + ": " + response.body);
}

Result<std::string> S3Server::MakeBucket(bool versioned) const {
  static std::atomic<unsigned> next{0};
  const auto now = std::chrono::system_clock::now().time_since_epoch().count();
  std::string name = "leat-" + std::to_string(::getpid()) + "-" +
                     std::to_string(now % 1'000'000'000) + "-" + std::to_string(next.fetch_add(1));
  LEAT_RETURN_IF_ERROR(Request("PUT", "/" + name));
  if (versioned) {
    LEAT_RETURN_IF_ERROR(Request("PUT", "/" + name + "?versioning=",
                                 "<VersioningConfiguration><Status>Enabled</Status>"
                                 "</VersioningConfiguration>"));
  }
  return name;
}

}  // namespace leat::testing
