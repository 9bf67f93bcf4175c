// Requests to the service: with a token, and with its errors told in sentences. Private to this
// folder.
#ifndef LEAT_STORE_GCS_CLIENT_H_
#define LEAT_STORE_GCS_CLIENT_H_

#include <chrono>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "store/gcs/gcs_store.h"
#include "store/gcs/json.h"

namespace leat::store::gcs {

/// What the service does by itself before it answers takes as long as it takes.
inline constexpr std::chrono::seconds kServerWorks{900};

/// A request before it has a host and a token.
struct Spec {
  std::string method = "GET";
  std::string path = {};   ///< encoded; begins with '/'
  std::string query = {};  ///< encoded
  net::Headers headers = {};
  std::span<const std::byte> body = {};
  std::function<Status(const net::HttpResponse&)> on_response = {};
  Sink sink = {};
  std::chrono::seconds stall_timeout{20};
};

inline bool Ok(const net::HttpResponse& response) { return response.status / 100 == 2; }

/// Thread-safe.
class Client {
 public:
  Client(const GcsOptions& options, auth::CredentialProvider& credentials, net::HttpTransport& http,
         Clock& clock);

  /// One request for the object or bucket `url`; a second one where the token was not taken.
  Result<net::HttpResponse> Send(const Spec& spec, const std::string& url, const CallContext& ctx);
  /// The bytes of a new object, whose CRC32C the service is told and asked. kConflict: `if_absent`,
  /// and it is there.
  Result<Resource> Upload(std::string_view name, std::span<const std::byte> body,
                          const PutOptions& options, const std::string& url,
                          const CallContext& ctx);
  /// Why the service did not do it. `what` is missing where it says 404.
  std::unexpected<Error> Explain(const std::string& url, const net::HttpResponse& response,
                                 std::string_view what = "object");

 private:
  Result<net::HttpResponse> UploadAtOnce(std::string_view resource, std::span<const std::byte> body,
                                         std::string query, const std::string& url,
                                         const CallContext& ctx);
  Result<net::HttpResponse> UploadResumably(std::string_view resource,
                                            std::span<const std::byte> body, std::string query,
                                            const std::string& url, const CallContext& ctx);
  Result<net::HttpResponse> PutSession(const std::string& session, std::uint64_t from,
                                       std::span<const std::byte> body, bool ask,
                                       const std::string& url, const CallContext& ctx);

  const GcsOptions& options_;
  const std::string user_project_;
  const bool in_the_clear_;  ///< what is sent goes through a network as it is
  auth::CredentialProvider& credentials_;
  net::HttpTransport& http_;
  Clock& clock_;
};

}  // namespace leat::store::gcs

#endif  // LEAT_STORE_GCS_CLIENT_H_
