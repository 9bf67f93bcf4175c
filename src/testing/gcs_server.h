// The stand-in for Google Cloud Storage that tests/servers started.
#ifndef LEAT_TESTING_GCS_SERVER_H_
#define LEAT_TESTING_GCS_SERVER_H_

#include <string>
#include <string_view>

#include "base/error.h"
#include "config/google_config.h"

namespace leat::testing {

/// A value.
struct GcsServer {
  std::string endpoint, project;
  std::string keys;              ///< a folder of credential files: owner.json, user.json, ...
  config::GoogleSettings owner;  ///< makes buckets
  config::GoogleSettings other;  ///< may do nothing in the owner's buckets

  /// From LEAT_TEST_GCS_*; an error that names the command to run where they are not set.
  static Result<GcsServer> FromEnvironment();
  /// A name that no other test uses; the bucket is not made.
  static std::string NewBucket();
  /// One of its credential files.
  Result<config::GoogleSettings> Key(std::string_view name) const;
  /// What the server does from now on (tests/servers/gcs_server.py): "bucket=b&cut=300000".
  Status Control(std::string_view form) const;
};

}  // namespace leat::testing

#endif  // LEAT_TESTING_GCS_SERVER_H_
