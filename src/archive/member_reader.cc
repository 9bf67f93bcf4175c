#include "archive/member_reader.h"

#include <fmt/format.h>
#include <isa-l/crc.h>
#include <isa-l/igzip_lib.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "digest/digest.h"

namespace leat::archive {

struct InflateCursor {
  inflate_state state;
  std::uint64_t in = 0, out = 0;  ///< bytes of the stream that were taken, and that came of them
  std::uint32_t crc = 0;          ///< of what came
  bool more = false;              ///< there was no room for all that is decoded
  bool finished = false;          ///< the stream is at its end
  std::vector<std::byte> ahead = {};  ///< what follows `in` and has been read already

  InflateCursor() {
    isal_inflate_init(&state);
    state.crc_flag = ISAL_DEFLATE;
  }
};

namespace {

constexpr std::size_t kOut = 256 * kKiB;
/// What is read too much is kept up to here, beside an inflate state.
constexpr std::size_t kMostAhead = kMiB;
/// Smaller members are read whole: nobody goes on with them.
constexpr std::uint64_t kWorthStanding = kMiB;
/// Local headers have extra fields that the directory does not tell: times, owners, alignment.
constexpr std::size_t kLikelyExtra = 256;
constexpr std::size_t kMostHeaderSizes = 4096;

std::uint32_t Crc32(std::uint32_t before, std::span<const std::byte> bytes) {
  return crc32_gzip_refl(before, reinterpret_cast<const unsigned char*>(bytes.data()),
                         bytes.size());
}

std::unexpected<Error> FailChecksum(const Place& place, std::uint32_t crc) {
  return Fail(Errc::kCorrupt,
              fmt::format("the bytes that arrived have the {} {:08x}, but the archive has {:08x}",
                          place.kind == Place::Kind::kTar ? "CRC32C" : "CRC32", crc, place.crc));
}

/// The part of `bytes`, the first of which is at `at`, that lies in [from, to).
std::span<const std::byte> Overlap(std::span<const std::byte> bytes, std::uint64_t at,
                                   std::uint64_t from, std::uint64_t to) {
  from = std::max(from, at);
  to = std::min(to, at + bytes.size());
  return from < to ? bytes.subspan(from - at, to - from) : std::span<const std::byte>();
}

}  // namespace

/// One read: [offset, end) of what a stream becomes.
class Inflation {
 public:
  Inflation(const Place& place, InflateCursor& cursor, std::uint64_t offset, std::uint64_t end,
            const store::Sink& sink)
      : place_(place),
        cursor_(cursor),
        offset_(offset),
        end_(end),
        sink_(sink),
        room_(std::min<std::uint64_t>(kOut, std::max<std::uint64_t>(end - cursor.out, 1))),
        buffer_(std::make_unique_for_overwrite<std::uint8_t[]>(room_)) {}

  /// Whether all has been delivered; where that is up to the end, that it is one.
  bool done() const {
    return cursor_.finished || (cursor_.out >= end_ && end_ < place_.size) || damaged_;
  }
  /// Whether the cursor cannot be gone on with.
  bool damaged() const { return damaged_; }

