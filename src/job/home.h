// Where leat keeps things on this machine, and how much of it it may use.
#ifndef LEAT_JOB_HOME_H_
#define LEAT_JOB_HOME_H_

#include <cstdint>
#include <string>

#include "base/error.h"
#include "config/aws_config.h"
#include "config/leat_config.h"

namespace leat::job {

struct Home {
  std::string dir;          ///< LEAT_HOME, else $XDG_DATA_HOME/leat
  std::string cache_dir;    ///< LEAT_CACHE_DIR, else $LEAT_HOME/cache, else $XDG_CACHE_HOME/leat
  std::string storage_dir;  ///< of shared datasets: storage.path of the file, else `dir`/storage
  std::string cache_note;  ///< why the cache is not where it would be by default; empty where it is
  std::uint64_t cache_bytes = 0;    ///< 0: the cache's own default
  std::uint64_t memory_bytes = 0;   ///< the budget
  std::uint64_t retry_seconds = 0;  ///< how long a failing read is tried again

  std::string snapshots_dir() const { return dir + "/snapshots"; }
  std::string mounts_dir() const { return dir + "/mnt"; }
  std::string volumes_dir() const { return dir + "/volumes"; }
};

/// Makes the home, closed to others, where it is not there: a storage in it may be open to them.
Status MakeHome(const Home& home);
/// From the options of the command line (0: not given), the environment and the configuration file,
/// in this order. Makes nothing. kInvalid: a size or a configuration file that cannot be read as
/// one.
Result<Home> FindHome(const config::Environment& env, std::uint64_t cache_size,
                      std::uint64_t memory);

}  // namespace leat::job

#endif  // LEAT_JOB_HOME_H_
