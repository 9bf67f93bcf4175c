#include <algorithm>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "job/context.h"

namespace leat::job {
namespace {

constexpr std::string_view kSpecial = "*?[\\";

std::size_t LiteralBytes(std::string_view pattern) {
  return std::min(pattern.find_first_of(kSpecial), pattern.size());
}

/// ASCII, as in the C locale.
bool InNamedClass(std::string_view name, unsigned char c) {
  const auto in = [c](char low, char high) { return c >= low && c <= high; };
  const bool upper = in('A', 'Z'), lower = in('a', 'z'), digit = in('0', '9');
  if (name == "upper") return upper;
  if (name == "lower") return lower;
  if (name == "digit") return digit;
  if (name == "alpha") return upper || lower;
  if (name == "alnum") return upper || lower || digit;
  if (name == "xdigit") return digit || in('a', 'f') || in('A', 'F');
  if (name == "blank") return c == ' ' || c == '\t';
  if (name == "space") return c == ' ' || in('\t', '\r');
  if (name == "cntrl") return c < 0x20 || c == 0x7F;
  if (name == "print") return in(' ', '~');
  if (name == "graph") return in('!', '~');
  return in('!', '~') && !(upper || lower || digit);  // punct
}
bool IsNamedClass(std::string_view name) {
  for (const std::string_view known : {"upper", "lower", "digit", "alpha", "alnum", "xdigit",
                                       "blank", "space", "cntrl", "print", "graph", "punct"}) {
    if (name == known) return true;
  }
  return false;
}

/// Whether the class at pattern[at] == '[' has `c`, and where it ends; nullopt: it is no class, and
/// then nothing matches.
struct ClassMatch {
  bool matches = false;
  std::size_t end = 0;
};
std::optional<ClassMatch> MatchClass(std::string_view pattern, std::size_t at, unsigned char c) {
  const auto byte = [&](std::size_t i) {
    return i < pattern.size() ? static_cast<unsigned char>(pattern[i]) : 0;
  };
  ++at;
  const bool negated = byte(at) == '!' || byte(at) == '^';
  if (negated) ++at;
  bool has = false;
  // The first may be ']' itself. `previous`: what a '-' makes a range of.
  unsigned previous = 0;
  for (bool first = true; first || byte(at) != ']'; first = false, ++at) {
    unsigned now = byte(at);
    if (now == 0) return std::nullopt;
    if (now == '-' && previous != 0 && byte(at + 1) != 0 && byte(at + 1) != ']') {
      now = byte(++at);
      if (now == '\\') now = byte(++at);
      if (now == 0) return std::nullopt;
      has = has || (c >= previous && c <= now);
      previous = 0;
      continue;
    }
    if (now == '[' && byte(at + 1) == ':') {
      const std::size_t end = pattern.find(']', at + 2);
      if (end == pattern.npos) return std::nullopt;
      if (end > at + 2 && pattern[end - 1] == ':') {
        const std::string_view name = pattern.substr(at + 2, end - at - 3);
        if (!IsNamedClass(name)) return std::nullopt;
        has = has || InNamedClass(name, c);
        at = end;
        previous = 0;
        continue;
      }
    } else if (now == '\\') {
      now = byte(++at);
      if (now == 0) return std::nullopt;
    }
    has = has || c == now;
    previous = now;
  }
  return ClassMatch{has != negated, at + 1};
}

/// The pattern as a whole against the text as a whole. In a path "*", "?" and classes stop at '/',
/// and "**" between slashes or ends stands for any number of folders.
///
/// What follows a star is tried at the nearest place first and further on after each failure. Going
/// back to the last star alone, and to the last that crosses folders, loses nothing: the nearest
/// place leaves the most for what comes after. So no pattern takes exponential time.
class Glob {
 public:
  Glob(std::string_view pattern, std::string_view text, bool is_path)
      : pattern_(pattern), text_(text), is_path_(is_path) {}

  bool Matches() {
    for (;;) {
      bool fits = true;
      if (At('*')) {
        if (TakeStar()) return true;
      } else if (p_ == pattern_.size()) {
        if (t_ == text_.size()) return true;
        fits = false;
      } else {
        fits = t_ < text_.size() && TakeOne();
      }
      if (!fits && !GoBack()) return false;
    }
  }

 private:
  struct Star {
    std::size_t pattern = std::string_view::npos;  ///< what follows it
    std::size_t text = 0;                          ///< where that is tried next
    bool by_folders = false;                       ///< then after each '/'
  };

  bool At(char c) const { return p_ < pattern_.size() && pattern_[p_] == c; }

