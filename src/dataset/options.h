// The dataset options of the command line, and of a job file: texts, before they mean anything.
// Names, pairing and "none" are those of Gradient's command line.
#ifndef LEAT_DATASET_OPTIONS_H_
#define LEAT_DATASET_OPTIONS_H_

#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace leat::dataset {

/// One dataset. Empty: not given.
struct Options {
  std::string uri = {};
  std::string name = {};
  std::string access_key_id = {};
  std::string secret_access_key = {};
  std::string endpoint = {};
  std::string version_id = {};
  std::string etag = {};
  std::string volume_kind = {};
  std::string volume_size = {};
};

/// What was given for each option, in order: the first --datasetName belongs to the first
/// --datasetUri.
struct OptionLists {
  std::vector<std::string> uris, names, access_key_ids, secret_access_keys, endpoints, version_ids,
      etags, volume_kinds, volume_sizes;
};

struct Paired {
  std::vector<Options> datasets;
  std::vector<std::string> notes;  ///< for the user: a list that is shorter than that of the URIs
};
/// "none" is no value, but for a URI. kInvalid: an option that is given more often than
/// --datasetUri.
Result<Paired> Pair(const OptionLists& lists);
/// `value`, or nothing where it is "none".
std::string_view UnlessNone(std::string_view value);

}  // namespace leat::dataset

#endif  // LEAT_DATASET_OPTIONS_H_
