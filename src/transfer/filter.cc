#include "transfer/filter.h"

#include <fmt/format.h>

#include "base/log.h"
#include "base/text.h"

namespace leat::transfer {
namespace {

constexpr std::size_t kMostAlternatives = 1000;

/// The character class that begins at `pattern[at]`, which is '['; where it ends in `at`.
bool InClass(std::string_view pattern, std::size_t& at, char c) {
  std::size_t i = at + 1;
  const bool negated = i < pattern.size() && (pattern[i] == '^' || pattern[i] == '!');
  if (negated) ++i;
  bool in = false;
  for (bool first = true; i < pattern.size() && (first || pattern[i] != ']'); first = false, ++i) {
    const char from = pattern[i];
    if (i + 2 < pattern.size() && pattern[i + 1] == '-' && pattern[i + 2] != ']') {
      in = in || (from <= c && c <= pattern[i + 2]);
      i += 2;
    } else {
      in = in || from == c;
    }
  }
  at = i + 1;
  return in != negated && c != '/';
}

/// Linear in the product of both lengths: a star remembers where to try again, and so does the last
/// double star.
bool Match(std::string_view pattern, std::string_view path) {
  constexpr std::size_t kNone = static_cast<std::size_t>(-1);
  std::size_t p = 0, t = 0;
  std::size_t star = kNone, star_at = 0;    // behind "*", and how far it reaches
  std::size_t stars = kNone, stars_at = 0;  // the same of "**"
  for (;;) {
    if (p < pattern.size() && pattern[p] == '*') {
      if (p + 1 < pattern.size() && pattern[p + 1] == '*') {
        while (p < pattern.size() && pattern[p] == '*') ++p;
        stars = p;
        stars_at = t;
        star = kNone;
      } else {
        star = ++p;
        star_at = t;
      }
      continue;
    }
    if (p == pattern.size() && t == path.size()) return true;
    bool same = false;
    std::size_t next = p + 1;
    if (p < pattern.size() && t < path.size()) {
      const char c = path[t];
      if (pattern[p] == '?') {
        same = c != '/';
      } else if (pattern[p] == '[') {
        next = p;
        same = InClass(pattern, next, c);
      } else if (pattern[p] == '\\' && p + 1 < pattern.size()) {
        same = pattern[p + 1] == c;
        next = p + 2;
      } else {
        same = pattern[p] == c;
      }
    }
    if (same) {
      p = next;
      ++t;
    } else if (star != kNone && star_at < path.size() && path[star_at] != '/') {
      p = star;
      t = ++star_at;
    } else if (stars != kNone && stars_at < path.size()) {
      p = stars;
      t = ++stars_at;
      star = kNone;
    } else {
      return false;
    }
  }
}

/// "a{b,c}d" as "abd" and "acd"; braces nest.
Status Expand(std::string_view pattern, std::vector<std::string>& out) {
  std::size_t open = 0;
  for (; open < pattern.size() && pattern[open] != '{'; ++open) {
    if (pattern[open] == '\\') ++open;
    if (open < pattern.size() && pattern[open] == '}')
      return Fail(Errc::kInvalid, "a \"}\" without its \"{\"");
  }
  if (open >= pattern.size()) {
    if (out.size() == kMostAlternatives) return Fail(Errc::kInvalid, "too many alternatives");
    out.emplace_back(pattern);
    return {};
  }
  int depth = 0;
  std::size_t close = open, begin = open + 1;
  std::vector<std::string_view> choices;
  for (; close < pattern.size(); ++close) {
    const char c = pattern[close];
    if (c == '\\') {
      ++close;
    } else if (c == '{') {
      ++depth;
    } else if (depth == 1 && (c == ',' || c == '}')) {
      choices.push_back(pattern.substr(begin, close - begin));
      begin = close + 1;
      if (c == '}') break;
    } else if (c == '}') {
      --depth;
    }
  }
  if (close >= pattern.size()) return Fail(Errc::kInvalid, "a \"{\" without its \"}\"");
  for (const std::string_view choice : choices) {
    LEAT_RETURN_IF_ERROR(Expand(std::string(pattern.substr(0, open)) + std::string(choice) +
                                    std::string(pattern.substr(close + 1)),
                                out));
  }
  return {};
}

}  // namespace

Result<Glob> Glob::Parse(std::string_view pattern) {
  const auto fail = [&](std::string_view why) {
    return Fail(Errc::kInvalid, fmt::format("the pattern \"{}\": {}", Printable(pattern), why));
  };
  if (pattern.empty()) return fail("it is empty");
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] == '\\') {
      if (++i == pattern.size()) return fail("nothing follows the last \"\\\"");
    } else if (pattern[i] == '[' && pattern.find(']', i + 2) == pattern.npos) {
      return fail("a \"[\" without its \"]\"");
    }
  }
  Glob glob;
  std::string text(pattern);
  glob.rooted_ = text.starts_with('/');
  if (glob.rooted_) text.erase(0, 1);
  if (text.empty() || text.ends_with('/')) text += "**";
  if (const Status expanded = Expand(text, glob.alternatives_); !expanded)
    return fail(expanded.error().message());
  return glob;
}