  /// True: the rest matches whatever it is.
  bool TakeStar() {
    const std::size_t begin = p_;
    while (At('*')) ++p_;
    const bool after_slash = begin == 0 || pattern_[begin - 1] == '/';
    const bool before_slash = p_ == pattern_.size() || At('/') || pattern_.substr(p_, 2) == "\\/";
    const bool crosses = !is_path_ || (p_ - begin > 1 && after_slash && before_slash);
    if (p_ == pattern_.size() && (crosses || text_.find('/', t_) == text_.npos)) {
      return true;
    }
    if (!crosses) {
      star_ = {p_, t_, false};
      return false;
    }
    // (No folder at all is one of any number.)
    const bool by_folders = is_path_ && At('/');
    if (by_folders) ++p_;
    crossing_ = {p_, t_, by_folders};
    star_ = {};
    return false;
  }

  bool TakeOne() {
    const char c = text_[t_];
    switch (pattern_[p_]) {
      case '?':
        if (is_path_ && c == '/') return false;
        ++p_;
        break;
      case '[': {
        const auto match = MatchClass(pattern_, p_, static_cast<unsigned char>(c));
        if (!match || !match->matches || (is_path_ && c == '/')) return false;
        p_ = match->end;
        break;
      }
      case '\\':
        if (p_ + 1 == pattern_.size() || pattern_[p_ + 1] != c) return false;
        p_ += 2;
        break;
      default:
        if (pattern_[p_] != c) return false;
        ++p_;
    }
    ++t_;
    return true;
  }

  bool GoBack() {
    if (star_.pattern != text_.npos && star_.text < text_.size() && text_[star_.text] != '/') {
      t_ = ++star_.text;
      p_ = star_.pattern;
      return true;
    }
    star_ = {};
    if (crossing_.pattern == text_.npos || crossing_.text >= text_.size()) return false;
    if (crossing_.by_folders) {
      const std::size_t slash = text_.find('/', crossing_.text);
      if (slash == text_.npos) return false;
      crossing_.text = slash;
    }
    t_ = ++crossing_.text;
    p_ = crossing_.pattern;
    return true;
  }

  const std::string_view pattern_, text_;
  const bool is_path_;
  std::size_t p_ = 0, t_ = 0;
  Star star_, crossing_;
};

/// Without the spaces at its end, but for those after a backslash.
std::string_view WithoutTrailingSpaces(std::string_view line) {
  std::size_t end = 0;
  for (std::size_t i = 0; i < line.size(); ++i) {
    if (line[i] == '\\') {
      if (++i == line.size()) return line;
    } else if (line[i] == ' ') {
      continue;
    }
    end = i + 1;
  }
  return line.substr(0, end);
}

}  // namespace

void IgnoreRules::Add(std::string_view text) {
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  while (!text.empty()) {
    const std::size_t newline = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, newline);
    text.remove_prefix(std::min(newline + 1, text.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    line = line.substr(0, line.find('\0'));
    if (line.starts_with('#')) continue;
    line = WithoutTrailingSpaces(line);
    Rule rule;
    rule.negated = line.starts_with('!');
    if (rule.negated) line.remove_prefix(1);
    rule.folders_only = line.ends_with('/');
    if (rule.folders_only) line.remove_suffix(1);
    if (line.empty()) continue;
    rule.whole_path = line.contains('/');
    if (line.starts_with('/')) line.remove_prefix(1);
    rule.pattern = line;
    rule.literal = LiteralBytes(line);
    rules_.push_back(std::move(rule));
  }
}

bool IgnoreRules::IgnoresHere(std::string_view path, bool is_dir) const {
  const std::string_view name = path.substr(path.rfind('/') + 1);
  for (auto rule = rules_.rbegin(); rule != rules_.rend(); ++rule) {
    if (rule->folders_only && !is_dir) continue;
    const std::string_view text = rule->whole_path ? path : name;
    const std::string_view pattern = rule->pattern;
    if (!text.starts_with(pattern.substr(0, rule->literal))) continue;
    const bool matches =
        rule->literal == pattern.size()
            ? text.size() == pattern.size()
            : Glob(pattern.substr(rule->literal), text.substr(rule->literal), rule->whole_path)
                  .Matches();
    if (matches) return !rule->negated;
  }
  return false;
}

bool IgnoreRules::Ignores(std::string_view path, bool is_dir) const {
  for (std::size_t slash = path.find('/'); slash != path.npos; slash = path.find('/', slash + 1)) {
    if (IgnoresHere(path.substr(0, slash), true)) return true;
  }
  return IgnoresHere(path, is_dir);
}

}  // namespace leat::job
