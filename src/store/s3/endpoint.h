// Where a bucket's requests go to: the region's or the user's endpoint, in virtual-host or path
// style. https://docs.aws.amazon.com/AmazonS3/latest/userguide/VirtualHosting.html
#ifndef LEAT_STORE_S3_ENDPOINT_H_
#define LEAT_STORE_S3_ENDPOINT_H_

#include <string>
#include <string_view>

#include "base/error.h"
#include "net/url.h"

namespace leat::store::s3 {

/// S3's own: "s3.eu-west-1.amazonaws.com", "s3-fips.dualstack.us-west-2...", "vpce-1.s3....".
/// Another server that runs on a machine of AWS's ("ec2-1-2-3-4.compute.amazonaws.com") is not.
bool IsAwsHost(std::string_view host);

/// A value.
class Endpoint {
 public:
  /// `bucket` empty: the service, which lists the buckets. `url` empty: AWS's own for the region.
  /// kInvalid when the bucket's name cannot be one anywhere, or for a malformed URL.
  static Result<Endpoint> Make(std::string bucket, std::string region, std::string_view url,
                               std::string_view addressing_style);

  /// The same bucket in another region: another host where nobody named one, else only another name
  /// in the signature.
  Endpoint InRegion(std::string region) const;

  /// "https://bucket.s3.eu-west-1.amazonaws.com/a%20b"; of the bucket itself for an empty key.
  std::string UrlOf(std::string_view key, std::string_view query) const;
  const std::string& region() const { return region_; }
  /// "https://minio.lab:9000", for messages; AWS has one name, whatever the region.
  std::string Name() const;
  bool encrypted() const { return base_.scheme == "https"; }

 private:
  std::string bucket_, region_;
  net::Url base_;                ///< path without a trailing '/'
  bool aws_ = false;             ///< S3 itself
  bool follows_region_ = false;  ///< the host does
  bool virtual_ = false;
};

}  // namespace leat::store::s3

#endif  // LEAT_STORE_S3_ENDPOINT_H_
