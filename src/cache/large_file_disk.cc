// A large file's two files in the cache's folder: opened or made, checked, recorded, handed out.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>

#include "base/log.h"
#include "cache/large_file.h"
#include "os/fault_guard.h"

namespace leat::cache {
namespace {

constexpr std::uint64_t kSumsMagic = 0x31534d55'53544c4cULL;  // "LLTSUMS1"
constexpr std::uint64_t kFinalizeLockBlock = (1ULL << 26) - 1;

std::uint64_t HeaderSum(const SumsHeader& h) {
  return digest::Xxh3({reinterpret_cast<const std::byte*>(&h), offsetof(SumsHeader, header_sum)});
}

}  // namespace

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

bool LargeFile::Matches(std::uint64_t block) {
  auto& word = state_->verified[block / 64];
  const std::uint64_t bit = 1ULL << (block % 64);
  OnDisk& on = *disk();
  const std::uint64_t sum = on.sum(block).load(std::memory_order_acquire);
  if (sum == 0) return false;  // dropped, maybe by another process
  if ((word.load(std::memory_order_acquire) & bit) != 0) return true;
  thread_local std::vector<std::byte> buffer(kBlock);
  const std::span<std::byte> bytes(buffer.data(), BlockBytes(block));
  const Status read = os::PreadAll(on.data.get(), bytes, block * kBlock);
  if (!read || SumOf(digest::Xxh3(bytes)) != sum) return false;
  word.fetch_or(bit, std::memory_order_release);
  return true;
}

bool LargeFile::Verify(std::uint64_t block) {
  if (Matches(block)) return true;
  // Somebody else may have dropped it and brought it again since it was looked at: whoever drops
  // is alone, and looks again.
  const std::lock_guard lock(state_->drop_mutex);
  if (Matches(block)) return true;
  Drop(block);
  return false;
}

void LargeFile::Drop(std::uint64_t block) {
  if (disk()->sum(block).exchange(0) == 0) return;
  state_->verified[block / 64].fetch_and(~(1ULL << (block % 64)));
  ++state_->drops;
  state_->complete_until = 0;
  cache_.options_.counts->dropped.fetch_add(1, std::memory_order_relaxed);
}

bool LargeFile::complete() const {
  const OnDisk* on = disk();
  if (on == nullptr) return false;
  const std::uint64_t drops = state_->drops;
  std::uint64_t b = state_->complete_until.load();
  while (b < blocks_ && on->sum(b).load(std::memory_order_acquire) != 0) ++b;
  const std::lock_guard lock(state_->drop_mutex);
  if (drops != state_->drops) return false;  // one that was seen may be gone
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
  if (disk() == nullptr) return;
  const std::lock_guard lock(state_->drop_mutex);
  for (std::uint64_t b = offset / kBlock; b < blocks_ && b * kBlock < offset + length; ++b) Drop(b);
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
