#include "transfer/atomic.h"

#include <fmt/format.h>

#include <algorithm>
#include <mutex>
#include <optional>
#include <utility>

#include "base/bytes.h"
#include "base/thread_pool.h"
#include "transfer/copy.h"

namespace leat::transfer {
namespace {

using snapshot::Manifest;
using snapshot::ManifestEntry;

constexpr std::size_t kAtOnce = 32;

Result<Listed> ListRaw(const Place& place, const CallContext& ctx) {
  ListRequest request;
  request.raw = true;
  return ListPlace(place, request, ctx);
}

ManifestEntry EntryOf(const Item& item) {
  return {.path = item.path,
          .size = item.size,
          .mtime_ns = item.mtime_ns,
          .etag = item.version.etag,
          .key = {}};
}

std::map<std::string, Item> StagedOf(const Listed& listed) {
  std::map<std::string, Item> out;
  for (const Item& item : listed.control) {
    if (!item.path.starts_with(snapshot::kStaged)) continue;
    Item staged = item;
    staged.path = item.path.substr(snapshot::kStaged.size());
    out[staged.path] = std::move(staged);
  }
  return out;
}

}  // namespace

bool IsUnsettled(const Listed& listed) {
  return listed.manifest &&
         std::ranges::any_of(listed.manifest->entries,
                             [](const ManifestEntry& e) { return !e.key.empty(); });
}

Place AtomicTree::Staging() const {
  Place out = place_;
  out.prefix += snapshot::kStaged;
  return out;
}

const Item* AtomicTree::Staged(const std::string& path) const {
  const auto it = staged_.find(path);
  return it == staged_.end() ? nullptr : &it->second;
}

Status AtomicTree::Put(const Manifest& manifest, const CallContext& ctx) {
  const std::string text = manifest.Encode();
  LEAT_ASSIGN_OR_RETURN(
      [[maybe_unused]] const store::Version version,
      place_.store->Put(place_.KeyOf(snapshot::kManifestKey), AsBytes(text), {}, ctx));
  published_ = manifest;
  return {};
}

Status AtomicTree::Begin(const Listed& listed, const CallContext& ctx) {
  staged_ = StagedOf(listed);
  if (listed.manifest) {
    published_ = *listed.manifest;
    if (IsUnsettled(listed)) LEAT_RETURN_IF_ERROR(Settle(ctx));
  } else {
    Manifest now;
    for (const Item& item : listed.items) now.entries.push_back(EntryOf(item));
    LEAT_RETURN_IF_ERROR(Put(now, ctx));
  }
  for (const ManifestEntry& e : published_.entries) visible_.insert(e.path);
  return {};
}

Status AtomicTree::Publish(const std::vector<Item>& source, const std::set<std::string>& staged,
                           const CallContext& ctx) {
  LEAT_ASSIGN_OR_RETURN(const Listed now, ListRaw(place_, ctx));
  std::map<std::string_view, const Item*> plain;
  for (const Item& item : now.items) plain[item.path] = &item;
  staged_ = StagedOf(now);
  Manifest next;
  for (const Item& item : source) {
    const Item* at = nullptr;
    if (staged.contains(item.path)) {
      at = Staged(item.path);
    } else if (const auto it = plain.find(item.path); it != plain.end()) {
      at = it->second;
    }
    if (at == nullptr || at->size != item.size) {
      return Fail(
          Errc::kCorrupt,
          fmt::format("{}: it was uploaded and is {}; nothing was published",
                      place_.NameOf(item.path),
                      at == nullptr ? std::string("not there")
                                    : fmt::format("{} bytes, not {}", at->size, item.size)));
    }
    ManifestEntry entry = EntryOf(*at);
    entry.path = item.path;
    entry.mtime_ns = item.mtime_ns;
    if (staged.contains(item.path)) entry.key = std::string(snapshot::kStaged) + item.path;
    next.entries.push_back(std::move(entry));
  }
  return Put(next, ctx);
}

Status AtomicTree::Settle(const CallContext& ctx) {
  std::vector<ManifestEntry*> moved;
  Manifest next = published_;
  for (ManifestEntry& e : next.entries) {
    if (!e.key.empty()) moved.push_back(&e);
  }
  const Place staging = Staging();
  std::mutex mutex;
  std::optional<Error> failure;
  const auto fail = [&](const Error& error) {
    const std::lock_guard lock(mutex);
    if (!failure) failure = error;
    return false;
  };
  ParallelFor(moved.size(), kAtOnce, [&](std::size_t i) {
    const Item* const staged = Staged(moved[i]->path);
    if (staged == nullptr) {
      return fail(Error(Errc::kCorrupt, staging.NameOf(moved[i]->path) +
                                            ": the manifest names it, and it is gone"));
    }
    const auto done = mover_.Move(staging, *staged, place_, ctx);
    return done ? true : fail(done.error());
  });
  if (failure) return std::unexpected(*failure);
  if (!moved.empty()) {
    LEAT_ASSIGN_OR_RETURN(const Listed now, ListRaw(place_, ctx));
    for (ManifestEntry* e : moved) {
      const auto it = std::ranges::lower_bound(now.items, e->path, {}, &Item::path);
      if (it == now.items.end() || it->path != e->path || it->size != e->size)
        return Fail(Errc::kConflict, place_.NameOf(e->path) + ": another writer is at work here");
      e->etag = it->version.etag;
      e->key.clear();
    }
    LEAT_RETURN_IF_ERROR(Put(next, ctx));
  }
  std::vector<const Item*> rest;
  for (const auto& [path, item] : staged_) rest.push_back(&item);
  ParallelFor(rest.size(), kAtOnce, [&](std::size_t i) {
    const Status removed = RemoveOne(staging, *rest[i], ctx);
    return removed ? true : fail(removed.error());
  });
  staged_.clear();
  return failure ? Status(std::unexpected(*failure)) : Status();
}

Status ForgetManifest(const Place& place, const Listed& listed, const CallContext& ctx) {
  if (!listed.manifest) return {};
  MemoryBudget budget(64 * kMiB);
  CopyOptions options;
  options.budget = &budget;
  CopyProgress progress;
  Mover mover(options, progress);
  AtomicTree tree(place, mover);
  LEAT_RETURN_IF_ERROR(tree.Begin(listed, ctx));
  return place.store->Remove(place.KeyOf(snapshot::kManifestKey), ctx);
}

}  // namespace leat::transfer
