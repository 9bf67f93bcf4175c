#include "job/dataset.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <random>
#include <utility>

#include "base/bytes.h"
#include "base/log.h"
#include "dataset/fill.h"
#include "net/url.h"
#include "volume/image.h"

namespace leat::job {
namespace {

/// A folder is the same with and without the slash at its end.
std::string UriOf(const Source& source) {
  std::string uri = source.ForMessages();
  while (source.in_bucket() && uri.ends_with('/') && !uri.ends_with("://")) uri.pop_back();
  return uri;
}

std::string KeyOf(const Source& source) {
  std::string key = source.kind == Source::Kind::kLocal ? source.path : source.key;
  while (key.ends_with('/')) key.pop_back();
  return net::WithoutSignature(key);
}

dataset::FillOptions FillFrom(const MountSpec& spec, const Resolved& resolved,
                              const FillTools& tools) {
  dataset::FillOptions fill;
  fill.content = resolved.content;
  fill.expand = resolved.expand;
  fill.source = spec.source.ForMessages();
  fill.cache = tools.cache;
  fill.budget = tools.budget;
  return fill;
}

}  // namespace

Result<Resolved> ResolveDataset(Remote& remote, const CallContext& ctx,
                                const std::function<void(std::uint64_t)>& on_progress) {
  Resolved out;
  LEAT_ASSIGN_OR_RETURN(out.taken, remote.TakeSnapshot(ctx, on_progress));
  LEAT_ASSIGN_OR_RETURN(out.expand, remote.Expands(out.taken));
  out.content = std::make_shared<const snapshot::Content>(out.taken.index, remote.shared_store());
  return out;
}

dataset::PlaceRequest RequestFor(const MountSpec& spec, Remote& remote, const Resolved* resolved) {
  dataset::PlaceRequest request;
  request.name = spec.name.empty() ? DefaultDatasetName(spec.source) : spec.name;
  request.uri = UriOf(spec.source);
  request.origin = fmt::format("{}\n{}", remote.store().Identity(), KeyOf(spec.source));
  // Pins that a folder cannot have are no part of its name.
  const bool folder_pin = spec.etag.starts_with("mf:");
  if (resolved == nullptr || !resolved->taken.is_folder || folder_pin)
    request.etag = folder_pin ? spec.etag : NormalEtag(spec.etag);
  if (resolved == nullptr || !resolved->taken.is_folder) request.version = spec.version;
  request.newest = spec.locked == nullptr;
  if (resolved == nullptr) return request;
  const snapshot::Snapshot& index = *resolved->content->index;
  request.size = index.total_bytes();
  request.expanded = resolved->expand;
  if (resolved->taken.is_folder) {
    request.digest = index.pin();
    request.bytes = dataset::RoomFor(index);
  } else {
    const store::Version version = resolved->content->VersionOf(0);
    request.found_etag = version.etag;
    request.found_version = version.version_id;
    if (resolved->taken.expected) {
      request.digest = digest::ToText(*resolved->taken.expected);
    }
    if (!resolved->expand) request.bytes = dataset::RoomFor(index);
  }
  const std::string which = resolved->taken.is_folder     ? index.pin()
                            : !request.found_etag.empty() ? NormalEtag(request.found_etag)
                            : !request.found_version.empty()
                                ? request.found_version
                                : fmt::format("{} {}", index.file(0).size, index.file(0).mtime_ns);
  request.identity =
      fmt::format("{}\n{}{}", request.origin, which, resolved->expand ? "\nexpanded" : "");
  return request;
}

Result<dataset::Placed> PlaceShared(const MountSpec& spec, Remote& remote, const Resolved& resolved,
                                    dataset::Storage& storage, const FillTools& tools,
                                    const CallContext& ctx) {
  dataset::PlaceRequest request = RequestFor(spec, remote, &resolved);
  request.fill = [&](const std::string& dir, const CallContext& context) {
    dataset::FillOptions fill = FillFrom(spec, resolved, tools);
    fill.room_name = "what is free in " + storage.data_dir();
    return dataset::Fill(fill, dir, context);
  };
  return storage.Place(request, ctx);
}

Result<Ephemeral> PlaceDynamic(const MountSpec& spec, const Resolved& resolved,
                               const std::string& volumes_dir, const FillTools& tools,
                               const CallContext& ctx) {
  if (volumes_dir.starts_with("/volumes"))
    return Fail(Errc::kNoSpace, "a volume needs a folder to lie in; set LEAT_HOME");
  LEAT_RETURN_IF_ERROR(os::MakeDirs(volumes_dir, 0700));
  dataset::FillOptions fill = FillFrom(spec, resolved, tools);
  Ephemeral out;
  std::string dir;
  if (spec.advisory_size) {
    std::random_device random;
    const std::string base = fmt::format("{}/{:08x}{:08x}", volumes_dir, random(), random());
    // The lock first: who cleans up sees folders without one as left behind.
    LEAT_ASSIGN_OR_RETURN(out.kept, os::Open(base + ".lock", O_RDWR | O_CREAT | O_EXCL));
    // (Who cleans up has it for a moment.)
    LEAT_RETURN_IF_ERROR(os::Flock(out.kept.get(), true, true));
    dir = base;
    out.path = base;
    LEAT_RETURN_IF_ERROR(os::MakeDirs(dir, 0755));
  } else {
    // Where it cannot be enforced, nothing is downloaded for it either.
    const std::uint64_t inodes =
        resolved.expand
            ? std::min<std::uint64_t>(spec.volume_size / 4096, 100'000)
            : resolved.content->index->file_count() + resolved.content->index->directory_count();
    fill.limit_bytes = spec.volume_size;
    fill.limit_name = "its volume (size=)";
    // (Before a file system is made in vain.)
    LEAT_RETURN_IF_ERROR(dataset::CheckRoom(fill));
    auto image = volume::MakeImage(volumes_dir, spec.volume_size, inodes);
    if (!image && image.error().code() == Errc::kDenied) {
      return Fail(Errc::kDenied,
                  fmt::format("{}: {}; size=advisory (--datasetVolumeSize advisory) takes a folder "
                              "whose size is not enforced",
                              fill.source, image.error().message()));
    }
    if (!image) return Fail(std::move(image), fill.source);
    out.kept = std::move(*image);
    dir = fmt::format("/proc/self/fd/{}", out.kept.get());
  }
  if (Status filled = dataset::Fill(fill, dir, ctx); !filled) {
    if (!out.path.empty()) {
      out.kept.Reset();
      CleanVolumes(volumes_dir);
    }
    return std::unexpected(filled.error());
  }
  return out;
}

void CleanVolumes(const std::string& volumes_dir) {
  const auto names = os::ListDir(volumes_dir);
  if (!names) return;
  constexpr std::string_view kLock = ".lock";
  for (const std::string& name : *names) {
    if (!name.ends_with(kLock)) continue;
    const std::string lock = volumes_dir + "/" + name;
    const auto held = os::OpenLocked(lock, O_RDWR);
    if (!held) continue;
    const std::string folder = lock.substr(0, lock.size() - kLock.size());
    // (One that is being made has its lock before it has its folder, and is locked a moment later.)
    struct stat st;
    if (!os::Exists(folder) && ::fstat(held->get(), &st) == 0 && st.st_mtime + 60 > ::time(nullptr))
      continue;
    if (os::RemoveTree(folder)) ::unlink(lock.c_str());
  }
}

}  // namespace leat::job
