// rclone.conf: no crash, and what it says of a remote can be used or is refused.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "config/openstack_config.h"
#include "config/rclone_config.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const leat::config::Environment env = [](std::string_view) { return std::nullopt; };
  const auto config = leat::config::RcloneConfig::Parse(text, "rclone.conf");
  if (!config) return 0;
  for (const auto& name : config->Names()) {
    if (!leat::config::IsRemoteName(name)) std::abort();
    const auto remote = config->Find(name, env);
    if (!remote) continue;
    if (remote->type.empty()) std::abort();
    for (const auto& [option, value] : remote->options) {
      if (const auto got = remote->Get(option); got && got->empty()) std::abort();
    }
    (void)leat::config::OpenStackFromRemote(*remote, env);
  }
  return 0;
}
