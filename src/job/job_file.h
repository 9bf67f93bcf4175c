// A job in a file: what leat run JOB.yaml reads. docs/job-file.md tells its keys.
#ifndef LEAT_JOB_JOB_FILE_H_
#define LEAT_JOB_JOB_FILE_H_

#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "config/aws_config.h"
#include "job/bind.h"
#include "job/mount_spec.h"

namespace leat::job {

/// A value.
struct JobFile {
  std::string name;
  std::vector<std::string> command;  ///< a text is for the shell
  std::string context;               ///< a folder; empty: none
  std::vector<std::pair<std::string, std::string>> env;
  std::vector<MountSpec> mounts;  ///< those of `mounts` and `datasets`
  std::vector<BindMount> bind_mounts;
  std::string data_config = "{}";                          ///< `data`, as JSON
  std::vector<std::pair<std::string, unsigned>> replicas;  ///< how many of which name; empty: one
};

/// kInvalid with file and line for what it cannot be. ${VARIABLES} in URLs and keys are those of
/// `env`.
Result<JobFile> ParseJobFile(const std::string& text, const std::string& path,
                             const config::Environment& env);

}  // namespace leat::job

#endif  // LEAT_JOB_JOB_FILE_H_
