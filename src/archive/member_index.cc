// IndexMembers: which members an archive has, and where each one's bytes lie.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <deque>
#include <memory>
#include <memory_resource>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "archive/decoder.h"
#include "archive/failure.h"
#include "archive/member_path.h"
#include "archive/member_place.h"
#include "archive/member_reader.h"
#include "archive/member_store.h"
#include "archive/ordered_reader.h"
#include "archive/tar_parser.h"
#include "archive/zip_directory.h"
#include "base/bytes.h"
#include "base/log.h"
#include "base/text.h"
#include "base/thread_pool.h"
#include "digest/digest.h"

namespace leat::archive {

namespace {

constexpr std::size_t kFirst = 512;
/// A tar's header, and a block of contents.
constexpr std::uint64_t kLeastMember = 1024;
constexpr std::size_t kMostTarget = 4095;
/// What the names of an archive's members may take in memory.
constexpr std::uint64_t kMostNames = 4 * kGiB;
constexpr std::string_view kExpand = "it has to be expanded (expand=always)";

std::unexpected<Error> FailUnsupported(std::string_view name, std::string_view why) {
  return Fail(Errc::kUnsupported, fmt::format("the member {} {}; {}", Quoted(name), why, kExpand));
}

/// What is where, by the rules of Expand. Files are added to the snapshot as they come (of the same
/// name it keeps the last), links when it is known what they lead to.
class MemberTree {
 public:
  /// `members`: about so many are expected.
  MemberTree(snapshot::Builder& builder, std::uint64_t members) : builder_(builder) {
    by_path_.reserve(std::min<std::uint64_t>(members, kMostReserved));
    Insert("", {});
  }

  Status AddDirectory(const Member& member) {
    LEAT_ASSIGN_OR_RETURN(const std::string path, MemberPath(member.name));
    return MakeDirectories(path, member.name);
  }
  Status AddFile(const Member& member, const Place& place) {
    LEAT_ASSIGN_OR_RETURN(const std::string path, PathOf(member));
    return Claim(path, {Entry::Kind::kFile, place, member.mtime_ns}, member.name);
  }
  Status AddHardLink(const Member& member) {
    LEAT_ASSIGN_OR_RETURN(const std::string path, PathOf(member));
    LEAT_ASSIGN_OR_RETURN(const std::string target, MemberPath(member.link));
    const Entry* found = Find(target);
    if (found == nullptr || found->kind == Entry::Kind::kDirectory)
      return Fail(Errc::kInvalid,
                  fmt::format("the member {} is a link to {}, which is no file before it",
                              Quoted(member.name), Quoted(member.link)));
    if (target == path) return {};
    return Claim(path, Entry(*found), member.name);
  }
  Status AddSymlink(const Member& member, std::string target) {
    LEAT_ASSIGN_OR_RETURN(const std::string path, PathOf(member));
    if (target.empty() || target.find('\0') != target.npos)
      return Refuse(member.name, "has no target", target);
    if (target.size() > kMostTarget)
      return Refuse(member.name, "has a target that is too long", target);
    if (target.starts_with('/')) return Refuse(member.name, "leads out of the folder", target);
    return Claim(path,
                 {Entry::Kind::kSymlink,
                  {},
                  member.mtime_ns,
                  std::make_shared<const std::string>(std::move(target))},
                 member.name);
  }
  Status AddSpecial(const Member& member) {
    LEAT_RETURN_IF_ERROR(PathOf(member));
    return Fail(Errc::kInvalid,
                fmt::format("the member {} is a device, a fifo or a socket", Quoted(member.name)));
  }

  /// When all are there: what links lead to.
  Status AddLinks() {
    for (const auto& [path, entry] : entries_) {
      if (entry.kind != Entry::Kind::kSymlink) continue;
      LEAT_ASSIGN_OR_RETURN(const Entry* file, FileOf(path, *entry.target));
      LEAT_RETURN_IF_ERROR(AddToSnapshot(path, *file));
    }
    return {};
  }

 private:
  struct Entry {
    enum class Kind : std::uint8_t { kDirectory, kFile, kSymlink };
    Kind kind = Kind::kDirectory;
    Place place = {};  // of a file
    std::int64_t mtime_ns = 0;
    std::shared_ptr<const std::string> target = {};  // of a symlink; shared by links to it
  };

