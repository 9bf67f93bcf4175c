// Many files from one place to another: what cp and sync do.
#ifndef LEAT_TRANSFER_COPY_H_
#define LEAT_TRANSFER_COPY_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/context.h"
#include "base/error.h"
#include "base/memory_budget.h"
#include "transfer/filter.h"
#include "transfer/place.h"

namespace leat::transfer {

/// By what a file that is at both places is taken for the same. Different sizes are always
/// different.
enum class Compare : std::uint8_t {
  /// By a digest where one is known or cheap to know, else by the modification time, and where that
  /// differs by a digest.
  kDefault,
  kChecksum,  ///< by a digest; where none can be known by the size
  kSizeOnly
};
enum class Extraneous : std::uint8_t { kKeep, kDeleteBefore, kDeleteDuring, kDeleteAfter };

struct CopyOptions {
  Place from, to;
  Filter filter = {};
  Links links = Links::kSkip;
  Compare compare = Compare::kDefault;
  bool update = false;           ///< what is newer at the target stays
  bool ignore_existing = false;  ///< what is at the target stays
  bool immutable = false;        ///< what is at the target and differs is an error
  Extraneous extraneous = Extraneous::kKeep;
  std::uint64_t max_delete = UINT64_MAX;  ///< more is an error, before the first
  bool delete_everything = false;         ///< an empty source may empty the target
  std::optional<Place> backup = {};       ///< where what is replaced or deleted goes
  /// Readers through leat see the target's old files or the new ones: with
  /// Extraneous::kDeleteAfter, to a store, of whole folders.
  bool atomic = false;
  bool verify = true;
  bool dry_run = false;
  std::size_t transfers = 0;           ///< files at once; 0: chosen
  std::size_t streams = 0;             ///< requests of one large file at once; 0: chosen
  std::uint64_t cutoff = 0;            ///< from this size on in parts or ranges; 0: chosen
  std::uint64_t bytes_per_second = 0;  ///< 0: no limit
  std::string state_dir = {};          ///< where uploads under way are noted; "": nowhere
  MemoryBudget* budget = nullptr;      ///< of what is in memory on its way; outlives the call
  /// "copied", "deleted", "same" or "backed up", and the file: for -v and --dry-run. From any
  /// thread.
  std::function<void(std::string_view what, const std::string& path)> on_file = {};
};

/// What is under way: for a line that updates. Thread-safe.
struct CopyProgress {
  std::atomic<std::uint64_t> listed{0}, checked{0}, files{0}, bytes{0}, errors{0};
  std::atomic<std::uint64_t> files_total{0}, bytes_total{0};
};

struct CopyReport {
  std::uint64_t files = 0, bytes = 0, same = 0, kept = 0, deleted = 0;
  std::uint64_t resumed_bytes = 0;  ///< that an earlier attempt had brought
  std::uint64_t skipped_links = 0, skipped_special = 0;
  std::map<std::string, std::uint64_t, std::less<>> verified;  ///< files by what: "MD5"
  std::uint64_t unverified = 0;                                ///< the store gives no digest
  std::uint64_t errors = 0;
  std::vector<std::pair<std::string, std::string>>
      failed;  ///< files and sentences, the first 1,000
};

/// Goes on after a file's failure; what it says is in the report. An error is one of all: no
/// source, nothing may be written, a refusal to delete.
Result<CopyReport> Copy(const CopyOptions& options, const CallContext& ctx, CopyProgress* progress);

/// What tells two places apart, without moving data.
struct CheckReport {
  std::vector<std::string> same, differ, missing_at_source, missing_at_target;
  std::vector<std::pair<std::string, std::string>> failed;
  std::uint64_t by_size_alone = 0;  ///< the same size, and no digest to compare
};
Result<CheckReport> Check(const CopyOptions& options, const CallContext& ctx,
                          CopyProgress* progress);

/// Takes away the manifest of a tree that was published whole, so that it is a plain one that may
/// be written to; finishes first what a killed sync left unsettled. `listed`: raw.
Status ForgetManifest(const Place& place, const Listed& listed, const CallContext& ctx);
/// The same for the folders above a place, and for the folder of a place that is one object:
/// whoever writes there changes their trees, too. Asks once a level.
Status ForgetManifestsAbove(const Place& place, const CallContext& ctx);

}  // namespace leat::transfer

#endif  // LEAT_TRANSFER_COPY_H_
