#include "job/lock.h"

#include <fmt/format.h>

#include <memory>
#include <utility>

#include "archive/archive_name.h"
#include "base/log.h"
#include "digest/digest.h"
#include "job/rclone_remote.h"

namespace leat::job {
namespace {
constexpr std::string_view kNoVersion = "null";
}  // namespace

std::string LockName(const MountSpec& spec) {
  if (!spec.placed()) return spec.target;
  return spec.name.empty() ? DefaultDatasetName(spec.source) : spec.name;
}

Result<snapshot::LockedSource> LockOf(const MountSpec& spec, Remote& remote,
                                      const SnapshotFile& taken, const std::string& lock_path) {
  snapshot::LockedSource out;
  out.name = LockName(spec);
  out.source = spec.source.ForMessages();
  if (spec.source.in_bucket()) out.endpoint = remote.endpoint();
  out.region = spec.region;
  const snapshot::Snapshot& index = *taken.index;
  out.size = index.total_bytes();
  if (!taken.is_folder) {
    const snapshot::FileInfo file = index.file(0);
    out.etag = file.etag.str();
    out.version_id = taken.version_id.empty() ? std::string(file.version_id) : taken.version_id;
    if (out.version_id == kNoVersion) out.version_id.clear();
    // A generation is both: what the object is, and its name where the bucket keeps old ones.
    if (spec.source.kind == Source::Kind::kGcs) out.version_id = out.etag;
    if (taken.expected) out.digest = digest::ToText(*taken.expected);
    LEAT_ASSIGN_OR_RETURN(const bool expands, remote.Expands(taken));
    if (expands) {
      const std::string_view extension = archive::ArchiveExtension(file.name);
      out.expand = extension.empty() ? "always" : std::string(extension.substr(1));
    }
    if (out.etag.empty() && out.version_id.empty()) {
      Note(
          fmt::format("{}: its server gives neither an etag nor a version; only its size is locked",
                      out.source));
    }
    return out;
  }
  out.digest = index.pin();
  std::vector<snapshot::LockedEntry> entries = snapshot::EntriesOf(index);
  for (snapshot::LockedEntry& entry : entries) {
    // "null" is whatever was stored before there were versions: it names nothing for good.
    if (entry.version_id == kNoVersion) entry.version_id.clear();
  }
  out.files = entries.size();
  LEAT_RETURN_IF_ERROR(snapshot::WriteLockedEntries(lock_path, out.digest, entries));
  return out;
}

Status ApplyLock(const std::string& path, std::vector<MountSpec>& mounts,
                 const config::Environment& env) {
  LEAT_ASSIGN_OR_RETURN(const snapshot::LockFile lock, snapshot::ReadLock(path));
  for (MountSpec& mount : mounts) {
    if (mount.is_bind()) continue;
    const std::string name = LockName(mount);
    const snapshot::LockedSource* found = nullptr;
    for (const snapshot::LockedSource& source : lock.sources) {
      if (source.name == name) found = &source;
    }
    if (found == nullptr) {
      return Fail(Errc::kInvalid,
                  fmt::format("{} says nothing of {} ({}); leat dataset lock writes one that does",
                              path, Printable(name), mount.source.ForMessages()));
    }
    if (found->source != mount.source.ForMessages()) {
      Note(fmt::format("{}: {} is locked to {}", path, Printable(name), Printable(found->source)));
      LEAT_ASSIGN_OR_RETURN(mount.source, ParseSource(found->source));
      LEAT_RETURN_IF_ERROR(ResolveRemote(mount.source, env));
    }
    const auto refuse = [&](std::string_view what, std::string_view asked,
                            std::string_view locked) {
      return Fail(Errc::kConflict,
                  fmt::format("{}: {} \"{}\" was asked for, but {} has locked \"{}\"",
                              mount.source.ForMessages(), what, asked, path, locked));
    };
    const std::string& pin = found->files ? found->digest : found->etag;
    if (!mount.etag.empty() && NormalEtag(mount.etag) != NormalEtag(pin) &&
        mount.etag.starts_with("mf:") == found->files.has_value()) {
      return refuse("etag", mount.etag, pin);
    }
    if (!mount.version.empty() && !found->files && mount.version != found->version_id)
      return refuse("version", mount.version, found->version_id);
    const Source::Kind kind = mount.source.kind;
    if (!found->endpoint.empty() && (kind == Source::Kind::kS3 || kind == Source::Kind::kGcs))
      mount.endpoint = found->endpoint;
    if (!found->region.empty()) mount.region = found->region;
    // What was made of it belongs to what it was.
    if (!found->files) mount.expand = found->expand.empty() ? Expand::kNever : Expand::kAlways;
    mount.locked = std::make_shared<const Locked>(*found, path);
  }
  return {};
}

}  // namespace leat::job
