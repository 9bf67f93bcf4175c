#include "archive/expand.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <span>
#include <string_view>
#include <thread>
#include <unordered_set>
#include <utility>

#include "archive/buffers.h"
#include "archive/decoder.h"
#include "archive/failure.h"
#include "archive/file_task.h"
#include "archive/member_path.h"
#include "archive/ordered_reader.h"
#include "archive/tar_parser.h"
#include "archive/tree_writer.h"
#include "archive/zip_directory.h"
#include "base/bytes.h"
#include "base/log.h"
#include "base/text.h"
#include "os/file.h"

namespace leat::archive {

namespace {

using Owner = std::shared_ptr<const Buffer>;

/// The memory of one expansion, taken once, so that its parts do not wait for each other.
struct Memory {
  std::uint64_t sum = 0;
  std::size_t request = 0, requests = 0;  ///< what is read
  std::size_t copies = 0;                 ///< buffers of kSmallMember for what was decoded
  std::uint64_t decoder = 0;

  static Memory Of(std::uint64_t budget, std::uint64_t object_size) {
    constexpr std::uint64_t kMost = 128 * kMiB, kRequest = 4 * kMiB;
    constexpr std::size_t kLeastBuffers = 5;
    const std::uint64_t all = std::min(budget / 2, kMost);
    Memory out;
    out.request = std::clamp<std::uint64_t>(all / 16, kMiB, kRequest);
    // A small object is one request.
    out.requests = std::clamp<std::uint64_t>(all / 4 / out.request, kLeastBuffers,
                                             object_size / out.request + kLeastBuffers);
    out.copies = std::max<std::uint64_t>(all / 8 / kSmallMember, kLeastBuffers);
    out.decoder = all / 2;
    out.sum = std::min(out.request * out.requests, object_size + kMiB) + out.copies * kSmallMember +
              out.decoder;
    return out;
  }
};

/// Members of a tar go to the tree.
class TarToTree final : public TarVisitor {
 public:
  explicit TarToTree(TreeWriter& tree) : tree_(tree) {}
  /// Whose bytes those are that the parser is given next; null: nobody's who keeps them.
  void SetOwner(Owner owner) { owner_ = std::move(owner); }

  Status OnMember(const Member& member) override { return tree_.Begin(member); }
  Status OnData(std::span<const std::byte> bytes) override { return tree_.Data(bytes, owner_); }
  Status OnMemberEnd() override { return tree_.End(); }

 private:
  TreeWriter& tree_;
  Owner owner_;
};

/// What is decoded has to begin as a tar does.
class TarInside {
 public:
  TarInside(TarParser& parser, Codec codec) : parser_(parser), codec_(codec) {}

  Status Write(std::span<const std::byte> bytes) {
    if (known_) return parser_.Write(bytes);
    const std::size_t n = std::min(bytes.size(), kBlock - first_.size());
    first_ += AsText(bytes.first(n));
    if (first_.size() < kBlock) return {};
    if (!IsTar(AsBytes(first_))) return FailNoTar();
    known_ = true;
    LEAT_RETURN_IF_ERROR(parser_.Write(AsBytes(first_)));
    return parser_.Write(bytes.subspan(n));
  }
  Status Finish() { return known_ ? parser_.Finish() : FailNoTar(); }

 private:
  static constexpr std::size_t kBlock = 512;
  std::unexpected<Error> FailNoTar() const {
    return Fail(Errc::kCorrupt, fmt::format("is compressed (by {}), but what comes out is no tar",
                                            CodecName(codec_)));
  }
  TarParser& parser_;
  const Codec codec_;
  std::string first_;
  bool known_ = false;
};

/// Members of a zip go to the tree, from the bytes of the whole that pass, or of some ranges of it.
class ZipToTree {
 public:
  /// `wanted`, one for each: whether it is to be written.
  ZipToTree(const std::vector<ZipMember>& members, const std::vector<char>& wanted,
            TreeWriter& tree)
      : members_(members), wanted_(wanted), tree_(tree) {}

