// Datasets of a run: resolved, and placed in the shared storage, in a volume of their own, or in a
// folder that the user names.
#ifndef LEAT_JOB_DATASET_H_
#define LEAT_JOB_DATASET_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/context.h"
#include "base/error.h"
#include "base/memory_budget.h"
#include "cache/cache.h"
#include "dataset/storage.h"
#include "job/mount_spec.h"
#include "job/remote.h"
#include "os/file.h"
#include "snapshot/content.h"
#include "snapshot/lock_file.h"

namespace leat::job {

/// What a dataset's contents are: a snapshot, and whether it is one archive that is to be expanded.
struct Resolved {
  SnapshotFile taken;
  std::shared_ptr<const snapshot::Content> content;
  bool expand = false;
};
Result<Resolved> ResolveDataset(Remote& remote, const CallContext& ctx,
                                const std::function<void(std::uint64_t)>& on_progress);

/// What the storage is asked for. Without `resolved` only what the pins name can be found.
dataset::PlaceRequest RequestFor(const MountSpec& spec, Remote& remote, const Resolved* resolved);

/// What filling a folder needs; all outlive it.
struct FillTools {
  cache::Cache* cache = nullptr;
  MemoryBudget* budget = nullptr;
};
Result<dataset::Placed> PlaceShared(const MountSpec& spec, Remote& remote, const Resolved& resolved,
                                    dataset::Storage& storage, const FillTools& tools,
                                    const CallContext& ctx);

/// A volume of its own: with a size that is enforced a file system that vanishes with `kept`; else
/// a folder below `volumes_dir` that CleanVolumes removes once `kept` is closed.
struct Ephemeral {
  os::UniqueFd kept;
  std::string path;  ///< of the folder; empty for a file system
};
Result<Ephemeral> PlaceDynamic(const MountSpec& spec, const Resolved& resolved,
                               const std::string& volumes_dir, const FillTools& tools,
                               const CallContext& ctx);
/// Removes the folders of runs that have ended, however they did.
void CleanVolumes(const std::string& volumes_dir);

}  // namespace leat::job

#endif  // LEAT_JOB_DATASET_H_
