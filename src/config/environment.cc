#include <cstdlib>

#include "config/aws_config.h"

namespace leat::config {

Environment ProcessEnvironment() {
  return [](std::string_view name) -> std::optional<std::string> {
    const char* value = std::getenv(std::string(name).c_str());
    if (value == nullptr || *value == '\0') return std::nullopt;
    return value;
  };
}

std::string ExpandHome(const Environment& env, std::string_view path) {
  if (path == "~" || path.starts_with("~/")) {
    if (const auto home = env("HOME")) return *home + std::string(path.substr(1));
  }
  return std::string(path);
}

}  // namespace leat::config
