#include "config/rclone_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/text.h"
#include "os/file.h"

namespace leat::config {
namespace {

constexpr std::uint64_t kLargest = 16 << 20;

char Upper(char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c; }

std::string VariableOf(std::string_view remote, std::string_view option) {
  std::string out = fmt::format("RCLONE_CONFIG_{}_{}", remote, option);
  std::ranges::transform(out, out.begin(), [](char c) { return c == '-' ? '_' : Upper(c); });
  return out;
}

// Variables cannot be listed, only asked for: what any type of remote has that leat knows.
constexpr auto kOptions = std::to_array<std::string_view>({"type",
                                                           "provider",
                                                           "env_auth",
                                                           "access_key_id",
                                                           "secret_access_key",
                                                           "session_token",
                                                           "region",
                                                           "endpoint",
                                                           "force_path_style",
                                                           "profile",
                                                           "shared_credentials_file",
                                                           "requester_pays",
                                                           "server_side_encryption",
                                                           "sse_kms_key_id",
                                                           "storage_class",
                                                           "acl",
                                                           "storage_policy",
                                                           "user",
                                                           "key",
                                                           "auth",
                                                           "user_id",
                                                           "domain",
                                                           "tenant",
                                                           "tenant_id",
                                                           "tenant_domain",
                                                           "storage_url",
                                                           "auth_token",
                                                           "application_credential_id",
                                                           "application_credential_name",
                                                           "application_credential_secret",
                                                           "auth_version",
                                                           "endpoint_type",
                                                           "service_account_file",
                                                           "service_account_credentials",
                                                           "anonymous",
                                                           "token",
                                                           "client_id",
                                                           "client_secret",
                                                           "token_url",
                                                           "project_number",
                                                           "user_project",
                                                           "location",
                                                           "bucket_policy_only",
                                                           "url",
                                                           "headers",
                                                           "remote"});

}  // namespace

std::optional<std::string> RcloneRemote::Get(std::string_view option) const {
  const auto found = options.find(option);
  if (found == options.end() || found->second.empty()) return std::nullopt;
  return found->second;
}

std::string RcloneRemote::GetOr(std::string_view option, std::string_view otherwise) const {
  return Get(option).value_or(std::string(otherwise));
}

bool RcloneRemote::IsSet(std::string_view option) const {
  const std::string value = Lower(GetOr(option, ""));
  return value == "true" || value == "yes" || value == "1" || value == "t";
}

bool IsRemoteName(std::string_view name) {
  if (name.empty() || name.front() == '-' || name.front() == ' ' || name.back() == ' ')
    return false;
  return std::ranges::all_of(name, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           static_cast<unsigned char>(c) >= 0x80 ||
           std::string_view("_-.+@ ").find(c) != std::string_view::npos;
  });
}

Result<RcloneConfig> RcloneConfig::Parse(std::string_view text, std::string_view file) {
  RcloneConfig config;
  config.file_ = file;
  RcloneRemote* section = nullptr;
  int number = 0;
  if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
  while (!text.empty()) {
    const auto end = text.find('\n');
    const std::string_view line = Trim(text.substr(0, end));
    text = end == text.npos ? std::string_view() : text.substr(end + 1);
    ++number;
    if (line.empty() || line.front() == '#' || line.front() == ';') continue;
    const auto fail = [&](std::string_view why) {
      return Fail(Errc::kInvalid, fmt::format("{}:{}: {}", file, number, why));
    };
    if (line.starts_with("RCLONE_ENCRYPT_")) {
      return Fail(
          Errc::kUnsupported,
          fmt::format("{} is encrypted, and leat cannot ask for its password; write what it holds "
                      "into another file (rclone config show > FILE; chmod 600 FILE) and set "
                      "RCLONE_CONFIG=FILE",
                      file));
    }
    if (line.front() == '[') {
      if (line.back() != ']') return fail("a section's name has no \"]\"");
      const std::string name(Trim(line.substr(1, line.size() - 2)));
      if (!IsRemoteName(name)) return fail("that cannot be a remote's name");
      section = &config.remotes_[name];
      section->name = name;
      continue;
    }
    const auto equals = line.find_first_of("=:");
    // What stands in the line may be a secret: it is not repeated.
    if (equals == line.npos) return fail("neither \"[NAME]\" nor \"OPTION = VALUE\"");
    if (section == nullptr) return fail("an option before the first \"[NAME]\"");
    const std::string option(Trim(line.substr(0, equals)));
    std::string value(Trim(line.substr(equals + 1)));
    for (const std::string_view quote : {"`", "\"\"\""}) {
      if (value.size() >= 2 * quote.size() && value.starts_with(quote) && value.ends_with(quote))
        value = value.substr(quote.size(), value.size() - 2 * quote.size());
    }
    if (option == "type") section->type = value;
    section->options[option] = value;
  }
  return config;
}

Result<RcloneConfig> RcloneConfig::Load(const Environment& env) {
  const auto load = [&](const std::string& file) -> Result<RcloneConfig> {
    LEAT_ASSIGN_OR_RETURN(const std::string text, os::ReadFile(file, kLargest));
    return Parse(text, file);
  };
  if (const auto named = env("RCLONE_CONFIG")) return load(ExpandHome(env, *named));
  std::vector<std::string> places;
  if (const auto xdg = env("XDG_CONFIG_HOME")) places.push_back(*xdg + "/rclone/rclone.conf");
  if (const auto home = env("HOME")) {
    places.push_back(*home + "/.config/rclone/rclone.conf");
    places.push_back(*home + "/.config/rclone.conf");
    places.push_back(*home + "/.rclone.conf");
  }
  for (const std::string& file : places) {
    if (!os::Exists(file)) continue;
    auto config = load(file);
    // rclone itself does not look there.
    if (config && file.ends_with("/.config/rclone.conf"))
      config->note_ = fmt::format("{0} is read; rclone looks for it in {1}/rclone/rclone.conf",
                                  file, file.substr(0, file.rfind('/')));
    return config;
  }
  return RcloneConfig();
}

std::vector<std::string> RcloneConfig::Names() const {
  std::vector<std::string> names;
  for (const auto& [name, remote] : remotes_) names.push_back(name);
  return names;
}

Result<RcloneRemote> RcloneConfig::Find(std::string_view name, const Environment& env) const {
  RcloneRemote remote;
  const auto found = remotes_.find(name);
  if (found != remotes_.end()) remote = found->second;
  remote.name = name;
  for (const std::string_view option : kOptions) {
    if (const auto value = env(VariableOf(name, option)))
      remote.options[std::string(option)] = *value;
  }
  remote.type = remote.GetOr("type", "");
  if (!remote.type.empty()) return remote;
  if (found != remotes_.end())
    return Fail(Errc::kInvalid, fmt::format("{}: the remote {} has no type", file_, name));
  const std::vector<std::string> names = Names();
  if (file_.empty()) {
    return Fail(Errc::kNotFound,
                fmt::format("there is no remote {}: there is no rclone.conf (rclone config makes "
                            "one; RCLONE_CONFIG names another)",
                            name));
  }
  return Fail(Errc::kNotFound,
              names.empty()
                  ? fmt::format("there is no remote {} in {}, which is empty", name, file_)
                  : fmt::format("there is no remote {} in {}; it has {}", name, file_,
                                fmt::join(names, ", ")));
}

}  // namespace leat::config
