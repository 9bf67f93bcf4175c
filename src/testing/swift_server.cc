#include "testing/swift_server.h"

#include <random>

#include "testing/s3_server.h"

namespace leat::testing {

Result<SwiftServer> SwiftServer::FromEnvironment() {
  SwiftServer server;
  const auto fill = [](std::string& to, const std::string& name) -> Status {
    LEAT_ASSIGN_OR_RETURN(to, TestVariable(("LEAT_TEST_SWIFT_" + name).c_str(), "swift"));
    return {};
  };
  for (auto* settings : {&server.owner, &server.other}) {
    const std::string who = settings == &server.owner ? "" : "OTHER_";
    settings->from = "the test's application credential";
    LEAT_RETURN_IF_ERROR(fill(settings->auth_url, "AUTH_URL"));
    LEAT_RETURN_IF_ERROR(fill(settings->region, "REGION"));
    LEAT_RETURN_IF_ERROR(fill(settings->application_credential_id, who + "CREDENTIAL_ID"));
    LEAT_RETURN_IF_ERROR(fill(settings->application_credential_secret, who + "CREDENTIAL_SECRET"));
  }
  LEAT_RETURN_IF_ERROR(fill(server.user, "USER"));
  LEAT_RETURN_IF_ERROR(fill(server.user_id, "USER_ID"));
  LEAT_RETURN_IF_ERROR(fill(server.password, "PASSWORD"));
  LEAT_RETURN_IF_ERROR(fill(server.project_id, "PROJECT_ID"));
  return server;
}

std::string SwiftServer::NewContainer() {
  std::random_device random;
  return "test-" + std::to_string(random()) + "-" + std::to_string(random());
}

}  // namespace leat::testing
