#include "job/job_file.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "dataset/name.h"
#include "dataset/options.h"
#include "job/pipeline.h"
#include "job/yaml_fields.h"

namespace leat::job {
namespace {

constexpr unsigned kMaxReplicas = 1000;

/// A plain scalar is what YAML's core schema says; a quoted one is text.
nlohmann::ordered_json JsonOf(const YAML::Node& node) {
  switch (node.Type()) {
    case YAML::NodeType::Map: {
      nlohmann::ordered_json out = nlohmann::ordered_json::object();
      for (const auto& entry : node) {
        if (entry.first.IsScalar()) out[entry.first.Scalar()] = JsonOf(entry.second);
      }
      return out;
    }
    case YAML::NodeType::Sequence: {
      nlohmann::ordered_json out = nlohmann::ordered_json::array();
      for (const YAML::Node& item : node) out.push_back(JsonOf(item));
      return out;
    }
    case YAML::NodeType::Scalar:
      break;
    default:
      return nullptr;
  }
  const std::string& text = node.Scalar();
  if (node.Tag() == "!") return text;
  if (text == "~" || text == "null" || text == "Null" || text == "NULL" || text.empty())
    return nullptr;
  if (text == "true" || text == "True" || text == "TRUE") return true;
  if (text == "false" || text == "False" || text == "FALSE") return false;
  const char* const end = text.data() + text.size();
  const char* const begin = text.data() + (text[0] == '+' ? 1 : 0);
  std::int64_t whole = 0;
  if (const auto read = std::from_chars(begin, end, whole);
      read.ec == std::errc() && read.ptr == end)
    return whole;
  double number = 0;
  if (const auto read = std::from_chars(begin, end, number);
      read.ec == std::errc() && read.ptr == end && std::isfinite(number)) {
    return number;
  }
  return text;
}

class Reader {
 public:
  Reader(const std::string& path, const config::Environment& env) : path_(path), env_(env) {}

  Result<JobFile> Read(const std::string& text) {
    const YAML::Node root = YAML::Load(text);
    LEAT_RETURN_IF_ERROR(
        CheckKeys(path_, root, "a job",
                  {"name", "command", "context", "env", "datasets", "mounts", "data", "bind_mounts",
                   "replicas", "volumes", "datastores", "num_instances", "instance_type", "gpu",
                   "region", "ports", "image", "engine", "allow_docker_cache"}));
    for (const char* later : {"volumes", "datastores", "num_instances", "instance_type", "gpu",
                              "region", "ports", "image", "allow_docker_cache"}) {
      if (root[later].IsDefined())
        return FailAt(path_, root[later],
                      fmt::format("\"{}\" is not supported by this version", later));
    }
    if (const YAML::Node engine = root["engine"];
        engine && !(engine.IsScalar() && engine.Scalar() == "local")) {
      return FailAt(path_, engine, "engine: this version has local alone");
    }
    JobFile out;
    LEAT_ASSIGN_OR_RETURN(out.name, Text(root, "name"));
    if (out.name.find('/') != std::string::npos)
      return FailAt(path_, root["name"], "name: a name has no \"/\"");
    LEAT_ASSIGN_OR_RETURN(out.context, Text(root, "context"));
    // (As the scripts of a pipeline: from where the file lies.)
    if (const std::size_t slash = path_.rfind('/');
        !out.context.empty() && !out.context.starts_with('/') && slash != std::string::npos) {
      out.context.insert(0, path_.substr(0, slash + 1));
    }
    if (const YAML::Node command = root["command"]; command && command.IsScalar()) {
      out.command = {"/bin/sh", "-c", command.Scalar()};
      if (command.Scalar().empty()) return FailAt(path_, command, "the command is empty");
    } else if (command) {
      LEAT_ASSIGN_OR_RETURN(out.command, Words(path_, root, "command"));
      if (out.command.empty()) return FailAt(path_, command, "the command is empty");
    }
    LEAT_ASSIGN_OR_RETURN(out.env, Variables(path_, root, ""));
    LEAT_RETURN_IF_ERROR(ReadDatasets(root["datasets"], out));
    LEAT_ASSIGN_OR_RETURN(const std::vector<std::string> mounts, Words(path_, root, "mounts"));
    for (const std::string& text_of : mounts) {
      LEAT_ASSIGN_OR_RETURN(const std::string expanded, ExpandVariables(text_of, env_));
      auto mount = ParseMount(expanded, env_);
      if (!mount) return FailAt(path_, root["mounts"], "mounts: " + mount.error().message());
      out.mounts.push_back(std::move(*mount));
    }
    LEAT_RETURN_IF_ERROR(ReadBinds(root["bind_mounts"], out));
    if (const YAML::Node data = root["data"]) {
      if (!data.IsMap()) return FailAt(path_, data, "data: keys are expected");
      out.data_config =
          JsonOf(data).dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
    }
    LEAT_RETURN_IF_ERROR(ReadReplicas(root["replicas"], out));
    return out;
  }

 private:
  /// Empty where there is no such key, or nothing behind it.
  Result<std::string> Text(const YAML::Node& node, const char* key) const {
    const YAML::Node value = node[key];
    if (!value || value.IsNull()) return "";
    if (!value.IsScalar()) return FailAt(path_, value, fmt::format("{}: a text is expected", key));
    return value.Scalar();
  }

