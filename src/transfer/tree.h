// A snapshot as plain files: fetched whole, verified, published at once, shared by later runs
// (mode=copy).
#ifndef LEAT_TRANSFER_TREE_H_
#define LEAT_TRANSFER_TREE_H_

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/context.h"
#include "base/error.h"
#include "cache/cache.h"
#include "os/file.h"
#include "snapshot/content.h"

namespace leat::transfer {

struct TreeOptions {
  std::shared_ptr<const snapshot::Content> content;
  cache::Cache* cache = nullptr;  ///< outlives the call
  std::string fallback_dir;       ///< where trees are put when the cache has no folder
  std::string source;             ///< for messages
  std::size_t threads = 32;
  std::uint64_t request = 8 * kMiB;  ///< bytes a request of a large file
  mode_t folder_mode = 0555;
  /// Set: the tree does not hold the snapshot's files but what this makes of them in a folder, in
  /// which an earlier attempt may have left something; `made` tells such trees from others of the
  /// same snapshot.
  std::function<Status(const std::string& dir, const CallContext& ctx)> fill = {};
  std::string made = {};
  /// With `fill`: what it will take, more or less; what it took is found out afterwards.
  std::uint64_t bytes = 0, inodes = 0;
};

struct Tree {
  std::string path;     ///< files 0444, folders 0555
  os::UniqueFd lease;   ///< while it is open, the tree is not evicted
  bool reused = false;  ///< it was there
};

/// Returns when the tree is complete. Of several processes one copies and the others wait; a killed
/// one's files are gone on with. kNoSpace: the sentence says how much is needed. A tree whose bytes
/// may not have reached the disk before a power loss is not used again.
Result<Tree> PublishTree(const TreeOptions& options, const CallContext& ctx);
/// The work itself: the snapshot's files in the folder `dir`, which is made; what an earlier
/// attempt has finished there stays. Files are 0444 when they are complete. Nothing is synced.
Status FetchTree(const TreeOptions& options, const std::string& dir, const CallContext& ctx);
/// Whether the tree is there, so that PublishTree would have nothing to do.
bool IsPublished(const TreeOptions& options);

}  // namespace leat::transfer

#endif  // LEAT_TRANSFER_TREE_H_
