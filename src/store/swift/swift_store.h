// OpenStack Swift and what speaks its protocol. https://docs.openstack.org/api-ref/object-store/
#ifndef LEAT_STORE_SWIFT_SWIFT_STORE_H_
#define LEAT_STORE_SWIFT_SWIFT_STORE_H_

#include <memory>
#include <string>

#include "auth/credentials.h"
#include "base/clock.h"
#include "net/http_client.h"
#include "store/object_store.h"

namespace leat::store::swift {

struct SwiftOptions {
  std::string container = {};  ///< empty: the account, good for Buckets alone
  /// Tells this account from others: "https://keystone:5000/v3 RegionOne 9f7e..."; no secret.
  std::string account = {};
  std::string storage_policy = {};  ///< of containers that are made; empty: the server's
  std::string ca_file = {};         ///< empty: the system's
};

/// One container. `credentials` give the token and the account's URL (auth/keystone.h); they are
/// asked for new ones once when the store says that they are too old. An upload's parts lie in
/// CONTAINER_segments, below the object's name, and make a static large object. `credentials` and
/// `http` outlive it. kInvalid for a malformed name.
Result<std::unique_ptr<ObjectStore>> MakeSwiftStore(SwiftOptions options,
                                                    auth::CredentialProvider& credentials,
                                                    net::HttpTransport& http, Clock& clock);

}  // namespace leat::store::swift

#endif  // LEAT_STORE_SWIFT_SWIFT_STORE_H_
