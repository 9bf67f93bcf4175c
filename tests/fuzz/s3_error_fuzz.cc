// The parser of S3's error documents, and what is said about them: no input may crash it or bring
// control characters into a message.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "store/s3/explain.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  leat::net::HttpResponse response;
  response.status = size > 0 ? 300 + data[0] : 400;
  response.body.assign(reinterpret_cast<const char*>(data) + (size > 0), size - (size > 0));
  leat::store::s3::Asked asked;
  asked.url = "s3://b/k";
  asked.bucket = "b";
  asked.server = "https://host";
  const auto error = leat::store::s3::Explain(asked, response, leat::store::s3::ErrorOf(response));
  if (!error.message().starts_with("s3://b/k")) std::abort();
  for (const char c : error.message()) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) std::abort();
  }
  (void)leat::store::s3::ParseDeleteErrors(response.body);
  return 0;
}
