// The profile's credential_process: a program that prints credentials.
// https://docs.aws.amazon.com/sdkref/latest/guide/feature-process-credentials.html
#ifndef LEAT_AUTH_CREDENTIAL_PROCESS_H_
#define LEAT_AUTH_CREDENTIAL_PROCESS_H_

#include <chrono>
#include <string>

#include "auth/credentials.h"

namespace leat::auth {

/// Runs `command` by /bin/sh with this process's environment, without input, in a process group of
/// its own that is killed after `limit`. Errors say what it wrote to stderr, never what it wrote to
/// stdout.
Result<Credentials> RunCredentialProcess(const std::string& command,
                                         std::chrono::milliseconds limit, const CallContext& ctx);

}  // namespace leat::auth

#endif  // LEAT_AUTH_CREDENTIAL_PROCESS_H_
