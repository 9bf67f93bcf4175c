#include "snapshot/builder.h"

#include <fmt/format.h>

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <deque>
#include <limits>
#include <span>
#include <utility>

#include "base/bytes.h"
#include "base/log.h"
#include "snapshot/format.h"
#include "snapshot/key_rules.h"

namespace leat::snapshot {
namespace {

/// Bytes that live as long as the builder, without an allocation each.
class Arena {
 public:
  const char* Keep(std::string_view a, std::string_view b = {}) {
    const std::size_t n = a.size() + b.size();
    if (n > left_) {
      const std::size_t chunk = std::max(n, kChunk);
      chunks_.push_back(std::make_unique_for_overwrite<char[]>(chunk));
      next_ = chunks_.back().get();
      left_ = chunk;
    }
    char* const at = next_;
    if (!a.empty()) std::memcpy(at, a.data(), a.size());
    if (!b.empty()) std::memcpy(at + a.size(), b.data(), b.size());
    next_ += n;
    left_ -= n;
    return at;
  }

 private:
  static constexpr std::size_t kChunk = kMiB;
  std::vector<std::unique_ptr<char[]>> chunks_;
  char* next_ = nullptr;
  std::size_t left_ = 0;
};

/// An entry as it was added. Its strings lie in the arena: a version as u32 length and bytes.
struct Staged {
  const char* key;
  const char* version;  // or null
  std::uint64_t size;
  std::int64_t mtime_ns;
  std::byte etag[16];  // raw, or the address of its text
  std::uint32_t key_length;
  std::uint32_t etag_parts;  // or the length of its text
  std::uint8_t flags;        // format::EtagForm, kArchived

  std::string_view Key() const { return {key, key_length}; }
  format::EtagForm Form() const {
    return static_cast<format::EtagForm>(flags & format::kEtagFormMask);
  }
  std::string_view EtagOfText() const {
    const char* at;
    std::memcpy(&at, etag, sizeof at);
    return {at, etag_parts};
  }
  /// `buffer` has room for format::kMaxPackedEtag.
  std::string_view Etag(char* buffer) const {
    switch (Form()) {
      case format::kNoEtag:
        return {};
      case format::kTextEtag:
        return EtagOfText();
      default:
        return {buffer, format::UnpackEtag(Form(), etag_parts, etag, buffer)};
    }
  }
  std::string_view Version() const {
    if (version == nullptr) return {};
    std::uint32_t length;
    std::memcpy(&length, version, sizeof length);
    return {version + sizeof length, length};
  }
};

std::uint64_t FirstBytes(std::string_view key, std::size_t from) {
  std::uint64_t word = 0;
  if (key.size() > from) {
    std::memcpy(&word, key.data() + from, std::min<std::size_t>(8, key.size() - from));
  }
  return __builtin_bswap64(word);
}

std::size_t CommonLength(std::string_view a, std::string_view b) {
  const std::size_t n = std::min(a.size(), b.size());
  return static_cast<std::size_t>(
      std::mismatch(a.begin(), a.begin() + static_cast<std::ptrdiff_t>(n), b.begin()).first -
      a.begin());
}

/// A directory of the tree that is being made.
struct Dir {
  const char* name;
  std::uint32_t name_length;
  std::uint32_t parent;
  std::uint32_t child_count = 0;
  std::uint32_t first_child = 0;

  std::string_view Name() const { return {name, name_length}; }
};

enum class Fate : std::uint8_t { kFile, kMarker, kFolderWithContents, kLeftOut };

}  // namespace

struct Builder::Impl {
  std::string store_identity, prefix;
  Arena arena;
  std::deque<Staged> staged;

  Impl(std::string identity, std::string key_prefix)
      : store_identity(std::move(identity)), prefix(std::move(key_prefix)) {}

  struct SortItem {
    std::uint64_t head;  // eight bytes of the key
    std::uint32_t index;
  };

