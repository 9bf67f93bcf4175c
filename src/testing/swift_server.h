// The Swift and the Keystone that tests/servers started.
#ifndef LEAT_TESTING_SWIFT_SERVER_H_
#define LEAT_TESTING_SWIFT_SERVER_H_

#include <string>

#include "base/error.h"
#include "config/openstack_config.h"

namespace leat::testing {

/// A value. The settings are those of an application credential.
struct SwiftServer {
  config::OpenStackSettings owner;                  ///< makes containers
  config::OpenStackSettings other;                  ///< of another project
  std::string user, user_id, password, project_id;  ///< the owner's

  /// From LEAT_TEST_SWIFT_*; an error that names the command to run where they are not set.
  static Result<SwiftServer> FromEnvironment();
  /// A name that no other test uses; the container is not made.
  static std::string NewContainer();
};

}  // namespace leat::testing

#endif  // LEAT_TESTING_SWIFT_SERVER_H_
