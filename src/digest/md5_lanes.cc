#include "digest/md5_lanes.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <cstring>

namespace leat::digest {
namespace {

static_assert(std::endian::native == std::endian::little, "MD5's words are");

constexpr std::size_t kLanes = 16;
/// What is smaller is hashed before another thread could have been woken.
constexpr std::size_t kWorthWaiting = 16 << 10;
constexpr std::chrono::milliseconds kPatience{5};
constexpr std::array<std::uint32_t, 4> kStart = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476};

using State = std::array<std::uint32_t, 4>;
using Word = std::uint32_t;
using Words = Word __attribute__((vector_size(4 * kLanes)));

// RFC 1321, 3.4: floor(2^32 |sin(i + 1)|).
constexpr std::array<Word, 64> kSines = {
    0xd76aa478, 0xe8c7b756, 0x242070db, 0xc1bdceee, 0xf57c0faf, 0x4787c62a, 0xa8304613, 0xfd469501,
    0x698098d8, 0x8b44f7af, 0xffff5bb1, 0x895cd7be, 0x6b901122, 0xfd987193, 0xa679438e, 0x49b40821,
    0xf61e2562, 0xc040b340, 0x265e5a51, 0xe9b6c7aa, 0xd62f105d, 0x02441453, 0xd8a1e681, 0xe7d3fbc8,
    0x21e1cde6, 0xc33707d6, 0xf4d50d87, 0x455a14ed, 0xa9e3e905, 0xfcefa3f8, 0x676f02d9, 0x8d2a4c8a,
    0xfffa3942, 0x8771f681, 0x6d9d6122, 0xfde5380c, 0xa4beea44, 0x4bdecfa9, 0xf6bb4b60, 0xbebfbc70,
    0x289b7ec6, 0xeaa127fa, 0xd4ef3085, 0x04881d05, 0xd9d4d039, 0xe6db99e5, 0x1fa27cf8, 0xc4ac5665,
    0xf4292244, 0x432aff97, 0xab9423a7, 0xfc93a039, 0x655b59c3, 0x8f0ccc92, 0xffeff47d, 0x85845dd1,
    0x6fa87e4f, 0xfe2ce6e0, 0xa3014314, 0x4e0811a1, 0xf7537e82, 0xbd3af235, 0x2ad7d2bb, 0xeb86d391};
constexpr std::array<std::array<int, 4>, 4> kShifts = {
    {{7, 12, 17, 22}, {5, 9, 14, 20}, {4, 11, 16, 23}, {6, 10, 15, 21}}};

// The four rounds on sixteen words of message, one lane or many.
template <typename V>
[[gnu::always_inline]] inline void Rounds(V& a0, V& b0, V& c0, V& d0, const V* m) {
  V a = a0, b = b0, c = c0, d = d0;
#pragma GCC unroll 64
  for (int i = 0; i < 64; ++i) {
    V f;
    int k;
    if (i < 16) {
      f = d ^ (b & (c ^ d));
      k = i;
    } else if (i < 32) {
      f = c ^ (d & (b ^ c));
      k = (5 * i + 1) % 16;
    } else if (i < 48) {
      f = b ^ c ^ d;
      k = (3 * i + 5) % 16;
    } else {
      f = c ^ (b | ~d);
      k = 7 * i % 16;
    }
    const int s = kShifts[static_cast<std::size_t>(i / 16)][static_cast<std::size_t>(i % 4)];
    const V sum = a + f + (m[k] + kSines[static_cast<std::size_t>(i)]);
    a = d;
    d = c;
    c = b;
    b = b + ((sum << s) | (sum >> (32 - s)));
  }
  a0 += a;
  b0 += b;
  c0 += c;
  d0 += d;
}

void HashAlone(State& state, const std::byte* data, std::size_t blocks) {
  auto [a, b, c, d] = state;
  for (; blocks > 0; --blocks, data += Md5Lanes::kBlock) {
    Word m[16];
    std::memcpy(m, data, sizeof(m));
    Rounds(a, b, c, d, m);
  }
  state = {a, b, c, d};
}

// Rows of sixteen words become columns: each of the four steps interleaves the upper half's rows
// with the lower's.
[[gnu::always_inline]] inline void Transpose(Words* rows) {
#pragma GCC unroll 4
  for (int step = 0; step < 4; ++step) {
    Words next[16];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      const Words &low = rows[i], &high = rows[i + 8];
      next[2 * i] = __builtin_shufflevector(low, high, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6,
                                            22, 7, 23);
      next[2 * i + 1] = __builtin_shufflevector(low, high, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13,
                                                29, 14, 30, 15, 31);
    }
    std::memcpy(rows, next, sizeof(next));
  }
}

struct Lanes {
  alignas(64) Word state[4][kLanes];
  const std::byte* data[kLanes];
};

[[gnu::always_inline]] inline void HashLanes(Lanes& lanes, std::size_t blocks) {
  Words s[4];
  std::memcpy(s, lanes.state, sizeof(s));
  for (std::size_t at = 0; at < blocks * Md5Lanes::kBlock; at += Md5Lanes::kBlock) {
    Words m[16];
#pragma GCC unroll 16
    for (std::size_t i = 0; i < kLanes; ++i) std::memcpy(&m[i], lanes.data[i] + at, sizeof(Words));
    Transpose(m);
    Rounds(s[0], s[1], s[2], s[3], m);
  }
  std::memcpy(lanes.state, s, sizeof(s));
}

using LaneFunction = void (*)(Lanes&, std::size_t);

