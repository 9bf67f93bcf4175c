// The endpoint that ECS tasks and EKS pods get their credentials from.
// https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html
#ifndef LEAT_AUTH_CONTAINER_H_
#define LEAT_AUTH_CONTAINER_H_

#include <memory>

#include "auth/credentials.h"

namespace leat::auth {

/// AWS_CONTAINER_CREDENTIALS_RELATIVE_URI, else AWS_CONTAINER_CREDENTIALS_FULL_URI, with the
/// authorization token of AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE (read anew each time) or
/// AWS_CONTAINER_AUTHORIZATION_TOKEN. Asks at each Get; kNotFound where neither URI is set. A full
/// URI must be https, or name this machine or a link-local address of ECS or EKS.
std::unique_ptr<CredentialProvider> MakeContainerSource(config::Environment env,
                                                        net::HttpTransport& http);

}  // namespace leat::auth

#endif  // LEAT_AUTH_CONTAINER_H_
