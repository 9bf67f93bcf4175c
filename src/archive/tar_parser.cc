#include "archive/tar_parser.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/log.h"

namespace leat::archive {

namespace {

constexpr std::size_t kBlock = 512;
/// What a pax header or a long name may take.
constexpr std::uint64_t kMaxMeta = kMiB;
constexpr std::size_t kMaxExtents = kMiB;
/// Far above any file; sums of two do not overflow.
constexpr std::uint64_t kMaxSize = INT64_MAX / 2;
constexpr std::int64_t kSecond = 1'000'000'000;

/// A header's fields (POSIX.1-2017 pax, "ustar Interchange Format"; GNU tar's tar.h).
struct Field {
  std::size_t at, size;
};
constexpr Field kName{0, 100}, kMode{100, 8}, kSize{124, 12}, kMtime{136, 12}, kChecksum{148, 8},
    kLink{157, 100}, kMagic{257, 6}, kPrefix{345, 155};
constexpr std::size_t kType = 156;
/// GNU's sparse headers: pairs of offset and length of 12 bytes each.
constexpr std::size_t kSparse = 386, kSparseCount = 4, kSparseMore = 482;
constexpr Field kRealSize{483, 12};
constexpr std::size_t kExtendedCount = 21, kExtendedMore = 504;

std::string_view At(std::string_view block, Field field) {
  return block.substr(field.at, field.size);
}
std::string_view UntilNul(std::string_view text) { return text.substr(0, text.find('\0')); }

/// Octal text, or base-256 where the first bit is set. nullopt: neither, or more than 63 bits.
std::optional<std::int64_t> ParseNumber(std::string_view field) {
  const auto first = static_cast<unsigned char>(field[0]);
  if ((first & 0x80) != 0) {
    // Two's complement, big-endian; the first bit only marks it.
    const bool negative = (first & 0x40) != 0;
    std::int64_t value = negative ? -1 : 0;
    for (std::size_t i = 0; i < field.size(); ++i) {
      auto byte = static_cast<unsigned char>(field[i]);
      if (i == 0) byte = negative ? byte : byte & 0x7F;
      if (value > (INT64_MAX >> 8) || value < (INT64_MIN >> 8)) return std::nullopt;
      value = value * 256 + byte;
    }
    return value;
  }
  const auto begin = field.find_first_not_of(' ');
  if (begin == field.npos) return 0;
  std::int64_t value = 0;
  for (const char c : field.substr(begin)) {
    if (c == ' ' || c == '\0') break;
    if (c < '0' || c > '7' || value > (INT64_MAX >> 3)) return std::nullopt;
    value = value * 8 + (c - '0');
  }
  return value;
}

std::optional<std::uint64_t> ParseSizeField(std::string_view field) {
  const auto number = ParseNumber(field);
  if (!number || *number < 0 || static_cast<std::uint64_t>(*number) > kMaxSize) return std::nullopt;
  return static_cast<std::uint64_t>(*number);
}

std::optional<std::uint64_t> ParseDecimal(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value > kMaxSize)
    return std::nullopt;
  return value;
}

std::int64_t Nanoseconds(std::int64_t seconds, std::int64_t fraction) {
  constexpr std::int64_t kMost = INT64_MAX / kSecond - 1;
  return std::clamp(seconds, -kMost, kMost) * kSecond + fraction;
}

/// "1700000000.25", "-1.5".
std::optional<std::int64_t> ParseTime(std::string_view text) {
  const bool negative = text.starts_with('-');
  if (negative) text.remove_prefix(1);
  const auto dot = text.find('.');
  const auto seconds = ParseDecimal(text.substr(0, dot));
  if (!seconds) return std::nullopt;
  std::int64_t fraction = 0;
  std::int64_t unit = kSecond;
  for (const char c : dot == text.npos ? std::string_view() : text.substr(dot + 1)) {
    if (c < '0' || c > '9') return std::nullopt;
    unit /= 10;
    fraction += unit * (c - '0');
  }
  const std::int64_t time = Nanoseconds(static_cast<std::int64_t>(*seconds), fraction);
  return negative ? -time : time;
}

bool ChecksumIsRight(std::string_view block) {
  const auto wanted = ParseNumber(At(block, kChecksum));
  if (!wanted) return false;
  // The field itself counts as blanks. (Sums without branches are made in vectors.)
  const auto sum_of = [](std::string_view bytes, auto as_number) {
    std::int32_t sum = 0;
    for (const char c : bytes) sum += as_number(c);
    return sum;
  };
  const auto is_sum = [&](auto as_number) {
    return *wanted == sum_of(block.substr(0, kBlock), as_number) -
                          sum_of(At(block, kChecksum), as_number) +
                          static_cast<std::int32_t>(kChecksum.size) * ' ';
  };
  return is_sum([](char c) { return static_cast<unsigned char>(c); }) ||
         // as some old tars summed
         is_sum([](char c) { return static_cast<signed char>(c); });
}

bool IsZero(std::string_view block) { return block.find_first_not_of('\0') == block.npos; }

/// What pax headers say, and GNU's long names, which are their forerunners.
struct Overrides {
  std::optional<std::string> path, link, sparse_name;
  std::optional<std::uint64_t> size, real_size;
  std::optional<std::int64_t> mtime_ns;
  std::uint64_t sparse_major = 0;
  bool sparse = false;
  std::optional<std::uint64_t> sparse_offset;  // of format 0.0: its length follows
  std::vector<Extent> extents;
};

std::unexpected<Error> FailPax(std::string_view key) {
  return Fail(Errc::kCorrupt, fmt::format("the tar is damaged: a pax header has no {} that can be",
                                          Printable(key)));
}

Status AddExtent(std::vector<Extent>& extents, Extent extent) {
  if (extents.size() >= kMaxExtents)
    return Fail(Errc::kCorrupt, "a sparse file in the tar has too many pieces");
  extents.push_back(extent);
  return {};
}

/// GNU.sparse.map: "offset,length,offset,length".
Status ParseSparseMap(std::string_view text, std::vector<Extent>& extents) {
  extents.clear();
  bool has_offset = false;
  std::uint64_t offset = 0;
  while (!text.empty()) {
    const auto comma = text.find(',');
    const auto number = ParseDecimal(text.substr(0, comma));
    if (!number) return FailPax("GNU.sparse.map");
    if (has_offset) LEAT_RETURN_IF_ERROR(AddExtent(extents, {offset, *number}));
    has_offset = !has_offset;
    offset = *number;
    text = comma == text.npos ? std::string_view() : text.substr(comma + 1);
  }
  if (has_offset) return FailPax("GNU.sparse.map");
  return {};
}

Status ParseSparseRecord(std::string_view key, std::string_view value, Overrides& out) {
  out.sparse = true;
  if (key == "name") {
    out.sparse_name = value;
    return {};
  }
  if (key == "map") return ParseSparseMap(value, out.extents);
  if (key == "numblocks" || key == "minor") return {};
  const auto number = ParseDecimal(value);
  if (!number) return FailPax(fmt::format("GNU.sparse.{}", key));
  if (key == "size" || key == "realsize") {
    out.real_size = number;
  } else if (key == "major") {
    out.sparse_major = *number;
  } else if (key == "offset") {
    out.sparse_offset = number;
  } else if (key == "numbytes") {
    if (!out.sparse_offset) return FailPax("GNU.sparse.offset");
    LEAT_RETURN_IF_ERROR(AddExtent(out.extents, {*out.sparse_offset, *number}));
    out.sparse_offset.reset();
  }
  return {};
}

/// Records "LENGTH KEY=VALUE\n". An empty value takes back what was said before.
Status ParsePax(std::string_view text, bool global, Overrides& out) {
  while (!text.empty()) {
    // GNU tar pads nothing, but others end with NULs.
    if (IsZero(text)) break;
    const auto space = text.find(' ');
    const auto length = ParseDecimal(text.substr(0, space));
    if (space == text.npos || !length || *length > text.size() || *length < space + 3 ||
        text[*length - 1] != '\n')
      return FailPax("record");
    const std::string_view record = text.substr(space + 1, *length - space - 2);
    text.remove_prefix(*length);
    const auto equals = record.find('=');
    if (equals == record.npos) return FailPax("record");
    const std::string_view key = record.substr(0, equals);
    const std::string_view value = record.substr(equals + 1);
    if (key == "path") {
      out.path = value.empty() ? std::nullopt : std::optional<std::string>(value);
    } else if (key == "linkpath") {
      out.link = value.empty() ? std::nullopt : std::optional<std::string>(value);
    } else if (key == "size") {
      out.size = ParseDecimal(value);
      if (!value.empty() && !out.size) return FailPax(key);
    } else if (key == "mtime") {
      out.mtime_ns = ParseTime(value);
      if (!value.empty() && !out.mtime_ns) return FailPax(key);
    } else if (constexpr std::string_view kSparseKeys = "GNU.sparse.";
               !global && key.starts_with(kSparseKeys) && !value.empty()) {
      LEAT_RETURN_IF_ERROR(ParseSparseRecord(key.substr(kSparseKeys.size()), value, out));
    }
  }
  return {};
}

/// In order, within the file, and as many bytes together as are stored; empty ones are dropped.
Status CheckExtents(Member& member) {
  std::uint64_t end = 0;
  std::uint64_t sum = 0;
  for (const Extent& extent : member.extents) {
    if (extent.offset < end || extent.offset > member.size ||
        extent.length > member.size - extent.offset)
      return Fail(Errc::kCorrupt, fmt::format("the tar is damaged: the pieces of the sparse file "
                                              "\"{}\" do not lie in it in order",
                                              Printable(member.name)));
    end = extent.offset + extent.length;
    sum += extent.length;
  }
  if (sum != member.stored)
    return Fail(Errc::kCorrupt,
                fmt::format("the tar is damaged: the pieces of the sparse file \"{}\" have {} "
                            "bytes, but {} are stored",
                            Printable(member.name), sum, member.stored));
  std::erase_if(member.extents, [](const Extent& e) { return e.length == 0; });
  return {};
}

}  // namespace

