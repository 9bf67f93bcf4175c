// Programs of the system that leat calls to help: mkfs, fusermount3.
#ifndef LEAT_OS_PROGRAM_H_
#define LEAT_OS_PROGRAM_H_

#include <string>
#include <vector>

#include "base/error.h"

namespace leat::os {

struct ProgramEnd {
  bool succeeded = false;  ///< ended with status 0
  std::string said;        ///< on stdout and stderr, 4 KiB at most, without the last line's end
};

/// Runs a program and waits for its end. `words`: its name, which is looked for in PATH and in the
/// folders of system programs (an ordinary user's PATH lacks /usr/sbin), and its arguments. It
/// inherits nothing but stdin as /dev/null, and `fd`, where there is one, as descriptor 3;
/// `variable` ("NAME=VALUE") is added to its environment. kNotFound: there is no such program.
Result<ProgramEnd> RunProgram(const std::vector<std::string>& words, int fd = -1,
                              const std::string& variable = "");

}  // namespace leat::os

#endif  // LEAT_OS_PROGRAM_H_
