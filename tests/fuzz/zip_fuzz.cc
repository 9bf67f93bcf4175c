// A stranger's zip: no crash, no read outside of it; members lie in it, one behind the other.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>

#include "archive/zip_directory.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  (void)leat::archive::IsZip(bytes);
  const auto members = leat::archive::ReadZipDirectory(
      size, [&](std::uint64_t offset, std::span<std::byte> out) -> leat::Status {
        if (offset > size || out.size() > size - offset) std::abort();
        if (!out.empty()) std::memcpy(out.data(), bytes.data() + offset, out.size());
        return {};
      });
  if (!members) return 0;
  std::uint64_t end = 0;
  for (const auto& m : *members) {
    if (m.begin < end || m.end < m.begin || m.end > size || m.compressed > m.end - m.begin)
      std::abort();
    end = m.end;
    (void)leat::archive::ZipLocalHeaderSize(bytes.subspan(m.begin, leat::archive::kZipLocalHeader));
  }
  return 0;
}
