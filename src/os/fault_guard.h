// Mapped files whose disk fails: without a guard the next touch of a page is a SIGBUS and the end
// of the process.
#ifndef LEAT_OS_FAULT_GUARD_H_
#define LEAT_OS_FAULT_GUARD_H_

#include <cstddef>

namespace leat::os {

/// From now on a page of [begin, begin + size) that cannot be read is replaced by zeros, for this
/// process. Only for mappings in which zeros mean "nothing is known": tables of where things are,
/// never contents. Thread-safe; the range stays guarded until Unguard.
void GuardMapping(const void* begin, std::size_t size);
void UnguardMapping(const void* begin);

}  // namespace leat::os

#endif  // LEAT_OS_FAULT_GUARD_H_
