// Opens arbitrary bytes as a snapshot and, when that succeeds, walks everything: no index may lead
// outside.
//
// Checksums would stop nearly every input, so the input is a recipe as well: where it begins with a
// magic of our own, the rest is taken as a file whose checksums (and size) are put right first.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>

#include "digest/digest.h"
#include "snapshot/format.h"
#include "snapshot/snapshot.h"

namespace {

using namespace leat;

void PutChecksumsRight(std::string& bytes) {
  snapshot::format::Header header;
  if (bytes.size() < sizeof header) return;
  std::memcpy(&header, bytes.data(), sizeof header);
  std::memcpy(header.magic, snapshot::format::kMagic, sizeof header.magic);
  header.version = snapshot::format::kVersion;
  header.header_size = sizeof header;
  header.file_size = bytes.size();
  const auto whole = AsBytes(bytes);
  for (auto& section : header.sections) {
    if (section.offset <= bytes.size() && section.size <= bytes.size() - section.offset) {
      section.xxh3 = digest::Xxh3(whole.subspan(section.offset, section.size));
    }
  }
  const auto raw = std::as_bytes(std::span(&header, 1));
  header.header_xxh3 = digest::Xxh3(raw.subspan(snapshot::format::kHeaderSumFrom));
  std::memcpy(bytes.data(), &header, sizeof header);
}

void Require(bool condition) {
  if (!condition) std::abort();
}

void Walk(const snapshot::Snapshot& s) {
  std::size_t sum = s.pin().size() + s.prefix().size() + s.store_identity().size() +
                    s.left_out().first_why.size();
  std::uint64_t children = 1;
  for (snapshot::DirIndex d = 0; d < s.directory_count(); ++d) {
    sum += s.PathOfDirectory(d).size() + s.directory_name(d).size();
    for (std::uint32_t i = 0; i < s.child_count(d); ++i, ++children) {
      const snapshot::Child c = s.child(d, i);
      const std::string_view name = c.is_dir ? s.directory_name(c.index) : s.file(c.index).name;
      Require((c.is_dir ? s.directory_parent(c.index) : s.file(c.index).parent) == d);
      Require(!name.empty() && name.find('/') == name.npos && s.Lookup(d, name) == c);
      if (!c.is_dir) Require(s.PositionInDirectory(c.index) == i);
    }
  }
  Require(children == std::uint64_t{s.file_count()} + s.directory_count());
  std::string before;
  for (snapshot::FileIndex f = 0; f < s.file_count(); ++f) {
    const snapshot::FileInfo info = s.file(f);
    sum += std::string(info.etag).size() + std::string(info.version_id).size();
    std::string path = s.PathOfFile(f);
    Require(before < path && s.KeyOfFile(f) == std::string(s.prefix()) + path);
    before = std::move(path);
  }
  for (std::uint32_t b = 0; b < s.block_count(); ++b) sum += s.BlockFirstKey(b).size();
  if (s.VerifyPin() && sum == 0) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string bytes(reinterpret_cast<const char*>(data), size);
  if (bytes.starts_with("fix ")) {
    bytes.erase(0, 4);
    PutChecksumsRight(bytes);
  }
  static const int fd = ::memfd_create("snapshot", MFD_CLOEXEC);
  if (::ftruncate(fd, 0) != 0 ||
      ::pwrite(fd, bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size())) {
    std::abort();
  }
  if (const auto opened = leat::snapshot::Snapshot::Open(fd)) Walk(**opened);
  return 0;
}
