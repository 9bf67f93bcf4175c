#include "snapshot/key_rules.h"

#include <cstring>

namespace leat::snapshot {
namespace {

KeyProblem ProblemOf(std::string_view name) {
  if (name.empty()) return KeyProblem::kEmptyComponent;
  if (name == ".") return KeyProblem::kDot;
  if (name == "..") return KeyProblem::kDotDot;
  if (name.size() > kMaxName) return KeyProblem::kLongName;
  return KeyProblem::kNone;
}

/// The component that FindProblem objects to.
KeyProblem Find(std::string_view key, std::string_view* which) {
  const bool zero = std::memchr(key.data(), 0, key.size()) != nullptr;
  while (!key.empty()) {
    const std::size_t slash = key.find('/');
    *which = key.substr(0, slash);
    if (const KeyProblem p = ProblemOf(*which); p != KeyProblem::kNone) return p;
    if (zero && which->find('\0') != std::string_view::npos) return KeyProblem::kZeroByte;
    if (slash == std::string_view::npos) break;
    key.remove_prefix(slash + 1);
  }
  return KeyProblem::kNone;
}

}  // namespace

KeyProblem FindProblem(std::string_view relative_key) {
  std::string_view which;
  return relative_key.empty() ? KeyProblem::kNone : Find(relative_key, &which);
}

std::string WhyLeftOut(std::string_view relative_key) {
  std::string_view which;
  switch (relative_key.empty() ? KeyProblem::kNone : Find(relative_key, &which)) {
    case KeyProblem::kEmptyComponent:
      return "an empty path component";
    case KeyProblem::kDot:
      return "a path component \".\"";
    case KeyProblem::kDotDot:
      return "a path component \"..\"";
    case KeyProblem::kLongName:
      return "a name of " + std::to_string(which.size()) + " bytes";
    case KeyProblem::kZeroByte:
      return "a name with a zero byte";
    case KeyProblem::kNone:
      break;
  }
  if (relative_key.empty() || relative_key.ends_with('/')) return "a folder that has contents";
  return "a file that is also a folder";
}

}  // namespace leat::snapshot