  static constexpr std::uint64_t kMostReserved = 1 << 18;

  Entry* Find(std::string_view path) const {
    const auto found = by_path_.find(path);
    return found == by_path_.end() ? nullptr : found->second;
  }
  void Insert(std::string_view path, Entry entry) {
    auto& [key, value] = entries_.emplace_back(path, std::move(entry));
    by_path_.emplace(key, &value);
  }

  static Result<std::string> PathOf(const Member& member) {
    auto path = MemberPath(member.name);
    if (path && path->empty())
      return Fail(Errc::kInvalid, fmt::format("a member has no name ({})", Quoted(member.name)));
    return path;
  }
  static std::unexpected<Error> Refuse(std::string_view link, std::string_view why,
                                       std::string_view target) {
    return Fail(Errc::kInvalid,
                fmt::format("the link {} {}: {}", Quoted(link), why, Quoted(target)));
  }

  Status MakeDirectories(std::string_view path, std::string_view member) {
    if (path == last_directory_) return {};
    const Entry* there = Find(path);
    if (there == nullptr) {
      LEAT_RETURN_IF_ERROR(CountName(path));
      Insert(path, {});
      LEAT_RETURN_IF_ERROR(MakeDirectories(ParentOf(path), member));
    } else if (there->kind == Entry::Kind::kSymlink) {
      return Fail(Errc::kInvalid, fmt::format("the member {} would be written through the link {}",
                                              Quoted(member), Quoted(path)));
    } else if (there->kind == Entry::Kind::kFile) {
      return Fail(Errc::kInvalid, fmt::format("the member {} would lie in {}, which is a file",
                                              Quoted(member), Quoted(path)));
    }
    last_directory_ = path;
    return {};
  }

  Status AddToSnapshot(std::string_view path, const Entry& file) {
    info_.key = path;
    info_.size = file.place.size;
    info_.version.etag = EtagOf(file.place);
    info_.modified.reset();
    if (file.mtime_ns != 0) {
      using Clock = std::chrono::system_clock;
      info_.modified = Clock::time_point(
          std::chrono::duration_cast<Clock::duration>(std::chrono::nanoseconds(file.mtime_ns)));
    }
    return builder_.Add(info_);
  }

  /// Of something that stood there before, the last wins.
  Status Claim(const std::string& path, Entry entry, std::string_view member) {
    LEAT_RETURN_IF_ERROR(MakeDirectories(ParentOf(path), member));
    LEAT_RETURN_IF_ERROR(CountName(path));
    if (entry.kind == Entry::Kind::kFile) LEAT_RETURN_IF_ERROR(AddToSnapshot(path, entry));
    Entry* there = Find(path);
    if (there == nullptr) {
      Insert(path, std::move(entry));
      return {};
    }
    if (there->kind == Entry::Kind::kDirectory) {
      return Fail(Errc::kInvalid,
                  fmt::format("the member {} stands where a folder is", Quoted(member)));
    }
    *there = std::move(entry);
    return {};
  }

  Status CountName(std::string_view path) {
    constexpr std::uint64_t kEntryBytes = 192;
    names_bytes_ += kEntryBytes + path.size();
    if (names_bytes_ <= kMostNames) return {};
    return Fail(Errc::kUnsupported,
                fmt::format("the names of its members need more than {}", FormatBytes(kMostNames)));
  }

