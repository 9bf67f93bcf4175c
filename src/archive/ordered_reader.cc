#include "archive/ordered_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace leat::archive {

namespace {

/// Requests at once at most: a connection to a store brings some 100 MB/s.
constexpr std::size_t kMostConnections = 8;

}  // namespace

OrderedReader::OrderedReader(store::ObjectStore& store, const store::ObjectInfo& object,
                             const std::vector<Range>& ranges, std::size_t request,
                             std::size_t most_requests, Failure& failure)
    : store_(store),
      object_(object),
      failure_(failure),
      pool_(std::make_shared<BufferPool>(request, most_requests)) {
  version_ = object.version;
  if (version_->empty()) version_.reset();
  expected_ = object.expected;
  if (!store.capabilities().ranges) {
    threads_.emplace_back([this] {
      if (Status done = FetchWhole(); !done) failure_.Set(std::move(done).error());
    });
    return;
  }
  whole_ = ranges.size() == 1 && ranges[0].offset == 0 && ranges[0].length == object.size;
  for (const Range& range : ranges) {
    for (std::uint64_t at = 0; at < range.length; at += request)
      requests_.push_back({range.offset + at, std::min<std::uint64_t>(request, range.length - at)});
  }
  end_ = requests_.size();
  const std::size_t connections =
      std::min({kMostConnections, requests_.size(), std::max<std::size_t>(most_requests, 3) - 2});
  for (std::size_t i = 0; i < connections; ++i) threads_.emplace_back([this] { FetchRanges(); });
}

OrderedReader::~OrderedReader() {
  bool all = false;
  {
    const std::lock_guard lock(mutex_);
    all = end_ && next_ >= *end_;
  }
  // Somebody does not want the rest.
  if (!all) failure_.Set(Error(Errc::kCancelled, "cancelled"));
  {
    const std::lock_guard lock(hash_mutex_);
    no_more_ = true;
  }
  to_hash_changed_.notify_all();
  threads_.clear();
  if (hash_thread_.joinable()) hash_thread_.join();
}

Status OrderedReader::OnInfo(const store::ObjectInfo& info) {
  const std::lock_guard lock(mutex_);
  if (version_ && !info.version.empty() && !store::SameVersion(*version_, info.version))
    return store::FailReplaced(store_.UrlOf(object_.key), *version_, info.version);
  if (!version_ && !info.version.empty()) version_ = info.version;
  if (info.size != object_.size)
    return Fail(Errc::kConflict,
                fmt::format("{} was replaced while it was read ({} bytes are now {})",
                            store_.UrlOf(object_.key), object_.size, info.size));
  if (!expected_) expected_ = info.expected;
  return {};
}

void OrderedReader::Deliver(std::size_t index, Piece piece) {
  {
    const std::lock_guard lock(mutex_);
    pieces_.emplace(index, std::move(piece));
  }
  arrived_.notify_one();
}

bool OrderedReader::SendsRanges(std::size_t index, const store::ObjectInfo& info) {
  std::unique_lock lock(mutex_);
  if (index == 0 && !sends_ranges_) {
    sends_ranges_ = !info.comes_whole || requests_.size() == 1;
    known_.notify_all();
  }
  if (!info.comes_whole) return true;
  known_.wait(lock, failure_.stop(), [&] { return sends_ranges_.has_value(); });
  return sends_ranges_.value_or(false);
}

Status OrderedReader::Fetch(std::size_t index, Buffer& buffer) {
  const Range& range = requests_[index];
  store::ReadOptions options;
  options.offset = range.offset;
  options.length = range.length;
  options.if_version = object_.version;
  options.on_info = [&](const store::ObjectInfo& info) -> Status {
    LEAT_RETURN_IF_ERROR(OnInfo(info));
    if (SendsRanges(index, info)) return {};
    return Fail(Errc::kCancelled, "it comes whole");
  };
  const auto cut = [&](bool more) {
    return Fail(Errc::kCorrupt,
                fmt::format("{}: {} came than were asked for", store_.UrlOf(object_.key),
                            more ? "more bytes" : "fewer bytes"));
  };
  LEAT_RETURN_IF_ERROR(store_.Read(
      object_.key, options,
      [&](std::span<const std::byte> bytes) -> Status {
        if (bytes.size() > range.length - buffer.size) return cut(true);
        std::memcpy(buffer.bytes.get() + buffer.size, bytes.data(), bytes.size());
        buffer.size += bytes.size();
        return {};
      },
      failure_.context()));
  if (buffer.size < range.length) return cut(false);
  return {};
}

