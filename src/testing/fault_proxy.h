// A proxy on loopback between a client and an HTTP/1.1 store (S3, nginx) that misbehaves on
// request: delays, cuts, stalls, wrong bytes, wrong lengths, errors. Rules and counters are reached
// in the process and, for scripts, over a small HTTP control port; both are described in
// tests/servers/fault-proxy.md.
#ifndef LEAT_TESTING_FAULT_PROXY_H_
#define LEAT_TESTING_FAULT_PROXY_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "base/error.h"

namespace leat::testing {

struct FaultProxyOptions {
  std::string upstream_host = "127.0.0.1";
  std::uint16_t upstream_port = 0;
  std::uint16_t port = 0;          ///< 0: a free one
  std::uint16_t control_port = 0;  ///< 0: a free one
  std::uint64_t seed = 1;          ///< of the rules' probabilities
};

struct FaultProxyCounts {
  std::map<std::string, std::uint64_t>
      requests;  ///< by kind: list, get, head, put, post, delete, other
  std::uint64_t total = 0;
  std::uint64_t faults = 0;  ///< requests to which a rule was applied that does more than delay
  std::uint64_t connections = 0;  ///< accepted
  std::uint64_t in_flight = 0, peak_in_flight = 0;
  std::uint64_t bytes_to_client = 0, bytes_from_client = 0;  ///< of bodies
};

/// One thread a connection. The request's head goes to the store as it came (Host too, which
/// signatures cover). All members are thread-safe.
class FaultProxy {
 public:
  static Result<std::unique_ptr<FaultProxy>> Start(const FaultProxyOptions& options);
  /// Closes every connection and joins their threads.
  ~FaultProxy();
  FaultProxy(const FaultProxy&) = delete;
  FaultProxy& operator=(const FaultProxy&) = delete;

  std::uint16_t port() const;
  std::uint16_t control_port() const;

  /// Adds rules after those in force; none of them when one is not understood.
  Status AddRules(std::string_view text);
  void ClearRules();
  /// Lets go what rules hold in a stall: those connections are closed.
  void Release();

  FaultProxyCounts counts() const;
  void ResetCounts();
  /// A line a finished request, oldest first: "GET /b/k status=206 bytes=100 range=bytes=0-99 ...".
  std::string log() const;

 private:
  class Impl;
  explicit FaultProxy(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace leat::testing

#endif  // LEAT_TESTING_FAULT_PROXY_H_
