#include "net/url.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

#include "base/log.h"
#include "base/text.h"

namespace leat::net {
namespace {

using SysTime = std::chrono::system_clock::time_point;

bool IsAlphanumeric(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

int HexValue(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

int DefaultPort(std::string_view scheme) { return scheme == "http" ? 80 : 443; }

// Reads exactly `digits` decimal digits from the front of `text`.
bool TakeNumber(std::string_view& text, std::size_t digits, int& out) {
  if (text.size() < digits) return false;
  out = 0;
  for (const char c : text.substr(0, digits)) {
    if (c < '0' || c > '9') return false;
    out = out * 10 + (c - '0');
  }
  text.remove_prefix(digits);
  return true;
}

bool TakeText(std::string_view& text, std::string_view expected) {
  if (!text.starts_with(expected)) return false;
  text.remove_prefix(expected.size());
  return true;
}

std::optional<SysTime> MakeTime(int year, int month, int day, int hour, int minute, int second) {
  const std::chrono::year_month_day date{std::chrono::year(year),
                                         std::chrono::month(static_cast<unsigned>(month)),
                                         std::chrono::day(static_cast<unsigned>(day))};
  if (!date.ok() || hour > 23 || minute > 59 || second > 60) return std::nullopt;
  // The system clock's range is shorter than that of four-digit years.
  if (year < 1700 || year > 2200) return std::nullopt;
  return std::chrono::sys_days(date) + std::chrono::hours(hour) + std::chrono::minutes(minute) +
         std::chrono::seconds(second);
}

struct Civil {
  int year;
  unsigned month, day;
  long hour, minute, second;
};
Civil ToCivil(SysTime t) {
  const auto seconds = std::chrono::floor<std::chrono::seconds>(t);
  const auto days = std::chrono::floor<std::chrono::days>(seconds);
  const std::chrono::year_month_day date{days};
  const std::chrono::hh_mm_ss time{seconds - days};
  return {static_cast<int>(date.year()),
          static_cast<unsigned>(date.month()),
          static_cast<unsigned>(date.day()),
          static_cast<long>(time.hours().count()),
          static_cast<long>(time.minutes().count()),
          static_cast<long>(time.seconds().count())};
}

}  // namespace

std::string Url::Authority() const {
  return port == 0 || port == DefaultPort(scheme) ? host : fmt::format("{}:{}", host, port);
}

std::string Url::ForMessages() const { return fmt::format("{}://{}{}", scheme, Authority(), path); }

std::string Url::ToString() const {
  std::string out = scheme + "://";
  if (!user_info.empty()) out += user_info + "@";
  out += Authority() + path;
  if (!query.empty()) out += "?" + query;
  return out;
}

int Url::EffectivePort() const { return port != 0 ? port : DefaultPort(scheme); }

Result<Url> ParseUrl(std::string_view text) {
  const auto bad = [&](std::string_view why) {
    return Fail(Errc::kInvalid,
                fmt::format("\"{}\" is not a URL that can be used: {}", Redacted(text), why));
  };
  for (const char c : text) {
    const auto u = static_cast<unsigned char>(c);
    if (u <= 0x20 || u == 0x7f) return bad("it holds a space or a control character");
  }
  const auto colon = text.find("://");
  if (colon == text.npos) return bad("it does not begin with http:// or https://");
  Url url;
  url.scheme = Lower(text.substr(0, colon));
  if (url.scheme != "http" && url.scheme != "https") {
    return bad("it does not begin with http:// or https://");
  }
  std::string_view rest = text.substr(colon + 3);
  rest = rest.substr(0, rest.find('#'));
  const auto end = rest.find_first_of("/?");
  std::string_view authority = rest.substr(0, end);
  rest = end == rest.npos ? std::string_view() : rest.substr(end);

  if (const auto at = authority.rfind('@'); at != authority.npos) {
    url.user_info = authority.substr(0, at);
    authority.remove_prefix(at + 1);
  }
  std::string_view port;
  if (authority.starts_with('[')) {
    const auto close = authority.find(']');
    if (close == authority.npos) return bad("the IPv6 address has no \"]\"");
    url.host = Lower(authority.substr(0, close + 1));
    const std::string_view address = std::string_view(url.host).substr(1, close - 1);
    // A zone ("%25eth0") may hold any name.
    if (address.substr(0, address.find('%')).find_first_not_of("0123456789abcdef:.") !=
            address.npos ||
        address.find(':') == address.npos || address.find_first_of("[\\\"<>") != address.npos) {
      return bad("the IPv6 address is malformed");
    }
    port = authority.substr(close + 1);
    if (!port.empty() && !port.starts_with(':')) return bad("the port is malformed");
  } else {
    const auto at = authority.find(':');
    url.host = Lower(authority.substr(0, at));
    if (at != authority.npos) port = authority.substr(at);
    for (const char c : url.host) {
      const bool beyond_ascii = static_cast<unsigned char>(c) >= 0x80;
      if (!IsAlphanumeric(c) && !beyond_ascii &&
          std::string_view("-._~").find(c) == std::string_view::npos) {
        return bad("the host's name holds a character that names cannot have");
      }
    }
  }
  if (url.host.empty()) return bad("it has no host");
  if (port.size() > 1) {  // "http://host:/" means the default port
    port.remove_prefix(1);
    const auto [stop, ec] = std::from_chars(port.data(), port.data() + port.size(), url.port);
    if (ec != std::errc{} || stop != port.data() + port.size() || url.port < 1 ||
        url.port > 65535) {
      return bad("the port is not a number from 1 to 65535");
    }
  }
  const auto question = rest.find('?');
  url.path = rest.substr(0, question);
  if (url.path.empty()) url.path = "/";
  if (question != rest.npos) url.query = rest.substr(question + 1);
  return url;
}

std::string RemoveDotSegments(std::string_view path) {
  std::string out;
  while (!path.empty()) {
    // `path` begins with '/': take it and the segment behind it.
    const auto next = path.find('/', 1);
    const std::string_view segment = path.substr(0, next);
    path = next == path.npos ? std::string_view() : path.substr(next);
    if (segment == "/." || segment == "/..") {
      if (segment == "/..") out.resize(out.rfind('/') == out.npos ? 0 : out.rfind('/'));
      if (path.empty()) out += '/';
    } else {
      out += segment;
    }
  }
  return out;
}

std::string Redacted(std::string_view text) {
  std::string out(text);
  std::size_t shown = 0;
  if (const std::size_t at = out.rfind('@'); at != std::string::npos) {
    const std::size_t scheme = out.find("://");
    const bool has_scheme = scheme < at;
    const std::size_t begin = has_scheme ? scheme + 3 : out.find_last_of(" =", at) + 1;
    // "image@2x.png" is nobody's password.
    if (has_scheme || out.find(':', begin) < at) {
      out.replace(begin, at - begin, "...");
      shown = begin;
    }
  }
  const std::size_t query = out.find_first_of("?#", shown);
  const bool cut = query != std::string::npos;
  out.resize(std::min(query, out.size()));
  return Printable(cut ? out + "..." : out);
}

std::string WithoutSignature(std::string_view target) {
  static constexpr std::string_view kSigning =
      " signature expires policy key-pair-id awsaccesskeyid googleaccessid "
      "sig se st sp sv sr spr sip skoid sktid skt ske sks skv ";
  const std::string_view path = target.substr(0, target.find('?'));
  std::string_view query = target.substr(path.size());
  std::string kept(path);
  bool is_signed = false;
  for (char separator = '?'; !query.empty();) {
    query.remove_prefix(1);
    const std::string_view parameter = query.substr(0, query.find('&'));
    query.remove_prefix(parameter.size());
    const std::string name = Lower(parameter.substr(0, parameter.find('=')));
    is_signed |= name.ends_with("signature") || name == "sig";
    if (name.starts_with("x-amz-") || name.starts_with("x-goog-") ||
        kSigning.find(" " + name + " ") != kSigning.npos) {
      continue;
    }
    kept.append(1, std::exchange(separator, '&')).append(parameter);
  }
  return is_signed ? kept : std::string(target);
}

Result<Url> ResolveUrl(const Url& base, std::string_view reference) {
  std::string clean;
  for (const char c : reference) {  // many servers send what browsers forgive
    if (c == ' ') {
      clean += "%20";
    } else {
      clean += c;
    }
  }
  clean.resize(std::min(clean.size(), clean.find('#')));
  // A scheme is what precedes the first ':', if no '/' or '?' comes before.
  const auto stop = clean.find_first_of(":/?");
  if (stop != clean.npos && clean[stop] == ':') {
    auto url = ParseUrl(clean);
    if (url && url->user_info.empty() && url->scheme == base.scheme && url->host == base.host &&
        url->EffectivePort() == base.EffectivePort())
      url->user_info = base.user_info;
    return url;
  }
  if (clean.starts_with("//")) return ParseUrl(base.scheme + ":" + clean);
  std::string origin = base.scheme + "://";
  if (!base.user_info.empty()) origin += base.user_info + "@";
  origin += base.Authority();
  if (clean.empty()) return base;
  if (clean.starts_with('?')) return ParseUrl(origin + base.path + clean);
  const auto question = std::min(clean.find('?'), clean.size());
  std::string path = clean.substr(0, question);
  if (!path.starts_with('/')) path = base.path.substr(0, base.path.rfind('/') + 1) + path;
  return ParseUrl(origin + RemoveDotSegments(path) + clean.substr(question));
}

std::string PercentEncode(std::string_view text, bool keep_slash) {
  static constexpr char kDigits[] = "0123456789ABCDEF";
  std::string out;
  out.reserve(text.size() + text.size() / 4);
  for (const char c : text) {
    if (IsAlphanumeric(c) || c == '-' || c == '.' || c == '_' || c == '~' ||
        (keep_slash && c == '/')) {
      out += c;
    } else {
      const auto u = static_cast<unsigned char>(c);
      out += '%';
      out += kDigits[u >> 4];
      out += kDigits[u & 15];
    }
  }
  return out;
}

std::string PercentDecode(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size()) {
      const int high = HexValue(text[i + 1]);
      const int low = HexValue(text[i + 2]);
      if (high >= 0 && low >= 0) {
        out += static_cast<char>(high * 16 + low);
        i += 2;
        continue;
      }
    }
    out += text[i];
  }
  return out;
}

std::optional<SysTime> ParseHttpDate(std::string_view text) {
  static constexpr std::array<std::string_view, 7> kDays = {"Mon", "Tue", "Wed", "Thu",
                                                            "Fri", "Sat", "Sun"};
  static constexpr std::array<std::string_view, 12> kMonths = {
      "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  if (text.size() != 29) return std::nullopt;
  if (std::ranges::find(kDays, text.substr(0, 3)) == kDays.end()) return std::nullopt;
  text.remove_prefix(3);
  int day = 0, year = 0, hour = 0, minute = 0, second = 0;
  if (!TakeText(text, ", ") || !TakeNumber(text, 2, day) || !TakeText(text, " "))
    return std::nullopt;
  const auto month = std::ranges::find(kMonths, text.substr(0, 3));
  if (month == kMonths.end()) return std::nullopt;
  text.remove_prefix(3);
  if (!TakeText(text, " ") || !TakeNumber(text, 4, year) || !TakeText(text, " ") ||
      !TakeNumber(text, 2, hour) || !TakeText(text, ":") || !TakeNumber(text, 2, minute) ||
      !TakeText(text, ":") || !TakeNumber(text, 2, second) || text != " GMT") {
    return std::nullopt;
  }
  return MakeTime(year, static_cast<int>(month - kMonths.begin()) + 1, day, hour, minute, second);
}

std::optional<SysTime> ParseIsoDate(std::string_view text) {
  int year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0;
  if (!TakeNumber(text, 4, year) || !TakeText(text, "-") || !TakeNumber(text, 2, month) ||
      !TakeText(text, "-") || !TakeNumber(text, 2, day)) {
    return std::nullopt;
  }
  if (!TakeText(text, "T") && !TakeText(text, "t") && !TakeText(text, " ")) return std::nullopt;
  if (!TakeNumber(text, 2, hour) || !TakeText(text, ":") || !TakeNumber(text, 2, minute) ||
      !TakeText(text, ":") || !TakeNumber(text, 2, second)) {
    return std::nullopt;
  }
  auto time = MakeTime(year, month, day, hour, minute, second);
  if (!time) return std::nullopt;
  if (TakeText(text, ".")) {
    std::int64_t nanoseconds = 0, unit = 100'000'000;
    std::size_t digits = 0;
    for (; digits < text.size() && text[digits] >= '0' && text[digits] <= '9';
         ++digits, unit /= 10) {
      nanoseconds += unit * (text[digits] - '0');
    }
    if (digits == 0) return std::nullopt;
    text.remove_prefix(digits);
    *time += std::chrono::duration_cast<SysTime::duration>(std::chrono::nanoseconds(nanoseconds));
  }
  if (text.empty() || text == "Z" || text == "z") return time;
  const int sign = text.front() == '+' ? 1 : text.front() == '-' ? -1 : 0;
  text.remove_prefix(1);
  int offset_hours = 0, offset_minutes = 0;
  if (sign == 0 || !TakeNumber(text, 2, offset_hours)) return std::nullopt;
  TakeText(text, ":");
  if (!TakeNumber(text, 2, offset_minutes) || !text.empty() || offset_hours > 23 ||
      offset_minutes > 59) {
    return std::nullopt;
  }
  return *time - sign * (std::chrono::hours(offset_hours) + std::chrono::minutes(offset_minutes));
}

std::string FormatIsoBasic(SysTime t) {
  const Civil c = ToCivil(t);
  return fmt::format("{:04}{:02}{:02}T{:02}{:02}{:02}Z", c.year, c.month, c.day, c.hour, c.minute,
                     c.second);
}

std::string FormatDate(SysTime t) {
  const Civil c = ToCivil(t);
  return fmt::format("{:04}-{:02}-{:02} {:02}:{:02}:{:02} UTC", c.year, c.month, c.day, c.hour,
                     c.minute, c.second);
}

}  // namespace leat::net
