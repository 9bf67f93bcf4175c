#include "archive/file_task.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <isa-l/crc.h>
#include <isa-l/igzip_lib.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "archive/decoders.h"
#include "archive/tree_writer.h"
#include "base/bytes.h"
#include "base/log.h"

namespace leat::archive {

namespace {

constexpr std::int64_t kSecond = 1'000'000'000;
constexpr mode_t kUnfinished = 0600;

timespec TimeOf(std::int64_t ns) {
  std::int64_t seconds = ns / kSecond;
  std::int64_t rest = ns % kSecond;
  if (rest < 0) {
    rest += kSecond;
    --seconds;
  }
  return {seconds, rest};
}

}  // namespace

std::uint32_t ZipCrc(std::span<const std::byte> bytes, std::uint32_t before) {
  return crc32_gzip_refl(before, reinterpret_cast<const unsigned char*>(bytes.data()),
                         bytes.size());
}

std::uint32_t FinishedMode(const Member& member) { return (member.mode & 0111) != 0 ? 0555 : 0444; }

bool IsFinishedFile(const struct stat& st, const Member& member) {
  const timespec time = TimeOf(member.mtime_ns);
  return S_ISREG(st.st_mode) && (st.st_mode & 0777) == FinishedMode(member) &&
         static_cast<std::uint64_t>(st.st_size) == member.size &&
         st.st_mtim.tv_sec == time.tv_sec && st.st_mtim.tv_nsec == time.tv_nsec;
}

Result<std::unique_ptr<Decoder>> MakeMemberDecoder(const ZipMember& zip, store::Sink sink) {
  constexpr std::uint64_t kMemory = 16 * kMiB;
  switch (static_cast<ZipMethod>(zip.method)) {
    case ZipMethod::kStored:
      return Decoder::Make(Codec::kNone, 1, kMemory, std::move(sink));
    case ZipMethod::kDeflate:
      return MakeDeflateDecoder(std::move(sink));
    case ZipMethod::kBzip2:
      return MakeBzip2Decoder(1, kMemory, std::move(sink));
    case ZipMethod::kLzma:
      return MakeZipLzmaDecoder(zip.member.size, std::move(sink));
    case ZipMethod::kZstd:
      return MakeZstdDecoder(1, kMemory, std::move(sink));
    case ZipMethod::kXz:
      return MakeXzDecoder(1, kMemory, std::move(sink));
  }
  return Fail(Errc::kUnsupported,
              fmt::format("the member \"{}\" is compressed by a method that is not known ({})",
                          Printable(zip.member.name), zip.method));
}

std::unexpected<Error> FailChecksum(std::string_view member) {
  return Fail(Errc::kCorrupt,
              fmt::format("the checksum of the member \"{}\" is wrong", Printable(member)));
}

std::unexpected<Error> FailMemberSize(std::string_view member, std::uint64_t size, bool more) {
  return Fail(Errc::kCorrupt, fmt::format("the member \"{}\" has {} than the {} bytes that it says",
                                          Printable(member), more ? "more" : "less", size));
}

std::unexpected<Error> FileTask::Failed(int error, std::string_view doing) const {
  if (error == ENOSPC || error == EDQUOT)
    return Fail(Errc::kNoSpace, fmt::format("the disk is full: \"{}\" of {} cannot be written",
                                            Printable(member_.name), FormatBytes(member_.size)));
  return FailErrno(error, fmt::format("{} \"{}\"", doing, Printable(member_.name)));
}

Status FileTask::Open() {
  constexpr int kFlags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
  const int directory = directory_->get();
  fd_.Reset(::openat(directory, leaf_.c_str(), kFlags, kUnfinished));
  if (fd_) return {};
  if (errno != EEXIST) return Failed(errno, "making");
  // An earlier attempt's. What it has finished is compared, since nobody has held it to a digest.
  // (The holes of a sparse one would have to be, too.)
  if (!is_zip_ && !member_.sparse) {
    os::UniqueFd there(
        ::openat(directory, leaf_.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK));
    struct stat st;
    if (there && ::fstat(there.get(), &st) == 0 && IsFinishedFile(st, member_)) {
      fd_ = std::move(there);
      comparing_ = true;
      return {};
    }
  }
  if (::unlinkat(directory, leaf_.c_str(), 0) != 0) return Failed(errno, "replacing");
  fd_.Reset(::openat(directory, leaf_.c_str(), kFlags, kUnfinished));
  return fd_ ? Status() : Failed(errno, "making");
}

/// What has been compared so far is the same, and stays.
Status FileTask::Differs() {
  comparing_ = false;
  struct stat mine, there;
  if (::fchmod(fd_.get(), kUnfinished) != 0) return Failed(errno, "replacing");
  os::UniqueFd fd(
      ::openat(directory_->get(), leaf_.c_str(), O_WRONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK));
  if (!fd || ::fstat(fd_.get(), &mine) != 0 || ::fstat(fd.get(), &there) != 0 ||
      mine.st_ino != there.st_ino || mine.st_dev != there.st_dev)
    return Failed(errno, "replacing");
  fd_ = std::move(fd);
  return {};
}

Status FileTask::WriteAt(std::span<const std::byte> bytes, std::uint64_t offset) {
  if (comparing_) {
    std::array<std::byte, 64 * kKiB> there;
    for (std::size_t at = 0; at < bytes.size();) {
      const std::size_t n = std::min(there.size(), bytes.size() - at);
      if (!os::PreadAll(fd_.get(), std::span(there).first(n), offset + at) ||
          std::memcmp(there.data(), bytes.data() + at, n) != 0) {
        LEAT_RETURN_IF_ERROR(Differs());
        return WriteAt(bytes.subspan(at), offset + at);
      }
      at += n;
    }
    return {};
  }
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(fd_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Failed(errno, "writing");
    bytes = bytes.subspan(static_cast<std::size_t>(n));
    offset += static_cast<std::uint64_t>(n);
  }
  return {};
}

Status FileTask::WriteSparse(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    if (extent_ == member_.extents.size()) return FailMemberSize(member_.name, member_.size, true);
    const Extent& extent = member_.extents[extent_];
    const std::size_t n = std::min<std::uint64_t>(bytes.size(), extent.length - within_extent_);
    LEAT_RETURN_IF_ERROR(WriteAt(bytes.first(n), extent.offset + within_extent_));
    bytes = bytes.subspan(n);
    within_extent_ += n;
    if (within_extent_ == extent.length) {
      ++extent_;
      within_extent_ = 0;
    }
  }
  return {};
}

