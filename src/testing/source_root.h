// Where the project's own files are, for tests that read some of them.
#ifndef LEAT_TESTING_SOURCE_ROOT_H_
#define LEAT_TESTING_SOURCE_ROOT_H_

#include <filesystem>

namespace leat::testing {

/// The project's folder: above the program that runs, or above the current folder. (__FILE__ is
/// relative to wherever the compiler ran.)
inline std::filesystem::path SourceRoot() {
  namespace fs = std::filesystem;
  for (fs::path from : {fs::read_symlink("/proc/self/exe"), fs::current_path()}) {
    for (; from.has_relative_path(); from = from.parent_path()) {
      if (fs::exists(from / "tests/golden")) return from;
    }
  }
  return ".";
}

}  // namespace leat::testing

#endif  // LEAT_TESTING_SOURCE_ROOT_H_
