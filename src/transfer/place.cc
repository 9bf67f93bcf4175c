#include "transfer/place.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <mutex>
#include <utility>

#include "base/log.h"
#include "base/thread_pool.h"
#include "net/url.h"
#include "os/file.h"
#include "snapshot/builder.h"
#include "store/decorators.h"

namespace leat::transfer {
namespace {

/// What belongs to the manifest of this folder or of one in it is nobody's file: elsewhere it would
/// be the manifest of something else.
bool IsControl(std::string_view path) {
  return path.starts_with(snapshot::kControl) ||
         path.find("/" + std::string(snapshot::kControl)) != path.npos;
}

constexpr int kDeepest = 200;

std::int64_t MtimeOf(const struct stat& st) {
  return st.st_mtim.tv_sec * 1'000'000'000LL + st.st_mtim.tv_nsec;
}

class Walk {
 public:
  Walk(const Place& place, const ListRequest& request, const CallContext& ctx, Listed& out)
      : place_(place), request_(request), ctx_(ctx), out_(out) {}

  Status Folder(os::UniqueFd dir, const std::string& path, int depth) {
    if (ctx_.cancelled()) return Fail(Errc::kCancelled, "cancelled");
    struct stat self;
    if (::fstat(dir.get(), &self) != 0) return FailErrno(errno, place_.PathOf(path));
    // A link may lead to a folder that it lies in.
    const std::pair id(self.st_dev, self.st_ino);
    if (std::ranges::find(above_, id) != above_.end()) return FailErrno(ELOOP, place_.PathOf(path));
    above_.push_back(id);
    const os::Cleanup leave([this] { above_.pop_back(); });
    DIR* const stream = ::fdopendir(dir.get());
    if (stream == nullptr) return FailErrno(errno, place_.PathOf(path));
    dir.Release();
    const std::unique_ptr<DIR, int (*)(DIR*)> closer(stream, ::closedir);
    const int fd = ::dirfd(stream);
    bool any = false;
    for (;;) {
      errno = 0;
      const dirent* const entry = ::readdir(stream);
      if (entry == nullptr) break;
      const std::string_view name = entry->d_name;
      if (name == "." || name == ".." || name.starts_with(kTemporary)) continue;
      any = true;
      Entry(fd, path.empty() ? std::string(name) : path + "/" + std::string(name), entry->d_name,
            depth);
    }
    if (errno != 0)
      out_.failed.push_back(fmt::format("{}: {}", place_.PathOf(path), std::strerror(errno)));
    if (!any && !path.empty()) out_.empty_folders.push_back(path);
    return {};
  }

 private:
  void Entry(int fd, std::string path, const char* name, int depth) {
    struct stat st;
    if (::fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
      if (errno != ENOENT) Failed(path, errno);
      return;
    }
    if (S_ISLNK(st.st_mode)) {
      if (request_.links == Links::kSkip) {
        ++out_.skipped_links;
        return;
      }
      if (request_.links == Links::kKeep) {
        Add({.path = path + std::string(kLinkSuffix),
             .size = static_cast<std::uint64_t>(st.st_size),
             .mtime_ns = MtimeOf(st),
             .link = true});
        return;
      }
      if (::fstatat(fd, name, &st, 0) != 0) {
        Failed(path, errno);
        return;
      }
    }
    if (S_ISDIR(st.st_mode)) {
      if (depth == kDeepest) return Failed(path, ELOOP);
      const int follow = request_.links == Links::kFollow ? 0 : O_NOFOLLOW;
      os::UniqueFd below(::openat(fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | follow));
      if (!below) return Failed(path, errno);
      if (const Status walked = Folder(std::move(below), path, depth + 1); !walked)
        out_.failed.push_back(walked.error().message());
      return;
    }
    if (!S_ISREG(st.st_mode)) {
      ++out_.skipped_special;
      return;
    }
    Add({.path = std::move(path),
         .size = static_cast<std::uint64_t>(st.st_size),
         .mtime_ns = MtimeOf(st)});
  }
  void Failed(const std::string& path, int error) {
    out_.failed.push_back(fmt::format("{}: {}", place_.PathOf(path), std::strerror(error)));
  }
  void Add(Item item) {
    if (IsControl(item.path)) return;
    if (request_.filter != nullptr && !request_.filter->Means(item.path, item.size)) return;
    out_.items.push_back(std::move(item));
    if (request_.on_progress && out_.items.size() % 1000 == 0)
      request_.on_progress(out_.items.size());
  }

