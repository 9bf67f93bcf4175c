// The kernel's side of the FUSE protocol, for tests of a server without a mount.
#ifndef LEAT_TESTING_FAKE_KERNEL_H_
#define LEAT_TESTING_FAKE_KERNEL_H_

#include <linux/fuse.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace leat::testing {

/// One end of a SOCK_SEQPACKET pair whose other end a server takes for /dev/fuse: a message is a
/// request or an answer, as a read or write of the device is. Thread-safe but for Disconnect. A
/// wait for an answer that does not come within 20 s ends the test program with a sentence.
class FakeKernel {
 public:
  struct Answer {
    std::uint64_t unique = 0;
    int error = 0;  ///< an errno, positive; of a notification: its code
    std::vector<std::byte> body;

    /// The body's first bytes as a T; zeros where it is shorter.
    template <typename T>
    T As() const {
      T out = {};
      std::memcpy(&out, body.data(), body.size() < sizeof(T) ? body.size() : sizeof(T));
      return out;
    }
    std::string_view text() const {
      return {reinterpret_cast<const char*>(body.data()), body.size()};
    }
  };
  struct Entry {
    std::string name;
    std::uint64_t node = 0, next = 0;
    std::uint32_t type = 0;
    std::uint64_t looked_up = 0;  ///< of READDIRPLUS: the node that the kernel now knows
  };

  FakeKernel();
  ~FakeKernel();
  FakeKernel(const FakeKernel&) = delete;
  FakeKernel& operator=(const FakeKernel&) = delete;

  int server_fd() const { return server_; }
  /// As an unmount: the server's reads end.
  void Disconnect();

  /// Sends a request and gives its number.
  std::uint64_t Send(std::uint32_t opcode, std::uint64_t node,
                     std::span<const std::byte> body = {});
  void SendRaw(std::span<const std::byte> message) const;
  Answer AnswerTo(std::uint64_t unique);
  /// The next notification (an answer to nothing: number 0).
  Answer Notification() { return AnswerTo(0); }
  /// Whether an answer lies there, without waiting.
  bool Answered(std::uint64_t unique);
  Answer Call(std::uint32_t opcode, std::uint64_t node, std::span<const std::byte> body = {}) {
    return AnswerTo(Send(opcode, node, body));
  }

  template <typename T>
  static std::vector<std::byte> Body(const T& argument, std::string_view after = {}) {
    std::vector<std::byte> out(sizeof(T) + after.size());
    std::memcpy(out.data(), &argument, sizeof(T));
    if (!after.empty()) std::memcpy(out.data() + sizeof(T), after.data(), after.size());
    return out;
  }
  /// With the NUL that ends it.
  static std::vector<std::byte> Name(std::string_view name);

  Answer Init(std::uint32_t minor, std::uint64_t flags);
  Answer Lookup(std::uint64_t directory, std::string_view name) {
    return Call(FUSE_LOOKUP, directory, Name(name));
  }
  std::uint64_t SendRead(std::uint64_t node, std::uint64_t offset, std::uint32_t size);
  Answer Read(std::uint64_t node, std::uint64_t offset, std::uint32_t size) {
    return AnswerTo(SendRead(node, offset, size));
  }
  /// One READDIR or READDIRPLUS; `error` (may be null) gets its errno.
  std::vector<Entry> ReadDirectory(std::uint64_t directory, std::uint64_t offset,
                                   std::uint32_t size, bool plus, int* error = nullptr);

 private:
  bool Receive(int timeout_ms);  // mutex held

  int kernel_ = -1, server_ = -1;
  std::mutex mutex_;
  std::uint64_t last_unique_ = 0;
  std::multimap<std::uint64_t, Answer> answers_;
};

}  // namespace leat::testing

#endif  // LEAT_TESTING_FAKE_KERNEL_H_
