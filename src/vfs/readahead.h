// Notices sequential readers and says what they will want next.
#ifndef LEAT_VFS_READAHEAD_H_
#define LEAT_VFS_READAHEAD_H_

#include <algorithm>
#include <array>
#include <cstdint>

#include "base/bytes.h"

namespace leat::vfs {

/// What to fetch for a read: what it needs, and what will be needed.
struct Plan {
  std::uint64_t ahead_begin = 0, ahead_end = 0;  ///< empty where nothing is foreseen
  std::uint64_t request = 0;                     ///< bytes a request
};

/// Several sequential readers of one file, by where they are (the protocol tells no handles apart).
/// Not thread-safe.
class Readahead {
 public:
  /// A read of [offset, offset + length) of a file of `size` bytes. The window begins with the
  /// first read of a stream at the file's start, or with the second read in sequence elsewhere,
  /// doubles with every read, and ends at `max`. A reader that skips is foreseen nothing until what
  /// it skipped arrives (it was only out of order) or it has read in sequence again.
  Plan OnRead(std::uint64_t offset, std::uint64_t length, std::uint64_t size, std::uint64_t max) {
    ++clock_;
    const std::uint64_t end = std::min(size, offset + length);
    Stream* stream = nullptr;
    for (Stream& s : streams_) {
      // The kernel sends a reader's requests side by side, so they arrive a little out of order.
      const std::uint64_t slack = kSlack + length;
      if (s.used != 0 && offset + slack >= s.next && offset <= s.next + slack) {
        stream = &s;
        break;
      }
    }
    if (stream == nullptr) {
      stream = &*std::ranges::min_element(streams_, {}, &Stream::used);
      *stream = Stream{};
      stream->window = offset == 0 ? std::min(kFirstWindow, max) : 0;
    } else if (!InSequence(*stream, offset, end)) {
      stream->used = clock_;
      stream->next = std::max(stream->next, end);
      return {};
    } else {
      stream->window = std::min(std::max(stream->window * 2, kFirstWindow), max);
    }
    stream->used = clock_;
    stream->next = std::max(stream->next, end);
    if (stream->window == 0) return {};
    Plan plan;
    const std::uint64_t until = std::min(size, stream->next + stream->window);
    plan.ahead_begin = std::max(stream->ahead, stream->next);
    plan.ahead_end = until;
    plan.request = std::clamp<std::uint64_t>(stream->window / 4, kMiB, 8 * kMiB);
    // In whole requests, so that a long file is not fetched in crumbs; the last one is short.
    if (until < size && plan.ahead_begin < until && until - plan.ahead_begin < plan.request &&
        stream->ahead > stream->next)
      return {};
    if (plan.ahead_begin >= plan.ahead_end) return {};
    stream->ahead = plan.ahead_end;
    return plan;
  }

 private:
  static constexpr std::uint64_t kFirstWindow = kMiB;
  static constexpr std::uint64_t kSlack = kMiB;
  /// What is skipped within the blocks that are fetched anyway is not skipped.
  static constexpr std::uint64_t kSkip = 128 * kKiB;

  struct Stream {
    std::uint64_t next = 0, window = 0, ahead = 0, used = 0;
    std::uint64_t skipped = 0;   // bytes below `next` that may still arrive
    std::uint32_t in_order = 0;  // reads in a row since the last skip
  };

  /// Whether this read says that its stream goes on without a hole.
  static bool InSequence(Stream& stream, std::uint64_t offset, std::uint64_t end) {
    if (end <= stream.next) {
      if (stream.skipped == 0) return false;  // bytes read again: no news
      stream.skipped -= std::min(stream.skipped, end - std::min(offset, end));
      return stream.skipped == 0;
    }
    if (offset > stream.next + kSkip) {
      stream.skipped += offset - stream.next;
      stream.in_order = 0;
      return false;
    }
    if (stream.skipped == 0) return true;
    if (++stream.in_order < 2) return false;
    stream.skipped = 0;
    stream.window = 0;
    return true;
  }

  std::array<Stream, 8> streams_;
  std::uint64_t clock_ = 0;
};

}  // namespace leat::vfs

#endif  // LEAT_VFS_READAHEAD_H_