  Status Write(std::uint64_t offset, std::span<const std::byte> bytes, const Owner& owner) {
    const std::uint64_t end = offset + bytes.size();
    const auto overlap = [&](std::uint64_t from, std::uint64_t to) {
      from = std::max(from, offset);
      to = std::min(to, end);
      return from < to ? bytes.subspan(from - offset, to - from) : std::span<const std::byte>();
    };
    for (; next_ < members_.size(); Advance()) {
      if (wanted_[next_] == 0) continue;
      const ZipMember& m = members_[next_];
      if (header_.size() < kZipLocalHeader) {
        if (end <= m.begin) return {};
        header_ += AsText(overlap(m.begin + header_.size(), m.begin + kZipLocalHeader));
        if (header_.size() < kZipLocalHeader) return {};
        LEAT_ASSIGN_OR_RETURN(const std::uint64_t size, ZipLocalHeaderSize(AsBytes(header_)));
        data_ = m.begin + size;
        if (data_ > m.end || m.compressed > m.end - data_)
          return Fail(Errc::kCorrupt, fmt::format("the zip is damaged: \"{}\" and what follows it "
                                                  "overlap",
                                                  Printable(m.member.name)));
        LEAT_RETURN_IF_ERROR(tree_.Begin(m.member, &m));
      }
      if (const auto data = overlap(data_, data_ + m.compressed); !data.empty())
        LEAT_RETURN_IF_ERROR(tree_.Data(data, owner));
      if (end < data_ + m.compressed) return {};
      LEAT_RETURN_IF_ERROR(tree_.End());
    }
    return {};
  }
  Status Finish() {
    for (; next_ < members_.size(); Advance()) {
      if (wanted_[next_] != 0)
        return Fail(Errc::kCorrupt, fmt::format("the zip breaks off at \"{}\"",
                                                Printable(members_[next_].member.name)));
    }
    return {};
  }

 private:
  void Advance() {
    ++next_;
    header_.clear();
  }

  const std::vector<ZipMember>& members_;
  const std::vector<char>& wanted_;
  TreeWriter& tree_;
  std::size_t next_ = 0;
  std::string header_;      // of the next one, as far as it has come
  std::uint64_t data_ = 0;  // where its bytes begin
};

class Expansion {
 public:
  Expansion(const ExpandOptions& options, const CallContext& ctx)
      : options_(options), failure_(ctx) {}

  Result<Expanded> Run() {
    if (options_.object.size == 0) return Fail(Errc::kCorrupt, "is no archive: it is empty");
    LEAT_RETURN_IF_ERROR(TakeMemory());
    LEAT_ASSIGN_OR_RETURN(root_, os::Open(options_.dir, O_RDONLY | O_DIRECTORY));
    LEAT_ASSIGN_OR_RETURN(const auto names, os::ListDir(options_.dir));
    // (Within a limit, a zip's directory is looked at before its members are fetched, where that
    // saves something.)
    const bool limited = options_.limit_bytes != UINT64_MAX && options_.object.size > kMiB;
    if (const std::uint64_t room = os::RoomAt(options_.dir); room < options_.limit_bytes) {
      options_.limit_bytes = room;
      options_.limit_name = options_.room_name;
    }
    Result<Expanded> done = names.empty() && !limited ? Fresh() : Resume();
    const Status status = failure_.Or(done ? Status() : Status(std::unexpected(done.error())));
    tree_.reset();
    reader_.reset();
    if (status) return done;
    if (wrong_digest_) {
      // Nothing of it is to be gone on with.
      if (const auto made = os::ListDir(options_.dir)) {
        for (const std::string& name : *made)
          static_cast<void>(os::RemoveTree(options_.dir + "/" + name));
      }
    }
    return std::unexpected(status.error());
  }

 private:
  Status TakeMemory() {
    const std::uint64_t budget = options_.budget != nullptr ? options_.budget->total() : kGiB;
    memory_ = Memory::Of(budget, options_.object.size);
    if (options_.budget != nullptr) {
      if (!options_.budget->Take(memory_.sum, failure_.context()))
        return failure_.Or(Fail(Errc::kDeadline, "the time ran out"));
      hold_ = MemoryHold(*options_.budget, memory_.sum);
    }
    const std::size_t processors = std::max(1U, std::thread::hardware_concurrency());
    writers_ = options_.threads != 0 ? options_.threads : std::clamp<std::size_t>(processors, 2, 4);
    decoders_ = options_.threads != 0 ? options_.threads : std::min<std::size_t>(processors, 8);
    return {};
  }
  void StartTree() {
    tree_.emplace(options_, root_.get(), writers_,
                  std::make_shared<BufferPool>(kSmallMember, memory_.copies), failure_);
  }
  void StartReader(const std::vector<OrderedReader::Range>& ranges) {
    reader_.emplace(*options_.store, options_.object, ranges, memory_.request, memory_.requests,
                    failure_);
  }
  void StartWhole() { StartReader({{0, options_.object.size}}); }

