// leat's own configuration file: $XDG_CONFIG_HOME/leat/config.toml, by default
// ~/.config/leat/config.toml.
#ifndef LEAT_CONFIG_LEAT_CONFIG_H_
#define LEAT_CONFIG_LEAT_CONFIG_H_

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"
#include "config/aws_config.h"

namespace leat::config {

/// What the file sets; nullopt for what it does not. A value.
///
///     memory = "2Gi"        # bytes that a run may hold for its readers
///     [cache]
///     size = "100Gi"        # of the disk
///     dir = "~/leat-cache"  # absolute, or in the home
///     [storage]
///     path = "/nfs/team/leat"  # of shared datasets; absolute, or in the home
///     [retry]
///     total = 300           # seconds that one read may spend on retries
struct LeatConfig {
  std::optional<std::uint64_t> cache_size;  ///< bytes
  std::optional<std::string> cache_dir;     ///< absolute
  std::optional<std::string> storage_path;  ///< absolute
  std::optional<std::uint64_t> memory;      ///< bytes
  std::optional<std::chrono::seconds> retry_total;

  /// A missing file sets nothing. An unknown key or a value that makes no sense is kInvalid and
  /// names file, line and key.
  static Result<LeatConfig> Load(const Environment& env);
  static Result<LeatConfig> Parse(const Environment& env, std::string_view text,
                                  std::string_view path);
  /// Where Load looks; empty when neither XDG_CONFIG_HOME nor HOME is set.
  static std::string Path(const Environment& env);
};

}  // namespace leat::config

#endif  // LEAT_CONFIG_LEAT_CONFIG_H_
