#include "transfer/copy.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <functional>
#include <mutex>
#include <set>

#include "base/bytes.h"
#include "base/concurrency.h"
#include "base/log.h"
#include "base/thread_pool.h"
#include "os/file.h"
#include "transfer/atomic.h"
#include "transfer/mover.h"
#include "transfer/remove.h"
#include "transfer/upload.h"
#include "transfer/verify.h"

namespace leat::transfer {
namespace {

constexpr std::size_t kTransfers = 16, kMostTransfers = 128;
/// A request costs as much as so many bytes.
constexpr std::uint64_t kRequestInBytes = 64 * kKiB;
constexpr std::size_t kKeptErrors = 1000;
/// Up to this size a local file is hashed rather than an object's metadata asked for.
constexpr std::uint64_t kCheapToHash = 256 * kKiB;

struct Pair {
  const Item* source = nullptr;
  const Item* target = nullptr;
};

class Copier {
 public:
  Copier(const CopyOptions& options, CopyProgress& progress, const CallContext& ctx)
      : options_(options),
        progress_(progress),
        ctx_(ctx),
        mover_(options_, progress),
        concurrency_(options_.transfers == 0 ? kTransfers : options_.transfers,
                     options_.transfers == 0 ? kMostTransfers : options_.transfers,
                     [this] { return progress_.bytes + items_done_ * kRequestInBytes; }),
        tree_(options_.to, mover_) {}

  Result<CopyReport> Run() {
    const std::int64_t began = ::time(nullptr);
    LEAT_RETURN_IF_ERROR(List(true));
    if (!options_.dry_run && IsUnsettled(to_)) {
      // Afterwards other objects lie there than those that were just listed.
      LEAT_RETURN_IF_ERROR(AtomicTree(options_.to, mover_).Begin(to_, ctx_));
      pairs_.clear();
      extraneous_.clear();
      report_ = {};
      LEAT_RETURN_IF_ERROR(List(true));
    }
    LEAT_RETURN_IF_ERROR(PlanDeletions());
    if (options_.extraneous == Extraneous::kDeleteBefore) {
      LEAT_RETURN_IF_ERROR(BeginWriting());
      Delete();
    }
    if (no_bucket_ && !options_.dry_run && !from_.items.empty())
      LEAT_RETURN_IF_ERROR(options_.to.store->MakeBucket(ctx_));
    if (!options_.to.local() && options_.to.only.empty()) mover_.BucketIsThere(options_.to);
    LEAT_RETURN_IF_ERROR(BeginWriting());
    Transfer();
    if (options_.atomic && !options_.dry_run) {
      if (report_.errors > 0) {
        NoteFailure("", "nothing was published, because not everything was copied");
      } else if (!ctx_.cancelled()) {
        LEAT_RETURN_IF_ERROR(tree_.Publish(from_.items, staged_, uploaded_, ctx_));
        LEAT_RETURN_IF_ERROR(tree_.Settle(ctx_));
      }
    }
    if (options_.extraneous == Extraneous::kDeleteDuring ||
        options_.extraneous == Extraneous::kDeleteAfter) {
      if (report_.errors == 0) {
        Delete();
      } else if (!extraneous_.empty()) {
        NoteFailure("", "nothing was deleted, because not everything was copied");
      }
    }
    // (what failed is gone on with by the next)
    if (!options_.to.local() && !options_.dry_run && report_.errors == 0 && !ctx_.cancelled())
      AbortForgotten(options_.state_dir, *options_.to.store, options_.to.prefix, began, ctx_);
    if (ctx_.cancelled()) return Fail(Errc::kCancelled, "interrupted");
    return std::move(report_);
  }

