#include "store/object_store.h"

#include <algorithm>
#include <cstring>

#include "base/log.h"

namespace leat::store {

std::string NameOf(const Version& version) {
  if (!version.etag.empty()) return "etag \"" + Printable(version.etag) + "\"";
  if (!version.version_id.empty()) return "version " + Printable(version.version_id);
  return "no version";
}

bool SameVersion(const Version& wanted, const Version& now) {
  if (!wanted.version_id.empty() && !now.version_id.empty() &&
      wanted.version_id != now.version_id) {
    return false;
  }
  if (!wanted.etag.empty() && !now.etag.empty()) return wanted.etag == now.etag;
  if (!wanted.etag.empty()) return false;
  return wanted.version_id.empty() || wanted.version_id == now.version_id;
}

std::unexpected<Error> FailReplaced(const std::string& url, const Version& was,
                                    const Version& now) {
  const std::string to =
      !was.etag.empty() && !now.etag.empty() ? "\"" + Printable(now.etag) + "\"" : NameOf(now);
  return Fail(Errc::kConflict,
              url + " was replaced while it was read (" + NameOf(was) + " is now " + to + ")");
}

std::string ObjectStore::UrlOf(std::string_view key) const {
  std::string url(Describe());
  url += '/';
  url += Printable(key);
  return url;
}

Result<std::size_t> ReadInto(ObjectStore& store, std::string_view key, std::span<std::byte> out,
                             ReadOptions options, const CallContext& ctx) {
  std::size_t filled = 0;
  options.length = out.size();
  const Sink copy = [&](std::span<const std::byte> piece) -> Status {
    if (piece.size() > out.size() - filled) {
      return Fail(Errc::kCorrupt, store.UrlOf(key) + " sent more bytes than were asked for");
    }
    if (!piece.empty()) std::memcpy(out.data() + filled, piece.data(), piece.size());
    filled += piece.size();
    return {};
  };
  LEAT_RETURN_IF_ERROR(store.Read(key, options, copy, ctx));
  return filled;
}

}  // namespace leat::store
