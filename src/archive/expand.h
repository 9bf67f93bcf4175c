// An archive in a store becomes a tree of plain files while it is downloaded; the archive itself is
// never stored.
#ifndef LEAT_ARCHIVE_EXPAND_H_
#define LEAT_ARCHIVE_EXPAND_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/context.h"
#include "base/error.h"
#include "base/memory_budget.h"
#include "digest/digest.h"
#include "store/object_store.h"

namespace leat::archive {

struct ExpandOptions {
  std::shared_ptr<store::ObjectStore> store;
  /// What Stat said of it: key, size, version (all reads are pinned to it) and expected digest.
  store::ObjectInfo object;
  std::string source;  ///< for messages: "s3://b/mnist.zip"
  /// Exists, and gets the contents. What an earlier attempt of the same object and version has
  /// finished in it stays.
  std::string dir;
  /// What the contents may take; more is kNoSpace, with a sentence that says how much would be
  /// needed where that is known (a zip's directory tells before anything is written), and that it
  /// was limited by `limit_name`; or, where that is less, by what the disk has room for.
  std::uint64_t limit_bytes = UINT64_MAX;
  std::string limit_name = "its limit";
  std::string room_name = "the free space";  ///< what the disk has room for is called so
  std::uint64_t limit_inodes = UINT64_MAX;
  MemoryBudget* budget = nullptr;  ///< for what is in memory on its way; outlives the call
  std::size_t threads = 0;         ///< that decode and write; 0: chosen
  /// Called now and then, from any thread.
  std::function<void(std::uint64_t read, std::uint64_t written)> on_progress = {};
};

struct Expanded {
  std::uint64_t files = 0, directories = 0, links = 0, bytes = 0;
  std::uint64_t resumed_bytes = 0;  ///< of files that an earlier attempt had finished
  /// What was left out or made otherwise, a sentence each, the first few.
  std::vector<std::string> notes;
};

/// Files get mode 0444 (0555 where the archive has them executable) when they are complete, and
/// their times; directories are 0755, the root among them. Nothing is synced.
///
/// kInvalid: a member that would come to lie outside of `dir`, a device, a name that no file system
/// holds, and whatever else an honest archive does not have; the sentence names the member and the
/// archive. kUnsupported: encrypted members, methods that are not known. kCorrupt: not the format
/// that it should be, a checksum that does not match, and an object whose digest is not the one
/// that the store promises. After an error what is in `dir` is of use for the next attempt alone.
Result<Expanded> Expand(const ExpandOptions& options, const CallContext& ctx);

}  // namespace leat::archive

#endif  // LEAT_ARCHIVE_EXPAND_H_