  /// Nothing is there yet: all is read, and the first bytes say what it is.
  Result<Expanded> Fresh() {
    StartTree();
    StartWhole();
    LEAT_ASSIGN_OR_RETURN(first_, reader_->Next());
    if (!first_.buffer) return Fail(Errc::kCorrupt, "is no archive: it is empty");
    const auto first = first_.buffer->filled();
    if (IsZip(first)) return Zip(false);
    return TarOr(first, false);
  }

  /// What is there is gone on with: of a zip only what is missing is read, when its directory is.
  Result<Expanded> Resume() {
    StartTree();
    std::vector<std::byte> first(std::min<std::uint64_t>(options_.object.size, 512));
    LEAT_RETURN_IF_ERROR(ReadAt(0, first));
    if (IsZip(first)) return Zip(true);
    return TarOr(first, true);
  }

  Result<Expanded> TarOr(std::span<const std::byte> first, bool resume) {
    const Codec codec = CodecOf(first);
    const bool tar = codec == Codec::kNone && IsTar(first);
    if (tar || codec != Codec::kNone) {
      if (resume) StartWhole();
      return Tar(codec);
    }
    // Something may be in front of a zip: a program that unpacks it.
    Result<Expanded> zip = Zip(resume);
    if (!zip && zip.error().code() == Errc::kCorrupt && !is_zip_) return FailNoArchive(first);
    return zip;
  }

  Result<OrderedReader::Piece> NextPiece() {
    if (first_.buffer) return std::exchange(first_, {});
    // Nobody must wait for us while we wait.
    LEAT_RETURN_IF_ERROR(tree_->Flush());
    return reader_->Next();
  }
  void Progress(std::uint64_t bytes) {
    read_ += bytes;
    if (options_.on_progress) options_.on_progress(read_, tree_->written());
  }

  Result<Expanded> Tar(Codec codec) {
    TarToTree to_tree(*tree_);
    TarParser parser(to_tree);
    TarInside inside(parser, codec);
    std::unique_ptr<Decoder> decoder;
    if (codec != Codec::kNone) {
      decoder = Decoder::Make(codec, decoders_, memory_.decoder,
                              [&](std::span<const std::byte> bytes) -> Status {
                                if (failure_.stop().stop_requested()) return failure_.Or({});
                                return inside.Write(bytes);
                              });
    }
    for (;;) {
      LEAT_ASSIGN_OR_RETURN(const OrderedReader::Piece piece, NextPiece());
      if (!piece.buffer) break;
      const auto bytes = piece.buffer->filled();
      if (decoder) {
        LEAT_RETURN_IF_ERROR(decoder->Write(bytes));
      } else {
        to_tree.SetOwner(piece.buffer);
        LEAT_RETURN_IF_ERROR(parser.Write(bytes));
        to_tree.SetOwner(nullptr);
      }
      Progress(bytes.size());
    }
    if (decoder) {
      LEAT_RETURN_IF_ERROR(decoder->Finish());
      LEAT_RETURN_IF_ERROR(inside.Finish());
    } else {
      LEAT_RETURN_IF_ERROR(parser.Finish());
    }
    return Finish();
  }

  Status ReadAt(std::uint64_t offset, std::span<std::byte> out) {
    // What has been read already.
    if (first_.buffer && first_.offset <= offset &&
        offset + out.size() <= first_.offset + first_.buffer->size) {
      std::memcpy(out.data(), first_.buffer->filled().data() + (offset - first_.offset),
                  out.size());
      return {};
    }
    store::ReadOptions options;
    options.offset = offset;
    options.length = out.size();
    options.if_version = options_.object.version;
    // A store without ranges gives all, from the beginning.
    const std::uint64_t begin = options_.store->capabilities().ranges ? offset : 0;
    if (begin < offset) {
      options.offset = 0;
      options.length = UINT64_MAX;
    }
    std::uint64_t at = begin;
    const Errc enough = Errc::kInternal;
    const Status read = options_.store->Read(
        options_.object.key, options,
        [&](std::span<const std::byte> bytes) -> Status {
          const std::uint64_t from = std::max(at, offset);
          const std::uint64_t to = std::min(at + bytes.size(), offset + out.size());
          if (from < to)
            std::memcpy(out.data() + (from - offset), bytes.data() + (from - at), to - from);
          at += bytes.size();
          if (begin < offset && at >= offset + out.size()) return Fail(enough, "enough");
          return {};
        },
        failure_.context());
    if (at >= offset + out.size()) return {};
    LEAT_RETURN_IF_ERROR(read);
    return Fail(Errc::kCorrupt, "fewer bytes came than were asked for");
  }

