// kill -9 at a chosen step of what a process does to its disk.
#ifndef LEAT_TESTING_STEP_KILLER_H_
#define LEAT_TESTING_STEP_KILLER_H_

#include <functional>

namespace leat::testing {

/// Runs `body` in a child process, which is killed right before its `step`th system call (counted
/// from 0, over all its threads) that changes something on disk: writes, new names, modes, sizes,
/// syncs, locks. False: it ended before. Must be called from a process that has one thread, or
/// whose other threads hold nothing that `body` needs. Needs ptrace.
bool KilledAtStep(int step, const std::function<void()>& body);

}  // namespace leat::testing

#endif  // LEAT_TESTING_STEP_KILLER_H_
