#include "job/rclone_remote.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <string>

#include "base/log.h"
#include "net/url.h"

namespace leat::job {
namespace {

constexpr int kAliases = 8;  // deep at most

Result<std::shared_ptr<const config::RcloneRemote>> Section(std::string_view name,
                                                            const config::Environment& env) {
  LEAT_ASSIGN_OR_RETURN(const config::RcloneConfig config, config::RcloneConfig::Load(env));
  LEAT_ASSIGN_OR_RETURN(config::RcloneRemote remote, config.Find(name, env));
  if (!config.note().empty()) NoteOnce(config.file(), config.note());
  return std::make_shared<const config::RcloneRemote>(std::move(remote));
}

Result<Source::Kind> KindOf(const config::RcloneRemote& remote) {
  if (remote.type == "s3") return Source::Kind::kS3;
  if (remote.type == "swift") return Source::Kind::kSwift;
  if (remote.type == "google cloud storage") return Source::Kind::kGcs;
  if (remote.type == "http") return Source::Kind::kHttp;
  if (remote.type == "local") return Source::Kind::kLocal;
  return Fail(Errc::kUnsupported,
              fmt::format("remote {}: its type is {}, which leat does not speak (swift, s3, google "
                          "cloud storage, http, local and alias are known)",
                          remote.name, Printable(remote.type)));
}

void SplitBucket(Source& source, std::string_view path) {
  while (path.starts_with('/')) path.remove_prefix(1);
  const std::size_t slash = std::min(path.find('/'), path.size());
  source.bucket = path.substr(0, slash);
  source.key = path.substr(std::min(slash + 1, path.size()));
}

}  // namespace

Status ResolveRemote(Source& source, const config::Environment& env) {
  const std::string text = source.text;
  for (int depth = 0; source.kind == Source::Kind::kRemote; ++depth) {
    if (depth == kAliases)
      return Fail(Errc::kInvalid, fmt::format("{}: aliases lead in a circle", Printable(text)));
    LEAT_ASSIGN_OR_RETURN(auto remote, Section(source.bucket, env));
    const std::string path = source.key;
    if (remote->type == "alias") {
      const auto target = remote->Get("remote");
      if (!target)
        return Fail(Errc::kInvalid,
                    fmt::format("remote {}: the alias has no remote", remote->name));
      const bool joined = target->ends_with(':') || target->ends_with('/') || path.empty();
      LEAT_ASSIGN_OR_RETURN(source, ParseSource(*target + (joined ? "" : "/") + path));
      continue;
    }
    LEAT_ASSIGN_OR_RETURN(source.kind, KindOf(*remote));
    if (source.kind == Source::Kind::kHttp) {
      const auto url = remote->Get("url");
      if (!url) return Fail(Errc::kInvalid, fmt::format("remote {} has no url", remote->name));
      // (a path below a remote is a name, not a piece of a URL)
      LEAT_ASSIGN_OR_RETURN(source, ParseSource(*url + (url->ends_with('/') ? "" : "/") +
                                                net::PercentEncode(path, true)));
    } else if (source.kind == Source::Kind::kLocal) {
      source.path = path.empty() ? "." : path;
    } else {
      SplitBucket(source, path);
    }
    source.remote = std::move(remote);
  }
  source.text = text;
  return {};
}

Status UseRemote(Source& source, std::string_view name, const config::Environment& env) {
  LEAT_ASSIGN_OR_RETURN(auto remote, Section(name, env));
  LEAT_ASSIGN_OR_RETURN(const Source::Kind kind, KindOf(*remote));
  if (kind != source.kind) {
    return Fail(Errc::kInvalid, fmt::format("{}: the remote {} is of type {}", source.ForMessages(),
                                            remote->name, remote->type));
  }
  source.remote = std::move(remote);
  return {};
}

}  // namespace leat::job
