#include "archive/member_path.h"

#include <fmt/format.h>

#include "base/log.h"

namespace leat::archive {

std::string Quoted(std::string_view name) {
  constexpr std::size_t kShown = 200;
  return fmt::format("\"{}{}\"", Printable(name.substr(0, kShown)),
                     name.size() > kShown ? "..." : "");
}

Result<std::string> MemberPath(std::string_view name) {
  constexpr std::size_t kMostName = 255, kMostPath = 4096;
  const auto refuse = [&](std::string_view why) {
    return Fail(Errc::kInvalid, fmt::format("the member {} {}", Quoted(name), why));
  };
  if (name.starts_with('/')) return refuse("has an absolute name");
  if (name.find('\0') != name.npos) return refuse("has a NUL in its name");
  std::string path;
  for (std::string_view rest = name; !rest.empty();) {
    const auto slash = rest.find('/');
    const std::string_view part = rest.substr(0, slash);
    rest = slash == rest.npos ? std::string_view() : rest.substr(slash + 1);
    if (part.empty() || part == ".") continue;
    if (part == "..") return refuse("would come to lie outside of the folder");
    if (part.size() > kMostName) return refuse("has a name of more than 255 bytes");
    if (!path.empty()) path += '/';
    path += part;
  }
  if (path.size() > kMostPath) return refuse("has a path of more than 4096 bytes");
  return path;
}

}  // namespace leat::archive
