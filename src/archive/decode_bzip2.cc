// bzip2, by libbz2, which knows no threads. But a stream is a row of blocks of up to 900 kB that
// know nothing of each other: each begins, at any bit, with a number of 48 bits, and becomes a
// stream of its own.
#include <bzlib.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
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

constexpr std::uint64_t kBlockMagic = 0x314159265359, kEndMagic = 0x177245385090;
constexpr std::uint64_t kMask48 = (std::uint64_t{1} << 48) - 1;
/// A block of 900 kB whose every symbol takes 20 bits is smaller.
constexpr std::size_t kMostEncoded = 4 * kMiB;
/// Of one block: what libbz2 takes, the block, and its bytes.
constexpr std::uint64_t kMemoryOfBlock = 7 * kMiB;

std::unexpected<Error> FailDamaged() { return Fail(Errc::kCorrupt, "the bzip2 stream is damaged"); }

/// Bits `begin` to `end` of some bytes.
class Block final : public Piece {
 public:
  Block(char level, std::vector<std::byte> bytes, std::uint64_t begin, std::uint64_t end)
      : level_(level), bytes_(std::move(bytes)), begin_(begin), end_(end) {}
  ~Block() override {
    if (ready_) BZ2_bzDecompressEnd(&stream_);
  }

  std::size_t size_hint() const override { return kMiB; }

  Result<std::size_t> Decode(std::span<std::byte> out) override {
    if (ended_) return 0;
    if (!ready_) {
      MakeStream();
      if (BZ2_bzDecompressInit(&stream_, 0, 0) != BZ_OK)
        return Fail(Errc::kInternal, "libbz2 does not start");
      ready_ = true;
      stream_.next_in = whole_.data();
      stream_.avail_in = static_cast<unsigned>(whole_.size());
    }
    stream_.next_out = reinterpret_cast<char*>(out.data());
    stream_.avail_out = static_cast<unsigned>(out.size());
    const int code = BZ2_bzDecompress(&stream_);
    if (code == BZ_STREAM_END) {
      ended_ = true;
    } else if (code != BZ_OK || stream_.avail_out > 0) {
      return FailDamaged();
    }
    return out.size() - stream_.avail_out;
  }

 private:
  std::uint64_t Bits(std::uint64_t at, unsigned count) const {
    std::uint64_t value = 0;
    for (unsigned i = 0; i < count; ++i, ++at)
      value = value << 1 | (std::to_integer<unsigned>(bytes_[at / 8]) >> (7 - at % 8) & 1);
    return value;
  }

  void MakeStream() {
    whole_ = {'B', 'Z', 'h', level_};
    whole_.reserve(bytes_.size() + 16);
    const auto shift = static_cast<unsigned>(begin_ % 8);
    const std::uint64_t count = end_ - begin_;
    const std::byte* from = bytes_.data() + begin_ / 8;
    for (std::uint64_t i = 0; i < count / 8; ++i) {
      const auto high = std::to_integer<unsigned>(from[i]) << shift;
      const auto low = shift == 0 ? 0 : std::to_integer<unsigned>(from[i + 1]) >> (8 - shift);
      whole_.push_back(static_cast<char>(high | low));
    }
    // The rest of its bits, and a stream's end; the checksum of all blocks is that of this one.
    const auto rest = static_cast<unsigned>(count % 8);
    std::uint64_t left = Bits(end_ - rest, rest);
    unsigned held = rest;
    const auto put = [&](std::uint64_t value, unsigned bits) {
      for (unsigned i = bits; i-- > 0;) {
        left = left << 1 | (value >> i & 1);
        if (++held < 8) continue;
        whole_.push_back(static_cast<char>(left));
        held = 0;
      }
    };
    put(kEndMagic, 48);
    put(Bits(begin_ + 48, 32), 32);
    if (held > 0) put(0, 8 - held);
    bytes_ = {};
  }

  const char level_;
  std::vector<std::byte> bytes_;
  const std::uint64_t begin_, end_;
  std::vector<char> whole_;
  bz_stream stream_ = {};
  bool ready_ = false, ended_ = false;
};

/// For each value of the byte in front of the last one, how many bits may have come behind a magic
/// number that ends in the last one.
constexpr auto kShifts = [] {
  std::array<std::uint8_t, 256> out = {};
  for (unsigned shift = 0; shift < 8; ++shift) {
    for (const std::uint64_t magic : {kBlockMagic, kEndMagic})
      out[(magic << shift) >> 8 & 0xFF] |= static_cast<std::uint8_t>(1U << shift);
  }
  return out;
}();

class Bzip2 final : public Decoder {
 public:
  Bzip2(std::size_t threads, std::uint64_t memory, store::Sink sink)
      : pieces_(threads, std::clamp<std::uint64_t>(memory / kMemoryOfBlock, 1, threads + 2),
                std::move(sink)) {}