  Result<CheckReport> RunCheck() {
    LEAT_RETURN_IF_ERROR(List(false));
    CheckReport out;
    std::mutex mutex;
    ForEach(pairs_.size(), [&](std::size_t i) {
      const Pair& pair = pairs_[i];
      ++progress_.checked;
      if (pair.target == nullptr) {
        const std::lock_guard lock(mutex);
        out.missing_at_target.push_back(pair.source->path);
        return true;
      }
      bool by_size = false;
      const Result<bool> same = SameDigest(*pair.source, *pair.target, options_.to, true, &by_size);
      const std::lock_guard lock(mutex);
      if (!same) {
        out.failed.emplace_back(pair.source->path, same.error().message());
      } else {
        (*same ? out.same : out.differ).push_back(pair.source->path);
        if (by_size && *same) ++out.by_size_alone;
      }
      return true;
    });
    for (const Item* item : extraneous_) out.missing_at_source.push_back(item->path);
    for (const auto& [path, why] : report_.failed) out.failed.emplace_back(path, why);
    for (auto* list : {&out.same, &out.differ, &out.missing_at_target}) std::ranges::sort(*list);
    std::ranges::sort(out.failed);
    if (ctx_.cancelled()) return Fail(Errc::kCancelled, "interrupted");
    return out;
  }

 private:
  /// Calls body for 0 <= i < count until it returns false.
  void ForEach(std::size_t count, const std::function<bool(std::size_t)>& body) {
    ParallelFor(
        count, [this] { return concurrency_.Allowed(); },
        [&](std::size_t i) {
          if (ctx_.cancelled()) return false;
          const bool go_on = body(i);
          ++items_done_;
          return go_on;
        });
  }

  void NoteFailure(const std::string& path, const std::string& why) {
    const std::lock_guard lock(mutex_);
    ++report_.errors;
    ++progress_.errors;
    if (report_.failed.size() < kKeptErrors) report_.failed.emplace_back(path, why);
  }

  /// The target is not a plain tree any more, or one whose changes nobody sees before they are
  /// published.
  Status BeginWriting() {
    if (options_.dry_run || options_.to.local() || begun_) return {};
    begun_ = true;
    LEAT_RETURN_IF_ERROR(ForgetManifestsAbove(options_.to, ctx_));
    if (options_.backup) {
      // (its own manifest, too)
      Place inside = *options_.backup;
      inside.only = "-";
      LEAT_RETURN_IF_ERROR(ForgetManifestsAbove(inside, ctx_));
    }
    if (options_.atomic) return tree_.Begin(to_, ctx_);
    if (!to_.manifest) return {};
    Note(fmt::format("{} was published whole (sync --atomic); from here on readers see each change",
                     options_.to.url));
    return ForgetManifest(options_.to, to_, ctx_);
  }

  /// `writing`: what lies at the target counts, whatever readers see.
  Status List(bool writing) {
    // Sizes are the source's: what they leave out is left alone at the target.
    Filter paths = options_.filter;
    paths.SetSizes(0, UINT64_MAX);
    ListRequest request{.filter = &paths, .links = options_.links};
    request.on_progress = [this](std::uint64_t n) { progress_.listed = n; };
    LEAT_ASSIGN_OR_RETURN(from_, ListPlace(options_.from, request, ctx_));
    // (the server's own copies know nothing of the manifest)
    if (from_.store != nullptr) {
      options_.from.store = from_.store;
      options_.from.account += " by its manifest";
    }
    report_.skipped_links = from_.skipped_links;
    report_.skipped_special = from_.skipped_special;
    for (const std::string& why : from_.failed) NoteFailure("", why);
    // Through a link at the target nothing is changed or deleted.
    if (request.links == Links::kFollow) request.links = Links::kSkip;
    request.raw = writing;
    // What is not there yet has no files.
    auto to = ListPlace(options_.to, request, ctx_);
    if (to) {
      to_ = *std::move(to);
      if (to_.store != nullptr) options_.to.store = to_.store;
    } else if (to.error().code() != Errc::kNotFound) {
      return std::unexpected(std::move(to).error());
    } else if (!options_.to.local() && options_.to.only.empty()) {
      no_bucket_ = true;
    }
    for (const std::string& why : to_.failed) NoteFailure("", why);
    if (!options_.from.only.empty()) {
      pairs_.push_back({&from_.items[0], to_.items.empty() ? nullptr : &to_.items[0]});
      return {};
    }
    std::set<std::string> taken;  // names of this machine that the source's files will have
    if (options_.links == Links::kKeep && options_.to.local()) {
      for (Item item : from_.items) {
        item.link = item.path.ends_with(kLinkSuffix);
        taken.insert(options_.to.PathOf(item));
      }
    }
    const auto extraneous = [&](const Item& item) {
      if (!taken.contains(options_.to.PathOf(item))) extraneous_.push_back(&item);
    };
    auto target = to_.items.begin();
    for (const Item& item : from_.items) {
      while (target != to_.items.end() && target->path < item.path) extraneous(*target++);
      const bool both = target != to_.items.end() && target->path == item.path;
      if (options_.filter.MeansSize(item.size))
        pairs_.push_back({&item, both ? &*target : nullptr});
      if (both) ++target;
    }
    while (target != to_.items.end()) extraneous(*target++);
    return {};
  }

