#include "testing/fault_proxy_http.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>

namespace leat::testing {
namespace {

constexpr std::size_t kReceive = 256 * 1024;
constexpr std::size_t kMaxHead = 256 * 1024;

std::string_view Trim(std::string_view s) {
  while (!s.empty() && (s.front() == ' ' || s.front() == '\t')) s.remove_prefix(1);
  while (!s.empty() && (s.back() == ' ' || s.back() == '\t' || s.back() == '\r'))
    s.remove_suffix(1);
  return s;
}

char Lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

Framing DeclaredFraming(const Head& head, Framing otherwise) {
  if (const auto* coding = head.Find("Transfer-Encoding");
      coding != nullptr && EqualsIgnoreCase(*coding, "chunked")) {
    return {.kind = Framing::kChunked};
  }
  if (const auto* length = head.Find("Content-Length"); length != nullptr) {
    Framing f;
    std::from_chars(length->data(), length->data() + length->size(), f.length);
    return f;
  }
  return otherwise;
}

}  // namespace

bool EqualsIgnoreCase(std::string_view a, std::string_view b) {
  return std::ranges::equal(a, b, [](char x, char y) { return Lower(x) == Lower(y); });
}

Socket::~Socket() {
  if (fd_ >= 0) ::close(fd_);
}

bool Socket::Send(std::string_view bytes) const {
  while (!bytes.empty()) {
    const ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
  return true;
}

void Socket::SendAtOnce() const {
  const int on = 1;
  ::setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

void Socket::ResetOnClose() const {
  const linger at_once{.l_onoff = 1, .l_linger = 0};
  ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
}

bool Socket::PeerClosed() const {
  pollfd p{.fd = fd_, .events = POLLIN | POLLRDHUP, .revents = 0};
  if (::poll(&p, 1, 0) <= 0) return false;
  if ((p.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0) return true;
  char c = 0;
  return ::recv(fd_, &c, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

Result<Socket> ListenLocal(std::uint16_t port) {
  Socket s(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!s) return FailErrno(errno, "making a socket");
  const int on = 1;
  ::setsockopt(s.fd(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::bind(s.fd(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(s.fd(), 1024) != 0) {
    return FailErrno(errno, "listening on 127.0.0.1:" + std::to_string(port));
  }
  return s;
}

std::uint16_t LocalPort(const Socket& socket) {
  sockaddr_in address{};
  socklen_t size = sizeof address;
  ::getsockname(socket.fd(), reinterpret_cast<sockaddr*>(&address), &size);
  return ntohs(address.sin_port);
}

Result<Socket> ConnectTo(const std::string& host, std::uint16_t port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const std::string service = std::to_string(port);
  if (const int e = ::getaddrinfo(host.c_str(), service.c_str(), &hints, &found); e != 0) {
    return Fail(Errc::kUnavailable, host + ": " + ::gai_strerror(e));
  }
  int error = ECONNREFUSED;
  Socket connected;
  for (const addrinfo* a = found; a != nullptr && !connected; a = a->ai_next) {
    Socket s(::socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol));
    if (s && ::connect(s.fd(), a->ai_addr, a->ai_addrlen) == 0) {
      connected = std::move(s);
    } else {
      error = errno;
    }
  }
  ::freeaddrinfo(found);
  if (!connected) return FailErrno(error, "connecting to " + host + ":" + service);
  connected.SendAtOnce();
  return connected;
}

const std::string* Head::Find(std::string_view name) const {
  const auto it =
      std::ranges::find_if(fields, [&](const auto& f) { return EqualsIgnoreCase(f.first, name); });
  return it == fields.end() ? nullptr : &it->second;
}

void Head::Set(std::string_view name, std::string value) {
  for (auto& f : fields) {
    if (EqualsIgnoreCase(f.first, name)) {
      f.second = std::move(value);
      return;
    }
  }
  fields.emplace_back(name, std::move(value));
}

void Head::Remove(std::string_view name) {
  std::erase_if(fields, [&](const auto& f) { return EqualsIgnoreCase(f.first, name); });
}

std::string Head::ToWire() const {
  std::string wire = first_line + "\r\n";
  for (const auto& [name, value] : fields) wire += name + ": " + value + "\r\n";
  return wire += "\r\n";
}

Framing RequestFraming(const Head& head) { return DeclaredFraming(head, {}); }

Framing ResponseFraming(std::string_view method, int status, const Head& head) {
  if (method == "HEAD" || status / 100 == 1 || status == 204 || status == 304) return {};
  return DeclaredFraming(head, {.kind = Framing::kUntilClose});
}

bool Stream::Fill() {
  if (begin_ > 0) {
    buffer_.erase(0, begin_);
    begin_ = 0;
  }
  const std::size_t had = buffer_.size();
  ssize_t n = 0;
  buffer_.resize_and_overwrite(had + kReceive, [&](char* data, std::size_t) {
    do {
      n = ::recv(socket_.fd(), data + had, kReceive, 0);
    } while (n < 0 && errno == EINTR);
    return had + static_cast<std::size_t>(n > 0 ? n : 0);
  });
  return n > 0;
}

std::optional<std::string> Stream::ReadLine() {
  for (;;) {
    if (const auto end = buffer_.find('\n', begin_); end != std::string::npos) {
      std::string line(Trim(std::string_view(buffer_).substr(begin_, end - begin_)));
      begin_ = end + 1;
      return line;
    }
    if (buffer_.size() - begin_ > kMaxHead || !Fill()) return std::nullopt;
  }
}

std::optional<Head> Stream::ReadHead() {
  Head head;
  auto line = ReadLine();
  if (line && line->empty()) line = ReadLine();  // RFC 9112, 2.2: an empty line may come before
  if (!line) return std::nullopt;
  head.first_line = std::move(*line);
  for (;;) {
    line = ReadLine();
    if (!line) return std::nullopt;
    if (line->empty()) return head;
    const auto colon = line->find(':');
    if (colon == std::string::npos) return std::nullopt;
    const std::string_view field = *line;
    head.fields.emplace_back(field.substr(0, colon), Trim(field.substr(colon + 1)));
  }
}

bool Stream::ReadExactly(std::uint64_t length, const std::function<bool(std::string_view)>& sink) {
  while (length > 0) {
    if (begin_ == buffer_.size() && !Fill()) return false;
    const auto n =
        static_cast<std::size_t>(std::min<std::uint64_t>(length, buffer_.size() - begin_));
    begin_ += n;
    length -= n;
    if (!sink(std::string_view(buffer_).substr(begin_ - n, n))) return false;
  }
  return true;
}

bool Stream::ReadBody(Framing framing, const std::function<bool(std::string_view)>& sink) {
  switch (framing.kind) {
    case Framing::kLength:
      return ReadExactly(framing.length, sink);
    case Framing::kUntilClose:
      do {
        const auto rest = std::string_view(buffer_).substr(begin_);
        begin_ = buffer_.size();
        if (!rest.empty() && !sink(rest)) return false;
      } while (Fill());
      return true;
    case Framing::kChunked:
      for (;;) {
        const auto size_line = ReadLine();
        if (!size_line) return false;
        std::uint64_t size = 0;
        const auto [end, error] =
            std::from_chars(size_line->data(), size_line->data() + size_line->size(), size, 16);
        if (error != std::errc()) return false;
        if (size == 0) break;
        if (!ReadExactly(size, sink) || !ReadLine()) return false;
      }
      for (;;) {  // trailers are dropped
        const auto trailer = ReadLine();
        if (!trailer) return false;
        if (trailer->empty()) return true;
      }
  }
  return false;
}

}  // namespace leat::testing
