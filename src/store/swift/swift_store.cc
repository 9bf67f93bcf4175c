#include "store/swift/swift_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <set>
#include <utility>

#include "base/bytes.h"
#include "base/log.h"
#include "base/text.h"
#include "digest/md5_lanes.h"
#include "net/url.h"
#include "store/http_answer.h"
#include "store/remove_together.h"
#include "store/swift/client.h"
#include "store/swift/json.h"

namespace leat::store::swift {
namespace {

constexpr std::size_t kPage = 10'000;  // a server's usual container_listing_limit
constexpr std::string_view kSegments = "_segments";

bool IsLarge(const net::HttpResponse& response) {
  return Lower(Header(response, "X-Static-Large-Object")) == "true" ||
         response.headers.Get("X-Object-Manifest").has_value();
}

ObjectInfo InfoOf(std::string_view key, const net::HttpResponse& response) {
  ObjectInfo info;
  info.key = key;
  info.version = VersionOf(response);
  info.modified = net::ParseHttpDate(Header(response, "Last-Modified"));
  info.in_parts = IsLarge(response);
  for (const auto& [name, value] : response.headers.fields()) {
    constexpr std::string_view kMeta = "x-object-meta-";
    std::string lower = Lower(name);
    if (lower.starts_with(kMeta)) info.metadata[lower.substr(kMeta.size())] = value;
  }
  return info;
}

/// The etag of a plain object is its MD5; a large object's is made of its segments'.
std::optional<digest::Expected> ExpectedOf(const net::HttpResponse& response) {
  const std::string etag = UnquoteEtag(Header(response, "ETag"));
  if (IsLarge(response) || etag.size() != 32 || !digest::CanHash(digest::Kind::kMd5))
    return std::nullopt;
  auto md5 = FromHex(etag);
  if (!md5) return std::nullopt;
  return digest::Expected{digest::Kind::kMd5, *std::move(md5)};
}

class SwiftStore final : public ObjectStore {
 public:
  SwiftStore(SwiftOptions options, auth::CredentialProvider& credentials, net::HttpTransport& http,
             Clock& clock)
      : options_(std::move(options)),
        name_("swift://" + options_.container),
        identity_(options_.account + " " + name_),
        client_(options_, credentials, http, clock),
        clock_(clock) {}

  std::string_view Describe() const override { return name_; }
  std::string_view Identity() const override { return identity_; }
  Capabilities capabilities() const override {
    return {.list = true,
            .ranges = true,
            .versions = true,
            .conditional_read = true,
            .put = true,
            .put_if_absent = true,
            .metadata = true,
            .copy = true,
            .buckets = true,
            .any_key = true};
  }

  Result<ObjectInfo> Stat(std::string_view key, std::string_view version_id,
                          const CallContext& ctx) override {
    LEAT_RETURN_IF_ERROR(CheckKey(key));
    LEAT_ASSIGN_OR_RETURN(
        const net::HttpResponse response,
        client_.Send({.method = "HEAD", .path = PathOf(key), .query = VersionQuery(version_id)},
                     key, ctx));
    if (!Ok(response)) return client_.Explain(key, response);
    LEAT_RETURN_IF_ERROR(client_.CheckIsSwift(response, key));
    const auto size = ParseDecimal(Header(response, "Content-Length"));
    if (!size) return Fail(Errc::kCorrupt, UrlOf(key) + ": the server did not say how large it is");
    ObjectInfo info = InfoOf(key, response);
    info.size = *size;
    info.expected = ExpectedOf(response);
    return info;
  }

  Status Read(std::string_view key, const ReadOptions& options, const Sink& sink,
              const CallContext& ctx) override {
    return Read(key, options, sink, ctx, /*conditional=*/true);
  }

