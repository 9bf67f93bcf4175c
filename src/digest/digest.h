// Hashes: SHA-256 for identities and pins, MD5 for what stores call etags, CRC32C and SHA-256 for
// what they call checksums, XXH3 for blocks that we wrote ourselves.
#ifndef LEAT_DIGEST_DIGEST_H_
#define LEAT_DIGEST_DIGEST_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace leat::digest {

using Sha256 = std::array<std::byte, 32>;

/// What a store may promise.
enum class Kind : std::uint8_t { kMd5, kSha1, kSha256, kCrc32c };
/// Whether this machine's OpenSSL has it: where FIPS binds it, there is no MD5.
bool CanHash(Kind kind);

/// One hash; not thread-safe.
class Hasher {
 public:
  explicit Hasher(Kind kind);
  ~Hasher();
  Hasher(Hasher&&) noexcept;
  Hasher& operator=(Hasher&&) noexcept;

  void Update(std::span<const std::byte> data);
  /// Ends it. MD5, SHA-1 and SHA-256 as their bytes, CRC32C as four bytes, big-endian (as base64 in
  /// x-amz-checksum-crc32c).
  std::string Finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

Sha256 HashSha256(std::span<const std::byte> data);
std::string HmacSha256(std::string_view key, std::string_view data);  ///< 32 bytes
std::uint64_t Xxh3(std::span<const std::byte> data);
std::uint32_t Crc32c(std::span<const std::byte> data, std::uint32_t before = 0);
/// Of what has `first`, followed by `second_size` bytes that have `second`.
std::uint32_t Crc32cCombine(std::uint32_t first, std::uint32_t second, std::uint64_t second_size);

/// Standard base64 with padding; Decode gives nullopt for anything else.
std::string Base64Encode(std::span<const std::byte> data);
std::optional<std::string> Base64Decode(std::string_view text);

/// What a store promised of a whole object: kind and raw bytes (as Hasher::Finish gives them).
struct Expected {
  Kind kind = Kind::kMd5;
  std::string value;
  bool operator==(const Expected&) const = default;
};
std::string_view KindName(Kind kind);  ///< "MD5", "SHA-256", ...
/// "md5:<hex>", "sha1:", "sha256:", "crc32c:": as files of ours name digests.
std::string ToText(const Expected& expected);
std::optional<Expected> FromText(std::string_view text);

}  // namespace leat::digest

#endif  // LEAT_DIGEST_DIGEST_H_