  /// Takes of `bytes` what is needed off.
  Status Take(std::span<const std::byte>& bytes) {
    inflate_state& state = cursor_.state;
    while (!done() && (!bytes.empty() || cursor_.more)) {
      const auto in = static_cast<std::uint32_t>(std::min<std::size_t>(bytes.size(), kGiB));
      // One more than it has shows whether that is so.
      const auto room = static_cast<std::uint32_t>(
          std::clamp<std::uint64_t>(end_ - std::min(end_, cursor_.out), 1, room_));
      state.next_in =
          const_cast<std::uint8_t*>(reinterpret_cast<const std::uint8_t*>(bytes.data()));
      state.avail_in = in;
      state.next_out = buffer_.get();
      state.avail_out = room;
      const int code = isal_inflate(&state);
      if (code < 0 || code == ISAL_NEED_DICT) return Damaged("its deflate stream is damaged");
      const std::size_t taken = in - state.avail_in;
      const std::size_t n = room - state.avail_out;
      bytes = bytes.subspan(taken);
      cursor_.in += taken;
      cursor_.more = n == room;
      cursor_.finished = state.block_state == ISAL_BLOCK_FINISH;
      if (n == 0 && taken == 0 && in > 0 && !cursor_.finished)
        return Damaged("its deflate stream is damaged");
      if (n > place_.size - cursor_.out)
        return Damaged(fmt::format("it is more than the {} bytes that it should be", place_.size));
      const auto out = std::as_bytes(std::span(buffer_.get(), n));
      const std::uint64_t at = cursor_.out;
      cursor_.crc = Crc32(cursor_.crc, out);
      cursor_.out += n;
      if (const auto wanted = Overlap(out, at, offset_, end_); !wanted.empty())
        LEAT_RETURN_IF_ERROR(sink_(wanted));
    }
    return {};
  }

  /// So many bytes of the stream are likely to do for what is wanted: as many as the rest of it
  /// needs on average, and some more; still more where that did not do.
  std::uint64_t LikelyLength() {
    const std::uint64_t rest = place_.compressed - cursor_.in;
    if (end_ == place_.size || cursor_.out >= end_) return rest;
    const double share =
        static_cast<double>(end_ - cursor_.out) / static_cast<double>(place_.size - cursor_.out);
    constexpr double kMore = 1.02;
    const double likely = static_cast<double>(rest) * share * kMore;
    more_input_ = more_input_ == 0 ? 32 * kKiB : more_input_ * 4;
    return std::min(rest, static_cast<std::uint64_t>(likely) + more_input_);
  }

  /// When there is nothing more to take.
  Status Finish() {
    if (cursor_.finished && cursor_.out < place_.size)
      return Damaged(fmt::format("it is {} bytes, but should be {}", cursor_.out, place_.size));
    if (!done()) return Damaged("its deflate stream breaks off");
    if (cursor_.finished && cursor_.crc != place_.crc) {
      damaged_ = true;
      return FailChecksum(place_, cursor_.crc);
    }
    return {};
  }

 private:
  Status Damaged(std::string why) {
    damaged_ = true;
    return Fail(Errc::kCorrupt, std::move(why));
  }