bool IsTar(std::span<const std::byte> first) {
  if (first.size() < kBlock) return false;
  const std::string_view block = AsText(first.first(kBlock));
  return IsZero(block) || ChecksumIsRight(block);
}

struct TarParser::State {
  enum class Phase : std::uint8_t {
    kHeader,
    kMeta,       // a pax header or a long name, into meta
    kExtended,   // more of an old GNU sparse header
    kSparseMap,  // of pax 1.0, in front of the member's data
    kData,
    kSkip,  // what nobody wants, and what fills the last block
    kEnd,
  };

  explicit State(TarVisitor& to) : visitor(to) {}

  TarVisitor& visitor;
  Phase phase = Phase::kHeader;
  std::uint64_t position = 0;  // of the next byte
  std::array<char, kBlock> block = {};
  std::size_t filled = 0;
  bool any = false;   // there was a header
  bool zero = false;  // the last block was one of zeros
  char meta_type = 0;
  std::string meta;
  std::uint64_t left = 0;     // of meta, data or what is skipped
  std::uint64_t padding = 0;  // behind meta or data
  Overrides global, local;
  bool has_local = false;
  Member member;
  // Of a map of pax 1.0.
  std::uint64_t number = 0;
  bool digits = false;
  std::optional<std::uint64_t> count, offset;

