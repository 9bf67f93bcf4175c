// A member's name, and where in a folder it may come to lie. Private to this folder.
#ifndef LEAT_ARCHIVE_MEMBER_PATH_H_
#define LEAT_ARCHIVE_MEMBER_PATH_H_

#include <string>
#include <string_view>

#include "base/error.h"

namespace leat::archive {

/// A member's name for messages, in quotes; a long one shortened.
std::string Quoted(std::string_view name);

/// "./a//b/" is "a/b", "./" is "". kInvalid, with the name: absolute, "..", a NUL, more than 255
/// bytes between two slashes, more than 4,096 in all.
Result<std::string> MemberPath(std::string_view name);

/// "a/b" of "a/b/c", and "" of "a".
inline std::string_view ParentOf(std::string_view path) {
  const auto slash = path.rfind('/');
  return slash == path.npos ? std::string_view() : path.substr(0, slash);
}
inline std::string_view LeafOf(std::string_view path) { return path.substr(path.rfind('/') + 1); }

}  // namespace leat::archive

#endif  // LEAT_ARCHIVE_MEMBER_PATH_H_