  std::vector<std::uint32_t> Sorted() const;
  void SortFrom(std::span<SortItem> items, std::size_t depth) const;
  bool SortRuns(std::vector<std::uint32_t>& order) const;
  std::vector<Fate> Judge(std::span<const std::uint32_t> order) const;
};

/// What WriteTo makes of the sorted entries, pass by pass.
class Writing {
 public:
  Writing(const std::deque<Staged>& staged, std::vector<std::uint32_t> order,
          std::string_view prefix)
      : staged_(staged), order_(std::move(order)), prefix_(prefix) {}

  /// Makes the tree, the blocks, the pin and what is left out from the entries in order.
  void Walk(std::span<const Fate> fates);
  void LinkChildren();
  Status Write(int fd, std::string_view store_identity);
  LeftOut TakeLeftOut() { return std::move(left_out_); }

 private:
  const Staged& File(std::size_t i) const { return staged_[order_[i]]; }
  std::string_view NameOf(std::uint32_t i) const {
    const std::string_view key = File(i).Key();
    return key.substr(key.rfind('/') + 1);  // npos + 1 is 0
  }
  /// Directories down to the key's last '/'; returns the innermost.
  std::uint32_t EnterDirectories(std::string_view key);
  void EndBlock();
  void LeaveOut(const Staged& entry, std::string_view etag);

  const std::deque<Staged>& staged_;
  std::vector<std::uint32_t> order_;  // of all entries; after Walk of the files alone
  std::string_view prefix_;
  std::vector<Dir> dirs_{Dir{"", 0, kRoot}};
  std::vector<std::uint32_t> parents_;   // of each file
  std::vector<std::uint32_t> children_;  // of each directory, one after the other
  std::vector<format::Block> blocks_;
  std::string left_out_records_;
  LeftOut left_out_;
  digest::Sha256 pin_{};
  std::uint64_t total_bytes_ = 0;
  std::uint64_t names_size_ = 0;
  bool has_versions_ = false;

