// xz, and LZMA as zips have it, by liblzma.
#include <fmt/format.h>
#include <lzma.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "archive/decoders.h"
#include "base/bytes.h"

namespace leat::archive {

namespace {

constexpr std::size_t kOut = kMiB;
/// A dictionary of 1 GiB, and what is beside it.
constexpr std::uint64_t kMostMemory = kMaxWindow + 64 * kMiB;

/// Owns a stream of liblzma's.
class Lzma : public Decoder {
 public:
  explicit Lzma(store::Sink sink)
      : sink_(std::move(sink)), out_(std::make_unique_for_overwrite<std::uint8_t[]>(kOut)) {}
  ~Lzma() override { lzma_end(&stream_); }

 protected:
  /// Until the input is used up, or the stream's end.
  Status Code(std::span<const std::byte> in, lzma_action action) {
    stream_.next_in = reinterpret_cast<const std::uint8_t*>(in.data());
    stream_.avail_in = in.size();
    for (;;) {
      stream_.next_out = out_.get();
      stream_.avail_out = kOut;
      const lzma_ret code = lzma_code(&stream_, action);
      const std::size_t n = kOut - stream_.avail_out;
      if (n > 0) LEAT_RETURN_IF_ERROR(sink_(std::as_bytes(std::span(out_.get(), n))));
      if (code == LZMA_STREAM_END) {
        ended_ = true;
        return {};
      }
      if (code != LZMA_OK && code != LZMA_BUF_ERROR) return Failed(code);
      if (code == LZMA_BUF_ERROR && action == LZMA_FINISH)
        return Fail(Errc::kCorrupt, "the xz stream breaks off");
      if (stream_.avail_in == 0 && stream_.avail_out > 0 && action == LZMA_RUN) return {};
    }
  }

  static std::unexpected<Error> Failed(lzma_ret code) {
    switch (code) {
      case LZMA_MEM_ERROR:
      case LZMA_MEMLIMIT_ERROR:
        return Fail(Errc::kUnsupported, "the xz stream needs more than 1 GiB to be decoded");
      case LZMA_OPTIONS_ERROR:
        return Fail(Errc::kUnsupported, "the xz stream has options that are not known");
      default:
        return Fail(Errc::kCorrupt, "the xz stream is damaged");
    }
  }

  lzma_stream stream_ = LZMA_STREAM_INIT;
  bool ended_ = false;

 private:
  const store::Sink sink_;
  const std::unique_ptr<std::uint8_t[]> out_;
};

class Xz final : public Lzma {
 public:
  Xz(std::size_t threads, std::uint64_t memory, store::Sink sink) : Lzma(std::move(sink)) {
    lzma_mt options = {};
    options.flags = LZMA_CONCATENATED;
    options.threads = static_cast<std::uint32_t>(std::clamp<std::size_t>(threads, 1, 64));
    options.memlimit_threading = std::min(memory, kMostMemory);
    options.memlimit_stop = kMostMemory;
    ready_ = lzma_stream_decoder_mt(&stream_, &options);
  }

  Status Write(std::span<const std::byte> encoded) override {
    if (ready_ != LZMA_OK) return Failed(ready_);
    return encoded.empty() ? Status() : Code(encoded, LZMA_RUN);
  }
  Status Finish() override {
    if (ready_ != LZMA_OK) return Failed(ready_);
    return Code({}, LZMA_FINISH);
  }

 private:
  lzma_ret ready_ = LZMA_OK;
};

class ZipLzma final : public Lzma {
 public:
  ZipLzma(std::uint64_t size, store::Sink sink) : Lzma(std::move(sink)), size_(size) {}

  Status Write(std::span<const std::byte> encoded) override {
    // A version of two bytes, the size of the properties, and those; they are .lzma's, which are
    // followed there by the size.
    while (header_.size() < kHeader && !encoded.empty()) {
      header_ += static_cast<char>(encoded[0]);
      encoded = encoded.subspan(1);
      if (header_.size() < kHeader) continue;
      if (header_[2] != 5 || header_[3] != 0)
        return Fail(Errc::kUnsupported, "the LZMA stream has options that are not known");
      if (const lzma_ret ready = lzma_alone_decoder(&stream_, kMostMemory); ready != LZMA_OK)
        return Failed(ready);
      std::string alone = header_.substr(4);
      for (int i = 0; i < 8; ++i) alone += static_cast<char>(size_ >> (8 * i));
      LEAT_RETURN_IF_ERROR(Code(AsBytes(alone), LZMA_RUN));
    }
    if (ended_ || encoded.empty()) return {};  // an end mark may follow the last byte
    return Code(encoded, LZMA_RUN);
  }
  Status Finish() override {
    if (ended_ || (size_ == 0 && header_.size() == kHeader)) return {};
    return Fail(Errc::kCorrupt, "the LZMA stream breaks off");
  }

 private:
  static constexpr std::size_t kHeader = 9;
  const std::uint64_t size_;
  std::string header_;
};

}  // namespace

std::unique_ptr<Decoder> MakeXzDecoder(std::size_t threads, std::uint64_t memory,
                                       store::Sink sink) {
  return std::make_unique<Xz>(threads, memory, std::move(sink));
}
std::unique_ptr<Decoder> MakeZipLzmaDecoder(std::uint64_t size, store::Sink sink) {
  return std::make_unique<ZipLzma>(size, std::move(sink));
}

}  // namespace leat::archive