  Status Read(std::string_view key, const ReadOptions& options, const Sink& sink,
              const CallContext& ctx, bool conditional) {
    LEAT_RETURN_IF_ERROR(CheckKey(key));
    RangeDelivery delivery(UrlOf(key), options);
    if (delivery.asks_nothing()) return ReadNothing(key, options, ctx);
    const Version& pin = options.if_version;
    Spec spec{.path = PathOf(key), .query = VersionQuery(pin.version_id)};
    delivery.AddHeader(spec.headers);
    if (conditional && !pin.etag.empty() && !pin.weak())
      spec.headers.Add("If-Match", QuoteEtag(pin.etag));
    spec.on_response = [&](const net::HttpResponse& response) -> Status {
      LEAT_RETURN_IF_ERROR(client_.CheckIsSwift(response, key));
      ObjectInfo info = InfoOf(key, response);
      if (!SameVersion(pin, info.version)) return FailReplaced(UrlOf(key), pin, info.version);
      LEAT_RETURN_IF_ERROR(delivery.Begin(response));
      if (!delivery.size())
        return Fail(Errc::kCorrupt, UrlOf(key) + ": the server did not say how large it is");
      info.size = *delivery.size();
      info.expected = ExpectedOf(response);
      return options.on_info ? options.on_info(info) : Status();
    };
    spec.sink = [&](std::span<const std::byte> piece) { return delivery.Take(piece, sink); };
    auto response = client_.Send(spec, key, ctx);
    if (!response && delivery.enough()) return {};
    if (!response) return std::unexpected(std::move(response).error());
    if (Ok(*response)) return delivery.End();
    if (response->status == 416) return ReadNothing(key, options, ctx);
    if (response->status == 412) {
      const auto now = Stat(key, pin.version_id, ctx);
      if (now && SameVersion(pin, now->version) && conditional) {
        // The copy that a server made of a large object is held to the etag that the large one
        // had. The answer's own etag tells as well.
        return Read(key, options, sink, ctx, /*conditional=*/false);
      }
      if (now) return FailReplaced(UrlOf(key), pin, now->version);
      return Fail(Errc::kConflict, UrlOf(key) + " was replaced while it was read (" + NameOf(pin) +
                                       " was asked for)");
    }
    return client_.Explain(key, *response);
  }

  Result<ListPage> List(std::string_view prefix, const ListOptions& options,
                        const CallContext& ctx) override {
    LEAT_RETURN_IF_ERROR(CheckContainer());
    // One more is asked for than is wanted: whether it is there tells whether this is the end.
    const std::size_t most = kPage - 1;
    const std::size_t wanted = options.max_keys == 0 ? most : std::min(options.max_keys, most);
    Spec spec{.path = net::PercentEncode(options_.container)};
    spec.query = fmt::format("format=json&limit={}", wanted + 1);
    if (!prefix.empty()) spec.query += "&prefix=" + net::PercentEncode(prefix);
    if (!options.start_after.empty())
      spec.query += "&marker=" + net::PercentEncode(options.start_after);
    LEAT_ASSIGN_OR_RETURN(net::HttpResponse response, client_.Send(spec, prefix, ctx));
    if (response.status == 412) {
      // Its own limit is lower: then that.
      const std::string limit = fmt::format("&limit={}", wanted + 1);
      spec.query.erase(spec.query.find(limit), limit.size());
      LEAT_ASSIGN_OR_RETURN(response, client_.Send(spec, prefix, ctx));
    }
    if (!Ok(response)) return client_.Explain("", response);
    if (response.status == 204) return ListPage{};
    auto listing = ParseListing(response.body);
    if (!listing) return Fail(std::move(listing), UrlOf(prefix));
    ListPage page;
    page.objects = std::move(listing->objects);
    std::string_view before = options.start_after;
    for (const ObjectInfo& info : page.objects) {
      if (!info.key.starts_with(prefix)) {
        return Fail(Errc::kCorrupt, UrlOf(prefix) + ": the listing has the key \"" +
                                        Printable(info.key) + "\" outside of it");
      }
      if (info.key <= before && !before.empty()) {
        return Fail(Errc::kCorrupt, UrlOf(prefix) + ": the listing is out of order at \"" +
                                        Printable(info.key) + "\"");
      }
      before = info.key;
    }
    // Servers have limits of their own, all of them round.
    page.truncated =
        page.objects.size() > wanted || (!page.objects.empty() && page.objects.size() % 100 == 0);
    if (page.objects.size() > wanted) page.objects.resize(wanted);
    if (page.truncated) page.next_after = page.objects.back().key;
    // A dynamic large object is listed without its size.
    for (const std::size_t i : listing->empty) {
      if (i >= page.objects.size()) break;
      auto whole = Stat(page.objects[i].key, "", ctx);
      if (!whole && whole.error().code() == Errc::kNotFound) continue;
      if (!whole) return std::unexpected(std::move(whole).error());
      page.objects[i].size = whole->size;
      page.objects[i].version.etag = whole->version.etag;
      page.objects[i].in_parts = whole->in_parts;
    }
    return page;
  }

