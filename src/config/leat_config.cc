#include "config/leat_config.h"

#include <fmt/format.h>

#include "base/bytes.h"
#include "base/log.h"
#include "os/file.h"

#define TOML_EXCEPTIONS 0
#define TOML_HEADER_ONLY 1
#define TOML_ENABLE_FORMATTERS 0
#include <toml++/toml.h>

namespace leat::config {
namespace {

class Reader {
 public:
  Reader(const Environment& env, std::string_view path) : env_(env), path_(path) {}

  Status Read(const toml::table& root) {
    for (const auto& [key, node] : root) {
      if (key == "memory") {
        LEAT_RETURN_IF_ERROR(Size(node, "memory", config.memory));
      } else if (key == "cache") {
        LEAT_RETURN_IF_ERROR(Cache(node));
      } else if (key == "retry") {
        LEAT_RETURN_IF_ERROR(Retry(node));
      } else {
        return Unknown(key, key.str());
      }
    }
    return {};
  }

  LeatConfig config;

 private:
  static toml::source_position Begin(const toml::node& node) { return node.source().begin; }

  std::unexpected<Error> Bad(toml::source_position at, std::string_view why) const {
    return Fail(Errc::kInvalid, fmt::format("{}:{}: {}", path_, at.line, why));
  }
  std::unexpected<Error> Unknown(const toml::key& key, std::string_view full_name) const {
    return Bad(key.source().begin,
               fmt::format("there is no setting \"{}\" (there are memory, cache.size, cache.dir, "
                           "retry.total)",
                           Printable(full_name)));
  }

  Status Cache(const toml::node& node) {
    const toml::table* const table = node.as_table();
    if (table == nullptr) return Bad(Begin(node), "cache must be a table: [cache]");
    for (const auto& [key, value] : *table) {
      if (key == "size") {
        LEAT_RETURN_IF_ERROR(Size(value, "cache.size", config.cache_size));
      } else if (key == "dir") {
        const auto text = value.value_exact<std::string>();
        const std::string dir = text ? ExpandHome(env_, *text) : std::string();
        if (!dir.starts_with('/')) {
          return Bad(Begin(value),
                     "cache.dir must be an absolute path in quotes (\"~/\" is your home)");
        }
        config.cache_dir = dir;
      } else {
        return Unknown(key, fmt::format("cache.{}", key.str()));
      }
    }
    return {};
  }

  Status Retry(const toml::node& node) {
    const toml::table* const table = node.as_table();
    if (table == nullptr) return Bad(Begin(node), "retry must be a table: [retry]");
    for (const auto& [key, value] : *table) {
      if (key != "total") return Unknown(key, fmt::format("retry.{}", key.str()));
      const auto seconds = value.value_exact<std::int64_t>();
      constexpr std::int64_t kYear = 365 * 86400;
      if (!seconds || *seconds < 0 || *seconds > kYear) {
        return Bad(Begin(value), "retry.total must be a whole number of seconds");
      }
      config.retry_total = std::chrono::seconds(*seconds);
    }
    return {};
  }

  Status Size(const toml::node& node, std::string_view name,
              std::optional<std::uint64_t>& out) const {
    const auto text = node.value_exact<std::string>();
    if (!text)
      return Bad(Begin(node), fmt::format("{} must be a size in quotes, like \"100Gi\"", name));
    auto size = ParseSize(*text);
    if (!size) {
      return Bad(Begin(node),
                 fmt::format("{}: \"{}\" is not a size (use \"500M\", \"10G\", \"100Gi\")", name,
                             Printable(*text)));
    }
    out = *size;
    return {};
  }

  const Environment& env_;
  const std::string_view path_;
};

}  // namespace

std::string LeatConfig::Path(const Environment& env) {
  // The specification of XDG_CONFIG_HOME says that a relative one is to be ignored.
  if (const auto folder = env("XDG_CONFIG_HOME"); folder && folder->starts_with('/')) {
    return *folder + "/leat/config.toml";
  }
  const auto home = env("HOME");
  return home ? *home + "/.config/leat/config.toml" : std::string();
}

Result<LeatConfig> LeatConfig::Load(const Environment& env) {
  const std::string path = Path(env);
  if (path.empty()) return LeatConfig{};
  auto text = os::ReadFile(path);
  if (!text) {
    if (text.error().code() == Errc::kNotFound) return LeatConfig{};
    return std::unexpected(std::move(text).error());
  }
  return Parse(env, *text, path);
}

Result<LeatConfig> LeatConfig::Parse(const Environment& env, std::string_view text,
                                     std::string_view path) {
  const toml::parse_result parsed = toml::parse(text, path);
  if (!parsed) {
    return Fail(Errc::kInvalid, fmt::format("{}:{}: {}", path, parsed.error().source().begin.line,
                                            Printable(parsed.error().description())));
  }
  Reader reader(env, path);
  LEAT_RETURN_IF_ERROR(reader.Read(parsed.table()));
  return std::move(reader.config);
}

}  // namespace leat::config
