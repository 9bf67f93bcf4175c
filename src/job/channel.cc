#include "job/channel.h"

#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace leat::job {
namespace {

constexpr std::size_t kMaxText = 60'000;
struct Wire {
  std::uint32_t kind;
  std::uint32_t text_size;
  std::int64_t number;
};

}  // namespace

Result<std::pair<Channel, Channel>> Channel::MakePair() {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
    return FailErrno(errno, "making a socket pair");
  return std::pair(Channel(os::UniqueFd(ends[0])), Channel(os::UniqueFd(ends[1])));
}

Status Channel::Send(MessageKind kind, std::int64_t number, const std::string& text, int fd) {
  Wire wire = {static_cast<std::uint32_t>(kind),
               static_cast<std::uint32_t>(std::min(text.size(), kMaxText)), number};
  std::array<iovec, 2> parts = {
      {{&wire, sizeof(wire)}, {const_cast<char*>(text.data()), wire.text_size}}};
  msghdr message = {};
  message.msg_iov = parts.data();
  message.msg_iovlen = parts.size();
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  if (fd >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(header), &fd, sizeof(fd));
  }
  while (::sendmsg(fd_.get(), &message, MSG_NOSIGNAL) < 0) {
    if (errno != EINTR) return FailErrno(errno, "sending to another process of leat");
  }
  return {};
}

std::optional<Message> Channel::Receive() {
  Wire wire = {};
  std::string text(kMaxText, '\0');
  std::array<iovec, 2> parts = {{{&wire, sizeof(wire)}, {text.data(), text.size()}}};
  msghdr message = {};
  message.msg_iov = parts.data();
  message.msg_iovlen = parts.size();
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  ssize_t n;
  while ((n = ::recvmsg(fd_.get(), &message, MSG_CMSG_CLOEXEC)) < 0 && errno == EINTR) {
  }
  Message out;
  for (cmsghdr* header = n > 0 ? CMSG_FIRSTHDR(&message) : nullptr; header != nullptr;
       header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    int fd;
    std::memcpy(&fd, CMSG_DATA(header), sizeof(fd));
    out.fd.Reset(fd);
  }
  if (n < static_cast<ssize_t>(sizeof(wire)) ||
      wire.text_size > static_cast<std::size_t>(n) - sizeof(wire))
    return std::nullopt;
  text.resize(wire.text_size);
  out.kind = static_cast<MessageKind>(wire.kind);
  out.number = wire.number;
  out.text = std::move(text);
  return out;
}

}  // namespace leat::job
