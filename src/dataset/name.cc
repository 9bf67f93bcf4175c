#include "dataset/name.h"

#include <fmt/format.h>

#include "archive/archive_name.h"
#include "base/log.h"

namespace leat::dataset {

std::string DefaultName(std::string_view path) {
  while (path.ends_with('/')) path.remove_suffix(1);
  if (const std::size_t slash = path.rfind('/'); slash != path.npos) path = path.substr(slash + 1);
  return std::string(path.substr(0, path.size() - archive::ArchiveExtension(path).size()));
}

Status CheckName(std::string_view name) {
  const auto refuse = [&](std::string_view why) {
    return Fail(Errc::kInvalid,
                fmt::format("a dataset cannot be called \"{}\": {}", Printable(name), why));
  };
  if (name.empty()) return refuse("the name is empty");
  if (name == "." || name == "..") return refuse("that means a folder already");
  if (name == "none") return refuse("that says that there is no name");
  if (name.find('/') != name.npos) return refuse("a name has no \"/\"");
  if (name.find('\0') != name.npos) return refuse("a name has no NUL");
  if (name.size() > 255) return refuse("a name has 255 bytes at most");
  return {};
}

Result<std::string> FolderName(std::string_view name, std::string_view etag,
                               std::string_view version) {
  LEAT_RETURN_IF_ERROR(CheckName(name));
  std::string out(name);
  for (const std::string_view pin : {etag, version}) {
    if (pin.empty()) continue;
    out += '-';
    // (Nothing that a store calls an etag or a version has a slash, but nobody keeps one from it.)
    for (const char c : pin) out += c == '/' || c == '\0' ? '_' : c;
  }
  if (out.size() > 255) {
    return Fail(Errc::kInvalid, fmt::format("the dataset \"{}\" has a folder name of more than 255 "
                                            "bytes with its pins; give it a shorter name",
                                            Printable(name)));
  }
  return out;
}

}  // namespace leat::dataset
