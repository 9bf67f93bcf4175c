// Reading YAML that people wrote, with the line in each sentence. It brings yaml-cpp's header, so
// only sources include it.
#ifndef LEAT_JOB_YAML_FIELDS_H_
#define LEAT_JOB_YAML_FIELDS_H_

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/log.h"

namespace leat::job {

/// "job.yaml:12: what"
inline std::unexpected<Error> FailAt(const std::string& path, const YAML::Node& node,
                                     const std::string& what) {
  const YAML::Mark mark = node.Mark();
  return Fail(Errc::kInvalid, mark.is_null() ? fmt::format("{}: {}", path, what)
                                             : fmt::format("{}:{}: {}", path, mark.line + 1, what));
}

/// A list of words, or one; none where there is no such key.
inline Result<std::vector<std::string>> Words(const std::string& path, const YAML::Node& node,
                                              const char* key) {
  std::vector<std::string> out;
  const YAML::Node list = node[key];
  if (!list) return out;
  if (list.IsScalar()) return std::vector<std::string>{list.Scalar()};
  if (!list.IsSequence())
    return FailAt(path, list, fmt::format("{}: a list of words is expected", key));
  for (const YAML::Node& word : list) {
    if (!word.IsScalar()) return FailAt(path, word, fmt::format("{}: a word is expected", key));
    out.push_back(word.Scalar());
  }
  return out;
}

/// A mapping with none but the `known` keys, each once.
inline Status CheckKeys(const std::string& path, const YAML::Node& node, const char* what,
                        const std::vector<std::string>& known) {
  if (!node.IsMap()) return FailAt(path, node, fmt::format("{}: keys are expected", what));
  std::set<std::string> seen;
  for (const auto& entry : node) {
    const YAML::Node& key = entry.first;
    const std::string name = key.IsScalar() ? key.Scalar() : "";
    if (std::ranges::find(known, name) == known.end()) {
      return FailAt(path, key,
                    fmt::format("{} has no key \"{}\" (it has: {})", what, Printable(name),
                                fmt::join(known, " ")));
    }
    if (!seen.insert(name).second)
      return FailAt(path, key, fmt::format("\"{}\" is there twice", name));
  }
  return {};
}

/// NAME: VALUE pairs; none where there is no such key.
inline Result<std::vector<std::pair<std::string, std::string>>> Variables(const std::string& path,
                                                                          const YAML::Node& node,
                                                                          const std::string& what) {
  std::vector<std::pair<std::string, std::string>> out;
  const YAML::Node env = node["env"];
  if (!env) return out;
  if (!env.IsMap()) return FailAt(path, env, what + "env: NAME: VALUE is expected");
  for (const auto& entry : env) {
    const YAML::Node &name = entry.first, &value = entry.second;
    if (!name.IsScalar() || !value.IsScalar() || name.Scalar().empty() ||
        name.Scalar().find('=') != std::string::npos) {
      return FailAt(path, name, what + "env: NAME: VALUE is expected");
    }
    out.emplace_back(name.Scalar(), value.Scalar());
  }
  return out;
}

}  // namespace leat::job

#endif  // LEAT_JOB_YAML_FIELDS_H_
