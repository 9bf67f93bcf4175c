#include <algorithm>
#include <condition_variable>
#include <functional>
#include <limits>
#include <list>
#include <mutex>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>

#include "base/log.h"
#include "snapshot/builder.h"
#include "snapshot/cut_points.h"

namespace leat::snapshot {
namespace {

constexpr double kUnknown = std::numeric_limits<double>::infinity();

/// Keys that one worker lists, page by page: those greater than `at` and not greater than `end`.
struct Range {
  std::string at;                  ///< the greatest key listed
  std::string page_first;          ///< the least of the last page
  std::optional<std::string> end;  ///< none: to the prefix's last key
  double pages = 0;                ///< listed in it so far, in full ones
  double guess = kUnknown;         ///< pages in it, from what it was cut from
  bool probing = true;             ///< its first page is not here yet
  bool done = false;               ///< its last page is here
};

class Listing {
 public:
  Listing(store::ObjectStore& store, std::string_view prefix, const ListingOptions& options,
          const CallContext& ctx, const AddObject& add)
      : store_(store),
        prefix_(prefix),
        options_(options),
        ctx_{cancel_.get_token(), ctx.deadline},
        caller_cancels_(ctx.stop, [this] { cancel_.request_stop(); }),
        add_(add),
        cuts_(prefix_) {}

  Status Run();

 private:
  void Work(Range* range);
  /// One page of the range; true when it was the last.
  Result<bool> ListPage(Range& range);
  Result<store::ListPage> FetchPage(const std::string& after);
  Range* TakeWork();
  double PagesAhead(const Range& range) const;
  std::span<const std::string> HintsIn(const Range& range) const;
  void End(Error error);

  store::ObjectStore& store_;
  const std::string prefix_;
  const ListingOptions& options_;
  std::stop_source cancel_;
  const CallContext ctx_;
  std::stop_callback<std::function<void()>> caller_cancels_;

  std::mutex adding_;  // guards add_ and progress; never held with mutex_
  const AddObject& add_;
  std::uint64_t added_ = 0;

