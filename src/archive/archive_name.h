// What an archive is called: only that decides whether a dataset is expanded (expand=auto); which
// decoder reads it, its first bytes say (decoder.h, zip_directory.h).
#ifndef LEAT_ARCHIVE_ARCHIVE_NAME_H_
#define LEAT_ARCHIVE_ARCHIVE_NAME_H_

#include <string_view>

namespace leat::archive {

/// ".zip", ".tar.gz" and the other extensions that are recognised, in any case; the longest that
/// `name` ends in, as it is written there. Empty where it ends in none, or consists of nothing
/// else.
std::string_view ArchiveExtension(std::string_view name);

}  // namespace leat::archive

#endif  // LEAT_ARCHIVE_ARCHIVE_NAME_H_
