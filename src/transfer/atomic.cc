#include "transfer/atomic.h"

#include <fmt/format.h>

#include <algorithm>
#include <mutex>
#include <optional>
#include <utility>

#include "base/bytes.h"
#include "base/log.h"
#include "base/thread_pool.h"
#include "transfer/copy.h"
#include "transfer/remove.h"

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
    if (IsUnsettled(listed)) {
      DropLost(listed);
      LEAT_RETURN_IF_ERROR(Settle(ctx));
    }
  } else {
    Manifest now;
    for (const Item& item : listed.items) now.entries.push_back(EntryOf(item));
    LEAT_RETURN_IF_ERROR(Put(now, ctx));
  }
  for (const ManifestEntry& e : published_.entries) visible_.insert(e.path);
  return {};
}

/// What was staged and is gone has taken its place already, or nobody can read it any more.
void AtomicTree::DropLost(const Listed& listed) {
  std::erase_if(published_.entries, [&](ManifestEntry& e) {
    if (e.key.empty() || Staged(e.path) != nullptr) return false;
    const auto it = std::ranges::lower_bound(listed.items, e.path, {}, &Item::path);
    e.key.clear();
    return it == listed.items.end() || it->path != e.path || it->size != e.size ||
           it->version.etag != e.etag;
  });
}

Status AtomicTree::Publish(const std::vector<Item>& source, const std::set<std::string>& staged,
                           const std::map<std::string, store::Version>& uploaded,
                           const CallContext& ctx) {
  LEAT_ASSIGN_OR_RETURN(const Listed now, ListRaw(place_, ctx));
  staged_ = StagedOf(now);
  Manifest next;
  for (const Item& item : source) {
    const bool is_staged = staged.contains(item.path);
    ManifestEntry entry = EntryOf(item);
    if (is_staged) entry.key = std::string(snapshot::kStaged) + item.path;
    if (const auto it = uploaded.find(item.path); it != uploaded.end()) {
      entry.etag = it->second.etag;
      if (is_staged) {
        Item made = item;
        made.version = it->second;
        // (a listing may be late)
        const Item* const listed = Staged(item.path);
        made.in_parts = listed == nullptr || listed->in_parts;
        staged_[item.path] = std::move(made);
      }
    } else {
      const auto plain = std::ranges::lower_bound(now.items, item.path, {}, &Item::path);
      const Item* const at = is_staged ? Staged(item.path)
                             : plain != now.items.end() && plain->path == item.path ? &*plain
                                                                                    : nullptr;
      if (at == nullptr || at->size != item.size) {
        return Fail(
            Errc::kConflict,
            place_.NameOf(item.path) + " was the same and is not any more; nothing was published");
      }
      entry.etag = at->version.etag;
    }
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
    ManifestEntry& e = *moved[i];
    const Item* const staged = Staged(e.path);
    if (staged == nullptr || staged->version.etag != e.etag) {
      return fail(Error(Errc::kConflict,
                        staging.NameOf(e.path) +
                            " is not what the manifest names: another writer is at work here"));
    }
    const auto done = mover_.Move(staging, *staged, place_, ctx);
    if (!done) return fail(done.error());
    e.etag = done->version.etag;
    e.key.clear();
    return true;
  });
  if (failure) return std::unexpected(*failure);
  // (a manifest from which something was dropped has fewer entries than the one that is there)
  LEAT_RETURN_IF_ERROR(Put(next, ctx));
  return RemoveStaged(ctx);
}

Status AtomicTree::RemoveStaged(const CallContext& ctx) {
  std::vector<const Item*> rest;
  for (const auto& [path, item] : staged_) rest.push_back(&item);
  Status out;
  RemoveItems(
      Staging(), rest, 0,
      [&](const Item&, const Status& removed) {
        if (!removed) out = removed;
      },
      ctx);
  staged_.clear();
  if (out && ctx.cancelled()) return Fail(Errc::kCancelled, "interrupted");
  return out;
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
  LEAT_RETURN_IF_ERROR(place.store->Remove(place.KeyOf(snapshot::kManifestKey), ctx));
  return tree.RemoveStaged(ctx);
}

Status ForgetManifestsAbove(const Place& place, const CallContext& ctx) {
  if (place.local()) return {};
  // Of the folder itself its listing has told, where there was one.
  std::string prefix = place.prefix;
  for (bool itself = true;; itself = false) {
    if (!itself || !place.only.empty()) {
      Place above = place;
      above.prefix = prefix;
      above.only.clear();
      const auto there = above.store->Stat(above.KeyOf(snapshot::kManifestKey), "", ctx);
      if (there) {
        LEAT_ASSIGN_OR_RETURN(const Listed listed, ListRaw(above, ctx));
        Note(above.store->UrlOf(prefix) +
             " was published whole (sync --atomic); from here on readers see each change");
        LEAT_RETURN_IF_ERROR(ForgetManifest(above, listed, ctx));
      } else if (there.error().code() != Errc::kNotFound && there.error().code() != Errc::kDenied) {
        return std::unexpected(there.error());
      }
    }
    if (prefix.empty()) return {};
    prefix.pop_back();
    prefix.resize(prefix.rfind('/') == std::string::npos ? 0 : prefix.rfind('/') + 1);
  }
}

}  // namespace leat::transfer
