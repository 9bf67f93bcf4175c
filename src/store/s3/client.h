// Requests to one bucket: signed, sent to the right region at the right time with credentials that
// are good.
#ifndef LEAT_STORE_S3_CLIENT_H_
#define LEAT_STORE_S3_CLIENT_H_

#include <chrono>
#include <functional>
#include <mutex>
#include <span>
#include <string>
#include <string_view>

#include "auth/credentials.h"
#include "auth/sigv4.h"
#include "base/clock.h"
#include "net/http_client.h"
#include "store/object_store.h"
#include "store/s3/endpoint.h"
#include "store/s3/explain.h"
#include "store/s3/s3_store.h"

namespace leat::store::s3 {

/// A request before it has a host, a time and a signature.
struct Spec {
  std::string method = "GET";
  std::string key = {};  ///< empty: the bucket
  std::string version_id = {};
  std::string query = {};
  net::Headers headers = {};
  std::span<const std::byte> body = {};
  std::string payload_sha256 = std::string(auth::kEmptyPayloadSha256);
  std::function<Status(const net::HttpResponse&)> on_response = {};
  Sink sink = {};
  std::chrono::seconds stall_timeout{20};
};

/// An answer, and for what is no success the store's words for it.
struct Answer {
  net::HttpResponse response;
  S3Error error = {};
  Asked asked = {};

  bool ok() const { return response.status >= 200 && response.status < 300; }
  std::unexpected<Error> Failure() const {
    return std::unexpected(Explain(asked, response, error));
  }
};

std::string Header(const net::HttpResponse& response, std::string_view name);

/// Thread-safe. What answers teach (region, clock) is kept.
class S3Client {
 public:
  S3Client(S3Options options, Endpoint endpoint, auth::CredentialProvider& credentials,
           net::HttpTransport& http, Clock& clock)
      : options_(std::move(options)),
        name_("s3://" + options_.bucket),
        identity_(endpoint.Name() + " " + name_),
        credentials_(credentials),
        http_(http),
        clock_(clock),
        endpoint_(std::move(endpoint)) {}

  const std::string& name() const { return name_; }          ///< "s3://bucket"
  const std::string& identity() const { return identity_; }  ///< behind the server's
  const std::string& bucket() const { return options_.bucket; }
  std::string ServerName() const { return identity_.substr(0, identity_.find(' ')); }
  std::string region();
  bool encrypted();

  /// One request; a second one where the first taught us the region, the time, or that the
  /// credentials are too old. Errors begin with the object's URL.
  Result<Answer> Send(const Spec& spec, const CallContext& ctx);

 private:
  using Time = std::chrono::system_clock;

  std::string UrlOf(std::string_view key) const;
  Result<Answer> Perform(const Spec& spec, const auth::Credentials& credentials,
                         const Endpoint& endpoint, const std::string& url, const CallContext& ctx);
  Status AskWhy(const Spec& spec, const auth::Credentials& credentials, const Endpoint& endpoint,
                Answer& answer, const CallContext& ctx);
  bool SwitchRegion(const Endpoint& asked, const Answer& answer);
  bool CorrectClock(const net::HttpResponse& response, Time::duration used);
  Time::duration ClockCorrection();
  Time::time_point Now();
  Endpoint CurrentEndpoint();

  const S3Options options_;
  const std::string name_, identity_;
  auth::CredentialProvider& credentials_;
  net::HttpTransport& http_;
  Clock& clock_;

  /// Guards what answers have taught us.
  std::mutex mutex_;
  Endpoint endpoint_;
  Time::duration clock_correction_{0};
};

}  // namespace leat::store::s3

#endif  // LEAT_STORE_S3_CLIENT_H_
