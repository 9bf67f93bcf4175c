#include "snapshot/content.h"

#include <fmt/format.h>

#include <utility>

#include "base/bytes.h"

namespace leat::snapshot {

std::string Content::IdentityOf(FileIndex file) const {
  const FileInfo info = index->file(file);
  const std::string key = index->KeyOfFile(file);
  const std::string_view etag = info.etag;
  // An etag says what the bytes are; the version's name says it only where there is none, so that a
  // listing with versions and one without mean the same bytes.
  const std::string_view version = etag.empty() ? info.version_id : std::string_view();
  // Lengths in front: no two different files give the same text.
  return fmt::format("{}:{}\n{}:{}\n{}:{}\n{}:{}\n{}", index->store_identity().size(),
                     index->store_identity(), key.size(), key, etag.size(), etag, version.size(),
                     version, info.size);
}

store::Version Content::VersionOf(FileIndex file) const {
  const FileInfo info = index->file(file);
  return {std::string(std::string_view(info.etag)), std::string(info.version_id)};
}

EntryReader::EntryReader(std::shared_ptr<const Content> content, FileIndex file)
    : content_(std::move(content)), file_(file), shared_(std::make_shared<Shared>()) {}

std::optional<digest::Expected> EntryReader::expected() const {
  const std::lock_guard lock(shared_->mutex);
  return shared_->expected;
}

Status EntryReader::Read(std::uint64_t offset, std::uint64_t length, const store::Sink& sink,
                         const CallContext& ctx) {
  const std::uint64_t size = content_->index->file(file_).size;
  const bool whole = offset == 0 && length == size;
  std::optional<digest::Hasher> hasher;
  std::optional<digest::Expected> promised;
  std::uint64_t got = 0;
  store::ReadOptions options;
  options.offset = offset;
  // The whole is asked for without a range: then the store sends the checksums that it keeps.
  if (!whole) options.length = length;
  options.if_version = content_->VersionOf(file_);
  options.on_info = [&](const store::ObjectInfo& info) -> Status {
    if (info.size != size) {
      return Fail(Errc::kConflict,
                  fmt::format("{} has {} bytes, but {} were listed; it was replaced meanwhile",
                              content_->UrlOf(file_), info.size, size));
    }
    if (info.expected) {
      promised = info.expected;
      if (whole && got == 0) hasher.emplace(promised->kind);
      const std::lock_guard lock(shared_->mutex);
      shared_->expected = promised;
    }
    return {};
  };
  LEAT_RETURN_IF_ERROR(content_->store->Read(
      content_->index->KeyOfFile(file_), options,
      [&](std::span<const std::byte> piece) -> Status {
        if (hasher) hasher->Update(piece);
        got += piece.size();
        return sink(piece);
      },
      ctx));
  if (got != length) {
    return Fail(Errc::kCorrupt,
                fmt::format("{}: {} of {} bytes arrived", content_->UrlOf(file_), got, length));
  }
  if (whole && hasher) {
    const std::string actual = hasher->Finish();
    if (actual != promised->value) {
      return Fail(
          Errc::kCorrupt,
          fmt::format("{}: the bytes that arrived have the {} {}, but the store promised {}",
                      content_->UrlOf(file_), digest::KindName(promised->kind),
                      ToHex(AsBytes(actual)), ToHex(AsBytes(promised->value))));
    }
  }
  return {};
}

}  // namespace leat::snapshot
