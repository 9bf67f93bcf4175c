#include "config/aws_config.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"
#include "os/file.h"

namespace leat::config {
namespace {

constexpr std::string_view kSpace = " \t";

using Properties = std::map<std::string, std::string, std::less<>>;
using Sections = std::map<std::string, Properties, std::less<>>;

// A '#' or ';' begins a comment where white space precedes it; "a#b" is a value.
std::string_view WithoutComment(std::string_view text) {
  for (std::size_t i = 1; i < text.size(); ++i) {
    if ((text[i] == '#' || text[i] == ';') && kSpace.find(text[i - 1]) != kSpace.npos)
      return text.substr(0, i);
  }
  return text;
}

enum class FileKind { kConfig, kCredentials };

// Where the lines under a section's head belong.
struct Section {
  std::string type;  // "profile", "services"; empty: nothing of ours, its lines are skipped
  std::string name;
  bool prefixed = false;  // "[profile default]", which beats "[default]"
};

class Parser {
 public:
  Parser(FileKind kind, std::string_view file) : kind_(kind), file_(file) {}

  Status Parse(std::string_view text) {
    if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
    while (!text.empty()) {
      const auto end = text.find('\n');
      std::string_view line = text.substr(0, end);
      text = end == text.npos ? std::string_view() : text.substr(end + 1);
      if (line.ends_with('\r')) line.remove_suffix(1);
      ++line_;
      LEAT_RETURN_IF_ERROR(ParseLine(line));
    }
    if (has_prefixed_default_) {
      profiles["default"] = std::move(prefixed_default_);
    }
    return {};
  }

  Sections profiles;
  Sections services;
  Sections sessions;  // of SSO

 private:
  // Never shows the line: it may hold a secret.
  std::unexpected<Error> Bad(std::string_view why) const {
    return Fail(Errc::kInvalid, fmt::format("{}:{}: {}", file_, line_, why));
  }

  Status ParseLine(std::string_view line) {
    const std::string_view trimmed = Trim(line);
    if (trimmed.empty() || trimmed.front() == '#' || trimmed.front() == ';') return {};
    if (kSpace.find(line.front()) != kSpace.npos) return ParseContinuation(trimmed);
    if (line.front() == '[') return ParseHead(line);
    return ParseProperty(line);
  }

  Status ParseHead(std::string_view line) {
    const auto close = line.find(']');
    if (close == line.npos) return Bad("the section's name has no \"]\"");
    const std::string_view behind = Trim(line.substr(close + 1));
    if (!behind.empty() && behind.front() != '#' && behind.front() != ';') {
      return Bad("there is text behind the section's \"]\"");
    }
    std::string_view name = Trim(line.substr(1, close - 1));
    std::string_view type;
    if (const auto space = name.find_first_of(" \t");
        space != name.npos && !name.starts_with('"')) {
      type = name.substr(0, space);
      name = Trim(name.substr(space));
    }
    if (name.size() >= 2 && (name.front() == '"' || name.front() == '\'') &&
        name.back() == name.front()) {
      name = name.substr(1, name.size() - 2);
    } else if (name.find_first_of(" \t") != name.npos) {
      name = {};
    }
    head_seen_ = true;
    key_.reset();
    section_ = {};
    if (name.empty()) return {};
    const bool bare = type.empty();
    if (kind_ == FileKind::kCredentials) {
      if (bare) section_ = {.type = "profile", .name = std::string(name)};
    } else if (type == "profile" || (bare && name == "default")) {
      section_ = {.type = "profile", .name = std::string(name), .prefixed = !bare};
    } else if (type == "services") {
      section_ = {.type = "services", .name = std::string(name)};
    } else if (type == "sso-session") {
      section_ = {.type = "sso-session", .name = std::string(name)};
    }
    Current();  // a section without properties is there, too
    return {};
  }

