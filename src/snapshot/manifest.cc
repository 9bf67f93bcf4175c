#include "snapshot/manifest.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "base/bytes.h"
#include "digest/digest.h"
#include "snapshot/fields.h"

namespace leat::snapshot {
namespace {

constexpr std::string_view kHead = "leat-manifest 1\n";
constexpr std::string_view kFoot = "sha256 ";
constexpr std::uint64_t kLargest = 1ULL << 30;

std::string Sum(std::string_view text) { return ToHex(digest::HashSha256(AsBytes(text))); }

std::string LineOf(const ManifestEntry& e) {
  std::string out = fmt::format("{} {}", e.size, e.mtime_ns);
  for (const std::string_view text : {e.etag, e.path, e.key}) {
    out += ' ';
    AppendField(out, text);
  }
  return out;
}

std::optional<ManifestEntry> ParseLine(std::string_view line) {
  const auto fields = SplitFields<5>(line);
  if (!fields) return std::nullopt;
  const auto size = ReadNumber<std::uint64_t>(fields->at(0));
  const auto mtime = ReadNumber<std::int64_t>(fields->at(1));
  auto etag = ReadField(fields->at(2)), path = ReadField(fields->at(3)),
       key = ReadField(fields->at(4));
  if (!size || *size > INT64_MAX || !mtime || !etag || !path || !key) return std::nullopt;
  ManifestEntry entry{.path = *std::move(path),
                      .size = *size,
                      .mtime_ns = *mtime,
                      .etag = *std::move(etag),
                      .key = *std::move(key)};
  // Nothing lies but where it is to be looked for.
  if (entry.path.empty() || entry.path.starts_with(kControl) ||
      (!entry.key.empty() && entry.key != std::string(kStaged) + entry.path)) {
    return std::nullopt;
  }
  return entry;
}

}  // namespace

std::string Manifest::Encode() const {
  std::string out(kHead);
  for (const ManifestEntry& e : entries) out += LineOf(e) + "\n";
  return out + std::string(kFoot) + Sum(out) + "\n";
}

Result<Manifest> Manifest::Decode(std::string_view text) {
  const auto bad = [](const char* why) {
    return Fail(Errc::kCorrupt, fmt::format("it is not a manifest of leat's: {}", why));
  };
  if (!text.starts_with(kHead))
    return text.starts_with("leat-manifest ") ? bad("its version is not known to this leat")
                                              : bad("it begins otherwise");
  const std::size_t foot = text.rfind(kFoot);
  if (foot == text.npos || foot < kHead.size() || text[foot - 1] != '\n')
    return bad("it has no end");
  if (text.substr(foot) != fmt::format("{}{}\n", kFoot, Sum(text.substr(0, foot))))
    return bad("its checksum is wrong");
  text = text.substr(kHead.size(), foot - kHead.size());
  Manifest out;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    auto entry = ParseLine(text.substr(0, end));
    if (!entry) return bad("a line is malformed");
    if (!out.entries.empty() && out.entries.back().path >= entry->path)
      return bad("its lines are out of order");
    out.entries.push_back(*std::move(entry));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return out;
}

KeyMap Manifest::Moved(const std::string& prefix) const {
  KeyMap out;
  for (const ManifestEntry& e : entries) {
    if (!e.key.empty()) out[prefix + e.path] = prefix + e.key;
  }
  return out;
}

Result<Manifest> ReadManifest(store::ObjectStore& store, const std::string& prefix,
                              const CallContext& ctx, int tries) {
  const std::string key = prefix + std::string(kManifestKey);
  LEAT_ASSIGN_OR_RETURN(const store::ObjectInfo info, store.Stat(key, "", ctx));
  if (info.size > kLargest) return Fail(Errc::kCorrupt, store.UrlOf(key) + ": it is too large");
  // (naming a version would need another right)
  const store::Version pin =
      info.version.etag.empty() ? info.version : store::Version{.etag = info.version.etag};
  std::string text;
  const Status read = store.Read(
      key, {.if_version = pin},
      [&](std::span<const std::byte> piece) -> Status {
        text.append(reinterpret_cast<const char*>(piece.data()), piece.size());
        if (text.size() >= kHead.size() && !text.starts_with(kHead))
          return Fail(Errc::kCorrupt, "");
        return {};
      },
      ctx);
  if (!read && read.error().code() == Errc::kConflict && tries < 3)
    return ReadManifest(store, prefix, ctx, tries + 1);
  if (!read && read.error().code() != Errc::kCorrupt) return std::unexpected(read.error());
  auto manifest = Manifest::Decode(text);
  if (!manifest) return Fail(std::move(manifest), store.UrlOf(key));
  return manifest;
}

}  // namespace leat::snapshot