  std::mutex mutex_;  // guards all below
  std::condition_variable changed_;
  std::list<Range> ranges_;
  CutPoints cuts_;
  std::vector<std::string> hints_;  // whole keys, ascending
  std::size_t page_size_ = 1;
  std::uint64_t requests_ = 0;
  std::uint64_t kept_ = 0;
  std::size_t working_ = 1;
  std::optional<Error> error_;
};

Status Listing::Run() {
  ranges_.emplace_back();
  Range& whole = ranges_.back();
  LEAT_ASSIGN_OR_RETURN(const bool small, ListPage(whole));
  if (!small) {
    if (options_.hint != nullptr && options_.hint->prefix() == prefix_) {
      for (std::uint32_t b = 0; b < options_.hint->block_count(); ++b) {
        hints_.push_back(prefix_ + options_.hint->BlockFirstKey(b));
      }
    }
    std::vector<std::jthread> others;
    try {
      for (std::size_t i = 1; i < options_.threads; ++i) {
        others.emplace_back([this] { Work(nullptr); });
      }
    } catch (const std::system_error&) {
      // No more threads are to be had: those that there are do it all.
    }
    Work(&whole);
  }
  if (error_) return std::unexpected(std::move(*error_));
  return {};
}

void Listing::Work(Range* range) {
  for (;;) {
    if (range == nullptr && (range = TakeWork()) == nullptr) return;
    Result<bool> last = ListPage(*range);
    if (!last) {
      End(std::move(last).error());
      return;
    }
    if (*last) {
      const std::lock_guard lock(mutex_);
      ranges_.remove_if([range](const Range& r) { return &r == range; });
      range = nullptr;
      --working_;
    }
    changed_.notify_all();
  }
}

void Listing::End(Error error) {
  {
    const std::lock_guard lock(mutex_);
    // What the first failure cancelled is not worth telling.
    if (!error_) error_ = std::move(error);
  }
  cancel_.request_stop();
  changed_.notify_all();
}

Result<bool> Listing::ListPage(Range& range) {
  std::string after;
  {
    const std::lock_guard lock(mutex_);
    after = range.at;
  }
  LEAT_ASSIGN_OR_RETURN(store::ListPage page, FetchPage(after));
  bool last = !page.truncated;
  {
    const std::lock_guard lock(mutex_);
    ++requests_;
    if (page.truncated) page_size_ = std::max(page_size_, page.objects.size());
    std::string_view before;
    for (const store::ObjectInfo& object : page.objects) {
      cuts_.Learn(before, object.key);
      before = object.key;
    }
    // The end may have moved while the page was on its way; from here on these keys are this
    // range's.
    if (range.end) {
      const auto beyond = std::upper_bound(
          page.objects.begin(), page.objects.end(), *range.end,
          [](const std::string& end, const store::ObjectInfo& o) { return end < o.key; });
      page.objects.erase(beyond, page.objects.end());
      last = last || page.next_after >= *range.end;
    }
    if (!page.objects.empty()) range.page_first = page.objects.front().key;
    if (page.truncated) range.at = std::move(page.next_after);
    range.pages += static_cast<double>(page.objects.size()) / static_cast<double>(page_size_);
    range.probing = false;
    range.done = last;  // from this moment on nobody may cut it
    kept_ += page.objects.size();
  }
  const std::lock_guard lock(adding_);
  for (const store::ObjectInfo& object : page.objects) {
    LEAT_RETURN_IF_ERROR(add_(object));
  }
  added_ += page.objects.size();
  if (options_.on_progress) options_.on_progress(added_);
  return last;
}

/// One request, and whether its answer can be believed. `next_after` is set on every truncated
/// page.
Result<store::ListPage> Listing::FetchPage(const std::string& after) {
  if (ctx_.cancelled())
    return Fail(Errc::kCancelled, store_.UrlOf(prefix_) + ": listing cancelled");
  if (ctx_.expired()) {
    return Fail(Errc::kDeadline, store_.UrlOf(prefix_) + ": listing took too long");
  }
  LEAT_ASSIGN_OR_RETURN(
      store::ListPage page,
      store_.List(prefix_, {.start_after = after, .with_versions = options_.with_versions}, ctx_));
  std::string_view before = after;
  for (const store::ObjectInfo& object : page.objects) {
    if (!object.key.starts_with(prefix_)) {
      return Fail(Errc::kCorrupt, store_.UrlOf(object.key) + ": listed below \"" +
                                      Printable(prefix_) + "\", where it is not");
    }
    if (object.key <= before && !(after.empty() && object.key.empty())) {
      return Fail(Errc::kCorrupt, store_.UrlOf(object.key) + ": listed out of order, after \"" +
                                      Printable(before) + "\"");
    }
    before = object.key;
  }
  if (page.truncated) {
    if (page.next_after < before) page.next_after = before;
    if (page.next_after <= after) {
      return Fail(Errc::kCorrupt, store_.UrlOf(prefix_) +
                                      ": an endless listing: a page says that there is more, but "
                                      "brings nothing behind \"" +
                                      Printable(after) + "\"");
    }
  }
  return page;
}

std::span<const std::string> Listing::HintsIn(const Range& range) const {
  const auto from = std::upper_bound(hints_.begin(), hints_.end(), range.at);
  const auto to = range.end ? std::lower_bound(from, hints_.end(), *range.end) : hints_.end();
  return {from, to};
}

double Listing::PagesAhead(const Range& range) const {
  if (!range.end) return kUnknown;
  if (range.pages > 0) {
    return cuts_.Ahead(range.page_first, range.at, *range.end).value_or(kUnknown);
  }
  return range.guess;
}

/// Cuts the largest range that is being listed in two and gives its upper part; null when all is
/// done or has failed.
Range* Listing::TakeWork() {
  std::unique_lock lock(mutex_);
  for (;;) {
    if (error_ || working_ == 0) return nullptr;
    // A cut that turns out badly costs a request: so many more than a listing in one piece needs
    // are allowed, those included whose outcome is not known yet. Fewer for cuts into the unknown
    // than for those of a range whose end and keys are known; hints may be out of date.
    const double full_pages = static_cast<double>(kept_) / static_cast<double>(page_size_);
    const auto threads = static_cast<double>(options_.threads);
    double wasted = static_cast<double>(requests_) - full_pages;
    const bool may_follow_hints = wasted < threads + full_pages * 0.1;
    for (const Range& r : ranges_) wasted += r.probing ? 1 : 0;
    const bool may_guess = wasted < 3 + full_pages * 0.06;
    const bool may_cut =
        may_guess || wasted < std::min(2 + full_pages * 0.5, 3 + threads / 2 + full_pages * 0.08);

    const double leap = std::max(full_pages, 2 * threads);  // where nothing tells how much is left
    Range* best = nullptr;
    double best_pages = 3;  // less is not worth a cut
    std::string cut;
    for (Range& r : ranges_) {
      if (r.done) continue;
      const auto hints = HintsIn(r);
      if (may_follow_hints && !hints.empty()) {
        // Blocks have some thousand files.
        const double pages =
            static_cast<double>(hints.size()) * 1024 / static_cast<double>(page_size_);
        if (pages < best_pages) continue;
        best = &r;
        best_pages = pages;
        cut = hints[hints.size() / 2];
      } else if ((r.end ? may_cut : may_guess) && !r.probing &&
                 (hints_.empty() || (hints.empty() && r.pages >= 2))) {
        const double pages = PagesAhead(r);
        if (pages < best_pages) continue;
        std::optional<std::string> between = cuts_.Between(
            r.page_first, r.at, r.end ? &*r.end : nullptr, pages == kUnknown ? leap : pages / 2);
        if (!between || *between <= r.at || (r.end && *between >= *r.end)) continue;
        best = &r;
        best_pages = pages;
        cut = std::move(*between);
      }
    }
    if (best != nullptr) {
      ranges_.push_back(
          {.at = cut, .page_first = {}, .end = std::move(best->end), .guess = best_pages / 2});
      best->end = std::move(cut);
      best->guess = best_pages / 2;
      ++working_;
      return &ranges_.back();
    }
    changed_.wait(lock);
  }
}

}  // namespace

Status ListAll(store::ObjectStore& store, std::string_view prefix, const ListingOptions& options,
               const CallContext& ctx, const AddObject& add) {
  return Listing(store, prefix, options, ctx, add).Run();
}

Result<KeyMap> BuildFromListing(store::ObjectStore& store, std::string_view prefix,
                                const ListingOptions& options, const CallContext& ctx,
                                Builder& builder) {
  // More than any store's first page: the manifest, which would have been on it, may have come
  // since.
  constexpr std::size_t kSeveralPages = 1000;
  std::size_t count = 0;
  bool published = false;
  LEAT_RETURN_IF_ERROR(
      ListAll(store, prefix, options, ctx, [&](const store::ObjectInfo& object) -> Status {
        const std::string_view path = std::string_view(object.key).substr(prefix.size());
        if (path.starts_with(kControl)) {
          published |= path == kManifestKey;
          return {};
        }
        ++count;
        return published ? Status() : builder.Add(object);
      }));
  if (!published && count >= kSeveralPages)
    published = store.Stat(std::string(prefix) + std::string(kManifestKey), "", ctx).has_value();
  if (!published) {
    if (count > 0) return KeyMap();
    return Fail(Errc::kNotFound, store.UrlOf(prefix) + ": there is nothing below it");
  }
  const std::string folder(prefix);
  LEAT_ASSIGN_OR_RETURN(const Manifest manifest, ReadManifest(store, folder, ctx));
  KeyMap moved = manifest.Moved(folder);
  builder.Clear(!moved.empty());
  for (const ManifestEntry& e : manifest.entries) {
    store::ObjectInfo info;
    info.key = folder + e.path;
    info.size = e.size;
    info.version.etag = e.etag;
    info.modified = std::chrono::system_clock::time_point(
        std::chrono::duration_cast<std::chrono::system_clock::duration>(
            std::chrono::nanoseconds(e.mtime_ns)));
    LEAT_RETURN_IF_ERROR(builder.Add(info));
  }
  return moved;
}

}  // namespace leat::snapshot
