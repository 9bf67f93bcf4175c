#include "digest/digest.h"

#include "base/bytes.h"

#include <isa-l/crc.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <xxhash.h>

#include <algorithm>

namespace leat::digest {

struct Hasher::State {
  Kind kind = Kind::kMd5;
  EVP_MD_CTX* evp = nullptr;
  std::uint32_t crc = 0;
  ~State() { EVP_MD_CTX_free(evp); }
};

namespace {

const EVP_MD* MdOf(Kind kind) {
  switch (kind) {
    case Kind::kMd5:
      return EVP_md5();
    case Kind::kSha1:
      return EVP_sha1();
    case Kind::kSha256:
      return EVP_sha256();
    case Kind::kCrc32c:
      break;
  }
  return nullptr;
}

const unsigned char* Raw(std::span<const std::byte> data) {
  return reinterpret_cast<const unsigned char*>(data.data());
}

}  // namespace

bool CanHash(Kind kind) {
  const auto starts = [](Kind k) {
    const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(),
                                                                          &EVP_MD_CTX_free);
    return EVP_DigestInit_ex(context.get(), MdOf(k), nullptr) == 1;
  };
  static const bool md5 = starts(Kind::kMd5);
  return kind != Kind::kMd5 || md5;
}

Hasher::Hasher(Kind kind) : state_(std::make_unique<State>()) {
  state_->kind = kind;
  if (const EVP_MD* md = MdOf(kind)) {
    state_->evp = EVP_MD_CTX_new();
    EVP_DigestInit_ex(state_->evp, md, nullptr);
  }
}
Hasher::~Hasher() = default;
Hasher::Hasher(Hasher&&) noexcept = default;
Hasher& Hasher::operator=(Hasher&&) noexcept = default;

void Hasher::Update(std::span<const std::byte> data) {
  if (state_->evp != nullptr) {
    EVP_DigestUpdate(state_->evp, data.data(), data.size());
  } else {
    state_->crc = Crc32c(data, state_->crc);
  }
}

std::string Hasher::Finish() {
  if (state_->evp != nullptr) {
    std::string out(EVP_MAX_MD_SIZE, '\0');
    unsigned int size = 0;
    EVP_DigestFinal_ex(state_->evp, reinterpret_cast<unsigned char*>(out.data()), &size);
    out.resize(size);
    return out;
  }
  std::string out;
  for (int shift = 24; shift >= 0; shift -= 8)
    out += static_cast<char>((state_->crc >> shift) & 0xff);
  return out;
}

Sha256 HashSha256(std::span<const std::byte> data) {
  Sha256 out;
  EVP_Digest(data.data(), data.size(), reinterpret_cast<unsigned char*>(out.data()), nullptr,
             EVP_sha256(), nullptr);
  return out;
}

std::string HmacSha256(std::string_view key, std::string_view data) {
  std::string out(32, '\0');
  unsigned int size = 0;
  HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()),
       reinterpret_cast<const unsigned char*>(data.data()), data.size(),
       reinterpret_cast<unsigned char*>(out.data()), &size);
  return out;
}

std::uint64_t Xxh3(std::span<const std::byte> data) {
  return XXH3_64bits(data.data(), data.size());
}

std::uint32_t Crc32c(std::span<const std::byte> data, std::uint32_t before) {
  // ISA-L takes an int length and leaves both inversions to the caller.
  std::uint32_t crc = ~before;
  while (!data.empty()) {
    const std::size_t n = std::min<std::size_t>(data.size(), 1u << 30);
    crc = crc32_iscsi(const_cast<unsigned char*>(Raw(data)), static_cast<int>(n), crc);
    data = data.subspan(n);
  }
  return ~crc;
}

std::uint32_t Crc32cCombine(std::uint32_t first, std::uint32_t second, std::uint64_t second_size) {
  // A CRC is a polynomial over GF(2), its highest bit the coefficient of x^0: bytes that follow
  // multiply it by x^8 each.
  constexpr std::uint32_t kPolynomial = 0x82f63b78, kOne = 1u << 31;
  const auto times = [](std::uint32_t a, std::uint32_t b) {
    std::uint32_t product = 0;
    for (std::uint32_t bit = kOne; bit != 0; bit >>= 1) {
      if ((a & bit) != 0) product ^= b;
      b = (b & 1) != 0 ? b >> 1 ^ kPolynomial : b >> 1;
    }
    return product;
  };
  std::uint32_t shift = kOne, power = kOne >> 8;
  for (; second_size != 0; second_size >>= 1, power = times(power, power)) {
    if ((second_size & 1) != 0) shift = times(power, shift);
  }
  return times(shift, first) ^ second;
}

std::string Base64Encode(std::span<const std::byte> data) {
  std::string out((data.size() + 2) / 3 * 4 + 1, '\0');
  const int n = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()), Raw(data),
                                static_cast<int>(data.size()));
  out.resize(static_cast<std::size_t>(n));
  return out;
}

std::optional<std::string> Base64Decode(std::string_view text) {
  if (text.size() % 4 != 0) return std::nullopt;
  // EVP_DecodeBlock is content with white space around it, and with '=' anywhere.
  const std::size_t padding = text.ends_with("==") ? 2 : text.ends_with("=") ? 1 : 0;
  for (const char c : text.substr(0, text.size() - padding)) {
    const bool known = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
                       c == '+' || c == '/';
    if (!known) return std::nullopt;
  }
  std::string out(text.size() / 4 * 3 + 1, '\0');
  const int n = EVP_DecodeBlock(reinterpret_cast<unsigned char*>(out.data()),
                                reinterpret_cast<const unsigned char*>(text.data()),
                                static_cast<int>(text.size()));
  if (n < 0) return std::nullopt;
  out.resize(static_cast<std::size_t>(n) - padding);
  return out;
}

std::string_view KindName(Kind kind) {
  switch (kind) {
    case Kind::kMd5:
      return "MD5";
    case Kind::kSha1:
      return "SHA-1";
    case Kind::kSha256:
      return "SHA-256";
    case Kind::kCrc32c:
      return "CRC32C";
  }
  return "digest";
}

namespace {
constexpr std::array kTextNames = {
    std::pair(Kind::kMd5, std::string_view("md5:")),
    std::pair(Kind::kSha1, std::string_view("sha1:")),
    std::pair(Kind::kSha256, std::string_view("sha256:")),
    std::pair(Kind::kCrc32c, std::string_view("crc32c:")),
};
constexpr std::size_t SizeOf(Kind kind) {
  return kind == Kind::kMd5 ? 16 : kind == Kind::kSha1 ? 20 : kind == Kind::kSha256 ? 32 : 4;
}
}  // namespace

std::string ToText(const Expected& expected) {
  for (const auto& [kind, name] : kTextNames) {
    if (kind == expected.kind) return std::string(name) + ToHex(AsBytes(expected.value));
  }
  return "";
}

std::optional<Expected> FromText(std::string_view text) {
  for (const auto& [kind, name] : kTextNames) {
    if (!text.starts_with(name)) continue;
    auto value = FromHex(text.substr(name.size()));
    if (!value || value->size() != SizeOf(kind)) return std::nullopt;
    return Expected{kind, std::move(*value)};
  }
  return std::nullopt;
}

}  // namespace leat::digest
