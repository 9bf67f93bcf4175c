// Why a transfer failed: a code to branch on and a sentence that names the host.
#ifndef LEAT_NET_HTTP_ERRORS_H_
#define LEAT_NET_HTTP_ERRORS_H_

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"
#include "net/http_client.h"
#include "net/url.h"

namespace leat::net {

/// What is known of a transfer that libcurl gave up.
struct FailedTransfer {
  int code = 0;                      ///< CURLcode
  std::string_view text = {};        ///< libcurl's error buffer
  std::string code_text = {};        ///< libcurl's words for the code
  long os_error = 0;                 ///< errno of the last connect or transfer, 0 if none
  long verify_result = 0;            ///< OpenSSL's X509_V_...
  bool connected = false;            ///< there was a connection, TLS and all
  const Headers* headers = nullptr;  ///< of the answer, if they were complete
  std::uint64_t bytes = 0;           ///< that arrived, headers too
  std::uint64_t body_bytes = 0;
  const HttpRequest& request;
  const Url& url;
};
/// Never a secret: libcurl's own text may hold a URL and is only searched, not shown.
Error ExplainFailure(const FailedTransfer& failed);

/// "20 s", "1.5 s".
std::string FormatSeconds(std::chrono::milliseconds time);

}  // namespace leat::net

#endif  // LEAT_NET_HTTP_ERRORS_H_
