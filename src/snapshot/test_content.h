// Contents for tests of what reads snapshots: objects in a store, and the snapshot of them. Only
// tests include it.
#ifndef LEAT_SNAPSHOT_TEST_CONTENT_H_
#define LEAT_SNAPSHOT_TEST_CONTENT_H_

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "base/bytes.h"
#include "snapshot/builder.h"
#include "snapshot/content.h"

namespace leat::snapshot::testing {

/// `size` bytes that are a function of the name and the place, so that none can stand in for
/// another.
inline std::string PatternOf(std::string_view name, std::uint64_t size) {
  std::string out(size, '\0');
  const std::uint64_t seed = std::hash<std::string_view>()(name);
  for (std::uint64_t i = 0; i < size; ++i) {
    std::uint64_t x = seed ^ (i / 8 * 0x9e3779b97f4a7c15ULL);
    x ^= x >> 31;
    x *= 0xbf58476d1ce4e5b9ULL;
    out[i] = static_cast<char>(x >> (i % 8 * 8));
  }
  return out;
}

/// Puts the pattern of its key into `store`.
inline void PutPattern(store::ObjectStore& store, const std::string& key, std::uint64_t size) {
  const std::string body = PatternOf(key, size);
  const auto put = store.Put(key, AsBytes(body), {}, {});
  ASSERT_TRUE(put) << put.error().message();
}

/// What `store` holds below `prefix` at this moment.
inline std::shared_ptr<const Content> ContentOf(std::shared_ptr<store::ObjectStore> store,
                                                std::string_view prefix = "") {
  Builder builder(std::string(store->Identity()), std::string(prefix));
  const auto listed = BuildFromListing(*store, prefix, {}, {}, builder);
  EXPECT_TRUE(listed) << listed.error().message();
  const int fd = ::memfd_create("snapshot", MFD_CLOEXEC);
  const Status written = builder.WriteTo(fd, false, nullptr);
  EXPECT_TRUE(written) << written.error().message();
  auto index = Snapshot::Open(fd);
  ::close(fd);
  EXPECT_TRUE(index) << index.error().message();
  auto content = std::make_shared<Content>();
  content->index = std::move(*index);
  content->store = std::move(store);
  return content;
}

}  // namespace leat::snapshot::testing

#endif  // LEAT_SNAPSHOT_TEST_CONTENT_H_
