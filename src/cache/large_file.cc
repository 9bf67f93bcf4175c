#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "base/log.h"
#include "cache/cache.h"
#include "cache/disk.h"
#include "cache/large_file.h"
#include "cache/memory_files.h"

namespace leat::cache {

using namespace std::chrono_literals;

namespace {

constexpr std::uint64_t kFetchMemory =
    512 * kKiB;  // what a request under way holds: its receive buffer

}  // namespace

std::shared_ptr<LargeFile> Cache::OpenLarge(const FileKey& key, std::shared_ptr<Lease> lease,
                                            std::unique_ptr<Fetcher> fetcher) {
  std::shared_ptr<LargeFile> file(new LargeFile(*this, key, std::move(lease), std::move(fetcher)));
  file->UseDisk(false);
  return file;
}

LargeFile::LargeFile(Cache& cache, FileKey key, std::shared_ptr<Lease> lease,
                     std::unique_ptr<Fetcher> fetcher)
    : cache_(cache),
      key_(key),
      lease_(std::move(lease)),
      fetcher_(std::move(fetcher)),
      blocks_((key.size + kBlock - 1) / kBlock),
      state_(std::make_unique<State>()) {
  state_->verified = std::vector<std::atomic<std::uint64_t>>(blocks_ / 64 + 1);
}
LargeFile::~LargeFile() = default;

std::uint64_t LargeFile::BlockBytes(std::uint64_t block) const {
  return std::min(kBlock, key_.size - block * kBlock);
}

LargeFile::OnDisk* LargeFile::disk() const { return state_->disk.load(std::memory_order_acquire); }

bool LargeFile::Present(std::uint64_t block) const {
  const OnDisk* on = disk();
  return on != nullptr && on->sum(block).load(std::memory_order_acquire) != 0;
}

std::shared_ptr<LargeFile::Flight> LargeFile::FlightOf(std::uint64_t block) const {
  for (const auto& flight : state_->flights) {
    if (block >= flight->first && block < flight->end) return flight;
  }
  return nullptr;
}

void LargeFile::Start(std::uint64_t offset, std::uint64_t length, std::uint64_t request,
                      bool demand) {
  if (offset >= key_.size || length == 0 || cache_.stop_.stop_requested()) return;
  const std::uint64_t end = (std::min(key_.size, offset + length) + kBlock - 1) / kBlock;
  const std::uint64_t per_request = std::max<std::uint64_t>(1, request / kBlock);
  std::vector<std::shared_ptr<Flight>> fresh;
  {
    const std::lock_guard lock(state_->mutex);
    if (!state_->poison.empty()) return;
    for (std::uint64_t b = offset / kBlock; b < end; ++b) {
      if (Present(b)) continue;
      if (const auto flight = FlightOf(b)) {
        if (demand) flight->wanted = true;
        b = flight->end - 1;
        continue;
      }
      if (cache_.memory_->Find(key_.id, b)) continue;
      // All processes cut at the same places, so that each range is fetched by one of them.
      const std::uint64_t cut = (b / per_request + 1) * per_request;
      auto flight = std::make_shared<Flight>();
      flight->first = b;
      flight->end = b + 1;
      while (flight->end < std::min(end, cut) && !Present(flight->end) &&
             FlightOf(flight->end) == nullptr)
        ++flight->end;
      flight->wanted = demand;
      // Readahead shrinks before it stalls. Nothing is taken yet: who is queued must not hold what
      // those wait for that are to make room in the queue.
      const std::uint64_t queued = cache_.pool_->queued() + fresh.size();
      const MemoryBudget& budget = *cache_.options_.budget;
      if (!demand && budget.used() + (queued + 1) * kFetchMemory > budget.total()) break;
      b = flight->end - 1;
      state_->flights.push_back(flight);
      fresh.push_back(flight);
    }
  }
  // In front of the queue the last submitted would begin first.
  if (demand) std::ranges::reverse(fresh);
  for (auto& flight : fresh) {
    auto job = [self = shared_from_this(), flight] { self->Run(flight); };
    if (demand) {
      cache_.pool_->SubmitFirst(std::move(job));
    } else {
      cache_.pool_->Submit(std::move(job));
    }
  }
}

void LargeFile::Run(const std::shared_ptr<Flight>& flight) {
  Disk* disk = cache_.disk_.get();
  const std::uint64_t lock_start = Disk::BlockLock(key_.id, flight->first);
  const std::uint64_t lock_length = flight->end - flight->first;
  bool locked = disk == nullptr || !disk->on();
  const bool use_lock = !locked;
  Status status;
  if (use_lock) {
    const auto give_up = CallContext::Clock::now() + 30s;
    while (!(locked = disk->TryLock(lock_start, lock_length))) {
      // Another process is fetching some of it. Readahead leaves it to that process; a reader looks
      // on.
      if (!flight->wanted || cache_.stop_.stop_requested() || CallContext::Clock::now() > give_up)
        break;
      UseDisk(false);
      bool all = true;
      for (std::uint64_t b = flight->first; b < flight->end && all; ++b) all = Present(b);
      if (all) break;
      state_->progress.notify_all();
      std::this_thread::sleep_for(500us);
    }
  }
  MemoryBudget& budget = *cache_.options_.budget;
  const bool has_memory = budget.TryTake(kFetchMemory);
  if (has_memory) flight->hold = MemoryHold(budget, kFetchMemory);
  if (!has_memory && !flight->wanted) {
    status = Fail(Errc::kCancelled, "readahead gives way");
  } else if (locked || flight->wanted) {
    status = FetchMissing(*flight);
  }
  if (use_lock && locked) disk->Unlock(lock_start, lock_length);
  {
    const std::lock_guard lock(state_->mutex);
    flight->done = true;
    flight->status = std::move(status);
    flight->hold.Release();
    std::erase(state_->flights, flight);
  }
  state_->progress.notify_all();
  if (complete() && !state_->finalizing.exchange(true)) {
    if (const auto checked = Finalize({}, true); !checked) Debug(checked.error().message());
    state_->finalizing = false;
  }
}

Status LargeFile::FetchMissing(Flight& flight) {
  bool again = false;
  if (cache_.stop_.stop_requested()) return Fail(Errc::kCancelled, "cancelled");
  for (std::uint64_t b = flight.first; b < flight.end;) {
    UseDisk(false);
    if (Present(b)) {
      ++b;
      continue;
    }
    std::uint64_t end = b + 1;
    while (end < flight.end && !Present(end)) ++end;
    const std::uint64_t bytes = WholePages(std::min(end * kBlock, key_.size) - b * kBlock);
    OnDisk* on = UseDisk(true);
    if (on != nullptr && !on->read_only && cache_.disk_->Admit(bytes, 0)) {
      const Status fetched = FetchToDisk(*on, b, end);
      std::uint64_t unused = 0;
      for (std::uint64_t i = b; i < end; ++i) unused += Present(i) ? 0 : WholePages(BlockBytes(i));
      cache_.disk_->Unreserve(unused, 0);
      if (fetched) {
        b = end;
        continue;
      }
      // Damage on the way does not come twice; what the store itself has wrong does.
      if (fetched.error().code() == Errc::kCorrupt && !std::exchange(again, true)) continue;
      if (cache_.disk_->on()) return fetched;
      continue;  // the disk failed, not the store: what is missing goes to memory
    }
    LEAT_RETURN_IF_ERROR(FetchToMemory(flight, b, end));
    b = end;
  }
  return {};
}

Status LargeFile::FetchToDisk(OnDisk& on, std::uint64_t first, std::uint64_t end) {
  std::uint64_t position = first * kBlock;
  const std::uint64_t until = std::min(end * kBlock, key_.size);
  // Pieces of the network are small and end anywhere. Written block by block, a file system neither
  // takes its lock for each nor makes zeros first for pages that come in two pieces.
  thread_local std::vector<std::byte> buffer(kBlock);
  const Status fetched = fetcher_->Fetch(
      position, until - position,
      [&](std::span<const std::byte> piece) -> Status {
        if (piece.size() > until - position)
          return Fail(Errc::kCorrupt, "more bytes arrived than were asked for");
        bool finished = false;
        while (!piece.empty()) {
          const std::uint64_t block = position / kBlock;
          const std::uint64_t begin = position - block * kBlock;
          const auto part =
              piece.first(std::min<std::uint64_t>(BlockBytes(block) - begin, piece.size()));
          std::memcpy(buffer.data() + begin, part.data(), part.size());
          piece = piece.subspan(part.size());
          position += part.size();
          if (begin + part.size() < BlockBytes(block)) continue;
          const std::span<const std::byte> whole(buffer.data(), BlockBytes(block));
          const std::uint64_t sum = SumOf(digest::Xxh3(whole));
          if (const Status written = on.Write(whole, block * kBlock); !written) {
            cache_.disk_->TurnOff(written.error());
            return written;
          }
          state_->verified[block / 64].fetch_or(1ULL << (block % 64), std::memory_order_release);
          on.sum(block).store(sum, std::memory_order_release);
          cache_.options_.counts->miss_bytes.fetch_add(whole.size(), std::memory_order_relaxed);
          finished = true;
        }
        if (finished) {
          {
            const std::lock_guard lock(state_->mutex);
          }
          state_->progress.notify_all();
        }
        return {};
      },
      CallContext{cache_.stop_.get_token(), CallContext::Clock::time_point::max()});
  if (const auto expected = fetcher_->expected(); expected && on.header().promised_kind == 0) {
    const std::lock_guard lock(state_->mutex);
    SumsHeader& header = on.header();
    header.promised_size =
        static_cast<std::uint8_t>(std::min(expected->value.size(), header.promised.size()));
    std::memcpy(header.promised.data(), expected->value.data(), header.promised_size);
    header.promised_kind = static_cast<std::uint8_t>(static_cast<int>(expected->kind) + 1);
  }
  // Its writing begins now, so that the sync at the end finds little to do.
  ::sync_file_range(on.data.get(), static_cast<off_t>(first * kBlock),
                    static_cast<off_t>(position - first * kBlock), SYNC_FILE_RANGE_WRITE);
  if (fetched && position != until)
    return Fail(Errc::kCorrupt, "fewer bytes arrived than were asked for");
  return fetched;
}

Status LargeFile::FetchToMemory(Flight& flight, std::uint64_t first, std::uint64_t end) {
  constexpr std::uint64_t kPiece = 8;  // blocks for which memory is taken at a time
  const CallContext ctx{cache_.stop_.get_token(), CallContext::Clock::time_point::max()};
  for (; first < end; first = std::min(end, first + kPiece)) {
    std::uint64_t position = first * kBlock;
    const std::uint64_t until = std::min(std::min(end, first + kPiece) * kBlock, key_.size);
    const std::uint64_t bytes = until - position;
    flight.hold.Release();  // never waits for memory while it holds some
    if (!(flight.wanted ? cache_.memory_->Take(bytes, ctx) : cache_.memory_->TryTake(bytes))) {
      return Fail(Errc::kCancelled, "readahead gives way");
    }
    MemoryHold hold(*cache_.options_.budget, bytes);
    std::vector<std::pair<std::uint64_t, Data>> got;
    std::shared_ptr<std::byte[]> buffer;
    const Status fetched = fetcher_->Fetch(
        position, bytes,
        [&](std::span<const std::byte> piece) -> Status {
          if (piece.size() > until - position) {
            return Fail(Errc::kCorrupt, "more bytes arrived than were asked for");
          }
          while (!piece.empty()) {
            const std::uint64_t block = position / kBlock;
            const std::uint64_t begin = position - block * kBlock;
            if (begin == 0) buffer = std::make_shared_for_overwrite<std::byte[]>(BlockBytes(block));
            const auto part =
                piece.first(std::min<std::uint64_t>(BlockBytes(block) - begin, piece.size()));
            std::memcpy(buffer.get() + begin, part.data(), part.size());
            piece = piece.subspan(part.size());
            position += part.size();
            if (begin + part.size() < BlockBytes(block)) continue;
            auto& counts = *cache_.options_.counts;
            counts.miss_bytes.fetch_add(BlockBytes(block), std::memory_order_relaxed);
            counts.not_admitted.fetch_add(BlockBytes(block), std::memory_order_relaxed);
            got.emplace_back(block, Data{{buffer.get(), BlockBytes(block)}, buffer});
            const std::lock_guard lock(state_->mutex);
            // Kept by the flight for a moment, so that whoever waits gets it even if its memory is
            // needed elsewhere.
            flight.memory.push_back(got.back());
            if (flight.memory.size() > kPiece) flight.memory.erase(flight.memory.begin());
            state_->progress.notify_all();
          }
          return {};
        },
        ctx);
    hold.Release();
    for (const auto& [block, data] : got) cache_.memory_->Put(key_.id, block, data);
    LEAT_RETURN_IF_ERROR(Status(fetched));
    if (position != until) return Fail(Errc::kCorrupt, "fewer bytes arrived than were asked for");
  }
  return {};
}

Result<Data> LargeFile::Read(std::uint64_t offset, std::uint64_t length, const CallContext& ctx) {
  return Read(offset, length, ctx, 3);
}

Result<Data> LargeFile::Read(std::uint64_t offset, std::uint64_t length, const CallContext& ctx,
                             int attempts) {
  const std::uint64_t first = offset / kBlock;
  const std::uint64_t end = (offset + length + kBlock - 1) / kBlock;
  std::vector<std::shared_ptr<Flight>> flights;  // kept: they may hold blocks in memory
  std::vector<Data> in_memory(end - first);
  bool all_on_disk = true, waited = false;
  {
    const std::lock_guard lock(state_->mutex);
    if (!state_->poison.empty()) return Fail(Errc::kCorrupt, state_->poison);
  }
  if (disk() != nullptr && disk()->header().poisoned != 0) {
    return Poison("another process found that the bytes are not what the store promised");
  }
  for (std::uint64_t b = first; b < end; ++b) {
    for (int refused = 0;;) {
      if (Present(b)) {
        if (Verify(b)) break;
        continue;
      }
      if (auto data = cache_.memory_->Find(key_.id, b)) {
        in_memory[b - first] = std::move(*data);
        all_on_disk = false;
        break;
      }
      if (ctx.cancelled() || cache_.stop_.stop_requested())
        return Fail(Errc::kCancelled, "cancelled");
      waited = true;
      std::shared_ptr<Flight> flight;
      {
        const std::lock_guard lock(state_->mutex);
        flight = FlightOf(b);
      }
      if (flight == nullptr) {
        if (Present(b)) continue;
        Start(b * kBlock, (end - b) * kBlock, 8 * kMiB, true);
        const std::lock_guard lock(state_->mutex);
        flight = FlightOf(b);
        if (flight == nullptr) {
          if (!state_->poison.empty()) return Fail(Errc::kCorrupt, state_->poison);
          continue;
        }
      }
      flight->wanted = true;
      std::unique_lock lock(state_->mutex);
      const auto find = [&]() -> const Data* {
        for (const auto& [block, data] : flight->memory) {
          if (block == b) return &data;
        }
        return nullptr;
      };
      // The time limit is for blocks that another process brings, which nobody tells us about.
      while (!flight->done && !Present(b) && find() == nullptr && !ctx.cancelled() &&
             !cache_.stop_.stop_requested()) {
        state_->progress.wait_for(lock, ctx.stop, 20ms,
                                  [&] { return flight->done || Present(b) || find() != nullptr; });
      }
      if (const Data* data = find()) {
        in_memory[b - first] = *data;
        all_on_disk = false;
        break;
      }
      if (flight->done && !Present(b) && !flight->status) {
        // Readahead that gave way is nobody's failure: the reader asks itself.
        const bool gave_way = flight->status.error().code() == Errc::kCancelled;
        if (!gave_way || ctx.cancelled() || cache_.stop_.stop_requested()) {
          return std::unexpected(flight->status.error());
        }
      }
      if (flight->done && !Present(b) && ++refused > 1000)
        return Fail(Errc::kUnavailable, "the block could not be fetched");
    }
  }
  auto& counts = *cache_.options_.counts;
  if (!waited) counts.hit_bytes.fetch_add(length, std::memory_order_relaxed);
  if (all_on_disk) return Data{{disk()->data_map.data() + offset, length}, shared_from_this()};
  auto copy = std::make_shared_for_overwrite<std::byte[]>(length);
  for (std::uint64_t b = first; b < end; ++b) {
    const std::uint64_t from = std::max(offset, b * kBlock);
    const std::uint64_t to = std::min(offset + length, b * kBlock + BlockBytes(b));
    const std::span<const std::byte> block = in_memory[b - first].bytes;
    if (block.empty()) {
      // pread, not the mapping: a disk that fails answers with an error here and with SIGBUS there.
      const std::span<std::byte> out(copy.get() + (from - offset), to - from);
      if (Status read = os::PreadAll(disk()->data.get(), out, from); !read) {
        Forget(from, to - from);
        if (attempts == 1) return std::unexpected(std::move(read).error());
        return Read(offset, length, ctx, attempts - 1);
      }
    } else {
      std::memcpy(copy.get() + (from - offset), block.data() + (from - b * kBlock), to - from);
    }
  }
  return Data{{copy.get(), length}, copy};
}

Status LargeFile::Complete(std::uint64_t request, const CallContext& ctx) {
  const std::uint64_t window = 8 * request;
  for (std::uint64_t at = 0; at < key_.size; at += kBlock) {
    if (Present(at / kBlock)) continue;
    Start(at, window, request, true);
    LEAT_ASSIGN_OR_RETURN(const Data data, Read(at, BlockBytes(at / kBlock), ctx));
  }
  if (!complete()) return {};  // in memory only: nothing is kept that could be checked
  // Another process that checks it may have been stopped.
  const auto patience = CallContext::Clock::now() + 10s;
  for (;;) {
    if (ctx.cancelled() || ctx.expired()) return Fail(Errc::kCancelled, "cancelled");
    if (!state_->finalizing.exchange(true)) {
      const Result<bool> checked = Finalize(ctx, CallContext::Clock::now() < patience);
      state_->finalizing = false;
      if (!checked) return std::unexpected(checked.error());
      if (*checked) return {};
    }
    std::this_thread::sleep_for(5ms);
  }
}

}  // namespace leat::cache
