#include "job/mount_spec.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <system_error>
#include <utility>

#include "base/log.h"
#include "base/text.h"
#include "dataset/name.h"
#include "job/rclone_remote.h"
#include "net/url.h"

namespace leat::job {
namespace {

constexpr std::string_view kDefaultTarget = "/data";

/// "scheme" of "scheme://...".
std::optional<std::string_view> SchemeOf(std::string_view text) {
  const std::size_t colon = text.find("://");
  if (colon == std::string_view::npos || colon == 0) return std::nullopt;
  const std::string_view scheme = text.substr(0, colon);
  const bool valid = std::ranges::all_of(scheme, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '+' ||
           c == '-' || c == '.';
  });
  return valid ? std::optional(scheme) : std::nullopt;
}

bool LooksLikeSource(std::string_view text) {
  return SchemeOf(text) || text.starts_with('/') || text.starts_with("./") ||
         text.starts_with("../") || text.starts_with("~/") || text == "." || text == ".." ||
         text == "~";
}

/// "remote:container/path", a section of rclone's configuration: for a sentence that names it.
bool LooksLikeRemote(std::string_view text) {
  const std::size_t colon = text.find(':');
  return colon != std::string_view::npos && colon > 0 &&
         std::ranges::all_of(text.substr(0, colon), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '_' || c == '-' || c == '.';
         });
}

struct OptionName {
  std::string_view name;
  bool has_value;
};
constexpr std::array kOptions = {
    OptionName{"ro", false},      OptionName{"rw", false},
    OptionName{"anon", false},    OptionName{"requester_pays", false},
    OptionName{"mode", true},     OptionName{"etag", true},
    OptionName{"version", true},  OptionName{"name", true},
    OptionName{"profile", true},  OptionName{"region", true},
    OptionName{"endpoint", true}, OptionName{"expand", true},
    OptionName{"volume", true},   OptionName{"size", true},
    OptionName{"remote", true},   OptionName{"strict_pins", false},
};

const OptionName* KnownOption(std::string_view word) {
  const std::size_t equals = word.find('=');
  for (const OptionName& option : kOptions) {
    if (word.substr(0, equals) == option.name &&
        option.has_value == (equals != std::string_view::npos))
      return &option;
  }
  return nullptr;
}

Result<Volume> ParseVolume(std::string_view value, std::string_view where) {
  const std::string kind = Lower(value);
  if (kind == "shared") return Volume::kShared;
  if (kind == "dynamic") return Volume::kDynamic;
  return Fail(Errc::kInvalid, fmt::format("{}: a volume is shared or dynamic, not \"{}\"", where,
                                          Printable(value)));
}

Status ParseVolumeSize(std::string_view value, std::string_view where, MountSpec& spec) {
  if (value == "advisory") {
    spec.advisory_size = true;
    return {};
  }
  auto size = ParseSize(value);
  if (!size) return Fail(std::move(size), fmt::format("{}: size", where));
  if (*size == 0)
    return Fail(Errc::kInvalid, fmt::format("{}: a volume of no size holds nothing", where));
  spec.volume_size = *size;
  return {};
}

Status CheckTogether(const MountSpec& spec) {
  const bool local = spec.source.kind == Source::Kind::kLocal;
  if (spec.writable && spec.placed()) {
    return Fail(Errc::kInvalid, spec.source.ForMessages() + ": a dataset is read-only, always");
  }
  if (spec.placed() && !spec.name.empty()) LEAT_RETURN_IF_ERROR(dataset::CheckName(spec.name));
  if (local && !spec.placed() && spec.expand != Expand::kNever) {
    return Fail(Errc::kInvalid,
                spec.source.ForMessages() +
                    ": an archive of this machine is expanded with volume=shared or "
                    "volume=dynamic");
  }
  if (spec.writable && !local) {
    return Fail(Errc::kInvalid,
                spec.source.ForMessages() +
                    ": rw is for a folder of this machine; an object store is attached read-only");
  }
  const auto only = [&](bool given, std::string_view option, bool fits,
                        std::string_view kinds) -> Status {
    if (!given || fits) return {};
    return Fail(Errc::kInvalid, fmt::format("{}: the option {} is for {}",
                                            spec.source.ForMessages(), option, kinds));
  };
  const bool s3 = spec.source.kind == Source::Kind::kS3;
  const bool gcs = spec.source.kind == Source::Kind::kGcs;
  const bool bucket = spec.source.in_bucket();
  LEAT_RETURN_IF_ERROR(
      only(!spec.etag.empty(), "etag", !local || spec.placed(), "sources in stores and https://"));
  LEAT_RETURN_IF_ERROR(
      only(!spec.version.empty(), "version", bucket, "s3://, swift:// and gs:// sources"));
  LEAT_RETURN_IF_ERROR(only(!spec.profile.empty(), "profile", s3, "s3:// sources"));
  LEAT_RETURN_IF_ERROR(
      only(!spec.region.empty(), "region", bucket && !gcs, "s3:// and swift:// sources"));
  LEAT_RETURN_IF_ERROR(
      only(!spec.endpoint.empty(), "endpoint", s3 || gcs, "s3:// and gs:// sources"));
  LEAT_RETURN_IF_ERROR(only(spec.anonymous, "anon", bucket, "s3://, swift:// and gs:// sources"));
  LEAT_RETURN_IF_ERROR(
      only(spec.requester_pays, "requester_pays", s3 || gcs, "s3:// and gs:// sources"));
  if (spec.anonymous && !spec.profile.empty())
    return Fail(Errc::kInvalid, "anon and profile= exclude each other");
  return {};
}

