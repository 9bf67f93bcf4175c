// AWS's configuration files and ours: no crash. A NUL divides the input into the config and the
// credentials file.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "config/aws_config.h"
#include "config/leat_config.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto nul = text.find('\0');
  const std::string_view credentials = nul == text.npos ? std::string_view() : text.substr(nul + 1);
  const leat::config::Environment env = [](std::string_view) { return std::nullopt; };
  if (const auto config = leat::config::AwsConfig::Parse(text.substr(0, nul), "config", credentials,
                                                         "credentials")) {
    for (const auto& profile : config->Profiles()) {
      if (!config->HasProfile(profile)) std::abort();
      if (const auto value = config->Get(profile, "region"); value && value->empty()) std::abort();
      (void)leat::config::ResolveS3Settings(env, *config,
                                            {.profile = profile, .region = {}, .endpoint = {}});
    }
  }
  (void)leat::config::LeatConfig::Parse(env, text, "config.toml");
  return 0;
}