  Status PlanDeletions() {
    if (options_.extraneous == Extraneous::kKeep || extraneous_.empty()) return {};
    if (from_.items.empty() && !options_.delete_everything) {
      return Fail(Errc::kInvalid,
                  fmt::format("{} has no files: all {} of {} would be deleted; if that is meant, "
                              "say --delete-everything",
                              options_.from.url, FormatCount(extraneous_.size()), options_.to.url));
    }
    if (!from_.failed.empty()) {
      return Fail(Errc::kUnavailable,
                  fmt::format("{}: not everything could be listed, so nothing is deleted ({})",
                              options_.from.url, from_.failed.front()));
    }
    if (extraneous_.size() > options_.max_delete) {
      return Fail(
          Errc::kInvalid,
          fmt::format("{} files of {} would be deleted, and --max-delete allows {}",
                      FormatCount(extraneous_.size()), options_.to.url, options_.max_delete));
    }
    return {};
  }

  // ---------------------------------------------------------------- the same or not

  /// By digests, without moving data. `deep`: whatever reading it costs.
  Result<bool> SameDigest(const Item& a, const Item& b, const Place& to, bool deep, bool* by_size) {
    if (by_size != nullptr) *by_size = false;
    if (a.size != b.size) return false;
    if (a.size == 0) return true;
    const bool a_local = options_.from.local(), b_local = to.local();
    constexpr digest::Kind kMd5 = digest::Kind::kMd5;
    const auto hash_of = [&](const std::string& path, digest::Kind kind) -> Result<std::string> {
      LEAT_ASSIGN_OR_RETURN(const os::UniqueFd fd, os::Open(path, O_RDONLY));
      auto hash = HashFile(fd.get(), a.size, kind, ctx_);
      if (!hash) return Fail(std::move(hash), path);
      return hash;
    };
    const bool can_hash = digest::CanHash(kMd5) && !a.link && !b.link;
    if (a_local && b_local && deep && can_hash) {
      LEAT_ASSIGN_OR_RETURN(const std::string one, hash_of(options_.from.PathOf(a.path), kMd5));
      LEAT_ASSIGN_OR_RETURN(const std::string two, hash_of(to.PathOf(b.path), kMd5));
      return one == two;
    }
    if (!a_local && !b_local) {
      // (two stores may make the same etag of other parts only from the same bytes)
      if (a.version.etag == b.version.etag && !a.version.etag.empty()) return true;
      const auto one = DigestOf(a), two = DigestOf(b);
      if (one && two && one->kind == two->kind) return one->value == two->value;
    } else if (a_local != b_local && can_hash && (deep || a.size <= kCheapToHash)) {
      const Item& object = a_local ? b : a;
      const std::string path = a_local ? options_.from.PathOf(a.path) : to.PathOf(b.path);
      if (const auto told = DigestOf(object)) {
        LEAT_ASSIGN_OR_RETURN(const std::string own, hash_of(path, told->kind));
        if (own == told->value) return true;
        if (object.expected) return false;
        // An etag may look like a digest and be none: of encrypted objects, of web servers.
        const Place& place = a_local ? to : options_.from;
        LEAT_ASSIGN_OR_RETURN(
            const store::ObjectInfo info,
            place.store->Stat(place.KeyOf(object.path), object.version.version_id, ctx_));
        if (info.expected) {
          if (info.expected->kind == told->kind) return false;
          LEAT_ASSIGN_OR_RETURN(const std::string digest, hash_of(path, info.expected->kind));
          return digest == info.expected->value;
        }
      }
      if (object.in_parts) {
        const Place& place = a_local ? to : options_.from;
        LEAT_ASSIGN_OR_RETURN(const os::UniqueFd fd, os::Open(path, O_RDONLY));
        LEAT_ASSIGN_OR_RETURN(const auto parts, PartsOf(place, object, ctx_));
        auto same = HasParts(
            [&](std::uint64_t offset, std::uint64_t length, digest::Hasher& hasher) {
              return HashRange(fd.get(), offset, length, hasher, ctx_);
            },
            parts, place, object, 2, ctx_);
        if (!same) return Fail(std::move(same), path);
        if (*same) return **same;
      }
    }
    if (by_size != nullptr) *by_size = true;
    if (deep) return true;
    return Fail(Errc::kUnsupported, "no digest is known");
  }

