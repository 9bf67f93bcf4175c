// What the fault proxy does to which request: rules as text, one a line
// (tests/servers/fault-proxy.md).
#ifndef LEAT_TESTING_FAULT_PROXY_RULES_H_
#define LEAT_TESTING_FAULT_PROXY_RULES_H_

#include <cstdint>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"

namespace leat::testing {

enum class FaultAction : std::uint8_t {
  kPass,        ///< hand the response on (delays and header edits still apply)
  kDrop,        ///< close the connection without a response; the store is not asked
  kStatus,      ///< answer with this status and an S3 error document; the store is not asked
  kHtml,        ///< answer with a web page; the store is not asked
  kErrorBody,   ///< 200 with an S3 error document as the body; the store is not asked
  kCut,         ///< close the connection after `bytes` of the body
  kStall,       ///< send nothing more after `bytes` of the body, keep the connection
  kTrickle,     ///< after `bytes` of the body only `rate` bytes a second
  kFlip,        ///< invert `count` bytes at `bytes` of the body
  kLength,      ///< promise `add` more (then close) or fewer bytes than the body has
  kOtherRange,  ///< bytes of another range, `shift` further; Content-Range says so unless `lie` is
                ///< set
  kFullBody,    ///< ignore the request's Range (it must not be signed)
  kEndless,     ///< a listing whose every page is truncated and holds the same keys
  kBrokenXml,   ///< the first half of the document, well framed
};

/// One request, as rules see it.
struct RequestFacts {
  std::string_view method;
  std::string_view target;  ///< as it came, percent-encoded, with the query
  std::string_view kind;    ///< RequestKind()
  std::string_view head;    ///< the whole head as it goes over the wire
};

/// "list", "get", "head", "put", "post", "delete" or "other".
std::string_view RequestKind(std::string_view method, std::string_view target);

struct FaultRule {
  std::string text;  ///< as it was written

  // Which requests: all that is given must hold.
  std::string method, kind, path, has;
  std::uint64_t nth = 0;    ///< only the nth that matches, counted from 1; 0: any
  std::uint64_t from = 0;   ///< the nth and those after it
  std::uint64_t every = 0;  ///< each nth
  std::uint64_t times = 0;  ///< at most so often; 0: no limit
  double probability = 1;

  // What is done to them.
  FaultAction action = FaultAction::kPass;
  std::int64_t delay_ms = 0;
  std::int64_t bytes = 0;  ///< -1: before the head
  bool reset = false;      ///< RST instead of FIN
  std::uint64_t rate = 1024;
  std::uint64_t count = 1;
  std::int64_t add = 0;
  std::int64_t shift = 1024 * 1024;
  bool lie = false;
  bool fresh_tokens = false;
  int status = 503;
  std::string code = "SlowDown", message = "Please reduce your request rate.";
  std::optional<std::int64_t> date_skew_s;
  std::vector<std::string> strip;
  std::vector<std::pair<std::string, std::string>> set;
};

/// kInvalid names the word that was not understood. A line is made of key=value words (values may
/// be in double quotes, with \" and \\ inside); empty lines and lines that begin with # are
/// skipped.
Result<std::vector<FaultRule>> ParseFaultRules(std::string_view text);

/// The rules in force and how often each has matched and been applied. Not thread-safe.
class FaultRuleSet {
 public:
  explicit FaultRuleSet(std::uint64_t seed) : random_(seed) {}

  void Add(std::vector<FaultRule> rules);
  void Clear() { entries_.clear(); }
  /// The rules to apply to this request, in order: any number that only delay or edit the head, and
  /// at most one with another action (the first).
  std::vector<FaultRule> Match(const RequestFacts& request);
  struct Use {
    std::string text;
    std::uint64_t matched = 0, applied = 0;
  };
  std::vector<Use> uses() const;

 private:
  struct Entry {
    FaultRule rule;
    std::uint64_t matched = 0, applied = 0;
  };
  std::vector<Entry> entries_;
  std::mt19937_64 random_;
};

}  // namespace leat::testing

#endif  // LEAT_TESTING_FAULT_PROXY_RULES_H_
