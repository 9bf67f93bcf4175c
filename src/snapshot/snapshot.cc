#include "snapshot/snapshot.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <vector>

#include "base/bytes.h"
#include "snapshot/format.h"
#include "snapshot/key_rules.h"

namespace leat::snapshot {
namespace {

std::unexpected<Error> Damaged(std::string_view what) {
  return Fail(Errc::kCorrupt, "a damaged snapshot: " + std::string(what));
}

}  // namespace

struct Snapshot::Impl {
  const std::byte* base = nullptr;
  std::size_t size = 0;
  format::Header header{};
  std::string_view store_identity, prefix;
  std::span<const format::Block> blocks;
  std::span<const format::Directory> directories;
  std::span<const std::uint32_t> children;
  std::span<const format::File> files;
  std::span<const std::uint64_t> versions;  // file_count + 1 places in the text; or none
  std::string_view names, text, left_out_records;
  std::string pin;
  LeftOut left_out;

  ~Impl() {
    if (base != nullptr) ::munmap(const_cast<std::byte*>(base), size);
  }

  std::string_view Name(format::NameRef ref) const {
    return {names.data() + ref.offset(), ref.length()};
  }
  std::string_view NameOf(std::uint32_t child) const {
    return (child & format::kChildIsDirectory) != 0
               ? Name(directories[child & ~format::kChildIsDirectory].name)
               : Name(files[child].name);
  }
  std::span<const std::uint32_t> ChildrenOf(DirIndex d) const {
    return children.subspan(directories[d].first_child, directories[d].child_count);
  }
  /// Where among the children of `d` a child of that name would stand.
  std::uint32_t LowerBound(DirIndex d, std::string_view name) const {
    const auto all = ChildrenOf(d);
    const auto at = std::lower_bound(
        all.begin(), all.end(), name,
        [this](std::uint32_t child, std::string_view n) { return NameOf(child) < n; });
    return static_cast<std::uint32_t>(at - all.begin());
  }
  /// Puts the path of directory d, and `name` behind it, at the end of `out`.
  void AppendPath(DirIndex d, std::string_view name, std::string& out) const {
    std::size_t length = name.size();
    for (DirIndex up = d; up != kRoot; up = directories[up].parent) {
      length += directories[up].name.length() + 1;
    }
    out.resize(out.size() + length);
    char* end = out.data() + out.size() - name.size();
    std::memcpy(end, name.data(), name.size());
    for (DirIndex up = d; up != kRoot; up = directories[up].parent) {
      *--end = '/';
      const std::string_view part = Name(directories[up].name);
      end -= part.size();
      std::memcpy(end, part.data(), part.size());
    }
  }

