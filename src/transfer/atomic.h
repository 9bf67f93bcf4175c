// A tree in a store that is exchanged whole (snapshot/manifest.h): what readers see is what its
// manifest says. Private to this folder.
#ifndef LEAT_TRANSFER_ATOMIC_H_
#define LEAT_TRANSFER_ATOMIC_H_

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/context.h"
#include "base/error.h"
#include "snapshot/manifest.h"
#include "transfer/mover.h"
#include "transfer/place.h"

namespace leat::transfer {

/// A killed sync has left replacements that did not take their places.
bool IsUnsettled(const Listed& listed);

/// The steps, each safe to die in; `listed` is always what really lies at the place
/// (ListRequest::raw).
///   Begin: what readers see now is published, so that nothing that comes is seen.
///   (new files are uploaded under their names, replacements to Staging())
///   Publish: the new tree, replacements where they are staged.
///   Settle: replacements take their places; published again; what was staged goes.
class AtomicTree {
 public:
  AtomicTree(const Place& place, Mover& mover) : place_(place), mover_(mover) {}

  Status Begin(const Listed& listed, const CallContext& ctx);
  /// Whether readers see the object under its own name: then it may not be written to.
  bool Visible(const std::string& path) const { return visible_.contains(path); }
  Place Staging() const;
  /// What an earlier attempt has staged for the path, or null.
  const Item* Staged(const std::string& path) const;
  /// The tree that is to be seen: of the source's files those that are in the store now, staged
  /// ones first. kCorrupt when one is not there as large as it should be. `staged`: uploaded so by
  /// this run, or found so. `uploaded`: what the store said of what this run brought; its listing
  /// may lag behind.
  Status Publish(const std::vector<Item>& source, const std::set<std::string>& staged,
                 const std::map<std::string, store::Version>& uploaded, const CallContext& ctx);
  Status Settle(const CallContext& ctx);
  Status RemoveStaged(const CallContext& ctx);

 private:
  void DropLost(const Listed& listed);
  Status Put(const snapshot::Manifest& manifest, const CallContext& ctx);

  const Place& place_;
  Mover& mover_;
  std::set<std::string> visible_;
  std::map<std::string, Item> staged_;
  snapshot::Manifest published_;
};

}  // namespace leat::transfer

#endif  // LEAT_TRANSFER_ATOMIC_H_
