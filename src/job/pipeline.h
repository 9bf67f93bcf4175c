// A pipeline: stages, each a run of its own, that share a working folder; from a YAML file.
#ifndef LEAT_JOB_PIPELINE_H_
#define LEAT_JOB_PIPELINE_H_

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "config/aws_config.h"
#include "job/home.h"
#include "job/mount_spec.h"

namespace leat::job {

struct Stage {
  std::string name;
  std::vector<std::string> command;  ///< of a script: its absolute path
  std::string script;                ///< its contents; empty where the stage has a command
  std::vector<std::pair<std::string, std::string>> env;
  std::vector<std::string> required;  ///< variables that must be set and not empty
  std::vector<std::string> mounts;    ///< as behind leat run -m
  std::vector<std::size_t> needs;     ///< stages before it
};

struct Pipeline {
  std::string name;
  std::string workdir = "/data";  ///< where the stages find the folder that they share
  std::vector<Stage> stages;      ///< each behind those that it needs
};

/// `path` is for messages and for the name where the text has none; scripts are read from beside
/// it. kInvalid: the sentence names the line.
Result<Pipeline> ParsePipeline(const std::string& text, const std::string& path);

/// With ${NAME} and ${NAME:-default} replaced. kInvalid: "ERROR: NAME is not set".
Result<std::string> ExpandVariables(std::string_view text, const config::Environment& env);

/// All that the stage's result depends on, as far as it can be known beforehand: its command,
/// variables and sources (a remote one's contents, a local one's sizes and times), and when what it
/// needs was made. Asks the stores. `needed`: the records of the stages that it needs.
Result<std::string> InputsDigest(const Stage& stage, const std::vector<std::string>& needed,
                                 const config::Environment& env, const Home& home);

}  // namespace leat::job

#endif  // LEAT_JOB_PIPELINE_H_