void OrderedReader::FetchRanges() {
  for (;;) {
    std::size_t index = 0;
    std::shared_ptr<Buffer> buffer;
    {
      const std::lock_guard lock(claim_);
      if (claimed_ == requests_.size() || failure_.stop().stop_requested()) return;
      index = claimed_++;
      buffer = pool_->Take(failure_.stop());
    }
    if (!buffer) return;
    Status done = Fetch(index, *buffer);
    bool comes_whole = false;
    {
      const std::lock_guard lock(mutex_);
      comes_whole = sends_ranges_ == false;
      if (comes_whole && index == 0) end_.reset();
    }
    if (comes_whole) {
      // Each range would be all that is in front of it, too.
      if (index > 0) return;
      buffer.reset();
      done = FetchWhole();
    }
    if (!done) {
      failure_.Set(std::move(done).error());
      return;
    }
    if (comes_whole) return;
    Deliver(index, {requests_[index].offset, std::move(buffer)});
  }
}

Status OrderedReader::FetchWhole() {
  {
    const std::lock_guard lock(mutex_);
    whole_ = true;
  }
  std::size_t index = 0;
  std::uint64_t at = 0;
  std::shared_ptr<Buffer> buffer;
  store::ReadOptions options;
  options.if_version = object_.version;
  options.on_info = [this](const store::ObjectInfo& info) { return OnInfo(info); };
  const auto deliver = [&] {
    const std::uint64_t begin = at;
    at += buffer->size;
    Deliver(index++, {begin, std::move(buffer)});
    buffer = nullptr;
  };
  LEAT_RETURN_IF_ERROR(store_.Read(
      object_.key, options,
      [&](std::span<const std::byte> bytes) -> Status {
        while (!bytes.empty()) {
          if (!buffer) buffer = pool_->Take(failure_.stop());
          if (!buffer) return Fail(Errc::kCancelled, "cancelled");
          const std::size_t n = std::min(bytes.size(), pool_->buffer_size() - buffer->size);
          std::memcpy(buffer->bytes.get() + buffer->size, bytes.data(), n);
          buffer->size += n;
          bytes = bytes.subspan(n);
          if (buffer->size == pool_->buffer_size()) deliver();
        }
        return {};
      },
      failure_.context()));
  if (buffer) deliver();
  if (at != object_.size)
    return Fail(Errc::kConflict, fmt::format("{}: {} bytes came, but it has {}",
                                             store_.UrlOf(object_.key), at, object_.size));
  {
    const std::lock_guard lock(mutex_);
    end_ = index;
  }
  arrived_.notify_one();
  return {};
}

Result<OrderedReader::Piece> OrderedReader::Next() {
  Piece piece;
  {
    std::unique_lock lock(mutex_);
    arrived_.wait(lock, failure_.stop(),
                  [&] { return pieces_.contains(next_) || (end_ && next_ >= *end_); });
    if (const auto found = pieces_.find(next_); found != pieces_.end()) {
      piece = std::move(found->second);
      pieces_.erase(found);
      ++next_;
    }
  }
  LEAT_RETURN_IF_ERROR(failure_.Check());
  if (next_ == 1 && piece.buffer) StartHash();
  if (hasher_) {
    {
      const std::lock_guard lock(hash_mutex_);
      if (piece.buffer) {
        to_hash_.push_back(piece.buffer);
      } else {
        no_more_ = true;
      }
    }
    to_hash_changed_.notify_one();
  }
  return piece;
}

/// With the first piece its answer's headers have come.
void OrderedReader::StartHash() {
  const std::lock_guard lock(mutex_);
  if (!whole_ || hash_thread_.joinable() || !expected_ || !digest::CanHash(expected_->kind)) return;
  hasher_ = std::make_unique<digest::Hasher>(expected_->kind);
  hash_thread_ = std::jthread([this] { Hash(); });
}

void OrderedReader::Hash() {
  for (;;) {
    std::shared_ptr<const Buffer> buffer;
    {
      std::unique_lock lock(hash_mutex_);
      if (!to_hash_changed_.wait(lock, failure_.stop(),
                                 [&] { return !to_hash_.empty() || no_more_; }))
        return;
      if (to_hash_.empty()) return;
      buffer = std::move(to_hash_.front());
      to_hash_.pop_front();
    }
    hasher_->Update(buffer->filled());
  }
}

Status OrderedReader::CheckDigest() {
  if (!hasher_) return {};
  hash_thread_.join();
  LEAT_RETURN_IF_ERROR(failure_.Check());
  if (hasher_->Finish() == expected_->value) return {};
  return Fail(Errc::kCorrupt,
              fmt::format("{}: the bytes that came do not have the {} that the store promises",
                          store_.UrlOf(object_.key), digest::KindName(expected_->kind)));
}

}  // namespace leat::archive
