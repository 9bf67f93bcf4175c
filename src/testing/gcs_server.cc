#include "testing/gcs_server.h"

#include <random>

#include "base/bytes.h"
#include "net/http_client.h"
#include "os/file.h"
#include "testing/s3_server.h"

namespace leat::testing {

Result<GcsServer> GcsServer::FromEnvironment() {
  GcsServer server;
  LEAT_ASSIGN_OR_RETURN(server.endpoint, TestVariable("LEAT_TEST_GCS_ENDPOINT", "gcs"));
  LEAT_ASSIGN_OR_RETURN(server.project, TestVariable("LEAT_TEST_GCS_PROJECT", "gcs"));
  LEAT_ASSIGN_OR_RETURN(server.keys, TestVariable("LEAT_TEST_GCS_KEYS", "gcs"));
  LEAT_ASSIGN_OR_RETURN(server.owner, server.Key("owner"));
  LEAT_ASSIGN_OR_RETURN(server.other, server.Key("other"));
  return server;
}

std::string GcsServer::NewBucket() {
  std::random_device random;
  return "test-" + std::to_string(random()) + "-" + std::to_string(random());
}

Result<config::GoogleSettings> GcsServer::Key(std::string_view name) const {
  const std::string file = keys + "/" + std::string(name) + ".json";
  LEAT_ASSIGN_OR_RETURN(const std::string text, os::ReadFile(file));
  return config::ParseGoogleCredentials(text, file);
}

Status GcsServer::Control(std::string_view form) const {
  const auto http = net::MakeHttpClient();
  net::HttpRequest request{.method = "POST", .url = endpoint + "/control"};
  request.body = AsBytes(form);
  LEAT_ASSIGN_OR_RETURN(const net::HttpResponse response, http->Perform(request, {}));
  if (response.status == 200) return {};
  return Fail(Errc::kInternal, "the server does not take " + std::string(form));
}

}  // namespace leat::testing
