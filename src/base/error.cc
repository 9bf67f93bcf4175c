#include "base/error.h"

#include <cerrno>
#include <cstring>

namespace leat {

std::string_view ErrcName(Errc c) {
  switch (c) {
    case Errc::kNotFound:
      return "not found";
    case Errc::kConflict:
      return "conflict";
    case Errc::kInvalid:
      return "invalid";
    case Errc::kDenied:
      return "access denied";
    case Errc::kUnavailable:
      return "unavailable";
    case Errc::kDeadline:
      return "deadline exceeded";
    case Errc::kCancelled:
      return "cancelled";
    case Errc::kCorrupt:
      return "corrupt";
    case Errc::kNoSpace:
      return "no space";
    case Errc::kUnsupported:
      return "unsupported";
    case Errc::kInternal:
      return "internal";
  }
  return "unknown";
}

std::unexpected<Error> FailErrno(int err, std::string_view doing) {
  Errc code = Errc::kInternal;
  switch (err) {
    case ENOENT:
    case ENOTDIR:
    case ENXIO:
      code = Errc::kNotFound;
      break;
    case EACCES:
    case EPERM:
    case EROFS:
      code = Errc::kDenied;
      break;
    case ENOSPC:
    case EDQUOT:
    case EMFILE:
    case ENFILE:
    case ENOMEM:
      code = Errc::kNoSpace;
      break;
    case EEXIST:
    case EBUSY:
    case ENOTEMPTY:
      code = Errc::kConflict;
      break;
    case EINVAL:
    case ENAMETOOLONG:
    case EISDIR:
    case ELOOP:
      code = Errc::kInvalid;
      break;
    case ENOSYS:
    case EOPNOTSUPP:
    case EXDEV:
      code = Errc::kUnsupported;
      break;
    case EAGAIN:
    case EINTR:
    case ETIMEDOUT:
      code = Errc::kUnavailable;
      break;
    default:
      break;
  }
  return Fail(code, std::string(doing) + ": " + std::strerror(err));
}

}  // namespace leat