  /// A file's own time; of an object what its metadata says, else when it was stored.
  Result<std::int64_t> TimeOf(const Place& place, const Item& item) {
    if (place.local()) return item.mtime_ns;
    LEAT_ASSIGN_OR_RETURN(const store::ObjectInfo info,
                          place.store->Stat(place.KeyOf(item.path), item.version.version_id, ctx_));
    return store::MtimeOf(info.metadata).value_or(item.mtime_ns);
  }

  static bool SameTime(std::int64_t a, std::int64_t b) {
    constexpr std::int64_t kSecond = 1'000'000'000;
    // Some stores and tools keep whole seconds.
    if (a % kSecond == 0 || b % kSecond == 0) return a / kSecond == b / kSecond;
    return std::llabs(a - b) < 1000;
  }

  /// `b` lies at `to`.
  Result<bool> Same(const Item& a, const Item& b, const Place& to) {
    if (a.size != b.size) return false;
    if (options_.compare == Compare::kSizeOnly) return true;
    if (options_.compare == Compare::kChecksum) return SameDigest(a, b, to, true, nullptr);
    const Result<bool> cheap = SameDigest(a, b, to, false, nullptr);
    if (cheap || cheap.error().code() != Errc::kUnsupported) return cheap;
    LEAT_ASSIGN_OR_RETURN(const std::int64_t one, TimeOf(options_.from, a));
    LEAT_ASSIGN_OR_RETURN(const std::int64_t two, TimeOf(to, b));
    if (SameTime(one, two)) return true;
    bool by_size = false;
    LEAT_ASSIGN_OR_RETURN(const bool same, SameDigest(a, b, to, true, &by_size));
    return same && !by_size;
  }

  // ---------------------------------------------------------------- moving

  void Transfer() {
    std::vector<const Pair*> order;
    for (const Pair& pair : pairs_) order.push_back(&pair);
    // The largest first: they take longest. (Of the small ones the order does not matter.)
    std::ranges::stable_sort(order, [](const Pair* a, const Pair* b) {
      constexpr std::uint64_t kLarge = 16 * kMiB;
      return std::max(a->source->size, kLarge) > std::max(b->source->size, kLarge);
    });
    ForEach(order.size(), [&](std::size_t i) {
      One(*order[i]);
      return true;
    });
  }

