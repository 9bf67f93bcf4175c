#include "job/pipeline.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <functional>
#include <map>
#include <optional>
#include <set>

#include "base/bytes.h"
#include "base/log.h"
#include "digest/digest.h"
#include "job/remote.h"
#include "job/yaml_fields.h"
#include "os/file.h"
#include "store/decorators.h"
#include "transfer/place.h"

namespace leat::job {
namespace {

bool IsName(const std::string& text) {
  return !text.empty() && text.size() <= 100 && text[0] != '.' && text[0] != '-' &&
         std::ranges::all_of(text, [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '.' || c == '_' || c == '-';
         });
}

Result<Stage> ParseStage(const std::string& path, const YAML::Node& node) {
  LEAT_RETURN_IF_ERROR(CheckKeys(
      path, node, "a stage", {"name", "command", "script", "env", "requires", "mounts", "needs"}));
  Stage stage;
  if (!node["name"] || !node["name"].IsScalar() || !IsName(node["name"].Scalar())) {
    return FailAt(path, node["name"] ? node["name"] : node,
                  "a stage needs a name of letters, digits and . _ -");
  }
  stage.name = node["name"].Scalar();
  const std::string what = "stage " + stage.name;
  if (static_cast<bool>(node["command"]) == static_cast<bool>(node["script"]))
    return FailAt(path, node, what + " needs either a command or a script");
  if (const YAML::Node command = node["command"]; command && command.IsScalar()) {
    stage.command = {"/bin/sh", "-c", command.Scalar()};
    if (command.Scalar().empty()) return FailAt(path, command, what + ": the command is empty");
  } else if (command) {
    LEAT_ASSIGN_OR_RETURN(stage.command, Words(path, node, "command"));
    if (stage.command.empty()) return FailAt(path, command, what + ": the command is empty");
  } else {
    LEAT_ASSIGN_OR_RETURN(const std::vector<std::string> words, Words(path, node, "script"));
    if (words.empty()) return FailAt(path, node["script"], what + ": the script has no name");
    stage.command = words;
    std::string& script = stage.command[0];
    const std::size_t slash = path.rfind('/');
    if (!script.starts_with('/') && slash != std::string::npos)
      script = path.substr(0, slash + 1) + script;
    auto text = os::ReadFile(script);
    if (!text) return FailAt(path, node["script"], what + ": " + text.error().message());
    stage.script = std::move(*text);
  }
  LEAT_ASSIGN_OR_RETURN(stage.env, Variables(path, node, what + ": "));
  LEAT_ASSIGN_OR_RETURN(stage.required, Words(path, node, "requires"));
  LEAT_ASSIGN_OR_RETURN(stage.mounts, Words(path, node, "mounts"));
  return stage;
}

/// Each stage behind those that it needs, else as they are written.
Result<std::vector<Stage>> Sorted(const std::string& path, std::vector<Stage> stages,
                                  const std::vector<std::vector<std::string>>& needs) {
  std::map<std::string, std::size_t> by_name, place;
  for (std::size_t i = 0; i < stages.size(); ++i) by_name[stages[i].name] = i;
  std::vector<Stage> out;
  enum class State : std::uint8_t { kNew, kOpen, kDone };
  std::vector<State> states(stages.size(), State::kNew);
  const std::function<Status(std::size_t)> visit = [&](std::size_t i) -> Status {
    if (states[i] == State::kDone) return {};
    if (states[i] == State::kOpen) {
      return Fail(Errc::kInvalid,
                  fmt::format("{}: stage {} needs itself, by way of others", path, stages[i].name));
    }
    states[i] = State::kOpen;
    for (const std::string& name : needs[i]) {
      const auto it = by_name.find(name);
      if (it == by_name.end()) {
        return Fail(Errc::kInvalid, fmt::format("{}: stage {} needs \"{}\", and there is no such "
                                                "stage",
                                                path, stages[i].name, Printable(name)));
      }
      LEAT_RETURN_IF_ERROR(visit(it->second));
      stages[i].needs.push_back(place[name]);
    }
    states[i] = State::kDone;
    place[stages[i].name] = out.size();
    out.push_back(std::move(stages[i]));
    return {};
  };
  for (std::size_t i = 0; i < states.size(); ++i) LEAT_RETURN_IF_ERROR(visit(i));
  return out;
}

Result<Pipeline> Parse(const std::string& text, const std::string& path) {
  const YAML::Node root = YAML::Load(text);
  LEAT_RETURN_IF_ERROR(CheckKeys(path, root, "a pipeline", {"name", "workdir", "stages"}));
  Pipeline out;
  out.name = path.substr(path.rfind('/') + 1);
  out.name = out.name.substr(0, out.name.find('.'));
  if (const YAML::Node name = root["name"]) {
    if (!name.IsScalar() || !IsName(name.Scalar()))
      return FailAt(path, name, "name: letters, digits and . _ - are expected");
    out.name = name.Scalar();
  }
  if (!IsName(out.name)) return Fail(Errc::kInvalid, path + ": give the pipeline a name (name:)");
  if (const YAML::Node workdir = root["workdir"]) {
    if (!workdir.IsScalar() || workdir.Scalar().size() < 2 || workdir.Scalar()[0] != '/')
      return FailAt(path, workdir, "workdir: an absolute path is expected");
    out.workdir = workdir.Scalar();
  }
  if (!root["stages"].IsDefined() || !root["stages"].IsSequence() || root["stages"].size() == 0)
    return FailAt(path, root, "stages: a list is expected");
  std::vector<Stage> stages;
  std::vector<std::vector<std::string>> needs;
  for (const YAML::Node& node : root["stages"]) {
    LEAT_ASSIGN_OR_RETURN(Stage stage, ParseStage(path, node));
    for (const Stage& other : stages) {
      if (other.name == stage.name)
        return FailAt(path, node, fmt::format("there are two stages {}", stage.name));
    }
    LEAT_ASSIGN_OR_RETURN(needs.emplace_back(), Words(path, node, "needs"));
    stages.push_back(std::move(stage));
  }
  LEAT_ASSIGN_OR_RETURN(out.stages, Sorted(path, std::move(stages), needs));
  return out;
}

/// What a source holds, as far as can be told without reading it.
Result<std::string> ContentsOf(const MountSpec& mount, Toolbox& tools) {
  if (mount.writable) return "written";
  if (mount.source.kind != Source::Kind::kLocal) {
    store::RequestCounts counts;
    LEAT_ASSIGN_OR_RETURN(const auto remote, Remote::Open(mount, tools, &counts));
    LEAT_ASSIGN_OR_RETURN(const SnapshotFile taken, remote->TakeSnapshot({}, {}));
    return taken.index->pin();
  }
  transfer::Place place;
  place.folder = mount.source.path;
  place.url = mount.source.path;
  struct stat st;
  if (::stat(place.folder.c_str(), &st) != 0) return "";  // which the stage itself will say
  if (!S_ISDIR(st.st_mode)) {
    return fmt::format("{} {}.{:09}", st.st_size, st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
  }
  LEAT_ASSIGN_OR_RETURN(const transfer::Listed listed, transfer::ListPlace(place, {}, {}));
  if (!listed.failed.empty()) return Fail(Errc::kDenied, listed.failed.front());
  std::string all;
  for (const transfer::Item& item : listed.items)
    all += fmt::format("{}\n{} {}\n", item.path, item.size, item.mtime_ns);
  return std::to_string(digest::Xxh3(AsBytes(all)));
}

}  // namespace

Result<Pipeline> ParsePipeline(const std::string& text, const std::string& path) {
  try {
    return Parse(text, path);
  } catch (const YAML::Exception& error) {
    return Fail(Errc::kInvalid, fmt::format("{}:{}: {}", path, error.mark.line + 1, error.msg));
  }
}

Result<std::string> ExpandVariables(std::string_view text, const config::Environment& env) {
  std::string out;
  while (!text.empty()) {
    const std::size_t begin = text.find("${");
    const std::size_t end = text.find('}', std::min(begin, text.size()));
    if (begin == text.npos || end == text.npos) break;
    out += text.substr(0, begin);
    const std::string_view inside = text.substr(begin + 2, end - begin - 2);
    const std::size_t dash = inside.find(":-");
    const std::string name(inside.substr(0, dash));
    std::optional<std::string> value = env(name);
    if ((!value || value->empty()) && dash != inside.npos) value = inside.substr(dash + 2);
    if (!value || (value->empty() && dash == inside.npos))
      return Fail(Errc::kInvalid, fmt::format("ERROR: {} is not set", Printable(name)));
    out += *value;
    text.remove_prefix(end + 1);
  }
  return out + std::string(text);
}

Result<std::string> InputsDigest(const Stage& stage, const std::vector<std::string>& needed,
                                 const config::Environment& env, const Home& home) {
  digest::Hasher hasher(digest::Kind::kSha256);
  const auto add = [&](std::string_view part) {
    hasher.Update(AsBytes(fmt::format("{}:", part.size())));
    hasher.Update(AsBytes(part));
  };
  add(stage.name);
  for (const std::string& word : stage.command) add(word);
  add(stage.script);
  for (const auto& [name, value] : stage.env) {
    LEAT_ASSIGN_OR_RETURN(const std::string expanded, ExpandVariables(value, env));
    add(name);
    add(expanded);
  }
  for (const std::string& name : stage.required) {
    add(name);
    add(env(name).value_or(""));
  }
  for (const std::string& record : needed) add(record);
  Toolbox tools = MakeToolbox(env, home);
  for (const std::string& text : stage.mounts) {
    LEAT_ASSIGN_OR_RETURN(const std::string expanded, ExpandVariables(text, env));
    LEAT_ASSIGN_OR_RETURN(const MountSpec mount, ParseMount(expanded, env));
    LEAT_ASSIGN_OR_RETURN(const std::string contents, ContentsOf(mount, tools));
    add(expanded);
    add(contents);
  }
  return ToHex(AsBytes(hasher.Finish()));
}

}  // namespace leat::job
