// Runs a job on this machine: the supervisor (design decision 12).
#ifndef LEAT_ENGINE_LOCAL_RUN_H_
#define LEAT_ENGINE_LOCAL_RUN_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "job/bind.h"
#include "job/context.h"
#include "job/home.h"
#include "job/mount_spec.h"

namespace leat::engine::local {

enum class PidMode : std::uint8_t {
  kAuto,  ///< its own process numbers, but for the ranks of a parallel job that are started beside
          ///< each other
  kOwn,
  kHost,
};

struct RunOptions {
  std::vector<job::MountSpec> mounts;
  std::vector<std::string> command;
  std::vector<std::string> env;  ///< "NAME=value"
  std::string name;              ///< part of LEAT_RUN_ID
  std::string workdir;           ///< absolute; empty: the context, else where leat was started
  std::vector<job::BindMount> binds;
  std::string context;  ///< a folder whose contents are copied into the working directory
  std::uint64_t context_limit = job::kContextLimit;
  std::string data_config = "{}";  ///< JSON: for LEAT_DATA_CONFIG
  std::string lock_file;           ///< gets what the sources were resolved to
  bool storage_writable = false;   ///< /storage/data may be cleaned by the job
  job::Home home;
  bool strict = false;
  bool dry_run = false;
  bool json = false;  ///< of the dry run
  PidMode pid = PidMode::kAuto;
  /// "": the summary line alone; "text": a table on stderr; "json": on stderr; else the file that
  /// gets the JSON.
  std::optional<std::string> stats;
};

/// The exit status of the whole: the command's own, 128+n after signal n, 127 not found, 126 not
/// executable, 125 for what leat did not manage before the command started (said on stderr).
int Run(RunOptions options);

}  // namespace leat::engine::local

#endif  // LEAT_ENGINE_LOCAL_RUN_H_
