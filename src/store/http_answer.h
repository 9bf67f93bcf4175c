// What drivers over HTTP share: asking for a range, and making sure that the answer is that range
// before a byte is delivered.
#ifndef LEAT_STORE_HTTP_ANSWER_H_
#define LEAT_STORE_HTTP_ANSWER_H_

#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "net/http_client.h"
#include "store/object_store.h"

namespace leat::store {

std::optional<std::uint64_t> ParseDecimal(std::string_view text);
/// Quotes removed; a weak one keeps its W/.
std::string UnquoteEtag(std::string_view header);
/// The same for If-Match.
std::string QuoteEtag(std::string_view etag);

/// "bytes 0-99/1000", "bytes 0-99/*" and "bytes */1000" (RFC 9110, 14.4).
struct ContentRange {
  std::optional<std::uint64_t> first, last, size;
};
std::optional<ContentRange> ParseContentRange(std::string_view header);

/// Hands the seconds or the date of a Retry-After header to SetRetryAfterHint.
void NoteRetryAfter(const net::HttpResponse& response, std::chrono::system_clock::time_point now);
/// " (it answered text/html)" or " (it answered 404)".
std::string WhatItAnswered(const net::HttpResponse& response);

/// One request for the object `url`, which a failure of the connection is told with; what the
/// callbacks fail with is the caller's own error and stays as it is.
Result<net::HttpResponse> PerformFor(const std::string& url, net::HttpTransport& http,
                                     net::HttpRequest request, const CallContext& ctx);

/// The range of one read, and its way from the answer to the sink. Not thread-safe.
class RangeDelivery {
 public:
  RangeDelivery(std::string url, const ReadOptions& options);

  /// Everything from the first byte to the last: no Range header is sent.
  bool asks_whole() const { return offset_ == 0 && length_ == UINT64_MAX; }
  /// Nothing can be in the range: a server need not be asked for bytes.
  bool asks_nothing() const { return length_ == 0 || offset_ > kNoObjectIsLarger; }
  void AddHeader(net::Headers& headers) const;

  /// Checks a 2xx answer: a 206 must be for the range asked for; of a 200 the bytes before the
  /// offset are dropped. kCorrupt for another range or length.
  Status Begin(const net::HttpResponse& response);
  /// Of the whole object; known after Begin, but for a 200 without a length and a 206 without a
  /// total.
  std::optional<std::uint64_t> size() const { return size_; }
  /// After Begin: the answer's range is the whole object.
  bool is_whole() const { return size_ && first_ == 0 && promised_ == size_; }

  /// Sends on what belongs to the range. Once a long rest is not wanted it fails, with enough()
  /// set: the request may be ended.
  Status Take(std::span<const std::byte> piece, const Sink& sink);
  bool enough() const { return enough_; }
  /// After a body without an error: kUnavailable when it was shorter than promised.
  Status End() const;

 private:
  static constexpr std::uint64_t kNoObjectIsLarger = 1ULL << 60;
  /// So much is read and dropped rather than giving the connection up.
  static constexpr std::uint64_t kWorthReading = 256 << 10;

  const std::string url_;
  const std::uint64_t offset_, length_;
  std::optional<std::uint64_t> size_, promised_;
  std::uint64_t first_ = 0;  ///< where the answer's body begins
  std::uint64_t skip_ = 0;   ///< bytes still to drop
  std::uint64_t left_ = 0;   ///< bytes still to deliver
  std::uint64_t taken_ = 0;  ///< bytes of the body so far
  bool enough_ = false;
};

}  // namespace leat::store

#endif  // LEAT_STORE_HTTP_ANSWER_H_