/// A dataset's place where none is given.
std::string DatasetTarget(std::string_view name) {
  return fmt::format("{}/{}", kDefaultTarget, name);
}

/// Gives a dataset without a name that of its source, if it can be one.
Status NameDataset(MountSpec& spec) {
  if (!spec.name.empty()) return {};
  spec.name = DefaultDatasetName(spec.source);
  const Status named = dataset::CheckName(spec.name);
  if (named) return {};
  return Fail(Errc::kInvalid, fmt::format("{}: {}; give it one (--datasetName, name)",
                                          spec.source.ForMessages(), named.error().message()));
}

}  // namespace

Result<Expand> ParseExpand(std::string_view value, std::string_view where) {
  if (value == "auto") return Expand::kAuto;
  if (value == "always") return Expand::kAlways;
  if (value == "never") return Expand::kNever;
  return Fail(Errc::kInvalid, fmt::format("{}: expand is auto, always or never, not \"{}\"", where,
                                          Printable(value)));
}

Result<std::string> NormalTarget(std::string_view target) {
  if (!target.starts_with('/'))
    return Fail(Errc::kInvalid, fmt::format("the target \"{}\" is not an absolute path", target));
  std::string out;
  for (std::size_t begin = 0; begin < target.size();) {
    const std::size_t end = std::min(target.find('/', begin), target.size());
    const std::string_view part = target.substr(begin, end - begin);
    begin = end + 1;
    if (part.empty() || part == ".") continue;
    if (part == "..")
      return Fail(Errc::kInvalid, fmt::format("the target \"{}\" must not contain \"..\"", target));
    if (part.size() > 255)
      return Fail(Errc::kInvalid, "the target has a name of more than 255 bytes");
    out += '/';
    out += part;
  }
  for (const std::string_view reserved : {"/proc", "/sys", "/dev"}) {
    if (out == reserved || out.starts_with(std::string(reserved) + "/")) {
      return Fail(
          Errc::kInvalid,
          fmt::format("the target {} is the system's own; choose another, such as /data", out));
    }
  }
  if (out.empty())
    return Fail(Errc::kInvalid, "the target / cannot be replaced; choose a folder, such as /data");
  if (out.size() > 4000) return Fail(Errc::kInvalid, "the target is too long");
  return out;
}

std::string Source::ForMessages() const {
  if (kind != Kind::kHttp) return Printable(text);
  return Printable(fmt::format("{}/{}", origin, key.substr(0, key.find('?'))));
}

