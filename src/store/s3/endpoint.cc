#include "store/s3/endpoint.h"

#include <algorithm>
#include <cctype>
#include <utility>

#include "base/log.h"

namespace leat::store::s3 {
namespace {

std::string AwsHost(std::string_view region) {
  return "s3." + std::string(region) + ".amazonaws.com" + (region.starts_with("cn-") ? ".cn" : "");
}

/// A host name's single label, so that AWS's wildcard certificate covers it.
bool IsDnsLabel(std::string_view name) {
  return name.size() >= 3 && name.size() <= 63 && name.front() != '-' && name.back() != '-' &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
         });
}

/// Other stores have wider rules than AWS (upper case, '_', ':' for tenants): only what cannot
/// stand in a URL's path as one component is refused.
const char* WhyNoBucket(std::string_view name) {
  if (name.empty()) return "the bucket's name is missing";
  if (name.size() > 255) return "a bucket's name has at most 255 characters";
  if (name == "." || name == "..") return "that is no bucket's name";
  for (const char c : name) {
    const auto u = static_cast<unsigned char>(c);
    if (u <= 0x20 || u == 0x7f || c == '/' || c == '\\' || c == '?' || c == '#') {
      return "a bucket's name holds no spaces, slashes, '?' or '#'";
    }
  }
  return nullptr;
}

}  // namespace

bool IsAwsHost(std::string_view host) {
  if (!host.ends_with(".amazonaws.com") && !host.ends_with(".amazonaws.com.cn")) return false;
  for (std::string_view rest = host; !rest.empty();) {
    const std::string_view label = rest.substr(0, rest.find('.'));
    if (label == "s3" || label.starts_with("s3-")) return true;
    rest.remove_prefix(std::min(label.size() + 1, rest.size()));
  }
  return false;
}

Result<Endpoint> Endpoint::Make(std::string bucket, std::string region, std::string_view url,
                                std::string_view addressing_style) {
  if (const char* why = bucket.empty() ? nullptr : WhyNoBucket(bucket)) {
    return Fail(Errc::kInvalid, "s3://" + Printable(bucket) + ": " + why);
  }
  const bool plain = std::all_of(region.begin(), region.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.';
  });
  if (region.empty() || !plain) {
    return Fail(Errc::kInvalid,
                "s3://" + bucket + ": \"" + Printable(region) + "\" is no region's name");
  }
  Endpoint endpoint;
  endpoint.bucket_ = std::move(bucket);
  endpoint.region_ = std::move(region);
  const std::string text = url.empty() ? "https://" + AwsHost(endpoint.region_) : std::string(url);
  auto parsed = net::ParseUrl(text);
  if (!parsed) {
    return Fail(Errc::kInvalid,
                "s3://" + endpoint.bucket_ +
                    ": the endpoint's URL cannot be used: " + parsed.error().message());
  }
  endpoint.base_ = *std::move(parsed);
  if (!endpoint.base_.query.empty() || !endpoint.base_.user_info.empty()) {
    return Fail(Errc::kInvalid, "s3://" + endpoint.bucket_ + ": the endpoint " +
                                    endpoint.base_.ForMessages() +
                                    " must have neither a query nor a user");
  }
  while (endpoint.base_.path.ends_with('/')) endpoint.base_.path.pop_back();
  endpoint.follows_region_ = url.empty();
  endpoint.aws_ = url.empty() || IsAwsHost(endpoint.base_.host);
  if (addressing_style == "virtual") {
    endpoint.virtual_ = !endpoint.bucket_.empty();
  } else if (addressing_style.empty() || addressing_style == "auto") {
    endpoint.virtual_ = endpoint.aws_ && IsDnsLabel(endpoint.bucket_);
  } else if (addressing_style != "path") {
    return Fail(Errc::kInvalid, "s3://" + endpoint.bucket_ +
                                    ": addressing_style is path, virtual or auto, not \"" +
                                    Printable(addressing_style) + "\"");
  }
  return endpoint;
}

Endpoint Endpoint::InRegion(std::string region) const {
  Endpoint other = *this;
  other.region_ = std::move(region);
  if (follows_region_) other.base_.host = AwsHost(other.region_);
  return other;
}

std::string Endpoint::UrlOf(std::string_view key, std::string_view query) const {
  std::string url = base_.scheme + "://";
  if (virtual_) url += bucket_ + ".";
  url += base_.Authority() + base_.path;
  if (!virtual_) url += "/" + net::PercentEncode(bucket_);  // no bucket: all of them
  if (virtual_ || !key.empty()) url += "/";
  url += net::PercentEncode(key, true);
  if (!query.empty()) url.append("?").append(query);
  return url;
}

std::string Endpoint::Name() const {
  if (!aws_) return base_.scheme + "://" + base_.Authority() + base_.path;
  return base_.host.ends_with(".cn") ? "https://s3.amazonaws.com.cn" : "https://s3.amazonaws.com";
}

}  // namespace leat::store::s3
