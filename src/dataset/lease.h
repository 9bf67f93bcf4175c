// Who may write: one process among all that see a folder, on this machine and on others.
#ifndef LEAT_DATASET_LEASE_H_
#define LEAT_DATASET_LEASE_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <stop_token>
#include <string>
#include <thread>

#include "base/context.h"
#include "base/error.h"
#include "os/file.h"

namespace leat::dataset {

struct LeaseTimes {
  std::chrono::milliseconds beat{3'000};   ///< how often a holder says that it lives
  std::chrono::milliseconds dead{30'000};  ///< unchanged for so long, a lease is taken over
  std::chrono::milliseconds look{500};     ///< how often one that waits looks
  /// LEAT_LEASE_SECONDS, for tests: `dead`, and the others in proportion.
  static LeaseTimes Default();
};

/// A file whose contents name its holder and count its beats. A waiting process judges by the
/// contents, read anew each time, and by its own clock: times and attributes of a network file
/// system may be old, and clocks differ. A holder on this machine is known to be dead at once: it
/// held a lock on the file (flock), which ended with it.
///
/// A holder that is taken for dead and is not finds out with its next beat, at the latest: `lost()`
/// is requested to stop then. What two holders could do at once must therefore be harmless: they
/// work in folders of their own, by holder().
class Lease {
 public:
  /// Waits until the lease at `path` (in a folder that exists) is this process's; `waiting` is
  /// called now and then meanwhile with who holds it, and may end the waiting by returning false
  /// (kConflict).
  static Result<std::unique_ptr<Lease>> Take(
      const std::string& path, const LeaseTimes& times, const CallContext& ctx,
      const std::function<bool(const std::string& holder)>& waiting);
  /// Gives it back, where it is still this process's.
  ~Lease();
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;

  /// A name that no other holder has or had.
  const std::string& holder() const { return holder_; }
  std::stop_token lost() const { return lost_.get_token(); }
  /// kConflict where it has been taken over. To be asked before what others would see.
  Status Check();

 private:
  Lease(std::string path, std::string holder, LeaseTimes times)
      : path_(std::move(path)), holder_(std::move(holder)), times_(times) {}
  void Beat(const std::stop_token& stop);

  const std::string path_, holder_;
  const LeaseTimes times_;
  os::UniqueFd file_;  // locked
  std::uint64_t beats_ = 0;
  std::stop_source lost_;
  std::jthread heart_;
};

}  // namespace leat::dataset

#endif  // LEAT_DATASET_LEASE_H_
