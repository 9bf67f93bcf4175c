#include "cli/run_words.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <memory>

#include "base/bytes.h"
#include "base/json_fields.h"
#include "base/log.h"
#include "config/aws_config.h"
#include "job/job_file.h"
#include "job/lock.h"
#include "os/file.h"

namespace leat::cli {
namespace {

bool IsJobFile(const std::string& word) {
  return word.ends_with(".yaml") || word.ends_with(".yml");
}

Status CheckName(const std::string& name) {
  return name.find('/') == std::string::npos
             ? Status{}
             : Status(Fail(Errc::kInvalid, "--name: a name has no \"/\""));
}

}  // namespace

Result<Job> MakeJob(RunWords words, job::Home home, std::vector<std::string> before,
                    std::vector<std::string> command) {
  const config::Environment env = config::ProcessEnvironment();
  Job out;
  engine::local::RunOptions& options = out.options;
  job::JobFile file;
  // (A command that is a .yaml would have to be executable.)
  if (!before.empty() && IsJobFile(before[0]) && ::access(before[0].c_str(), X_OK) != 0) {
    auto text = os::ReadFile(before[0], 16 << 20);
    if (!text) return std::unexpected(std::move(text).error());
    LEAT_ASSIGN_OR_RETURN(file, job::ParseJobFile(*text, before[0], env));
    if (before.size() > 2)
      return Fail(
          Errc::kInvalid,
          fmt::format("leat run {} takes one folder, its context; a command stands behind --",
                      before[0]));
    if (before.size() == 2) {
      if (!words.context.empty())
        return Fail(Errc::kInvalid,
                    "--context and a folder behind the job file are the same; give one of them");
      words.context = before[1];
    }
    if (command.empty()) command = std::move(file.command);
  } else {
    // "leat run -m SOURCE command" without "--" is understood too.
    command.insert(command.begin(), before.begin(), before.end());
  }
  options.mounts = std::move(file.mounts);
  options.binds = std::move(file.bind_mounts);
  options.data_config = std::move(file.data_config);
  out.replicas = std::move(file.replicas);
  for (const std::string& text : words.mounts) {
    auto mount = job::ParseMount(text, env);
    if (!mount) return Fail(std::move(mount), "-m");
    options.mounts.push_back(std::move(*mount));
  }
  LEAT_ASSIGN_OR_RETURN(const dataset::Paired datasets, dataset::Pair(words.datasets));
  for (const std::string& note : datasets.notes) Note(note);
  for (const dataset::Options& one : datasets.datasets) {
    LEAT_ASSIGN_OR_RETURN(job::MountSpec mount, job::DatasetMount(one, env));
    options.mounts.push_back(std::move(mount));
  }
  for (const std::string& text : words.binds) {
    auto bind = job::ParseBind(text);
    if (!bind) return Fail(std::move(bind), "--bind");
    options.binds.push_back(std::move(*bind));
  }
  for (job::MountSpec& mount : options.mounts) mount.strict_pins |= words.strict_pins;
  if (!words.locked.empty())
    LEAT_RETURN_IF_ERROR(job::ApplyLock(words.locked, options.mounts, env));
  for (const auto& [name, value] : file.env)
    options.env.push_back(fmt::format("{}={}", name, value));
  for (const std::string& variable : words.env) {
    if (variable.find('=') == std::string::npos || variable.starts_with('=')) {
      return Fail(Errc::kInvalid, fmt::format("--env {}: write NAME=VALUE", variable));
    }
    options.env.push_back(variable);
  }
  LEAT_RETURN_IF_ERROR(CheckName(words.name));
  if (!words.workdir.empty() && !words.workdir.starts_with('/')) {
    return Fail(Errc::kInvalid, fmt::format("--workdir {}: not an absolute path", words.workdir));
  }
  if (words.pid == "host") options.pid = engine::local::PidMode::kHost;
  if (words.pid == "own") options.pid = engine::local::PidMode::kOwn;
  if (command.empty() && !words.dry_run)
    return Fail(Errc::kInvalid,
                "there is no command; write it behind --: leat run -m SOURCE -- COMMAND");
  options.context = words.context.empty() ? file.context : words.context;
  if (!words.context_limit.empty()) {
    auto limit = ParseSize(words.context_limit);
    if (!limit) return Fail(std::move(limit), "--context-limit");
    options.context_limit = *limit;
  }
  options.home = std::move(home);
  options.command = std::move(command);
  options.name = words.name.empty() ? file.name : words.name;
  options.workdir = words.workdir;
  options.strict = words.strict;
  options.dry_run = words.dry_run;
  options.json = words.json;
  options.stats = words.stats;
  options.storage_writable = words.storage == "rw";
  if (!words.lock.empty()) options.lock_file = os::Absolute(words.lock);
  return out;
}

void AddDatasetOptions(CLI::App& app, dataset::OptionLists& lists) {
  const auto add = [&](const char* names, std::vector<std::string>& values, const char* help) {
    app.add_option(names, values, help)->allow_extra_args(false)->group("Datasets");
  };
  add("--datasetUri,--dataset-uri", lists.uris,
      "A dataset, downloaded before the command starts, at /data/NAME; once for each");
  add("--datasetName,--dataset-name", lists.names,
      "Its name (default: the URI's last item, without an archive's extension)");
  add("--datasetAwsAccessKeyId,--dataset-aws-access-key-id", lists.access_key_ids,
      "Its own credentials; \"none\": those of the environment, a profile, a role");
  add("--datasetAwsSecretAccessKey,--dataset-aws-secret-access-key", lists.secret_access_keys,
      "The secret that goes with them");
  add("--datasetAwsEndpoint,--dataset-aws-endpoint", lists.endpoints, "Another S3");
  add("--datasetVersionId,--dataset-version-id", lists.version_ids, "The object's version");
  add("--datasetEtag,--dataset-etag", lists.etags,
      "The object's etag, or a folder's pin mf:...; anything else ends the run before its start");
  add("--datasetVolumeKind,--dataset-volume-kind", lists.volume_kinds,
      "shared (default): downloaded once; dynamic: a volume of its own, gone with the run");
  add("--datasetVolumeSize,--dataset-volume-size", lists.volume_sizes,
      "Of a dynamic one (default 5Gi); advisory: not enforced");
}

void AddGradientOptions(CLI::App& app, GradientWords& gradient, RunWords& words) {
  app.add_option("--command", gradient.command, "The command, for a shell")->required();
  app.add_option("--experimentEnv", gradient.environment, "Variables, as a JSON object");
  app.add_option("--name", gradient.name, "A name for the run");
  app.add_option("--workspace", gradient.workspace, "A folder: the command's context");
  app.add_option("--workingDirectory", words.workdir, "The command's working directory");
  AddDatasetOptions(app, words.datasets);
  // (References stay what they are: the vector does not grow any more.)
  for (const char* name : {"--projectId",
                           "--container",
                           "--machineType",
                           "--workspaceUrl",
                           "--modelType",
                           "--modelPath",
                           "--ports",
                           "--clusterId",
                           "--isPreemptible",
                           "--artifactDirectory",
                           "--containerUser",
                           "--registryUsername",
                           "--registryPassword",
                           "--workspaceRef",
                           "--workspaceUsername",
                           "--workspacePassword",
                           "--ignoreFiles",
                           "--apiKey",
                           "--tag",
                           "--tags"})
    gradient.ignored.emplace_back(name, "");
  for (auto& [name, value] : gradient.ignored)
    app.add_option(name, value, "Accepted: has no meaning here")->group("Without effect");
}

Status TakeGradient(const GradientWords& gradient, RunWords& words,
                    std::vector<std::string>& command) {
  command = {"/bin/sh", "-c", gradient.command};
  words.name = gradient.name;
  if (gradient.workspace != "none") words.context = gradient.workspace;
  if (!gradient.environment.empty()) {
    const nlohmann::json variables = ParseJson(gradient.environment);
    if (!variables.is_object())
      return Fail(Errc::kInvalid,
                  "--experimentEnv: a JSON object is expected, such as {\"EPOCHS\":5}");
    for (const auto& [name, value] : variables.items()) {
      if (name.empty() || name.find('=') != std::string::npos || value.is_structured())
        return Fail(Errc::kInvalid,
                    fmt::format("--experimentEnv: \"{}\" cannot be a variable", Printable(name)));
      words.env.push_back(
          fmt::format("{}={}", name, value.is_string() ? value.get<std::string>() : value.dump()));
    }
  }
  std::string ignored;
  for (const auto& [name, value] : gradient.ignored) {
    if (!value.empty()) ignored += (ignored.empty() ? "" : ", ") + name;
  }
  if (!ignored.empty()) Note("of no meaning here, and without effect: " + ignored);
  return {};
}

}  // namespace leat::cli