  Result<Version> Put(std::string_view key, std::span<const std::byte> body,
                      const PutOptions& options, const CallContext& ctx) override {
    LEAT_RETURN_IF_ERROR(CheckKey(key));
    Spec spec{.method = "PUT", .path = PathOf(key), .body = body};
    AddMetadata(spec, options.metadata);
    if (options.if_absent) spec.headers.Add("If-None-Match", "*");
    return client_.PutBody(std::move(spec), key, ctx);
  }

  Status Remove(std::string_view key, const CallContext& ctx) override {
    LEAT_RETURN_IF_ERROR(CheckKey(key));
    // The segments of a large object go with it, and only whoever asks knows that it is one.
    LEAT_ASSIGN_OR_RETURN(const net::HttpResponse head,
                          client_.Send({.method = "HEAD", .path = PathOf(key)}, key, ctx));
    if (head.status == 404) return {};
    // (who may not look may be allowed to delete)
    if (!Ok(head) && head.status != 403) return client_.Explain(key, head);
    Spec spec{.method = "DELETE", .path = PathOf(key)};
    if (Lower(Header(head, "X-Static-Large-Object")) == "true") {
      spec.query = "multipart-manifest=delete";
      spec.stall_timeout = kServerWorks;
      spec.headers.Add("Accept", "application/json");
    }
    LEAT_ASSIGN_OR_RETURN(const net::HttpResponse response, client_.Send(spec, key, ctx));
    if (response.status == 404) return {};
    if (!Ok(response)) return client_.Explain(key, response);
    if (spec.query.empty()) return {};
    LEAT_ASSIGN_OR_RETURN(const BulkDelete done, ParseBulkDelete(response.body));
    if (done.refused.starts_with("404")) return {};
    std::string wrong = done.refused;
    for (const auto& [name, why] : done.errors) wrong = Printable(name + ": " + why);
    if (wrong.empty()) return {};
    return Fail(Errc::kUnavailable,
                UrlOf(key) + " was not removed with all its segments: " + wrong);
  }

  // A server's usual max_deletes_per_request is 10,000; it stops after 1,000 that failed.
  std::size_t max_removals() const override { return removes_many_ ? 1000 : 1; }

  std::vector<Status> RemoveMany(std::span<const Removal> removals,
                                 const CallContext& ctx) override {
    return RemoveTogether(
        *this, removals,
        [&](const Removal& removal) {
          // (a name of slashes alone would be the container's)
          return !removal.in_parts && CheckKey(removal.key) &&
                 removal.key.find_first_not_of('/') != std::string::npos;
        },
        [&](std::span<const std::string_view> keys) { return DeleteObjects(keys, ctx); }, ctx);
  }

  // https://docs.openstack.org/swift/latest/overview_large_objects.html
  UploadLimits upload_limits() const override {
    return {.max_put = 5 * kGiB, .min_part = kMiB, .max_part = 5 * kGiB, .max_parts = 1000};
  }

