#include "cache/disk.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>

#include "base/log.h"
#include "os/fault_guard.h"

namespace leat::cache {

using namespace std::chrono_literals;

namespace {

constexpr std::string_view kFormat = "leat cache 1\n";
constexpr std::uint32_t kRecordMagic = 0x4345524cU;  // "LREC"
constexpr std::uint64_t kInsertLock = 0;

std::uint64_t HeaderSum(const RecordHeader& h) {
  return digest::Xxh3({reinterpret_cast<const std::byte*>(&h), offsetof(RecordHeader, header_sum)});
}

}  // namespace

const std::array<char, 40>& BootId() {
  static const std::array<char, 40> id = [] {
    std::array<char, 40> out = {};
    std::memcpy(out.data(), os::BootId().data(), std::min<std::size_t>(os::BootId().size(), 36));
    return out;
  }();
  return id;
}

OwnerId OwnerOf(std::string_view source) { return Identity::Of(source).word[0]; }
std::string OwnerName(OwnerId owner) { return fmt::format("{:016x}", owner); }

/// This process's segment of one owner, to which it appends.
struct Disk::Writer {
  std::mutex mutex;
  std::uint32_t segment = 0;
  std::uint64_t position = 0;
};

std::string Disk::SegmentPath(OwnerId owner, std::uint32_t segment) const {
  return fmt::format("{}/seg/{:016x}-{:08x}", dir_, owner, segment);
}
std::string Disk::LargePath(const Identity& id) const {
  const std::string hex = id.Hex();
  return fmt::format("{}/files/{}/{}", dir_, hex.substr(0, 2), hex);
}

Disk::Disk(std::string dir) : dir_(std::move(dir)) {}

Result<std::unique_ptr<Disk>> Disk::Open(const CacheOptions& options) {
  std::unique_ptr<Disk> disk(new Disk(options.dir));
  LEAT_RETURN_IF_ERROR(os::MakeDirs(options.dir, 0700));
  struct stat st;
  if (::stat(options.dir.c_str(), &st) != 0) return FailErrno(errno, options.dir);
  if (st.st_uid != ::geteuid())
    return Fail(Errc::kDenied, options.dir + " belongs to another user");
  if ((st.st_mode & 077) != 0 && ::chmod(options.dir.c_str(), 0700) != 0)
    return FailErrno(errno, options.dir);

  // One process at a time looks around and repairs.
  LEAT_ASSIGN_OR_RETURN(const os::UniqueFd opening,
                        os::Open(options.dir + "/opening.lock", O_RDWR | O_CREAT));
  if (!os::FlockWithin(opening.get(), true, 5s)) {
    return Fail(Errc::kConflict,
                options.dir + ": another process of leat that is stopped holds opening.lock");
  }
  LEAT_ASSIGN_OR_RETURN(disk->in_use_, os::Open(options.dir + "/in-use.lock", O_RDWR | O_CREAT));
  const bool alone = os::Flock(disk->in_use_.get(), true, false).has_value();
  LEAT_ASSIGN_OR_RETURN(disk->locks_, os::Open(options.dir + "/locks", O_RDWR | O_CREAT));
  LEAT_RETURN_IF_ERROR(disk->Initialize(alone));
  LEAT_RETURN_IF_ERROR(os::FlockWithin(disk->in_use_.get(), false, 5s));

  struct statvfs vfs;
  if (::statvfs(options.dir.c_str(), &vfs) != 0) return FailErrno(errno, options.dir);
  const auto fragment = static_cast<std::uint64_t>(vfs.f_frsize);
  disk->limit_bytes_ = options.limit_bytes != 0
                           ? options.limit_bytes
                           : (vfs.f_bavail * fragment + disk->shared_->used_bytes) / 2;
  disk->limit_inodes_ = options.limit_inodes != 0 ? options.limit_inodes
                        : vfs.f_files == 0        ? UINT64_MAX
                                                  : (vfs.f_favail + disk->shared_->used_inodes) / 2;
  return disk;
}

Status Disk::Initialize(bool alone) {
  const std::string format_path = dir_ + "/format";
  const auto format = os::ReadFile(format_path, 4096);
  if ((!format || *format != kFormat) && alone) {
    // Another version's, or damaged: it is not read, and not thrown away either.
    std::string aside;
    for (const char* part : {"format", "state", "index", "seg", "files", "leases", "trees"}) {
      if (!os::Exists(dir_ + "/" + part)) continue;
      if (aside.empty()) {
        aside = fmt::format(
            "{}/aside-{}", dir_,
            std::chrono::system_clock::now().time_since_epoch().count() / 1'000'000'000);
        LEAT_RETURN_IF_ERROR(os::MakeDirs(aside, 0700));
      }
      if (::rename((dir_ + "/" + part).c_str(), (aside + "/" + part).c_str()) != 0)
        return FailErrno(errno, dir_);
    }
    if (!aside.empty()) {
      Note(
          fmt::format("the cache in {} has another format or is damaged: it was set aside as {} "
                      "(leat cache clean --all removes it)",
                      dir_, aside));
    }
  } else if (!format || *format != kFormat) {
    return Fail(Errc::kCorrupt, dir_ + " is in use by another version of leat");
  }
  for (const char* part : {"seg", "files", "leases", "trees"})
    LEAT_RETURN_IF_ERROR(os::MakeDirs(dir_ + "/" + part, 0700));
  if (!format || *format != kFormat) {
    // What a process left that was killed in this very moment.
    LEAT_ASSIGN_OR_RETURN(const auto names, os::ListDir(dir_));
    for (const std::string& name : names) {
      if (name.starts_with("format.tmp-")) ::unlink((dir_ + "/" + name).c_str());
    }
    LEAT_RETURN_IF_ERROR(os::WriteFileAtomic(format_path, kFormat));
  }

  LEAT_ASSIGN_OR_RETURN(const os::UniqueFd state, os::Open(dir_ + "/state", O_RDWR | O_CREAT));
  struct stat st;
  if (::fstat(state.get(), &st) != 0) return FailErrno(errno, dir_ + "/state");
  bool rebuild = st.st_size != sizeof(Shared);
  if (rebuild) {
    if (!alone) return Fail(Errc::kCorrupt, dir_ + "/state is damaged");
    if (::ftruncate(state.get(), 0) != 0) return FailErrno(errno, dir_ + "/state");
    if (const int err = ::posix_fallocate(state.get(), 0, sizeof(Shared)); err != 0)
      return FailErrno(err, dir_ + "/state");
  }
  LEAT_ASSIGN_OR_RETURN(shared_map_,
                        os::Mapping::OfFile(state.get(), sizeof(Shared), PROT_READ | PROT_WRITE));
  shared_ = reinterpret_cast<Shared*>(shared_map_.data());
  os::GuardMapping(shared_map_.data(), shared_map_.size());
  segments_ = std::vector<std::atomic<Segment*>>(kSegmentTable);
  if (alone && (rebuild || shared_->clean.load() != 1 || shared_->boot != BootId() ||
                shared_->boot[0] == 0)) {
    SweepHalves();
    std::memset(shared_map_.data(), 0, sizeof(Shared));
    std::uint64_t bytes = 0, inodes = 0;
    std::uint32_t next = 1;
    for (const Unit& unit : Units()) {
      bytes += unit.bytes;
      inodes += unit.inodes;
      if (unit.kind == Unit::Kind::kSegment) {
        shared_->alive[unit.segment % kSegmentTable] = unit.segment;
        next = std::max(next, unit.segment + 1);
      }
    }
    shared_->used_bytes = bytes;
    shared_->used_inodes = inodes;
    shared_->next_segment = next;
    shared_->boot = BootId();
  }
  shared_->clean = 0;
  if (alone) shared_->users = 0;
  shared_->users += 1;
  counted_ = true;

  const std::string index_path = dir_ + "/index";
  const auto alive = [this](std::uint32_t segment) { return SegmentAlive(segment); };
  auto index = Index::Open(index_path, alive);
  if (!index && alone && index.error().code() == Errc::kCorrupt) {
    // Without its index a segment is of no use.
    for (const Unit& unit : Units()) {
      if (unit.kind == Unit::Kind::kSegment) Remove(unit);
    }
    ::unlink(index_path.c_str());
    index = Index::Open(index_path, alive);
  }
  if (!index) return Fail(std::move(index), "opening the cache");
  index_ = std::move(*index);
  return {};
}

Disk::~Disk() {
  Leave();
  if (shared_ != nullptr) os::UnguardMapping(shared_map_.data());
}

void Disk::Leave() {
  if (shared_ == nullptr || !in_use_) return;
  const auto opening = os::Open(dir_ + "/opening.lock", O_RDWR);
  // One that was killed never leaves: what it had reserved is found out by the next that is alone.
  if (opening && os::Flock(opening->get(), true, false) && std::exchange(counted_, false) &&
      shared_->users.fetch_sub(1) == 1 && os::Flock(in_use_.get(), true, false)) {
    shared_->clean = 1;
  }
  in_use_.Reset();
}

std::uint64_t Disk::used_bytes() const { return shared_->used_bytes; }

bool Disk::SegmentAlive(std::uint32_t segment) const {
  return shared_->alive[segment % kSegmentTable].load(std::memory_order_acquire) == segment;
}

void Disk::TurnOff(const Error& why) {
  if (on_.exchange(false)) {
    SayOnce(dir_, fmt::format("the cache in {} cannot be written ({}): going on without it", dir_,
                              why.message()));
  }
}

// ---------------------------------------------------------------- leases

std::shared_ptr<Lease> Disk::Hold(OwnerId owner) {
  const std::lock_guard lock(leases_mutex_);
  if (auto held = leases_[owner].lock()) return held;
  auto lease = std::make_shared<Lease>(owner);
  const std::string path = fmt::format("{}/leases/{:016x}", dir_, owner);
  if (auto fd = os::Open(path, O_RDWR | O_CREAT)) {
    ::futimens(fd->get(), nullptr);
    // Eviction holds it for moments; a process that is stopped in the middle of one must not stop
    // us.
    if (os::FlockWithin(fd->get(), false, 2s)) lease->file_ = std::move(*fd);
  }
  leases_[owner] = lease;
  return lease;
}

bool Disk::Adopt(OwnerId owner) {
  {
    const std::lock_guard lock(leases_mutex_);
    const auto it = leases_.find(owner);
    if (it != leases_.end()) {
      if (const auto held = it->second.lock()) return held->held();
    }
  }
  auto lease = Hold(owner);
  if (!lease->held()) return false;
  const std::lock_guard lock(leases_mutex_);
  adopted_.push_back(std::move(lease));
  return true;
}

// ---------------------------------------------------------------- small files

Segment* Disk::UseSegment(std::uint32_t number) {
  auto& entry = segments_[number % kSegmentTable];
  Segment* segment = entry.load(std::memory_order_acquire);
  if (segment != nullptr) return segment;
  const std::lock_guard lock(segments_mutex_);
  if ((segment = entry.load(std::memory_order_acquire)) != nullptr) return segment;
  // The owner is part of the name, and is found by it.
  const std::string suffix = fmt::format("-{:08x}", number);
  for (const std::string& name : NamesIn(dir_ + "/seg")) {
    if (!name.ends_with(suffix)) continue;
    const auto owner =
        ParseHex<OwnerId>(std::string_view(name).substr(0, name.size() - suffix.size()));
    auto fd = os::Open(dir_ + "/seg/" + name, O_RDWR);
    if (!owner || !fd) return nullptr;
    auto map = os::Mapping::OfFile(fd->get(), kSegmentBytes + 2 * kLargeFile, PROT_READ);
    if (!map) return nullptr;
    // Without its owner's lease, or after it was evicted, it is not there.
    if (!Adopt(*owner) || !SegmentAlive(number)) return nullptr;
    auto made = std::make_unique<Segment>(std::move(*fd), std::move(*map), *owner);
    segment = made.get();
    owned_segments_.push_back(std::move(made));
    entry.store(segment, std::memory_order_release);
    return segment;
  }
  return nullptr;
}

std::optional<Data> Disk::Find(const FileKey& key, std::atomic<std::uint64_t>* dropped) {
  index_->Refresh();
  const auto place = index_->Find(key.id);
  if (!place || place->size != key.size) return std::nullopt;
  Segment* segment = UseSegment(place->segment);
  if (segment == nullptr ||
      place->offset + sizeof(RecordHeader) + place->size > kSegmentBytes + 2 * kLargeFile) {
    return std::nullopt;
  }
  const std::uint64_t begin = place->offset + sizeof(RecordHeader);
  std::atomic<std::uint64_t>* const mark = MarkOf(*place);
  // Never 0: a segment has a number.
  const std::uint64_t here = (static_cast<std::uint64_t>(place->segment) << 32) | place->offset;
  if (mark != nullptr && mark->load(std::memory_order_acquire) == here) {
    return Data{{segment->map.data() + begin, key.size}, nullptr};
  }
  // pread, not the mapping: a disk that fails answers with an error here and with SIGBUS there.
  const auto buffer = std::make_shared_for_overwrite<std::byte[]>(sizeof(RecordHeader) + key.size);
  const Status read = os::PreadAll(segment->fd.get(),
                                   {buffer.get(), sizeof(RecordHeader) + key.size}, place->offset);
  RecordHeader header;
  std::memcpy(&header, buffer.get(), sizeof(header));
  const std::span<const std::byte> bytes(buffer.get() + sizeof(header), key.size);
  if (!read || header.magic != kRecordMagic || header.size != key.size ||
      header.id != key.id.word || header.header_sum != HeaderSum(header) ||
      header.sum != digest::Xxh3(bytes)) {
    if (dropped != nullptr) dropped->fetch_add(1, std::memory_order_relaxed);
    index_->Remove(key.id, *place);
    return std::nullopt;
  }
  if (mark != nullptr) mark->store(here, std::memory_order_release);
  return Data{bytes, buffer};
}

std::atomic<std::uint64_t>* Disk::MarkOf(const Place& place) {
  Verified* verified = verified_.load(std::memory_order_acquire);
  if (verified == nullptr || verified->generation != place.generation) {
    const std::lock_guard lock(verified_mutex_);
    const auto known =
        std::ranges::find(verified_owned_, place.generation,
                          [](const std::unique_ptr<Verified>& v) { return v->generation; });
    if (known != verified_owned_.end()) {
      verified = known->get();
    } else {
      auto fresh = std::make_unique<Verified>();
      fresh->generation = place.generation;
      fresh->places =
          std::vector<std::atomic<std::uint64_t>>(std::max(index_->slots(), place.slot + 1));
      verified_owned_.push_back(std::move(fresh));
      verified = verified_owned_.back().get();
      const Verified* const newest = verified_.load(std::memory_order_acquire);
      if (newest == nullptr || newest->generation < verified->generation) {
        verified_.store(verified, std::memory_order_release);
      }
    }
  }
  // A smaller table may have taken the name since this place was found in its predecessor.
  return place.slot < verified->places.size() ? &verified->places[place.slot] : nullptr;
}

void Disk::Forget(const FileKey& key, std::atomic<std::uint64_t>* dropped) {
  const auto place = index_->Find(key.id);
  if (!place) return;
  index_->Remove(key.id, *place);
  if (dropped != nullptr) dropped->fetch_add(1, std::memory_order_relaxed);
}

Result<std::uint32_t> Disk::NewSegment(OwnerId owner) {
  for (std::uint64_t tries = 0; tries < kSegmentTable; ++tries) {
    const std::uint32_t number = shared_->next_segment.fetch_add(1);
    if (number == 0 || number == UINT32_MAX) continue;
    auto& entry = shared_->alive[number % kSegmentTable];
    std::uint32_t expected = 0;
    if (!entry.compare_exchange_strong(expected, number)) continue;
    auto fd = os::Open(SegmentPath(owner, number), O_RDWR | O_CREAT | O_EXCL);
    if (!fd) {
      entry = 0;
      return Fail(std::move(fd), "making a segment");
    }
    auto map = os::Mapping::OfFile(fd->get(), kSegmentBytes + 2 * kLargeFile, PROT_READ);
    if (!map) return Fail(std::move(map), "mapping a segment");
    shared_->used_inodes += 1;
    const std::lock_guard lock(segments_mutex_);
    auto made = std::make_unique<Segment>(std::move(*fd), std::move(*map), owner);
    segments_[number % kSegmentTable].store(made.get(), std::memory_order_release);
    owned_segments_.push_back(std::move(made));
    return number;
  }
  return Fail(Errc::kNoSpace, "too many segments");
}

bool Disk::LockBriefly(std::uint64_t byte) {
  for (int tries = 0; tries < 2000; ++tries) {
    if (TryLock(byte, 1)) return true;
    std::this_thread::sleep_for(std::chrono::microseconds(100));
  }
  return false;  // its holder is stopped; whoever asks goes on without
}

Status Disk::Append(const FileKey& key, OwnerId owner, std::span<const std::byte> bytes) {
  Writer* writer;
  {
    const std::lock_guard lock(writers_mutex_);
    auto& entry = writers_[owner];
    if (entry == nullptr) entry = std::make_unique<Writer>();
    writer = entry.get();
  }
  Place place;
  Segment* segment;
  {
    const std::lock_guard lock(writer->mutex);
    // (it may have been evicted if its owner's lease was given up for a while)
    if (writer->segment == 0 || writer->position >= kSegmentBytes ||
        !SegmentAlive(writer->segment)) {
      LEAT_ASSIGN_OR_RETURN(writer->segment, NewSegment(owner));
      writer->position = 0;
    }
    place = {writer->segment, static_cast<std::uint32_t>(writer->position),
             static_cast<std::uint32_t>(key.size), 0};
    writer->position += RecordBytes(key.size);
    segment = segments_[place.segment % kSegmentTable].load(std::memory_order_acquire);
  }
  RecordHeader header{kRecordMagic, place.size, key.id.word, digest::Xxh3(bytes), 0};
  header.header_sum = HeaderSum(header);
  LEAT_RETURN_IF_ERROR(os::PwriteAll(segment->fd.get(), bytes, place.offset + sizeof(header)));
  LEAT_RETURN_IF_ERROR(os::PwriteAll(segment->fd.get(),
                                     {reinterpret_cast<const std::byte*>(&header), sizeof(header)},
                                     place.offset));
  // Without an entry in the index the bytes are lost to the cache; the reader has them.
  const std::lock_guard lock(index_mutex_);
  if (Now() < no_inserts_until_) return {};
  if (!LockBriefly(kInsertLock)) {
    no_inserts_until_ = Now() + kBackOff;
    return {};
  }
  Status inserted = index_->Insert(key.id, place);
  Unlock(kInsertLock, 1);
  return inserted;
}

}  // namespace leat::cache
