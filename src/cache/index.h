// Where the small files lie: a hash table in memory that all processes map, read without a lock.
#ifndef LEAT_CACHE_INDEX_H_
#define LEAT_CACHE_INDEX_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "cache/cache.h"
#include "os/file.h"

namespace leat::cache {

/// Where a small file's record begins.
struct Place {
  std::uint32_t segment = 0;  ///< never 0, never used twice
  std::uint32_t offset = 0;
  std::uint32_t size = 0;        ///< of the file
  std::uint64_t slot = 0;        ///< for marks of this process: which were verified
  std::uint64_t generation = 0;  ///< of the table that the slot is in
};

/// Lookups: no lock, no system call, any thread. Inserts: the caller holds a lock among threads and
/// processes. A slot is published by the store of its segment number, last; a reader that meets a
/// slot in change sees none. Nothing in it needs to be trusted: the record that a slot leads to
/// names its file and carries the checksum of its bytes.
class Index {
 public:
  /// Opens or makes `path`. kCorrupt when it is something else.
  static Result<std::unique_ptr<Index>> Open(const std::string& path,
                                             std::function<bool(std::uint32_t)> segment_alive);

  ~Index();

  std::optional<Place> Find(const Identity& id) const;
  /// Replaces a dead or damaged entry of the same file. Grows the table (a new file under the same
  /// name) where it is 70 % full.
  Status Insert(const Identity& id, const Place& place);
  /// Forgets one entry (its record turned out to be damaged), if it still leads to that place.
  void Remove(const Identity& id, const Place& place);
  std::uint64_t CountAlive() const;
  std::uint64_t slots() const;
  /// Goes over to a larger table that another process has made. Cheap when there is none.
  void Refresh();
  /// Of the table in use now.
  std::uint64_t generation() const;

 private:
  struct Slot;
  struct Header;
  struct Table;

  Index(std::string path, std::function<bool(std::uint32_t)> alive);
  static Result<std::unique_ptr<Table>> MapTable(const std::string& path);
  static Result<std::unique_ptr<Table>> MakeTable(const std::string& path, std::uint64_t slots);
  void Use(std::unique_ptr<Table> table);
  Status Grow();
  static bool Put(Table& table, const Identity& id, const Place& place,
                  const std::function<bool(std::uint32_t)>& alive);

  const std::string path_;
  const std::function<bool(std::uint32_t)> alive_;
  std::mutex mutex_;  // guards tables_
  std::vector<std::unique_ptr<Table>>
      tables_;  // readers may still be in an old one: they stay mapped
  std::atomic<Table*> table_{nullptr};
};

}  // namespace leat::cache

#endif  // LEAT_CACHE_INDEX_H_
