// What linux/fuse.h of Debian 12 (protocol 7.37) does not have yet.
// https://www.kernel.org/doc/html/latest/filesystems/fuse/
#ifndef LEAT_FUSE_PROTOCOL_H_
#define LEAT_FUSE_PROTOCOL_H_

#include <linux/fuse.h>
#include <sys/ioctl.h>

#include <cstdint>

namespace leat::fuse {

inline constexpr std::uint32_t kMajor = 7;
/// The newest minor version whose structures are used here.
inline constexpr std::uint32_t kMinor = 40;

// INIT flags from bit 32 on travel in flags2.
inline constexpr std::uint64_t kInitPassthrough = 1ULL << 37;
inline constexpr std::uint64_t kInitHasResend = 1ULL << 39;

inline constexpr std::uint32_t kOpenPassthrough = 1U << 7;
inline constexpr std::int32_t kNotifyResend = 7;
/// In the number of a request that is sent again.
inline constexpr std::uint64_t kUniqueResend = 1ULL << 63;

struct BackingMap {
  std::int32_t fd;
  std::uint32_t flags;
  std::uint64_t padding;
};
inline constexpr unsigned long kIocBackingOpen = _IOW(229, 1, BackingMap);
inline constexpr unsigned long kIocClone = _IOR(229, 0, std::uint32_t);

/// fuse_init_out as of 7.40: the first of the unused words of 7.37 is max_stack_depth.
inline void SetMaxStackDepth(fuse_init_out& out, std::uint32_t depth) { out.unused[0] = depth; }
/// fuse_open_out as of 7.40: the padding is the backing file's id.
inline void SetBackingId(fuse_open_out& out, std::int32_t id) {
  out.padding = static_cast<std::uint32_t>(id);
}

}  // namespace leat::fuse

#endif  // LEAT_FUSE_PROTOCOL_H_
