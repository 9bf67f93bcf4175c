// Tokens of OpenStack's identity service.
// https://docs.openstack.org/api-ref/identity/v3/#authentication-and-token-management and, for v1
// (Ceph, old Swifts), https://docs.openstack.org/swift/latest/overview_auth.html
#ifndef LEAT_AUTH_KEYSTONE_H_
#define LEAT_AUTH_KEYSTONE_H_

#include <memory>
#include <string>
#include <string_view>

#include "auth/credentials.h"
#include "base/clock.h"
#include "config/openstack_config.h"
#include "net/http_client.h"

namespace leat::auth {

/// Gives a token (Credentials::session_token) and the URL of the object store's account
/// (Credentials::endpoint). Kept, and renewed before it ends. With a storage URL and nothing else:
/// anonymous. kDenied: the sentence says which of them is wrong, where Keystone tells. `http` and
/// `clock` outlive it.
std::unique_ptr<CredentialProvider> MakeKeystone(config::OpenStackSettings settings,
                                                 net::HttpTransport& http, Clock& clock);

/// The account's URL and the token's end in Keystone's answer. kCorrupt for what is none, kNotFound
/// where the catalogue has no object store (in that region, of that interface): the sentence says
/// what there is.
Result<Credentials> ParseKeystoneToken(std::string_view body, std::string_view region,
                                       std::string_view interface);

}  // namespace leat::auth

#endif  // LEAT_AUTH_KEYSTONE_H_
