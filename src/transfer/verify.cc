#include "transfer/verify.h"

#include <fmt/format.h>

#include <algorithm>
#include <mutex>

#include "base/bytes.h"
#include "base/thread_pool.h"
#include "store/http_answer.h"
#include "transfer/arrival.h"

namespace leat::transfer {
namespace {

Result<bool> HasThese(const HashSome& hash, const std::vector<store::PartDigest>& parts,
                      const std::string& etag, std::size_t threads) {
  std::vector<std::uint64_t> offsets;
  std::uint64_t offset = 0;
  for (const store::PartDigest& part : parts) {
    offsets.push_back(offset);
    offset += part.size;
  }
  std::vector<std::string> md5s(parts.size());
  std::mutex mutex;
  std::optional<Error> failure;
  ParallelFor(parts.size(), threads, [&](std::size_t i) {
    digest::Hasher md5(digest::Kind::kMd5);
    const Status hashed = hash(offsets[i], parts[i].size, md5);
    if (hashed) md5s[i] = md5.Finish();
    if (hashed) return true;
    const std::lock_guard lock(mutex);
    if (!failure) failure = hashed.error();
    return false;
  });
  if (failure) return std::unexpected(*failure);
  return SameParts(parts, md5s, etag);
}

/// Empty where the store does not tell.
Result<std::vector<store::PartDigest>> ToldParts(const Place& place, const Item& item,
                                                 const CallContext& ctx) {
  auto told = place.store->PartDigests(place.KeyOf(item.path), item.version, ctx);
  if (!told) {
    const Errc code = told.error().code();
    if (code == Errc::kUnsupported || code == Errc::kDenied || code == Errc::kInvalid)
      return std::vector<store::PartDigest>();
    return told;
  }
  std::uint64_t together = 0;
  for (const store::PartDigest& part : *told) together += part.size;
  std::erase_if(*told, [](const store::PartDigest& part) { return part.size == 0; });
  if (together != item.size) told->clear();
  return told;
}

}  // namespace

std::optional<digest::Expected> DigestOf(const Item& item) {
  if (item.expected) return item.expected;
  if (item.in_parts || item.version.etag.size() != 32) return std::nullopt;
  auto bytes = FromHex(item.version.etag);
  if (!bytes) return std::nullopt;
  return digest::Expected{digest::Kind::kMd5, *std::move(bytes)};
}

std::optional<digest::Expected> ExpectedOf(const store::ObjectInfo& info) {
  if (info.expected) return info.expected;
  const auto found = info.metadata.find("md5chksum");
  if (found == info.metadata.end() || !digest::CanHash(digest::Kind::kMd5)) return std::nullopt;
  auto md5 = digest::Base64Decode(found->second);
  if (!md5 || md5->size() != 16) return std::nullopt;
  return digest::Expected{digest::Kind::kMd5, *std::move(md5)};
}

std::unexpected<Error> FailDigest(const std::string& name, std::string_view what) {
  return Fail(Errc::kCorrupt,
              fmt::format("{}: the bytes that arrived do not have the {} that the store promised",
                          name, what));
}

Status HashRange(int fd, std::uint64_t offset, std::uint64_t length, digest::Hasher& hasher,
                 const CallContext& ctx) {
  return ReadPieces(fd, offset, length, ctx, [&](auto piece) { hasher.Update(piece); });
}

Result<std::string> HashFile(int fd, std::uint64_t size, digest::Kind kind,
                             const CallContext& ctx) {
  digest::Hasher hasher(kind);
  LEAT_RETURN_IF_ERROR(HashRange(fd, 0, size, hasher, ctx));
  return hasher.Finish();
}

Result<std::vector<store::PartDigest>> PartsOf(const Place& place, const Item& item,
                                               const CallContext& ctx) {
  std::vector<store::PartDigest> parts;
  if (!digest::CanHash(digest::Kind::kMd5) || !item.in_parts) return parts;
  const std::string_view etag = item.version.etag;
  if (etag.size() < 34 || etag[32] != '-') return ToldParts(place, item, ctx);
  const std::uint64_t count = store::ParseDecimal(etag.substr(33)).value_or(0);
  if (count == 0 || count > 100'000) return parts;
  const auto fits = [&](std::uint64_t part) {
    return part > 0 && (item.size + part - 1) / part == count;
  };
  // What clients use: leat and aws 8 MiB, rclone and boto 5 or 8, s3cmd 15, others powers of two.
  std::uint64_t size = count == 1 ? item.size : 0;
  for (const std::uint64_t mib : {8, 5, 16, 15, 32, 64, 10, 50, 100, 128, 256, 512, 1024}) {
    if (size == 0 && fits(mib * kMiB)) size = mib * kMiB;
  }
  const std::uint64_t least = (item.size / count + kMiB - 1) / kMiB * kMiB;
  if (size == 0 && fits(least)) size = least;
  for (std::uint64_t at = 0; size > 0 && at < item.size; at += size)
    parts.push_back({std::min(size, item.size - at), ""});
  return parts;
}

std::optional<std::uint64_t> PartSize(const std::vector<store::PartDigest>& parts) {
  if (parts.empty() || parts.back().size > parts[0].size ||
      !std::all_of(parts.begin(), parts.end() - 1,
                   [&](const auto& part) { return part.size == parts[0].size; })) {
    return std::nullopt;
  }
  return parts[0].size;
}

bool SameParts(const std::vector<store::PartDigest>& parts, const std::vector<std::string>& md5s,
               const std::string& etag) {
  digest::Hasher all(digest::Kind::kMd5);
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (!parts[i].md5.empty() && parts[i].md5 != md5s[i]) return false;
    all.Update(AsBytes(md5s[i]));
  }
  return !parts[0].md5.empty() || ToHex(AsBytes(all.Finish())) == etag.substr(0, 32);
}

Result<std::optional<bool>> HasParts(const HashSome& hash,
                                     const std::vector<store::PartDigest>& parts,
                                     const Place& place, const Item& item, std::size_t threads,
                                     const CallContext& ctx) {
  if (!digest::CanHash(digest::Kind::kMd5) || !item.in_parts) return std::nullopt;
  const std::string& etag = item.version.etag;
  if (!parts.empty()) {
    LEAT_ASSIGN_OR_RETURN(const bool same, HasThese(hash, parts, etag, threads));
    if (same || !parts[0].md5.empty()) return same;
  }
  LEAT_ASSIGN_OR_RETURN(const auto told, ToldParts(place, item, ctx));
  if (told.empty()) return std::nullopt;
  LEAT_ASSIGN_OR_RETURN(const bool same, HasThese(hash, told, etag, threads));
  // An etag that is made of no MD5s looks the same: a difference proves nothing.
  if (!same && told[0].md5.empty()) return std::nullopt;
  return same;
}

}  // namespace leat::transfer
