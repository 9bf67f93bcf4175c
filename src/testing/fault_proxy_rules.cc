#include "testing/fault_proxy_rules.h"

#include <array>
#include <charconv>

#include "testing/fault_proxy_http.h"

namespace leat::testing {
namespace {

struct NamedAction {
  std::string_view name;
  FaultAction action;
};
constexpr std::array kActions = {
    NamedAction{"pass", FaultAction::kPass},
    NamedAction{"drop", FaultAction::kDrop},
    NamedAction{"status", FaultAction::kStatus},
    NamedAction{"html", FaultAction::kHtml},
    NamedAction{"error-body", FaultAction::kErrorBody},
    NamedAction{"cut", FaultAction::kCut},
    NamedAction{"stall", FaultAction::kStall},
    NamedAction{"trickle", FaultAction::kTrickle},
    NamedAction{"flip", FaultAction::kFlip},
    NamedAction{"length", FaultAction::kLength},
    NamedAction{"other-range", FaultAction::kOtherRange},
    NamedAction{"full-body", FaultAction::kFullBody},
    NamedAction{"endless", FaultAction::kEndless},
    NamedAction{"broken-xml", FaultAction::kBrokenXml},
};

/// Answers that object stores are known to give, by a name.
struct NamedAnswer {
  std::string_view name;
  int status;
  std::string_view code, message;
};
constexpr std::array kAnswers = {
    NamedAnswer{"slowdown", 503, "SlowDown", "Please reduce your request rate."},
    NamedAnswer{"unavailable", 503, "ServiceUnavailable", "Service is unable to handle request."},
    NamedAnswer{"internal", 500, "InternalError", "We encountered an internal error."},
    NamedAnswer{"expired", 403, "ExpiredToken", "The provided token has expired."},
    NamedAnswer{"denied", 403, "AccessDenied", "Access Denied"},
    NamedAnswer{"skewed", 403, "RequestTimeTooSkewed",
                "The difference between the request time and the current time is too large."},
    NamedAnswer{"bad-signature", 403, "SignatureDoesNotMatch",
                "The request signature we calculated does not match the signature you provided."},
    NamedAnswer{"unknown-key", 403, "InvalidAccessKeyId",
                "The AWS Access Key Id you provided does not exist in our records."},
    NamedAnswer{"archived", 403, "InvalidObjectState",
                "The operation is not valid for the object's storage class"},
    NamedAnswer{"no-key", 404, "NoSuchKey", "The specified key does not exist."},
    NamedAnswer{"no-bucket", 404, "NoSuchBucket", "The specified bucket does not exist"},
    NamedAnswer{"precondition", 412, "PreconditionFailed",
                "At least one of the pre-conditions you specified did not hold"},
    NamedAnswer{"not-implemented", 501, "NotImplemented",
                "A header you provided implies functionality that is not implemented."},
    NamedAnswer{
        "redirect", 301, "PermanentRedirect",
        "The bucket you are attempting to access must be addressed using the specified endpoint."},
};

/// The next key=value of `line`, unquoted; kInvalid when quotes do not close.
Result<std::pair<std::string, std::string>> NextWord(std::string_view& line) {
  std::string key, value;
  std::string* out = &key;
  bool quoted = false;
  std::size_t i = 0;
  for (; i < line.size(); ++i) {
    const char c = line[i];
    if (quoted && c == '\\' && i + 1 < line.size()) {
      *out += line[++i];
    } else if (c == '"') {
      quoted = !quoted;
    } else if (!quoted && (c == ' ' || c == '\t')) {
      break;
    } else if (!quoted && c == '=' && out == &key) {
      out = &value;
    } else {
      *out += c;
    }
  }
  if (quoted) return Fail(Errc::kInvalid, "a double quote is not closed: " + std::string(line));
  line.remove_prefix(i);
  return std::pair(std::move(key), std::move(value));
}

template <typename Number>
bool ParseNumber(std::string_view text, Number& out) {
  if (text.starts_with('+')) text.remove_prefix(1);
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size();
}

bool SetAction(std::string_view name, FaultRule& rule) {
  for (const auto& a : kActions) {
    if (a.name == name) {
      rule.action = a.action;
      return true;
    }
  }
  for (const auto& a : kAnswers) {
    if (a.name == name) {
      rule.action = FaultAction::kStatus;
      rule.status = a.status;
      rule.code = a.code;
      rule.message = a.message;
      return true;
    }
  }
  return false;
}

bool SetWord(std::string_view key, const std::string& value, FaultRule& rule) {
  if (key == "method") return rule.method = value, true;
  if (key == "kind") return rule.kind = value, true;
  if (key == "path") return rule.path = value, true;
  if (key == "has") return rule.has = value, true;
  if (key == "nth") return ParseNumber(value, rule.nth);
  if (key == "from") return ParseNumber(value, rule.from);
  if (key == "every") return ParseNumber(value, rule.every);
  if (key == "times") return ParseNumber(value, rule.times);
  if (key == "probability") return ParseNumber(value, rule.probability);
  if (key == "action") return SetAction(value, rule);
  if (key == "delay") return ParseNumber(value, rule.delay_ms);
  if (key == "bytes") return ParseNumber(value, rule.bytes);
  if (key == "how") return rule.reset = value == "rst", value == "rst" || value == "close";
  if (key == "rate") return ParseNumber(value, rule.rate) && rule.rate > 0;
  if (key == "count") return ParseNumber(value, rule.count);
  if (key == "add") return ParseNumber(value, rule.add);
  if (key == "shift") return ParseNumber(value, rule.shift);
  if (key == "lie") return rule.lie = value == "1", value == "0" || value == "1";
  if (key == "tokens")
    return rule.fresh_tokens = value == "fresh", value == "fresh" || value == "same";
  if (key == "status")
    return ParseNumber(value, rule.status) && rule.status >= 100 && rule.status < 600;
  if (key == "code") return rule.code = value, true;
  if (key == "message") return rule.message = value, true;
  if (key == "date") return ParseNumber(value, rule.date_skew_s.emplace());
  if (key == "retry-after") return rule.set.emplace_back("Retry-After", value), true;
  if (key == "strip") return rule.strip.push_back(value), true;
  if (key == "set") {
    const auto colon = value.find(':');
    if (colon == std::string::npos) return false;
    const auto begin = value.find_first_not_of(' ', colon + 1);
    rule.set.emplace_back(value.substr(0, colon),
                          begin == std::string::npos ? "" : value.substr(begin));
    return true;
  }
  return false;
}

bool Holds(const FaultRule& rule, const RequestFacts& r) {
  return (rule.method.empty() || rule.method == r.method) &&
         (rule.kind.empty() || rule.kind == r.kind) &&
         r.target.find(rule.path) != std::string_view::npos &&
         r.head.find(rule.has) != std::string_view::npos;
}

}  // namespace

std::string_view RequestKind(std::string_view method, std::string_view target) {
  if (method == "HEAD") return "head";
  if (method == "PUT") return "put";
  if (method == "POST") return "post";
  if (method == "DELETE") return "delete";
  if (method != "GET") return "other";
  const auto mark = target.find('?');
  if (mark == std::string_view::npos) return "get";
  std::string_view query = target.substr(mark + 1);
  bool object = true;
  while (!query.empty()) {
    const auto end = query.find('&');
    const auto word = query.substr(0, end);
    const auto name = word.substr(0, word.find('='));
    for (const std::string_view listing : {"list-type", "prefix", "delimiter", "marker", "max-keys",
                                           "encoding-type", "versions", "uploads"}) {
      if (name == listing) return "list";
    }
    for (const std::string_view aspect : {"location", "versioning", "acl", "policy", "tagging"}) {
      if (name == aspect) object = false;
    }
    query.remove_prefix(end == std::string_view::npos ? query.size() : end + 1);
  }
  return object ? "get" : "other";
}

Result<std::vector<FaultRule>> ParseFaultRules(std::string_view text) {
  std::vector<FaultRule> rules;
  while (!text.empty()) {
    const auto end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    while (line.ends_with('\r') || line.ends_with(' ')) line.remove_suffix(1);
    if (line.empty() || line.starts_with('#')) continue;
    FaultRule rule;
    rule.text = line;
    while (!line.empty()) {
      if (line.front() == ' ' || line.front() == '\t') {
        line.remove_prefix(1);
        continue;
      }
      LEAT_ASSIGN_OR_RETURN(const auto word, NextWord(line));
      if (!SetWord(word.first, word.second, rule)) {
        return Fail(Errc::kInvalid, "rule \"" + rule.text + "\": " + word.first + "=" +
                                        word.second + " is not understood");
      }
    }
    rules.push_back(std::move(rule));
  }
  return rules;
}

void FaultRuleSet::Add(std::vector<FaultRule> rules) {
  for (auto& r : rules) entries_.push_back({.rule = std::move(r)});
}

std::vector<FaultRule> FaultRuleSet::Match(const RequestFacts& request) {
  std::vector<FaultRule> chosen;
  bool acted = false;
  for (auto& e : entries_) {
    const FaultRule& rule = e.rule;
    const bool acts = rule.action != FaultAction::kPass;
    if ((acts && acted) || !Holds(rule, request)) continue;
    ++e.matched;
    if (rule.nth != 0 && e.matched != rule.nth) continue;
    if (e.matched < rule.from) continue;
    if (rule.every != 0 && e.matched % rule.every != 0) continue;
    if (rule.times != 0 && e.applied >= rule.times) continue;
    if (rule.probability < 1 && std::uniform_real_distribution<>()(random_) >= rule.probability) {
      continue;
    }
    ++e.applied;
    acted = acted || acts;
    chosen.push_back(rule);
  }
  return chosen;
}

std::vector<FaultRuleSet::Use> FaultRuleSet::uses() const {
  std::vector<Use> uses;
  for (const auto& e : entries_) uses.push_back({e.rule.text, e.matched, e.applied});
  return uses;
}

}  // namespace leat::testing
