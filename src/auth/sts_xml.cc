#include <fmt/format.h>

#include <pugixml.hpp>

#include "auth/credential_replies.h"
#include "net/url.h"

namespace leat::auth {
namespace {

// Prefixes of name spaces are no matter of ours.
std::string_view LocalName(const pugi::xml_node& node) {
  const std::string_view name = node.name();
  const auto colon = name.find(':');
  return colon == name.npos ? name : name.substr(colon + 1);
}

pugi::xml_node Find(const pugi::xml_document& document, std::string_view name) {
  return document.find_node([&](const pugi::xml_node& node) { return LocalName(node) == name; });
}

std::string Text(const pugi::xml_node& parent, std::string_view name) {
  for (const pugi::xml_node& child : parent) {
    if (LocalName(child) == name) return child.text().get();
  }
  return {};
}

bool Load(pugi::xml_document& document, std::string_view xml) {
  return static_cast<bool>(
      document.load_buffer(xml.data(), xml.size(), pugi::parse_default, pugi::encoding_utf8));
}

}  // namespace

Result<Credentials> ParseStsCredentials(std::string_view xml) {
  pugi::xml_document document;
  if (!Load(document, xml)) return Fail(Errc::kCorrupt, "the answer is not XML");
  const pugi::xml_node node = Find(document, "Credentials");
  Credentials credentials;
  credentials.access_key_id = Text(node, "AccessKeyId");
  credentials.secret_access_key = Text(node, "SecretAccessKey");
  credentials.session_token = Text(node, "SessionToken");
  if (credentials.access_key_id.empty() || credentials.secret_access_key.empty() ||
      credentials.session_token.empty()) {
    return Fail(Errc::kCorrupt, "the answer holds no credentials");
  }
  credentials.expires = net::ParseIsoDate(Text(node, "Expiration"));
  if (!credentials.expires) return Fail(Errc::kCorrupt, "the answer's Expiration is not a date");
  return credentials;
}

StsError ParseStsError(std::string_view xml) {
  pugi::xml_document document;
  if (!Load(document, xml)) return {};
  const pugi::xml_node node = Find(document, "Error");
  return {Quoted(Text(node, "Code")), Quoted(Text(node, "Message"))};
}

}  // namespace leat::auth