  Status ReadDatasets(const YAML::Node& list, JobFile& out) const {
    if (!list) return {};
    if (!list.IsSequence()) return FailAt(path_, list, "datasets: a list is expected");
    for (const YAML::Node& node : list) {
      LEAT_RETURN_IF_ERROR(
          CheckKeys(path_, node, "a dataset",
                    {"url", "name", "awsAccessKeyId", "awsSecretAccessKey", "awsEndpoint",
                     "versionId", "etag", "volumeKind", "volumeSize", "size", "expand", "target"}));
      if (node["size"].IsDefined() && node["volumeSize"].IsDefined())
        return FailAt(path_, node["size"], "size and volumeSize are the same; give one of them");
      dataset::Options options;
      for (const auto& [key, field] :
           {std::pair("url", &options.uri), std::pair("name", &options.name),
            std::pair("awsAccessKeyId", &options.access_key_id),
            std::pair("awsSecretAccessKey", &options.secret_access_key),
            std::pair("awsEndpoint", &options.endpoint),
            std::pair("versionId", &options.version_id), std::pair("etag", &options.etag),
            std::pair("volumeKind", &options.volume_kind),
            std::pair("volumeSize", &options.volume_size),
            std::pair("size", &options.volume_size)}) {
        LEAT_ASSIGN_OR_RETURN(const std::string text, Text(node, key));
        if (text.empty()) {
          if (field == &options.name && node[key] && node[key].IsScalar())
            return FailAt(path_, node[key], dataset::CheckName(text).error().message());
          continue;
        }
        auto expanded = ExpandVariables(text, env_);
        if (!expanded) return FailAt(path_, node[key], expanded.error().message());
        *field = field == &options.uri ? *expanded : std::string(dataset::UnlessNone(*expanded));
      }
      auto mount = DatasetMount(options, env_);
      if (!mount) return FailAt(path_, node, mount.error().message());
      LEAT_ASSIGN_OR_RETURN(const std::string expand, Text(node, "expand"));
      if (!expand.empty()) {
        auto parsed = ParseExpand(expand, mount->source.ForMessages());
        if (!parsed) return FailAt(path_, node["expand"], parsed.error().message());
        mount->expand = *parsed;
      }
      LEAT_ASSIGN_OR_RETURN(const std::string target, Text(node, "target"));
      if (!target.empty()) {
        auto normal = NormalTarget(target);
        if (!normal) return FailAt(path_, node["target"], normal.error().message());
        mount->target = std::move(*normal);
      }
      out.mounts.push_back(std::move(*mount));
    }
    return {};
  }

  Status ReadBinds(const YAML::Node& list, JobFile& out) const {
    if (!list) return {};
    if (!list.IsSequence()) return FailAt(path_, list, "bind_mounts: a list is expected");
    for (const YAML::Node& node : list) {
      LEAT_RETURN_IF_ERROR(CheckKeys(path_, node, "a bind mount",
                                     {"host_path", "container_path", "read_only", "propagation"}));
      BindMount bind;
      LEAT_ASSIGN_OR_RETURN(bind.host_path, Text(node, "host_path"));
      LEAT_ASSIGN_OR_RETURN(bind.container_path, Text(node, "container_path"));
      LEAT_ASSIGN_OR_RETURN(const std::string read_only, Text(node, "read_only"));
      if (!read_only.empty()) {
        const auto value = JsonOf(node["read_only"]);
        if (!value.is_boolean())
          return FailAt(path_, node["read_only"], "read_only: true or false is expected");
        bind.read_only = value.get<bool>();
      }
      LEAT_ASSIGN_OR_RETURN(const std::string propagation, Text(node, "propagation"));
      if (!propagation.empty()) {
        auto parsed = ParsePropagation(propagation);
        if (!parsed) return FailAt(path_, node["propagation"], parsed.error().message());
        bind.propagation = *parsed;
      }
      if (const Status good = CheckBind(bind); !good)
        return FailAt(path_, node, good.error().message());
      out.bind_mounts.push_back(std::move(bind));
    }
    return {};
  }

  Status ReadReplicas(const YAML::Node& node, JobFile& out) const {
    if (!node) return {};
    if (!node.IsMap()) return FailAt(path_, node, "replicas: NAME: COUNT is expected");
    unsigned all = 0;
    std::set<std::string> seen;
    for (const auto& entry : node) {
      const nlohmann::ordered_json count = JsonOf(entry.second);
      const std::string name = entry.first.IsScalar() ? entry.first.Scalar() : "";
      if (name.empty() || name.find('/') != std::string::npos || !seen.insert(name).second)
        return FailAt(path_, entry.first, "replicas: a name is expected, each once");
      if (!count.is_number_integer() || count.get<std::int64_t>() < 0 ||
          count.get<std::int64_t>() > kMaxReplicas) {
        return FailAt(path_, entry.second,
                      fmt::format("replicas: a number from 0 to {} is expected", kMaxReplicas));
      }
      all += count.get<unsigned>();
      out.replicas.emplace_back(name, count.get<unsigned>());
    }
    if (all == 0 || all > kMaxReplicas)
      return FailAt(path_, node, fmt::format("replicas: from 1 to {} in all", kMaxReplicas));
    return {};
  }

  const std::string& path_;
  const config::Environment& env_;
};

}  // namespace

Result<JobFile> ParseJobFile(const std::string& text, const std::string& path,
                             const config::Environment& env) {
  try {
    return Reader(path, env).Read(text);
  } catch (const YAML::Exception& error) {
    return Fail(Errc::kInvalid, fmt::format("{}:{}: {}", path, error.mark.line + 1, error.msg));
  }
}

}  // namespace leat::job