  struct Open {
    std::size_t end;  // of its path in the key, '/' included
    std::uint32_t dir;
  };
  std::vector<Open> open_;
  std::string_view previous_;
  format::RecordHasher pin_hasher_, block_hasher_;
};

Builder::Builder(std::string store_identity, std::string prefix)
    : impl_(std::make_unique<Impl>(std::move(store_identity), std::move(prefix))) {}
Builder::~Builder() = default;

void Builder::Clear(bool moved) {
  std::string identity = std::move(impl_->store_identity);
  if (moved) identity += kMoved;
  impl_ = std::make_unique<Impl>(std::move(identity), std::move(impl_->prefix));
}

Status Builder::Add(const store::ObjectInfo& info) {
  // Tables are made after sizes that strangers name: no store has objects of this size.
  constexpr std::uint64_t kLargestObject = 1ULL << 46;
  if (info.size > kLargestObject) {
    return Fail(Errc::kCorrupt,
                fmt::format("the object \"{}\" is said to have {} bytes, which no store holds",
                            Printable(info.key), info.size));
  }
  Impl& impl = *impl_;
  if (!info.key.starts_with(impl.prefix)) {
    return Fail(Errc::kCorrupt,
                "the listing of \"" + impl.prefix + "\" holds \"" + info.key + "\"");
  }
  if (info.size > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
    return Fail(Errc::kCorrupt,
                "\"" + info.key + "\" is listed with " + std::to_string(info.size) + " bytes");
  }
  if (impl.staged.size() >= format::kMaxEntries) {
    return Fail(Errc::kUnsupported, "a snapshot holds 2,147,483,647 objects at most");
  }
  const std::string_view key = std::string_view(info.key).substr(impl.prefix.size());
  Staged entry{};
  entry.key = impl.arena.Keep(key);
  entry.key_length = static_cast<std::uint32_t>(key.size());
  entry.size = info.size;
  if (info.modified) {
    entry.mtime_ns =
        std::chrono::duration_cast<std::chrono::nanoseconds>(info.modified->time_since_epoch())
            .count();
  }
  const std::string& etag = info.version.etag;
  format::EtagForm form = format::kNoEtag;
  if (!etag.empty() && !format::PackEtag(etag, &form, &entry.etag_parts, entry.etag)) {
    form = format::kTextEtag;
    const char* const at = impl.arena.Keep(etag);
    std::memset(entry.etag, 0, sizeof entry.etag);
    std::memcpy(entry.etag, &at, sizeof at);
    entry.etag_parts = static_cast<std::uint32_t>(etag.size());
  }
  entry.flags = static_cast<std::uint8_t>(form | (info.archived ? format::kArchived : 0U));
  if (const std::string& version = info.version.version_id; !version.empty()) {
    const auto length = static_cast<std::uint32_t>(version.size());
    char bytes[sizeof length];
    std::memcpy(bytes, &length, sizeof length);
    entry.version = impl.arena.Keep({bytes, sizeof bytes}, version);
  }
  impl.staged.push_back(entry);
  return {};
}

Status Builder::WriteTo(int fd, bool sync, LeftOut* left_out) {
  const std::unique_ptr<Impl> impl =
      std::exchange(impl_, std::make_unique<Impl>(impl_->store_identity, impl_->prefix));
  std::vector<std::uint32_t> order = impl->Sorted();
  const std::vector<Fate> fates = impl->Judge(order);
  Writing writing(impl->staged, std::move(order), impl->prefix);
  writing.Walk(fates);
  writing.LinkChildren();
  LEAT_RETURN_IF_ERROR(writing.Write(fd, impl->store_identity));
  if (sync && ::fsync(fd) != 0) return FailErrno(errno, "syncing a snapshot");
  if (left_out != nullptr) *left_out = writing.TakeLeftOut();
  return {};
}

/// Entries come in runs that ascend (pages of a listing, in ranges of their own). Where no two runs
/// overlap, sorting the runs sorts the entries.
bool Builder::Impl::SortRuns(std::vector<std::uint32_t>& order) const {
  struct Run {
    std::uint32_t begin, end;
  };
  const auto n = static_cast<std::uint32_t>(staged.size());
  std::vector<Run> runs;
  for (std::uint32_t i = 0; i < n; ++i) {
    if (runs.empty() || staged[i - 1].Key() >= staged[i].Key()) {
      if (runs.size() > 1000 && runs.size() > i / 16) return false;  // not a listing
      runs.push_back({i, i});
    }
    runs.back().end = i + 1;
  }
  std::sort(runs.begin(), runs.end(), [this](const Run& a, const Run& b) {
    return staged[a.begin].Key() < staged[b.begin].Key();
  });
  for (std::size_t r = 1; r < runs.size(); ++r) {
    if (staged[runs[r - 1].end - 1].Key() >= staged[runs[r].begin].Key()) return false;
  }
  order.reserve(n);
  for (const Run& run : runs) {
    for (std::uint32_t i = run.begin; i < run.end; ++i) order.push_back(i);
  }
  return true;
}

/// Sorts by the keys' bytes from `depth` on, and entries of the same key by their index: eight
/// bytes at a time, so that nearly all comparisons are of numbers that lie side by side.
void Builder::Impl::SortFrom(std::span<SortItem> items, std::size_t depth) const {
  if (items.size() < 2) return;
  for (SortItem& item : items) item.head = FirstBytes(staged[item.index].Key(), depth);
  std::sort(items.begin(), items.end(), [](const SortItem& a, const SortItem& b) {
    return a.head != b.head ? a.head < b.head : a.index < b.index;
  });
  for (auto begin = items.begin(); begin != items.end();) {
    const auto end = std::find_if(
        begin, items.end(), [head = begin->head](const SortItem& i) { return i.head != head; });
    // Of those that look the same some may end here (a key's end counts as zeros): they come first,
    // the shorter ones before.
    const auto longer = std::stable_partition(begin, end, [&](const SortItem& i) {
      return staged[i.index].key_length <= depth + sizeof i.head;
    });
    std::stable_sort(begin, longer, [&](const SortItem& a, const SortItem& b) {
      return staged[a.index].key_length < staged[b.index].key_length;
    });
    SortFrom({longer, end}, depth + sizeof begin->head);
    begin = end;
  }
}

/// Indices in byte order of the keys, of entries with the same key the last alone.
std::vector<std::uint32_t> Builder::Impl::Sorted() const {
  std::vector<std::uint32_t> order;
  if (SortRuns(order)) return order;
  std::size_t common = staged.front().key_length;
  for (const Staged& e : staged) {
    common = CommonLength(staged.front().Key().substr(0, common), e.Key());
  }
  std::vector<SortItem> items;
  items.reserve(staged.size());
  for (std::uint32_t i = 0; i < staged.size(); ++i) items.push_back({0, i});
  SortFrom(items, common);
  order.reserve(items.size());
  for (const SortItem& item : items) {
    if (!order.empty() && staged[order.back()].Key() == staged[item.index].Key()) order.pop_back();
    order.push_back(item.index);
  }
  return order;
}

/// What becomes of each entry. A file is also a folder when a later key that a file system can hold
/// goes on with '/' behind it.
std::vector<Fate> Builder::Impl::Judge(std::span<const std::uint32_t> order) const {
  std::vector<Fate> fates(order.size());
  std::vector<std::uint32_t>
      heads;  // files whose keys are heads of the one before, shorter ones first
  std::string_view before;
  for (std::uint32_t i = 0; i < order.size(); ++i) {
    const Staged& entry = staged[order[i]];
    const std::string_view key = entry.Key();
    if (FindProblem(key) != KeyProblem::kNone) {
      fates[i] = Fate::kLeftOut;
      continue;
    }
    const std::size_t common = CommonLength(before, key);
    while (!heads.empty() && staged[order[heads.back()]].key_length > common) heads.pop_back();
    for (const std::uint32_t head : heads) {
      if (key[staged[order[head]].key_length] == '/') fates[head] = Fate::kLeftOut;
    }
    before = key;
    if (key.empty() || key.ends_with('/')) {
      fates[i] = entry.size == 0 ? Fate::kMarker : Fate::kFolderWithContents;
    } else {
      fates[i] = Fate::kFile;
      heads.push_back(i);
    }
  }
  return fates;
}

std::uint32_t Writing::EnterDirectories(std::string_view key) {
  const std::size_t common = CommonLength(previous_, key);
  while (!open_.empty() && open_.back().end > common) open_.pop_back();
  previous_ = key;
  std::size_t at = open_.empty() ? 0 : open_.back().end;
  std::uint32_t dir = open_.empty() ? kRoot : open_.back().dir;
  for (std::size_t slash; (slash = key.find('/', at)) != std::string_view::npos; at = slash + 1) {
    ++dirs_[dir].child_count;
    dirs_.push_back({key.data() + at, static_cast<std::uint32_t>(slash - at), dir});
    names_size_ += slash - at;
    dir = static_cast<std::uint32_t>(dirs_.size() - 1);
    open_.push_back({slash + 1, dir});
  }
  return dir;
}

void Writing::EndBlock() {
  if (!blocks_.empty()) blocks_.back().sha256 = block_hasher_.Finish();
}

void Writing::LeaveOut(const Staged& entry, std::string_view etag) {
  if (left_out_.count++ == 0) {
    left_out_.first_key = std::string(prefix_) + std::string(entry.Key());
    left_out_.first_why = WhyLeftOut(entry.Key());
  }
  const format::LeftOutRecord record{entry.size, entry.key_length,
                                     static_cast<std::uint32_t>(etag.size())};
  left_out_records_.append(reinterpret_cast<const char*>(&record), sizeof record);
  left_out_records_.append(entry.Key()).append(etag);
  left_out_records_.resize(static_cast<std::size_t>(format::Align8(left_out_records_.size())));
}

void Writing::Walk(std::span<const Fate> fates) {
  format::BlockCutter cutter;
  std::string record;
  char etag_buffer[format::kMaxPackedEtag];
  pin_hasher_.Update(format::kPinDomain);
  parents_.reserve(order_.size());
  std::size_t files = 0;
  for (std::size_t i = 0; i < order_.size(); ++i) {
    const Staged& entry = staged_[order_[i]];
    if (fates[i] != Fate::kLeftOut) {
      const std::uint32_t dir = EnterDirectories(entry.Key());
      if (fates[i] == Fate::kMarker) continue;
      if (fates[i] == Fate::kFile) {
        parents_.push_back(dir);
        ++dirs_[dir].child_count;
      }
    }
    const std::string_view etag = entry.Etag(etag_buffer);
    record.clear();
    format::AppendRecord(record, entry.Key(), entry.size, etag);
    pin_hasher_.Update(record);
    if (fates[i] != Fate::kFile) {
      LeaveOut(entry, etag);
      continue;
    }
    if (cutter.BeginsWith(entry.Key())) {
      EndBlock();
      blocks_.push_back({static_cast<std::uint32_t>(files), 0, {}});
      block_hasher_ = {};
    }
    block_hasher_.Update(record);
    ++blocks_.back().file_count;
    total_bytes_ = entry.size > UINT64_MAX - total_bytes_ ? UINT64_MAX : total_bytes_ + entry.size;
    has_versions_ = has_versions_ || entry.version != nullptr;
    order_[files] = order_[i];
    names_size_ += NameOf(static_cast<std::uint32_t>(files)).size();
    ++files;
  }
  EndBlock();
  order_.resize(files);
  pin_ = pin_hasher_.Finish();
}

void Writing::LinkChildren() {
  std::vector<std::uint32_t> next(dirs_.size());
  std::uint32_t at = 0;
  for (std::size_t d = 0; d < dirs_.size(); ++d) {
    dirs_[d].first_child = next[d] = at;
    at += dirs_[d].child_count;
  }
  children_.resize(at);
  for (std::uint32_t d = 1; d < dirs_.size(); ++d) {
    children_[next[dirs_[d].parent]++] = d | format::kChildIsDirectory;
  }
  const std::vector<std::uint32_t> first_file = next;
  for (std::uint32_t f = 0; f < order_.size(); ++f) children_[next[parents_[f]]++] = f;

  const auto name_of = [this](std::uint32_t child) {
    const bool is_dir = (child & format::kChildIsDirectory) != 0;
    return is_dir ? dirs_[child & ~format::kChildIsDirectory].Name() : NameOf(child);
  };
  const auto by_name = [&](std::uint32_t a, std::uint32_t b) { return name_of(a) < name_of(b); };
  for (std::size_t d = 0; d < dirs_.size(); ++d) {
    // Files are in order of their names. Directories are in order of their keys, in which "a-/"
    // comes before "a/".
    const auto begin = children_.begin() + dirs_[d].first_child;
    const auto middle = children_.begin() + first_file[d];
    const auto end = begin + dirs_[d].child_count;
    if (!std::is_sorted(begin, middle, by_name)) std::sort(begin, middle, by_name);
    if (begin != middle && middle != end) std::inplace_merge(begin, middle, end, by_name);
  }
}

namespace {

/// Writes sections one after the other, and the header last.
class SectionWriter {
 public:
  explicit SectionWriter(int fd) : fd_(fd) {}

