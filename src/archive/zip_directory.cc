#include "archive/zip_directory.h"

#include <fmt/format.h>
#include <isa-l/crc.h>
#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "archive/member_path.h"
#include "base/bytes.h"
#include "base/log.h"

namespace leat::archive {

namespace {

constexpr std::uint32_t kLocalSignature = 0x04034b50, kEntrySignature = 0x02014b50,
                        kEndSignature = 0x06054b50, kEnd64Signature = 0x06064b50,
                        kLocatorSignature = 0x07064b50, kSpannedSignature = 0x08074b50;
constexpr std::size_t kEndSize = 22, kLocatorSize = 20, kEnd64Size = 56, kEntrySize = 46;
/// What is read of the end at once: a directory of some thousand members is in it.
constexpr std::uint64_t kTail = 256 * kKiB;
constexpr std::uint64_t kMaxDirectory = 2 * kGiB;
constexpr std::uint16_t kExtraZip64 = 0x0001, kExtraNtfs = 0x000a, kExtraTimestamp = 0x5455,
                        kExtraUnicodePath = 0x7075;
constexpr std::int64_t kSecond = 1'000'000'000;

template <typename T>
T Little(std::string_view at) {
  T value = 0;
  for (std::size_t i = sizeof(T); i-- > 0;)
    value =
        static_cast<T>(static_cast<std::uint64_t>(value) << 8 | static_cast<unsigned char>(at[i]));
  return value;
}
std::uint16_t U16(std::string_view s, std::size_t at) {
  return Little<std::uint16_t>(s.substr(at));
}
std::uint32_t U32(std::string_view s, std::size_t at) {
  return Little<std::uint32_t>(s.substr(at));
}
std::uint64_t U64(std::string_view s, std::size_t at) {
  return Little<std::uint64_t>(s.substr(at));
}

std::unexpected<Error> FailDamaged(std::string_view how) {
  return Fail(Errc::kCorrupt, fmt::format("the zip is damaged: {}", how));
}

/// What the end of the archive says of the directory (APPNOTE 4.3.14 to 4.3.16).
struct End {
  std::uint64_t at = 0;  ///< where the first of the end's records begins: the directory is over
  std::uint64_t entries = 0, size = 0, offset = 0;
  bool zip64 = false;
};

/// The last bytes of the object, from `begin` on.
struct Tail {
  std::uint64_t begin = 0;
  std::string bytes;