  Status ParseProperty(std::string_view line) {
    if (!head_seen_) return Bad("there is text before the first [section]");
    line = WithoutComment(line);
    const auto equals = line.find('=');
    if (equals == line.npos) return Bad("a line has no \"=\"");
    const std::string_view key = Trim(line.substr(0, equals));
    if (key.empty()) return Bad("a line has no name before its \"=\"");
    key_ = Lower(key);
    // Names with white space are none that anybody reads.
    usable_key_ = key.find_first_of(" \t") == key.npos;
    const std::string_view value = Trim(line.substr(equals + 1));
    nested_ = value.empty();
    if (Properties* properties = Current(); properties != nullptr && usable_key_) {
      (*properties)[*key_] = value;
    }
    return {};
  }

  Status ParseContinuation(std::string_view text) {
    if (!head_seen_) return Bad("there is text before the first [section]");
    if (!key_) return Bad("an indented line continues nothing");
    Properties* const properties = Current();
    if (!nested_) {
      if (properties != nullptr && usable_key_) (*properties)[*key_].append("\n").append(text);
      return {};
    }
    const auto equals = text.find('=');
    if (equals == text.npos) return Bad("an indented line has no \"=\"");
    const std::string_view name = Trim(text.substr(0, equals));
    if (name.empty()) return Bad("an indented line has no name before its \"=\"");
    if (properties != nullptr && usable_key_) {
      (*properties)[fmt::format("{}.{}", *key_, Lower(name))] = Trim(text.substr(equals + 1));
    }
    return {};
  }

  Properties* Current() {
    if (section_.type == "services") return &services[section_.name];
    if (section_.type == "sso-session") return &sessions[section_.name];
    if (section_.type != "profile") return nullptr;
    if (section_.name == "default" && section_.prefixed) {
      has_prefixed_default_ = true;
      return &prefixed_default_;
    }
    return &profiles[section_.name];
  }

