#include "archive/member_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <system_error>
#include <utility>

#include "archive/member_place.h"
#include "archive/member_reader.h"
#include "base/log.h"

namespace leat::archive {

namespace {

/// "e" and the etag, or "v" and the version's name where there is none, so that a listing with
/// versions and one without mean the same archive.
std::string VersionText(const store::Version& version) {
  return version.etag.empty() ? "v" + version.version_id : "e" + version.etag;
}

/// Lengths in front: no two different archives give the same text.
std::string IdentityOf(std::string_view store_identity, const store::ObjectInfo& archive) {
  const std::string version = VersionText(archive.version);
  return fmt::format("{}{}{}:{} {}:{} {}", store_identity, kMembersOf, archive.key.size(),
                     archive.key, version.size(), version, archive.size);
}

class MemberStore final : public store::ObjectStore {
 public:
  MemberStore(std::shared_ptr<store::ObjectStore> archive_store, store::ObjectInfo archive,
              std::string_view store_identity)
      : archive_store_(std::move(archive_store)),
        archive_(std::move(archive)),
        url_(archive_store_->UrlOf(archive_.key)),
        identity_(IdentityOf(store_identity.empty() ? archive_store_->Identity() : store_identity,
                             archive_)),
        reader_([this](std::uint64_t offset, std::uint64_t length, const store::Sink& sink,
                       const CallContext& ctx) { return ReadArchive(offset, length, sink, ctx); }) {
  }

  std::string_view Describe() const override { return url_; }
  std::string_view Identity() const override { return identity_; }
  store::Capabilities capabilities() const override {
    return {.ranges = true,
            .conditional_read = archive_store_->capabilities().conditional_read,
            .any_key = true};
  }
  std::string UrlOf(std::string_view key) const override { return url_ + ":" + Printable(key); }

  Status Read(std::string_view key, const store::ReadOptions& options, const store::Sink& sink,
              const CallContext& ctx) override {
    if (options.if_version.etag.empty())
      return Fail(Errc::kInvalid, UrlOf(key) + " can be read only by its place in the archive");
    auto place = PlaceOf(options.if_version.etag, archive_.size);
    if (!place) return Fail(std::move(place), UrlOf(key));
    if (options.on_info) {
      store::ObjectInfo info;
      info.key = key;
      info.size = place->size;
      info.version.etag = options.if_version.etag;
      if (place->kind == Place::Kind::kTar) info.expected = CrcOf(*place);
      LEAT_RETURN_IF_ERROR(options.on_info(info));
    }
    const std::uint64_t offset = std::min(options.offset, place->size);
    bool sinks = false;
    Status done = reader_.Read(
        *place, key.size(), offset, std::min(options.length, place->size - offset),
        [&](std::span<const std::byte> bytes) -> Status {
          Status taken = sink(bytes);
          sinks = !taken;
          return taken;
        },
        ctx);
    // What the sink said is its own, and what the archive's store did begins with its URL.
    if (done || sinks || done.error().message().starts_with(url_)) return done;
    return Fail(std::move(done), UrlOf(key));
  }

  Result<store::ObjectInfo> Stat(std::string_view key, std::string_view,
                                 const CallContext&) override {
    return Fail(Errc::kUnsupported, UrlOf(key) + ": members of an archive can only be read");
  }
  Result<store::ListPage> List(std::string_view prefix, const store::ListOptions&,
                               const CallContext&) override {
    return Fail(Errc::kUnsupported, UrlOf(prefix) + ": members of an archive can only be read");
  }
  Result<store::Version> Put(std::string_view key, std::span<const std::byte>,
                             const store::PutOptions&, const CallContext&) override {
    return Fail(Errc::kUnsupported, UrlOf(key) + ": members of an archive can only be read");
  }
  Status Remove(std::string_view key, const CallContext&) override {
    return Fail(Errc::kUnsupported, UrlOf(key) + ": members of an archive can only be read");
  }

 private:
  static digest::Expected CrcOf(const Place& place) {
    digest::Expected expected{digest::Kind::kCrc32c, {}};
    for (int shift = 24; shift >= 0; shift -= 8)
      expected.value += static_cast<char>((place.crc >> shift) & 0xFF);
    return expected;
  }

  Status ReadArchive(std::uint64_t offset, std::uint64_t length, const store::Sink& sink,
                     const CallContext& ctx) {
    std::uint64_t got = 0;
    store::ReadOptions options;
    options.offset = offset;
    options.length = length;
    options.if_version = archive_.version;
    options.on_info = [&](const store::ObjectInfo& info) -> Status {
      if (info.size == archive_.size) return {};
      return Fail(Errc::kConflict, fmt::format("{} was replaced while it was read ({} bytes are "
                                               "now {})",
                                               url_, archive_.size, info.size));
    };
    LEAT_RETURN_IF_ERROR(archive_store_->Read(
        archive_.key, options,
        [&](std::span<const std::byte> bytes) -> Status {
          if (bytes.size() > length - got)
            return Fail(Errc::kCorrupt, url_ + " sent more bytes than were asked for");
          got += bytes.size();
          return sink(bytes);
        },
        ctx));
    if (got == length) return {};
    return Fail(Errc::kCorrupt, fmt::format("{}: {} of {} bytes arrived", url_, got, length));
  }

  const std::shared_ptr<store::ObjectStore> archive_store_;  // shared with whoever made this one
  const store::ObjectInfo archive_;
  const std::string url_, identity_;
  MemberReader reader_;
};

/// Takes "LENGTH:TEXT " off; false where there is none.
bool TakeText(std::string_view& from, std::string& text) {
  std::size_t length = 0;
  const auto [end, error] = std::from_chars(from.data(), from.data() + from.size(), length);
  if (error != std::errc()) return false;
  from.remove_prefix(static_cast<std::size_t>(end - from.data()));
  if (!from.starts_with(':') || length > from.size() - 1 || from.substr(1 + length, 1) != " ")
    return false;
  text = from.substr(1, length);
  from.remove_prefix(length + 2);
  return true;
}

std::optional<store::ObjectInfo> ParseArchive(std::string_view text) {
  store::ObjectInfo archive;
  std::string version;
  if (!TakeText(text, archive.key) || !TakeText(text, version)) return std::nullopt;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), archive.size);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  if (version.starts_with('e')) {
    archive.version.etag = version.substr(1);
  } else if (version.starts_with('v')) {
    archive.version.version_id = version.substr(1);
  } else {
    return std::nullopt;
  }
  return archive;
}

}  // namespace

std::shared_ptr<store::ObjectStore> MakeMemberStore(
    std::shared_ptr<store::ObjectStore> archive_store, store::ObjectInfo archive,
    std::string store_identity) {
  return std::make_shared<MemberStore>(std::move(archive_store), std::move(archive),
                                       store_identity);
}

std::optional<store::ObjectInfo> ArchiveOfIdentity(std::string_view identity) {
  // (The name of a folder of this machine may have it, too.)
  for (auto at = identity.find(kMembersOf); at != identity.npos;
       at = identity.find(kMembersOf, at + 1)) {
    if (auto archive = ParseArchive(identity.substr(at + kMembersOf.size()))) return archive;
  }
  return std::nullopt;
}

}  // namespace leat::archive
