#include "store/object_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstring>

#include "base/log.h"

namespace leat::store {

std::string NameOf(const Version& version) {
  if (!version.etag.empty()) return "etag \"" + Printable(version.etag) + "\"";
  if (!version.version_id.empty()) return "version " + Printable(version.version_id);
  return "no version";
}

bool SameVersion(const Version& wanted, const Version& now) {
  if (!wanted.version_id.empty() && !now.version_id.empty() &&
      wanted.version_id != now.version_id) {
    return false;
  }
  if (!wanted.etag.empty() && !now.etag.empty()) return wanted.etag == now.etag;
  if (!wanted.etag.empty()) return false;
  return wanted.version_id.empty() || wanted.version_id == now.version_id;
}

std::unexpected<Error> FailReplaced(const std::string& url, const Version& was,
                                    const Version& now) {
  const std::string to =
      !was.etag.empty() && !now.etag.empty() ? "\"" + Printable(now.etag) + "\"" : NameOf(now);
  return Fail(Errc::kConflict,
              url + " was replaced while it was read (" + NameOf(was) + " is now " + to + ")");
}

std::string ObjectStore::UrlOf(std::string_view key) const {
  std::string url(Describe());
  url += '/';
  url += Printable(key);
  return url;
}

namespace {

std::unexpected<Error> Lacks(const ObjectStore& store, const char* what) {
  return Fail(Errc::kUnsupported, std::string(store.Describe()) + ": " + what);
}

}  // namespace

Result<std::string> ObjectStore::BeginUpload(std::string_view, const PutOptions&,
                                             const CallContext&) {
  return Lacks(*this, "objects cannot be written in parts");
}
Result<Part> ObjectStore::PutPart(std::string_view, std::string_view, std::size_t,
                                  std::span<const std::byte>, const CallContext&) {
  return Lacks(*this, "objects cannot be written in parts");
}
Result<std::vector<Part>> ObjectStore::UploadedParts(std::string_view, std::string_view,
                                                     const CallContext&) {
  return Lacks(*this, "objects cannot be written in parts");
}
Result<Version> ObjectStore::CompleteUpload(std::string_view, std::string_view,
                                            std::span<const Part>, const PutOptions&,
                                            const CallContext&) {
  return Lacks(*this, "objects cannot be written in parts");
}
Status ObjectStore::AbortUpload(std::string_view, std::string_view, const CallContext&) {
  return Lacks(*this, "objects cannot be written in parts");
}
Result<std::vector<PartDigest>> ObjectStore::PartDigests(std::string_view, const Version&,
                                                         const CallContext&) {
  return Lacks(*this, "it does not tell of parts");
}
Result<Version> ObjectStore::CopyFrom(std::string_view, std::string_view, const Version&,
                                      std::string_view, const CallContext&) {
  return Lacks(*this, "the store does not copy by itself");
}
Result<Part> ObjectStore::CopyPart(std::string_view, std::string_view, const Version&,
                                   std::uint64_t, std::uint64_t, std::string_view, std::string_view,
                                   std::size_t, const CallContext&) {
  return Lacks(*this, "the store does not copy parts by itself");
}
std::vector<Status> ObjectStore::RemoveMany(std::span<const Removal> removals,
                                            const CallContext& ctx) {
  std::vector<Status> done;
  done.reserve(removals.size());
  for (const Removal& removal : removals) done.push_back(Remove(removal.key, ctx));
  return done;
}
Status ObjectStore::MakeBucket(const CallContext&) {
  return Lacks(*this, "nothing of that kind can be made there");
}
Status ObjectStore::RemoveBucket(const CallContext&) {
  return Lacks(*this, "nothing of that kind can be removed there");
}
Result<std::vector<BucketInfo>> ObjectStore::Buckets(const CallContext&) {
  return Lacks(*this, "it has no buckets to list");
}

std::optional<std::int64_t> MtimeOf(const Metadata& metadata) {
  const auto found = metadata.find("mtime");
  if (found == metadata.end()) return std::nullopt;
  const std::string_view text = found->second;
  std::int64_t seconds = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seconds);
  if (error != std::errc() || seconds > 9'000'000'000 || seconds < -9'000'000'000)
    return std::nullopt;
  std::string_view rest(end, static_cast<std::size_t>(text.data() + text.size() - end));
  std::int64_t ns = 0;
  if (rest.starts_with('.')) {
    rest.remove_prefix(1);
    std::int64_t unit = 100'000'000;
    for (; !rest.empty() && rest.front() >= '0' && rest.front() <= '9'; rest.remove_prefix(1)) {
      ns += (rest.front() - '0') * unit;
      unit /= 10;
    }
  }
  if (!rest.empty()) return std::nullopt;
  const bool negative = text.starts_with('-');
  return seconds * 1'000'000'000 + (negative ? -ns : ns);
}

void SetMtime(Metadata& metadata, std::int64_t ns) {
  const bool negative = ns < 0;
  const auto size = negative ? 0 - static_cast<std::uint64_t>(ns) : static_cast<std::uint64_t>(ns);
  metadata["mtime"] =
      fmt::format("{}{}.{:09}", negative ? "-" : "", size / 1'000'000'000, size % 1'000'000'000);
}

Result<std::size_t> ReadInto(ObjectStore& store, std::string_view key, std::span<std::byte> out,
                             ReadOptions options, const CallContext& ctx) {
  std::size_t filled = 0;
  options.length = out.size();
  const Sink copy = [&](std::span<const std::byte> piece) -> Status {
    if (piece.size() > out.size() - filled) {
      return Fail(Errc::kCorrupt, store.UrlOf(key) + " sent more bytes than were asked for");
    }
    if (!piece.empty()) std::memcpy(out.data() + filled, piece.data(), piece.size());
    filled += piece.size();
    return {};
  };
  LEAT_RETURN_IF_ERROR(store.Read(key, options, copy, ctx));
  return filled;
}

}  // namespace leat::store
