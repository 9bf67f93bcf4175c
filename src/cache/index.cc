#include "cache/index.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "os/fault_guard.h"

namespace leat::cache {
namespace {

constexpr std::uint64_t kMagic = 0x315844'4954'41454cULL;  // "LEATIDX1"
constexpr std::uint64_t kFirstSlots = 1 << 14;

}  // namespace

struct Index::Slot {
  std::atomic<std::uint32_t> segment;  // 0: free
  std::atomic<std::uint32_t> offset;
  std::atomic<std::uint32_t> size;
  std::atomic<std::uint32_t> spare;
  std::atomic<std::uint64_t> id0, id1;
};

struct Index::Header {
  std::atomic<std::uint64_t> magic;
  std::atomic<std::uint64_t> slots;       // a power of two
  std::atomic<std::uint64_t> filled;      // slots that are not free, dead ones among them
  std::atomic<std::uint32_t> superseded;  // a larger table has taken the name
  char reserved[4096 - 28];
};

struct Index::Table {
  os::UniqueFd fd;
  os::Mapping map;
  std::uint64_t mask = 0;
  std::uint64_t generation = 0;  // how many tables this process had before

  Header& header() const { return *reinterpret_cast<Header*>(map.data()); }
  Slot& slot(std::uint64_t i) const {
    return reinterpret_cast<Slot*>(map.data() + sizeof(Header))[i & mask];
  }
};

Index::Index(std::string path, std::function<bool(std::uint32_t)> alive)
    : path_(std::move(path)), alive_(std::move(alive)) {}
Index::~Index() {
  for (const auto& table : tables_) os::UnguardMapping(table->map.data());
}

std::uint64_t Index::generation() const {
  return table_.load(std::memory_order_acquire)->generation;
}

Result<std::unique_ptr<Index::Table>> Index::MapTable(const std::string& path) {
  static_assert(sizeof(Slot) == 32 && sizeof(Header) == 4096);
  auto table = std::make_unique<Table>();
  LEAT_ASSIGN_OR_RETURN(table->fd, os::Open(path, O_RDWR));
  struct stat st;
  if (::fstat(table->fd.get(), &st) != 0) return FailErrno(errno, path);
  const auto size = static_cast<std::uint64_t>(st.st_size);
  if (size < sizeof(Header) + kFirstSlots * sizeof(Slot))
    return Fail(Errc::kCorrupt, path + " is too short");
  LEAT_ASSIGN_OR_RETURN(table->map,
                        os::Mapping::OfFile(table->fd.get(), size, PROT_READ | PROT_WRITE));
  const std::uint64_t slots = table->header().slots;
  if (table->header().magic != kMagic || (slots & (slots - 1)) != 0 ||
      sizeof(Header) + slots * sizeof(Slot) != size) {
    return Fail(Errc::kCorrupt, path + " is not an index of this version");
  }
  table->mask = slots - 1;
  return table;
}

Result<std::unique_ptr<Index::Table>> Index::MakeTable(const std::string& path,
                                                       std::uint64_t slots) {
  ::unlink(path.c_str());
  auto table = std::make_unique<Table>();
  LEAT_ASSIGN_OR_RETURN(table->fd, os::Open(path, O_RDWR | O_CREAT | O_EXCL));
  const std::uint64_t size = sizeof(Header) + slots * sizeof(Slot);
  // Not sparse: a full disk must show here, not as a SIGBUS at the first touch of a page.
  if (const int err = ::posix_fallocate(table->fd.get(), 0, static_cast<off_t>(size)); err != 0) {
    ::unlink(path.c_str());
    return FailErrno(err, path);
  }
  LEAT_ASSIGN_OR_RETURN(table->map,
                        os::Mapping::OfFile(table->fd.get(), size, PROT_READ | PROT_WRITE));
  table->header().slots = slots;
  table->header().magic = kMagic;
  table->mask = slots - 1;
  return table;
}

Result<std::unique_ptr<Index>> Index::Open(const std::string& path,
                                           std::function<bool(std::uint32_t)> segment_alive) {
  std::unique_ptr<Index> index(new Index(path, std::move(segment_alive)));
  if (!os::Exists(path)) {
    LEAT_ASSIGN_OR_RETURN(auto made, MakeTable(path + ".new", kFirstSlots));
    if (::fdatasync(made->fd.get()) != 0 || ::rename((path + ".new").c_str(), path.c_str()) != 0) {
      return FailErrno(errno, path);
    }
    index->Use(std::move(made));
    return index;
  }
  LEAT_ASSIGN_OR_RETURN(auto table, MapTable(path));
  index->Use(std::move(table));
  return index;
}

void Index::Use(std::unique_ptr<Table> table) {
  const std::lock_guard lock(mutex_);
  table->generation = tables_.size() + 1;
  os::GuardMapping(table->map.data(), table->map.size());
  table_.store(table.get(), std::memory_order_release);
  tables_.push_back(std::move(table));
}

std::optional<Place> Index::Find(const Identity& id) const {
  const Table& table = *table_.load(std::memory_order_acquire);
  for (std::uint64_t i = id.word[0], probes = 0; probes <= table.mask; ++i, ++probes) {
    const Slot& slot = table.slot(i);
    const std::uint32_t segment = slot.segment.load(std::memory_order_acquire);
    if (segment == 0) return std::nullopt;
    if (slot.id0.load(std::memory_order_relaxed) != id.word[0] ||
        slot.id1.load(std::memory_order_relaxed) != id.word[1]) {
      continue;
    }
    const Place place{segment, slot.offset.load(std::memory_order_relaxed),
                      slot.size.load(std::memory_order_relaxed), i & table.mask, table.generation};
    std::atomic_thread_fence(std::memory_order_acquire);
    if (slot.segment.load(std::memory_order_relaxed) != segment || !alive_(segment)) continue;
    return place;
  }
  return std::nullopt;
}

bool Index::Put(Table& table, const Identity& id, const Place& place,
                const std::function<bool(std::uint32_t)>& alive) {
  for (std::uint64_t i = id.word[0], probes = 0; probes <= table.mask; ++i, ++probes) {
    Slot& slot = table.slot(i);
    const std::uint32_t segment = slot.segment.load(std::memory_order_relaxed);
    const bool same = segment != 0 && slot.id0.load(std::memory_order_relaxed) == id.word[0] &&
                      slot.id1.load(std::memory_order_relaxed) == id.word[1];
    if (segment != 0 && !same && alive(segment)) continue;
    if (segment == 0) table.header().filled.fetch_add(1, std::memory_order_relaxed);
    // Never 0 in between: a reader on its way to another entry would stop here.
    slot.segment.store(UINT32_MAX, std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_release);
    slot.id0.store(id.word[0], std::memory_order_relaxed);
    slot.id1.store(id.word[1], std::memory_order_relaxed);
    slot.offset.store(place.offset, std::memory_order_relaxed);
    slot.size.store(place.size, std::memory_order_relaxed);
    slot.segment.store(place.segment, std::memory_order_release);
    return true;
  }
  return false;
}

Status Index::Insert(const Identity& id, const Place& place) {
  Refresh();
  Table* table = table_.load(std::memory_order_acquire);
  if (table->header().filled.load(std::memory_order_relaxed) > (table->mask + 1) / 10 * 7) {
    LEAT_RETURN_IF_ERROR(Grow());
    table = table_.load(std::memory_order_acquire);
  }
  if (Put(*table, id, place, alive_)) return {};
  // After a power loss the count of filled slots may be too low.
  LEAT_RETURN_IF_ERROR(Grow());
  if (!Put(*table_.load(), id, place, alive_))
    return Fail(Errc::kInternal, "the cache's index is full");
  return {};
}

void Index::Remove(const Identity& id, const Place& place) {
  const Table& table = *table_.load(std::memory_order_acquire);
  if (table.generation != place.generation) return;
  Slot& slot = table.slot(place.slot);
  std::uint32_t expected = place.segment;
  if (slot.id0.load(std::memory_order_relaxed) == id.word[0] &&
      slot.id1.load(std::memory_order_relaxed) == id.word[1] &&
      slot.offset.load(std::memory_order_relaxed) == place.offset) {
    slot.segment.compare_exchange_strong(expected, UINT32_MAX);
  }
}

std::uint64_t Index::CountAlive() const {
  const Table& table = *table_.load(std::memory_order_acquire);
  std::uint64_t count = 0;
  for (std::uint64_t i = 0; i <= table.mask; ++i) {
    const std::uint32_t segment = table.slot(i).segment.load(std::memory_order_relaxed);
    if (segment != 0 && alive_(segment)) ++count;
  }
  return count;
}

std::uint64_t Index::slots() const { return table_.load(std::memory_order_acquire)->mask + 1; }

void Index::Refresh() {
  const Table* table = table_.load(std::memory_order_acquire);
  if (table->header().superseded.load(std::memory_order_acquire) == 0) return;
  // Should the larger table not be readable, the old one goes on to serve: entries are missing,
  // none is wrong.
  if (auto larger = MapTable(path_)) Use(std::move(*larger));
}

Status Index::Grow() {
  const Table& old = *table_.load(std::memory_order_acquire);
  const std::uint64_t alive = CountAlive();
  std::uint64_t slots = kFirstSlots;
  while (slots / 10 * 3 < alive) slots *= 2;
  LEAT_ASSIGN_OR_RETURN(auto table, MakeTable(path_ + ".new", slots));
  for (std::uint64_t i = 0; i <= old.mask; ++i) {
    const Slot& slot = old.slot(i);
    const std::uint32_t segment = slot.segment.load(std::memory_order_acquire);
    if (segment == 0 || !alive_(segment)) continue;
    Put(*table, Identity{{slot.id0.load(), slot.id1.load()}},
        Place{segment, slot.offset.load(), slot.size.load(), 0, 0}, alive_);
  }
  if (::fdatasync(table->fd.get()) != 0 || ::rename((path_ + ".new").c_str(), path_.c_str()) != 0) {
    return FailErrno(errno, "enlarging the cache's index");
  }
  old.header().superseded.store(1, std::memory_order_release);
  Use(std::move(table));
  return {};
}

}  // namespace leat::cache
