// A folder of this machine as an object store: files are objects, their paths below the root are
// keys.
#ifndef LEAT_STORE_LOCAL_LOCAL_STORE_H_
#define LEAT_STORE_LOCAL_LOCAL_STORE_H_

#include <memory>
#include <string>

#include "store/object_store.h"

namespace leat::store::local {

/// The version is made of inode, size, mtime and ctime. Put writes beside and renames. Links out of
/// the root are not followed, keys that are no relative path ("..", "//", leading "/") are
/// kInvalid. kNotFound when the root does not exist.
Result<std::unique_ptr<ObjectStore>> MakeLocalStore(std::string root);

}  // namespace leat::store::local

#endif  // LEAT_STORE_LOCAL_LOCAL_STORE_H_