/// Bytes as they are in the file.
Status FileTask::Write(std::span<const std::byte> bytes) {
  if (bytes.size() > (member_.sparse ? member_.stored : member_.size) - at_)
    return FailMemberSize(member_.name, member_.size, true);
  if (is_zip_) crc_ = ZipCrc(bytes, crc_);
  LEAT_RETURN_IF_ERROR(member_.sparse ? WriteSparse(bytes) : WriteAt(bytes, at_));
  at_ += bytes.size();
  return {};
}

/// As Write of each, with one call to the kernel.
Status FileTask::WriteSlices(std::span<const Slice> slices) {
  constexpr std::size_t kMost = 16;
  if (slices.size() < 2 || slices.size() > kMost || member_.sparse || comparing_) {
    for (const Slice& slice : slices) LEAT_RETURN_IF_ERROR(Write(slice.bytes));
    return {};
  }
  std::array<iovec, kMost> parts;
  std::size_t sum = 0;
  for (std::size_t i = 0; i < slices.size(); ++i) {
    parts[i] = {const_cast<std::byte*>(slices[i].bytes.data()), slices[i].bytes.size()};
    sum += slices[i].bytes.size();
    if (is_zip_) crc_ = ZipCrc(slices[i].bytes, crc_);
  }
  if (sum > member_.size - at_) return FailMemberSize(member_.name, member_.size, true);
  const ssize_t n =
      ::pwritev(fd_.get(), parts.data(), static_cast<int>(slices.size()), static_cast<off_t>(at_));
  if (n < 0 && errno != EINTR) return Failed(errno, "writing");
  // The rest of what was not taken at once, one by one.
  auto taken = static_cast<std::size_t>(std::max<ssize_t>(n, 0));
  for (const Slice& slice : slices) {
    const std::size_t skip = std::min(taken, slice.bytes.size());
    taken -= skip;
    if (skip < slice.bytes.size())
      LEAT_RETURN_IF_ERROR(WriteAt(slice.bytes.subspan(skip), at_ + skip));
    at_ += slice.bytes.size();
  }
  return {};
}

