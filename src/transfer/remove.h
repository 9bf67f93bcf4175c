// Files and objects are taken away.
#ifndef LEAT_TRANSFER_REMOVE_H_
#define LEAT_TRANSFER_REMOVE_H_

#include <cstddef>
#include <functional>
#include <span>

#include "base/context.h"
#include "base/error.h"
#include "transfer/place.h"

namespace leat::transfer {

/// Files or objects, whether or not they are there; a file that has become something else stays.
/// As many requests at once as get the most done, or `transfers`; many objects with one request
/// where the store can. `done` is told of each, one at a time, from any thread. What is left when
/// `ctx` is cancelled stays, and `done` hears nothing of it.
void RemoveItems(const Place& place, std::span<const Item* const> items, std::size_t transfers,
                 const std::function<void(const Item&, const Status&)>& done,
                 const CallContext& ctx);
/// Of a folder of this machine, what is empty now of what held the files that were listed.
void RemoveEmptyFolders(const Place& place, const Listed& listed);

}  // namespace leat::transfer

#endif  // LEAT_TRANSFER_REMOVE_H_