  Result<Expanded> Zip(bool resume) {
    LEAT_ASSIGN_OR_RETURN(members_,
                          ReadZipDirectory(options_.object.size,
                                           [this](std::uint64_t offset, std::span<std::byte> out) {
                                             return ReadAt(offset, out);
                                           }));
    is_zip_ = true;
    LEAT_RETURN_IF_ERROR(CheckMembers());
    std::vector<char> wanted(members_.size(), 1);
    if (resume) {
      LEAT_ASSIGN_OR_RETURN(const auto ranges, KeepWhatIsThere(wanted));
      StartReader(ranges);
    }
    ZipToTree to_tree(members_, wanted, *tree_);
    for (;;) {
      LEAT_ASSIGN_OR_RETURN(const OrderedReader::Piece piece, NextPiece());
      if (!piece.buffer) break;
      LEAT_RETURN_IF_ERROR(to_tree.Write(piece.offset, piece.buffer->filled(), piece.buffer));
      Progress(piece.buffer->size);
    }
    LEAT_RETURN_IF_ERROR(to_tree.Finish());
    return Finish();
  }

  /// What an earlier attempt has finished is not wanted, and the ranges of what is. Members hold
  /// themselves to their checksums; where nothing is there, the whole is read and held to its
  /// digest.
  Result<std::vector<OrderedReader::Range>> KeepWhatIsThere(std::vector<char>& wanted) {
    bool some_there = false;
    std::unordered_set<std::string> names;
    for (std::size_t i = members_.size(); i-- > 0;) {
      const Member& member = members_[i].member;
      if (member.kind == MemberKind::kDirectory) continue;
      // The last of a name is the one that stays.
      if (const auto path = MemberPath(member.name); path && !names.insert(*path).second) {
        wanted[i] = 0;
        continue;
      }
      if (!tree_->IsFinished(member)) continue;
      LEAT_RETURN_IF_ERROR(tree_->Adopt(member));
      wanted[i] = 0;
      some_there = true;
    }
    std::vector<OrderedReader::Range> ranges;
    if (!some_there) {
      ranges.push_back({0, options_.object.size});
      return ranges;
    }
    // A request costs more than some bytes in between that nobody wants.
    constexpr std::uint64_t kGap = 256 * kKiB;
    for (std::size_t i = 0; i < members_.size(); ++i) {
      const ZipMember& m = members_[i];
      if (m.member.kind == MemberKind::kDirectory) {
        LEAT_RETURN_IF_ERROR(tree_->Begin(m.member, &m));
        LEAT_RETURN_IF_ERROR(tree_->End());
        wanted[i] = 0;
      }
      if (wanted[i] == 0) continue;
      if (!ranges.empty() && m.begin - (ranges.back().offset + ranges.back().length) <= kGap) {
        ranges.back().length = m.end - ranges.back().offset;
      } else {
        ranges.push_back({m.begin, m.end - m.begin});
      }
    }
    return ranges;
  }

  /// All that can be said before anything is written.
  Status CheckMembers() {
    std::uint64_t bytes = 0;
    for (const ZipMember& m : members_) {
      LEAT_RETURN_IF_ERROR(CheckZipMember(m));
      if (m.member.kind == MemberKind::kDirectory) continue;
      if (m.method == static_cast<std::uint16_t>(ZipMethod::kStored) &&
          m.compressed != m.member.size)
        return Fail(Errc::kCorrupt,
                    fmt::format("the zip is damaged: {} has two sizes", Quoted(m.member.name)));
      if (m.member.kind == MemberKind::kFile) bytes += std::min(m.member.size, UINT64_MAX - bytes);
    }
    return tree_->CheckRoom(bytes, members_.size());
  }

  Result<Expanded> Finish() {
    if (const Status digest = reader_->CheckDigest(); !digest) {
      wrong_digest_ = digest.error().code() == Errc::kCorrupt;
      return std::unexpected(digest.error());
    }
    return tree_->Finish();
  }

  ExpandOptions options_;
  Failure failure_;
  Memory memory_;
  MemoryHold hold_;
  std::size_t writers_ = 0, decoders_ = 0;
  os::UniqueFd root_;
  std::vector<ZipMember> members_;
  bool is_zip_ = false, wrong_digest_ = false;
  std::uint64_t read_ = 0;
  std::optional<TreeWriter> tree_;
  std::optional<OrderedReader> reader_;
  OrderedReader::Piece first_;  // read, and not handed on yet
};

}  // namespace

Result<Expanded> Expand(const ExpandOptions& options, const CallContext& ctx) {
  Result<Expanded> done = Expansion(options, ctx).Run();
  // Stores name the object themselves.
  if (!done && !done.error().message().starts_with(options.source))
    return Fail(std::move(done), options.source);
  return done;
}

}  // namespace leat::archive
