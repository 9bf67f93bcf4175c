// The configuration that AWS's own tools use: AWS_* variables, ~/.aws/config and
// ~/.aws/credentials. https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html
#ifndef LEAT_CONFIG_AWS_CONFIG_H_
#define LEAT_CONFIG_AWS_CONFIG_H_

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace leat::config {

/// How variables are looked up: a map in tests, getenv in main. Empty values count as unset.
using Environment = std::function<std::optional<std::string>(std::string_view name)>;
Environment ProcessEnvironment();
/// A leading "~/" replaced by HOME, where that is set.
std::string ExpandHome(const Environment& env, std::string_view path);

/// Both files merged (credentials over config), by profile. A value. Nested settings ("s3 =\n
/// addressing_style = path") are keyed "s3.addressing_style"; "services" sections are followed into
/// "services.s3.endpoint_url", "sso-session" sections into the profile's own settings.
class AwsConfig {
 public:
  /// AWS_CONFIG_FILE and AWS_SHARED_CREDENTIALS_FILE, else the files in $HOME/.aws. A missing file
  /// is empty; one that cannot be read or parsed is an error that names file and line.
  static Result<AwsConfig> Load(const Environment& env);
  /// The two files' contents; `config_name` and `credentials_name` are for messages.
  static Result<AwsConfig> Parse(std::string_view config, std::string_view config_name,
                                 std::string_view credentials, std::string_view credentials_name);

  std::vector<std::string> Profiles() const;  ///< names, sorted
  bool HasProfile(std::string_view profile) const;
  /// `key` in lower case. Empty values count as unset.
  std::optional<std::string> Get(std::string_view profile, std::string_view key) const;

  /// `wanted` (a mount option) if not empty, else AWS_PROFILE, AWS_DEFAULT_PROFILE, "default".
  static std::string ProfileName(const Environment& env, std::string_view wanted);
  /// kInvalid when ProfileName's is not there; the message names those that are. "default" need not
  /// be.
  Status CheckProfile(std::string_view profile) const;

 private:
  std::map<std::string, std::map<std::string, std::string, std::less<>>, std::less<>> profiles_;
};

/// What an S3 request needs besides credentials, each from where AWS's tools take it, the mount's
/// options first.
struct S3Settings {
  std::string profile;
  std::string region = "us-east-1";
  bool region_given = false;     ///< false: us-east-1 is a guess, a redirect may correct it
  std::string endpoint;          ///< empty: AWS's own for the region
  std::string addressing_style;  ///< "path", "virtual" or "auto"
  std::string ca_bundle;         ///< empty: the system's
};
struct S3Overrides {
  std::string profile, region, endpoint;
};
/// AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, the profile's services section and endpoint_url
/// (AWS_IGNORE_CONFIGURED_ENDPOINT_URLS respected); AWS_REGION, AWS_DEFAULT_REGION, the profile's
/// region; AWS_CA_BUNDLE, the profile's ca_bundle. kInvalid when a profile that was asked for does
/// not exist (the message names the profiles there are).
Result<S3Settings> ResolveS3Settings(const Environment& env, const AwsConfig& config,
                                     const S3Overrides& overrides);

}  // namespace leat::config

#endif  // LEAT_CONFIG_AWS_CONFIG_H_