  // The passes of Open, each of which relies on those before it.
  Status CheckHeader();
  Status FindSections();
  Status CheckDirectories() const;
  Status CheckFiles() const;
  Status CheckTree() const;
  Status CheckBlocks() const;
  Status ReadLeftOut();
  /// Calls visit(key, size, etag) for each key that was left out; kCorrupt when the records do not
  /// fit.
  template <typename Visit>
  Status WalkLeftOut(const Visit& visit) const;
};

Snapshot::Snapshot() : impl_(std::make_unique<Impl>()) {}
Snapshot::~Snapshot() = default;

Result<std::shared_ptr<const Snapshot>> Snapshot::Open(int fd) {
  struct stat st{};
  if (::fstat(fd, &st) != 0) return FailErrno(errno, "opening a snapshot");
  if (!S_ISREG(st.st_mode) || static_cast<std::uint64_t>(st.st_size) < sizeof(format::Header)) {
    return Damaged("it is too short");
  }
  std::shared_ptr<Snapshot> snapshot(new Snapshot());
  Impl& impl = *snapshot->impl_;
  const auto size = static_cast<std::size_t>(st.st_size);
  void* base = ::mmap(nullptr, size, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
  if (base == MAP_FAILED) return FailErrno(errno, "mapping a snapshot");
  impl.base = static_cast<const std::byte*>(base);
  impl.size = size;
  LEAT_RETURN_IF_ERROR(impl.CheckHeader());
  LEAT_RETURN_IF_ERROR(impl.FindSections());
  LEAT_RETURN_IF_ERROR(impl.CheckDirectories());
  LEAT_RETURN_IF_ERROR(impl.CheckFiles());
  LEAT_RETURN_IF_ERROR(impl.CheckTree());
  LEAT_RETURN_IF_ERROR(impl.CheckBlocks());
  LEAT_RETURN_IF_ERROR(impl.ReadLeftOut());
  impl.pin = "mf:" + ToHex(impl.header.pin);
  return snapshot;
}

Status Snapshot::Impl::CheckHeader() {
  std::memcpy(&header, base, sizeof header);
  if (std::memcmp(header.magic, format::kMagic, sizeof header.magic) != 0) {
    return Fail(Errc::kCorrupt, "not a snapshot");
  }
  if (header.version != format::kVersion || header.header_size != sizeof header) {
    return Fail(Errc::kCorrupt, "a snapshot of format " + std::to_string(header.version) +
                                    ", which this leat does not read");
  }
  const std::span<const std::byte> summed(base + format::kHeaderSumFrom,
                                          sizeof header - format::kHeaderSumFrom);
  if (digest::Xxh3(summed) != header.header_xxh3) return Damaged("the header's checksum");
  if (header.file_size != size) return Damaged("it was cut short");
  if (header.directory_count == 0 || header.file_count > format::kMaxEntries ||
      header.directory_count > format::kMaxEntries) {
    return Damaged("the header's counts");
  }
  return {};
}

Status Snapshot::Impl::FindSections() {
  std::span<const std::byte> bytes[format::kSectionCount];
  std::uint64_t at = sizeof header;
  for (std::size_t i = 0; i < format::kSectionCount; ++i) {
    const format::SectionRef& ref = header.sections[i];
    if (ref.offset != format::Align8(at) || ref.offset > size || ref.size > size - ref.offset) {
      return Damaged("a section's place");
    }
    for (; at < ref.offset; ++at) {
      if (base[at] != std::byte{0}) return Damaged("bytes between sections");
    }
    bytes[i] = {base + ref.offset, static_cast<std::size_t>(ref.size)};
    if (digest::Xxh3(bytes[i]) != ref.xxh3) return Damaged("a section's checksum");
    at = ref.offset + ref.size;
  }
  if (at != size) return Damaged("bytes behind the last section");

  const auto table = [&]<typename T>(format::Section section, std::uint64_t count,
                                     std::span<const T>* out) {
    const auto from = bytes[section];
    *out = {reinterpret_cast<const T*>(from.data()), static_cast<std::size_t>(count)};
    return from.size() % sizeof(T) == 0 && from.size() / sizeof(T) == count;
  };
  const std::uint64_t child_count = std::uint64_t{header.file_count} + header.directory_count - 1;
  const std::uint64_t version_count =
      bytes[format::kVersions].empty() ? 0 : std::uint64_t{header.file_count} + 1;
  if (!table(format::kBlocks, header.block_count, &blocks) ||
      !table(format::kDirectories, header.directory_count, &directories) ||
      !table(format::kChildren, child_count, &children) ||
      !table(format::kFiles, header.file_count, &files) ||
      !table(format::kVersions, version_count, &versions)) {
    return Damaged("a section's size");
  }
  names = AsText(bytes[format::kNames]);
  text = AsText(bytes[format::kText]);
  left_out_records = AsText(bytes[format::kLeftOut]);
  if (names.find('/') != names.npos || names.find('\0') != names.npos) return Damaged("a name");

  const std::string_view source = AsText(bytes[format::kSource]);
  std::uint32_t lengths[2];
  if (source.size() < sizeof lengths) return Damaged("the source");
  std::memcpy(lengths, source.data(), sizeof lengths);
  if (source.size() != sizeof lengths + std::uint64_t{lengths[0]} + lengths[1]) {
    return Damaged("the source");
  }
  store_identity = source.substr(sizeof lengths, lengths[0]);
  prefix = source.substr(sizeof lengths + lengths[0]);
  if (!prefix.empty() && !prefix.ends_with('/')) return Damaged("the prefix");
  return {};
}

Status Snapshot::Impl::CheckDirectories() const {
  std::uint64_t next_child = 0;
  for (std::size_t d = 0; d < directories.size(); ++d) {
    const format::Directory& dir = directories[d];
    // Parents come before their children, so that every walk upwards ends at the root.
    if (d == 0 ? dir.parent != kRoot : dir.parent >= d) return Damaged("a directory's parent");
    if (dir.first_child != next_child || dir.child_count > children.size() - next_child) {
      return Damaged("a directory's children");
    }
    next_child += dir.child_count;
    if (dir.name.offset() > names.size() || dir.name.length() > names.size() - dir.name.offset() ||
        dir.name.flags() != 0 || dir.zero != 0) {
      return Damaged("a directory's name");
    }
    const std::string_view name = Name(dir.name);
    if (d == 0 ? !name.empty() : name.empty() || name == "." || name == "..") {
      return Damaged("a directory's name");
    }
  }
  return next_child == children.size() ? Status() : Damaged("the children");
}

Status Snapshot::Impl::CheckFiles() const {
  std::uint64_t total = 0;
  for (const format::File& file : files) {
    if (file.parent >= directories.size()) return Damaged("a file's directory");
    const std::uint64_t offset = file.name.offset();
    const std::uint32_t length = file.name.length();
    if (offset > names.size() || length > names.size() - offset || length == 0 ||
        (names[offset] == '.' && (length == 1 || (length == 2 && names[offset + 1] == '.')))) {
      return Damaged("a file's name");
    }
    if (file.size > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
      return Damaged("a file's size");
    }
    total = file.size > UINT64_MAX - total ? UINT64_MAX : total + file.size;
    if (file.name.flags() > (format::kEtagFormMask | format::kArchived)) {
      return Damaged("a file's flags");
    }
    if ((file.name.flags() & format::kEtagFormMask) == format::kTextEtag) {
      std::uint64_t at;
      std::memcpy(&at, file.etag, sizeof at);
      if (at > text.size() || file.etag_parts > text.size() - at) return Damaged("an etag");
    }
  }
  if (total != header.total_bytes) return Damaged("the sum of the sizes");
  for (std::size_t i = 1; i < versions.size(); ++i) {
    if (versions[i] < versions[i - 1] || versions[i] > text.size()) return Damaged("a version");
  }
  return {};
}

/// Names strictly ascend in each directory, and files and directories are numbered in byte order of
/// their keys (those of directories end in '/'): then each is the child of exactly one directory,
/// its parent.
Status Snapshot::Impl::CheckTree() const {
  // How many files and directories there are below each directory, itself included.
  std::vector<std::uint32_t> files_below(directories.size(), 0), dirs_below(directories.size(), 1);
  for (const format::File& file : files) ++files_below[file.parent];
  for (std::size_t d = directories.size(); d-- > 1;) {
    files_below[directories[d].parent] += files_below[d];
    dirs_below[directories[d].parent] += dirs_below[d];
  }
  std::vector<std::uint32_t> first_file(directories.size(), 0);
  std::vector<std::uint32_t> waiting;  // directories whose key comes behind that of a later name
  for (std::uint32_t d = 0; d < directories.size(); ++d) {
    std::uint32_t next_file = first_file[d];
    std::uint32_t next_dir = d + 1;
    const auto emit_dir = [&](std::uint32_t child) {
      if (child != next_dir || directories[child].parent != d) return false;
      first_file[child] = next_file;
      next_file += files_below[child];
      next_dir += dirs_below[child];
      return true;
    };
    std::string_view before;
    waiting.clear();
    for (const std::uint32_t child : ChildrenOf(d)) {
      const bool is_dir = (child & format::kChildIsDirectory) != 0;
      const std::uint32_t index = child & ~format::kChildIsDirectory;
      if (is_dir ? index >= directories.size() || index == kRoot : index >= files.size()) {
        return Damaged("a child");
      }
      const std::string_view name =
          is_dir ? Name(directories[index].name) : Name(files[index].name);
      if (name <= before) return Damaged("the order of names");
      before = name;
      while (!waiting.empty()) {
        const std::string_view held = Name(directories[waiting.back()].name);
        // Still ahead of "held/": only names that begin with "held" and go on with a byte below
        // '/'.
        if (name.size() > held.size() && name.starts_with(held) &&
            static_cast<unsigned char>(name[held.size()]) < '/') {
          break;
        }
        if (!emit_dir(waiting.back())) return Damaged("the order of directories");
        waiting.pop_back();
      }
      if (is_dir) {
        waiting.push_back(index);
      } else if (index != next_file++ || files[index].parent != d) {
        return Damaged("the order of files");
      }
    }
    for (; !waiting.empty(); waiting.pop_back()) {
      if (!emit_dir(waiting.back())) return Damaged("the order of directories");
    }
    if (next_file != first_file[d] + files_below[d] || next_dir != d + dirs_below[d]) {
      return Damaged("the tree");
    }
  }
  return {};
}

Status Snapshot::Impl::CheckBlocks() const {
  std::uint64_t next = 0;
  for (const format::Block& block : blocks) {
    if (block.first_file != next || block.file_count == 0) return Damaged("a block");
    next += block.file_count;
  }
  return next == files.size() ? Status() : Damaged("the blocks");
}

template <typename Visit>
Status Snapshot::Impl::WalkLeftOut(const Visit& visit) const {
  std::string_view rest = left_out_records;
  for (std::uint32_t i = 0; i < header.left_out_count; ++i) {
    format::LeftOutRecord record;
    if (rest.size() < sizeof record) return Damaged("what was left out");
    std::memcpy(&record, rest.data(), sizeof record);
    const std::uint64_t length =
        sizeof record + std::uint64_t{record.key_length} + record.etag_length;
    if (format::Align8(length) > rest.size()) return Damaged("what was left out");
    const std::string_view key = rest.substr(sizeof record, record.key_length);
    visit(key, record.size, rest.substr(sizeof record + record.key_length, record.etag_length));
    rest.remove_prefix(static_cast<std::size_t>(format::Align8(length)));
  }
  return rest.empty() ? Status() : Damaged("what was left out");
}

Status Snapshot::Impl::ReadLeftOut() {
  std::string_view before;
  bool ascending = true;
  const auto visit = [&](std::string_view key, std::uint64_t, std::string_view) {
    if (left_out.count++ == 0) {
      left_out.first_key = std::string(prefix) + std::string(key);
      left_out.first_why = WhyLeftOut(key);
    } else {
      ascending = ascending && before < key;
    }
    before = key;
  };
  LEAT_RETURN_IF_ERROR(WalkLeftOut(visit));
  return ascending ? Status() : Damaged("the order of what was left out");
}

std::string_view Snapshot::store_identity() const { return impl_->store_identity; }
std::string_view Snapshot::prefix() const { return impl_->prefix; }
std::uint32_t Snapshot::file_count() const { return impl_->header.file_count; }
std::uint32_t Snapshot::directory_count() const { return impl_->header.directory_count; }
std::uint64_t Snapshot::total_bytes() const { return impl_->header.total_bytes; }
const std::string& Snapshot::pin() const { return impl_->pin; }
const LeftOut& Snapshot::left_out() const { return impl_->left_out; }

FileInfo Snapshot::file(FileIndex i) const {
  const format::File& file = impl_->files[i];
  FileInfo info;
  info.name = impl_->Name(file.name);
  info.parent = file.parent;
  info.size = file.size;
  info.mtime_ns = file.mtime_ns;
  info.archived = (file.name.flags() & format::kArchived) != 0;
  const auto form = static_cast<format::EtagForm>(file.name.flags() & format::kEtagFormMask);
  if (form == format::kTextEtag) {
    std::uint64_t at;
    std::memcpy(&at, file.etag, sizeof at);
    info.etag = EtagText(impl_->text.substr(static_cast<std::size_t>(at), file.etag_parts));
  } else if (form != format::kNoEtag) {
    static_assert(sizeof info.etag.inline_ >= format::kMaxPackedEtag);
    info.etag.size_ = format::UnpackEtag(form, file.etag_parts, file.etag, info.etag.inline_);
  }
  if (!impl_->versions.empty()) {
    const auto at = static_cast<std::size_t>(impl_->versions[i]);
    info.version_id =
        impl_->text.substr(at, static_cast<std::size_t>(impl_->versions[i + std::size_t{1}]) - at);
  }
  return info;
}

std::string_view Snapshot::directory_name(DirIndex d) const {
  return impl_->Name(impl_->directories[d].name);
}
DirIndex Snapshot::directory_parent(DirIndex d) const { return impl_->directories[d].parent; }
std::uint32_t Snapshot::child_count(DirIndex d) const { return impl_->directories[d].child_count; }

Child Snapshot::child(DirIndex d, std::uint32_t i) const {
  const std::uint32_t child = impl_->ChildrenOf(d)[i];
  return {(child & format::kChildIsDirectory) != 0, child & ~format::kChildIsDirectory};
}

std::optional<Child> Snapshot::Lookup(DirIndex d, std::string_view name) const {
  const std::uint32_t at = impl_->LowerBound(d, name);
  const auto all = impl_->ChildrenOf(d);
  if (at == all.size() || impl_->NameOf(all[at]) != name) return std::nullopt;
  return child(d, at);
}

std::uint32_t Snapshot::PositionInDirectory(FileIndex i) const {
  const format::File& file = impl_->files[i];
  return impl_->LowerBound(file.parent, impl_->Name(file.name));
}

std::string Snapshot::PathOfFile(FileIndex i) const {
  std::string path;
  impl_->AppendPath(impl_->files[i].parent, impl_->Name(impl_->files[i].name), path);
  return path;
}

std::string Snapshot::PathOfDirectory(DirIndex d) const {
  std::string path;
  if (d != kRoot) impl_->AppendPath(directory_parent(d), directory_name(d), path);
  return path;
}

std::string Snapshot::KeyOfFile(FileIndex i) const {
  std::string key(impl_->prefix);
  impl_->AppendPath(impl_->files[i].parent, impl_->Name(impl_->files[i].name), key);
  return key;
}

std::uint32_t Snapshot::block_count() const { return impl_->header.block_count; }
std::string Snapshot::BlockFirstKey(std::uint32_t b) const {
  return PathOfFile(impl_->blocks[b].first_file);
}

void Snapshot::ForEachListed(const std::function<void(const Listed&)>& visit) const {
  std::vector<Listed> left_out;
  // (checked when it was opened)
  (void)impl_->WalkLeftOut([&](std::string_view key, std::uint64_t size, std::string_view etag) {
    left_out.push_back({key, size, etag, {}});
  });
  auto next = left_out.begin();
  std::string key;
  for (FileIndex i = 0; i < file_count(); ++i) {
    const FileInfo info = file(i);
    key.clear();
    impl_->AppendPath(info.parent, info.name, key);
    for (; next != left_out.end() && next->key < key; ++next) visit(*next);
    visit({key, info.size, info.etag, info.version_id});
  }
  for (; next != left_out.end(); ++next) visit(*next);
}

Status Snapshot::VerifyPin() const {
  format::RecordHasher pin, root;
  pin.Update(format::kPinDomain);
  root.Update(format::kRootDomain);
  std::string record;
  ForEachListed([&](const Listed& listed) {
    record.clear();
    format::AppendRecord(record, listed.key, listed.size, listed.etag);
    pin.Update(record);
  });
  std::string key;
  for (const format::Block& block : impl_->blocks) {
    format::RecordHasher of_block;
    for (std::uint32_t n = 0; n < block.file_count; ++n) {
      const FileInfo info = file(block.first_file + n);
      key.clear();
      impl_->AppendPath(info.parent, info.name, key);
      record.clear();
      format::AppendRecord(record, key, info.size, info.etag);
      of_block.Update(record);
    }
    if (of_block.Finish() != block.sha256) return Damaged("a block's digest");
    root.Update(AsText(block.sha256));
  }
  if (root.Finish() != impl_->header.root) return Damaged("the root digest");
  if (pin.Finish() != impl_->header.pin) return Damaged("the pin");
  return {};
}

}  // namespace leat::snapshot