  /// Where the link at `path` leads, as the kernel would follow it, but that what is not there is
  /// taken for a folder.
  Result<const Entry*> FileOf(std::string_view path, const std::string& target) const {
    constexpr int kMostLinks = 40;
    std::string at(ParentOf(path));
    std::vector<std::string_view> ahead;  // the last first
    const auto follow = [&](std::string_view text) {
      const auto before = static_cast<std::ptrdiff_t>(ahead.size());
      while (!text.empty()) {
        const auto slash = text.find('/');
        ahead.push_back(text.substr(0, slash));
        text = slash == text.npos ? std::string_view() : text.substr(slash + 1);
      }
      std::reverse(ahead.begin() + before, ahead.end());
    };
    follow(target);
    for (int links = 1; !ahead.empty();) {
      const std::string_view part = ahead.back();
      ahead.pop_back();
      if (part.empty() || part == ".") continue;
      if (part == "..") {
        if (at.empty()) return Refuse(path, "leads out of the folder", target);
        at = ParentOf(at);
        continue;
      }
      const std::size_t before = at.size();
      if (!at.empty()) at += '/';
      at += part;
      const Entry* entry = Find(at);
      if (entry == nullptr || entry->kind != Entry::Kind::kSymlink) continue;
      if (++links > kMostLinks)
        return FailUnsupported(path, "is a link that leads through more than 40 others");
      at.resize(before);
      follow(*entry->target);
    }
    const Entry* found = Find(at);
    if (found == nullptr)
      return FailUnsupported(path, "is a link to " + Quoted(target) + ", which is not there");
    if (found->kind != Entry::Kind::kFile)
      return FailUnsupported(path, "is a link to " + Quoted(target) + ", which is a folder");
    return found;
  }

  snapshot::Builder& builder_;
  store::ObjectInfo info_;  // what has allocated is used again
  // Nothing is removed, and all of it goes at once.
  std::pmr::monotonic_buffer_resource memory_{kMiB};
  std::pmr::deque<std::pair<std::pmr::string, Entry>> entries_{&memory_};  // the root first
  std::pmr::unordered_map<std::string_view, Entry*> by_path_{&memory_};
  std::string last_directory_;
  std::uint64_t names_bytes_ = 0;
};

class TarToIndex final : public TarVisitor {
 public:
  explicit TarToIndex(MemberTree& tree) : tree_(tree) {}

  Status OnMember(const Member& member) override {
    member_ = &member;
    crc_ = 0;
    if (member.sparse) return FailUnsupported(member.name, "is sparse");
    return {};
  }
  Status OnData(std::span<const std::byte> bytes) override {
    crc_ = digest::Crc32c(bytes, crc_);
    return {};
  }
  Status OnMemberEnd() override {
    switch (member_->kind) {
      case MemberKind::kDirectory:
        return tree_.AddDirectory(*member_);
      case MemberKind::kSymlink:
        return tree_.AddSymlink(*member_, member_->link);
      case MemberKind::kHardLink:
        return tree_.AddHardLink(*member_);
      case MemberKind::kSpecial:
        return tree_.AddSpecial(*member_);
      case MemberKind::kFile:
        break;
    }
    return tree_.AddFile(*member_, {Place::Kind::kTar, member_->offset, member_->stored,
                                    member_->stored, member_->stored, crc_});
  }

 private:
  MemberTree& tree_;
  const Member* member_ = nullptr;
  std::uint32_t crc_ = 0;
};

class Indexing {
 public:
  Indexing(store::ObjectStore& store, const store::ObjectInfo& archive, const CallContext& ctx,
           const std::function<void(std::uint64_t)>& on_progress, snapshot::Builder& builder)
      : store_(store),
        archive_(archive),
        ctx_(ctx),
        on_progress_(on_progress),
        tree_(builder, archive.size / kLeastMember) {}

  Status Run() {
    if (archive_.size == 0) return Fail(Errc::kCorrupt, "is no archive: it is empty");
    if (!store_.capabilities().ranges)
      return Fail(Errc::kUnsupported, fmt::format("no parts of it can be read; {}", kExpand));
    std::vector<std::byte> first(std::min<std::uint64_t>(archive_.size, kFirst));
    LEAT_RETURN_IF_ERROR(ReadAt(0, first));
    if (IsZip(first)) {
      LEAT_RETURN_IF_ERROR(IndexZip());
    } else if (const Codec codec = CodecOf(first); codec != Codec::kNone) {
      return Fail(Errc::kUnsupported,
                  fmt::format("is compressed as a whole (by {}), so that its members cannot be "
                              "read where they are; {}",
                              CodecName(codec), kExpand));
    } else if (IsTar(first)) {
      LEAT_RETURN_IF_ERROR(IndexTar());
    } else {
      // Something may be in front of a zip: a program that unpacks it.
      const Status zip = IndexZip();
      if (!zip && zip.error().code() == Errc::kCorrupt && !is_zip_) return FailNoArchive(first);
      if (!zip) return zip;
    }
    return tree_.AddLinks();
  }

