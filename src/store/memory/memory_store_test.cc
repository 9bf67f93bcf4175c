#include "store/memory/memory_store.h"

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "testing/conformance.h"

namespace leat::testing {

INSTANTIATE_TEST_SUITE_P(Memory, ObjectStoreSuite,
                         ::testing::Values(StoreCase{
                             .name = "Memory",
                             .make = [] { return MakeSubject(store::memory::MakeMemoryStore()); }}),
                         NameOfCase);

}  // namespace leat::testing

namespace leat::store::memory {

TEST(MemoryStore, PagesAreOfTheSizeThatItWasMadeWith) {
  const auto store = MakeMemoryStore("mem://b", 2);
  for (const char* key : {"a", "b", "c"}) ASSERT_TRUE(store->Put(key, {}, {}, {}));
  const auto page = store->List("", {.max_keys = 100}, {});
  ASSERT_TRUE(page);
  EXPECT_EQ(page->objects.size(), 2u);
  EXPECT_TRUE(page->truncated);
}

TEST(MemoryStore, AReaderKeepsItsBytesWhileTheObjectIsReplaced) {
  const auto store = MakeMemoryStore();
  ASSERT_TRUE(store->Put("x", AsBytes(std::string(200'000, 'a')), {}, {}));
  std::string got;
  const auto done = store->Read("x", {},
                                [&](std::span<const std::byte> piece) -> Status {
                                  got += AsText(piece);
                                  EXPECT_TRUE(store->Put("x", AsBytes("b"), {}, {}));
                                  return {};
                                },
                                {});
  EXPECT_TRUE(done);
  EXPECT_EQ(got, std::string(200'000, 'a'));
}

}  // namespace leat::store::memory
