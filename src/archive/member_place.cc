#include "archive/member_place.h"

#include <fmt/compile.h>
#include <fmt/format.h>

#include <charconv>
#include <system_error>

#include "base/log.h"

namespace leat::archive {

namespace {

/// Takes a number and the text behind it off `text`; false where EtagOf would have written it
/// otherwise.
template <typename T>
bool TakeNumber(std::string_view& text, T& number, std::string_view behind) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || (text.front() == '0' && end != text.data() + 1)) return false;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  if (!text.starts_with(behind)) return false;
  text.remove_prefix(behind.size());
  return true;
}

bool IsCrc(std::string_view text, std::uint32_t& crc) {
  constexpr std::size_t kDigits = 8;
  if (text.size() != kDigits || text.find_first_not_of("0123456789abcdef") != text.npos)
    return false;
  std::from_chars(text.data(), text.data() + text.size(), crc, 16);
  return true;
}

bool Parse(std::string_view text, Place& place) {
  if (text.starts_with("tar:")) {
    text.remove_prefix(4);
    if (!TakeNumber(text, place.begin, "+") || !TakeNumber(text, place.size, ":")) return false;
    place.region = place.compressed = place.size;
    return IsCrc(text, place.crc);
  }
  if (!text.starts_with("zip:")) return false;
  text.remove_prefix(4);
  std::uint16_t method = 0;
  if (!TakeNumber(text, place.begin, "+") || !TakeNumber(text, place.region, ":") ||
      !TakeNumber(text, method, ":") || !TakeNumber(text, place.compressed, ":") ||
      !TakeNumber(text, place.size, ":"))
    return false;
  if (method == static_cast<std::uint16_t>(ZipMethod::kStored)) {
    place.kind = Place::Kind::kZipStored;
  } else if (method == static_cast<std::uint16_t>(ZipMethod::kDeflate)) {
    place.kind = Place::Kind::kZipDeflated;
  } else {
    return false;
  }
  return IsCrc(text, place.crc);
}

}  // namespace

std::string EtagOf(const Place& place) {
  if (place.kind == Place::Kind::kTar)
    return fmt::format(FMT_COMPILE("tar:{}+{}:{:08x}"), place.begin, place.size, place.crc);
  const ZipMethod method =
      place.kind == Place::Kind::kZipStored ? ZipMethod::kStored : ZipMethod::kDeflate;
  return fmt::format(FMT_COMPILE("zip:{}+{}:{}:{}:{}:{:08x}"), place.begin, place.region,
                     static_cast<unsigned>(method), place.compressed, place.size, place.crc);
}

bool IsPossible(const Place& place, std::uint64_t archive_size) {
  if (place.begin > archive_size || place.region > archive_size - place.begin) return false;
  if (place.kind == Place::Kind::kTar) return true;
  if (place.region < kZipLocalHeader || place.compressed > place.region - kZipLocalHeader)
    return false;
  if (place.kind == Place::Kind::kZipStored) return place.compressed == place.size;
  // A match of 258 bytes takes two bits at least.
  constexpr std::uint64_t kMostOfOneByte = 1032;
  return place.size / kMostOfOneByte + (place.size % kMostOfOneByte == 0 ? 0 : 1) <=
         place.compressed;
}

Result<Place> PlaceOf(std::string_view etag, std::uint64_t archive_size) {
  Place place;
  if (!Parse(etag, place) || !IsPossible(place, archive_size))
    return Fail(Errc::kCorrupt, fmt::format("its etag \"{}\" names no place in the archive",
                                            Printable(etag.substr(0, 200))));
  return place;
}

}  // namespace leat::archive
