// How Google Cloud is reached: what its variables, gcloud's default file and rclone's remotes say.
// https://cloud.google.com/docs/authentication/application-default-credentials and, for external
// accounts, https://google.aip.dev/auth/4117
#ifndef LEAT_CONFIG_GOOGLE_CONFIG_H_
#define LEAT_CONFIG_GOOGLE_CONFIG_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "config/aws_config.h"
#include "config/rclone_config.h"

namespace leat::config {

/// Who asks, as a credential file says it. A value.
struct GoogleSettings {
  enum class Kind : std::uint8_t {
    kAnonymous,       ///< nobody
    kServiceAccount,  ///< a key, which signs
    kUser,            ///< a refresh token, as gcloud and rclone keep one
    kExternal,        ///< another provider's token, which is exchanged
    kImpersonated,    ///< `source` stands in for a service account
    kMetadata,        ///< the machine's service account, where the machine is Google's
  };
  Kind kind = Kind::kMetadata;
  std::string from;  ///< for messages: "service account a@b (/home/u/key.json)"

  std::string client_email, private_key, private_key_id;  ///< kServiceAccount; the key is PEM
  std::string client_id, client_secret, refresh_token;    ///< kUser
  std::string access_token;                               ///< kUser: there is one already
  std::string access_token_end;                           ///< ISO 8601; empty: not known
  std::string token_url;

  // kExternal
  std::string audience, subject_token_type, workforce_project;
  std::string subject_file, subject_url;  ///< one of the two
  std::vector<std::pair<std::string, std::string>> subject_headers;
  std::string subject_field;  ///< of a JSON document; empty: the text is the token

  std::string impersonation_url;  ///< kImpersonated, and kExternal where it is not empty
  std::uint64_t impersonation_seconds = 3600;
  std::vector<std::string> delegates;
  std::shared_ptr<const GoogleSettings> source;

  std::string metadata_host;  ///< kMetadata: "host[:port]" that was named; empty: the usual one

  std::string project;        ///< that new buckets belong to; empty: not known
  std::string quota_project;  ///< that requests are counted and billed to; empty: the bucket's
  std::string endpoint;       ///< "https://storage.googleapis.com"
};

/// What one credential file says. `name` is for messages. kInvalid for what is none, kUnsupported
/// for a type that leat does not speak; no message shows what stands in it.
Result<GoogleSettings> ParseGoogleCredentials(std::string_view json, std::string_view name);

/// STORAGE_EMULATOR_HOST (then anonymous), GOOGLE_APPLICATION_CREDENTIALS, gcloud's default file,
/// the metadata server. What is named and does not work is an error.
Result<GoogleSettings> GoogleFromVariables(const Environment& env);
/// A remote of type "google cloud storage".
Result<GoogleSettings> GoogleFromRemote(const RcloneRemote& remote, const Environment& env);

}  // namespace leat::config

#endif  // LEAT_CONFIG_GOOGLE_CONFIG_H_
