// Bytes on their way from a store into a file: held to a digest while they are in the processor's
// cache, written in pieces that are worth a system call. Private to this folder.
#ifndef LEAT_TRANSFER_ARRIVAL_H_
#define LEAT_TRANSFER_ARRIVAL_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>

#include "base/context.h"
#include "base/error.h"
#include "digest/digest.h"
#include "digest/md5_lanes.h"

namespace leat::transfer {

/// One run of bytes that come in order. Used by the thread that makes it, which has one at a time.
class Arrival {
 public:
  using Write = std::function<Status(std::span<const std::byte>, std::uint64_t offset)>;
  /// `write` takes what begins at `offset`.
  Arrival(std::optional<digest::Kind> hash, std::uint64_t offset, Write write);

  /// Bytes before `offset` that an earlier attempt brought: a multiple of Md5Lanes::kBlock.
  Status HashBefore(int fd, std::uint64_t offset, std::uint64_t length, const CallContext& ctx);
  Status Take(std::span<const std::byte> piece);
  /// Writes what has arrived and is not written yet: for who gives up.
  Status Flush();
  /// After the last byte: the digest, "" where none is wanted.
  Result<std::string> Finish();

 private:
  static std::span<std::byte> Buffer();
  void Hash(std::span<const std::byte> blocks);

  std::uint64_t offset_;
  const Write write_;
  std::size_t gathered_ = 0;
  std::optional<digest::Md5Lanes::Stream> md5_;
  std::optional<digest::Hasher> other_;
};

/// Reads a file's bytes in pieces.
Status ReadPieces(int fd, std::uint64_t offset, std::uint64_t length, const CallContext& ctx,
                  const std::function<void(std::span<const std::byte>)>& use);

}  // namespace leat::transfer

#endif  // LEAT_TRANSFER_ARRIVAL_H_
