// Requests to an account: with a token, and with its errors told in sentences. Private to this
// folder.
#ifndef LEAT_STORE_SWIFT_CLIENT_H_
#define LEAT_STORE_SWIFT_CLIENT_H_

#include <chrono>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "store/swift/swift_store.h"

namespace leat::store::swift {

/// What the server does by itself before it answers takes as long as it takes.
inline constexpr std::chrono::seconds kServerWorks{900};

/// A request before it has a host and a token.
struct Spec {
  std::string method = "GET";
  std::string path = {};  ///< "container/object", encoded
  std::string query = {};
  net::Headers headers = {};
  std::span<const std::byte> body = {};
  std::function<Status(const net::HttpResponse&)> on_response = {};
  Sink sink = {};
  std::chrono::seconds stall_timeout{20};
};

std::string Header(const net::HttpResponse& response, std::string_view name);
inline bool Ok(const net::HttpResponse& response) { return response.status / 100 == 2; }
Version VersionOf(const net::HttpResponse& response);

/// Thread-safe. Keys are for messages; "" is the container.
class Client {
 public:
  Client(const SwiftOptions& options, auth::CredentialProvider& credentials,
         net::HttpTransport& http, Clock& clock)
      : options_(options), credentials_(credentials), http_(http), clock_(clock) {}

  /// One request; a second one where the token was too old.
  Result<net::HttpResponse> Send(const Spec& spec, std::string_view key, const CallContext& ctx);
  /// The bytes of an object, whose MD5 the server is told and asked. kConflict: "If-None-Match",
  /// and it is there.
  Result<Version> PutBody(Spec spec, std::string_view key, const CallContext& ctx);
  Status CheckIsSwift(const net::HttpResponse& response, std::string_view key) const;
  /// Why the store did not do it.
  std::unexpected<Error> Explain(std::string_view key, const net::HttpResponse& response);

 private:
  std::string UrlOf(std::string_view key) const;

  const SwiftOptions& options_;
  auth::CredentialProvider& credentials_;
  net::HttpTransport& http_;
  Clock& clock_;
};

}  // namespace leat::store::swift

#endif  // LEAT_STORE_SWIFT_CLIENT_H_