 private:
  Status ReadAt(std::uint64_t offset, std::span<std::byte> out) {
    store::ReadOptions options;
    options.offset = offset;
    options.if_version = archive_.version;
    options.on_info = [this](const store::ObjectInfo& info) -> Status {
      if (info.size == archive_.size) return {};
      return Fail(Errc::kConflict,
                  fmt::format("{} was replaced while it was read ({} bytes are now {})",
                              store_.UrlOf(archive_.key), archive_.size, info.size));
    };
    LEAT_ASSIGN_OR_RETURN(const std::size_t n,
                          store::ReadInto(store_, archive_.key, out, options, ctx_));
    if (n < out.size())
      return Fail(Errc::kCorrupt, fmt::format("{} of {} bytes arrived", n, out.size()));
    const std::lock_guard lock(mutex_);
    Progress(n);
    return {};
  }
  /// (mutex_ held where others read, too)
  void Progress(std::uint64_t bytes) {
    bytes_ += bytes;
    if (on_progress_) on_progress_(bytes_);
  }

  Status IndexTar() {
    // Eight requests under way, and two buffers that are read.
    constexpr std::size_t kRequest = 2 * kMiB, kBuffers = 10;
    Failure failure(ctx_);
    const std::vector<OrderedReader::Range> whole{{0, archive_.size}};
    OrderedReader reader(store_, archive_, whole, kRequest, kBuffers, failure);
    TarToIndex to_index(tree_);
    TarParser parser(to_index);
    for (;;) {
      LEAT_ASSIGN_OR_RETURN(const OrderedReader::Piece piece, reader.Next());
      if (!piece.buffer) break;
      LEAT_RETURN_IF_ERROR(parser.Write(piece.buffer->filled()));
      Progress(piece.buffer->size);
    }
    LEAT_RETURN_IF_ERROR(parser.Finish());
    return reader.CheckDigest();
  }

  Status IndexZip() {
    LEAT_ASSIGN_OR_RETURN(
        const std::vector<ZipMember> members,
        ReadZipDirectory(archive_.size, [this](std::uint64_t offset, std::span<std::byte> out) {
          return ReadAt(offset, out);
        }));
    is_zip_ = true;
    for (const ZipMember& m : members) LEAT_RETURN_IF_ERROR(CheckPlace(m));
    LEAT_RETURN_IF_ERROR(ReadTargets(members));
    auto target = targets_.begin();
    for (const ZipMember& m : members) {
      switch (m.member.kind) {
        case MemberKind::kDirectory:
          LEAT_RETURN_IF_ERROR(tree_.AddDirectory(m.member));
          break;
        case MemberKind::kSymlink:
          LEAT_RETURN_IF_ERROR(tree_.AddSymlink(m.member, std::move(*target++)));
          break;
        case MemberKind::kHardLink:
        case MemberKind::kSpecial:
          LEAT_RETURN_IF_ERROR(tree_.AddSpecial(m.member));
          break;
        case MemberKind::kFile:
          LEAT_RETURN_IF_ERROR(tree_.AddFile(m.member, PlaceOfMember(m)));
      }
    }
    return {};
  }

  static Place PlaceOfMember(const ZipMember& m) {
    const bool deflated = m.method == static_cast<std::uint16_t>(ZipMethod::kDeflate);
    return {deflated ? Place::Kind::kZipDeflated : Place::Kind::kZipStored,
            m.begin,
            m.end - m.begin,
            m.compressed,
            m.member.size,
            m.crc32};
  }

