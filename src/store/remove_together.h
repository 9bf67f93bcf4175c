// Several objects with one request, for drivers whose servers have such a request.
#ifndef LEAT_STORE_REMOVE_TOGETHER_H_
#define LEAT_STORE_REMOVE_TOGETHER_H_

#include <functional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "store/object_store.h"

namespace leat::store {

/// As ObjectStore::RemoveMany. `may`: an object that can be named in the one request. `ask` makes
/// it for those, and gives the keys that were refused; kUnsupported where the server does not know
/// it. What cannot be named or was refused is removed by itself, which also says why not; so is
/// each where a refusal names none of them.
std::vector<Status> RemoveTogether(
    ObjectStore& store, std::span<const Removal> removals,
    const std::function<bool(const Removal&)>& may,
    const std::function<Result<std::set<std::string>>(std::span<const std::string_view>)>& ask,
    const CallContext& ctx);

}  // namespace leat::store

#endif  // LEAT_STORE_REMOVE_TOGETHER_H_
