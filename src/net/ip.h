// Addresses as text.
#ifndef LEAT_NET_IP_H_
#define LEAT_NET_IP_H_

#include <arpa/inet.h>

#include <string>
#include <string_view>

namespace leat::net {

/// Whether `host` is an IPv4 address, and begins so: "127.".
inline bool IsIpv4In(const std::string& host, std::string_view prefix) {
  in_addr address;
  return host.starts_with(prefix) && ::inet_pton(AF_INET, host.c_str(), &address) == 1;
}

}  // namespace leat::net

#endif  // LEAT_NET_IP_H_
