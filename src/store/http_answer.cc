#include "store/http_answer.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "base/log.h"
#include "net/url.h"
#include "store/decorators.h"

namespace leat::store {

std::optional<std::uint64_t> ParseDecimal(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || text.empty()) return std::nullopt;
  return value;
}

std::string UnquoteEtag(std::string_view header) {
  const bool weak = header.starts_with("W/");
  std::string_view tag = weak ? header.substr(2) : header;
  if (tag.size() >= 2 && tag.front() == '"' && tag.back() == '"') {
    tag = tag.substr(1, tag.size() - 2);
  }
  return (weak ? "W/" : "") + std::string(tag);
}

std::string QuoteEtag(std::string_view etag) { return '"' + std::string(etag) + '"'; }

std::optional<ContentRange> ParseContentRange(std::string_view header) {
  if (!header.starts_with("bytes ")) return std::nullopt;
  header.remove_prefix(6);
  const std::size_t slash = header.find('/');
  if (slash == header.npos) return std::nullopt;
  const std::string_view range = header.substr(0, slash), size = header.substr(slash + 1);
  ContentRange result;
  if (size != "*" && !(result.size = ParseDecimal(size))) return std::nullopt;
  if (range == "*") return result.size ? std::optional(result) : std::nullopt;
  const std::size_t dash = range.find('-');
  if (dash == range.npos) return std::nullopt;
  result.first = ParseDecimal(range.substr(0, dash));
  result.last = ParseDecimal(range.substr(dash + 1));
  if (!result.first || !result.last || *result.first > *result.last ||
      (result.size && *result.last >= *result.size)) {
    return std::nullopt;
  }
  return result;
}

void NoteRetryAfter(const net::HttpResponse& response, std::chrono::system_clock::time_point now) {
  const auto header = response.headers.Get("Retry-After");
  if (!header) return;
  // The server's clock wrote it: by that clock it is measured, where it says what time it has.
  now = net::ParseHttpDate(response.headers.Get("Date").value_or("")).value_or(now);
  std::chrono::milliseconds wait{0};
  if (const auto seconds = ParseDecimal(*header)) {
    wait = std::chrono::seconds(std::min<std::uint64_t>(*seconds, 86'400));
  } else if (const auto date = net::ParseHttpDate(*header); date && *date > now) {
    wait = std::chrono::ceil<std::chrono::milliseconds>(*date - now);
  }
  SetRetryAfterHint(wait);
}

std::string WhatItAnswered(const net::HttpResponse& response) {
  std::string type(response.headers.Get("Content-Type").value_or(""));
  type = Printable(type.substr(0, std::min<std::size_t>(type.find(';'), 60)));
  return " (it answered " + std::to_string(response.status) + (type.empty() ? "" : ", ") + type +
         ")";
}

Result<net::HttpResponse> PerformFor(const std::string& url, net::HttpTransport& http,
                                     net::HttpRequest request, const CallContext& ctx) {
  bool ours = false;
  const auto noting = [&ours](auto callback) {
    return [&ours, callback = std::move(callback)](const auto& argument) {
      auto status = callback(argument);
      ours = ours || !status;
      return status;
    };
  };
  if (request.on_response) request.on_response = noting(std::move(request.on_response));
  if (request.sink) request.sink = noting(std::move(request.sink));
  auto response = http.Perform(request, ctx);
  if (response || ours) return response;
  return Fail(std::move(response), url);
}

RangeDelivery::RangeDelivery(std::string url, const ReadOptions& options)
    : url_(std::move(url)), offset_(options.offset), length_(options.length) {}

void RangeDelivery::AddHeader(net::Headers& headers) const {
  if (asks_whole()) return;
  std::string range = "bytes=" + std::to_string(offset_) + "-";
  if (length_ <= kNoObjectIsLarger) range += std::to_string(offset_ + length_ - 1);
  headers.Add("Range", std::move(range));
}

Status RangeDelivery::Begin(const net::HttpResponse& response) {
  const auto header = response.headers.Get("Content-Length");
  const auto content_length = header ? ParseDecimal(*header) : std::nullopt;
  if (header && !content_length) {
    return Fail(Errc::kCorrupt, url_ + ": the server sent a Content-Length that is no number");
  }
  if (response.status == 206) {
    const auto text = response.headers.Get("Content-Range");
    const auto range = text ? ParseContentRange(*text) : std::nullopt;
    if (!range || !range->first) {
      return Fail(Errc::kCorrupt, url_ + ": the server sent a part and did not say which");
    }
    size_ = range->size;
    first_ = *range->first;
    promised_ = *range->last - first_ + 1;
    // Where the size is not told, the end of the object may lie anywhere before the end of what was
    // asked for.
    const std::uint64_t most =
        size_ ? std::min(length_, *size_ - std::min(offset_, *size_)) : length_;
    if (first_ != offset_ || *promised_ > most || (size_ && *promised_ != most)) {
      return Fail(Errc::kCorrupt, url_ + ": the server sent \"" + Printable(*text) +
                                      "\" where bytes from " + std::to_string(offset_) +
                                      " were asked for");
    }
    if (content_length && *content_length != *promised_) {
      return Fail(Errc::kCorrupt, url_ + ": the server announced " +
                                      std::to_string(*content_length) + " bytes for a range of " +
                                      std::to_string(*promised_));
    }
    skip_ = 0;
    left_ = *promised_;
    return {};
  }
  if (response.status != 200) {
    return Fail(Errc::kCorrupt,
                url_ + ": the server answered " + std::to_string(response.status) + " to a read");
  }
  size_ = promised_ = content_length;
  first_ = 0;
  skip_ = offset_;
  left_ = size_ ? std::min(length_, *size_ - std::min(offset_, *size_)) : length_;
  return {};
}

Status RangeDelivery::Take(std::span<const std::byte> piece, const Sink& sink) {
  taken_ += piece.size();
  if (promised_ && taken_ > *promised_) {
    return Fail(Errc::kCorrupt, url_ + ": the server sent more bytes than it announced");
  }
  const std::uint64_t dropped = std::min<std::uint64_t>(skip_, piece.size());
  skip_ -= dropped;
  piece = piece.subspan(dropped);
  const auto wanted = piece.first(std::min<std::uint64_t>(left_, piece.size()));
  if (!wanted.empty()) {
    left_ -= wanted.size();
    LEAT_RETURN_IF_ERROR(sink(wanted));
  }
  if (left_ == 0 && (!promised_ || *promised_ - taken_ > kWorthReading)) {
    enough_ = true;
    return Fail(Errc::kCancelled, url_ + ": the rest is not wanted");
  }
  return {};
}

Status RangeDelivery::End() const {
  if (!promised_ || taken_ == *promised_) return {};
  return Fail(Errc::kUnavailable, url_ + ": the server sent " + std::to_string(taken_) +
                                      " bytes and had announced " + std::to_string(*promised_));
}

}  // namespace leat::store
