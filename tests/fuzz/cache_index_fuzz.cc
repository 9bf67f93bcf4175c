// Opens arbitrary bytes as the index of a cache and uses it: nothing may lead outside of it. Input
// that begins with "fix " gets a header that fits its size.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>

#include "base/bytes.h"
#include "cache/index.h"

namespace {

using namespace leat;
using namespace leat::cache;

void Require(bool condition) {
  if (!condition) std::abort();
}

/// A table of the smallest size whose slots are the input, over and over from a place that the
/// input says, the rest free.
std::string TableOf(std::string_view input) {
  constexpr std::size_t kSlots = 1 << 14;
  std::string bytes(4096 + 32 * kSlots, '\0');
  const std::uint64_t slots = kSlots;
  std::memcpy(bytes.data(), "LEATIDX1", 8);
  std::memcpy(bytes.data() + 8, &slots, 8);
  if (input.size() < 8) return bytes;
  std::uint32_t from = 0, times = 0;
  std::memcpy(&from, input.data(), 4);
  std::memcpy(&times, input.data() + 4, 4);
  input.remove_prefix(8);
  std::memcpy(bytes.data() + 16, input.data(), std::min<std::size_t>(input.size(), 12));
  std::size_t at = 4096 + from % kSlots * 32;
  for (std::uint32_t i = 0; i <= times % kSlots && !input.empty(); ++i) {
    const std::size_t n = std::min(input.size(), bytes.size() - at);
    std::memcpy(bytes.data() + at, input.data(), n);
    at += (n + 31) / 32 * 32;
    if (at >= bytes.size()) at = 4096;
  }
  return bytes;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  static const std::string path = "/dev/shm/leat-index-fuzz-" + std::to_string(::getpid());
  const std::string bytes =
      input.starts_with("fix ") ? TableOf(input.substr(4)) : std::string(input);
  {
    const auto fd = os::Open(path, O_RDWR | O_CREAT | O_TRUNC);
    Require(fd && os::PwriteAll(fd->get(), AsBytes(bytes), 0));
  }
  auto index = Index::Open(path, [](std::uint32_t segment) { return segment % 3 == 1; });
  if (index) {
    Identity id;
    if (bytes.size() >= 4096 + 64) {
      // Those that are there, and one that is not.
      for (std::size_t at = 4096; at + 32 <= std::min<std::size_t>(bytes.size(), 4096 + 32 * 8);
           at += 32) {
        std::memcpy(&id, bytes.data() + at + 16, 16);
        if (const auto place = (*index)->Find(id)) {
          Require(place->segment % 3 == 1);
          (*index)->Remove(id, *place);
        }
      }
    }
    id.word = {size, 12345};
    Place place;
    place.segment = 4;
    place.offset = 64;
    place.size = 77;
    if ((*index)->Insert(id, place)) {
      const auto found = (*index)->Find(id);
      Require(found && found->segment == 4 && found->offset == 64 && found->size == 77);
      (*index)->Remove(id, *found);
    }
    Require((*index)->CountAlive() <= (*index)->slots());
    (*index)->Refresh();
  }
  index = Fail(Errc::kInternal, "");
  ::unlink(path.c_str());
  ::unlink((path + ".new").c_str());
  return 0;
}