  static std::uint64_t PaddingOf(std::uint64_t size) { return (kBlock - size % kBlock) % kBlock; }

  Overrides& Local() {
    if (!std::exchange(has_local, true)) local = global;
    return local;
  }
  void Skip(std::uint64_t bytes) {
    left = bytes;
    phase = left > 0 ? Phase::kSkip : Phase::kHeader;
  }

  Status Header(std::string_view header) {
    if (IsZero(header)) {
      phase = zero ? Phase::kEnd : Phase::kHeader;
      zero = any = true;
      return {};
    }
    if (!ChecksumIsRight(header)) {
      if (!any) return Fail(Errc::kCorrupt, "is no tar: its first header's checksum is wrong");
      return Fail(Errc::kCorrupt,
                  fmt::format("the tar is damaged: no header at byte {}, behind \"{}\"",
                              position - kBlock, Printable(member.name)));
    }
    any = true;
    zero = false;
    const char type = header[kType];
    const auto size = ParseSizeField(At(header, kSize));
    if (!size)
      return Fail(Errc::kCorrupt, fmt::format("the tar is damaged: \"{}\" has no size that can be",
                                              Printable(UntilNul(At(header, kName)))));
    switch (type) {
      case 'x':
      case 'X':  // Solaris
      case 'g':
      case 'L':
      case 'K':
        if (*size > kMaxMeta)
          return Fail(Errc::kCorrupt,
                      fmt::format("a header in the tar says that it has {}", FormatBytes(*size)));
        meta_type = type;
        meta.clear();
        left = *size;
        padding = PaddingOf(*size);
        phase = Phase::kMeta;
        return left == 0 ? EndMeta() : Status();
      case 'V':  // a volume's label
        ForgetLocal();
        Skip(*size + PaddingOf(*size));
        return {};
      case 'M':
        return Fail(Errc::kUnsupported, fmt::format("\"{}\" began in another volume of the tar",
                                                    Printable(UntilNul(At(header, kName)))));
      default:
        return BeginMember(header, type, *size);
    }
  }

  void ForgetLocal() {
    if (std::exchange(has_local, false)) local = {};
  }

