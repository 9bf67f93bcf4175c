#include "snapshot/format.h"

#include <array>
#include <charconv>

namespace leat::snapshot::format {
namespace {

constexpr std::size_t kHashPiece = 256 * kKiB;
constexpr std::uint32_t kMinBlock = 512;
constexpr std::uint32_t kMaxBlock = 4096;
constexpr std::uint64_t kCutMask = 511;  // with kMinBlock: 1,024 files on average

// Pairs of digits of each byte's hexadecimal form, and the value of each digit.
constexpr auto kHexPairs = [] {
  std::array<char, 512> t{};
  constexpr std::string_view digits = "0123456789abcdef";
  for (std::size_t i = 0; i < 256; ++i) {
    t[2 * i] = digits[i >> 4];
    t[2 * i + 1] = digits[i & 15];
  }
  return t;
}();
constexpr auto kHexValues = [] {
  std::array<std::uint8_t, 256> t{};
  for (auto& v : t) v = 0xff;
  for (std::uint8_t i = 0; i < 10; ++i) t['0' + i] = i;
  for (std::uint8_t i = 0; i < 6; ++i) t['a' + i] = static_cast<std::uint8_t>(10 + i);
  return t;
}();

}  // namespace

void AppendRecord(std::string& out, std::string_view relative_key, std::uint64_t size,
                  std::string_view etag) {
  const auto key_length = static_cast<std::uint32_t>(relative_key.size());
  const auto etag_length = static_cast<std::uint32_t>(etag.size());
  const std::size_t at = out.size();
  out.resize(at + 16 + relative_key.size() + etag.size());
  char* p = out.data() + at;
  const auto put = [&p](const void* from, std::size_t n) {
    if (n > 0) std::memcpy(p, from, n);
    p += n;
  };
  put(&key_length, 4);
  put(relative_key.data(), relative_key.size());
  put(&size, 8);
  put(&etag_length, 4);
  put(etag.data(), etag.size());
}

void RecordHasher::Update(std::string_view bytes) {
  buffer_ += bytes;
  if (buffer_.size() < kHashPiece) return;
  hasher_.Update(AsBytes(buffer_));
  buffer_.clear();
}

digest::Sha256 RecordHasher::Finish() {
  hasher_.Update(AsBytes(buffer_));
  buffer_.clear();
  const std::string bytes = hasher_.Finish();
  digest::Sha256 out;
  std::memcpy(out.data(), bytes.data(), out.size());
  return out;
}

bool BlockCutter::BeginsWith(std::string_view relative_key) {
  const bool cut =
      in_block_ == 0 || in_block_ >= kMaxBlock ||
      (in_block_ >= kMinBlock && (digest::Xxh3(AsBytes(relative_key)) & kCutMask) == 0);
  in_block_ = cut ? 1 : in_block_ + 1;
  return cut;
}

bool PackEtag(std::string_view etag, EtagForm* form, std::uint32_t* parts, std::byte* raw) {
  if (etag.size() < 32) return false;
  for (std::size_t i = 0; i < 16; ++i) {
    const unsigned hi = kHexValues[static_cast<unsigned char>(etag[2 * i])];
    const unsigned lo = kHexValues[static_cast<unsigned char>(etag[2 * i + 1])];
    if ((hi | lo) > 15) return false;
    raw[i] = static_cast<std::byte>((hi << 4) | lo);
  }
  *parts = 0;
  *form = kMd5Etag;
  if (etag.size() == 32) return true;
  *form = kMultipartEtag;
  const std::string_view number = etag.substr(33);
  if (etag[32] != '-' || number.empty() || (number[0] == '0' && number.size() > 1)) return false;
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), *parts);
  return error == std::errc() && end == number.data() + number.size();
}

std::size_t UnpackEtag(EtagForm form, std::uint32_t parts, const std::byte* raw, char* out) {
  for (std::size_t i = 0; i < 16; ++i) {
    std::memcpy(out + 2 * i, &kHexPairs[2 * std::to_integer<std::size_t>(raw[i])], 2);
  }
  if (form != kMultipartEtag) return 32;
  out[32] = '-';
  const char* end = std::to_chars(out + 33, out + kMaxPackedEtag, parts).ptr;
  return static_cast<std::size_t>(end - out);
}

}  // namespace leat::snapshot::format