  const Place& place_;
  const ListRequest& request_;
  const CallContext& ctx_;
  Listed& out_;
  std::vector<std::pair<dev_t, ino_t>> above_;  // the folders that this one lies in
};

Status ListFolder(const Place& place, const ListRequest& request, const CallContext& ctx,
                  Listed& out) {
  if (!place.only.empty()) {
    struct stat st;
    if (::stat(place.PathOf(place.only).c_str(), &st) != 0)
      return FailErrno(errno, place.PathOf(place.only));
    if (!S_ISREG(st.st_mode))
      return Fail(Errc::kInvalid, place.PathOf(place.only) + " is not a regular file");
    out.items.push_back({.path = place.only,
                         .size = static_cast<std::uint64_t>(st.st_size),
                         .mtime_ns = MtimeOf(st)});
    return {};
  }
  os::UniqueFd dir(::open(place.folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!dir) return FailErrno(errno, place.folder);
  LEAT_RETURN_IF_ERROR(Walk(place, request, ctx, out).Folder(std::move(dir), "", 0));
  std::ranges::sort(out.items, {}, &Item::path);
  return {};
}

Item ItemOf(std::string path, const store::ObjectInfo& info) {
  Item item{.path = std::move(path),
            .size = info.size,
            .version = info.version,
            .in_parts = info.in_parts,
            .expected = info.expected};
  if (info.modified) {
    item.mtime_ns =
        std::chrono::duration_cast<std::chrono::nanoseconds>(info.modified->time_since_epoch())
            .count();
  }
  return item;
}

/// The manifest's files in place of what lies there.
void TakeManifest(const Place& place, const ListRequest& request, Listed& out) {
  std::vector<Item> items;
  for (const snapshot::ManifestEntry& e : out.manifest->entries) {
    if (request.filter != nullptr && !request.filter->Means(e.path, e.size)) continue;
    Item item{.path = e.path, .size = e.size, .mtime_ns = e.mtime_ns};
    // What else is known of the object, if it still is this one.
    const std::vector<Item>& there = e.key.empty() ? out.items : out.control;
    const auto it =
        std::ranges::lower_bound(there, e.key.empty() ? e.path : e.key, {}, &Item::path);
    if (it != there.end() && it->version.etag == e.etag && it->size == e.size) {
      item = *it;
      item.path = e.path;
    }
    if (it == there.end() || it->path != (e.key.empty() ? e.path : e.key)) {
      out.failed.push_back(place.NameOf(e.path) +
                           ": the folder's manifest names it, and it is not there: another program "
                           "has removed it");
      continue;
    }
    item.version.etag = e.etag;
    items.push_back(std::move(item));
  }
  out.items = std::move(items);
  if (auto moved = out.manifest->Moved(place.prefix); !moved.empty())
    out.store = store::MakeMapped(place.store, std::move(moved), true);
}

/// What a server that cannot be listed has of the names that are asked for.
Status LookUp(const Place& place, const ListRequest& request,
              const std::set<std::string, std::less<>>& names, const CallContext& ctx,
              Listed& out) {
  constexpr std::size_t kAtOnce = 32;
  const std::vector<std::string> paths(names.begin(), names.end());
  std::map<std::string, std::string, std::less<>> encoded;
  for (const std::string& path : paths) {
    if (std::string url = net::PercentEncode(path, true); url != path)
      encoded.emplace(place.KeyOf(path), place.KeyOf(url));
  }
  out.store = store::MakeMapped(place.store, std::move(encoded));
  std::mutex mutex;
  ParallelFor(paths.size(), kAtOnce, [&](std::size_t i) {
    if (ctx.cancelled()) return false;
    auto info = out.store->Stat(place.KeyOf(paths[i]), "", ctx);
    const std::lock_guard lock(mutex);
    if (!info) {
      out.failed.push_back(info.error().message());
    } else if (request.filter->Means(paths[i], info->size)) {
      out.items.push_back(ItemOf(paths[i], *info));
      if (request.on_progress) request.on_progress(out.items.size());
    }
    return true;
  });
  std::ranges::sort(out.items, {}, &Item::path);
  std::ranges::sort(out.failed);
  return ctx.cancelled() ? Status(Fail(Errc::kCancelled, "interrupted")) : Status();
}

Status ListStore(const Place& place, const ListRequest& request, const CallContext& ctx,
                 Listed& out) {
  if (!place.only.empty()) {
    LEAT_ASSIGN_OR_RETURN(const store::ObjectInfo info,
                          place.store->Stat(place.KeyOf(place.only), "", ctx));
    out.items.push_back(ItemOf(place.only, info));
    return {};
  }
  if (request.filter != nullptr && request.filter->files() && !place.store->capabilities().list)
    return LookUp(place, request, *request.filter->files(), ctx, out);
  snapshot::ListingOptions options;
  options.on_progress = request.on_progress;
  LEAT_RETURN_IF_ERROR(snapshot::ListAll(
      *place.store, place.prefix, options, ctx, [&](const store::ObjectInfo& info) -> Status {
        std::string path = info.key.substr(place.prefix.size());
        // A folder's marker is nobody's file; what has contents is more than a marker.
        const bool marker = info.size == 0 && (path.empty() || path.ends_with('/'));
        if (marker && !request.markers) return {};
        if (IsControl(path)) {
          out.control.push_back(ItemOf(std::move(path), info));
          return {};
        }
        if (request.filter != nullptr && !request.filter->Means(path, info.size)) return {};
        out.items.push_back(ItemOf(std::move(path), info));
        return {};
      }));
  std::ranges::sort(out.items, {}, &Item::path);
  std::ranges::sort(out.control, {}, &Item::path);
  if (!std::ranges::binary_search(out.control, snapshot::kManifestKey, {}, &Item::path)) return {};
  if (request.any_manifest) return {};
  LEAT_ASSIGN_OR_RETURN(out.manifest, snapshot::ReadManifest(*place.store, place.prefix, ctx));
  if (!request.raw) TakeManifest(place, request, out);
  return {};
}

}  // namespace

std::string Place::PathOf(const Item& item) const {
  std::string path = PathOf(item.path);
  if (item.link) path.resize(path.size() - kLinkSuffix.size());
  return path;
}

std::string Place::NameOf(std::string_view path) const {
  return local() ? Printable(PathOf(path)) : store->UrlOf(KeyOf(path));
}

const std::string& Place::NameFor(const Item& item) const {
  return only.empty() ? item.path : only;
}

std::string Place::bucket() const {
  const std::string_view name = store->Describe();
  return std::string(name.substr(name.find("://") + 3));
}

bool Place::SameServer(const Place& other) const {
  if (local() || other.local()) return false;
  const auto server = [](const store::ObjectStore& s) {
    const std::string_view whole = s.Identity();
    return whole.substr(0, whole.rfind(' '));
  };
  const auto scheme = [](const store::ObjectStore& s) {
    return s.Describe().substr(0, s.Describe().find(':'));
  };
  // One's bucket of some name need not be the other's.
  if (account != other.account) return false;
  return server(*store) == server(*other.store) && scheme(*store) == scheme(*other.store);
}

Result<Listed> ListPlace(const Place& place, const ListRequest& request, const CallContext& ctx) {
  Listed out;
  LEAT_RETURN_IF_ERROR(place.local() ? ListFolder(place, request, ctx, out)
                                     : ListStore(place, request, ctx, out));
  return out;
}

}  // namespace leat::transfer