  const FileKind kind_;
  const std::string_view file_;
  int line_ = 0;
  bool head_seen_ = false;
  Section section_;
  std::optional<std::string> key_;  // the property that an indented line would continue
  bool usable_key_ = false;
  bool nested_ = false;
  bool has_prefixed_default_ = false;
  Properties prefixed_default_;
};

Result<std::string> ReadIfThere(const std::string& path) {
  if (path.empty()) return std::string();
  auto text = os::ReadFile(path);
  if (!text && text.error().code() == Errc::kNotFound) return std::string();
  return text;
}

std::string FilePath(const Environment& env, std::string_view variable, std::string_view in_home) {
  if (const auto path = env(variable)) return ExpandHome(env, *path);
  const auto home = env("HOME");
  return home ? fmt::format("{}/.aws/{}", *home, in_home) : std::string();
}

bool IsTrue(const std::optional<std::string>& value) { return value && Lower(*value) == "true"; }

}  // namespace

Result<AwsConfig> AwsConfig::Load(const Environment& env) {
  const std::string config_path = FilePath(env, "AWS_CONFIG_FILE", "config");
  const std::string credentials_path = FilePath(env, "AWS_SHARED_CREDENTIALS_FILE", "credentials");
  LEAT_ASSIGN_OR_RETURN(const std::string config, ReadIfThere(config_path));
  LEAT_ASSIGN_OR_RETURN(const std::string credentials, ReadIfThere(credentials_path));
  return Parse(config, config_path, credentials, credentials_path);
}

Result<AwsConfig> AwsConfig::Parse(std::string_view config, std::string_view config_name,
                                   std::string_view credentials,
                                   std::string_view credentials_name) {
  Parser config_file(FileKind::kConfig, config_name);
  LEAT_RETURN_IF_ERROR(config_file.Parse(config));
  Parser credentials_file(FileKind::kCredentials, credentials_name);
  LEAT_RETURN_IF_ERROR(credentials_file.Parse(credentials));

  AwsConfig merged;
  merged.profiles_ = std::move(config_file.profiles);
  for (const auto& [profile, properties] : credentials_file.profiles) {
    for (const auto& [key, value] : properties) merged.profiles_[profile][key] = value;
    merged.profiles_[profile];
  }
  for (auto& [profile, properties] : merged.profiles_) {
    if (const auto named = properties.find("sso_session"); named != properties.end()) {
      if (const auto session = config_file.sessions.find(named->second);
          session != config_file.sessions.end()) {
        for (const auto& [key, value] : session->second) properties[key] = value;
      }
    }
    const auto wanted = properties.find("services");
    if (wanted == properties.end()) continue;
    const auto section = config_file.services.find(wanted->second);
    if (section == config_file.services.end()) continue;
    for (const auto& [key, value] : section->second) properties["services." + key] = value;
  }
  return merged;
}

std::vector<std::string> AwsConfig::Profiles() const {
  std::vector<std::string> names;
  for (const auto& [name, properties] : profiles_) names.push_back(name);
  return names;
}

bool AwsConfig::HasProfile(std::string_view profile) const { return profiles_.contains(profile); }

std::optional<std::string> AwsConfig::Get(std::string_view profile, std::string_view key) const {
  const auto properties = profiles_.find(profile);
  if (properties == profiles_.end()) return std::nullopt;
  const auto property = properties->second.find(key);
  if (property == properties->second.end() || property->second.empty()) return std::nullopt;
  return property->second;
}

std::string AwsConfig::ProfileName(const Environment& env, std::string_view wanted) {
  if (!wanted.empty()) return std::string(wanted);
  if (const auto name = env("AWS_PROFILE")) return *name;
  return env("AWS_DEFAULT_PROFILE").value_or("default");
}

Status AwsConfig::CheckProfile(std::string_view profile) const {
  if (profile == "default" || HasProfile(profile)) return {};
  const auto names = Profiles();
  return Fail(
      Errc::kInvalid,
      names.empty()
          ? fmt::format("there is no AWS profile \"{}\": ~/.aws/config has no profiles", profile)
          : fmt::format("there is no AWS profile \"{}\"; there are {}", profile,
                        fmt::join(names, ", ")));
}

Result<S3Settings> ResolveS3Settings(const Environment& env, const AwsConfig& config,
                                     const S3Overrides& overrides) {
  S3Settings settings;
  settings.profile = AwsConfig::ProfileName(env, overrides.profile);
  LEAT_RETURN_IF_ERROR(config.CheckProfile(settings.profile));
  const auto property = [&](std::string_view key) { return config.Get(settings.profile, key); };
  const auto first = [](std::initializer_list<std::optional<std::string>> candidates) {
    for (const auto& candidate : candidates) {
      if (candidate && !candidate->empty()) return *candidate;
    }
    return std::string();
  };

  std::string region =
      first({overrides.region, env("AWS_REGION"), env("AWS_DEFAULT_REGION"), property("region")});
  settings.region_given = !region.empty();
  if (settings.region_given) settings.region = std::move(region);

  settings.endpoint = overrides.endpoint;
  const bool ignored = IsTrue(env("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS")) ||
                       (!env("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS") &&
                        IsTrue(property("ignore_configured_endpoint_urls")));
  if (settings.endpoint.empty() && !ignored) {
    settings.endpoint = first({env("AWS_ENDPOINT_URL_S3"), env("AWS_ENDPOINT_URL"),
                               property("services.s3.endpoint_url"), property("endpoint_url")});
  }

  settings.addressing_style = property("s3.addressing_style").value_or("auto");
  if (settings.addressing_style != "path" && settings.addressing_style != "virtual" &&
      settings.addressing_style != "auto") {
    return Fail(
        Errc::kInvalid,
        fmt::format("AWS profile {}: addressing_style is \"{}\", but must be path, virtual or auto",
                    settings.profile, settings.addressing_style));
  }
  settings.ca_bundle = ExpandHome(env, first({env("AWS_CA_BUNDLE"), property("ca_bundle")}));
  return settings;
}

}  // namespace leat::config
