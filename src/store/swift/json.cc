#include "store/swift/json.h"

#include <fmt/format.h>

#include "base/bytes.h"
#include "base/json_fields.h"
#include "base/log.h"
#include "net/url.h"
#include "store/http_answer.h"

namespace leat::store::swift {
namespace {

using nlohmann::json;

std::optional<std::uint64_t> Number(const json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_number_unsigned()) return std::nullopt;
  return found->get<std::uint64_t>();
}

/// Swift's dates are UTC and do not say so.
std::optional<std::chrono::system_clock::time_point> DateOf(std::string text) {
  if (text.empty()) return std::nullopt;
  if (!text.ends_with('Z')) text += 'Z';
  return net::ParseIsoDate(text);
}

}  // namespace

Result<Listing> ParseListing(std::string_view document) {
  const json entries = ParseJson(document);
  if (!entries.is_array()) return Fail(Errc::kCorrupt, "the listing is no JSON array");
  Listing listing;
  listing.objects.reserve(entries.size());
  for (const json& entry : entries) {
    if (!entry.is_object()) return Fail(Errc::kCorrupt, "the listing has an entry that is none");
    ObjectInfo info;
    info.key = TextOf(entry, "name");
    const auto size = Number(entry, "bytes");
    if (info.key.empty() || !size)
      return Fail(Errc::kCorrupt, "the listing has an entry without a name or a size");
    info.size = *size;
    info.modified = DateOf(TextOf(entry, "last_modified"));
    // "hash" is that of a static large object's manifest; the object's own is beside it.
    const std::string whole = TextOf(entry, "slo_etag");
    info.in_parts = !whole.empty();
    info.version.etag = UnquoteEtag(whole.empty() ? TextOf(entry, "hash") : whole);
    if (info.size == 0 && TextOf(entry, "content_type") != "application/directory")
      listing.empty.push_back(listing.objects.size());
    listing.objects.push_back(std::move(info));
  }
  return listing;
}

Result<std::vector<BucketInfo>> ParseContainers(std::string_view document) {
  const json entries = ParseJson(document);
  if (!entries.is_array()) return Fail(Errc::kCorrupt, "the list of containers is no JSON array");
  std::vector<BucketInfo> out;
  for (const json& entry : entries) {
    if (!entry.is_object() || TextOf(entry, "name").empty())
      return Fail(Errc::kCorrupt, "the list has a container without a name");
    BucketInfo info;
    info.name = TextOf(entry, "name");
    info.created = DateOf(TextOf(entry, "last_modified"));
    info.objects = Number(entry, "count");
    info.bytes = Number(entry, "bytes");
    out.push_back(std::move(info));
  }
  return out;
}

Result<std::vector<PartDigest>> ParseManifest(std::string_view document) {
  const json entries = ParseJson(document);
  if (!entries.is_array()) return Fail(Errc::kCorrupt, "the manifest is no JSON array");
  std::vector<PartDigest> parts;
  for (const json& entry : entries) {
    if (!entry.is_object()) return Fail(Errc::kCorrupt, "the manifest has an entry that is none");
    const auto size = Number(entry, "bytes");
    auto md5 = FromHex(TextOf(entry, "hash"));
    // A range of a segment, or a segment that is a large object itself: its hash is another's.
    if (entry.contains("range") || entry.contains("sub_slo") || !size || !md5 || md5->size() != 16)
      return Fail(Errc::kUnsupported, "the manifest has a segment without a digest of its own");
    parts.push_back({*size, *std::move(md5)});
  }
  return parts;
}

Result<std::vector<std::string>> ParseManifestNames(std::string_view document) {
  const json entries = ParseJson(document);
  if (!entries.is_array()) return Fail(Errc::kCorrupt, "the manifest is no JSON array");
  std::vector<std::string> names;
  for (const json& entry : entries) {
    if (!entry.is_object()) return Fail(Errc::kCorrupt, "the manifest has an entry that is none");
    names.push_back(TextOf(entry, "name"));
  }
  return names;
}

std::string WriteManifest(const std::vector<Segment>& segments) {
  json out = json::array();
  for (const Segment& segment : segments) {
    out.push_back({{"path", segment.path}, {"etag", segment.etag}, {"size_bytes", segment.size}});
  }
  return out.dump(-1, ' ', false, json::error_handler_t::replace);
}

Result<BulkDelete> ParseBulkDelete(std::string_view document) {
  const json answer = ParseJson(document);
  const std::string status = answer.is_object() ? TextOf(answer, "Response Status") : "";
  if (status.empty()) return Fail(Errc::kCorrupt, "the answer is no bulk delete's");
  BulkDelete out;
  out.gone =
      Number(answer, "Number Deleted").value_or(0) + Number(answer, "Number Not Found").value_or(0);
  if (const auto errors = answer.find("Errors"); errors != answer.end() && errors->is_array()) {
    for (const json& error : *errors) {
      if (error.is_array() && error.size() == 2 && error[0].is_string() && error[1].is_string())
        out.errors[net::PercentDecode(error[0].get<std::string>())] = error[1].get<std::string>();
    }
  }
  if (out.errors.empty() && !status.starts_with('2'))
    out.refused = Printable(status + " " + TextOf(answer, "Response Body"));
  return out;
}

}  // namespace leat::store::swift
