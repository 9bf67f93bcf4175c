// Reads arbitrary text as the argument of -m. What is accepted keeps its promises; what is refused
// says why, and neither says what a URL has behind its '?'.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "job/mount_spec.h"

namespace {

void Require(bool condition) {
  if (!condition) std::abort();
}

void CheckTarget(std::string_view target) {
  Require(target.size() > 1 && target.front() == '/' && !target.ends_with('/'));
  for (std::size_t begin = 1; begin <= target.size();) {
    const std::size_t end = std::min(target.find('/', begin), target.size());
    const std::string_view part = target.substr(begin, end - begin);
    Require(!part.empty() && part != "." && part != ".." && part.size() <= 255);
    begin = end + 1;
  }
  for (const std::string_view reserved : {"/proc", "/sys", "/dev"})
    Require(target != reserved && !target.starts_with(std::string(reserved) + "/"));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace leat::job;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  // One remote is there, "r".
  const leat::config::Environment env = [](std::string_view name) {
    return name == "RCLONE_CONFIG_R_TYPE" ? std::optional<std::string>("swift") : std::nullopt;
  };
  const auto spec = ParseMount(text, env);
  if (!spec) {
    const leat::Errc code = spec.error().code();
    Require(code == leat::Errc::kInvalid || code == leat::Errc::kNotFound);
    Require(!spec.error().message().empty());
    return 0;
  }
  CheckTarget(spec->target);
  const Source& source = spec->source;
  for (const char c : source.ForMessages()) Require(static_cast<unsigned char>(c) >= 0x20);
  switch (source.kind) {
    case Source::Kind::kLocal:
      Require(!source.path.empty() && source.path.find('\0') == std::string::npos);
      break;
    case Source::Kind::kS3:
    case Source::Kind::kGcs:
    case Source::Kind::kSwift:
      Require(!source.bucket.empty() && source.bucket.find('/') == std::string::npos);
      Require(source.text.ends_with(source.key));
      Require(source.remote != nullptr || source.key.size() <= 1024);
      break;
    case Source::Kind::kRemote:
      Require(false);  // it is resolved
      break;
    case Source::Kind::kHttp:
      Require(source.origin.starts_with("http"));
      Require(source.ForMessages().find('?') == std::string::npos);
      break;
  }
  Require(!spec->writable || source.kind == Source::Kind::kLocal);
  Require(!(spec->anonymous && !spec->profile.empty()));
  // A source that was read reads the same alone.
  if (source.remote != nullptr) return 0;
  const auto again = ParseSource(source.text);
  Require(again && again->kind == source.kind && again->key == source.key &&
          again->path == source.path && again->bucket == source.bucket);
  return 0;
}
