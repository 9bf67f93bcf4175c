// Members of archives, read by their etags: no crash, no read outside of the archive, and what is a
// place is written the same again. The first line is the etag, the rest the archive.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>

#include "archive/member_place.h"
#include "archive/member_store.h"
#include "base/bytes.h"
#include "store/memory/memory_store.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace leat;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto line = text.find('\n');
  if (line == text.npos) return 0;
  const std::string etag(text.substr(0, line));
  const std::string_view archive = text.substr(line + 1);
  const auto place = archive::PlaceOf(etag, archive.size());
  if (place && archive::EtagOf(*place) != etag) std::abort();
  const std::shared_ptr<store::ObjectStore> store = store::memory::MakeMemoryStore();
  if (!store->Put("a.zip", AsBytes(archive), {}, {})) std::abort();
  const auto members = archive::MakeMemberStore(store, *store->Stat("a.zip", "", {}));
  store::ReadOptions options;
  options.if_version.etag = etag;
  const auto read = [&](std::uint64_t offset, std::uint64_t length) {
    options.offset = offset;
    options.length = length;
    std::string got;
    const Status done = members->Read("k", options,
                                      [&](std::span<const std::byte> piece) -> Status {
                                        got += AsText(piece);
                                        return {};
                                      },
                                      {});
    if (!done) return std::string();
    if (!place || got.size() > place->size) std::abort();
    return got;
  };
  const std::string whole = read(0, UINT64_MAX);
  const std::string front = read(0, whole.size() / 2);
  const std::string back = read(whole.size() / 2, UINT64_MAX);
  if (!whole.empty() && front + back != whole) std::abort();
  return 0;
}