  Status Put(format::Section section, std::span<const std::byte> bytes) {
    const std::uint64_t offset = format::Align8(end_);
    constexpr std::byte kZeros[8] = {};
    LEAT_RETURN_IF_ERROR(WriteAt({kZeros, static_cast<std::size_t>(offset - end_)}, end_));
    LEAT_RETURN_IF_ERROR(WriteAt(bytes, offset));
    header_.sections[section] = {offset, bytes.size(), digest::Xxh3(bytes)};
    end_ = offset + bytes.size();
    return {};
  }
  template <typename T>
  Status PutTable(format::Section section, const std::vector<T>& table) {
    return Put(section, std::as_bytes(std::span(table)));
  }

  format::Header& header() { return header_; }
  Status PutHeader() {
    std::memcpy(header_.magic, format::kMagic, sizeof header_.magic);
    header_.version = format::kVersion;
    header_.header_size = sizeof header_;
    header_.file_size = end_;
    const auto bytes = std::as_bytes(std::span(&header_, 1));
    header_.header_xxh3 = digest::Xxh3(bytes.subspan(format::kHeaderSumFrom));
    return WriteAt(bytes, 0);
  }

 private:
  Status WriteAt(std::span<const std::byte> bytes, std::uint64_t offset) const {
    while (!bytes.empty()) {
      const ssize_t n = ::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return FailErrno(n < 0 ? errno : ENOSPC, "writing a snapshot");
      bytes = bytes.subspan(static_cast<std::size_t>(n));
      offset += static_cast<std::uint64_t>(n);
    }
    return {};
  }

