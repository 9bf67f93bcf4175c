// gzip (RFC 1952) and what is in zips (RFC 1951), by ISA-L, which is twice as fast as zlib.
#include <fmt/format.h>
#include <isa-l/igzip_lib.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>

#include "archive/decoders.h"
#include "base/bytes.h"

namespace leat::archive {

namespace {

constexpr std::size_t kOut = 512 * kKiB;

class Inflater final : public Decoder {
 public:
  Inflater(bool gzip, store::Sink sink)
      : gzip_(gzip),
        sink_(std::move(sink)),
        state_(std::make_unique<inflate_state>()),
        out_(std::make_unique_for_overwrite<std::uint8_t[]>(kOut)) {
    isal_inflate_init(state_.get());
    state_->crc_flag = gzip_ ? ISAL_GZIP : ISAL_DEFLATE;
  }

  Status Write(std::span<const std::byte> encoded) override {
    while (!encoded.empty()) {
      const std::size_t n = std::min<std::size_t>(encoded.size(), kGiB);
      LEAT_RETURN_IF_ERROR(WriteSome(encoded.first(n)));
      encoded = encoded.subspan(n);
    }
    return {};
  }

  Status Finish() override {
    if (phase_ == Phase::kWithin || phase_ == Phase::kFirst)
      return Fail(Errc::kCorrupt, fmt::format("the {} stream breaks off", Name()));
    return {};
  }

 private:
  enum class Phase : std::uint8_t { kFirst, kWithin, kBetween, kZeros };

  const char* Name() const { return gzip_ ? "gzip" : "deflate"; }

  Status WriteSome(std::span<const std::byte> encoded) {
    state_->next_in =
        const_cast<std::uint8_t*>(reinterpret_cast<const std::uint8_t*>(encoded.data()));
    state_->avail_in = static_cast<std::uint32_t>(encoded.size());
    while (state_->avail_in > 0 || more_out_) {
      if (phase_ == Phase::kBetween || phase_ == Phase::kZeros) {
        // The next member; or zeros, with which tapes were filled.
        if (*state_->next_in == 0 && gzip_) {
          phase_ = Phase::kZeros;
          ++state_->next_in;
          --state_->avail_in;
          continue;
        }
        if (phase_ == Phase::kZeros || !gzip_)
          return Fail(Errc::kCorrupt, fmt::format("something else follows the {} stream", Name()));
        isal_inflate_reset(state_.get());
        state_->crc_flag = ISAL_GZIP;
      }
      phase_ = Phase::kWithin;
      LEAT_RETURN_IF_ERROR(Step());
    }
    return {};
  }

  Status Step() {
    state_->next_out = out_.get();
    state_->avail_out = kOut;
    const std::uint32_t before = state_->avail_in;
    const int code = isal_inflate(state_.get());
    if (code < 0 || code == ISAL_NEED_DICT) {
      return Fail(Errc::kCorrupt, code == ISAL_INCORRECT_CHECKSUM
                                      ? fmt::format("the {} stream's checksum is wrong", Name())
                                      : fmt::format("the {} stream is damaged", Name()));
    }
    const std::size_t n = kOut - state_->avail_out;
    const bool ended = state_->block_state == ISAL_BLOCK_FINISH;
    more_out_ = !ended && state_->avail_out == 0;
    if (n > 0) LEAT_RETURN_IF_ERROR(sink_(std::as_bytes(std::span(out_.get(), n))));
    if (ended) {
      phase_ = Phase::kBetween;
    } else if (n == 0 && state_->avail_in == before && before > 0) {
      return Fail(Errc::kCorrupt, fmt::format("the {} stream is damaged", Name()));
    }
    return {};
  }

  const bool gzip_;
  const store::Sink sink_;
  const std::unique_ptr<inflate_state> state_;
  const std::unique_ptr<std::uint8_t[]> out_;
  Phase phase_ = Phase::kFirst;
  bool more_out_ = false;  // there was no room for all that is decoded
};

}  // namespace

std::unique_ptr<Decoder> MakeGzipDecoder(store::Sink sink) {
  return std::make_unique<Inflater>(true, std::move(sink));
}
std::unique_ptr<Decoder> MakeDeflateDecoder(store::Sink sink) {
  return std::make_unique<Inflater>(false, std::move(sink));
}

}  // namespace leat::archive