  Status EndMeta() {
    if (meta_type == 'L') {
      Local().path = UntilNul(meta);
    } else if (meta_type == 'K') {
      Local().link = UntilNul(meta);
    } else if (meta_type == 'g') {
      LEAT_RETURN_IF_ERROR(ParsePax(meta, true, global));
    } else {
      LEAT_RETURN_IF_ERROR(ParsePax(meta, false, Local()));
    }
    meta = {};
    Skip(padding);
    return {};
  }

  static MemberKind KindOf(char type, std::string_view name) {
    switch (type) {
      case '1':
        return MemberKind::kHardLink;
      case '2':
        return MemberKind::kSymlink;
      case '3':
      case '4':
      case '6':
        return MemberKind::kSpecial;
      case '5':
      case 'D':
        return MemberKind::kDirectory;  // D: GNU's, with a list of what is in it
      case '\0':
      case '0':
      case '7':
        return name.ends_with('/') ? MemberKind::kDirectory : MemberKind::kFile;
      default:
        return MemberKind::kFile;  // what nobody knows is a file, says POSIX
    }
  }

  Status BeginMember(std::string_view header, char type, std::uint64_t header_size) {
    const Overrides& said = has_local ? local : global;
    // (What its strings have allocated is used again: there may be millions of members.)
    member.name.clear();
    const std::string_view prefix = UntilNul(At(header, kPrefix));
    // GNU's magic goes on with two blanks, and has other things there.
    if (At(header, kMagic) == std::string_view("ustar\0", 6) && !prefix.empty())
      member.name.append(prefix).append("/");
    member.name += UntilNul(At(header, kName));
    member.link = UntilNul(At(header, kLink));
    member.size = member.stored = 0;
    member.sparse = false;
    member.extents.clear();
    if (said.path) member.name = *said.path;
    if (said.sparse_name) member.name = *said.sparse_name;
    if (said.link) member.link = *said.link;
    member.kind = KindOf(type, member.name);
    member.mode = static_cast<std::uint32_t>(ParseNumber(At(header, kMode)).value_or(0644) & 0777);
    member.mtime_ns =
        said.mtime_ns.value_or(Nanoseconds(ParseNumber(At(header, kMtime)).value_or(0), 0));
    member.offset = position;
    const std::uint64_t size = said.size.value_or(header_size);
    if (member.kind != MemberKind::kFile) {
      // Data follow none of these, whatever its header says, but for what is a folder by its name.
      return EndMember(member.kind == MemberKind::kDirectory && type != '5' ? size : 0);
    }
    member.size = member.stored = size;
    left = size;
    padding = PaddingOf(size);
    if (type == 'S') return BeginOldSparse(header);
    if (said.sparse) {
      member.sparse = true;
      if (!said.real_size) return FailPax("GNU.sparse.size");
      member.size = *said.real_size;
      if (said.sparse_major > 1) return FailPax("GNU.sparse.major");
      if (said.sparse_major == 1) {
        number = 0;
        digits = false;
        count.reset();
        offset.reset();
        phase = Phase::kSparseMap;
        return {};
      }
      member.extents = said.extents;
    }
    return BeginData();
  }

  Status BeginOldSparse(std::string_view header) {
    member.sparse = true;
    const auto real = ParseSizeField(At(header, kRealSize));
    if (!real)
      return Fail(Errc::kCorrupt,
                  fmt::format("the tar is damaged: the sparse file \"{}\" has no size that can be",
                              Printable(member.name)));
    member.size = *real;
    LEAT_RETURN_IF_ERROR(AddOldSparse(header.substr(kSparse), kSparseCount));
    if (header[kSparseMore] == '\0') return BeginData();
    phase = Phase::kExtended;
    return {};
  }

  Status AddOldSparse(std::string_view pairs, std::size_t most) {
    for (std::size_t i = 0; i < most; ++i) {
      const std::string_view from = pairs.substr(i * 24, 12);
      const std::string_view length = pairs.substr(i * 24 + 12, 12);
      if (length[0] == '\0') break;
      const auto begin = ParseSizeField(from);
      const auto bytes = ParseSizeField(length);
      if (!begin || !bytes)
        return Fail(Errc::kCorrupt, fmt::format("the tar is damaged: a piece of the sparse file "
                                                "\"{}\" has no place that can be",
                                                Printable(member.name)));
      LEAT_RETURN_IF_ERROR(AddExtent(member.extents, {*begin, *bytes}));
    }
    return {};
  }

  Status Extended(std::string_view header) {
    LEAT_RETURN_IF_ERROR(AddOldSparse(header, kExtendedCount));
    return header[kExtendedMore] == '\0' ? BeginData() : Status();
  }

