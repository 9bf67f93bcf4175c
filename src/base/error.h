// Errors are values: every fallible function returns Result<T> or Status, and nothing throws across
// a folder.
#ifndef LEAT_BASE_ERROR_H_
#define LEAT_BASE_ERROR_H_

#include <cstdint>
#include <expected>
#include <string>
#include <string_view>
#include <utility>

namespace leat {

/// What a caller can do about a failure. Nothing is added here unless some caller branches on it;
/// detail for people goes into the message.
enum class Errc : std::uint8_t {
  kNotFound,     ///< the named thing does not exist
  kConflict,     ///< a precondition (version, if-absent) did not hold
  kInvalid,      ///< the request can never succeed as written
  kDenied,       ///< credentials were refused or lack permission
  kUnavailable,  ///< transient: the same request may succeed later
  kDeadline,     ///< the caller's time ran out
  kCancelled,    ///< the caller gave up
  kCorrupt,      ///< bytes arrived that are not those that were promised
  kNoSpace,      ///< the disk, or the share of it that we may use, is full
  kUnsupported,  ///< the store, kernel or machine cannot do this
  kInternal,     ///< a broken invariant of ours
};

/// Exactly one place decides what is worth retrying.
constexpr bool IsRetryable(Errc c) { return c == Errc::kUnavailable; }

/// "not found", "access denied" ...; for logs.
std::string_view ErrcName(Errc c);

/// A failure: a code to branch on and a sentence for people (no trailing full stop, never a
/// secret).
class [[nodiscard]] Error {
 public:
  Error(Errc code, std::string message) : code_(code), message_(std::move(message)) {}

  Errc code() const { return code_; }
  const std::string& message() const { return message_; }

  /// Says what was being done, once, where it is known: "reading s3://b/k: connection reset".
  Error&& While(std::string_view doing) && {
    message_.insert(0, ": ").insert(0, doing);
    return std::move(*this);
  }

 private:
  Errc code_;
  std::string message_;
};

template <typename T>
using Result = std::expected<T, Error>;
using Status = Result<void>;

inline std::unexpected<Error> Fail(Errc code, std::string message) {
  return std::unexpected(Error(code, std::move(message)));
}
/// Hands a callee's error on, with what this caller was doing in front.
template <typename T>
std::unexpected<Error> Fail(Result<T>&& r, std::string_view doing) {
  return std::unexpected(std::move(r).error().While(doing));
}
/// kNotFound for ENOENT, kDenied for EACCES, ...; the message is "<doing>: <strerror>".
std::unexpected<Error> FailErrno(int err, std::string_view doing);

}  // namespace leat

#define LEAT_CONCAT_(a, b) a##b
#define LEAT_CONCAT(a, b) LEAT_CONCAT_(a, b)
/// Returns from the enclosing function when `expr` (a Result or Status) failed.
#define LEAT_RETURN_IF_ERROR(expr)                            \
  if (auto leat_status_ = (expr); !leat_status_) [[unlikely]] \
  return std::unexpected(std::move(leat_status_).error())
/// LEAT_ASSIGN_OR_RETURN(auto x, Compute());
#define LEAT_ASSIGN_OR_RETURN(lhs, expr) \
  LEAT_ASSIGN_OR_RETURN_(LEAT_CONCAT(leat_result_, __LINE__), lhs, expr)
#define LEAT_ASSIGN_OR_RETURN_(tmp, lhs, expr)      \
  auto tmp = (expr);                                \
  if (!tmp) [[unlikely]]                            \
    return std::unexpected(std::move(tmp).error()); \
  lhs = std::move(*tmp)

#endif  // LEAT_BASE_ERROR_H_
