// Objects on web servers, one a URL.
#ifndef LEAT_STORE_HTTP_HTTP_STORE_H_
#define LEAT_STORE_HTTP_HTTP_STORE_H_

#include <memory>
#include <string>

#include "net/http_client.h"
#include "store/object_store.h"

namespace leat::store::http {

struct HttpOptions {
  std::string origin = {};   ///< "https://host:port": what lies before the path
  std::string ca_file = {};  ///< empty: the system's
};

/// The key is what follows the origin's '/' in the URL, query included, as it is written. Cannot
/// list or write. ETag, else Last-Modified ("lm:" + the header's text), is the version. A server
/// without ranges answers 200: the bytes before the offset are then read and dropped. Redirects are
/// followed. `http` outlives it.
Result<std::unique_ptr<ObjectStore>> MakeHttpStore(HttpOptions options, net::HttpTransport& http);

}  // namespace leat::store::http

#endif  // LEAT_STORE_HTTP_HTTP_STORE_H_
