// URLs and dates from strangers: no crash, and what ParseUrl takes it takes again.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "net/url.h"

namespace {

void Check(bool holds) {
  if (!holds) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto url = leat::net::ParseUrl(text)) {
    const auto again = leat::net::ParseUrl(url->ToString());
    Check(again.has_value());
    Check(again->ToString() == url->ToString());
    Check(again->host == url->host && again->path == url->path && again->query == url->query);
    Check(url->path.starts_with('/'));
    Check(url->query.empty() || url->ForMessages().find('?') == std::string::npos);
    Check(leat::net::RemoveDotSegments(url->path).starts_with('/'));
  }
  static const auto base = leat::net::ParseUrl("https://user@host:8443/a/b?q");
  if (const auto url = leat::net::ResolveUrl(*base, text)) {
    Check(url->scheme == "http" || url->scheme == "https");
    Check(!url->host.empty());
  }
  Check(leat::net::PercentDecode(leat::net::PercentEncode(text)) == text);
  leat::net::PercentDecode(text);
  if (const auto time = leat::net::ParseHttpDate(text)) leat::net::FormatDate(*time);
  if (const auto time = leat::net::ParseIsoDate(text)) leat::net::FormatIsoBasic(*time);
  return 0;
}
