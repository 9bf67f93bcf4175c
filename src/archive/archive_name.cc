#include "archive/archive_name.h"

#include <array>

#include "base/text.h"

namespace leat::archive {

std::string_view ArchiveExtension(std::string_view name) {
  // The longest first.
  static constexpr std::array<std::string_view, 14> kExtensions = {
      ".tar.bz2", ".tar.gz2", ".tar.zst", ".tar.lz4", ".tar.gz", ".tar.xz", ".tbz2",
      ".tzst",    ".zip",     ".tar",     ".tbz",     ".tgz",    ".txz",    ".tlz4"};
  for (const std::string_view extension : kExtensions) {
    if (name.size() <= extension.size()) continue;
    const std::string_view end = name.substr(name.size() - extension.size());
    if (Lower(end) == extension && name[name.size() - extension.size() - 1] != '/') return end;
  }
  return {};
}

}  // namespace leat::archive