  Result<std::string> BeginUpload(std::string_view key, const PutOptions&,
                                  const CallContext& ctx) override {
    LEAT_RETURN_IF_ERROR(CheckKey(key));
    // Nothing is begun at the server but the place. As rclone lays it out: a time makes it unique.
    LEAT_ASSIGN_OR_RETURN(
        const net::HttpResponse container,
        client_.Send({.method = "HEAD", .path = net::PercentEncode(options_.container)}, "", ctx));
    if (container.status == 404) return client_.Explain("", container);
    LEAT_RETURN_IF_ERROR(MakeContainer(SegmentsContainer(), ctx));
    const auto ns =
        std::chrono::duration_cast<std::chrono::nanoseconds>(clock_.Now().time_since_epoch())
            .count();
    return fmt::format("{}.{:09}", ns / 1'000'000'000, ns % 1'000'000'000);
  }

  Result<Part> PutPart(std::string_view key, std::string_view upload, std::size_t number,
                       std::span<const std::byte> body, const CallContext& ctx) override {
    Spec spec{.method = "PUT", .path = SegmentPath(key, upload, number), .body = body};
    LEAT_ASSIGN_OR_RETURN(const Version version, client_.PutBody(std::move(spec), key, ctx));
    return Part{number, body.size(), version.etag};
  }

  Result<std::vector<Part>> UploadedParts(std::string_view key, std::string_view upload,
                                          const CallContext& ctx) override {
    const std::string prefix = fmt::format("{}/{}/", key, upload);
    Spec spec{.path = net::PercentEncode(SegmentsContainer())};
    spec.query = fmt::format("format=json&limit={}&prefix={}", kPage, net::PercentEncode(prefix));
    LEAT_ASSIGN_OR_RETURN(const net::HttpResponse response, client_.Send(spec, key, ctx));
    if (!Ok(response)) return client_.Explain("", response);
    std::vector<Part> parts;
    if (response.status == 204) return parts;
    auto listing = ParseListing(response.body);
    if (!listing) return Fail(std::move(listing), UrlOf(key));
    for (const ObjectInfo& info : listing->objects) {
      if (!info.key.starts_with(prefix)) continue;
      const auto number = ParseDecimal(std::string_view(info.key).substr(prefix.size()));
      if (number) parts.push_back({*number, info.size, info.version.etag});
    }
    return parts;
  }

  Result<Version> CompleteUpload(std::string_view key, std::string_view upload,
                                 std::span<const Part> parts, const PutOptions& options,
                                 const CallContext& ctx) override {
    std::vector<Segment> segments;
    std::string etags;
    for (const Part& part : parts) {
      segments.push_back(
          {fmt::format("/{}/{}/{}/{:08}", SegmentsContainer(), key, upload, part.number), part.etag,
           part.size});
      etags += part.etag;
    }
    const std::string manifest = WriteManifest(segments);
    Spec spec{.method = "PUT",
              .path = PathOf(key),
              .query = "multipart-manifest=put",
              .body = AsBytes(manifest)};
    AddMetadata(spec, options.metadata);
    if (options.if_absent) spec.headers.Add("If-None-Match", "*");
    spec.stall_timeout = kServerWorks;
    // The server checks each segment against the manifest, and all of them against this.
    spec.headers.Add("ETag", ToHex(AsBytes(digest::Md5(AsBytes(etags)))));
    LEAT_ASSIGN_OR_RETURN(const net::HttpResponse response, client_.Send(spec, key, ctx));
    if (response.status == 412 && options.if_absent)
      return Fail(Errc::kConflict, UrlOf(key) + " exists already");
    if (!Ok(response)) return client_.Explain(response.status == 404 ? "" : key, response);
    return VersionOf(response);
  }

  Status AbortUpload(std::string_view key, std::string_view upload,
                     const CallContext& ctx) override {
    // It may have been completed, and the answer lost: then its segments are the object's.
    LEAT_ASSIGN_OR_RETURN(const auto manifest, ManifestOf(key, {}, ctx));
    if (manifest && manifest->dynamic.empty()) {
      LEAT_ASSIGN_OR_RETURN(const auto names, ParseManifestNames(manifest->body));
      const std::string ours = fmt::format("/{}/{}/{}/", SegmentsContainer(), key, upload);
      for (const std::string& name : names) {
        if (name.starts_with(ours)) return {};
      }
    }
    const auto parts = UploadedParts(key, upload, ctx);
    if (!parts && parts.error().code() == Errc::kNotFound) return {};
    if (!parts) return std::unexpected(parts.error());
    for (const Part& part : *parts) {
      LEAT_ASSIGN_OR_RETURN(
          const net::HttpResponse response,
          client_.Send({.method = "DELETE", .path = SegmentPath(key, upload, part.number)}, key,
                       ctx));
      if (!Ok(response) && response.status != 404) return client_.Explain(key, response);
    }
    return {};
  }

