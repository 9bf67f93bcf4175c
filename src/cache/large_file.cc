#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
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
#include "cache/memory_files.h"
#include "os/fault_guard.h"

namespace leat::cache {

using namespace std::chrono_literals;

namespace {

constexpr std::uint64_t kSumsMagic = 0x31534d55'53544c4cULL;  // "LLTSUMS1"
constexpr std::uint64_t kFetchMemory =
    512 * kKiB;  // what a request under way holds: its receive buffer
constexpr std::uint64_t kFinalizeLockBlock = (1ULL << 26) - 1;

std::uint64_t HeaderSum(const SumsHeader& h) {
  return digest::Xxh3({reinterpret_cast<const std::byte*>(&h), offsetof(SumsHeader, header_sum)});
}

/// 0 means "not here", so a checksum is never 0.
std::uint64_t SumOf(std::uint64_t hash) { return hash == 0 ? 1 : hash; }

}  // namespace

/// The two files of a large file that is (partly) on disk.
struct LargeFile::OnDisk {
  os::UniqueFd data, sums_fd;
  os::Mapping data_map, sums_map;
  std::string path;
  bool read_only = false;  // the data may not be written: a tree of plain files shares them
  std::mutex write_mutex;

  ~OnDisk() {
    if (sums_map) os::UnguardMapping(sums_map.data());
  }
  SumsHeader& header() const { return *reinterpret_cast<SumsHeader*>(sums_map.data()); }
  std::atomic<std::uint64_t>& sum(std::uint64_t block) const {
    return reinterpret_cast<std::atomic<std::uint64_t>*>(sums_map.data() + kSumsHeaderBytes)[block];
  }
  /// One thread at a time: the others would wait for the inode's lock, and spin.
  Status Write(std::span<const std::byte> bytes, std::uint64_t offset) {
    const std::lock_guard lock(write_mutex);
    return os::PwriteAll(data.get(), bytes, offset);
  }
  bool Recorded() const {
    struct stat st;
    const SumsHeader& h = header();
    return h.inode != 0 && h.boot_id[0] != 0 &&
           std::equal(h.boot_id.begin(), h.boot_id.end(), BootId().begin()) &&
           ::fstat(data.get(), &st) == 0 && h.inode == st.st_ino &&
           h.ctime_s == st.st_ctim.tv_sec && h.ctime_ns == st.st_ctim.tv_nsec && st.st_nlink > 0;
  }
  Status Record() const {
    struct stat st;
    if (::fstat(data.get(), &st) != 0) return FailErrno(errno, path);
    SumsHeader& h = header();
    h.inode = 0;  // until the rest is right
    std::ranges::copy(BootId(), h.boot_id.begin());
    h.ctime_s = st.st_ctim.tv_sec;
    h.ctime_ns = st.st_ctim.tv_nsec;
    h.inode = st.st_ino;
    return {};
  }
};

/// Consecutive blocks that one thread of this process is bringing.
struct LargeFile::Flight {
  std::uint64_t first = 0, end = 0;
  std::atomic<bool> wanted{false};  // somebody waits
  bool done = false;                // guarded by State::mutex, as what follows
  Status status;
  MemoryHold hold;
  std::vector<std::pair<std::uint64_t, Data>> memory;  // blocks that found no room on disk
};

struct LargeFile::State {
  mutable std::mutex mutex;
  std::condition_variable_any progress;
  std::vector<std::shared_ptr<Flight>> flights;
  std::unique_ptr<OnDisk> disk_owner;
  std::atomic<OnDisk*> disk{nullptr};
  std::mutex disk_mutex;  // one thread opens or makes the files
  std::vector<std::atomic<std::uint64_t>> verified;
  std::atomic<std::uint64_t> complete_until{0};  // blocks below are present
  std::atomic<bool> finalizing{false};
  std::string poison;  // why the file must not be read any more; guarded by mutex
};

std::shared_ptr<LargeFile> Cache::OpenLarge(const FileKey& key, std::shared_ptr<Lease> lease,
                                            std::unique_ptr<Fetcher> fetcher) {
  std::shared_ptr<LargeFile> file(new LargeFile(*this, key, std::move(lease), std::move(fetcher)));
  file->UseDisk(false);
  return file;
}

std::uint64_t Cache::PresentBytes(const FileKey& key) {
  if (disk_ == nullptr) return 0;
  const auto fd = os::Open(disk_->LargePath(key.id) + ".sums", O_RDONLY);
  if (!fd) return 0;
  const std::uint64_t blocks = (key.size + kBlock - 1) / kBlock;
  std::vector<std::uint64_t> sums(blocks);
  const std::span<std::uint64_t> view(sums);
  if (!os::PreadAll(fd->get(), std::as_writable_bytes(view), kSumsHeaderBytes)) return 0;
  std::uint64_t bytes = 0;
  for (std::uint64_t b = 0; b < blocks; ++b) {
    if (sums[b] != 0) bytes += std::min(kBlock, key.size - b * kBlock);
  }
  return bytes;
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

LargeFile::OnDisk* LargeFile::UseDisk(bool make) {
  if (OnDisk* on = disk()) return on;
  Disk* disk = cache_.disk_.get();
  if (disk == nullptr || !disk->on()) return nullptr;
  const std::lock_guard lock(state_->disk_mutex);
  if (OnDisk* on = this->disk()) return on;
  const std::string path = disk->LargePath(key_.id);
  const std::uint64_t sums_bytes = kSumsHeaderBytes + blocks_ * sizeof(std::uint64_t);

  const auto open = [&]() -> Result<std::unique_ptr<OnDisk>> {
    auto on = std::make_unique<OnDisk>();
    on->path = path;
    LEAT_ASSIGN_OR_RETURN(on->sums_fd, os::Open(path + ".sums", O_RDWR));
    auto data = os::Open(path, O_RDWR);
    // Complete files that a tree links to are read-only.
    if (!data && data.error().code() == Errc::kDenied) {
      data = os::Open(path, O_RDONLY);
      on->read_only = true;
    }
    if (!data) return std::unexpected(data.error());
    on->data = std::move(*data);
    struct stat sums_st, data_st;
    if (::fstat(on->sums_fd.get(), &sums_st) != 0 || ::fstat(on->data.get(), &data_st) != 0)
      return FailErrno(errno, path);
    if (static_cast<std::uint64_t>(sums_st.st_size) != sums_bytes ||
        static_cast<std::uint64_t>(data_st.st_size) != key_.size) {
      return Fail(Errc::kCorrupt, path + " has the wrong size");
    }
    LEAT_ASSIGN_OR_RETURN(
        on->sums_map, os::Mapping::OfFile(on->sums_fd.get(), sums_bytes, PROT_READ | PROT_WRITE));
    LEAT_ASSIGN_OR_RETURN(on->data_map, os::Mapping::OfFile(on->data.get(), key_.size, PROT_READ));
    const SumsHeader& header = on->header();
    if (header.magic != kSumsMagic || header.size != key_.size || header.id != key_.id.word ||
        header.block != kBlock || header.header_sum != HeaderSum(header)) {
      return Fail(Errc::kCorrupt, path + " is damaged");
    }
    if (header.poisoned != 0)
      return Fail(Errc::kCorrupt, path + " was not what the store promised");
    if (!disk->Adopt(header.owner)) return Fail(Errc::kConflict, path + " cannot be leased now");
    os::GuardMapping(on->sums_map.data(), on->sums_map.size());
    // It may have been evicted before the lease was ours.
    if (::fstat(on->sums_fd.get(), &sums_st) != 0 || sums_st.st_nlink == 0)
      return FailErrno(ENOENT, path);
    return on;
  };
  /// False: another process was faster.
  const auto create = [&]() -> Result<bool> {
    LEAT_RETURN_IF_ERROR(os::MakeDirs(path.substr(0, path.rfind('/')), 0700));
    {
      LEAT_ASSIGN_OR_RETURN(const os::UniqueFd data, os::Open(path, O_RDWR | O_CREAT));
      if (::ftruncate(data.get(), static_cast<off_t>(key_.size)) != 0)
        return FailErrno(errno, path);
    }
    SumsHeader header = {};
    header.magic = kSumsMagic;
    header.size = key_.size;
    header.id = key_.id.word;
    header.owner = lease_->owner();
    header.block = kBlock;
    header.header_sum = HeaderSum(header);
    const std::string temporary = fmt::format("{}.sums.{}", path, ::getpid());
    LEAT_ASSIGN_OR_RETURN(const os::UniqueFd sums, os::Open(temporary, O_RDWR | O_CREAT | O_TRUNC));
    const os::Cleanup remove([&] { ::unlink(temporary.c_str()); });
    if (const int err = ::posix_fallocate(sums.get(), 0, static_cast<off_t>(sums_bytes));
        err != 0) {
      return FailErrno(err, path);
    }
    LEAT_RETURN_IF_ERROR(os::PwriteAll(
        sums.get(), {reinterpret_cast<const std::byte*>(&header), sizeof(header)}, 0));
    // The first of several processes wins; all use what is there then.
    if (::link(temporary.c_str(), (path + ".sums").c_str()) == 0) return true;
    if (errno == EEXIST) return false;
    return FailErrno(errno, path);
  };

  auto on = open();
  if (!on && on.error().code() == Errc::kCorrupt) {
    ::unlink((path + ".sums").c_str());
    ::unlink(path.c_str());
  }
  if (!on && make && on.error().code() != Errc::kConflict) {
    if (!disk->Admit(WholePages(sums_bytes), 2)) return nullptr;
    const Result<bool> made = create();
    if (!made || !*made) disk->Unreserve(WholePages(sums_bytes), 2);
    if (!made) {
      disk->TurnOff(made.error());
      return nullptr;
    }
    on = open();
  }
  if (!on) return nullptr;
  if ((*on)->Recorded()) {
    for (auto& word : state_->verified) word = UINT64_MAX;
  }
  state_->disk_owner = std::move(*on);
  state_->disk.store(state_->disk_owner.get(), std::memory_order_release);
  return state_->disk_owner.get();
}

bool LargeFile::Verify(std::uint64_t block) {
  auto& word = state_->verified[block / 64];
  const std::uint64_t bit = 1ULL << (block % 64);
  if ((word.load(std::memory_order_acquire) & bit) != 0) return true;
  OnDisk& on = *disk();
  const std::uint64_t sum = on.sum(block).load(std::memory_order_acquire);
  thread_local std::vector<std::byte> buffer(kBlock);
  const std::span<std::byte> bytes(buffer.data(), BlockBytes(block));
  const Status read = os::PreadAll(on.data.get(), bytes, block * kBlock);
  if (sum != 0 && read && SumOf(digest::Xxh3(bytes)) == sum) {
    word.fetch_or(bit, std::memory_order_release);
    return true;
  }
  std::uint64_t expected = sum;
  if (sum != 0 && on.sum(block).compare_exchange_strong(expected, 0)) {
    cache_.options_.counts->dropped.fetch_add(1, std::memory_order_relaxed);
    state_->complete_until = 0;
  }
  return false;
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
    for (std::uint64_t b = std::max(offset / kBlock, std::min(end, state_->complete_until.load()));
         b < end; ++b) {
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
  if (budget.TryTake(kFetchMemory)) {
    flight->hold = MemoryHold(budget, kFetchMemory);
    if (locked || flight->wanted) status = FetchMissing(*flight);
  } else if (flight->wanted) {
    status = FetchMissing(*flight);
  } else {
    status = Fail(Errc::kCancelled, "readahead gives way");
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

bool LargeFile::complete() const {
  const OnDisk* on = disk();
  if (on == nullptr) return false;
  std::uint64_t b = state_->complete_until.load();
  while (b < blocks_ && on->sum(b).load(std::memory_order_acquire) != 0) ++b;
  state_->complete_until = b;
  return b == blocks_;
}

std::unexpected<Error> LargeFile::Poison(const std::string& why) {
  const Error error(Errc::kCorrupt, fmt::format("{}: {}", fetcher_->name(), why));
  {
    const std::lock_guard lock(state_->mutex);
    if (!state_->poison.empty()) return Fail(Errc::kCorrupt, state_->poison);
    state_->poison = error.message();
  }
  cache_.pool_->Submit([self = shared_from_this(), error] { self->fetcher_->OnWrong(error); });
  return std::unexpected(error);
}

Result<bool> LargeFile::Finalize(const CallContext& ctx, bool may_wait) {
  const auto given_up = [&] {
    return ctx.cancelled() || ctx.expired() || cache_.stop_.stop_requested();
  };
  OnDisk& on = *disk();
  if (on.Recorded()) return true;
  {
    const std::lock_guard guard(state_->mutex);
    if (!state_->poison.empty()) return Fail(Errc::kCorrupt, state_->poison);
  }
  const std::uint64_t lock = Disk::BlockLock(key_.id, kFinalizeLockBlock);
  const bool locked = cache_.disk_->TryLock(lock, 1);
  if (!locked && may_wait) return false;  // another process is at it
  const os::Cleanup unlock([&] {
    if (locked) cache_.disk_->Unlock(lock, 1);
  });
  if (::fdatasync(on.data.get()) != 0) return FailErrno(errno, "syncing " + on.path);
  for (std::uint64_t b = 0; b < blocks_; ++b) {
    if (!Verify(b)) return Fail(Errc::kCorrupt, on.path + ": a block was damaged");
    if (given_up()) return Fail(Errc::kCancelled, "cancelled");
  }
  std::optional<digest::Expected> expected = fetcher_->expected();
  if (const SumsHeader& header = on.header(); !expected && header.promised_kind != 0) {
    // Told to the process that fetched it.
    expected = digest::Expected{static_cast<digest::Kind>(header.promised_kind - 1),
                                std::string(header.promised.data(), header.promised_size)};
  }
  if (expected) {
    digest::Hasher hasher(expected->kind);
    std::vector<std::byte> buffer(kMiB);
    for (std::uint64_t at = 0; at < key_.size; at += buffer.size()) {
      const std::span<std::byte> piece(buffer.data(),
                                       std::min<std::uint64_t>(buffer.size(), key_.size - at));
      LEAT_RETURN_IF_ERROR(os::PreadAll(on.data.get(), piece, at));
      hasher.Update(piece);
      if (given_up()) return Fail(Errc::kCancelled, "cancelled");
    }
    if (hasher.Finish() != expected->value) {
      // Whoever else has it open sees this; the names are taken away only if they are still this
      // file's.
      on.header().poisoned = 1;
      struct stat mine, there;
      if (::fstat(on.sums_fd.get(), &mine) == 0 &&
          ::stat((on.path + ".sums").c_str(), &there) == 0 && mine.st_ino == there.st_ino) {
        ::unlink((on.path + ".sums").c_str());
        ::unlink(on.path.c_str());
        cache_.disk_->Unreserve(WholePages(key_.size), 2);
      }
      return Poison(fmt::format("the bytes that arrived do not have the {} that the store promised",
                                digest::KindName(expected->kind)));
    }
  }
  LEAT_RETURN_IF_ERROR(on.Record());
  return true;
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

os::UniqueFd LargeFile::PassthroughFd() {
  OnDisk* on = disk();
  if (on == nullptr || !complete()) return {};
  if (on->Recorded()) return os::UniqueFd(::fcntl(on->data.get(), F_DUPFD_CLOEXEC, 3));
  if (!state_->finalizing.exchange(true)) {
    cache_.pool_->Submit([self = shared_from_this()] {
      if (const auto checked = self->Finalize({}, true); !checked) Debug(checked.error().message());
      self->state_->finalizing = false;
    });
  }
  return {};
}

void LargeFile::Forget(std::uint64_t offset, std::uint64_t length) {
  OnDisk* on = disk();
  if (on == nullptr) return;
  for (std::uint64_t b = offset / kBlock; b < blocks_ && b * kBlock < offset + length; ++b) {
    if (on->sum(b).exchange(0) == 0) continue;
    state_->verified[b / 64].fetch_and(~(1ULL << (b % 64)));
    cache_.options_.counts->dropped.fetch_add(1, std::memory_order_relaxed);
  }
  state_->complete_until = 0;
}

bool LargeFile::LinkTo(const std::string& path, mode_t mode, std::int64_t mtime_ns) {
  OnDisk* on = disk();
  if (on == nullptr || !complete() || !on->Recorded()) return false;
  // All this changes the ctime that the record of the verification names.
  const timespec times[2] = {{0, UTIME_OMIT}, {mtime_ns / 1'000'000'000, mtime_ns % 1'000'000'000}};
  ::fchmod(on->data.get(), mode);
  ::futimens(on->data.get(), times);
  const bool linked = ::link(on->path.c_str(), path.c_str()) == 0;
  return on->Record() && linked;
}

}  // namespace leat::cache
