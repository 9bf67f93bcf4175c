// The records of docs/formats/snapshot.md, as they lie in the file: little-endian, each section at
// a multiple of 8. Private to this folder.
#ifndef LEAT_SNAPSHOT_FORMAT_H_
#define LEAT_SNAPSHOT_FORMAT_H_

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "digest/digest.h"

namespace leat::snapshot::format {

static_assert(std::endian::native == std::endian::little, "the file is mapped, not parsed");

inline constexpr char kMagic[8] = {'l', 'e', 'a', 't', 'S', 'N', 'A', 'P'};
inline constexpr std::uint32_t kVersion = 1;

enum Section : std::size_t {
  kSource,
  kBlocks,
  kDirectories,
  kChildren,
  kFiles,
  kVersions,
  kNames,
  kText,
  kLeftOut,
  kSectionCount
};

struct SectionRef {
  std::uint64_t offset = 0;
  std::uint64_t size = 0;
  std::uint64_t xxh3 = 0;
};

struct Header {
  char magic[8];
  std::uint32_t version;
  std::uint32_t header_size;
  std::uint64_t header_xxh3;  ///< of the header's bytes behind this field
  std::uint64_t file_size;
  std::uint64_t total_bytes;
  std::uint32_t file_count;
  std::uint32_t directory_count;
  std::uint32_t block_count;
  std::uint32_t left_out_count;
  digest::Sha256 pin;
  digest::Sha256 root;
  SectionRef sections[kSectionCount];
};
static_assert(sizeof(Header) == 336);
inline constexpr std::size_t kHeaderSumFrom = offsetof(Header, header_xxh3) + sizeof(std::uint64_t);

struct Block {
  std::uint32_t first_file;
  std::uint32_t file_count;
  digest::Sha256 sha256;
};
static_assert(sizeof(Block) == 40);

/// A name's place, length and flags in one word: offset in the names (48 bits), length (8), flags
/// (8).
struct NameRef {
  std::uint64_t word;
  static NameRef Of(std::uint64_t offset, std::size_t length, unsigned flags) {
    return {offset | (std::uint64_t{length} << 48) | (std::uint64_t{flags} << 56)};
  }
  std::uint64_t offset() const { return word & ((std::uint64_t{1} << 48) - 1); }
  std::uint32_t length() const { return static_cast<std::uint32_t>(word >> 48) & 0xff; }
  unsigned flags() const { return static_cast<unsigned>(word >> 56); }
};

struct Directory {
  NameRef name;
  std::uint32_t parent;
  std::uint32_t first_child;
  std::uint32_t child_count;
  std::uint32_t zero;
};
static_assert(sizeof(Directory) == 24);

inline constexpr std::uint32_t kChildIsDirectory = 0x8000'0000;
inline constexpr std::uint32_t kMaxEntries = 0x7fff'ffff;

/// How an etag is kept; the flags' two low bits.
enum EtagForm : unsigned { kNoEtag = 0, kMd5Etag = 1, kMultipartEtag = 2, kTextEtag = 3 };
inline constexpr unsigned kEtagFormMask = 3;
inline constexpr unsigned kArchived = 4;

struct File {
  NameRef name;
  std::uint64_t size;
  std::int64_t mtime_ns;
  std::uint32_t parent;
  std::uint32_t etag_parts;  ///< kMultipartEtag: the number behind the dash; kTextEtag: its length
  std::byte etag[16];        ///< raw digest; kTextEtag: u64 offset in the text, then zeros
};
static_assert(sizeof(File) == 48);

struct LeftOutRecord {
  std::uint64_t size;
  std::uint32_t key_length;
  std::uint32_t etag_length;
  // the key, the etag, zeros up to a multiple of 8
};
static_assert(sizeof(LeftOutRecord) == 16);

constexpr std::uint64_t Align8(std::uint64_t n) { return (n + 7) & ~std::uint64_t{7}; }

/// What pins and blocks are hashed over (docs/formats/snapshot.md, "The pin").
inline constexpr std::string_view kPinDomain = "leat manifest 1\n";
inline constexpr std::string_view kRootDomain = "leat blocks 1\n";

/// Appends one canonical record.
void AppendRecord(std::string& out, std::string_view relative_key, std::uint64_t size,
                  std::string_view etag);

/// Gathers records and hashes them in large pieces.
class RecordHasher {
 public:
  RecordHasher() : hasher_(digest::Kind::kSha256) {}
  void Update(std::string_view bytes);
  digest::Sha256 Finish();

 private:
  digest::Hasher hasher_;
  std::string buffer_;
};

/// Where blocks begin: a function of the keys near the boundary, so that one more key does not move
/// them all.
class BlockCutter {
 public:
  /// Whether a block begins with this file, the next in order.
  bool BeginsWith(std::string_view relative_key);

 private:
  std::uint32_t in_block_ = 0;
};

/// "md5" or "md5-parts" in lower-case hexadecimal, without leading zeros in the number.
bool PackEtag(std::string_view etag, EtagForm* form, std::uint32_t* parts, std::byte* raw);
/// The inverse; returns the length. `out` has room for kMaxPackedEtag.
inline constexpr std::size_t kMaxPackedEtag = 32 + 1 + 10;
std::size_t UnpackEtag(EtagForm form, std::uint32_t parts, const std::byte* raw, char* out);

}  // namespace leat::snapshot::format

#endif  // LEAT_SNAPSHOT_FORMAT_H_
