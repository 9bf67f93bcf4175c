#include "archive/decoder.h"

#include <fmt/format.h>

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <string>
#include <utility>

#include "archive/decoders.h"
#include "base/bytes.h"
#include "base/log.h"
#include "base/text.h"

namespace leat::archive {

namespace {

/// What is not compressed.
class Stored final : public Decoder {
 public:
  explicit Stored(store::Sink sink) : sink_(std::move(sink)) {}
  Status Write(std::span<const std::byte> encoded) override { return sink_(encoded); }
  Status Finish() override { return {}; }

 private:
  const store::Sink sink_;
};

}  // namespace

Codec CodecOf(std::span<const std::byte> first) {
  const std::string_view text = AsText(first);
  if (text.starts_with("\x1f\x8b")) return Codec::kGzip;
  if (text.starts_with("BZh") && text.size() > 3 && text[3] >= '1' && text[3] <= '9')
    return Codec::kBzip2;
  if (text.starts_with(std::string_view("\xfd"
                                        "7zXZ\0",
                                        6)))
    return Codec::kXz;
  // A frame, or one to be skipped, as pzstd begins with.
  if (text.starts_with("\x28\xb5\x2f\xfd")) return Codec::kZstd;
  if (text.size() >= 4 && (text[0] & 0xF0) == 0x50 && text.substr(1, 3) == "\x2a\x4d\x18")
    return Codec::kZstd;
  if (text.starts_with("\x04\x22\x4d\x18")) return Codec::kLz4;
  return Codec::kNone;
}

std::unexpected<Error> FailNoArchive(std::span<const std::byte> first) {
  constexpr std::size_t kShown = 16;
  const std::string_view text = AsText(first.first(std::min(first.size(), kShown * 8)));
  const std::string lower = Lower(Trim(text.substr(0, text.find('\0'))));
  const bool html = lower.starts_with("<!doctype html") || lower.starts_with("<html");
  return Fail(Errc::kCorrupt,
              fmt::format("is no archive: it begins with \"{}\"{}",
                          Printable(text.substr(0, kShown)), html ? ", an error page?" : ""));
}

std::string_view CodecName(Codec codec) {
  switch (codec) {
    case Codec::kNone:
      return "uncompressed";
    case Codec::kGzip:
      return "gzip";
    case Codec::kBzip2:
      return "bzip2";
    case Codec::kXz:
      return "xz";
    case Codec::kZstd:
      return "zstd";
    case Codec::kLz4:
      return "lz4";
  }
  return "?";
}

std::unique_ptr<Decoder> Decoder::Make(Codec codec, std::size_t threads, std::uint64_t memory,
                                       store::Sink sink) {
  switch (codec) {
    case Codec::kNone:
      break;
    case Codec::kGzip:
      return MakeGzipDecoder(std::move(sink));
    case Codec::kBzip2:
      return MakeBzip2Decoder(threads, memory, std::move(sink));
    case Codec::kXz:
      return MakeXzDecoder(threads, memory, std::move(sink));
    case Codec::kZstd:
      return MakeZstdDecoder(threads, memory, std::move(sink));
    case Codec::kLz4:
      return MakeLz4Decoder(std::move(sink));
  }
  return std::make_unique<Stored>(std::move(sink));
}

struct InOrder::Task {
  std::unique_ptr<Piece> piece;
  std::vector<std::byte> bytes;  // the first ones
  Result<std::size_t> decoded = 0;
  std::mutex mutex;
  std::condition_variable changed;
  bool done = false;
};

InOrder::InOrder(std::size_t threads, std::size_t most, store::Sink sink)
    : most_(std::max<std::size_t>(most, 1)),
      alone_(threads <= 1),
      sink_(std::move(sink)),
      pool_(std::max<std::size_t>(threads, 1)) {}

InOrder::~InOrder() { pool_.Shutdown(); }

void InOrder::Begin(Task& task) {
  task.bytes.resize(std::clamp<std::size_t>(task.piece->size_hint(), 1, kAhead));
  task.decoded = task.piece->Decode(task.bytes);
}

Status InOrder::Add(std::unique_ptr<Piece> piece) {
  while (tasks_.size() >= most_) LEAT_RETURN_IF_ERROR(DeliverFirst());
  auto task = std::make_shared<Task>();
  task->piece = std::move(piece);
  if (!buffers_.empty()) {
    task->bytes = std::move(buffers_.back());
    buffers_.pop_back();
  }
  tasks_.push_back(task);
  if (alone_) {
    Begin(*task);
    task->done = true;
    return DeliverFirst();
  }
  pool_.Submit([task] {
    Begin(*task);
    const std::lock_guard lock(task->mutex);
    task->done = true;
    task->changed.notify_one();
  });
  return {};
}

Status InOrder::DeliverFirst() {
  const std::shared_ptr<Task> task = std::move(tasks_.front());
  tasks_.pop_front();
  {
    std::unique_lock lock(task->mutex);
    task->changed.wait(lock, [&] { return task->done; });
  }
  for (;;) {
    LEAT_ASSIGN_OR_RETURN(const std::size_t n, std::move(task->decoded));
    if (n > 0) LEAT_RETURN_IF_ERROR(sink_(std::span(task->bytes).first(n)));
    if (n < task->bytes.size()) break;
    task->decoded = task->piece->Decode(task->bytes);
  }
  buffers_.push_back(std::move(task->bytes));
  return {};
}

Status InOrder::Drain() {
  while (!tasks_.empty()) LEAT_RETURN_IF_ERROR(DeliverFirst());
  return {};
}

}  // namespace leat::archive
