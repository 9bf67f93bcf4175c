// Several copies of one job side by side on this machine, each a run of its own.
#ifndef LEAT_ENGINE_LOCAL_REPLICAS_H_
#define LEAT_ENGINE_LOCAL_REPLICAS_H_

#include <string>
#include <utility>
#include <vector>

#include "engine/local/run.h"

namespace leat::engine::local {

/// `replicas`: names and how many of each. Each finds LEAT_REPLICA (its name), LEAT_REPLICA_INDEX
/// (from 0 within the name), LEAT_RANK and LEAT_WORLD_SIZE (over all, in the order given). The
/// first that fails ends the others; its status is returned.
int RunReplicas(const RunOptions& options,
                const std::vector<std::pair<std::string, unsigned>>& replicas);

}  // namespace leat::engine::local

#endif  // LEAT_ENGINE_LOCAL_REPLICAS_H_
