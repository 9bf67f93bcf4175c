// A file on its way to the disk. Private to this folder.
#ifndef LEAT_ARCHIVE_FILE_TASK_H_
#define LEAT_ARCHIVE_FILE_TASK_H_

#include <sys/stat.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "archive/buffers.h"
#include "archive/decoder.h"
#include "archive/member.h"
#include "archive/zip_directory.h"
#include "base/error.h"
#include "os/file.h"

namespace leat::archive {

/// How an archive's files are when they are finished.
std::uint32_t FinishedMode(const Member& member);
/// Whether that is a file that an earlier attempt has finished.
bool IsFinishedFile(const struct stat& st, const Member& member);

/// Decodes a zip's member; kUnsupported where its method is not known.
Result<std::unique_ptr<Decoder>> MakeMemberDecoder(const ZipMember& zip, store::Sink sink);
/// A zip's checksum of bytes that follow what has `before`.
std::uint32_t ZipCrc(std::span<const std::byte> bytes, std::uint32_t before = 0);
/// kCorrupt.
std::unexpected<Error> FailChecksum(std::string_view member);
std::unexpected<Error> FailMemberSize(std::string_view member, std::uint64_t size, bool more);

/// For one thread at a time.
class FileTask {
 public:
  using Directory = std::shared_ptr<os::UniqueFd>;  // shared with others in the same folder
  FileTask(Directory directory, std::string leaf, Member member, const ZipMember* zip,
           std::atomic<std::uint64_t>& written, std::atomic<std::uint64_t>& resumed)
      : directory_(std::move(directory)),
        leaf_(std::move(leaf)),
        member_(std::move(member)),
        is_zip_(zip != nullptr),
        zip_(zip != nullptr ? *zip : ZipMember()),
        written_(written),
        resumed_(resumed) {}

  /// The next bytes, and with `last` the end: then the file is finished.
  Status Take(std::span<const Slice> slices, bool last);
  const Member& member() const { return member_; }

 private:
  Status Open();
  Status Inflate(std::span<const Slice> slices);
  Status Write(std::span<const std::byte> bytes);
  Status WriteSlices(std::span<const Slice> slices);
  Status WriteSparse(std::span<const std::byte> bytes);
  Status WriteAt(std::span<const std::byte> bytes, std::uint64_t offset);
  Status Differs();
  Status Finish();
  std::unexpected<Error> Failed(int error, std::string_view doing) const;

  const Directory directory_;
  const std::string leaf_;
  const Member member_;
  const bool is_zip_;
  const ZipMember zip_;
  std::atomic<std::uint64_t>& written_;
  std::atomic<std::uint64_t>& resumed_;
  os::UniqueFd fd_;
  bool comparing_ = false;  // an earlier attempt has finished it: it is compared
  std::uint64_t at_ = 0;    // bytes that have been decoded
  std::uint32_t crc_ = 0;
  std::unique_ptr<Decoder> decoder_;
  std::size_t extent_ = 0;           // of a sparse file: the next one,
  std::uint64_t within_extent_ = 0;  // and so many bytes of it are there
};

}  // namespace leat::archive

#endif  // LEAT_ARCHIVE_FILE_TASK_H_
