#include "store/gcs/json.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "base/bytes.h"
#include "base/json_fields.h"
#include "base/log.h"
#include "base/text.h"
#include "net/url.h"
#include "store/http_answer.h"

namespace leat::store::gcs {
namespace {

using nlohmann::json;

constexpr std::string_view kMtime = "mtime";
constexpr std::string_view kGsutilMtime = "goog-reserved-file-mtime";
constexpr std::string_view kUpload = "leat-upload";

std::string Dump(const json& document) {
  return document.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string Short(std::string text) {
  std::ranges::replace(text, '\n', ' ');
  if (text.size() > 300) text = text.substr(0, 300) + "...";
  return Printable(text);
}

std::optional<std::uint32_t> ParseCrc(std::string_view base64) {
  const auto bytes = digest::Base64Decode(base64);
  if (!bytes || bytes->size() != 4) return std::nullopt;
  std::uint32_t value = 0;
  for (const char c : *bytes) value = value << 8 | static_cast<unsigned char>(c);
  return value;
}

std::string ParseMd5(std::string_view base64) {
  auto bytes = digest::Base64Decode(base64);
  return bytes && bytes->size() == 16 ? *std::move(bytes) : std::string();
}

Result<Resource> ReadObject(const json& entry) {
  Resource out;
  out.info.key = TextOf(entry, "name");
  // 64-bit numbers are text in this API.
  const auto size = ParseDecimal(TextOf(entry, "size"));
  const auto generation = ParseDecimal(TextOf(entry, "generation"));
  if (out.info.key.empty() || !size || !generation)
    return Fail(Errc::kCorrupt, "an object without name, size or generation");
  out.info.size = *size;
  out.info.version.etag = std::to_string(*generation);
  out.info.modified = net::ParseIsoDate(TextOf(entry, "updated"));
  if (!out.info.modified) out.info.modified = net::ParseIsoDate(TextOf(entry, "timeCreated"));
  out.crc32c = ParseCrc(TextOf(entry, "crc32c"));
  out.md5 = ParseMd5(TextOf(entry, "md5Hash"));
  Metadata theirs;
  if (const json& metadata = Field(entry, "metadata"); metadata.is_object()) {
    for (const auto& [name, value] : metadata.items()) {
      if (value.is_string()) theirs[Lower(name)] = value.get<std::string>();
    }
  }
  out.info.metadata = FromService(theirs, &out.upload);
  SetExpected(out);
  return out;
}

/// As Go writes it: no more digits than there are.
std::string FormatTime(std::int64_t ns) {
  using namespace std::chrono;
  const sys_time<nanoseconds> time{nanoseconds(ns)};
  const auto day = floor<days>(time);
  const year_month_day date(day);
  const hh_mm_ss clock(time - day);
  std::string fraction = fmt::format("{:09}", clock.subseconds().count());
  while (fraction.ends_with('0')) fraction.pop_back();
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}{}{}Z", static_cast<int>(date.year()),
                     static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()),
                     clock.hours().count(), clock.minutes().count(), clock.seconds().count(),
                     fraction.empty() ? "" : ".", fraction);
}

json MetadataJson(const Metadata& ours, std::string_view upload) {
  json out = json::object();
  for (const auto& [name, value] : ToService(ours)) out[name] = value;
  if (!upload.empty()) out[std::string(kUpload)] = upload;
  return out;
}

/// What stands between <name> and </name>.
std::string Element(std::string_view xml, std::string_view name) {
  const std::string open = fmt::format("<{}>", name);
  const std::size_t begin = xml.find(open);
  if (begin == xml.npos) return {};
  const std::size_t end = xml.find(fmt::format("</{}>", name), begin);
  if (end == xml.npos) return {};
  return std::string(xml.substr(begin + open.size(), end - begin - open.size()));
}

}  // namespace

Metadata FromService(const Metadata& theirs, std::string* upload) {
  Metadata out = theirs;
  if (const auto found = out.find(kUpload); found != out.end()) {
    if (upload != nullptr) *upload = found->second;
    out.erase(found);
  }
  const auto mtime = out.find(kMtime), seconds = out.find(kGsutilMtime);
  std::optional<std::int64_t> ns;
  if (mtime != out.end()) {
    if (const auto time = net::ParseIsoDate(mtime->second)) {
      ns = std::chrono::duration_cast<std::chrono::nanoseconds>(time->time_since_epoch()).count();
    }
  } else if (seconds != out.end()) {
    ns = MtimeOf({{std::string(kMtime), seconds->second}});
  }
  if (ns) {
    if (seconds != out.end()) out.erase(seconds);
    SetMtime(out, *ns);
  }
  return out;
}

Metadata ToService(const Metadata& ours) {
  Metadata out = ours;
  if (const auto ns = MtimeOf(ours)) {
    constexpr std::int64_t kSecond = 1'000'000'000;
    out[std::string(kMtime)] = FormatTime(*ns);
    out[std::string(kGsutilMtime)] = std::to_string(*ns / kSecond - (*ns % kSecond < 0 ? 1 : 0));
  }
  return out;
}