/// A small member of a zip, whole.
Status FileTask::Inflate(std::span<const Slice> slices) {
  struct Space {
    inflate_state state;
    std::vector<std::byte> in, out;
  };
  thread_local const auto space = std::make_unique<Space>();
  std::span<const std::byte> in = slices.empty() ? std::span<const std::byte>() : slices[0].bytes;
  if (slices.size() > 1) {
    space->in.clear();
    for (const Slice& slice : slices)
      space->in.insert(space->in.end(), slice.bytes.begin(), slice.bytes.end());
    in = space->in;
  }
  if (space->out.size() < member_.size) space->out.resize(member_.size);
  inflate_state& state = space->state;
  isal_inflate_init(&state);
  state.crc_flag = ISAL_DEFLATE;
  state.next_in = const_cast<std::uint8_t*>(reinterpret_cast<const std::uint8_t*>(in.data()));
  state.avail_in = static_cast<std::uint32_t>(in.size());
  state.next_out = reinterpret_cast<std::uint8_t*>(space->out.data());
  state.avail_out = static_cast<std::uint32_t>(member_.size);
  const int code = isal_inflate_stateless(&state);
  if (code == ISAL_OUT_OVERFLOW) return FailMemberSize(member_.name, member_.size, true);
  if (code != ISAL_DECOMP_OK)
    return Fail(Errc::kCorrupt,
                fmt::format("the member \"{}\" is damaged", Printable(member_.name)));
  return Write(std::span(space->out).first(member_.size - state.avail_out));
}

Status FileTask::Take(std::span<const Slice> slices, bool last) {
  const bool first = !fd_;
  if (first) LEAT_RETURN_IF_ERROR(Open());
  if (!is_zip_ || zip_.method == static_cast<std::uint16_t>(ZipMethod::kStored)) {
    LEAT_RETURN_IF_ERROR(WriteSlices(slices));
  } else if (first && last && member_.size <= kSmallMember && member_.size > 0 &&
             zip_.method == static_cast<std::uint16_t>(ZipMethod::kDeflate)) {
    LEAT_RETURN_IF_ERROR(Inflate(slices));
  } else {
    if (!decoder_) {
      LEAT_ASSIGN_OR_RETURN(
          decoder_, MakeMemberDecoder(
                        zip_, [this](std::span<const std::byte> bytes) { return Write(bytes); }));
    }
    const auto named = [&](Status done) -> Status {
      if (done || done.error().message().find(Printable(member_.name)) != std::string::npos)
        return done;
      return Fail(std::move(done), fmt::format("the member \"{}\"", Printable(member_.name)));
    };
    for (const Slice& slice : slices) LEAT_RETURN_IF_ERROR(named(decoder_->Write(slice.bytes)));
    if (last) LEAT_RETURN_IF_ERROR(named(decoder_->Finish()));
  }
  return last ? Finish() : Status();
}

Status FileTask::Finish() {
  if (at_ != (member_.sparse ? member_.stored : member_.size))
    return FailMemberSize(member_.name, member_.size, false);
  if (is_zip_ && crc_ != zip_.crc32) return FailChecksum(member_.name);
  written_.fetch_add(member_.size, std::memory_order_relaxed);
  if (comparing_) {
    resumed_.fetch_add(member_.size, std::memory_order_relaxed);
    fd_.Reset();
    return {};
  }
  if (member_.sparse && ::ftruncate(fd_.get(), static_cast<off_t>(member_.size)) != 0)
    return Failed(errno, "writing");
  const timespec times[2] = {{0, UTIME_OMIT}, TimeOf(member_.mtime_ns)};
  if (::futimens(fd_.get(), times) != 0 && errno != EINVAL) return Failed(errno, "finishing");
  if (::fchmod(fd_.get(), FinishedMode(member_)) != 0) return Failed(errno, "finishing");
  fd_.Reset();
  return {};
}

}  // namespace leat::archive
