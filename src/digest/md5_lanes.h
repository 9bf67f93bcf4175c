// MD5 (RFC 1321) of several streams side by side, each in a lane of the processor's vectors: one
// alone is bound by the latency of its chain of additions (0.6 GB/s), sixteen take hardly longer.
#ifndef LEAT_DIGEST_MD5_LANES_H_
#define LEAT_DIGEST_MD5_LANES_H_

#include <array>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <span>
#include <string>

namespace leat::digest {

/// What threads bring at about the same time is hashed together by one of them. Thread-safe.
class Md5Lanes {
 public:
  /// Those of this process.
  static Md5Lanes& Shared();

  /// `widest`: what may be used of what the processor has.
  enum class Vectors : std::uint8_t { kAny, kAvx2, kAvx512 };
  explicit Md5Lanes(Vectors widest = Vectors::kAvx512) : widest_(widest) {}

  /// So many bytes, or a multiple, are what Update takes.
  static constexpr std::size_t kBlock = 64;

  /// The MD5 of one stream, for one thread at a time. While it exists others wait for it, a few
  /// milliseconds at most, so that it is hashed with theirs. The lanes outlive it.
  class Stream {
   public:
    explicit Stream(Md5Lanes& lanes = Shared());
    ~Stream();
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;

    /// Whole blocks. Returns when they have been hashed.
    void Update(std::span<const std::byte> blocks);
    /// With the rest, of any size; its 16 bytes. Ends it.
    std::string Finish(std::span<const std::byte> rest);

   private:
    friend class Md5Lanes;
    Md5Lanes& lanes_;
    std::array<std::uint32_t, 4> state_;
    std::uint64_t bytes_ = 0;
  };

 private:
  struct Job {
    std::array<std::uint32_t, 4>* state = nullptr;
    const std::byte* data = nullptr;
    std::size_t blocks = 0;
    bool queued = true, done = false;
    std::condition_variable changed = {};
  };
  void HashTogether(std::span<Job*> jobs) const;
  void Run(Job& job);

  const Vectors widest_;
  std::mutex mutex_;
  std::deque<Job*> queue_;
  std::size_t streams_ = 0;
};

/// Of what is in memory: its 16 bytes.
std::string Md5(std::span<const std::byte> data);

}  // namespace leat::digest

#endif  // LEAT_DIGEST_MD5_LANES_H_
