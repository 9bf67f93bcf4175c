#include "store/s3/xml.h"

#include <algorithm>
#include <cstring>
#include <pugixml.hpp>
#include <utility>

#include "base/log.h"
#include "base/text.h"
#include "net/url.h"
#include "store/http_answer.h"

namespace leat::store::s3 {
namespace {

/// No normalisation of line ends or spaces: a key may hold any.
constexpr unsigned kParse = pugi::parse_cdata | pugi::parse_escapes | pugi::parse_ws_pcdata_single;

bool Is(const pugi::xml_node& node, const char* name) {
  return std::strcmp(node.name(), name) == 0;
}

/// An element's text, in one piece or several (CDATA).
std::string TextOf(const pugi::xml_node& element) {
  const pugi::xml_node first = element.first_child();
  if (!first.next_sibling()) return first.value();
  std::string text;
  for (const pugi::xml_node& part : element.children()) text += part.value();
  return text;
}

/// As encoding-type=url writes it: '+' is a space.
std::string Decode(std::string text) {
  std::replace(text.begin(), text.end(), '+', ' ');
  return text.find('%') == text.npos ? std::move(text) : net::PercentDecode(text);
}

/// The only element at the top, if it has that name.
pugi::xml_node RootNamed(const pugi::xml_document& document, const char* name) {
  pugi::xml_node root;
  for (const pugi::xml_node& node : document.children()) {
    if (node.type() != pugi::node_element) continue;
    if (root) return {};
    root = node;
  }
  return Is(root, name) ? root : pugi::xml_node();
}

Result<ObjectInfo> ParseEntry(const pugi::xml_node& contents, bool encoded) {
  ObjectInfo info;
  bool has_key = false, has_size = false;
  for (const pugi::xml_node& field : contents.children()) {
    if (Is(field, "Key")) {
      info.key = encoded ? Decode(TextOf(field)) : TextOf(field);
      has_key = !info.key.empty();
    } else if (Is(field, "Size")) {
      const auto size = ParseDecimal(field.child_value());
      has_size = size.has_value();
      info.size = size.value_or(0);
    } else if (Is(field, "ETag")) {
      info.version.etag = UnquoteEtag(TextOf(field));
      info.in_parts = info.version.etag.find('-') != std::string::npos;
    } else if (Is(field, "LastModified")) {
      info.modified = net::ParseIsoDate(field.child_value());
    } else if (Is(field, "StorageClass")) {
      info.archived = IsArchiveClass(field.child_value());
    } else if (Is(field, "VersionId")) {
      info.version.version_id = TextOf(field);
    }
  }
  if (!has_key) return Fail(Errc::kCorrupt, "the listing has an entry without a key");
  if (!has_size) {
    return Fail(Errc::kCorrupt, "the listing has no size for \"" + Printable(info.key) + "\"");
  }
  return info;
}

}  // namespace

bool IsArchiveClass(std::string_view storage_class) {
  return storage_class == "GLACIER" || storage_class == "DEEP_ARCHIVE";
}

namespace {

/// The root of a listing of that name; `document` is scratch.
Result<pugi::xml_node> ParseInPlace(pugi::xml_document& xml, std::string& document,
                                    const char* name) {
  const auto parsed =
      xml.load_buffer_inplace(document.data(), document.size(), kParse, pugi::encoding_utf8);
  if (!parsed) {
    return Fail(Errc::kCorrupt,
                std::string("the listing is not well-formed XML: ") + parsed.description());
  }
  const pugi::xml_node root = RootNamed(xml, name);
  if (!root) return Fail(Errc::kCorrupt, std::string("the listing is no ") + name);
  return root;
}

Result<bool> ReadTruncated(std::string_view text) {
  if (text != "true" && text != "false")
    return Fail(Errc::kCorrupt, "the listing does not say whether it is truncated");
  return text == "true";
}

}  // namespace

Result<Listing> ParseListing(std::string& document) {
  pugi::xml_document xml;
  LEAT_ASSIGN_OR_RETURN(const pugi::xml_node root, ParseInPlace(xml, document, "ListBucketResult"));

  Listing listing;
  bool encoded = false;
  std::size_t entries = 0;
  std::string_view truncated;
  for (const pugi::xml_node& node : root.children()) {
    if (Is(node, "Contents")) {
      ++entries;
    } else if (Is(node, "IsTruncated")) {
      truncated = node.child_value();
    } else if (Is(node, "EncodingType")) {
      encoded = std::strcmp(node.child_value(), "url") == 0;
    } else if (Is(node, "KeyCount") || Is(node, "StartAfter") || Is(node, "ContinuationToken")) {
      listing.is_v2 = true;
    } else if (Is(node, "NextContinuationToken")) {
      listing.is_v2 = true;
      listing.next = TextOf(node);
    } else if (Is(node, "NextMarker")) {
      listing.next = TextOf(node);
    }
  }
  LEAT_ASSIGN_OR_RETURN(listing.truncated, ReadTruncated(truncated));
  if (encoded && !listing.is_v2) listing.next = Decode(std::move(listing.next));
  listing.objects.reserve(entries);
  for (const pugi::xml_node& node : root.children()) {
    if (!Is(node, "Contents")) continue;
    LEAT_ASSIGN_OR_RETURN(auto entry, ParseEntry(node, encoded));
    listing.objects.push_back(std::move(entry));
  }
  return listing;
}

Result<VersionListing> ParseVersions(std::string& document) {
  pugi::xml_document xml;
  LEAT_ASSIGN_OR_RETURN(const pugi::xml_node root,
                        ParseInPlace(xml, document, "ListVersionsResult"));
  VersionListing listing;
  LEAT_ASSIGN_OR_RETURN(listing.truncated, ReadTruncated(root.child_value("IsTruncated")));
  const bool encoded = std::strcmp(root.child_value("EncodingType"), "url") == 0;
  for (const pugi::xml_node& node : root.children()) {
    const bool is_marker = Is(node, "DeleteMarker");
    if (!is_marker && !Is(node, "Version")) continue;
    const pugi::xml_node key_node = node.child("Key");
    std::string key = encoded ? Decode(TextOf(key_node)) : TextOf(key_node);
    if (key.empty()) return Fail(Errc::kCorrupt, "the listing has an entry without a key");
    if (key != listing.last_key) listing.settled = listing.last_key;
    const bool is_latest = std::strcmp(node.child_value("IsLatest"), "true") == 0;
    if (is_latest) listing.settled = key;
    listing.last_key = std::move(key);
    listing.last_version = TextOf(node.child("VersionId"));
    if (!is_latest || is_marker) continue;
    LEAT_ASSIGN_OR_RETURN(auto entry, ParseEntry(node, encoded));
    listing.objects.push_back(std::move(entry));
  }
  if (listing.last_key.empty() && listing.truncated) {
    // (Ceph does not encode it, others do: only where that is the same)
    const std::string next = TextOf(root.child("NextKeyMarker"));
    if (next.empty() || next.find_first_of("%+") != next.npos)
      return Fail(Errc::kCorrupt, "the listing is truncated but does not go on");
    listing.last_key = next;
    listing.last_version = TextOf(root.child("NextVersionIdMarker"));
  }
  return listing;
}

namespace {

Result<pugi::xml_node> Document(pugi::xml_document& xml, std::string_view text, const char* root) {
  if (xml.load_buffer(text.data(), text.size(), kParse, pugi::encoding_utf8)) {
    if (const pugi::xml_node found = RootNamed(xml, root)) return found;
  }
  return Fail(Errc::kCorrupt, std::string("the answer is no ") + root);
}

}  // namespace

Result<std::string> ParseUpload(std::string_view document) {
  pugi::xml_document xml;
  LEAT_ASSIGN_OR_RETURN(const auto root, Document(xml, document, "InitiateMultipartUploadResult"));
  std::string id = TextOf(root.child("UploadId"));
  if (id.empty()) return Fail(Errc::kCorrupt, "the answer has no UploadId");
  return id;
}

Result<PartsPage> ParseParts(std::string_view document) {
  pugi::xml_document xml;
  LEAT_ASSIGN_OR_RETURN(const auto root, Document(xml, document, "ListPartsResult"));
  PartsPage page;
  page.truncated = std::strcmp(root.child_value("IsTruncated"), "true") == 0;
  for (const pugi::xml_node& node : root.children("Part")) {
    const auto number = ParseDecimal(node.child_value("PartNumber"));
    const auto size = ParseDecimal(node.child_value("Size"));
    if (!number || !size) return Fail(Errc::kCorrupt, "a part has no number or no size");
    page.parts.push_back({*number, *size, UnquoteEtag(TextOf(node.child("ETag"))),
                          TextOf(node.child("ChecksumCRC32C"))});
  }
  if (page.truncated && page.parts.empty())
    return Fail(Errc::kCorrupt, "the list of parts does not go on");
  return page;
}

Result<std::vector<BucketInfo>> ParseBuckets(std::string_view document) {
  pugi::xml_document xml;
  LEAT_ASSIGN_OR_RETURN(const auto root, Document(xml, document, "ListAllMyBucketsResult"));
  std::vector<BucketInfo> buckets;
  for (const pugi::xml_node& node : root.child("Buckets").children("Bucket")) {
    BucketInfo info;
    info.name = TextOf(node.child("Name"));
    info.created = net::ParseIsoDate(node.child_value("CreationDate"));
    if (info.name.empty()) return Fail(Errc::kCorrupt, "a bucket has no name");
    buckets.push_back(std::move(info));
  }
  std::ranges::sort(buckets, {}, &BucketInfo::name);
  return buckets;
}

Result<Part> ParseCopiedPart(std::string_view document) {
  pugi::xml_document xml;
  LEAT_ASSIGN_OR_RETURN(const auto root, Document(xml, document, "CopyPartResult"));
  Part part;
  part.etag = UnquoteEtag(TextOf(root.child("ETag")));
  part.checksum = TextOf(root.child("ChecksumCRC32C"));
  if (part.etag.empty()) return Fail(Errc::kCorrupt, "the answer has no etag");
  return part;
}

bool XmlCanHold(std::string_view key) {
  // Its declaration is not needed, and the parser takes control characters: what it would not give
  // back is looked for here.
  return IsUtf8(key) && key.find("\xEF\xBF\xBE") == key.npos &&
         key.find("\xEF\xBF\xBF") == key.npos && std::ranges::all_of(key, [](char c) {
           return static_cast<unsigned char>(c) >= 0x20 || c == '\t' || c == '\n' || c == '\r';
         });
}

std::string WriteDelete(std::span<const std::string_view> keys) {
  std::string out = "<Delete><Quiet>true</Quiet>";
  for (const std::string_view key : keys) {
    out += "<Object><Key>";
    for (const char c : key) {
      if (c == '&' || c == '<' || c == '>' || c == '\t' || c == '\n' || c == '\r') {
        out += "&#" + std::to_string(static_cast<int>(c)) + ";";
      } else {
        out += c;
      }
    }
    out += "</Key></Object>";
  }
  return out + "</Delete>";
}

Result<std::set<std::string>> ParseDeleteErrors(std::string_view document) {
  pugi::xml_document xml;
  LEAT_ASSIGN_OR_RETURN(const auto root, Document(xml, document, "DeleteResult"));
  std::set<std::string> keys;
  for (const pugi::xml_node& node : root.children("Error")) {
    if (std::strcmp(node.child_value("Code"), "NoSuchKey") != 0)
      keys.insert(TextOf(node.child("Key")));
  }
  return keys;
}

Result<std::string> ParseResultEtag(std::string_view document) {
  pugi::xml_document xml;
  if (xml.load_buffer(document.data(), document.size(), kParse, pugi::encoding_utf8)) {
    for (const char* name : {"CompleteMultipartUploadResult", "CopyObjectResult"}) {
      if (const pugi::xml_node root = RootNamed(xml, name))
        return UnquoteEtag(TextOf(root.child("ETag")));
    }
  }
  return Fail(Errc::kCorrupt, "the answer has no etag");
}

std::optional<S3Error> ParseError(std::string_view document) {
  pugi::xml_document xml;
  if (!xml.load_buffer(document.data(), document.size(), kParse, pugi::encoding_utf8)) {
    return std::nullopt;
  }
  const pugi::xml_node root = RootNamed(xml, "Error");
  if (!root) return std::nullopt;
  S3Error error;
  error.code = root.child_value("Code");
  error.message = root.child_value("Message");
  error.region = root.child_value("Region");
  error.endpoint = root.child_value("Endpoint");
  error.storage_class = root.child_value("StorageClass");
  return error;
}

}  // namespace leat::store::s3