void HashLanesAnywhere(Lanes& lanes, std::size_t blocks) { HashLanes(lanes, blocks); }
#ifdef __x86_64__
[[gnu::target("avx2")]] void HashLanesAvx2(Lanes& lanes, std::size_t blocks) {
  HashLanes(lanes, blocks);
}
[[gnu::target("avx512f,avx512vl,avx512bw")]] void HashLanesAvx512(Lanes& lanes,
                                                                  std::size_t blocks) {
  HashLanes(lanes, blocks);
}
#endif

/// Fewer lanes than `worth_it` are faster one after the other (measured).
struct LaneHash {
  LaneFunction hash = HashLanesAnywhere;
  std::size_t worth_it = 8;
};
LaneHash FastestOf(Md5Lanes::Vectors widest) {
#ifdef __x86_64__
  using enum Md5Lanes::Vectors;
  if (widest == kAvx512 && __builtin_cpu_supports("avx512f") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw"))
    return {HashLanesAvx512, 3};
  if (widest != kAny && __builtin_cpu_supports("avx2")) return {HashLanesAvx2, 6};
#endif
  return {};
}

}  // namespace

Md5Lanes& Md5Lanes::Shared() {
  // (never destroyed: threads may outlive main)
  static Md5Lanes& lanes = *new Md5Lanes;
  return lanes;
}

std::string Md5(std::span<const std::byte> data) {
  Md5Lanes::Stream stream;
  return stream.Finish(data);
}

void Md5Lanes::HashTogether(std::span<Job*> jobs) const {
  const LaneHash fastest = FastestOf(widest_);
  std::array<Job*, kLanes> left;
  std::size_t count = 0;
  for (Job* job : jobs) left[count++] = job;
  while (count >= fastest.worth_it) {
    // As far as the shortest goes; lanes without a stream of their own hash the first one's bytes
    // again.
    const std::size_t blocks =
        (*std::min_element(left.begin(), left.begin() + static_cast<std::ptrdiff_t>(count),
                           [](const Job* a, const Job* b) { return a->blocks < b->blocks; }))
            ->blocks;
    Lanes lanes;
    for (std::size_t i = 0; i < kLanes; ++i) {
      const Job& job = *left[i < count ? i : 0];
      lanes.data[i] = job.data;
      for (std::size_t word = 0; word < 4; ++word) lanes.state[word][i] = (*job.state)[word];
    }
    fastest.hash(lanes, blocks);
    for (std::size_t i = 0; i < count; ++i) {
      for (std::size_t word = 0; word < 4; ++word) (*left[i]->state)[word] = lanes.state[word][i];
      left[i]->data += blocks * kBlock;
      left[i]->blocks -= blocks;
    }
    count = static_cast<std::size_t>(
        std::remove_if(left.begin(), left.begin() + static_cast<std::ptrdiff_t>(count),
                       [](const Job* job) { return job->blocks == 0; }) -
        left.begin());
  }
  for (std::size_t i = 0; i < count; ++i)
    HashAlone(*left[i]->state, left[i]->data, left[i]->blocks);
}

void Md5Lanes::Run(Job& job) {
  if (job.blocks * kBlock < kWorthWaiting) return HashAlone(*job.state, job.data, job.blocks);
  const auto until = std::chrono::steady_clock::now() + kPatience;
  std::unique_lock lock(mutex_);
  queue_.push_back(&job);
  // (a quarter of the streams is not waited for: they may stand still)
  if (queue_.size() < std::min(kLanes, streams_ - streams_ / 4)) {
    job.changed.wait_until(lock, until, [&] { return job.done; });
    if (!job.queued) job.changed.wait(lock, [&] { return job.done; });
    if (job.done) return;
  }
  std::array<Job*, kLanes> taken = {&job};
  std::size_t count = 1;
  std::erase(queue_, &job);
  for (; count < kLanes && !queue_.empty(); queue_.pop_front()) taken[count++] = queue_.front();
  for (std::size_t i = 0; i < count; ++i) taken[i]->queued = false;
  lock.unlock();
  HashTogether(std::span(taken).first(count));
  lock.lock();
  for (std::size_t i = 0; i < count; ++i) {
    taken[i]->done = true;
    taken[i]->changed.notify_one();
  }
}

Md5Lanes::Stream::Stream(Md5Lanes& lanes) : lanes_(lanes), state_(kStart) {
  const std::lock_guard lock(lanes_.mutex_);
  ++lanes_.streams_;
}
Md5Lanes::Stream::~Stream() {
  const std::lock_guard lock(lanes_.mutex_);
  --lanes_.streams_;
}

void Md5Lanes::Stream::Update(std::span<const std::byte> blocks) {
  Job job{.state = &state_, .data = blocks.data(), .blocks = blocks.size() / kBlock};
  lanes_.Run(job);
  bytes_ += blocks.size();
}

std::string Md5Lanes::Stream::Finish(std::span<const std::byte> rest) {
  const std::size_t whole = rest.size() / kBlock * kBlock;
  Update(rest.first(whole));
  rest = rest.subspan(whole);
  // RFC 1321, 3.1 and 3.2: a bit, zeros, the length in bits.
  std::array<std::byte, 2 * kBlock> end{};
  if (!rest.empty()) std::memcpy(end.data(), rest.data(), rest.size());
  end[rest.size()] = std::byte{0x80};
  const std::size_t blocks = rest.size() + 1 + sizeof(std::uint64_t) > kBlock ? 2 : 1;
  const std::uint64_t bits = (bytes_ + rest.size()) * 8;
  std::memcpy(end.data() + blocks * kBlock - sizeof(bits), &bits, sizeof(bits));
  HashAlone(state_, end.data(), blocks);
  std::string out(sizeof(state_), '\0');
  std::memcpy(out.data(), state_.data(), out.size());
  return out;
}

}  // namespace leat::digest