  Result<std::vector<PartDigest>> PartDigests(std::string_view key, const Version& version,
                                              const CallContext& ctx) override {
    LEAT_RETURN_IF_ERROR(CheckKey(key));
    LEAT_ASSIGN_OR_RETURN(const auto manifest, ManifestOf(key, version, ctx));
    if (!manifest) return Fail(Errc::kUnsupported, UrlOf(key) + " has no segments");
    if (!manifest->dynamic.empty())
      return DynamicParts(key, net::PercentDecode(manifest->dynamic), ctx);
    auto parts = ParseManifest(manifest->body);
    if (!parts) return Fail(std::move(parts), UrlOf(key));
    return parts;
  }

  Result<Version> CopyFrom(std::string_view bucket, std::string_view source,
                           const Version& if_version, std::string_view key,
                           const CallContext& ctx) override {
    LEAT_RETURN_IF_ERROR(CheckKey(key));
    Spec spec{.method = "PUT", .path = PathOf(key)};
    spec.headers.Add("X-Copy-From",
                     "/" + net::PercentEncode(bucket) + "/" + net::PercentEncode(source, true));
    if (!if_version.version_id.empty()) spec.query = VersionQuery(if_version.version_id);
    spec.stall_timeout = kServerWorks;
    LEAT_ASSIGN_OR_RETURN(const net::HttpResponse response, client_.Send(spec, key, ctx));
    if (!Ok(response)) return client_.Explain(key, response);
    const Version made = VersionOf(response);
    // Some servers' copy of a large object names the same segments, which go with either of them.
    LEAT_ASSIGN_OR_RETURN(const net::HttpResponse there,
                          client_.Send({.method = "HEAD", .path = PathOf(key)}, key, ctx));
    if (Ok(there) && IsLarge(there))
      return Fail(Errc::kUnsupported, UrlOf(key) + ": the server's copy shares its segments");
    if (if_version.etag.empty() || made.etag == if_version.etag) return made;
    // The source's etag is not a condition that the server takes, and the copy of a large object
    // has one of its own.
    const std::string from = net::PercentEncode(bucket) + "/" + net::PercentEncode(source, true);
    LEAT_ASSIGN_OR_RETURN(
        const net::HttpResponse now,
        client_.Send({.method = "HEAD", .path = from, .query = VersionQuery(if_version.version_id)},
                     key, ctx));
    if (Ok(now) && IsLarge(now) && VersionOf(now).etag == if_version.etag) return made;
    return Fail(Errc::kConflict, "swift://" + std::string(bucket) + "/" + Printable(source) +
                                     " was replaced meanwhile");
  }

  Status MakeBucket(const CallContext& ctx) override {
    LEAT_RETURN_IF_ERROR(CheckContainer());
    return MakeContainer(options_.container, ctx);
  }

  Status RemoveBucket(const CallContext& ctx) override {
    LEAT_RETURN_IF_ERROR(CheckContainer());
    LEAT_ASSIGN_OR_RETURN(
        const net::HttpResponse response,
        client_.Send({.method = "DELETE", .path = net::PercentEncode(options_.container)}, "",
                     ctx));
    if (Ok(response) || response.status == 404) {
      // Where its large objects' segments lay, if that is empty too.
      (void)client_.Send({.method = "DELETE", .path = net::PercentEncode(SegmentsContainer())}, "",
                         ctx);
      return {};
    }
    if (response.status == 409) return Fail(Errc::kConflict, name_ + " is not empty");
    return client_.Explain("", response);
  }

