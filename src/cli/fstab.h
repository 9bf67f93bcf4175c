// mount -t fuse.leat, and so /etc/fstab and systemd's mount units: mount(8) calls
// `leat SOURCE DIR -o OPTION,...` (through mount.fuse3, see its manual).
#ifndef LEAT_CLI_FSTAB_H_
#define LEAT_CLI_FSTAB_H_

#include <optional>
#include <string>
#include <vector>

#include "base/error.h"

namespace leat::cli {

/// The words of `leat mount` that mean the same; nullopt: these are not mount(8)'s. Puts what
/// `env.NAME=VALUE` says, and a HOME where there is none, into the environment. kInvalid: an option
/// that is neither mount(8)'s nor ours.
std::optional<Result<std::vector<std::string>>> MountWordsOfFstab(
    const std::vector<std::string>& words);

}  // namespace leat::cli

#endif  // LEAT_CLI_FSTAB_H_