  const Place& place_;
  InflateCursor& cursor_;
  const std::uint64_t offset_, end_;
  const store::Sink& sink_;
  const std::size_t room_;
  const std::unique_ptr<std::uint8_t[]> buffer_;
  std::uint64_t more_input_ = 0;
  bool damaged_ = false;
};

// --- cursors

InflateCursors::InflateCursors() = default;
InflateCursors::~InflateCursors() = default;

InflateCursors::Claim::Claim(InflateCursors& cursors, std::uint64_t stream, std::uint64_t offset,
                             std::uint64_t end)
    : cursors_(cursors), stream_(stream), offset_(offset), end_(end) {
  const std::lock_guard lock(cursors_.mutex_);
  cursors_.claims_.push_back(this);
}

InflateCursors::Claim::~Claim() { Release(nullptr); }

void InflateCursors::Claim::Release(std::unique_ptr<InflateCursor> cursor) {
  if (std::exchange(released_, true)) return;
  {
    const std::lock_guard lock(cursors_.mutex_);
    cursors_.claims_.remove(this);
    if (cursor) {
      cursors_.standing_.push_front({stream_, std::move(cursor)});
      if (cursors_.standing_.size() > kMost) cursors_.standing_.pop_back();
    }
  }
  cursors_.changed_.notify_all();
}

InflateCursors::At InflateCursors::Nearest(const Claim& claim) {
  At nearest = standing_.end();
  for (At at = standing_.begin(); at != standing_.end(); ++at) {
    if (at->stream != claim.stream_ || at->cursor->out > claim.offset_) continue;
    if (nearest == standing_.end() || at->cursor->out > nearest->cursor->out) nearest = at;
  }
  return nearest;
}

/// (A claim waits only for those that end in front of it: never for each other.)
bool InflateCursors::OtherIsNearer(const Claim& claim, std::uint64_t than) const {
  return std::ranges::any_of(claims_, [&](const Claim* other) {
    return other->stream_ == claim.stream_ && other->offset_ < other->end_ &&
           other->end_ <= claim.offset_ && other->end_ > than;
  });
}

Result<std::unique_ptr<InflateCursor>> InflateCursors::Claim::Take(const CallContext& ctx) {
  std::unique_lock lock(cursors_.mutex_);
  At nearest;
  const auto is_mine = [&] {
    nearest = cursors_.Nearest(*this);
    return !cursors_.OtherIsNearer(*this,
                                   nearest == cursors_.standing_.end() ? 0 : nearest->cursor->out);
  };
  if (ctx.deadline == CallContext::Clock::time_point::max()) {
    cursors_.changed_.wait(lock, ctx.stop, is_mine);
  } else {
    cursors_.changed_.wait_until(lock, ctx.stop, ctx.deadline, is_mine);
  }
  if (!is_mine()) {
    return ctx.cancelled() ? Fail(Errc::kCancelled, "cancelled")
                           : Fail(Errc::kDeadline, "the time ran out");
  }
  if (nearest == cursors_.standing_.end()) return std::make_unique<InflateCursor>();
  if (nearest->cursor->out < offset_) {
    // It stays for whoever wants what is skipped here.
    cursors_.standing_.splice(cursors_.standing_.begin(), cursors_.standing_, nearest);
    return std::make_unique<InflateCursor>(*nearest->cursor);
  }
  auto cursor = std::move(nearest->cursor);
  cursors_.standing_.erase(nearest);
  return cursor;
}

// --- members

Status MemberReader::Read(const Place& place, std::size_t name_size, std::uint64_t offset,
                          std::uint64_t length, const store::Sink& sink, const CallContext& ctx) {
  if (place.kind == Place::Kind::kZipDeflated && place.size > 0)
    return length == 0 ? Status() : ReadDeflated(place, name_size, offset, length, sink, ctx);
  if (length < place.size) return ReadPlain(place, name_size, offset, length, sink, ctx);
  std::uint32_t crc = 0;
  LEAT_RETURN_IF_ERROR(ReadPlain(
      place, name_size, offset, length,
      [&](std::span<const std::byte> bytes) -> Status {
        crc = place.kind == Place::Kind::kTar ? digest::Crc32c(bytes, crc) : Crc32(crc, bytes);
        return sink(bytes);
      },
      ctx));
  return crc == place.crc ? Status() : FailChecksum(place, crc);
}

Status MemberReader::ReadPlain(const Place& place, std::size_t name_size, std::uint64_t offset,
                               std::uint64_t length, const store::Sink& sink,
                               const CallContext& ctx) {
  if (length == 0) return {};
  if (place.kind == Place::Kind::kTar) return read_(place.begin + offset, length, sink, ctx);
  return ReadZipData(place, name_size, offset, length, sink, ctx);
}

Status MemberReader::Inflate(const Place& place, std::size_t name_size, Inflation& inflation,
                             InflateCursor& cursor, const CallContext& ctx) {
  const std::vector<std::byte> ahead = std::exchange(cursor.ahead, {});
  std::span<const std::byte> rest = ahead;
  const Status taken = inflation.Take(rest);
  cursor.ahead.assign(rest.begin(), rest.end());
  LEAT_RETURN_IF_ERROR(taken);
  while (!inflation.done() && cursor.in < place.compressed) {
    bool dropped = false;
    const store::Sink inflate = [&](std::span<const std::byte> bytes) -> Status {
      if (ctx.cancelled()) return Fail(Errc::kCancelled, "cancelled");
      LEAT_RETURN_IF_ERROR(inflation.Take(bytes));
      // What is not needed yet the next one needs.
      const std::size_t kept =
          dropped ? 0 : std::min(bytes.size(), kMostAhead - cursor.ahead.size());
      cursor.ahead.insert(cursor.ahead.end(), bytes.begin(),
                          bytes.begin() + static_cast<std::ptrdiff_t>(kept));
      dropped = dropped || kept < bytes.size();
      return {};
    };
    Status read = ReadZipData(place, name_size, cursor.in, inflation.LikelyLength(), inflate, ctx);
    if (!read) return read;
  }
  return inflation.Finish();
}

Status MemberReader::ReadDeflated(const Place& place, std::size_t name_size, std::uint64_t offset,
                                  std::uint64_t length, const store::Sink& sink,
                                  const CallContext& ctx) {
  const std::uint64_t end = offset + length;
  InflateCursors::Claim claim(cursors_, place.begin, offset, end);
  LEAT_ASSIGN_OR_RETURN(std::unique_ptr<InflateCursor> cursor, claim.Take(ctx));
  Inflation inflation(place, *cursor, offset, end, sink);
  const Status done = Inflate(place, name_size, inflation, *cursor, ctx);
  if (!inflation.damaged() && !cursor->finished && place.size >= kWorthStanding)
    claim.Release(std::move(cursor));
  return done;
}

std::optional<std::uint64_t> MemberReader::KnownHeaderSize(const Place& place) {
  const std::lock_guard lock(mutex_);
  const auto found = header_sizes_.find(place.begin);
  if (found == header_sizes_.end()) return std::nullopt;
  return found->second;
}

Result<std::uint64_t> MemberReader::HeaderSize(const Place& place,
                                               std::span<const std::byte> first) {
  LEAT_ASSIGN_OR_RETURN(const std::uint64_t size, ZipLocalHeaderSize(first));
  if (size > place.region || place.compressed > place.region - size)
    return Fail(Errc::kCorrupt, "the zip is damaged: it and what follows it overlap");
  if (place.size >= kWorthStanding) {
    const std::lock_guard lock(mutex_);
    if (header_sizes_.size() >= kMostHeaderSizes) header_sizes_.clear();
    header_sizes_[place.begin] = size;
  }
  return size;
}

/// `length` bytes, at least one, of what lies behind the local header, from its `from`-th on.
Status MemberReader::ReadZipData(const Place& place, std::size_t name_size, std::uint64_t from,
                                 std::uint64_t length, const store::Sink& sink,
                                 const CallContext& ctx) {
  std::array<std::byte, kZipLocalHeader> first;
  std::optional<std::uint64_t> header = KnownHeaderSize(place);
  std::uint64_t delivered = 0;
  if (!header) {
    // Where the bytes are near, the header comes with them.
    constexpr std::uint64_t kNear = 64 * kKiB;
    const std::uint64_t with_header =
        from > kNear
            ? kZipLocalHeader
            : std::min(place.region, kZipLocalHeader + name_size + kLikelyExtra + from + length);
    std::uint64_t at = 0;
    LEAT_RETURN_IF_ERROR(read_(
        place.begin, with_header,
        [&](std::span<const std::byte> bytes) -> Status {
          if (at < first.size()) {
            const std::size_t n = std::min<std::size_t>(bytes.size(), first.size() - at);
            std::memcpy(first.data() + at, bytes.data(), n);
            at += n;
            bytes = bytes.subspan(n);
            if (at < first.size()) return {};
            LEAT_ASSIGN_OR_RETURN(header, HeaderSize(place, first));
          }
          const auto wanted = Overlap(bytes, at, *header + from, *header + from + length);
          at += bytes.size();
          delivered += wanted.size();
          return wanted.empty() ? Status() : sink(wanted);
        },
        ctx));
  }
  if (delivered == length) return {};
  if (!header || *header > place.region || place.compressed > place.region - *header)
    return Fail(Errc::kCorrupt, "the zip is damaged: it and what follows it overlap");
  return read_(place.begin + *header + from + delivered, length - delivered, sink, ctx);
}

}  // namespace leat::archive
