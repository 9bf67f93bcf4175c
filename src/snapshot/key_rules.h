// Which keys of an object store a file system can hold.
#ifndef LEAT_SNAPSHOT_KEY_RULES_H_
#define LEAT_SNAPSHOT_KEY_RULES_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace leat::snapshot {

inline constexpr std::size_t kMaxName = 255;

enum class KeyProblem : std::uint8_t {
  kNone,
  kEmptyComponent,
  kDot,
  kDotDot,
  kLongName,
  kZeroByte
};

/// What is wrong with the first component that a file system cannot hold. A key that ends in '/'
/// names a folder; "" is the root.
KeyProblem FindProblem(std::string_view relative_key);
/// For people: why a key with `size` bytes in it was left out, whatever FindProblem says of it.
std::string WhyLeftOut(std::string_view relative_key);

}  // namespace leat::snapshot

#endif  // LEAT_SNAPSHOT_KEY_RULES_H_
