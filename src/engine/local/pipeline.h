// leat pipeline: the stages of a file, one after another, each a run of its own.
#ifndef LEAT_ENGINE_LOCAL_PIPELINE_H_
#define LEAT_ENGINE_LOCAL_PIPELINE_H_

#include <string>

#include "job/home.h"

namespace leat::engine::local {

struct PipelineOptions {
  std::string file;
  std::string stage;  ///< this one and what it needs; empty: all
  job::Home home;
  bool force = false;    ///< also what succeeded with the same inputs
  bool dry_run = false;  ///< says what would be run
  bool json = false;     ///< of the dry run
};

/// Runs what has not succeeded with the same inputs. A stage that fails ends the pipeline with its
/// own exit status; 1 where leat could not begin.
int RunPipeline(const PipelineOptions& options);
/// Removes the folder that the pipeline's stages share, and what is known of them.
int CleanPipeline(const std::string& file, const job::Home& home);

}  // namespace leat::engine::local

#endif  // LEAT_ENGINE_LOCAL_PIPELINE_H_
