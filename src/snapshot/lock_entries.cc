#include "snapshot/lock_entries.h"

#include <fmt/format.h>
#include <zstd.h>

#include <algorithm>
#include <iterator>
#include <memory>
#include <utility>

#include "base/bytes.h"
#include "snapshot/fields.h"

namespace leat::snapshot {
namespace {

constexpr std::string_view kHead = "leat-entries 1\n";
constexpr int kLevel = 3;
// What compressed text may make us hold: a window, a line, and so many bytes for each of its own.
constexpr int kWindowLog = 23;
constexpr std::size_t kLongestLine = kMiB;
constexpr std::uint64_t kLargestRatio = 4096;
constexpr std::size_t kPiece = 256 * kKiB;

std::unexpected<Error> Bad(std::string_view why) {
  return Fail(Errc::kCorrupt, fmt::format("it is not a list of leat's locked entries: {}", why));
}
std::unexpected<Error> Bad(std::size_t zstd_error) {
  return Bad(fmt::format("zstd says: {}", ZSTD_getErrorName(zstd_error)));
}

/// Names a folder, and is not in the pin.
bool IsMarker(const LockedEntry& entry) {
  return entry.size == 0 && (entry.key.empty() || entry.key.ends_with('/'));
}

void AppendLine(std::string& out, const LockedEntry& entry) {
  fmt::format_to(std::back_inserter(out), "{}", entry.size);
  for (const std::string_view text : {entry.etag, entry.version_id, entry.key}) {
    out += ' ';
    AppendField(out, text);
  }
  out += '\n';
}

}  // namespace

std::optional<std::string_view> HexOfPin(std::string_view mf) {
  if (!mf.starts_with("mf:") || mf.size() != 67) return std::nullopt;
  mf.remove_prefix(3);
  if (mf.find_first_not_of("0123456789abcdef") != mf.npos) return std::nullopt;
  return mf;
}

std::string PinOf(const std::vector<LockedEntry>& entries) {
  format::RecordHasher hasher;
  hasher.Update(format::kPinDomain);
  std::string record;
  for (const LockedEntry& entry : entries) {
    record.clear();
    format::AppendRecord(record, entry.key, entry.size, entry.etag);
    hasher.Update(record);
  }
  return "mf:" + ToHex(hasher.Finish());
}

EntryTextReader::EntryTextReader() { hasher_.Update(format::kPinDomain); }

Status EntryTextReader::Feed(std::string_view piece) {
  while (!piece.empty()) {
    const std::size_t end = std::min(piece.find('\n'), piece.size());
    const bool whole = end < piece.size();
    if (rest_.size() + end > kLongestLine) return Bad("a line is too long");
    if (!whole || !rest_.empty()) rest_.append(piece.substr(0, end));
    if (!whole) return {};
    LEAT_RETURN_IF_ERROR(Take(rest_.empty() ? piece.substr(0, end) : std::string_view(rest_)));
    rest_.clear();
    piece.remove_prefix(end + 1);
  }
  return {};
}

Status EntryTextReader::Take(std::string_view line) {
  if (!begun_) {
    begun_ = line == kHead.substr(0, kHead.size() - 1);
    if (begun_) return {};
    return Bad(line.starts_with("leat-entries ") ? "its version is not known to this leat"
                                                 : "it begins otherwise");
  }
  if (entries_.size() >= format::kMaxEntries) return Bad("it has too many");
  const auto fields = SplitFields<4>(line);
  if (!fields) return Bad("a line is malformed");
  const auto size = ReadNumber<std::uint64_t>(fields->at(0));
  auto etag = ReadField(fields->at(1)), version = ReadField(fields->at(2)),
       key = ReadField(fields->at(3));
  if (!size || *size > INT64_MAX || !etag || !version || !key) return Bad("a line is malformed");
  LockedEntry entry{.key = *std::move(key),
                    .size = *size,
                    .etag = *std::move(etag),
                    .version_id = *std::move(version)};
  if (IsMarker(entry)) return Bad("it names a folder");
  if (!entries_.empty() && entries_.back().key >= entry.key)
    return Bad("its lines are out of order");
  record_.clear();
  format::AppendRecord(record_, entry.key, entry.size, entry.etag);
  hasher_.Update(record_);
  entries_.push_back(std::move(entry));
  return {};
}

Result<std::vector<LockedEntry>> EntryTextReader::Finish(std::string_view mf) {
  if (!begun_ || !rest_.empty()) return Bad("it has no end");
  if ("mf:" + ToHex(hasher_.Finish()) != mf) return Bad("its digest is not the one that names it");
  return std::move(entries_);
}

Result<std::string> EncodeEntries(const std::vector<LockedEntry>& entries) {
  const std::unique_ptr<ZSTD_CCtx, decltype(&ZSTD_freeCCtx)> zstd(ZSTD_createCCtx(),
                                                                  &ZSTD_freeCCtx);
  if (zstd == nullptr) return Fail(Errc::kInternal, "zstd has no memory");
  for (const auto& [parameter, value] :
       {std::pair(ZSTD_c_compressionLevel, kLevel), std::pair(ZSTD_c_checksumFlag, 1)}) {
    if (const std::size_t set = ZSTD_CCtx_setParameter(zstd.get(), parameter, value);
        ZSTD_isError(set))
      return Fail(Errc::kInternal, ZSTD_getErrorName(set));
  }
  std::string text(kHead), out;
  std::string piece(ZSTD_CStreamOutSize(), '\0');
  const auto compress = [&](ZSTD_EndDirective how) -> Status {
    ZSTD_inBuffer in{text.data(), text.size(), 0};
    for (std::size_t left = 1; left != 0;) {
      ZSTD_outBuffer to{piece.data(), piece.size(), 0};
      left = ZSTD_compressStream2(zstd.get(), &to, &in, how);
      if (ZSTD_isError(left)) return Fail(Errc::kInternal, ZSTD_getErrorName(left));
      out.append(piece, 0, to.pos);
      if (how == ZSTD_e_continue && in.pos == in.size) break;
    }
    text.clear();
    return {};
  };
  const LockedEntry* before = nullptr;
  for (const LockedEntry& entry : entries) {
    if (before != nullptr && before->key >= entry.key)
      return Fail(Errc::kInvalid, "locked entries are not in order");
    if (IsMarker(entry) || entry.size > INT64_MAX || entry.key.size() > kLongestLine / 4)
      return Fail(Errc::kInvalid, "what is locked is no file");
    before = &entry;
    AppendLine(text, entry);
    if (text.size() >= kPiece) LEAT_RETURN_IF_ERROR(compress(ZSTD_e_continue));
  }
  LEAT_RETURN_IF_ERROR(compress(ZSTD_e_end));
  return out;
}

Result<std::vector<LockedEntry>> DecodeEntries(std::string_view compressed, std::string_view mf) {
  const std::unique_ptr<ZSTD_DCtx, decltype(&ZSTD_freeDCtx)> zstd(ZSTD_createDCtx(),
                                                                  &ZSTD_freeDCtx);
  if (zstd == nullptr) return Fail(Errc::kInternal, "zstd has no memory");
  if (const std::size_t set = ZSTD_DCtx_setParameter(zstd.get(), ZSTD_d_windowLogMax, kWindowLog);
      ZSTD_isError(set))
    return Fail(Errc::kInternal, ZSTD_getErrorName(set));
  EntryTextReader reader;
  std::string piece(kPiece, '\0');
  std::uint64_t size = 0;
  ZSTD_inBuffer in{compressed.data(), compressed.size(), 0};
  for (;;) {
    ZSTD_outBuffer to{piece.data(), piece.size(), 0};
    const std::size_t left = ZSTD_decompressStream(zstd.get(), &to, &in);
    if (ZSTD_isError(left)) return Bad(left);
    size += to.pos;
    if (size / kLargestRatio > in.pos) return Bad("it grows beyond all measure");
    LEAT_RETURN_IF_ERROR(reader.Feed({piece.data(), to.pos}));
    if (left == 0) break;
    if (in.pos == in.size && to.pos < to.size) return Bad("it ends early");
  }
  if (in.pos != in.size) return Bad("bytes follow its end");
  return reader.Finish(mf);
}

}  // namespace leat::snapshot