Result<Source> ParseSource(std::string_view text) {
  Source out;
  out.text = text;
  if (text.empty()) return Fail(Errc::kInvalid, "the source is empty");
  if (text.find('\0') != std::string_view::npos)
    return Fail(Errc::kInvalid, "the source contains a NUL byte");
  const auto scheme = SchemeOf(text);
  if (!scheme) {
    if (text == "~" || text.starts_with("~/")) {
      const char* home = std::getenv("HOME");
      if (home == nullptr) return Fail(Errc::kInvalid, fmt::format("{}: HOME is not set", text));
      out.path = std::string(home) + std::string(text.substr(1));
      return out;
    }
    const std::size_t colon = text.find(':');
    if (colon != std::string_view::npos && colon < text.find('/') && !LooksLikeSource(text)) {
      out.kind = Source::Kind::kRemote;
      out.bucket = text.substr(0, colon);
      out.key = text.substr(colon + 1);
      if (!config::IsRemoteName(out.bucket)) {
        return Fail(Errc::kInvalid,
                    fmt::format("{}: neither a remote of rclone's configuration (NAME:path) nor a "
                                "URL; write ./ in front of a file of that name",
                                net::Redacted(text)));
      }
      return out;
    }
    out.path = text;
    return out;
  }
  const std::string_view rest = text.substr(scheme->size() + 3);
  const std::string lower = Lower(*scheme);
  if (lower == "file") {
    if (!rest.starts_with('/'))
      return Fail(Errc::kInvalid, fmt::format("{}: a file:// URL has three slashes (file:///path)",
                                              net::Redacted(text)));
    out.path = rest;
    return out;
  }
  if (lower == "s3" || lower == "swift" || lower == "gs") {
    out.kind = lower == "s3"   ? Source::Kind::kS3
               : lower == "gs" ? Source::Kind::kGcs
                               : Source::Kind::kSwift;
    const std::size_t slash = std::min(rest.find('/'), rest.size());
    out.bucket = rest.substr(0, slash);
    out.key = rest.substr(std::min(slash + 1, rest.size()));
    if (out.bucket.empty() && !out.key.empty()) LEAT_RETURN_IF_ERROR(CheckBucket(out));
    // (AWS's secrets may hold a '/'.)
    const bool key_pair = (rest.starts_with("AKIA") || rest.starts_with("ASIA")) &&
                          rest.find(':') < slash && rest.find('@') != std::string_view::npos;
    if (const std::size_t at = key_pair ? 0 : out.bucket.rfind('@'); at != std::string::npos) {
      if (key_pair) out.bucket = rest.substr(rest.rfind('@'));
      return Fail(Errc::kInvalid,
                  fmt::format("{}://...{}: a URL is no place for keys; leave them to the "
                              "environment, a profile or a remote",
                              lower, Printable(std::string_view(out.bucket).substr(at))));
    }
    if (out.key.size() > 1024)
      return Fail(Errc::kInvalid, "the key is longer than a store's 1,024 bytes");
    return out;
  }
  if (lower == "http" || lower == "https") {
    out.kind = Source::Kind::kHttp;
    // The whole may be a presigned URL: nothing of its query gets into a message.
    auto url = net::ParseUrl(text);
    if (!url) return Fail(std::move(url), fmt::format("{}://...", lower));
    out.origin = fmt::format("{}://{}", url->scheme, url->Authority());
    out.user_info = url->user_info;
    out.key = url->path.substr(1);
    if (!url->query.empty()) out.key += "?" + url->query;
    return out;
  }
  return Fail(Errc::kInvalid,
              fmt::format("{}: there is no scheme \"{}://\" (s3://, gs://, swift://, "
                          "https://, http://, file://, NAME: of an rclone.conf "
                          "and paths are known)",
                          net::Redacted(text), *scheme));
}

Status CheckBucket(const Source& source) {
  if (!source.in_bucket() || !source.bucket.empty()) return {};
  const bool swift = source.kind == Source::Kind::kSwift;
  const std::string_view what = swift ? "container" : "bucket";
  if (source.remote != nullptr) {
    return Fail(Errc::kInvalid, fmt::format("{}: the {} is missing ({}:{}/prefix)",
                                            source.ForMessages(), what, source.remote->name, what));
  }
  const std::string_view scheme = swift ? "swift" : source.kind == Source::Kind::kGcs ? "gs" : "s3";
  return Fail(Errc::kInvalid, fmt::format("{}: the {}'s name is missing ({}://{}/prefix)",
                                          net::Redacted(source.text), what, scheme, what));
}