  Status CheckPlace(const ZipMember& m) const {
    LEAT_RETURN_IF_ERROR(CheckZipMember(m));
    const std::string& name = m.member.name;
    if (m.member.kind == MemberKind::kDirectory || m.member.kind == MemberKind::kSpecial) return {};
    const auto method = static_cast<ZipMethod>(m.method);
    if (method != ZipMethod::kStored && method != ZipMethod::kDeflate)
      return FailUnsupported(
          name,
          fmt::format("is compressed by a method ({}) of which parts cannot be read", m.method));
    if (!IsPossible(PlaceOfMember(m), archive_.size))
      return Fail(Errc::kCorrupt,
                  fmt::format("the zip is damaged: {} cannot have the size that it should have",
                              Quoted(name)));
    if (m.member.kind == MemberKind::kSymlink && m.member.size > kMostTarget)
      return Fail(Errc::kInvalid, fmt::format("the link {} has a target of more than {} bytes",
                                              Quoted(name), kMostTarget));
    return {};
  }

  /// A zip's links have their targets as contents: those that lie near each other are read at once.
  Status ReadTargets(const std::vector<ZipMember>& members) {
    constexpr std::uint64_t kNear = 64 * kKiB, kMostAtOnce = 4 * kMiB;
    constexpr std::uint64_t kMostHeader = kZipLocalHeader + 2 * UINT16_MAX;
    constexpr std::size_t kThreads = 16;
    struct Window {
      std::uint64_t begin = 0, end = 0;
      std::vector<const ZipMember*> links = {};
      std::size_t first_target = 0;
    };
    std::vector<Window> windows;
    for (const ZipMember& m : members) {
      if (m.member.kind != MemberKind::kSymlink) continue;
      const std::uint64_t end = m.begin + std::min(m.end - m.begin, kMostHeader + m.compressed);
      if (windows.empty() || m.begin > windows.back().end + kNear ||
          end - windows.back().begin > kMostAtOnce)
        windows.push_back({m.begin, end, {}, targets_.size()});
      windows.back().end = end;
      windows.back().links.push_back(&m);
      targets_.emplace_back();
    }
    std::optional<Error> failed;
    ParallelFor(windows.size(), kThreads, [&](std::size_t i) {
      const Window& window = windows[i];
      const Status read = ReadWindow(window.begin, window.end, window.links,
                                     std::span(targets_).subspan(window.first_target));
      if (read) return true;
      const std::lock_guard lock(mutex_);
      if (!failed) failed = read.error();
      return false;
    });
    return failed ? Status(std::unexpected(*std::move(failed))) : Status();
  }

  Status ReadWindow(std::uint64_t begin, std::uint64_t end,
                    const std::vector<const ZipMember*>& links, std::span<std::string> targets) {
    std::vector<std::byte> bytes(end - begin);
    LEAT_RETURN_IF_ERROR(ReadAt(begin, bytes));
    MemberReader reader([&](std::uint64_t offset, std::uint64_t length, const store::Sink& sink,
                            const CallContext&) -> Status {
      if (offset < begin || offset > end || length > end - offset)
        return Fail(Errc::kCorrupt, "the zip is damaged: its link lies elsewhere");
      return sink(std::span(bytes).subspan(offset - begin, length));
    });
    for (std::size_t i = 0; i < links.size(); ++i) {
      const Place place = PlaceOfMember(*links[i]);
      Status read = reader.Read(
          place, links[i]->member.name.size(), 0, place.size,
          [&](std::span<const std::byte> piece) -> Status {
            targets[i] += AsText(piece);
            return {};
          },
          ctx_);
      if (!read) return Fail(std::move(read), "the link " + Quoted(links[i]->member.name));
    }
    return {};
  }

  store::ObjectStore& store_;
  const store::ObjectInfo& archive_;
  const CallContext& ctx_;
  const std::function<void(std::uint64_t)>& on_progress_;
  std::mutex mutex_;  // guards bytes_, while links are read
  std::uint64_t bytes_ = 0;
  bool is_zip_ = false;
  std::vector<std::string> targets_;  // of a zip's links, in their order
  MemberTree tree_;
};

}  // namespace

Status IndexMembers(store::ObjectStore& archive_store, const store::ObjectInfo& archive,
                    const std::string& source, const CallContext& ctx,
                    const std::function<void(std::uint64_t bytes)>& on_progress,
                    snapshot::Builder& builder) {
  Status done = Indexing(archive_store, archive, ctx, on_progress, builder).Run();
  // Stores name the object themselves.
  if (!done && !done.error().message().starts_with(source)) return Fail(std::move(done), source);
  return done;
}

}  // namespace leat::archive