  Result<std::vector<BucketInfo>> Buckets(const CallContext& ctx) override {
    std::vector<BucketInfo> all;
    for (;;) {
      Spec spec{.query = fmt::format("format=json&limit={}", kPage)};
      if (!all.empty()) spec.query += "&marker=" + net::PercentEncode(all.back().name);
      LEAT_ASSIGN_OR_RETURN(const net::HttpResponse response, client_.Send(spec, "", ctx));
      if (!Ok(response)) return client_.Explain("", response);
      if (response.status == 204) return all;
      auto page = ParseContainers(response.body);
      if (!page) return Fail(std::move(page), options_.account);
      if (page->empty()) return all;
      if (!all.empty() && page->front().name <= all.back().name)
        return Fail(Errc::kCorrupt, options_.account + ": the list of containers does not go on");
      std::ranges::move(*page, std::back_inserter(all));
    }
  }

 private:
  Status CheckContainer() const {
    if (options_.container.empty()) return Fail(Errc::kInvalid, "swift://: name a container");
    return {};
  }
  Status CheckKey(std::string_view key) const {
    if (key.empty()) return Fail(Errc::kInvalid, name_ + ": a key must not be empty");
    return CheckContainer();
  }

  std::string PathOf(std::string_view key) const {
    return net::PercentEncode(options_.container) + "/" + net::PercentEncode(key, true);
  }
  std::string SegmentsContainer() const { return options_.container + std::string(kSegments); }
  std::string SegmentPath(std::string_view key, std::string_view upload, std::size_t number) const {
    return net::PercentEncode(SegmentsContainer()) + "/" + net::PercentEncode(key, true) +
           fmt::format("/{}/{:08}", upload, number);
  }
  static std::string VersionQuery(std::string_view version_id) {
    return version_id.empty() ? "" : "version-id=" + net::PercentEncode(version_id);
  }
  static void AddMetadata(Spec& spec, const Metadata& metadata) {
    for (const auto& [name, value] : metadata) spec.headers.Add("X-Object-Meta-" + name, value);
  }

  struct Manifest {
    std::string body;     ///< of a static large object
    std::string dynamic;  ///< of a dynamic one: where its segments lie, encoded
  };
  /// nullopt for what is no large object, or not there.
  Result<std::optional<Manifest>> ManifestOf(std::string_view key, const Version& version,
                                             const CallContext& ctx) {
    Spec spec{.path = PathOf(key), .query = "multipart-manifest=get&format=json"};
    if (!version.version_id.empty()) spec.query += "&" + VersionQuery(version.version_id);
    Manifest manifest;
    bool plain = false;
    spec.on_response = [&](const net::HttpResponse& response) -> Status {
      manifest.dynamic = Header(response, "X-Object-Manifest");
      plain = !IsLarge(response);
      return plain ? Fail(Errc::kUnsupported, "") : Status();  // its bytes are not wanted
    };
    spec.sink = [&](std::span<const std::byte> piece) -> Status {
      if (manifest.body.size() + piece.size() > 64 * kMiB)
        return Fail(Errc::kCorrupt, UrlOf(key) + ": the manifest does not end");
      manifest.body += AsText(piece);
      return {};
    };
    auto response = client_.Send(spec, key, ctx);
    if (plain) return std::optional<Manifest>();
    if (!response) return std::unexpected(std::move(response).error());
    if (response->status == 404) return std::optional<Manifest>();
    if (!Ok(*response)) return client_.Explain(key, *response);
    return std::optional(std::move(manifest));
  }

