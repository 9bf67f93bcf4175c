// What a published tree held when it was complete: to see at a glance that nothing of it is gone,
// and to hash it again.
#ifndef LEAT_DATASET_TREE_INDEX_H_
#define LEAT_DATASET_TREE_INDEX_H_

#include <cstdint>
#include <string>
#include <vector>

#include "base/context.h"
#include "base/error.h"

namespace leat::dataset {

struct TreeShape {
  std::uint64_t files = 0, folders = 0, bytes = 0;
  std::string folders_digest;  ///< over the folders' names and times: a file that comes or goes
                               ///< changes its folder's
};

/// Reads the whole tree once and writes FILES (a hash, a size and a path a file) and FOLDERS (a
/// path a folder) atomically.
Result<TreeShape> IndexTree(const std::string& root, const std::string& files,
                            const std::string& folders, const CallContext& ctx);
/// The folders' digest as it is now: one stat a folder. kNotFound where one is gone.
Result<std::string> FoldersDigest(const std::string& root, const std::string& folders);

/// How a tree differs from its index; a sentence a file, sorted by path.
struct TreeDifference {
  std::vector<std::string> missing, changed, added;
  bool none() const { return missing.empty() && changed.empty() && added.empty(); }
};
/// Hashes every file again.
Result<TreeDifference> VerifyTree(const std::string& root, const std::string& files,
                                  const CallContext& ctx);

/// Everything in it is on the disk when this returns, and survives a power loss.
Status SyncTree(const std::string& root, const CallContext& ctx);

}  // namespace leat::dataset

#endif  // LEAT_DATASET_TREE_INDEX_H_
