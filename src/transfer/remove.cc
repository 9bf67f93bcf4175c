#include "transfer/remove.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/concurrency.h"
#include "base/thread_pool.h"

namespace leat::transfer {
namespace {

constexpr std::size_t kAtOnce = 16, kMostAtOnce = 64;
/// More in one request bring nothing, and tell later of what was done.
constexpr std::size_t kMostInOne = 250;
/// Old servers do not tell in their listings what is in parts; smaller ones hardly are.
constexpr std::uint64_t kMayBeInParts = 16 * kMiB;

Status RemoveFile(const Place& place, const Item& item) {
  const std::string path = place.PathOf(item);
  struct stat st;
  if (::lstat(path.c_str(), &st) != 0) return errno == ENOENT ? Status() : FailErrno(errno, path);
  if (item.link ? !S_ISLNK(st.st_mode) : !S_ISREG(st.st_mode)) return {};
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) return FailErrno(errno, path);
  return {};
}

std::vector<Status> RemoveSome(const Place& place, std::span<const Item* const> items,
                               const CallContext& ctx) {
  std::vector<Status> out;
  if (place.local()) {
    for (const Item* item : items) out.push_back(RemoveFile(place, *item));
    return out;
  }
  std::vector<store::Removal> removals;
  for (const Item* item : items) {
    removals.push_back({place.KeyOf(item->path), item->in_parts || item->size >= kMayBeInParts});
  }
  return place.store->RemoveMany(removals, ctx);
}

}  // namespace

void RemoveItems(const Place& place, std::span<const Item* const> items, std::size_t transfers,
                 const std::function<void(const Item&, const Status&)>& done,
                 const CallContext& ctx) {
  std::atomic<std::uint64_t> removed{0};
  Concurrency concurrency(transfers == 0 ? kAtOnce : transfers,
                          transfers == 0 ? kMostAtOnce : transfers, [&] { return removed.load(); });
  std::mutex mutex;
  std::size_t next = 0;  // guarded by mutex
  // Small ones go side by side rather than in one request.
  const std::size_t share = items.size() / kAtOnce + 1;
  const auto take = [&] {
    const std::size_t most =
        std::min({place.local() ? 1 : place.store->max_removals(), kMostInOne, share});
    const std::lock_guard lock(mutex);
    const auto some = items.subspan(next, std::min(most, items.size() - next));
    next += some.size();
    return some;
  };
  ParallelFor(
      items.size(), [&] { return concurrency.Allowed(); },
      [&](std::size_t) {
        if (ctx.cancelled()) return false;
        const auto some = take();
        if (some.empty()) return false;
        const std::vector<Status> outcome = RemoveSome(place, some, ctx);
        const std::lock_guard lock(mutex);
        for (std::size_t i = 0; i < some.size(); ++i) {
          if (!outcome[i] && ctx.cancelled()) continue;
          ++removed;
          done(*some[i], outcome[i]);
        }
        return true;
      });
}

void RemoveEmptyFolders(const Place& place, const Listed& listed) {
  std::set<std::string, std::greater<>> folders(listed.empty_folders.begin(),
                                                listed.empty_folders.end());
  const auto above = [&](const std::string& path) {
    for (std::size_t slash = path.rfind('/'); slash != std::string::npos && slash > 0;
         slash = path.rfind('/', slash - 1)) {
      if (!folders.insert(path.substr(0, slash)).second) break;
    }
  };
  for (const Item& item : listed.items) above(item.path);
  for (const std::string& folder : listed.empty_folders) above(folder);
  for (const std::string& folder : folders) ::rmdir(place.PathOf(folder).c_str());
  ::rmdir(place.folder.c_str());
}

}  // namespace leat::transfer