  /// `place`: "container/prefix"; whatever begins so is a part, in order.
  Result<std::vector<PartDigest>> DynamicParts(std::string_view key, std::string_view place,
                                               const CallContext& ctx) {
    const std::size_t slash = std::min(place.find('/'), place.size());
    const std::string_view prefix = place.substr(std::min(slash + 1, place.size()));
    Spec spec{.path = net::PercentEncode(place.substr(0, slash))};
    spec.query = fmt::format("format=json&limit={}&prefix={}", kPage, net::PercentEncode(prefix));
    LEAT_ASSIGN_OR_RETURN(const net::HttpResponse response, client_.Send(spec, key, ctx));
    if (!Ok(response)) return client_.Explain(key, response);
    auto listing = ParseListing(response.body);
    if (!listing) return Fail(std::move(listing), UrlOf(key));
    std::vector<PartDigest> parts;
    for (const ObjectInfo& info : listing->objects) {
      if (info.size == 0) continue;
      auto md5 = FromHex(info.version.etag);
      if (info.in_parts || !md5 || md5->size() != 16)
        return Fail(Errc::kUnsupported, UrlOf(key) + ": a segment has no digest of its own");
      parts.push_back({info.size, *std::move(md5)});
    }
    return parts;
  }

  /// What was not removed. kUnsupported where the server does not know the request, or does not
  /// account for each object.
  Result<std::set<std::string>> DeleteObjects(std::span<const std::string_view> keys,
                                              const CallContext& ctx) {
    std::string names;
    for (const std::string_view key : keys) names += "/" + PathOf(key) + "\n";
    Spec spec{.method = "POST", .query = "bulk-delete", .body = AsBytes(names)};
    spec.headers.Add("Content-Type", "text/plain");
    spec.headers.Add("Accept", "application/json");
    spec.stall_timeout = kServerWorks;
    LEAT_ASSIGN_OR_RETURN(const net::HttpResponse response, client_.Send(spec, "", ctx));
    if (response.status == 408 || response.status == 429 || response.status >= 500)
      return client_.Explain("", response);
    const Result<BulkDelete> done = ParseBulkDelete(response.body);
    if (!Ok(response) || !done || done->refused.starts_with("4")) {
      removes_many_ = false;
      return Fail(Errc::kUnsupported, name_ + ": several objects cannot be removed at once");
    }
    if (!done->refused.empty())
      return Fail(Errc::kUnavailable, name_ + ": objects were not removed: " + done->refused);
    std::set<std::string> refused;
    const std::string container = "/" + options_.container + "/";
    for (const auto& [name, why] : done->errors)
      refused.insert(name.starts_with(container) ? name.substr(container.size()) : name);
    if (done->gone + refused.size() < keys.size())
      return Fail(Errc::kUnsupported, name_ + ": the server does not tell of each object");
    return refused;
  }

  Status MakeContainer(const std::string& container, const CallContext& ctx) {
    Spec spec{.method = "PUT", .path = net::PercentEncode(container)};
    if (!options_.storage_policy.empty())
      spec.headers.Add("X-Storage-Policy", options_.storage_policy);
    LEAT_ASSIGN_OR_RETURN(const net::HttpResponse response, client_.Send(spec, "", ctx));
    return Ok(response) ? Status() : client_.Explain("", response);
  }

  Status ReadNothing(std::string_view key, const ReadOptions& options, const CallContext& ctx) {
    LEAT_ASSIGN_OR_RETURN(const ObjectInfo info, Stat(key, options.if_version.version_id, ctx));
    if (!SameVersion(options.if_version, info.version))
      return FailReplaced(UrlOf(key), options.if_version, info.version);
    if (options.length > 0 && options.offset < info.size) {
      return Fail(Errc::kUnavailable,
                  fmt::format("{}: the server says that there is nothing at byte {} of {}",
                              UrlOf(key), options.offset, info.size));
    }
    return options.on_info ? options.on_info(info) : Status();
  }

  const SwiftOptions options_;
  const std::string name_, identity_;
  Client client_;
  Clock& clock_;
  std::atomic<bool> removes_many_{true};
};

}  // namespace

Result<std::unique_ptr<ObjectStore>> MakeSwiftStore(SwiftOptions options,
                                                    auth::CredentialProvider& credentials,
                                                    net::HttpTransport& http, Clock& clock) {
  if (options.container.find('/') != std::string::npos || options.container.size() > 256)
    return Fail(Errc::kInvalid, "swift://" + Printable(options.container) +
                                    ": a container's name has no \"/\" and at most 256 bytes");
  return std::make_unique<SwiftStore>(std::move(options), credentials, http, clock);
}

}  // namespace leat::store::swift