void SetExpected(Resource& object) {
  if (!object.md5.empty() && digest::CanHash(digest::Kind::kMd5)) {
    object.info.expected = digest::Expected{digest::Kind::kMd5, object.md5};
  } else if (object.crc32c) {
    std::string bytes;
    for (int shift = 24; shift >= 0; shift -= 8)
      bytes += static_cast<char>(*object.crc32c >> shift & 0xff);
    object.info.expected = digest::Expected{digest::Kind::kCrc32c, std::move(bytes)};
  }
}

void ReadHashHeader(std::string_view value, Resource& object) {
  while (!value.empty()) {
    const std::size_t comma = std::min(value.find(','), value.size());
    const std::string_view hash = Trim(value.substr(0, comma));
    value.remove_prefix(std::min(comma + 1, value.size()));
    if (hash.starts_with("crc32c=")) object.crc32c = ParseCrc(hash.substr(7));
    if (hash.starts_with("md5=")) object.md5 = ParseMd5(hash.substr(4));
  }
}

std::string CrcText(std::uint32_t crc32c) {
  std::string bytes;
  for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(crc32c >> shift & 0xff);
  return digest::Base64Encode(AsBytes(bytes));
}

Result<Resource> ParseObject(std::string_view document) {
  const json entry = ParseJson(document);
  if (!entry.is_object()) return Fail(Errc::kCorrupt, "the answer is no JSON object");
  return ReadObject(entry);
}

Result<Listing> ParseListing(std::string_view document) {
  const json page = ParseJson(document);
  if (!page.is_object()) return Fail(Errc::kCorrupt, "the listing is no JSON object");
  Listing listing;
  listing.next_page = TextOf(page, "nextPageToken");
  if (const json& items = Field(page, "items"); items.is_array()) {
    listing.objects.reserve(items.size());
    for (const json& entry : items) {
      LEAT_ASSIGN_OR_RETURN(Resource object, ReadObject(entry));
      listing.objects.push_back(std::move(object));
    }
  }
  return listing;
}

Result<BucketPage> ParseBuckets(std::string_view document) {
  const json page = ParseJson(document);
  if (!page.is_object()) return Fail(Errc::kCorrupt, "the list of buckets is no JSON object");
  BucketPage out;
  out.next_page = TextOf(page, "nextPageToken");
  if (const json& items = Field(page, "items"); items.is_array()) {
    for (const json& entry : items) {
      BucketInfo info;
      info.name = TextOf(entry, "name");
      if (info.name.empty()) return Fail(Errc::kCorrupt, "the list has a bucket without a name");
      info.created = net::ParseIsoDate(TextOf(entry, "timeCreated"));
      out.buckets.push_back(std::move(info));
    }
  }
  return out;
}

Result<Rewrite> ParseRewrite(std::string_view document) {
  const json answer = ParseJson(document);
  const json& done = Field(answer, "done");
  if (!done.is_boolean()) return Fail(Errc::kCorrupt, "the answer does not say whether it is done");
  Rewrite out;
  out.done = done.get<bool>();
  out.token = TextOf(answer, "rewriteToken");
  if (out.done) {
    LEAT_ASSIGN_OR_RETURN(out.object, ReadObject(Field(answer, "resource")));
  } else if (out.token.empty()) {
    return Fail(Errc::kCorrupt, "the answer does not say how to go on");
  }
  return out;
}

ApiError ParseApiError(std::string_view body) {
  if (body.starts_with('<')) {
    std::string message = Element(body, "Details");
    if (message.empty()) message = Element(body, "Message");
    return {Short(Element(body, "Code")), Short(std::move(message))};
  }
  const json document = ParseJson(body);
  const json& error = Field(document, "error");
  ApiError out;
  out.message = Short(TextOf(error, "message"));
  if (const json& errors = Field(error, "errors"); errors.is_array() && !errors.empty())
    out.reason = Short(TextOf(errors[0], "reason"));
  // (the API's front says it otherwise)
  if (out.reason.empty()) out.reason = Short(TextOf(error, "status"));
  return out;
}

std::string WriteObject(std::string_view name, const Metadata& metadata, std::string_view upload,
                        std::optional<std::uint32_t> crc32c) {
  json out = {{"name", name}, {"contentType", "application/octet-stream"}};
  json kept = MetadataJson(metadata, upload);
  if (!kept.empty()) out["metadata"] = std::move(kept);
  if (crc32c) out["crc32c"] = CrcText(*crc32c);
  return Dump(out);
}

std::string WriteCompose(std::span<const Component> components, const Metadata& metadata,
                         std::string_view upload) {
  json sources = json::array();
  for (const Component& component : components) {
    json source = {{"name", component.name}};
    if (!component.generation.empty()) source["generation"] = component.generation;
    sources.push_back(std::move(source));
  }
  json destination = {{"contentType", "application/octet-stream"}};
  json kept = MetadataJson(metadata, upload);
  if (!kept.empty()) destination["metadata"] = std::move(kept);
  return Dump({{"kind", "storage#composeRequest"},
               {"sourceObjects", std::move(sources)},
               {"destination", std::move(destination)}});
}

std::string WriteBucket(const NewBucket& bucket) {
  json out = {{"name", bucket.name}};
  if (!bucket.location.empty()) out["location"] = bucket.location;
  if (!bucket.storage_class.empty()) out["storageClass"] = bucket.storage_class;
  if (bucket.uniform_access)
    out["iamConfiguration"] = {{"uniformBucketLevelAccess", {{"enabled", true}}}};
  return Dump(out);
}

}  // namespace leat::store::gcs