  void One(const Pair& pair) {
    const Item& item = *pair.source;
    const std::string name = options_.from.NameOf(item.path);
    if (pair.target != nullptr) {
      bool keep = options_.ignore_existing;
      if (!keep) {
        const Result<bool> same = Same(item, *pair.target, options_.to);
        ++progress_.checked;
        if (!same) return NoteFailure(name, same.error().message());
        if (*same) {
          const std::lock_guard lock(mutex_);
          ++report_.same;
          return;
        }
        if (options_.immutable) {
          return NoteFailure(name,
                             options_.to.NameOf(item.path) +
                                 " differs from the source, and --immutable forbids to change it");
        }
        if (options_.update) {
          const auto one = TimeOf(options_.from, item), two = TimeOf(options_.to, *pair.target);
          if (!one || !two) return NoteFailure(name, (one ? two : one).error().message());
          keep = *two > *one && !SameTime(*one, *two);
        }
      }
      if (keep) {
        const std::lock_guard lock(mutex_);
        ++report_.kept;
        return;
      }
    }
    progress_.files_total += 1;
    progress_.bytes_total += item.size;
    if (options_.dry_run) {
      const std::lock_guard lock(mutex_);
      ++report_.files;
      report_.bytes += item.size;
      if (options_.on_file) options_.on_file("copied", item.path);
      return;
    }
    if (pair.target != nullptr && options_.backup) {
      if (const Status done = Backup(*pair.target); !done)
        return NoteFailure(name, done.error().message());
    }
    if (options_.atomic && tree_.Visible(item.path)) {
      const Item* const staged = tree_.Staged(item.path);
      const Result<bool> same =
          staged == nullptr ? Result<bool>(false) : Same(item, *staged, tree_.Staging());
      {
        const std::lock_guard lock(mutex_);
        staged_.insert(item.path);
      }
      if (same && *same) {
        ++progress_.files;
        const std::lock_guard lock(mutex_);
        ++report_.same;
        return;
      }
    }
    const bool replaces = options_.atomic && tree_.Visible(item.path);
    const Result<Moved> moved =
        mover_.Move(options_.from, item, replaces ? tree_.Staging() : options_.to, ctx_);
    if (!moved) {
      if (moved.error().code() != Errc::kCancelled) NoteFailure(name, moved.error().message());
      return;
    }
    ++progress_.files;
    const std::lock_guard lock(mutex_);
    ++report_.files;
    report_.bytes += moved->bytes;
    report_.resumed_bytes += moved->resumed;
    if (options_.atomic) uploaded_[item.path] = moved->version;
    if (moved->verified_by.empty()) {
      ++report_.unverified;
    } else {
      ++report_.verified[moved->verified_by];
    }
    if (options_.on_file) options_.on_file("copied", item.path);
  }

  Status Backup(const Item& item) {
    LEAT_ASSIGN_OR_RETURN(const Moved moved,
                          mover_.Move(options_.to, item, *options_.backup, ctx_));
    progress_.bytes -= moved.bytes;
    if (options_.on_file) options_.on_file("backed up", item.path);
    return {};
  }

  void Delete() {
    std::vector<const Item*> going = extraneous_;
    const auto note = [&](const Item& item, const Status& done) {
      if (!done) return NoteFailure(options_.to.NameOf(item.path), done.error().message());
      const std::lock_guard lock(mutex_);
      ++report_.deleted;
      if (options_.on_file) options_.on_file("deleted", item.path);
    };
    if (options_.dry_run) {
      for (const Item* item : going) note(*item, {});
      return;
    }
    if (options_.backup) {
      going.clear();
      ForEach(extraneous_.size(), [&](std::size_t i) {
        const Status kept = Backup(*extraneous_[i]);
        if (!kept) {
          note(*extraneous_[i], kept);
        } else {
          const std::lock_guard lock(mutex_);
          going.push_back(extraneous_[i]);
        }
        return true;
      });
    }
    RemoveItems(options_.to, going, options_.transfers, note, ctx_);
    if (!options_.to.local()) return;
    // Folders that are empty now.
    std::set<std::string, std::greater<>> folders;
    for (const Item* item : extraneous_) {
      for (std::size_t slash = item->path.rfind('/'); slash != std::string::npos && slash > 0;
           slash = item->path.rfind('/', slash - 1)) {
        if (!folders.insert(item->path.substr(0, slash)).second) break;
      }
    }
    for (const std::string& folder : folders) ::rmdir(options_.to.PathOf(folder).c_str());
  }

  CopyOptions options_;
  CopyProgress& progress_;
  const CallContext& ctx_;
  Mover mover_;
  std::atomic<std::uint64_t> items_done_{0};
  Concurrency concurrency_;
  AtomicTree tree_;
  bool begun_ = false;            // writing
  std::set<std::string> staged_;  // replacements of what readers see; guarded by mutex_
  std::map<std::string, store::Version> uploaded_;  // atomic: guarded by mutex_
  Listed from_, to_;
  std::vector<Pair> pairs_;
  std::vector<const Item*> extraneous_;
  bool no_bucket_ = false;
  std::mutex mutex_;  // guards report_
  CopyReport report_;
};

}  // namespace

Result<CopyReport> Copy(const CopyOptions& options, const CallContext& ctx,
                        CopyProgress* progress) {
  return Copier(options, *progress, ctx).Run();
}

Result<CheckReport> Check(const CopyOptions& options, const CallContext& ctx,
                          CopyProgress* progress) {
  return Copier(options, *progress, ctx).RunCheck();
}

}  // namespace leat::transfer
