// As much HTTP/1.1 as a proxy needs: heads that keep their fields' order and spelling, and bodies
// by their framing.
#ifndef LEAT_TESTING_FAULT_PROXY_HTTP_H_
#define LEAT_TESTING_FAULT_PROXY_HTTP_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"

namespace leat::testing {

/// A file descriptor of a connected or listening socket, closed at the end of its life.
class Socket {
 public:
  explicit Socket(int fd = -1) : fd_(fd) {}
  ~Socket();
  Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Socket& operator=(Socket&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }

  int fd() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  /// Writes all of it; false when the peer is gone.
  bool Send(std::string_view bytes) const;
  /// Small writes leave at once (TCP_NODELAY).
  void SendAtOnce() const;
  /// The peer is told by RST that the connection is gone, not by FIN.
  void ResetOnClose() const;
  /// The peer has closed its side (or has reset the connection).
  bool PeerClosed() const;

 private:
  int fd_;
};

/// Listens on 127.0.0.1; port 0 takes a free one.
Result<Socket> ListenLocal(std::uint16_t port);
std::uint16_t LocalPort(const Socket& socket);
Result<Socket> ConnectTo(const std::string& host, std::uint16_t port);

/// The first line and the fields of a request or response, in the order and spelling in which they
/// came.
struct Head {
  std::string first_line;
  std::vector<std::pair<std::string, std::string>> fields;

  /// The value of the first field of this name (any case), or nothing.
  const std::string* Find(std::string_view name) const;
  /// Replaces the field, or adds it.
  void Set(std::string_view name, std::string value);
  void Remove(std::string_view name);
  /// As it goes over the wire, with the empty line.
  std::string ToWire() const;
};

/// How the end of a body is known (RFC 9112, section 6.3).
struct Framing {
  enum Kind { kLength, kChunked, kUntilClose } kind = kLength;
  std::uint64_t length = 0;
};
Framing RequestFraming(const Head& head);
Framing ResponseFraming(std::string_view method, int status, const Head& head);

/// A socket with what was received and not yet consumed.
class Stream {
 public:
  explicit Stream(Socket socket) : socket_(std::move(socket)) {}

  const Socket& socket() const { return socket_; }
  /// Nothing when the peer closed the connection or sent what is no head.
  std::optional<Head> ReadHead();
  /// Hands the body's payload to `sink` piece by piece; false when it ended early or `sink`
  /// returned false.
  bool ReadBody(Framing framing, const std::function<bool(std::string_view)>& sink);

 private:
  bool Fill();
  std::optional<std::string> ReadLine();
  bool ReadExactly(std::uint64_t length, const std::function<bool(std::string_view)>& sink);

  Socket socket_;
  std::string buffer_;
  std::size_t begin_ = 0;
};

bool EqualsIgnoreCase(std::string_view a, std::string_view b);

}  // namespace leat::testing

#endif  // LEAT_TESTING_FAULT_PROXY_HTTP_H_
