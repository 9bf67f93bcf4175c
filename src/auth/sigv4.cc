#include "auth/sigv4.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "digest/digest.h"
#include "net/url.h"

namespace leat::auth {
namespace {

std::string Lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

// Trimmed, and every run of white space one space.
std::string Collapsed(std::string_view value) {
  std::string out;
  for (const char c : value) {
    const bool space = c == ' ' || c == '\t' || c == '\r' || c == '\n';
    if (!space) {
      out += c;
    } else if (!out.empty() && out.back() != ' ') {
      out += ' ';
    }
  }
  if (!out.empty() && out.back() == ' ') out.pop_back();
  return out;
}

std::string CanonicalPath(std::string_view path, bool s3_path) {
  if (s3_path) return std::string(path);
  std::string single;
  for (const char c : path) {
    if (c != '/' || single.empty() || single.back() != '/') single += c;
  }
  // Removing dot segments may bring no two slashes together: each takes the slash before it along.
  return net::PercentEncode(net::RemoveDotSegments(single), true);
}

std::string CanonicalQuery(std::string_view query) {
  std::vector<std::pair<std::string_view, std::string_view>> parameters;
  while (!query.empty()) {
    const auto end = query.find('&');
    const std::string_view parameter = query.substr(0, end);
    query = end == query.npos ? std::string_view() : query.substr(end + 1);
    if (parameter.empty()) continue;
    const auto equals = parameter.find('=');
    parameters.emplace_back(parameter.substr(0, equals), equals == parameter.npos
                                                             ? std::string_view()
                                                             : parameter.substr(equals + 1));
  }
  std::ranges::sort(parameters);
  std::string out;
  for (const auto& [name, value] : parameters) {
    if (!out.empty()) out += '&';
    out.append(name).append("=").append(value);
  }
  return out;
}

bool IsOurs(std::string_view lower_name) {
  return lower_name == "host" || lower_name == "x-amz-date" ||
         lower_name == "x-amz-security-token" || lower_name == "x-amz-content-sha256" ||
         lower_name == "authorization";
}

}  // namespace

Status SignV4(net::HttpRequest& request, const Credentials& credentials, const SigningScope& scope,
              std::chrono::system_clock::time_point now, std::string_view payload_sha256) {
  if (credentials.anonymous()) return {};
  LEAT_ASSIGN_OR_RETURN(const net::Url url, net::ParseUrl(request.url));
  const std::string time = net::FormatIsoBasic(now);
  const std::string date = time.substr(0, 8);

  // What an earlier signature added is replaced: a request may be signed again with another time.
  net::Headers headers;
  for (const auto& [name, value] : request.headers.fields()) {
    if (!IsOurs(Lower(name))) headers.Add(name, value);
  }
  headers.Add("host", url.Authority());
  headers.Add("x-amz-date", time);
  if (scope.add_content_sha256) headers.Add("x-amz-content-sha256", std::string(payload_sha256));
  if (!credentials.session_token.empty())
    headers.Add("x-amz-security-token", credentials.session_token);

  std::map<std::string, std::string> signed_values;
  for (const auto& [name, value] : headers.fields()) {
    const std::string lower = Lower(name);
    if (lower == "user-agent") continue;  // proxies change it
    std::string& joined = signed_values[lower];
    if (!joined.empty()) joined += ',';
    joined += Collapsed(value);
  }
  std::string canonical_headers, signed_names;
  for (const auto& [name, value] : signed_values) {
    canonical_headers += fmt::format("{}:{}\n", name, value);
    if (!signed_names.empty()) signed_names += ';';
    signed_names += name;
  }

  const std::string canonical_request =
      fmt::format("{}\n{}\n{}\n{}\n{}\n{}", request.method, CanonicalPath(url.path, scope.s3_path),
                  CanonicalQuery(url.query), canonical_headers, signed_names, payload_sha256);
  const std::string credential_scope =
      fmt::format("{}/{}/{}/aws4_request", date, scope.region, scope.service);
  const std::string to_sign = fmt::format("AWS4-HMAC-SHA256\n{}\n{}\n{}", time, credential_scope,
                                          ToHex(digest::HashSha256(AsBytes(canonical_request))));

  std::string key = digest::HmacSha256("AWS4" + credentials.secret_access_key, date);
  key = digest::HmacSha256(key, scope.region);
  key = digest::HmacSha256(key, scope.service);
  key = digest::HmacSha256(key, "aws4_request");
  const std::string signature = ToHex(AsBytes(digest::HmacSha256(key, to_sign)));

  headers.Add("authorization",
              fmt::format("AWS4-HMAC-SHA256 Credential={}/{}, SignedHeaders={}, Signature={}",
                          credentials.access_key_id, credential_scope, signed_names, signature));
  request.headers = std::move(headers);
  return {};
}

}  // namespace leat::auth
