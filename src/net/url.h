// URLs, percent-encoding (RFC 3986) and dates of HTTP (RFC 9110, 5.6.7) and of ISO 8601.
#ifndef LEAT_NET_URL_H_
#define LEAT_NET_URL_H_

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"

namespace leat::net {

/// An http or https URL, in pieces that are kept as they were written.
struct Url {
  std::string scheme;     ///< lower case
  std::string user_info;  ///< without the '@'; never shown in messages
  std::string host;       ///< lower case; an IPv6 address keeps its brackets
  int port = 0;           ///< 0: the scheme's own
  std::string path;       ///< begins with '/'; still encoded
  std::string query;      ///< without the '?'

  /// "host" or "host:port" where the port is not the scheme's own.
  std::string Authority() const;
  /// Without user_info and query, which may be secrets (presigned URLs).
  std::string ForMessages() const;
  std::string ToString() const;
  /// `port`, or what the scheme means without one.
  int EffectivePort() const;
};
/// kInvalid for another scheme, no host, a bad port, control characters or spaces. A fragment is
/// dropped.
Result<Url> ParseUrl(std::string_view text);
/// `text`, which somebody may have meant for a URL, without what could be a secret in it: what
/// stands before an '@', what follows a '?' or '#'; printable. For messages about what was not
/// understood.
std::string Redacted(std::string_view text);
/// A path with its query, without what signs it for a while (AWS, CloudFront, Google, Azure): of
/// presigned URLs, what says which object it is.
std::string WithoutSignature(std::string_view target);
/// What a Location header means at `base` (RFC 3986, 5.2); spaces in it are forgiven. User info is
/// kept on the same origin.
Result<Url> ResolveUrl(const Url& base, std::string_view reference);
/// "/a/./b/../c" is "/a/c" (RFC 3986, 5.2.4); empty segments are kept. `path` begins with '/'.
std::string RemoveDotSegments(std::string_view path);

/// Everything but A-Z a-z 0-9 - . _ ~ (and '/' where `keep_slash`) becomes %XX, in upper case, as
/// SigV4 wants it.
std::string PercentEncode(std::string_view text, bool keep_slash = false);
/// Malformed escapes are kept as they are. '+' is not a space.
std::string PercentDecode(std::string_view text);

/// "Sun, 06 Nov 1994 08:49:37 GMT"; nullopt for anything else.
std::optional<std::chrono::system_clock::time_point> ParseHttpDate(std::string_view text);
/// "2011-02-23T23:36:00.000Z" (fraction and offset optional); nullopt for anything else.
std::optional<std::chrono::system_clock::time_point> ParseIsoDate(std::string_view text);
/// "20130524T000000Z".
std::string FormatIsoBasic(std::chrono::system_clock::time_point t);
/// "2026-11-20 10:15:00 UTC", for messages.
std::string FormatDate(std::chrono::system_clock::time_point t);

}  // namespace leat::net

#endif  // LEAT_NET_URL_H_
