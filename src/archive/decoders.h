// The decoders behind Decoder::Make, and those for the methods that only zips have. Private to this
// folder.
#ifndef LEAT_ARCHIVE_DECODERS_H_
#define LEAT_ARCHIVE_DECODERS_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "archive/decoder.h"
#include "base/error.h"
#include "base/thread_pool.h"
#include "store/object_store.h"

namespace leat::archive {

std::unique_ptr<Decoder> MakeGzipDecoder(store::Sink sink);
std::unique_ptr<Decoder> MakeBzip2Decoder(std::size_t threads, std::uint64_t memory,
                                          store::Sink sink);
std::unique_ptr<Decoder> MakeXzDecoder(std::size_t threads, std::uint64_t memory, store::Sink sink);
std::unique_ptr<Decoder> MakeZstdDecoder(std::size_t threads, std::uint64_t memory,
                                         store::Sink sink);
std::unique_ptr<Decoder> MakeLz4Decoder(store::Sink sink);
/// One deflate stream without any frame (RFC 1951); kCorrupt where something follows it.
std::unique_ptr<Decoder> MakeDeflateDecoder(store::Sink sink);
/// A zip's method 14 (APPNOTE 5.8): LZMA behind a header of its own, without an end of its own
/// where `size` bytes have come.
std::unique_ptr<Decoder> MakeZipLzmaDecoder(std::uint64_t size, store::Sink sink);

/// A stream that needs a larger window is refused.
inline constexpr std::uint64_t kMaxWindow = std::uint64_t{1} << 30;

/// Part of a stream that can be decoded by itself.
class Piece {
 public:
  virtual ~Piece() = default;
  /// Fills `out`, fewer bytes only at the piece's end.
  virtual Result<std::size_t> Decode(std::span<std::byte> out) = 0;
  /// So many bytes it decodes to, as far as is known.
  virtual std::size_t size_hint() const = 0;
};

/// Decodes pieces side by side and delivers them in order. The first `kAhead` bytes of each are
/// decoded ahead; what is behind them (there are blocks that have been made to be large), when its
/// turn has come.
class InOrder {
 public:
  static constexpr std::size_t kAhead = std::size_t{16} << 20;

  /// At most `most` pieces are held.
  InOrder(std::size_t threads, std::size_t most, store::Sink sink);
  ~InOrder();
  Status Add(std::unique_ptr<Piece> piece);
  Status Drain();

 private:
  struct Task;
  static void Begin(Task& task);
  Status DeliverFirst();

  const std::size_t most_;
  const bool alone_;
  const store::Sink sink_;
  std::deque<std::shared_ptr<Task>> tasks_;  // shared with the pool's jobs
  std::vector<std::vector<std::byte>> buffers_;
  ThreadPool pool_;  // the last: its threads end first
};

}  // namespace leat::archive

#endif  // LEAT_ARCHIVE_DECODERS_H_
