// An object store in memory, for tests and as the reference of the conformance suite.
#ifndef LEAT_STORE_MEMORY_MEMORY_STORE_H_
#define LEAT_STORE_MEMORY_MEMORY_STORE_H_

#include <memory>
#include <string>

#include "store/object_store.h"

namespace leat::store::memory {

/// Keeps every version of every object; etags are MD5s. Lists pages of `page_size`.
std::unique_ptr<ObjectStore> MakeMemoryStore(std::string name = "mem://bucket",
                                             std::size_t page_size = 1000);

}  // namespace leat::store::memory

#endif  // LEAT_STORE_MEMORY_MEMORY_STORE_H_
