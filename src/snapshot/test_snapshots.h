// Snapshots for this folder's tests, made in memory. Only tests include it.
#ifndef LEAT_SNAPSHOT_TEST_SNAPSHOTS_H_
#define LEAT_SNAPSHOT_TEST_SNAPSHOTS_H_

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "snapshot/builder.h"

namespace leat::snapshot::testing {

/// A file without a name.
class MemoryFile {
 public:
  MemoryFile() : fd_(::memfd_create("snapshot", MFD_CLOEXEC)) {}
  explicit MemoryFile(std::string_view bytes) : MemoryFile() {
    EXPECT_EQ(::write(fd_, bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
  }
  ~MemoryFile() { ::close(fd_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  int fd() const { return fd_; }
  std::string Bytes() const {
    std::string out(static_cast<std::size_t>(::lseek(fd_, 0, SEEK_END)), '\0');
    EXPECT_EQ(::pread(fd_, out.data(), out.size(), 0), static_cast<ssize_t>(out.size()));
    return out;
  }

 private:
  int fd_;
};

inline store::ObjectInfo Key(std::string key, std::uint64_t size = 1,
                             std::string etag = "0cc175b9c0f1b6a831c399e269772661") {
  store::ObjectInfo info;
  info.key = std::move(key);
  info.size = size;
  info.version.etag = std::move(etag);
  return info;
}

/// The objects' keys are relative to the prefix.
inline void WriteObjects(const std::vector<store::ObjectInfo>& objects, std::string_view prefix,
                         int fd, LeftOut* left_out = nullptr) {
  Builder builder("mem://test", std::string(prefix));
  for (store::ObjectInfo o : objects) {
    o.key.insert(0, prefix);
    const Status added = builder.Add(o);
    ASSERT_TRUE(added) << added.error().message();
  }
  const Status written = builder.WriteTo(fd, false, left_out);
  ASSERT_TRUE(written) << written.error().message();
}

inline std::string BytesOf(const std::vector<store::ObjectInfo>& objects,
                           std::string_view prefix = "") {
  const MemoryFile file;
  WriteObjects(objects, prefix, file.fd());
  return file.Bytes();
}

inline std::shared_ptr<const Snapshot> SnapshotOf(const std::vector<store::ObjectInfo>& objects,
                                                  std::string_view prefix = "",
                                                  LeftOut* left_out = nullptr) {
  const MemoryFile file;
  WriteObjects(objects, prefix, file.fd(), left_out);
  auto opened = Snapshot::Open(file.fd());
  EXPECT_TRUE(opened) << opened.error().message();
  return opened ? *opened : nullptr;
}

}  // namespace leat::snapshot::testing

#endif  // LEAT_SNAPSHOT_TEST_SNAPSHOTS_H_
