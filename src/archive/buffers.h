// Memory on its way through the pipeline: buffers that are used again and again. Private to this
// folder.
#ifndef LEAT_ARCHIVE_BUFFERS_H_
#define LEAT_ARCHIVE_BUFFERS_H_

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <stop_token>
#include <utility>
#include <vector>

namespace leat::archive {

struct Buffer {
  std::unique_ptr<std::byte[]> bytes;
  std::size_t size = 0;  ///< that are filled

  std::span<const std::byte> filled() const { return {bytes.get(), size}; }
};

/// Bytes of a buffer, which lives until nobody needs it.
struct Slice {
  std::shared_ptr<const Buffer> owner;  // shared with other slices of it
  std::span<const std::byte> bytes;
};

/// Thread-safe; outlived by its buffers.
class BufferPool : public std::enable_shared_from_this<BufferPool> {
 public:
  BufferPool(std::size_t buffer_size, std::size_t most) : buffer_size_(buffer_size), most_(most) {}

  /// Waits until one is free; null once `stop` is requested.
  std::shared_ptr<Buffer> Take(const std::stop_token& stop) {
    std::unique_lock lock(mutex_);
    if (!freed_.wait(lock, stop, [&] { return out_ < most_; })) return nullptr;
    ++out_;
    std::unique_ptr<std::byte[]> bytes;
    if (!free_.empty()) {
      bytes = std::move(free_.back());
      free_.pop_back();
    }
    lock.unlock();
    if (!bytes) bytes = std::make_unique_for_overwrite<std::byte[]>(buffer_size_);
    return {new Buffer{std::move(bytes), 0}, [pool = shared_from_this()](Buffer* buffer) {
              pool->Give(std::move(buffer->bytes));
              delete buffer;
            }};
  }
  std::size_t buffer_size() const { return buffer_size_; }

 private:
  void Give(std::unique_ptr<std::byte[]> bytes) {
    {
      const std::lock_guard lock(mutex_);
      free_.push_back(std::move(bytes));
      --out_;
    }
    freed_.notify_one();
  }

  const std::size_t buffer_size_, most_;
  std::mutex mutex_;
  std::condition_variable_any freed_;
  std::size_t out_ = 0;
  std::vector<std::unique_ptr<std::byte[]>> free_;
};

}  // namespace leat::archive

#endif  // LEAT_ARCHIVE_BUFFERS_H_
