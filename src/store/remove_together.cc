#include "store/remove_together.h"

#include <algorithm>

namespace leat::store {

std::vector<Status> RemoveTogether(
    ObjectStore& store, std::span<const Removal> removals,
    const std::function<bool(const Removal&)>& may,
    const std::function<Result<std::set<std::string>>(std::span<const std::string_view>)>& ask,
    const CallContext& ctx) {
  std::vector<std::string_view> keys;
  std::vector<bool> together(removals.size());
  const bool one_request = removals.size() > 1 && removals.size() <= store.max_removals();
  for (std::size_t i = 0; i < removals.size(); ++i) {
    together[i] = one_request && may(removals[i]);
    if (together[i]) keys.push_back(removals[i].key);
  }
  Result<std::set<std::string>> refused = Fail(Errc::kUnsupported, "");
  if (!keys.empty()) refused = ask(keys);
  const bool told = refused && std::ranges::all_of(*refused, [&](const std::string& key) {
                      return std::ranges::find(keys, key) != keys.end();
                    });
  const bool failed = !refused && refused.error().code() != Errc::kUnsupported;
  std::vector<Status> out(removals.size());
  for (std::size_t i = 0; i < removals.size(); ++i) {
    if (together[i] && failed) {
      out[i] = std::unexpected(refused.error());
    } else if (!together[i] || !told || refused->contains(removals[i].key)) {
      out[i] = store.Remove(removals[i].key, ctx);
    }
  }
  return out;
}

}  // namespace leat::store
