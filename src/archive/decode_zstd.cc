// zstd (RFC 8878), by libzstd. Frames know nothing of each other, and the sizes of their blocks
// tell where each ends: those that are small enough to be held (as pzstd makes them) are decoded
// side by side.
#include <fmt/format.h>
#include <zstd.h>
#include <zstd_errors.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "archive/decoders.h"
#include "base/bytes.h"

namespace leat::archive {

namespace {

constexpr std::uint32_t kFrameMagic = 0xFD2FB528, kSkippable = 0x184D2A50;
constexpr int kWindowLog = 30;
static_assert(std::uint64_t{1} << kWindowLog == kMaxWindow);

struct FreeContext {
  void operator()(ZSTD_DCtx* context) const { ZSTD_freeDCtx(context); }
};
using Context = std::unique_ptr<ZSTD_DCtx, FreeContext>;

Context MakeContext() {
  Context context(ZSTD_createDCtx());
  ZSTD_DCtx_setParameter(context.get(), ZSTD_d_windowLogMax, kWindowLog);
  return context;
}

std::unexpected<Error> Failed(std::size_t code) {
  switch (ZSTD_getErrorCode(code)) {
    case ZSTD_error_frameParameter_windowTooLarge:
    case ZSTD_error_memory_allocation:
      return Fail(Errc::kUnsupported, "the zstd stream needs a window of more than 1 GiB");
    case ZSTD_error_dictionary_wrong:
      return Fail(Errc::kUnsupported, "the zstd stream needs a dictionary");
    case ZSTD_error_checksum_wrong:
      return Fail(Errc::kCorrupt, "the zstd stream's checksum is wrong");
    case ZSTD_error_prefix_unknown:
      return Fail(Errc::kCorrupt, "something else follows the zstd stream, or it is none");
    default:
      return Fail(Errc::kCorrupt, "the zstd stream is damaged");
  }
}

/// A whole frame.
class Frame final : public Piece {
 public:
  explicit Frame(std::vector<std::byte> bytes) : bytes_(std::move(bytes)) {
    const unsigned long long size = ZSTD_getFrameContentSize(bytes_.data(), bytes_.size());
    size_ = size == ZSTD_CONTENTSIZE_UNKNOWN || size == ZSTD_CONTENTSIZE_ERROR ? 4 * kMiB : size;
  }

  std::size_t size_hint() const override { return size_; }
  Result<std::size_t> Decode(std::span<std::byte> out) override {
    if (!context_) context_ = MakeContext();
    ZSTD_inBuffer in{bytes_.data(), bytes_.size(), at_};
    ZSTD_outBuffer to{out.data(), out.size(), 0};
    while (!ended_ && to.pos < to.size) {
      const std::size_t before = to.pos;
      const std::size_t from = in.pos;
      const std::size_t left = ZSTD_decompressStream(context_.get(), &to, &in);
      if (ZSTD_isError(left) != 0) return Failed(left);
      ended_ = left == 0;
      if (!ended_ && to.pos == before && in.pos == from)
        return Fail(Errc::kCorrupt, "the zstd stream is damaged");
    }
    at_ = in.pos;
    // A frame without bytes, or one that just fits, is over only when that has been said.
    return to.pos;
  }

 private:
  const std::vector<std::byte> bytes_;
  std::size_t size_ = 0, at_ = 0;
  Context context_;
  bool ended_ = false;
};

class Zstd final : public Decoder {
 public:
  Zstd(std::size_t threads, std::uint64_t memory, store::Sink sink)
      : alone_(threads <= 1),
        most_held_(std::clamp<std::uint64_t>(memory / 6, kMiB, InOrder::kAhead)),
        sink_(std::move(sink)),
        pieces_(threads, std::clamp<std::uint64_t>(memory / (3 * most_held_), 2, threads + 2),
                sink_) {}

  Status Write(std::span<const std::byte> encoded) override {
    while (!encoded.empty()) {
      if (phase_ == Phase::kStream) {
        LEAT_RETURN_IF_ERROR(Stream(encoded));
        continue;
      }
      if (phase_ == Phase::kZeros) {
        if (std::ranges::any_of(encoded, [](std::byte b) { return b != std::byte{0}; }))
          return Fail(Errc::kCorrupt, "something else follows the zstd stream");
        return {};
      }
      // As many bytes as are needed to know what comes.
      const std::size_t n = std::min<std::uint64_t>(encoded.size(), left_);
      if (phase_ != Phase::kSkip)
        held_.insert(held_.end(), encoded.begin(),
                     encoded.begin() + static_cast<std::ptrdiff_t>(n));
      encoded = encoded.subspan(n);
      left_ -= n;
      while (left_ == 0) LEAT_RETURN_IF_ERROR(Next());
    }
    return {};
  }

  Status Finish() override {
    LEAT_RETURN_IF_ERROR(pieces_.Drain());
    if (any_ && ((phase_ == Phase::kMagic && held_.empty()) || phase_ == Phase::kZeros)) return {};
    return Fail(Errc::kCorrupt, "the zstd stream breaks off");
  }

 private:
  /// What the bytes are that have just been waited for.
  enum class Phase : std::uint8_t {
    kMagic,
    kDescriptor,   // of the frame's header
    kHeader,       // the rest of that
    kBlockHeader,  // behind what the last block had
    kLast,         // the last block, and the checksum
    kSkipSize,
    kSkip,
    kStream,  // the frame is not held, but decoded as it comes
    kZeros,
  };

