// The remotes of the user's rclone.conf. https://rclone.org/docs/#config-file
#ifndef LEAT_CONFIG_RCLONE_CONFIG_H_
#define LEAT_CONFIG_RCLONE_CONFIG_H_

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "config/aws_config.h"

namespace leat::config {

/// One section. A value.
struct RcloneRemote {
  std::string name;
  std::string type;  ///< "swift", "s3", ...
  std::map<std::string, std::string, std::less<>> options;

  /// Empty values count as unset.
  std::optional<std::string> Get(std::string_view option) const;
  std::string GetOr(std::string_view option, std::string_view otherwise) const;
  /// "true", "yes", "1" in any case.
  bool IsSet(std::string_view option) const;
};

/// A value. Secrets that rclone writes obscured (auth/obscured.h) are here as they stand.
class RcloneConfig {
 public:
  /// RCLONE_CONFIG, else $XDG_CONFIG_HOME/rclone/rclone.conf, ~/.config/rclone/rclone.conf,
  /// ~/.config/rclone.conf (with a note), ~/.rclone.conf. None of them: no remotes but those of
  /// variables. kInvalid for one that is malformed, kUnsupported for an encrypted one: the sentence
  /// says how to go on.
  static Result<RcloneConfig> Load(const Environment& env);
  static Result<RcloneConfig> Parse(std::string_view text, std::string_view file);

  std::vector<std::string> Names() const;  ///< of the file, sorted
  /// With what RCLONE_CONFIG_NAME_OPTION variables say, which may also be all there is. kNotFound
  /// names the remotes that are.
  Result<RcloneRemote> Find(std::string_view name, const Environment& env) const;
  const std::string& file() const { return file_; }  ///< "" where there is none
  const std::string& note() const { return note_; }  ///< for the user; "" for nothing

 private:
  std::string file_, note_;
  std::map<std::string, RcloneRemote, std::less<>> remotes_;
};

/// Whether rclone takes it as the name of a remote.
bool IsRemoteName(std::string_view name);

}  // namespace leat::config

#endif  // LEAT_CONFIG_RCLONE_CONFIG_H_