  std::string_view From(std::uint64_t offset) const {
    return std::string_view(bytes).substr(offset - begin);
  }
};

/// Where the end's record is in the tail: the last one whose comment ends with the object, or else
/// the last one whose comment lies within it.
std::optional<std::size_t> FindEnd(std::string_view tail) {
  std::optional<std::size_t> loose;
  if (tail.size() < kEndSize) return std::nullopt;
  for (std::size_t at = tail.size() - kEndSize + 1; at-- > 0;) {
    at = tail.rfind("PK\5\6", at);
    if (at == tail.npos) break;
    const std::size_t end = at + kEndSize + U16(tail, at + 20);
    if (end == tail.size()) return at;
    if (end < tail.size() && !loose) loose = at;
    // A comment has 64 KiB at most.
    if (tail.size() - at > kEndSize + UINT16_MAX) break;
  }
  return loose;
}

Result<End> ReadEnd(const Tail& tail, const ReadAt& read) {
  const auto found = FindEnd(tail.bytes);
  if (!found)
    return Fail(Errc::kCorrupt, "the zip has no directory at its end: it breaks off, or is none");
  const std::string_view record = std::string_view(tail.bytes).substr(*found, kEndSize);
  End end{tail.begin + *found, U16(record, 10), U32(record, 12), U32(record, 16), false};
  const std::uint16_t disk = U16(record, 4);
  const std::uint16_t first_disk = U16(record, 6);
  const auto volumes = [] {
    return Fail(Errc::kUnsupported, "the zip is one of several volumes; join them to one file");
  };
  if ((disk != 0 && disk != UINT16_MAX) || (first_disk != 0 && first_disk != UINT16_MAX))
    return volumes();
  if (*found < kLocatorSize) return end;
  const std::string_view locator =
      std::string_view(tail.bytes).substr(*found - kLocatorSize, kLocatorSize);
  if (U32(locator, 0) != kLocatorSignature) return end;
  if (U32(locator, 16) > 1) return volumes();
  // In front of its locator, or (where it has more than it needs) where that says.
  const std::uint64_t locator_at = end.at - kLocatorSize;
  for (const std::uint64_t at :
       {locator_at < kEnd64Size ? UINT64_MAX : locator_at - kEnd64Size, U64(locator, 8)}) {
    if (at > locator_at || locator_at - at < kEnd64Size) continue;
    std::string buffer(kEnd64Size, '\0');
    if (at >= tail.begin) {
      buffer = tail.From(at).substr(0, kEnd64Size);
    } else {
      LEAT_RETURN_IF_ERROR(read(at, std::as_writable_bytes(std::span(buffer))));
    }
    if (U32(buffer, 0) != kEnd64Signature || U64(buffer, 4) != locator_at - at - 12) continue;
    if (U32(buffer, 16) != 0 || U32(buffer, 20) != 0) return volumes();
    return End{at, U64(buffer, 32), U64(buffer, 40), U64(buffer, 48), true};
  }
  return FailDamaged("its zip64 end record is not where it should be");
}

std::int64_t DosTime(std::uint16_t date, std::uint16_t time) {
  using namespace std::chrono;
  const auto day = year_month_day(year(1980 + (date >> 9)), month((date >> 5) & 15U),
                                  std::chrono::day(date & 31U));
  if (!day.ok()) return 0;
  const auto at =
      sys_days(day) + hours(time >> 11) + minutes((time >> 5) & 63) + seconds((time & 31) * 2);
  return seconds(at.time_since_epoch()).count() * kSecond;
}

/// Extra fields (4.5); those that break off are passed over, as unzip does.
Status ReadExtras(std::string_view extra, std::uint64_t& size, std::uint64_t& compressed,
                  std::uint64_t& offset, Member& member) {
  bool unix_time = false;
  while (extra.size() >= 4) {
    const std::uint16_t id = U16(extra, 0);
    const std::size_t length = U16(extra, 2);
    if (length > extra.size() - 4) break;
    std::string_view field = extra.substr(4, length);
    extra.remove_prefix(4 + length);
    if (id == kExtraZip64) {
      for (std::uint64_t* value : {&size, &compressed, &offset}) {
        if (*value != UINT32_MAX) continue;
        if (field.size() < 8) return FailDamaged("a zip64 field breaks off");
        *value = U64(field, 0);
        field.remove_prefix(8);
      }
    } else if (id == kExtraTimestamp) {
      if (field.size() >= 5 && (field[0] & 1) != 0) {
        member.mtime_ns = static_cast<std::int32_t>(U32(field, 1)) * kSecond;
        unix_time = true;
      }
    } else if (id == kExtraNtfs && !unix_time) {
      // Four bytes that are reserved, then tags; the first has the times, in 100 ns since 1601.
      constexpr std::uint64_t kTo1970 = 116'444'736'000'000'000;
      if (field.size() >= 16 && U16(field, 4) == 1 && U64(field, 8) >= kTo1970 &&
          U64(field, 8) - kTo1970 < INT64_MAX / 100)
        member.mtime_ns = static_cast<std::int64_t>(U64(field, 8) - kTo1970) * 100;
    } else if (id == kExtraUnicodePath) {
      if (field.size() > 5 && field[0] == 1 &&
          U32(field, 1) ==
              crc32_gzip_refl(0, reinterpret_cast<const unsigned char*>(member.name.data()),
                              member.name.size()))
        member.name = field.substr(5);
    }
  }
  return {};
}

void SetKind(std::uint16_t made_by, std::uint32_t attributes, Member& member) {
  constexpr unsigned kFat = 0, kUnix = 3, kNtfs = 10, kVfat = 14, kDarwin = 19;
  const unsigned host = made_by >> 8;
  if (host == kFat || host == kNtfs || host == kVfat) {
    // Old archivers of Windows; a name with both has them for good.
    if (member.name.find('/') == member.name.npos) std::ranges::replace(member.name, '\\', '/');
    if ((attributes & 0x10) != 0) member.kind = MemberKind::kDirectory;
  } else if (host == kUnix || host == kDarwin) {
    const std::uint32_t mode = attributes >> 16;
    if ((mode & 0777) != 0) member.mode = mode & 0777;
    switch (mode & S_IFMT) {
      case 0:
      case S_IFREG:
        break;
      case S_IFDIR:
        member.kind = MemberKind::kDirectory;
        break;
      case S_IFLNK:
        member.kind = MemberKind::kSymlink;
        break;
      default:
        member.kind = MemberKind::kSpecial;
    }
  }
  if (member.kind == MemberKind::kFile && member.name.ends_with('/'))
    member.kind = MemberKind::kDirectory;
}

/// Reads the entry that `directory` begins with and takes it off (4.3.12).
Result<ZipMember> ReadEntry(std::string_view& directory) {
  if (directory.size() < kEntrySize || U32(directory, 0) != kEntrySignature)
    return FailDamaged("its directory has something else in place of a member");
  const std::size_t name = U16(directory, 28);
  const std::size_t extra = U16(directory, 30);
  const std::size_t whole = kEntrySize + name + extra + U16(directory, 32);
  if (whole > directory.size()) return FailDamaged("its directory breaks off");
  ZipMember out;
  const std::uint16_t flags = U16(directory, 8);
  constexpr std::uint16_t kEncrypted = 1U << 0, kMasked = 1U << 13;
  out.encrypted = (flags & (kEncrypted | kMasked)) != 0;
  out.method = U16(directory, 10);
  out.crc32 = U32(directory, 16);
  out.member.name = directory.substr(kEntrySize, name);
  out.member.mtime_ns = DosTime(U16(directory, 14), U16(directory, 12));
  out.compressed = U32(directory, 20);
  out.member.size = U32(directory, 24);
  out.begin = U32(directory, 42);
  LEAT_RETURN_IF_ERROR(ReadExtras(directory.substr(kEntrySize + name, extra), out.member.size,
                                  out.compressed, out.begin, out.member));
  SetKind(U16(directory, 4), U32(directory, 38), out.member);
  out.member.stored = out.compressed;
  const std::uint16_t disk = U16(directory, 34);
  if (disk != 0 && disk != UINT16_MAX)
    return Fail(Errc::kUnsupported, "the zip is one of several volumes; join them to one file");
  directory.remove_prefix(whole);
  return out;
}

/// Where each member's own bytes end, and that it is not before they should.
Status SetEnds(std::vector<ZipMember>& members, std::uint64_t directory_at) {
  const auto by_place = [](const ZipMember& a, const ZipMember& b) { return a.begin < b.begin; };
  if (!std::ranges::is_sorted(members, by_place)) std::ranges::stable_sort(members, by_place);
  for (std::size_t i = 0; i < members.size(); ++i) {
    ZipMember& m = members[i];
    m.end = i + 1 < members.size() ? members[i + 1].begin : directory_at;
    if (m.begin > m.end || m.end - m.begin < kZipLocalHeader ||
        m.end - m.begin - kZipLocalHeader < m.compressed)
      return FailDamaged(fmt::format("\"{}\" and what follows it overlap, or it lies outside",
                                     Printable(m.member.name)));
  }
  return {};
}

bool IsKnownMethod(std::uint16_t method) {
  switch (static_cast<ZipMethod>(method)) {
    case ZipMethod::kStored:
    case ZipMethod::kDeflate:
    case ZipMethod::kBzip2:
    case ZipMethod::kLzma:
    case ZipMethod::kZstd:
    case ZipMethod::kXz:
      return true;
  }
  return false;
}

}  // namespace

bool IsZip(std::span<const std::byte> first) {
  if (first.size() < 4) return false;
  const std::uint32_t signature = U32(AsText(first), 0);
  return signature == kLocalSignature || signature == kEndSignature ||
         signature == kSpannedSignature;
}

Result<std::vector<ZipMember>> ReadZipDirectory(std::uint64_t object_size, const ReadAt& read) {
  Tail tail;
  tail.begin = object_size - std::min(object_size, kTail);
  tail.bytes.resize(object_size - tail.begin);
  if (object_size > 0)
    LEAT_RETURN_IF_ERROR(read(tail.begin, std::as_writable_bytes(std::span(tail.bytes))));
  LEAT_ASSIGN_OR_RETURN(const End end, ReadEnd(tail, read));
  if (end.size > end.at) return FailDamaged("its directory begins before it");
  if (end.size > kMaxDirectory)
    return Fail(Errc::kUnsupported,
                fmt::format("the zip's directory has {}", FormatBytes(end.size)));
  if (end.entries > end.size / kEntrySize)
    return FailDamaged("its directory is too small for its members");

  std::string buffer;
  const auto bytes_at = [&](std::uint64_t at, std::uint64_t size) -> Result<std::string_view> {
    if (at >= tail.begin) return tail.From(at).substr(0, size);
    buffer.resize(size);
    LEAT_RETURN_IF_ERROR(read(at, std::as_writable_bytes(std::span(buffer))));
    return buffer;
  };
  const auto is_directory = [&](std::string_view bytes) {
    return end.entries == 0 || (bytes.size() >= 4 && U32(bytes, 0) == kEntrySignature);
  };
  // In front of the end, whatever its offset says: that counts from the zip's own beginning, before
  // which there may be a program that unpacks it. But there may also be something behind the
  // directory.
  std::uint64_t directory_at = end.at - end.size;
  LEAT_ASSIGN_OR_RETURN(std::string_view directory, bytes_at(directory_at, end.size));
  if (!is_directory(directory) && end.offset < directory_at) {
    directory_at = end.offset;
    LEAT_ASSIGN_OR_RETURN(directory, bytes_at(directory_at, end.size));
  }
  if (directory_at < end.offset || !is_directory(directory))
    return FailDamaged("its directory is not where its end says");
  const std::uint64_t in_front = directory_at - end.offset;

  std::vector<ZipMember> members;
  members.reserve(end.entries);
  while (directory.size() >= kEntrySize && U32(directory, 0) == kEntrySignature) {
    LEAT_ASSIGN_OR_RETURN(ZipMember m, ReadEntry(directory));
    if (m.begin > directory_at - in_front)
      return FailDamaged(fmt::format("\"{}\" lies outside", Printable(m.member.name)));
    m.begin += in_front;
    members.push_back(std::move(m));
  }
  // Some count to 65,535 only, and then from 0 again.
  const bool complete =
      end.zip64 ? members.size() == end.entries : members.size() % 65536 == end.entries % 65536;
  if (!complete)
    return FailDamaged(fmt::format("its directory has {} members, but should have {}",
                                   FormatCount(members.size()), FormatCount(end.entries)));
  LEAT_RETURN_IF_ERROR(SetEnds(members, directory_at));
  return members;
}

Status CheckZipMember(const ZipMember& member) {
  const std::string& name = member.member.name;
  if (member.encrypted)
    return Fail(Errc::kUnsupported, fmt::format("the member {} is encrypted", Quoted(name)));
  // The name is looked at before the method: it is the worse of the two.
  if (auto path = MemberPath(name); !path) return std::unexpected(path.error());
  if (member.member.kind == MemberKind::kDirectory || IsKnownMethod(member.method)) return {};
  return Fail(Errc::kUnsupported,
              fmt::format("the member {} is compressed by a method that is not known ({})",
                          Quoted(name), member.method));
}

Result<std::uint64_t> ZipLocalHeaderSize(std::span<const std::byte> first30) {
  const std::string_view text = AsText(first30);
  if (text.size() < kZipLocalHeader || U32(text, 0) != kLocalSignature)
    return FailDamaged("a member does not begin where the directory says");
  return kZipLocalHeader + U16(text, 26) + U16(text, 28);
}

}  // namespace leat::archive