  Status Write(std::span<const std::byte> encoded) override {
    for (std::size_t i = 0; i < encoded.size();) {
      if (phase_ == Phase::kBlocks) {
        const std::size_t begin = i;
        bool found = false;
        unsigned shift = 0;
        for (; i < encoded.size() && !found; ++i) {
          window_ = window_ << 8 | std::to_integer<std::uint64_t>(encoded[i]);
          if (const unsigned possible = kShifts[window_ >> 8 & 0xFF]; possible != 0) [[unlikely]]
            found = Magic(possible, bytes_.size() + (i - begin) + 1, shift);
        }
        bytes_.insert(bytes_.end(), encoded.begin() + static_cast<std::ptrdiff_t>(begin),
                      encoded.begin() + static_cast<std::ptrdiff_t>(i));
        if (found) {
          LEAT_RETURN_IF_ERROR(OnMagic(bytes_.size() * 8 - shift - 48));
        } else if (bytes_.size() > kMostEncoded || (!in_block_ && bytes_.size() > 7)) {
          return FailDamaged();
        }
        continue;
      }
      LEAT_RETURN_IF_ERROR(OnByte(encoded[i++]));
    }
    return {};
  }

  Status Finish() override {
    LEAT_RETURN_IF_ERROR(pieces_.Drain());
    if ((phase_ == Phase::kHeader && header_.empty() && any_) || phase_ == Phase::kZeros) return {};
    return Fail(Errc::kCorrupt, "the bzip2 stream breaks off");
  }

 private:
  enum class Phase : std::uint8_t { kHeader, kBlocks, kEnd, kZeros };

  /// Whether a magic number ends `shift` bits in front of the end of the `bytes` that have come.
  bool Magic(unsigned possible, std::size_t bytes, unsigned& shift) {
    for (unsigned s = 8; s-- > 0;) {
      if ((possible >> s & 1) == 0 || bytes * 8 < s + 48) continue;
      const std::uint64_t value = window_ >> s & kMask48;
      if (value != kBlockMagic && value != kEndMagic) continue;
      ends_ = value == kEndMagic;
      shift = s;
      return true;
    }
    return false;
  }

  /// At this bit of bytes_.
  Status OnMagic(std::uint64_t at) {
    if (in_block_) {
      if (at < begin_ + 80) return FailDamaged();
      std::uint32_t crc = 0;
      for (std::uint64_t bit = begin_ + 48; bit < begin_ + 80; ++bit)
        crc = crc << 1 | (std::to_integer<unsigned>(bytes_[bit / 8]) >> (7 - bit % 8) & 1);
      checksum_ = std::rotl(checksum_, 1) ^ crc;
      std::vector<std::byte> next(bytes_.begin() + static_cast<std::ptrdiff_t>(at / 8),
                                  bytes_.end());
      LEAT_RETURN_IF_ERROR(
          pieces_.Add(std::make_unique<Block>(level_, std::move(bytes_), begin_, at)));
      bytes_ = std::move(next);
      begin_ = at % 8;
    } else if (at != 0) {
      return FailDamaged();
    } else {
      begin_ = 0;
    }
    in_block_ = !ends_;
    if (ends_) {
      phase_ = Phase::kEnd;
      // Four bytes of checksum, and what fills the last byte.
      left_ = static_cast<std::size_t>((begin_ + 48 + 32 + 7) / 8 - bytes_.size());
    }
    return {};
  }

  Status OnByte(std::byte byte) {
    switch (phase_) {
      case Phase::kBlocks:
        break;
      case Phase::kHeader:
        if (any_ && header_.empty() && byte == std::byte{0}) {
          phase_ = Phase::kZeros;
          break;
        }
        header_ += static_cast<char>(byte);
        if (!std::string_view("BZh").starts_with(std::string_view(header_).substr(0, 3)))
          return Fail(Errc::kCorrupt,
                      any_ ? "something else follows the bzip2 stream" : "is no bzip2 stream");
        if (header_.size() < 4) break;
        level_ = header_[3];
        if (level_ < '1' || level_ > '9') return FailDamaged();
        header_.clear();
        phase_ = Phase::kBlocks;
        any_ = true;
        in_block_ = false;
        bytes_.clear();
        window_ = 0;
        checksum_ = 0;
        break;
      case Phase::kEnd: {
        bytes_.push_back(byte);
        if (--left_ > 0) break;
        std::uint32_t crc = 0;
        for (std::uint64_t bit = begin_ + 48; bit < begin_ + 80; ++bit)
          crc = crc << 1 | (std::to_integer<unsigned>(bytes_[bit / 8]) >> (7 - bit % 8) & 1);
        if (crc != checksum_) return Fail(Errc::kCorrupt, "the bzip2 stream's checksum is wrong");
        phase_ = Phase::kHeader;
        break;
      }
      case Phase::kZeros:
        if (byte != std::byte{0})
          return Fail(Errc::kCorrupt, "something else follows the bzip2 stream");
    }
    return {};
  }

  Phase phase_ = Phase::kHeader;
  bool any_ = false, in_block_ = false;
  bool ends_ = false;  // the last magic number was that of the stream's end
  std::string header_;
  char level_ = '9';
  std::vector<std::byte> bytes_;  // from the byte on in which the block begins
  std::uint64_t begin_ = 0;       // the block's first bit in them
  std::uint64_t window_ = 0;      // the last 64 bits
  std::uint32_t checksum_ = 0;
  std::size_t left_ = 0;
  InOrder pieces_;
};

}  // namespace

std::unique_ptr<Decoder> MakeBzip2Decoder(std::size_t threads, std::uint64_t memory,
                                          store::Sink sink) {
  return std::make_unique<Bzip2>(threads, memory, std::move(sink));
}

}  // namespace leat::archive