  /// Decimal numbers with a line each: how many pieces, then offset and length of each.
  Status SparseMap(std::string_view text) {
    const auto wrong = [&] {
      return Fail(Errc::kCorrupt,
                  fmt::format("the tar is damaged: the sparse file \"{}\" has no map of its pieces",
                              Printable(member.name)));
    };
    if (left < kBlock) return wrong();
    left -= kBlock;
    member.stored = left;
    for (const char c : text) {
      if (c >= '0' && c <= '9') {
        digits = true;
        number = number * 10 + static_cast<std::uint64_t>(c - '0');
        if (number > kMaxSize) return wrong();
        continue;
      }
      if (c != '\n' || !digits) return wrong();
      const std::uint64_t value = std::exchange(number, 0);
      digits = false;
      if (!count) {
        count = value;
      } else if (!offset) {
        offset = value;
      } else {
        LEAT_RETURN_IF_ERROR(AddExtent(member.extents, {*offset, value}));
        offset.reset();
      }
      if (member.extents.size() == *count && !offset) return BeginData();
    }
    return {};
  }

  Status BeginData() {
    member.offset = position;
    if (member.sparse) LEAT_RETURN_IF_ERROR(CheckExtents(member));
    if (left == 0) return EndMember(0);
    ForgetLocal();
    phase = Phase::kData;
    return visitor.OnMember(member);
  }

  /// Of a member without bytes; `skipped` follow that are nobody's.
  Status EndMember(std::uint64_t skipped) {
    ForgetLocal();
    Skip(skipped + PaddingOf(skipped));
    LEAT_RETURN_IF_ERROR(visitor.OnMember(member));
    return visitor.OnMemberEnd();
  }

  Status OnBlock(std::string_view whole) {
    switch (phase) {
      case Phase::kExtended:
        return Extended(whole);
      case Phase::kSparseMap:
        return SparseMap(whole);
      default:
        return Header(whole);
    }
  }

  Status Write(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      std::size_t taken = 0;
      switch (phase) {
        case Phase::kHeader:
        case Phase::kExtended:
        case Phase::kSparseMap: {
          if (filled == 0 && bytes.size() >= kBlock) {
            position += kBlock;
            LEAT_RETURN_IF_ERROR(OnBlock(AsText(bytes.first(kBlock))));
            taken = kBlock;
            break;
          }
          taken = std::min(bytes.size(), kBlock - filled);
          std::memcpy(block.data() + filled, bytes.data(), taken);
          filled += taken;
          position += taken;
          if (filled == kBlock) {
            filled = 0;
            LEAT_RETURN_IF_ERROR(OnBlock(std::string_view(block.data(), kBlock)));
          }
          break;
        }
        case Phase::kMeta:
          taken = std::min<std::uint64_t>(bytes.size(), left);
          meta.append(AsText(bytes.first(taken)));
          position += taken;
          left -= taken;
          if (left == 0) LEAT_RETURN_IF_ERROR(EndMeta());
          break;
        case Phase::kData:
          taken = std::min<std::uint64_t>(bytes.size(), left);
          position += taken;
          left -= taken;
          LEAT_RETURN_IF_ERROR(visitor.OnData(bytes.first(taken)));
          if (left == 0) {
            Skip(padding);
            LEAT_RETURN_IF_ERROR(visitor.OnMemberEnd());
          }
          break;
        case Phase::kSkip:
          taken = std::min<std::uint64_t>(bytes.size(), left);
          position += taken;
          Skip(left - taken);
          break;
        case Phase::kEnd:
          return {};
      }
      bytes = bytes.subspan(taken);
    }
    return {};
  }

  Status Finish() const {
    if (phase == Phase::kEnd || (phase == Phase::kHeader && filled == 0 && any && !has_local))
      return {};
    if (!any) return Fail(Errc::kCorrupt, "is no tar: it is shorter than a header");
    return Fail(Errc::kCorrupt, fmt::format("the tar breaks off at byte {}, {} \"{}\"", position,
                                            phase == Phase::kData || phase == Phase::kSparseMap ||
                                                    phase == Phase::kExtended
                                                ? "within"
                                                : "behind",
                                            Printable(member.name)));
  }
};

TarParser::TarParser(TarVisitor& visitor) : state_(std::make_unique<State>(visitor)) {}
TarParser::~TarParser() = default;
Status TarParser::Write(std::span<const std::byte> bytes) { return state_->Write(bytes); }
Status TarParser::Finish() { return state_->Finish(); }

}  // namespace leat::archive