Result<MountSpec> ParseSourceWithOptions(std::string_view text, const config::Environment& env,
                                         bool web_folders) {
  MountSpec spec;
  std::vector<std::string_view> words;
  std::string_view rest = text;
  for (std::size_t comma; (comma = rest.rfind(',')) != std::string_view::npos;) {
    const std::string_view word = rest.substr(comma + 1);
    if (KnownOption(word) == nullptr) break;
    words.push_back(word);
    rest = rest.substr(0, comma);
  }
  LEAT_ASSIGN_OR_RETURN(spec.source, ParseSource(rest));
  LEAT_RETURN_IF_ERROR(ResolveRemote(spec.source, env));
  const std::string_view path =
      std::string_view(spec.source.key).substr(0, spec.source.key.find('?'));
  if (spec.source.kind == Source::Kind::kHttp && !web_folders &&
      (path.empty() || path.ends_with('/'))) {
    return Fail(Errc::kInvalid,
                fmt::format("{}: names no file; a web server's folder cannot be listed",
                            spec.source.ForMessages()));
  }
  std::set<std::string_view> seen;
  for (const std::string_view word : words) {
    const OptionName& option = *KnownOption(word);
    const std::string where = spec.source.ForMessages();
    const std::string_view value = option.has_value ? word.substr(option.name.size() + 1) : "";
    // ro and rw are two words for one option.
    if (!seen.insert(option.name == "rw" ? "ro" : option.name).second) {
      return Fail(Errc::kInvalid,
                  fmt::format("{}: the option {} is given twice", where, option.name));
    }
    if (option.has_value && value.empty())
      return Fail(Errc::kInvalid,
                  fmt::format("{}: the option {}= has no value", where, option.name));
    if (option.name == "rw") spec.writable = true;
    if (option.name == "anon") spec.anonymous = true;
    if (option.name == "requester_pays") spec.requester_pays = true;
    if (option.name == "etag") spec.etag = value;
    if (option.name == "version") spec.version = value;
    if (option.name == "profile") spec.profile = value;
    if (option.name == "region") spec.region = value;
    if (option.name == "endpoint") spec.endpoint = value;
    if (option.name == "remote") LEAT_RETURN_IF_ERROR(UseRemote(spec.source, value, env));
    if (option.name == "name") {
      if (value == "." || value == ".." || value.find('/') != std::string_view::npos ||
          value.size() > 255) {
        return Fail(Errc::kInvalid,
                    fmt::format("{}: \"{}\" cannot be a file's name", where, value));
      }
      spec.name = value;
    }
    if (option.name == "strict_pins") spec.strict_pins = true;
    if (option.name == "volume") {
      LEAT_ASSIGN_OR_RETURN(spec.volume, ParseVolume(value, where));
    }
    if (option.name == "expand") {
      LEAT_ASSIGN_OR_RETURN(spec.expand, ParseExpand(value, where));
    }
    if (option.name == "size") {
      LEAT_RETURN_IF_ERROR(ParseVolumeSize(value, where, spec));
    }
    if (option.name == "mode") {
      if (value != "stream" && value != "copy") {
        return Fail(Errc::kInvalid,
                    fmt::format("{}: mode is stream or copy, not \"{}\"", where, value));
      }
      spec.mode = value == "copy" ? Mode::kCopy : Mode::kStream;
    }
  }
  if (spec.placed()) {
    if (seen.contains("mode") && spec.mode == Mode::kStream) {
      return Fail(
          Errc::kInvalid,
          fmt::format("{}: volume= downloads everything, and mode=stream does not; choose one",
                      spec.source.ForMessages()));
    }
    if (!seen.contains("expand")) spec.expand = Expand::kAuto;
  }
  if (seen.contains("size") && spec.volume != Volume::kDynamic) {
    return Fail(Errc::kInvalid,
                fmt::format("{}: size= is for volume=dynamic", spec.source.ForMessages()));
  }
  LEAT_RETURN_IF_ERROR(CheckTogether(spec));
  return spec;
}

Result<MountSpec> ParseMount(std::string_view text, const config::Environment& env) {
  std::string_view target;  // empty: the default
  std::string_view source = text;
  // "/a=b" has a target only if what follows an '=' begins like a source; else the whole is a path
  // that contains '='.
  if (text.starts_with('/')) {
    for (std::size_t equals = text.find('='); equals != std::string_view::npos;
         equals = text.find('=', equals + 1)) {
      const std::string_view behind = text.substr(equals + 1);
      if (!LooksLikeSource(behind) && !LooksLikeRemote(behind)) continue;
      target = text.substr(0, equals);
      source = text.substr(equals + 1);
      break;
    }
  } else if (const std::size_t equals = text.find('=');
             equals != std::string_view::npos && !SchemeOf(text) && text.find('/') > equals &&
             LooksLikeSource(text.substr(equals + 1))) {
    return Fail(Errc::kInvalid,
                fmt::format("the target \"{}\" is not an absolute path (write /{}=...)",
                            text.substr(0, equals), text.substr(0, equals)));
  }
  LEAT_ASSIGN_OR_RETURN(MountSpec spec, ParseSourceWithOptions(source, env));
  LEAT_RETURN_IF_ERROR(CheckBucket(spec.source));
  if (spec.placed()) LEAT_RETURN_IF_ERROR(NameDataset(spec));
  if (target.empty()) {
    spec.target = spec.placed() ? DatasetTarget(spec.name) : kDefaultTarget;
    return spec;
  }
  LEAT_ASSIGN_OR_RETURN(spec.target, NormalTarget(target));
  return spec;
}

