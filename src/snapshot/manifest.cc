#include "snapshot/manifest.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>

#include "base/bytes.h"
#include "digest/digest.h"
#include "net/url.h"

namespace leat::snapshot {
namespace {

constexpr std::string_view kHead = "leat-manifest 1\n";
constexpr std::string_view kFoot = "sha256 ";
constexpr std::uint64_t kLargest = 1ULL << 30;

std::string Sum(std::string_view text) { return ToHex(digest::HashSha256(AsBytes(text))); }

template <typename T>
std::optional<T> Number(std::string_view text) {
  T out = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), out);
  if (ec != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return out;
}

std::string Field(std::string_view text) {
  return text.empty() ? "-" : text == "-" ? "%2D" : net::PercentEncode(text, true);
}
std::string Plain(std::string_view field) {
  return field == "-" ? std::string() : net::PercentDecode(field);
}

std::string LineOf(const ManifestEntry& e) {
  return fmt::format("{} {} {} {} {}", e.size, e.mtime_ns, Field(e.etag), Field(e.path),
                     Field(e.key));
}

std::optional<ManifestEntry> ParseLine(const std::string_view whole) {
  std::string_view line = whole;
  std::array<std::string_view, 5> fields;
  std::size_t count = 0;
  for (; count < fields.size() && !line.empty(); ++count) {
    const std::size_t end = std::min(line.find(' '), line.size());
    fields[count] = line.substr(0, end);
    line.remove_prefix(std::min(end + 1, line.size()));
  }
  if (count != fields.size() || !line.empty()) return std::nullopt;
  const auto size = Number<std::uint64_t>(fields[0]);
  const auto mtime = Number<std::int64_t>(fields[1]);
  if (!size || *size > INT64_MAX || !mtime) return std::nullopt;
  ManifestEntry entry{.path = Plain(fields[3]),
                      .size = *size,
                      .mtime_ns = *mtime,
                      .etag = Plain(fields[2]),
                      .key = Plain(fields[4])};
  // Nothing lies but where it is to be looked for; and there is one way to write a thing.
  if (entry.path.empty() || entry.path.starts_with(kControl) ||
      (!entry.key.empty() && entry.key != std::string(kStaged) + entry.path) ||
      LineOf(entry) != whole) {
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
