// Reads members by their places. Private to this folder.
#ifndef LEAT_ARCHIVE_MEMBER_READER_H_
#define LEAT_ARCHIVE_MEMBER_READER_H_

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>

#include "archive/member_place.h"
#include "base/context.h"
#include "base/error.h"
#include "store/object_store.h"

namespace leat::archive {

/// Delivers exactly [offset, offset + length) of the archive, or an error.
using ReadRange = std::function<Status(std::uint64_t offset, std::uint64_t length,
                                       const store::Sink& sink, const CallContext& ctx)>;

/// A deflate stream that stopped somewhere, and can go on from there.
struct InflateCursor;
class Inflation;

/// Inflate states that stand between two reads, the kMost that were used last. A large member is
/// read range by range, several at once: a range goes on where the one in front of it stops, and
/// waits for it. Thread-safe.
class InflateCursors {
 public:
  static constexpr std::size_t kMost = 8;

  InflateCursors();
  ~InflateCursors();
  InflateCursors(const InflateCursors&) = delete;
  InflateCursors& operator=(const InflateCursors&) = delete;

  /// Bytes [offset, end) of the stream that begins at `stream` are being read. Outlived by the
  /// pool.
  class Claim {
   public:
    Claim(InflateCursors& cursors, std::uint64_t stream, std::uint64_t offset, std::uint64_t end);
    ~Claim();
    Claim(const Claim&) = delete;
    Claim& operator=(const Claim&) = delete;

    /// The cursor that is nearest in front of `offset`, or one at the beginning. Waits while
    /// another claim ends nearer. kCancelled, kDeadline.
    Result<std::unique_ptr<InflateCursor>> Take(const CallContext& ctx);
    /// Ends it; the cursor (may be null) stands for the next one.
    void Release(std::unique_ptr<InflateCursor> cursor);

   private:
    friend class InflateCursors;
    InflateCursors& cursors_;
    const std::uint64_t stream_, offset_, end_;
    bool released_ = false;
  };

 private:
  struct Standing {
    std::uint64_t stream;
    std::unique_ptr<InflateCursor> cursor;
  };
  using At = std::list<Standing>::iterator;

  // mutex_ held
  At Nearest(const Claim& claim);
  bool OtherIsNearer(const Claim& claim, std::uint64_t than) const;

  std::mutex mutex_;  // guards what follows
  std::condition_variable_any changed_;
  std::list<Standing> standing_;  // the one used last is the first
  std::list<const Claim*> claims_;
};

/// Thread-safe.
class MemberReader {
 public:
  explicit MemberReader(ReadRange read) : read_(std::move(read)) {}

  /// Delivers exactly [offset, offset + length), which lies within the member. What reaches the end
  /// of a member that is decoded, or is all of one that is not, is held to its checksum: kCorrupt.
  /// `name_size`: that the name in the local header may have; a guess.
  Status Read(const Place& place, std::size_t name_size, std::uint64_t offset, std::uint64_t length,
              const store::Sink& sink, const CallContext& ctx);

 private:
  Status ReadPlain(const Place& place, std::size_t name_size, std::uint64_t offset,
                   std::uint64_t length, const store::Sink& sink, const CallContext& ctx);
  Status ReadDeflated(const Place& place, std::size_t name_size, std::uint64_t offset,
                      std::uint64_t length, const store::Sink& sink, const CallContext& ctx);
  Status Inflate(const Place& place, std::size_t name_size, Inflation& inflation,
                 InflateCursor& cursor, const CallContext& ctx);
  Status ReadZipData(const Place& place, std::size_t name_size, std::uint64_t from,
                     std::uint64_t length, const store::Sink& sink, const CallContext& ctx);
  /// Of these first bytes; remembers it.
  Result<std::uint64_t> HeaderSize(const Place& place, std::span<const std::byte> first);
  std::optional<std::uint64_t> KnownHeaderSize(const Place& place);

  const ReadRange read_;
  InflateCursors cursors_;
  std::mutex mutex_;                                               // guards header_sizes_
  std::unordered_map<std::uint64_t, std::uint64_t> header_sizes_;  // by where they begin
};

}  // namespace leat::archive

#endif  // LEAT_ARCHIVE_MEMBER_READER_H_
