// What a dataset is called, and the folder that it has in the shared storage.
#ifndef LEAT_DATASET_NAME_H_
#define LEAT_DATASET_NAME_H_

#include <string>
#include <string_view>

#include "base/error.h"

namespace leat::dataset {

/// Of the path of a source ("my-bucket/mnist.zip", "my-bucket/dir/", "my-bucket"): the last
/// component without an archive's extension, whatever other extension it has.
std::string DefaultName(std::string_view path);
/// kInvalid for what cannot be a folder's name ("", ".", "..", with '/' or NUL, over 255 bytes) and
/// for "none", which says that there is none. Spaces are as good as any byte.
Status CheckName(std::string_view name);
/// NAME[-ETAG][-VERSIONID], what is not given left out with its dash. kInvalid where that is over
/// 255 bytes.
Result<std::string> FolderName(std::string_view name, std::string_view etag,
                               std::string_view version);

}  // namespace leat::dataset

#endif  // LEAT_DATASET_NAME_H_
