#include "transfer/arrival.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "os/file.h"

namespace leat::transfer {

Arrival::Arrival(std::optional<digest::Kind> hash, std::uint64_t offset, Write write)
    : offset_(offset), write_(std::move(write)) {
  if (hash == digest::Kind::kMd5) {
    md5_.emplace();
  } else if (hash) {
    other_.emplace(*hash);
  }
}

// libcurl hands on 16 KiB at a time; a write of 128 KiB costs hardly more than one of those.
std::span<std::byte> Arrival::Buffer() {
  thread_local std::vector<std::byte> buffer(128 * kKiB);
  return buffer;
}

void Arrival::Hash(std::span<const std::byte> blocks) {
  if (md5_) md5_->Update(blocks);
  if (other_) other_->Update(blocks);
}

Status Arrival::HashBefore(int fd, std::uint64_t offset, std::uint64_t length,
                           const CallContext& ctx) {
  if (!md5_ && !other_) return {};
  return ReadPieces(fd, offset, length, ctx, [this](auto piece) { Hash(piece); });
}

Status Arrival::Take(std::span<const std::byte> piece) {
  const auto buffer = Buffer();
  while (!piece.empty()) {
    if (gathered_ == buffer.size()) {
      Hash(buffer);
      LEAT_RETURN_IF_ERROR(Flush());
    }
    const std::size_t n = std::min(piece.size(), buffer.size() - gathered_);
    std::memcpy(buffer.data() + gathered_, piece.data(), n);
    gathered_ += n;
    piece = piece.subspan(n);
  }
  return {};
}

Status Arrival::Flush() {
  const auto rest = Buffer().first(std::exchange(gathered_, 0));
  if (rest.empty()) return {};
  offset_ += rest.size();
  return write_(rest, offset_ - rest.size());
}

Result<std::string> Arrival::Finish() {
  const auto rest = Buffer().first(gathered_);
  std::string digest;
  if (md5_) digest = md5_->Finish(rest);
  if (other_) {
    other_->Update(rest);
    digest = other_->Finish();
  }
  LEAT_RETURN_IF_ERROR(Flush());
  return digest;
}

Status ReadPieces(int fd, std::uint64_t offset, std::uint64_t length, const CallContext& ctx,
                  const std::function<void(std::span<const std::byte>)>& use) {
  thread_local std::vector<std::byte> buffer(256 * kKiB);
  while (length > 0) {
    if (ctx.cancelled()) return Fail(Errc::kCancelled, "cancelled");
    const auto piece = std::span(buffer).first(std::min<std::uint64_t>(length, buffer.size()));
    LEAT_RETURN_IF_ERROR(os::PreadAll(fd, piece, offset));
    use(piece);
    offset += piece.size();
    length -= piece.size();
  }
  return {};
}

}  // namespace leat::transfer
