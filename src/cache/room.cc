// What the cache may hold, what it holds, and what goes when there is no room.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <tuple>
#include <unordered_map>

#include "base/log.h"
#include "cache/disk.h"

namespace leat::cache {
namespace {

std::uint64_t AllocatedBytes(const struct stat& st) {
  return static_cast<std::uint64_t>(st.st_blocks) * 512;
}

struct TreeSize {
  std::uint64_t bytes = 0, inodes = 0;
};
TreeSize SizeOfTree(const std::string& path) {
  TreeSize size;
  struct stat st;
  if (::lstat(path.c_str(), &st) != 0) return size;
  size.inodes = 1;
  if (S_ISDIR(st.st_mode)) {
    for (const std::string& name : NamesIn(path)) {
      const TreeSize below = SizeOfTree(path + "/" + name);
      size.bytes += below.bytes;
      size.inodes += below.inodes;
    }
  } else if (st.st_nlink == 1) {  // what is linked from files/ is counted there
    size.bytes = AllocatedBytes(st);
  }
  return size;
}

/// The marker beside a published tree, and its size as it was counted then: "<bytes> <inodes>".
TreeSize RecordedSize(const std::string& lease_path) {
  TreeSize size;
  if (const auto text = os::ReadFile(lease_path, 4096)) {
    std::size_t space = text->find(' ');
    if (space != std::string::npos) {
      std::from_chars(text->data(), text->data() + space, size.bytes);
      std::from_chars(text->data() + space + 1, text->data() + text->size(), size.inodes);
    }
  }
  return size;
}

std::int64_t MtimeOf(const std::string& path) {
  struct stat st;
  return ::stat(path.c_str(), &st) == 0 ? static_cast<std::int64_t>(st.st_mtime) : 0;
}

/// Takes `bytes` off, not below zero: the counters are repaired when the cache is next opened
/// alone.
void Subtract(std::atomic<std::uint64_t>& counter, std::uint64_t bytes) {
  std::uint64_t now = counter.load();
  while (!counter.compare_exchange_weak(now, now > bytes ? now - bytes : 0)) {
  }
}

}  // namespace

std::vector<std::string> NamesIn(const std::string& path) {
  auto names = os::ListDir(path);
  return names ? std::move(*names) : std::vector<std::string>{};
}

bool Disk::DiskHasRoom(std::uint64_t bytes) {
  if (room_known_.fetch_sub(static_cast<std::int64_t>(bytes)) > static_cast<std::int64_t>(bytes))
    return true;
  const std::uint64_t free = FreeBytes();
  if (free < bytes) {
    room_known_ = 0;
    return false;
  }
  room_known_ = static_cast<std::int64_t>(std::min<std::uint64_t>((free - bytes) / 4, 64 * kMiB));
  return true;
}

std::uint64_t Disk::FreeBytes() const {
  struct statvfs vfs;
  if (::statvfs(dir_.c_str(), &vfs) != 0) return 0;
  const auto fragment = static_cast<std::uint64_t>(vfs.f_frsize);
  const std::uint64_t free = vfs.f_bavail * fragment;
  const std::uint64_t keep = vfs.f_blocks * fragment / 20;  // 5 % of the disk stay free
  return free > keep ? free - keep : 0;
}

/// All or nothing, however many take at once.
bool Disk::Take(std::uint64_t bytes, std::uint64_t inodes) {
  const auto take = [](std::atomic<std::uint64_t>& used, std::uint64_t n, std::uint64_t limit) {
    std::uint64_t now = used.load();
    do {
      if (n > limit || now > limit - n) return false;
    } while (!used.compare_exchange_weak(now, now + n));
    return true;
  };
  if (!take(shared_->used_bytes, bytes, limit_bytes_)) return false;
  if (take(shared_->used_inodes, inodes, limit_inodes_)) return true;
  Subtract(shared_->used_bytes, bytes);
  return false;
}

bool Disk::Reserve(std::uint64_t bytes, std::uint64_t inodes) {
  if (!on() || bytes > limit_bytes_) return false;
  const auto take = [&] {
    if (!Take(bytes, inodes)) return false;
    if (DiskHasRoom(bytes)) return true;
    Unreserve(bytes, inodes);
    return false;
  };
  if (take()) return true;
  // What could be evicted was, a moment ago: looking through the whole folder again for every file
  // would bring nothing.
  if (Now() < no_room_until_) return false;
  const std::lock_guard lock(evict_mutex_);
  if (take()) return true;
  if (Now() < no_room_until_) return false;
  if (!TryLock(kEvictLock, 1)) return false;
  // A little more than needed, so that not every file has to ask.
  Evict(bytes + limit_bytes_ / 50, inodes + 16, false);
  Unlock(kEvictLock, 1);
  if (take()) return true;
  no_room_until_ = Now() + kBackOff;
  return false;
}

bool Disk::Admit(std::uint64_t bytes, std::uint64_t inodes) {
  if (Reserve(bytes, inodes)) return true;
  if (on() && FreeBytes() < bytes) {
    SayOnce(dir_,
            fmt::format("the disk has no room for the cache in {} (5 % of it stay free): what is "
                        "read now is not kept",
                        dir_));
  }
  return false;
}

void Disk::Unreserve(std::uint64_t bytes, std::uint64_t inodes) {
  Subtract(shared_->used_bytes, bytes);
  Subtract(shared_->used_inodes, inodes);
}

std::vector<Disk::Unit> Disk::Units() const {
  std::vector<Unit> units;
  struct stat st;
  for (const std::string& name : NamesIn(dir_ + "/seg")) {
    Unit unit;
    unit.path = dir_ + "/seg/" + name;
    const std::size_t dash = name.find('-');
    if (dash == std::string::npos || ::lstat(unit.path.c_str(), &st) != 0) continue;
    const auto owner = ParseHex<OwnerId>(std::string_view(name).substr(0, dash));
    const auto number = ParseHex<std::uint32_t>(std::string_view(name).substr(dash + 1));
    if (!owner || !number) continue;
    unit.owner = *owner;
    unit.segment = *number;
    // As it was reserved, record by record.
    unit.bytes =
        std::min(AllocatedBytes(st), (static_cast<std::uint64_t>(st.st_size) + kRecordAlign - 1) /
                                         kRecordAlign * kRecordAlign);
    unit.last_used = st.st_mtime;
    units.push_back(std::move(unit));
  }
  for (const std::string& folder : NamesIn(dir_ + "/files")) {
    for (const std::string& name : NamesIn(dir_ + "/files/" + folder)) {
      if (!name.ends_with(".sums")) continue;
      Unit unit;
      unit.kind = Unit::Kind::kLarge;
      unit.path = dir_ + "/files/" + folder + "/" + name.substr(0, name.size() - 5);
      unit.inodes = 2;
      SumsHeader header = {};
      const auto fd = os::Open(unit.path + ".sums", O_RDONLY);
      if (!fd ||
          !os::PreadAll(fd->get(), {reinterpret_cast<std::byte*>(&header), sizeof(header)}, 0))
        header.owner = 0;
      unit.owner = header.owner;
      if (::lstat((unit.path + ".sums").c_str(), &st) == 0) unit.bytes += AllocatedBytes(st);
      if (::lstat(unit.path.c_str(), &st) == 0) {
        unit.bytes += AllocatedBytes(st);
        unit.last_used = st.st_mtime;
      }
      units.push_back(std::move(unit));
    }
  }
  for (const std::string& name : NamesIn(dir_ + "/trees")) {
    if (!name.ends_with(".lease")) continue;
    Unit unit;
    unit.kind = Unit::Kind::kTree;
    unit.path = dir_ + "/trees/" + name.substr(0, name.size() - 6);
    // A half-made one too counts for what was reserved for it.
    TreeSize size = RecordedSize(unit.path + ".lease");
    if (size.bytes == 0) size = SizeOfTree(unit.path + ".part");
    unit.bytes = size.bytes;
    unit.inodes = size.inodes;
    unit.last_used = MtimeOf(unit.path + ".lease");
    units.push_back(std::move(unit));
  }
  return units;
}

std::optional<std::uint64_t> Disk::Remove(const Unit& unit) {
  switch (unit.kind) {
    case Unit::Kind::kSegment: {
      std::uint32_t expected = unit.segment;
      shared_->alive[unit.segment % kSegmentTable].compare_exchange_strong(expected, 0);
      ::unlink(unit.path.c_str());
      break;
    }
    case Unit::Kind::kLarge:
      // What a tree shares stays on the disk, and counted, as long as the tree.
      if (struct stat st; ::lstat(unit.path.c_str(), &st) == 0 && st.st_nlink > 1)
        return std::nullopt;
      ::unlink((unit.path + ".sums").c_str());
      ::unlink(unit.path.c_str());
      break;
    case Unit::Kind::kTree: {
      // First out of sight, so that a tree is never seen with files missing.
      const std::string going = unit.path + ".going";
      if (auto s = os::RemoveTree(going); !s) return std::nullopt;
      if (::rename(unit.path.c_str(), going.c_str()) != 0 && errno != ENOENT) return std::nullopt;
      if (!os::RemoveTree(going) || !os::RemoveTree(unit.path + ".part")) return std::nullopt;
      ::unlink((unit.path + ".lease").c_str());
      break;
    }
  }
  Unreserve(unit.bytes, unit.inodes);
  return unit.bytes;
}

/// A process that was killed may have left one of a large file's two files, or a beginning of
/// them. Only when nobody else is here.
void Disk::SweepHalves() {
  for (const std::string& folder : NamesIn(dir_ + "/files")) {
    const std::string in = dir_ + "/files/" + folder + "/";
    for (const std::string& name : NamesIn(in)) {
      const std::size_t dot = name.find('.');
      const std::string other =
          dot == std::string::npos ? in + name + ".sums" : in + name.substr(0, dot);
      const bool whole = dot == std::string::npos || name.substr(dot) == ".sums";
      if (!whole || !os::Exists(other)) ::unlink((in + name).c_str());
    }
  }
}

/// Removes what nobody uses until `bytes` and `inodes` are free, or `everything`.
std::uint64_t Disk::Evict(std::uint64_t bytes, std::uint64_t inodes, bool everything) {
  std::vector<Unit> units = Units();
  // The owner that was used longest ago goes first, within it what was written first. A tree is an
  // owner of its own.
  std::unordered_map<OwnerId, std::int64_t> used;
  for (Unit& unit : units) {
    if (unit.kind == Unit::Kind::kTree) continue;
    const auto [it, fresh] = used.try_emplace(unit.owner, 0);
    if (fresh) it->second = MtimeOf(fmt::format("{}/leases/{:016x}", dir_, unit.owner));
  }
  const auto age = [&](const Unit& u) {
    return u.kind == Unit::Kind::kTree ? u.last_used : used[u.owner];
  };
  std::ranges::sort(units, [&](const Unit& a, const Unit& b) {
    return std::tuple(age(a), a.owner, a.last_used) < std::tuple(age(b), b.owner, b.last_used);
  });
  std::uint64_t freed = 0;
  std::unordered_map<OwnerId, os::UniqueFd>
      locked;  // owners that nobody uses, held for the duration
  std::unordered_map<OwnerId, bool> in_use;
  const auto enough = [&] {
    return !everything && shared_->used_bytes.load() + bytes <= limit_bytes_ &&
           (limit_inodes_ < inodes || shared_->used_inodes.load() <= limit_inodes_ - inodes) &&
           FreeBytes() >= bytes;
  };
  // What a tree shares is taken only after the tree, and may have been used before it.
  std::vector<const Unit*> left;
  for (const Unit& unit : units) left.push_back(&unit);
  const auto evict = [&](const Unit& unit) -> bool {
    os::UniqueFd tree_lock;
    if (unit.kind == Unit::Kind::kTree) {
      auto fd = os::Open(unit.path + ".lease", O_RDWR);
      if (!fd || !os::Flock(fd->get(), true, false)) return false;
      tree_lock = std::move(*fd);
    } else if (!locked.contains(unit.owner)) {
      if (in_use[unit.owner]) return false;
      auto fd = os::Open(fmt::format("{}/leases/{:016x}", dir_, unit.owner), O_RDWR | O_CREAT);
      if (!fd || !os::Flock(fd->get(), true, false)) {
        in_use[unit.owner] = true;
        return false;
      }
      locked[unit.owner] = std::move(*fd);
    }
    const auto removed = Remove(unit);
    freed += removed.value_or(0);
    return removed.has_value();
  };
  for (int pass = 0; pass < 2; ++pass) {
    std::erase_if(left, [&](const Unit* unit) { return !enough() && evict(*unit); });
  }
  room_known_ = 0;
  return freed;
}

Result<CacheStat> Disk::Stat(const std::string& dir, std::uint64_t limit_bytes) {
  CacheStat out;
  out.dir = dir;
  if (!os::Exists(dir)) return out;
  CacheOptions options;
  options.dir = dir;
  options.limit_bytes = limit_bytes;
  LEAT_ASSIGN_OR_RETURN(const auto disk, Open(options));
  out.limit_bytes = disk->limit_bytes_;
  for (const Unit& unit : disk->Units()) {
    out.used_bytes += unit.bytes;
    out.inodes += unit.inodes;
    switch (unit.kind) {
      case Unit::Kind::kSegment:
        ++out.segments;
        break;
      case Unit::Kind::kLarge:
        ++out.large_files;
        break;
      case Unit::Kind::kTree:
        ++out.trees;
        out.tree_bytes += unit.bytes;
        break;
    }
    const std::string lease = unit.kind == Unit::Kind::kTree
                                  ? unit.path + ".lease"
                                  : fmt::format("{}/leases/{:016x}", dir, unit.owner);
    const auto fd = os::Open(lease, O_RDWR);
    if (fd && !os::Flock(fd->get(), true, false)) out.leased_bytes += unit.bytes;
  }
  out.small_files = disk->index_->CountAlive();
  for (const std::string& name : NamesIn(dir)) {
    if (name.starts_with("aside-")) out.aside_bytes += SizeOfTree(dir + "/" + name).bytes;
  }
  return out;
}

Result<std::uint64_t> Disk::Clean(const std::string& dir, bool all) {
  if (!os::Exists(dir)) return 0;
  CacheOptions options;
  options.dir = dir;
  LEAT_ASSIGN_OR_RETURN(const auto disk, Open(options));
  const std::lock_guard lock(disk->evict_mutex_);
  if (!disk->LockBriefly(kEvictLock))
    return Fail(Errc::kConflict, dir + ": another process is making room there");
  std::uint64_t freed = disk->Evict(0, 0, true);
  disk->Unlock(kEvictLock, 1);
  if (all) {
    for (const std::string& name : NamesIn(dir)) {
      if (!name.starts_with("aside-")) continue;
      freed += SizeOfTree(dir + "/" + name).bytes;
      LEAT_RETURN_IF_ERROR(os::RemoveTree(dir + "/" + name));
    }
  }
  return freed;
}

}  // namespace leat::cache
