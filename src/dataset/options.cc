#include "dataset/options.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "dataset/name.h"

namespace leat::dataset {

std::string_view UnlessNone(std::string_view value) {
  return value == "none" ? std::string_view() : value;
}

Result<Paired> Pair(const OptionLists& lists) {
  struct Option {
    std::string_view name;
    const std::vector<std::string>& values;
    std::string Options::* field;
  };
  const std::array options = {
      Option{"--datasetName", lists.names, &Options::name},
      Option{"--datasetAwsAccessKeyId", lists.access_key_ids, &Options::access_key_id},
      Option{"--datasetAwsSecretAccessKey", lists.secret_access_keys, &Options::secret_access_key},
      Option{"--datasetAwsEndpoint", lists.endpoints, &Options::endpoint},
      Option{"--datasetVersionId", lists.version_ids, &Options::version_id},
      Option{"--datasetEtag", lists.etags, &Options::etag},
      Option{"--datasetVolumeKind", lists.volume_kinds, &Options::volume_kind},
      Option{"--datasetVolumeSize", lists.volume_sizes, &Options::volume_size},
  };
  Paired out;
  out.datasets.resize(lists.uris.size());
  for (std::size_t i = 0; i < lists.uris.size(); ++i) out.datasets[i].uri = lists.uris[i];
  for (const Option& option : options) {
    if (option.values.size() > lists.uris.size()) {
      // The sentence of the original.
      return Fail(
          Errc::kInvalid,
          fmt::format("Too many dataset parameter sets ({}) for {} dataset URIs. Forgot to add one "
                      "more dataset URI? ({})",
                      option.values.size(), lists.uris.size(), option.name));
    }
    if (!option.values.empty() && option.values.size() < lists.uris.size()) {
      out.notes.push_back(fmt::format(
          "{} is given {} for {} datasets: it is for the first; \"none\" says that one has none",
          option.name,
          option.values.size() == 1 ? "once" : fmt::format("{} times", option.values.size()),
          lists.uris.size()));
    }
    if (option.field == &Options::name &&
        std::ranges::find(option.values, "") != option.values.end())
      return std::unexpected(CheckName("").error());
    for (std::size_t i = 0; i < option.values.size(); ++i)
      out.datasets[i].*option.field = UnlessNone(option.values[i]);
  }
  return out;
}

}  // namespace leat::dataset