bool Glob::Matches(std::string_view path) const {
  for (const std::string& pattern : alternatives_) {
    if (Match(pattern, path)) return true;
    if (rooted_) continue;
    for (std::size_t slash = path.find('/'); slash != path.npos;
         slash = path.find('/', slash + 1)) {
      if (Match(pattern, path.substr(slash + 1))) return true;
    }
  }
  return false;
}

Status Filter::Include(std::string_view pattern) {
  LEAT_ASSIGN_OR_RETURN(Glob glob, Glob::Parse(pattern));
  rules_.emplace_back(true, std::move(glob));
  included_ = true;
  return {};
}

Status Filter::Exclude(std::string_view pattern) {
  LEAT_ASSIGN_OR_RETURN(Glob glob, Glob::Parse(pattern));
  rules_.emplace_back(false, std::move(glob));
  return {};
}

Status Filter::AddRules(std::string_view text) {
  while (!text.empty()) {
    const auto end = text.find('\n');
    const std::string_view line = Trim(text.substr(0, end));
    text = end == text.npos ? std::string_view() : text.substr(end + 1);
    if (line.empty() || line.front() == '#' || line.front() == ';') continue;
    if (line == "!") {
      rules_.clear();
      continue;
    }
    if ((line.front() != '+' && line.front() != '-') || line.size() < 3 || line[1] != ' ') {
      return Fail(Errc::kInvalid, fmt::format("the rule \"{}\" begins neither with \"+ \" nor with "
                                              "\"- \"",
                                              Printable(line)));
    }
    LEAT_ASSIGN_OR_RETURN(Glob glob, Glob::Parse(Trim(line.substr(2))));
    rules_.emplace_back(line.front() == '+', std::move(glob));
  }
  return {};
}

void Filter::AddFiles(std::string_view text) {
  if (!files_) files_.emplace();
  while (!text.empty()) {
    const auto end = text.find('\n');
    std::string_view line = Trim(text.substr(0, end));
    text = end == text.npos ? std::string_view() : text.substr(end + 1);
    if (line.empty() || line.front() == '#' || line.front() == ';') continue;
    while (line.starts_with('/')) line.remove_prefix(1);
    files_->emplace(line);
  }
}

bool Filter::Means(std::string_view path, std::uint64_t size) const {
  if (!MeansSize(size)) return false;
  if (files_ && !files_->contains(path)) return false;
  for (const auto& [include, glob] : rules_) {
    if (glob.Matches(path)) return include;
  }
  return !included_;
}

bool Filter::all() const {
  return rules_.empty() && !files_ && min_size_ == 0 && max_size_ == UINT64_MAX;
}

}  // namespace leat::transfer
