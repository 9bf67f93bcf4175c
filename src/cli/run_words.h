// The words of leat run: options, dataset options, a job file; and Gradient's command line that
// means the same.
#ifndef LEAT_CLI_RUN_WORDS_H_
#define LEAT_CLI_RUN_WORDS_H_

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "dataset/options.h"
#include "engine/local/run.h"
#include "job/home.h"

namespace CLI {
class App;
}

namespace leat::cli {

struct RunWords {
  std::vector<std::string> mounts, env, binds;
  dataset::OptionLists datasets;
  std::string name, workdir, pid = "auto", context, context_limit, lock, locked, storage = "ro";
  std::optional<std::string> stats;
  bool strict = false, strict_pins = false, dry_run = false, json = false;
};

struct Job {
  engine::local::RunOptions options;
  std::vector<std::pair<std::string, unsigned>> replicas;  ///< empty: one run
};

/// `words`: what stands before "--" beside the options: JOB.yaml [CONTEXT], or the command itself.
Result<Job> MakeJob(RunWords words, job::Home home, std::vector<std::string> before,
                    std::vector<std::string> command);
/// --datasetUri and the others, in both spellings.
void AddDatasetOptions(CLI::App& app, dataset::OptionLists& lists);

/// `gradient experiments run singlenode ...` behind `leat`: what of it means nothing here is told
/// in one note.
struct GradientWords {
  std::string command, environment, name, workspace;
  std::vector<std::pair<std::string, std::string>> ignored;  ///< options and what was given
};
void AddGradientOptions(CLI::App& app, GradientWords& gradient, RunWords& words);
Status TakeGradient(const GradientWords& gradient, RunWords& words,
                    std::vector<std::string>& command);

}  // namespace leat::cli

#endif  // LEAT_CLI_RUN_WORDS_H_
