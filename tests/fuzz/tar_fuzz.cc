// A stranger's tar: no crash, whatever its pieces; what it says of a member holds together.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "archive/member_path.h"
#include "archive/tar_parser.h"

namespace {

class Checker final : public leat::archive::TarVisitor {
 public:
  leat::Status OnMember(const leat::archive::Member& member) override {
    if (open_) std::abort();
    open_ = true;
    left_ = member.stored;
    if (member.kind != leat::archive::MemberKind::kFile && member.stored != 0) std::abort();
    if (!member.sparse && member.stored != member.size) std::abort();
    std::uint64_t end = 0;
    std::uint64_t sum = 0;
    for (const auto& extent : member.extents) {
      if (extent.offset < end || extent.offset > member.size ||
          extent.length > member.size - extent.offset)
        std::abort();
      end = extent.offset + extent.length;
      sum += extent.length;
    }
    if (member.sparse && sum != member.stored) std::abort();
    if (const auto path = leat::archive::MemberPath(member.name)) {
      if (path->starts_with('/') || path->starts_with("../") || *path == ".." ||
          path->find("/../") != path->npos || path->ends_with("/.."))
        std::abort();
    }
    return {};
  }
  leat::Status OnData(std::span<const std::byte> bytes) override {
    if (!open_ || bytes.empty() || bytes.size() > left_) std::abort();
    left_ -= bytes.size();
    return {};
  }
  leat::Status OnMemberEnd() override {
    if (!open_ || left_ != 0) std::abort();
    open_ = false;
    return {};
  }

 private:
  bool open_ = false;
  std::uint64_t left_ = 0;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  (void)leat::archive::IsTar(bytes);
  bool whole = false;
  for (const std::size_t piece : {size, std::size_t{700}}) {
    Checker checker;
    leat::archive::TarParser parser(checker);
    bool good = true;
    for (std::size_t at = 0; good && at < size; at += piece)
      good = parser.Write(bytes.subspan(at, std::min(piece, size - at))).has_value();
    good = good && parser.Finish().has_value();
    if (piece == size) whole = good;
    if (good != whole) std::abort();
  }
  return 0;
}
