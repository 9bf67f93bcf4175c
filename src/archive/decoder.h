// Compressed streams: gzip (RFC 1952), bzip2, xz, zstd (RFC 8878) and LZ4 frames. Which one it is,
// the first bytes say.
#ifndef LEAT_ARCHIVE_DECODER_H_
#define LEAT_ARCHIVE_DECODER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "base/error.h"
#include "store/object_store.h"

namespace leat::archive {

enum class Codec : std::uint8_t { kNone, kGzip, kBzip2, kXz, kZstd, kLz4 };
/// By the magic; kNone for anything else, and for less than the magic's bytes.
Codec CodecOf(std::span<const std::byte> first);
std::string_view CodecName(Codec codec);  ///< "gzip"

/// kCorrupt, "is no archive: it begins with ...": for what is none of these, no tar and no zip.
std::unexpected<Error> FailNoArchive(std::span<const std::byte> first);

/// Decodes what is written to it, and hands it to a sink in order, on the thread that writes.
/// Several streams one after another are one (gzip members, xz streams, zstd frames, what pbzip2
/// and pzstd make). Checksums are held to. Not thread-safe; may use threads of its own.
class Decoder {
 public:
  /// `threads`: for formats that can be decoded in parallel. `memory`: bytes at most for it, more
  /// or less; a stream that needs more than 1 GiB of window is kUnsupported.
  static std::unique_ptr<Decoder> Make(Codec codec, std::size_t threads, std::uint64_t memory,
                                       store::Sink sink);
  virtual ~Decoder() = default;

  /// kCorrupt where it is no such stream, or a checksum does not match; the sink's own errors are
  /// handed on.
  virtual Status Write(std::span<const std::byte> encoded) = 0;
  /// After the last byte: kCorrupt where the stream is not at its end.
  virtual Status Finish() = 0;
};

}  // namespace leat::archive

#endif  // LEAT_ARCHIVE_DECODER_H_
