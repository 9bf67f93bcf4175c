// AWS Signature Version 4.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
#ifndef LEAT_AUTH_SIGV4_H_
#define LEAT_AUTH_SIGV4_H_

#include <chrono>
#include <string_view>

#include "auth/credentials.h"
#include "net/http_client.h"

namespace leat::auth {

inline constexpr std::string_view kEmptyPayloadSha256 =
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
inline constexpr std::string_view kUnsignedPayload = "UNSIGNED-PAYLOAD";

struct SigningScope {
  std::string_view region;
  std::string_view service = "s3";
  /// S3 signs the path as it is sent; every other service encodes it once more and removes dot
  /// segments.
  bool s3_path = true;
  bool add_content_sha256 = true;  ///< sends x-amz-content-sha256, which only S3 wants
};

/// Adds host, x-amz-date, x-amz-security-token, x-amz-content-sha256 and authorization to
/// `request`. The URL's path and query must be percent-encoded already, as PercentEncode does it;
/// query parameters may come in any order. Nothing is added for anonymous credentials. kInvalid for
/// a URL that does not parse.
Status SignV4(net::HttpRequest& request, const Credentials& credentials, const SigningScope& scope,
              std::chrono::system_clock::time_point now,
              std::string_view payload_sha256 = kEmptyPayloadSha256);

}  // namespace leat::auth

#endif  // LEAT_AUTH_SIGV4_H_