  void Begin() {
    phase_ = Phase::kMagic;
    left_ = 4;
    held_.clear();
  }
  void Wait(Phase phase, std::uint64_t bytes) {
    phase_ = phase;
    left_ = bytes;
  }
  std::uint32_t Little(std::size_t at, std::size_t bytes) const {
    std::uint32_t value = 0;
    for (std::size_t i = bytes; i-- > 0;)
      value = value << 8 | std::to_integer<std::uint32_t>(held_[at + i]);
    return value;
  }

  Status Next() {
    switch (phase_) {
      case Phase::kMagic: {
        const std::uint32_t magic = Little(0, 4);
        if (any_ && magic == 0) {
          phase_ = Phase::kZeros;
          left_ = 1;
        } else if ((magic & 0xFFFFFFF0) == kSkippable) {
          any_ = true;
          Wait(Phase::kSkipSize, 4);
        } else if (magic != kFrameMagic) {
          return Fail(Errc::kCorrupt,
                      any_ ? "something else follows the zstd stream" : "is no zstd stream");
        } else {
          any_ = true;
          Wait(Phase::kDescriptor, 1);
          if (alone_) return BeginStream();
        }
        return {};
      }
      case Phase::kDescriptor: {
        // RFC 8878, 3.1.1.1.1
        const auto descriptor = std::to_integer<unsigned>(held_[4]);
        const bool single = (descriptor & 0x20) != 0;
        checksum_ = (descriptor & 4) != 0;
        constexpr unsigned kDictionary[] = {0, 1, 2, 4};
        const unsigned size_flag = descriptor >> 6;
        const unsigned size = size_flag == 0 ? (single ? 1 : 0) : 1U << size_flag;
        Wait(Phase::kHeader, (single ? 0 : 1) + kDictionary[descriptor & 3] + size);
        return {};
      }
      case Phase::kHeader:
        if (WindowIsLarge()) return BeginStream();
        Wait(Phase::kBlockHeader, 3);
        return {};
      case Phase::kBlockHeader: {
        const std::uint32_t header = Little(held_.size() - 3, 3);
        const unsigned type = header >> 1 & 3;
        const std::uint64_t size = type == 1 ? 1 : header >> 3;
        if (type == 3) return Fail(Errc::kCorrupt, "the zstd stream is damaged");
        if (held_.size() + size > most_held_) return BeginStream();
        const bool last = (header & 1) != 0;
        if (last) {
          Wait(Phase::kLast, size + (checksum_ ? 4 : 0));
        } else {
          Wait(Phase::kBlockHeader, size + 3);
        }
        return {};
      }
      case Phase::kLast: {
        auto frame = std::make_unique<Frame>(std::move(held_));
        Begin();
        return pieces_.Add(std::move(frame));
      }
      case Phase::kSkipSize: {
        const std::uint32_t size = Little(4, 4);
        held_.clear();
        Wait(Phase::kSkip, size);
        return {};
      }
      case Phase::kSkip:
        Begin();
        return {};
      case Phase::kStream:
      case Phase::kZeros:
        break;
    }
    return {};
  }

  bool WindowIsLarge() const {
    const auto descriptor = std::to_integer<unsigned>(held_[4]);
    if ((descriptor & 0x20) != 0) {
      const unsigned long long size = ZSTD_getFrameContentSize(held_.data(), held_.size());
      return size > most_held_;
    }
    const auto window = std::to_integer<unsigned>(held_[5]);
    const std::uint64_t base = std::uint64_t{1} << (10 + (window >> 3));
    return base + base / 8 * (window & 7) > most_held_;
  }

  Status BeginStream() {
    LEAT_RETURN_IF_ERROR(pieces_.Drain());
    if (!context_) {
      context_ = MakeContext();
      out_ = std::make_unique_for_overwrite<std::byte[]>(kOut);
    }
    ZSTD_DCtx_reset(context_.get(), ZSTD_reset_session_only);
    phase_ = Phase::kStream;
    left_ = 1;  // nothing is waited for
    const std::vector<std::byte> held = std::exchange(held_, {});
    std::span<const std::byte> bytes = held;
    return Stream(bytes);
  }

  /// Takes off what the frame takes.
  Status Stream(std::span<const std::byte>& encoded) {
    ZSTD_inBuffer in{encoded.data(), encoded.size(), 0};
    for (;;) {
      ZSTD_outBuffer to{out_.get(), kOut, 0};
      const std::size_t left = ZSTD_decompressStream(context_.get(), &to, &in);
      if (ZSTD_isError(left) != 0) return Failed(left);
      if (to.pos > 0) LEAT_RETURN_IF_ERROR(sink_(std::span(out_.get(), to.pos)));
      if (left == 0) {
        Begin();
        break;
      }
      if (in.pos == in.size && to.pos < to.size) break;
    }
    encoded = encoded.subspan(in.pos);
    return {};
  }

  static constexpr std::size_t kOut = 512 * kKiB;
  const bool alone_;
  const std::uint64_t most_held_;
  const store::Sink sink_;
  Phase phase_ = Phase::kMagic;
  bool any_ = false, checksum_ = false;
  std::uint64_t left_ = 4;  // until there is more to know
  std::vector<std::byte> held_;
  Context context_;
  std::unique_ptr<std::byte[]> out_;
  InOrder pieces_;
};

}  // namespace

std::unique_ptr<Decoder> MakeZstdDecoder(std::size_t threads, std::uint64_t memory,
                                         store::Sink sink) {
  return std::make_unique<Zstd>(threads, memory, std::move(sink));
}

}  // namespace leat::archive
