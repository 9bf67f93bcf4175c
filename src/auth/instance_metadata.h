// The credentials that an EC2 machine's role has, from IMDSv2.
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html
#ifndef LEAT_AUTH_INSTANCE_METADATA_H_
#define LEAT_AUTH_INSTANCE_METADATA_H_

#include <functional>
#include <memory>
#include <string>

#include "auth/credentials.h"

namespace leat::auth {

/// What the firmware says: sys_vendor "Amazon EC2", a product_uuid that begins with "ec2", "amazon"
/// in bios_version, or a board_asset_tag that is an instance's id. `folder` stands in for
/// /sys/class/dmi/id in tests.
bool MachineIsEc2(const std::string& folder = "/sys/class/dmi/id");

/// Asks at each Get. kNotFound where AWS_EC2_METADATA_DISABLED is true, where the machine is not
/// EC2 and AWS_EC2_METADATA_SERVICE_ENDPOINT names no other service (then nothing is sent: a
/// laptop's start never waits), where there is no role, and where nobody answers: that is found out
/// once and remembered. A service that is not on EC2 gets one second in all. Once it gave
/// credentials, a failure is kUnavailable.
std::unique_ptr<CredentialProvider> MakeInstanceMetadataSource(
    config::Environment env, net::HttpTransport& http, std::function<bool()> machine_is_ec2);

}  // namespace leat::auth

#endif  // LEAT_AUTH_INSTANCE_METADATA_H_
