#include "store/s3/endpoint.h"

#include <gtest/gtest.h>

namespace leat::store::s3 {
namespace {

std::string Url(const std::string& bucket, const std::string& endpoint, const std::string& style,
                const std::string& key = "a b/ü", const std::string& region = "eu-west-1") {
  const auto made = Endpoint::Make(bucket, region, endpoint, style);
  return made ? made->UrlOf(key, "") : made.error().message();
}

TEST(S3Endpoint, AwsIsAskedByVirtualHostWhereTheNameAllowsIt) {
  EXPECT_EQ(Url("bucket", "", "auto"), "https://bucket.s3.eu-west-1.amazonaws.com/a%20b/%C3%BC");
  EXPECT_EQ(Url("bucket", "", ""), Url("bucket", "", "auto"));
  EXPECT_EQ(Url("my.bucket", "", "auto", "k"), "https://s3.eu-west-1.amazonaws.com/my.bucket/k");
  EXPECT_EQ(Url("Old_Bucket", "", "auto", "k"), "https://s3.eu-west-1.amazonaws.com/Old_Bucket/k");
  EXPECT_EQ(Url("bucket", "", "path", "k"), "https://s3.eu-west-1.amazonaws.com/bucket/k");
  EXPECT_EQ(Url("bucket", "", "auto", "k", "cn-north-1"),
            "https://bucket.s3.cn-north-1.amazonaws.com.cn/k");
}

TEST(S3Endpoint, OthersAreAskedByPath) {
  EXPECT_EQ(Url("bucket", "http://127.0.0.1:7480", "auto", "k"), "http://127.0.0.1:7480/bucket/k");
  EXPECT_EQ(Url("bucket", "http://127.0.0.1:7480/", "", "k"), "http://127.0.0.1:7480/bucket/k");
  EXPECT_EQ(Url("bucket", "https://host/s3/", "auto", "k"), "https://host/s3/bucket/k");
  EXPECT_EQ(Url("bucket", "https://lab:9000", "virtual", "k"), "https://bucket.lab:9000/k");
  EXPECT_EQ(Url("tenant:bucket", "https://lab", "path", "k"), "https://lab/tenant%3Abucket/k");
}

TEST(S3Endpoint, TheBucketItselfHasNoKey) {
  EXPECT_EQ(Endpoint::Make("b", "r", "http://h", "path")->UrlOf("", "list-type=2"),
            "http://h/b?list-type=2");
  EXPECT_EQ(Endpoint::Make("bbb", "r", "", "")->UrlOf("", "list-type=2"),
            "https://bbb.s3.r.amazonaws.com/?list-type=2");
}

TEST(S3Endpoint, AnotherRegionIsAnotherHostOnAwsAlone) {
  EXPECT_EQ(Endpoint::Make("bbb", "us-east-1", "", "")->InRegion("eu-west-1").UrlOf("k", ""),
            "https://bbb.s3.eu-west-1.amazonaws.com/k");
  const auto lab = Endpoint::Make("bbb", "us-east-1", "http://lab", "")->InRegion("eu-west-1");
  EXPECT_EQ(lab.UrlOf("k", ""), "http://lab/bbb/k");
  EXPECT_EQ(lab.region(), "eu-west-1");
}

TEST(S3Endpoint, HostThatSomebodyNamedStaysTheHost) {
  const std::string fips = "https://s3-fips.us-west-2.amazonaws.com";
  EXPECT_EQ(Url("bucket", fips, "auto", "k"), "https://bucket.s3-fips.us-west-2.amazonaws.com/k");
  const auto moved = Endpoint::Make("bbb", "us-east-1", fips, "")->InRegion("us-west-2");
  EXPECT_EQ(moved.UrlOf("k", ""), "https://bbb.s3-fips.us-west-2.amazonaws.com/k");
  EXPECT_EQ(moved.region(), "us-west-2");
}

TEST(S3Endpoint, ServerOnAMachineOfAwsIsNotS3) {
  const std::string ec2 = "http://ec2-1-2-3-4.compute.amazonaws.com:9000";
  EXPECT_EQ(Url("bucket", ec2, "auto", "k"), ec2 + "/bucket/k");
  EXPECT_EQ(Endpoint::Make("bbb", "r", ec2, "")->Name(), ec2);
  EXPECT_TRUE(IsAwsHost("bucket.s3.eu-west-1.amazonaws.com"));
  EXPECT_TRUE(IsAwsHost("bucket.vpce-1a.s3.us-east-1.vpce.amazonaws.com"));
  EXPECT_FALSE(IsAwsHost("s3.amazonaws.com.evil.example"));
}

TEST(S3Endpoint, WhatCannotBeABucketOrAnEndpointIsRefused) {
  EXPECT_EQ(Url("", "http://127.0.0.1:7480", "virtual", ""), "http://127.0.0.1:7480/");
  for (const char* bucket : {".", "..", "a/b", "a b", "a?b", "a#b", "a\nb"}) {
    EXPECT_EQ(Endpoint::Make(bucket, "r", "", "").error().code(), Errc::kInvalid) << bucket;
  }
  for (const char* url : {"ftp://h", "h", "http://", "http://user:pw@h", "http://h?q=1"}) {
    const auto made = Endpoint::Make("bbb", "r", url, "");
    ASSERT_FALSE(made) << url;
    EXPECT_EQ(made.error().message().find("pw"), std::string::npos);
  }
  EXPECT_FALSE(Endpoint::Make("bbb", "r", "", "dns"));
  EXPECT_FALSE(Endpoint::Make("bbb", "evil.example/", "", ""));
  EXPECT_FALSE(Endpoint::Make("bbb", "", "", ""));
}

}  // namespace
}  // namespace leat::store::s3
