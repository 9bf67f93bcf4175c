// A source's contents as plain files in a folder: copied, or an archive expanded.
#ifndef LEAT_DATASET_FILL_H_
#define LEAT_DATASET_FILL_H_

#include <cstdint>
#include <memory>
#include <string>

#include "base/context.h"
#include "base/error.h"
#include "base/memory_budget.h"
#include "cache/cache.h"
#include "snapshot/content.h"
#include "transfer/tree.h"

namespace leat::dataset {

struct FillOptions {
  std::shared_ptr<const snapshot::Content> content;
  bool expand = false;             ///< content is one object, an archive: what is in it
  std::string source;              ///< for messages
  cache::Cache* cache = nullptr;   ///< may have some of it; outlives the call
  MemoryBudget* budget = nullptr;  ///< outlives the call
  std::uint64_t limit_bytes = UINT64_MAX;
  std::string limit_name;                    ///< "its volume (size=)"
  std::string room_name = "the free space";  ///< what the disk has room for
};

/// The folder exists; what an earlier attempt has finished in it stays. Files are 0444 (what can be
/// executed 0555), folders 0755. Every byte is checked. Nothing is synced. kNoSpace, before
/// anything is written where the sizes are known.
Status Fill(const FillOptions& options, const std::string& dir, const CallContext& ctx);
/// The tree of `options`, whose content is one archive, holds what is in it. `budget` outlives the
/// publishing.
void ExpandInto(transfer::TreeOptions& options, MemoryBudget& budget);
/// kNoSpace where the files are known to need more than the limit.
Status CheckRoom(const FillOptions& options);
/// What a copy of the files takes on a disk, more or less.
std::uint64_t RoomFor(const snapshot::Snapshot& index);

}  // namespace leat::dataset

#endif  // LEAT_DATASET_FILL_H_
