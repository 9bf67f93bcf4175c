// LZ4 frames, by liblz4.
#include <lz4frame.h>

#include <cstdint>
#include <memory>
#include <utility>

#include "archive/decoders.h"
#include "base/bytes.h"

namespace leat::archive {

namespace {

constexpr std::size_t kOut = 512 * kKiB;

class Lz4 final : public Decoder {
 public:
  explicit Lz4(store::Sink sink)
      : sink_(std::move(sink)), out_(std::make_unique_for_overwrite<std::byte[]>(kOut)) {
    LZ4F_createDecompressionContext(&context_, LZ4F_VERSION);
  }
  ~Lz4() override { LZ4F_freeDecompressionContext(context_); }

  Status Write(std::span<const std::byte> encoded) override {
    while (!encoded.empty() || more_out_) {
      if (between_ && any_ && !encoded.empty() && (zeros_ || encoded[0] == std::byte{0})) {
        zeros_ = true;
        if (encoded[0] != std::byte{0})
          return Fail(Errc::kCorrupt, "something else follows the lz4 stream");
        encoded = encoded.subspan(1);
        continue;
      }
      std::size_t out = kOut;
      std::size_t in = encoded.size();
      const std::size_t wanted =
          LZ4F_decompress(context_, out_.get(), &out, encoded.data(), &in, nullptr);
      if (LZ4F_isError(wanted) != 0) return Fail(Errc::kCorrupt, "the lz4 stream is damaged");
      encoded = encoded.subspan(in);
      more_out_ = wanted != 0 && out == kOut;
      between_ = wanted == 0;
      any_ = true;
      if (out > 0) LEAT_RETURN_IF_ERROR(sink_(std::span(out_.get(), out)));
      if (in == 0 && out == 0) break;
    }
    return {};
  }
  Status Finish() override {
    if (!between_ || !any_) return Fail(Errc::kCorrupt, "the lz4 stream breaks off");
    return {};
  }

 private:
  const store::Sink sink_;
  const std::unique_ptr<std::byte[]> out_;
  LZ4F_dctx* context_ = nullptr;
  bool between_ = true, any_ = false, zeros_ = false, more_out_ = false;
};

}  // namespace

std::unique_ptr<Decoder> MakeLz4Decoder(store::Sink sink) {
  return std::make_unique<Lz4>(std::move(sink));
}

}  // namespace leat::archive
