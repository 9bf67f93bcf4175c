#include "net/http_errors.h"

#include <curl/curl.h>
#include <fmt/format.h>
#include <openssl/x509_vfy.h>

#include <cerrno>
#include <cstring>

namespace leat::net {
namespace {

std::string PeerOf(const Url& url) { return fmt::format("{}:{}", url.host, url.EffectivePort()); }

std::string ExplainBreak(const FailedTransfer& failed) {
  const std::string peer = PeerOf(failed.url);
  const std::string_view how = failed.os_error == ECONNRESET ? " (it was reset)" : "";
  if (failed.headers == nullptr) {
    return failed.bytes == 0
               ? fmt::format("{} closed the connection without an answer{}", peer, how)
               : fmt::format("the connection to {} broke in the headers of the answer{}", peer,
                             how);
  }
  const auto length = failed.headers->Get("Content-Length");
  return length ? fmt::format("the connection to {} broke after {} of {} bytes{}", peer,
                              failed.body_bytes, *length, how)
                : fmt::format("the connection to {} broke after {} bytes{}", peer,
                              failed.body_bytes, how);
}

// libcurl's text names whom it could not reach: "Failed to connect to 10.0.0.1 port 3128 after
// ...".
std::string ExplainConnect(const FailedTransfer& failed) {
  std::string whom = PeerOf(failed.url);
  constexpr std::string_view kBegin = "Failed to connect to ", kPort = " port ";
  const std::string_view text = failed.text;
  const auto port = text.find(kPort);
  if (text.starts_with(kBegin) && port != text.npos) {
    const std::string_view number = text.substr(port + kPort.size());
    std::string tried(text.substr(kBegin.size(), port - kBegin.size()));
    if (tried.find(':') != tried.npos && !tried.starts_with('[')) tried = "[" + tried + "]";
    tried += fmt::format(":{}", number.substr(0, number.find(' ')));
    if (tried != whom) whom = fmt::format("the proxy {}", tried);
  }
  switch (failed.os_error) {
    case 0:
      return fmt::format("could not connect to {}", whom);
    case ECONNREFUSED:
      return fmt::format("connection refused by {}", whom);
    case ENETUNREACH:
    case EHOSTUNREACH:
      return fmt::format("there is no route to {}", whom);
    case ETIMEDOUT:
      return fmt::format("{} did not answer", whom);
    default:
      return fmt::format("could not connect to {} ({})", whom,
                         std::strerror(static_cast<int>(failed.os_error)));
  }
}

std::string ExplainCertificate(const FailedTransfer& failed) {
  const std::string& host = failed.url.host;
  if (failed.text.find("subject name") != failed.text.npos) {
    return fmt::format("the certificate that {} shows was made out to another name", host);
  }
  switch (failed.verify_result) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
      return fmt::format("the certificate of {} has expired", host);
    case X509_V_ERR_CERT_NOT_YET_VALID:
      return fmt::format("the certificate of {} is not valid yet; is this machine's clock right?",
                         host);
    case X509_V_ERR_CERT_REVOKED:
      return fmt::format("the certificate of {} was revoked", host);
    default:
      return fmt::format(
          "the certificate of {} is not trusted (unknown authority); name its CA in SSL_CERT_FILE "
          "(for s3:// also AWS_CA_BUNDLE or a profile's ca_bundle)",
          host);
  }
}

}  // namespace

std::string FormatSeconds(std::chrono::milliseconds time) {
  return time.count() % 1000 == 0
             ? fmt::format("{} s", time.count() / 1000)
             : fmt::format("{:.1f} s", static_cast<double>(time.count()) / 1000);
}

Error ExplainFailure(const FailedTransfer& failed) {
  const std::string peer = PeerOf(failed.url);
  const auto says = [&](std::string_view text) {
    return failed.text.find(text) != failed.text.npos;
  };
  if (says("CONNECT")) {  // "Received HTTP code 403 from proxy after CONNECT"
    return {Errc::kUnavailable, fmt::format("the proxy refused a connection to {}", peer)};
  }
  switch (failed.code) {
    case CURLE_COULDNT_RESOLVE_HOST:
      return {Errc::kUnavailable, fmt::format("could not resolve host {}", failed.url.host)};
    case CURLE_COULDNT_RESOLVE_PROXY:
      return {Errc::kUnavailable,
              "could not resolve the proxy's name (see http_proxy, https_proxy, all_proxy)"};
    case CURLE_COULDNT_CONNECT:
      return {Errc::kUnavailable, ExplainConnect(failed)};
    case CURLE_OPERATION_TIMEDOUT:
      return {Errc::kUnavailable, failed.connected
                                      ? fmt::format("{} did not answer in time", peer)
                                      : fmt::format("no connection to {} within {}", peer,
                                                    FormatSeconds(failed.request.connect_timeout))};
    case CURLE_GOT_NOTHING:
    case CURLE_PARTIAL_FILE:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
      return {Errc::kUnavailable, ExplainBreak(failed)};
    case CURLE_UNSUPPORTED_PROTOCOL:  // "Received HTTP/0.9 when not allowed"
    case CURLE_WEIRD_SERVER_REPLY:
      return {Errc::kUnavailable, fmt::format("{} does not answer in HTTP", peer)};
    case CURLE_PEER_FAILED_VERIFICATION:
      return {Errc::kInvalid, ExplainCertificate(failed)};
    case CURLE_SSL_CACERT_BADFILE:
      return {Errc::kInvalid, fmt::format("the file of certificate authorities {} cannot be used",
                                          failed.request.ca_file.empty() ? "of this system"
                                                                         : failed.request.ca_file)};
    case CURLE_SSL_CONNECT_ERROR:
      if (says("wrong version number") || says("packet length too long")) {
        return {Errc::kInvalid,
                fmt::format("{} does not speak TLS; is it an http:// address?", peer)};
      }
      return {Errc::kUnavailable, fmt::format("{} broke off the TLS handshake", peer)};
    case CURLE_URL_MALFORMAT:
      return {Errc::kInvalid,
              fmt::format("libcurl cannot use the URL {}", failed.url.ForMessages())};
    case CURLE_OUT_OF_MEMORY:
      return {Errc::kInternal, "libcurl has no memory"};
    default:
      return {Errc::kUnavailable,
              fmt::format("the request to {} failed: {}", peer, failed.code_text)};
  }
}

}  // namespace leat::net