  int fd_;
  std::uint64_t end_ = sizeof(format::Header);
  format::Header header_{};
};

}  // namespace

Status Writing::Write(int fd, std::string_view store_identity) {
  if (dirs_.size() > format::kMaxEntries || children_.size() > UINT32_MAX ||
      names_size_ >= std::uint64_t{1} << 48) {
    return Fail(Errc::kUnsupported, "a snapshot holds 2,147,483,647 folders at most");
  }
  SectionWriter out(fd);
  format::Header& header = out.header();
  header.total_bytes = total_bytes_;
  header.file_count = static_cast<std::uint32_t>(order_.size());
  header.directory_count = static_cast<std::uint32_t>(dirs_.size());
  header.block_count = static_cast<std::uint32_t>(blocks_.size());
  header.left_out_count = static_cast<std::uint32_t>(left_out_.count);
  header.pin = pin_;
  format::RecordHasher root;
  root.Update(format::kRootDomain);
  for (const format::Block& block : blocks_) root.Update(AsText(block.sha256));
  header.root = root.Finish();

  std::string source;
  for (const std::string_view part : {store_identity, prefix_}) {
    const auto length = static_cast<std::uint32_t>(part.size());
    source.append(reinterpret_cast<const char*>(&length), sizeof length);
  }
  source.append(store_identity).append(prefix_);
  LEAT_RETURN_IF_ERROR(out.Put(format::kSource, AsBytes(source)));
  LEAT_RETURN_IF_ERROR(out.PutTable(format::kBlocks, blocks_));

  std::uint64_t name_at = 0;
  {
    std::vector<format::Directory> table;
    table.reserve(dirs_.size());
    for (const Dir& dir : dirs_) {
      table.push_back({format::NameRef::Of(name_at, dir.name_length, 0), dir.parent,
                       dir.first_child, dir.child_count, 0});
      name_at += dir.name_length;
    }
    LEAT_RETURN_IF_ERROR(out.PutTable(format::kDirectories, table));
  }
  LEAT_RETURN_IF_ERROR(out.PutTable(format::kChildren, children_));
  children_ = {};

  std::string text;
  {
    std::vector<format::File> table;
    table.reserve(order_.size());
    for (std::uint32_t i = 0; i < order_.size(); ++i) {
      const Staged& entry = File(i);
      const std::size_t length = NameOf(i).size();
      format::File file{format::NameRef::Of(name_at, length, entry.flags),
                        entry.size,
                        entry.mtime_ns,
                        parents_[i],
                        entry.etag_parts,
                        {}};
      name_at += length;
      if (entry.Form() == format::kTextEtag) {
        const std::uint64_t at = text.size();
        std::memcpy(file.etag, &at, sizeof at);
        text += entry.EtagOfText();
      } else {
        std::memcpy(file.etag, entry.etag, sizeof file.etag);
      }
      table.push_back(file);
    }
    LEAT_RETURN_IF_ERROR(out.PutTable(format::kFiles, table));
  }
  {
    std::vector<std::uint64_t> versions;
    if (has_versions_) {
      versions.reserve(order_.size() + 1);
      versions.push_back(text.size());
      for (std::size_t i = 0; i < order_.size(); ++i) {
        text += File(i).Version();
        versions.push_back(text.size());
      }
    }
    LEAT_RETURN_IF_ERROR(out.PutTable(format::kVersions, versions));
  }
  std::string names;
  names.reserve(static_cast<std::size_t>(names_size_));
  for (const Dir& dir : dirs_) names += dir.Name();
  for (std::uint32_t i = 0; i < order_.size(); ++i) names += NameOf(i);
  LEAT_RETURN_IF_ERROR(out.Put(format::kNames, AsBytes(names)));
  LEAT_RETURN_IF_ERROR(out.Put(format::kText, AsBytes(text)));
  LEAT_RETURN_IF_ERROR(out.Put(format::kLeftOut, AsBytes(left_out_records_)));
  return out.PutHeader();
}

}  // namespace leat::snapshot