Result<MountSpec> FolderMount(const std::string& folder, std::string_view target, bool writable) {
  MountSpec spec;
  spec.source.text = spec.source.path = folder;
  spec.writable = writable;
  LEAT_ASSIGN_OR_RETURN(spec.target, NormalTarget(target));
  return spec;
}

Result<MountSpec> DatasetMount(const dataset::Options& options, const config::Environment& env) {
  MountSpec spec;
  if (options.uri == "none" || options.uri.empty())
    return Fail(Errc::kInvalid, "a dataset has no URI (--datasetUri, url)");
  LEAT_ASSIGN_OR_RETURN(spec.source, ParseSource(options.uri));
  LEAT_RETURN_IF_ERROR(ResolveRemote(spec.source, env));
  LEAT_RETURN_IF_ERROR(CheckBucket(spec.source));
  const std::string where = spec.source.ForMessages();
  spec.volume = Volume::kShared;
  spec.expand = Expand::kAuto;
  spec.mode = Mode::kCopy;
  spec.name = options.name;
  spec.etag = options.etag;
  spec.version = options.version_id;
  spec.endpoint = options.endpoint;
  spec.access_key_id = options.access_key_id;
  spec.secret_access_key = options.secret_access_key;
  if (!options.volume_kind.empty()) {
    LEAT_ASSIGN_OR_RETURN(spec.volume, ParseVolume(options.volume_kind, where));
  }
  if (!options.volume_size.empty()) {
    LEAT_RETURN_IF_ERROR(ParseVolumeSize(options.volume_size, where, spec));
    if (spec.volume != Volume::kDynamic) {
      return Fail(
          Errc::kInvalid,
          where +
              ": a volume's size is for volumes of the kind dynamic; the shared storage has none");
    }
  }
  if (spec.access_key_id.empty() != spec.secret_access_key.empty()) {
    return Fail(
        Errc::kInvalid,
        fmt::format("{}: an access key's id and its secret go together, and there is only the {}",
                    where, spec.access_key_id.empty() ? "secret" : "id"));
  }
  if (!spec.access_key_id.empty() && spec.source.kind != Source::Kind::kS3)
    return Fail(Errc::kInvalid, where + ": access keys are for s3:// sources");
  LEAT_RETURN_IF_ERROR(CheckTogether(spec));
  LEAT_RETURN_IF_ERROR(NameDataset(spec));
  spec.target = DatasetTarget(spec.name);
  return spec;
}

std::string DefaultDatasetName(const Source& source) {
  if (source.kind == Source::Kind::kLocal) {
    const auto path = std::filesystem::path(source.path).lexically_normal();
    return dataset::DefaultName(path == "." ? std::filesystem::current_path().string()
                                            : path.string());
  }
  if (source.kind == Source::Kind::kHttp)
    return dataset::DefaultName(net::PercentDecode(source.key.substr(0, source.key.find('?'))));
  return dataset::DefaultName(fmt::format("{}/{}", source.bucket, source.key));
}

std::string NormalEtag(std::string_view etag) {
  if (etag.starts_with("W/")) etag.remove_prefix(2);
  if (etag.size() >= 2 && etag.front() == '"' && etag.back() == '"')
    etag = etag.substr(1, etag.size() - 2);
  std::string out(etag);
  std::ranges::transform(out, out.begin(), [](char c) {
    return c >= 'A' && c <= 'F' ? static_cast<char>(c + 32) : c;
  });
  return out;
}

std::string ResolvedTarget(const MountSpec& mount) {
  std::error_code failed;
  const auto path = std::filesystem::weakly_canonical(mount.target, failed);
  return failed ? mount.target : path.string();
}

Status CheckTargets(const std::vector<MountSpec>& mounts) {
  std::map<std::string, std::string_view> seen;
  for (const MountSpec& mount : mounts) {
    const auto [it, fresh] = seen.emplace(ResolvedTarget(mount), mount.target);
    if (fresh) continue;
    return Fail(Errc::kInvalid, it->second == mount.target
                                    ? fmt::format("the target {} is given twice", mount.target)
                                    : fmt::format("the targets {} and {} are the same folder",
                                                  it->second, mount.target));
  }
  return {};
}

}  // namespace leat::job
