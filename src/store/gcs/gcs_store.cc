#include "store/gcs/gcs_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <utility>

#include "base/log.h"
#include "base/text.h"
#include "base/thread_pool.h"
#include "digest/digest.h"
#include "net/url.h"
#include "store/gcs/client.h"
#include "store/gcs/json.h"
#include "store/http_answer.h"

namespace leat::store::gcs {
namespace {

constexpr std::size_t kPage = 1000;  // the service's own limit
constexpr std::size_t kMostComponents = 32;
constexpr std::size_t kSideBySide = 16;
// Where the parts of uploads under way lie; what sorts next after all of them begins with kBeyond.
constexpr std::string_view kUploads = ".leat-uploads/";
constexpr std::string_view kBeyond = ".leat-uploads0";
constexpr std::string_view kListed =
    "nextPageToken,items(name,size,generation,updated,crc32c,md5Hash)";

std::string Header(const net::HttpResponse& response, std::string_view name) {
  return std::string(response.headers.Get(name).value_or(""));
}

/// As a number that the service takes; what is none was never an object's.
std::optional<std::uint64_t> GenerationOf(const Version& version) {
  const auto number = ParseDecimal(version.version_id.empty() ? version.etag : version.version_id);
  return number && *number <= INT64_MAX ? number : std::nullopt;
}

/// What an answer of the XML API tells of its object.
Resource ResourceOf(std::string_view key, const net::HttpResponse& response) {
  Resource object;
  object.info.key = key;
  object.info.version.etag = Header(response, "x-goog-generation");
  object.info.modified = net::ParseHttpDate(Header(response, "Last-Modified"));
  Metadata theirs;
  for (const auto& [name, value] : response.headers.fields()) {
    constexpr std::string_view kMeta = "x-goog-meta-";
    const std::string lower = Lower(name);
    if (lower.starts_with(kMeta)) theirs[lower.substr(kMeta.size())] = value;
    if (lower == "x-goog-hash") ReadHashHeader(value, object);
  }
  object.info.metadata = FromService(theirs, &object.upload);
  SetExpected(object);
  return object;
}

class GcsStore final : public ObjectStore {
 public:
  GcsStore(GcsOptions options, auth::CredentialProvider& credentials, net::HttpTransport& http,
           Clock& clock)
      : options_(std::move(options)),
        name_("gs://" + options_.bucket),
        identity_(options_.endpoint + " " + name_),
        client_(options_, credentials, http, clock),
        clock_(clock) {}

  std::string_view Describe() const override { return name_; }
  std::string_view Identity() const override { return identity_; }
  Capabilities capabilities() const override {
    return {.list = true,
            .ranges = true,
            .versions = true,
            .list_versions = true,
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
    LEAT_ASSIGN_OR_RETURN(Resource object, Look(key, version_id, ctx));
    return std::move(object.info);
  }

  Status Read(std::string_view key, const ReadOptions& options, const Sink& sink,
              const CallContext& ctx) override {
    LEAT_RETURN_IF_ERROR(CheckKey(key));
    RangeDelivery delivery(UrlOf(key), options);
    if (delivery.asks_nothing()) return ReadNothing(key, options, ctx);
    const Version& pin = options.if_version;
    Spec spec{.path = fmt::format("/{}/{}", net::PercentEncode(options_.bucket),
                                  net::PercentEncode(key, true))};
    if (!pin.empty()) {
      const auto generation = GenerationOf(pin);
      if (!generation) return FailGone(key, pin, ctx);
      spec.query = fmt::format("generation={}", *generation);
    }
    delivery.AddHeader(spec.headers);
    // What is stored compressed comes as it is stored: of these bytes are size and digests.
    spec.headers.Add("Accept-Encoding", "gzip");
    spec.on_response = [&](const net::HttpResponse& response) -> Status {
      LEAT_RETURN_IF_ERROR(CheckIsGoogle(response, key));
      Resource object = ResourceOf(key, response);
      if (!pin.version_id.empty()) object.info.version.version_id = object.info.version.etag;
      if (!SameVersion(pin, object.info.version))
        return FailReplaced(UrlOf(key), pin, object.info.version);
      LEAT_RETURN_IF_ERROR(delivery.Begin(response));
      if (!delivery.size())
        return Fail(Errc::kCorrupt, UrlOf(key) + ": the server did not say how large it is");
      object.info.size = *delivery.size();
      return options.on_info ? options.on_info(object.info) : Status();
    };
    spec.sink = [&](std::span<const std::byte> piece) { return delivery.Take(piece, sink); };
    auto response = client_.Send(spec, UrlOf(key), ctx);
    if (!response && delivery.enough()) return {};
    if (!response) return std::unexpected(std::move(response).error());
    if (Ok(*response)) return delivery.End();
    if (response->status == 416) return ReadNothing(key, options, ctx);
    if (response->status == 404 && !pin.empty()) return FailGone(key, pin, ctx);
    return client_.Explain(UrlOf(key), *response);
  }

  Result<ListPage> List(std::string_view prefix, const ListOptions& options,
                        const CallContext& ctx) override {
    LEAT_RETURN_IF_ERROR(CheckBucketName());
    const std::size_t wanted =
        options.max_keys == 0 ? kPage : std::min<std::size_t>(options.max_keys, kPage);
    const bool hiding = !prefix.starts_with(kUploads);
    ListPage page;
    std::string from = options.start_after, token;
    for (;;) {
      // One more, since the first may be the key that it starts after.
      LEAT_ASSIGN_OR_RETURN(Listing listing,
                            ListOnce(prefix, from, token, std::min(wanted + 1, kPage), ctx));
      page.truncated = !listing.next_page.empty();
      token = listing.next_page;
      for (Resource& object : listing.objects) {
        ObjectInfo& info = object.info;
        if (!info.key.starts_with(prefix)) {
          return Fail(Errc::kCorrupt, UrlOf(prefix) + ": the listing has the key \"" +
                                          Printable(info.key) + "\" outside of it");
        }
        if (info.key <= options.start_after && !options.start_after.empty()) continue;
        if (!page.objects.empty() && info.key <= page.objects.back().key) {
          return Fail(Errc::kCorrupt, UrlOf(prefix) + ": the listing is out of order at \"" +
                                          Printable(info.key) + "\"");
        }
        if (hiding && info.key.starts_with(kUploads)) {
          // Thousands of them are one step.
          if (from < kBeyond && page.truncated) {
            from = kBeyond;
            token.clear();
          }
          continue;
        }
        if (page.objects.size() == wanted) {
          page.truncated = true;
          break;
        }
        if (options.with_versions) info.version.version_id = info.version.etag;
        page.objects.push_back(std::move(info));
      }
      // (a page may hold nothing and not be the last)
      if (!page.objects.empty() || !page.truncated) break;
    }
    if (page.truncated) page.next_after = page.objects.back().key;
    return page;
  }

  Result<Version> Put(std::string_view key, std::span<const std::byte> body,
                      const PutOptions& options, const CallContext& ctx) override {
    LEAT_RETURN_IF_ERROR(CheckKey(key));
    LEAT_ASSIGN_OR_RETURN(const Resource made, client_.Upload(key, body, options, UrlOf(key), ctx));
    return made.info.version;
  }

  Status Remove(std::string_view key, const CallContext& ctx) override {
    LEAT_RETURN_IF_ERROR(CheckKey(key));
    LEAT_ASSIGN_OR_RETURN(const net::HttpResponse response,
                          client_.Send({.method = "DELETE", .path = PathOf(key)}, UrlOf(key), ctx));
    if (Ok(response) || response.status == 404) return {};
    return client_.Explain(UrlOf(key), response);
  }

  // https://cloud.google.com/storage/docs/composite-objects
  UploadLimits upload_limits() const override {
    return {.max_put = 5 * kGiB * kKiB, .min_part = 1, .max_part = kGiB * 5, .max_parts = 10'000};
  }

  Result<std::string> BeginUpload(std::string_view key, const PutOptions&,
                                  const CallContext& ctx) override {
    LEAT_RETURN_IF_ERROR(CheckKey(key));
    // Nothing is begun at the service but the place; a time makes it unique.
    LEAT_RETURN_IF_ERROR(ListOnce(kUploads, "", "", 1, ctx));
    const auto ns =
        std::chrono::duration_cast<std::chrono::nanoseconds>(clock_.Now().time_since_epoch())
            .count();
    return fmt::format("{}.{:09}", ns / 1'000'000'000, ns % 1'000'000'000);
  }

  Result<Part> PutPart(std::string_view key, std::string_view upload, std::size_t number,
                       std::span<const std::byte> body, const CallContext& ctx) override {
    LEAT_RETURN_IF_ERROR(CheckKey(key));
    const std::string name = PlaceOf(key, upload) + fmt::format("{:08}", number);
    LEAT_ASSIGN_OR_RETURN(const Resource made, client_.Upload(name, body, {}, UrlOf(key), ctx));
    return Part{number, body.size(), ToHex(AsBytes(made.md5))};
  }

  Result<std::vector<Part>> UploadedParts(std::string_view key, std::string_view upload,
                                          const CallContext& ctx) override {
    LEAT_RETURN_IF_ERROR(CheckKey(key));
    LEAT_ASSIGN_OR_RETURN(const std::vector<Resource> held, Held(PlaceOf(key, upload), ctx));
    std::vector<Part> parts;
    for (const Resource& object : held) {
      if (const auto number = NumberOf(object, PlaceOf(key, upload)))
        parts.push_back({*number, object.info.size, ToHex(AsBytes(object.md5))});
    }
    return parts;
  }

  Result<Version> CompleteUpload(std::string_view key, std::string_view upload,
                                 std::span<const Part> parts, const PutOptions& options,
                                 const CallContext& ctx) override {
    LEAT_RETURN_IF_ERROR(CheckKey(key));
    const std::string place = PlaceOf(key, upload);
    LEAT_ASSIGN_OR_RETURN(const std::vector<Resource> held, Held(place, ctx));
    std::map<std::uint64_t, const Resource*> by_number;
    for (const Resource& object : held) {
      if (const auto number = NumberOf(object, place)) by_number[*number] = &object;
    }
    std::vector<Component> components;
    for (const Part& part : parts) {
      const auto found = by_number.find(part.number);
      const bool there = found != by_number.end() && found->second->info.size == part.size &&
                         (part.etag.empty() || part.etag == ToHex(AsBytes(found->second->md5)));
      if (!there) return Completed(key, upload, part.number, ctx);
      const Resource& object = *found->second;
      components.push_back(
          {object.info.key, object.info.version.etag, object.info.size, object.crc32c.value_or(0)});
    }
    if (components.empty())
      return Fail(Errc::kInvalid, UrlOf(key) + ": an upload without parts cannot be completed");
    // Each level is composed of the one below, until it can be composed at once.
    for (int level = 1; components.size() > kMostComponents; ++level) {
      LEAT_ASSIGN_OR_RETURN(components, ComposeLevel(key, place, level, components, ctx));
    }
    Spec spec{.method = "POST", .path = PathOf(key) + "/compose"};
    if (options.if_absent) spec.query = "ifGenerationMatch=0";
    auto made = Compose(std::move(spec), key, components, options.metadata, upload, ctx);
    if (!made && made.error().code() == Errc::kConflict) {
      auto earlier = Completed(key, upload, 1, ctx);
      if (earlier || earlier.error().code() != Errc::kNotFound) return earlier;
      return Fail(Errc::kConflict, UrlOf(key) + " exists already");
    }
    if (!made) return std::unexpected(std::move(made).error());
    LEAT_RETURN_IF_ERROR(RemoveParts(place));
    return made->info.version;
  }

  Status AbortUpload(std::string_view key, std::string_view upload,
                     const CallContext& ctx) override {
    LEAT_RETURN_IF_ERROR(CheckKey(key));
    // (Where it was completed and the answer lost, the object has bytes of its own.)
    return RemoveBelow(PlaceOf(key, upload), ctx);
  }

  Result<Version> CopyFrom(std::string_view bucket, std::string_view source,
                           const Version& if_version, std::string_view key,
                           const CallContext& ctx) override {
    LEAT_RETURN_IF_ERROR(CheckKey(key));
    const std::string from = fmt::format("gs://{}/{}", bucket, Printable(source));
    Spec spec{.method = "POST", .stall_timeout = kServerWorks};
    spec.path = fmt::format("/storage/v1/b/{}/o/{}/rewriteTo/b/{}/o/{}", net::PercentEncode(bucket),
                            net::PercentEncode(source), net::PercentEncode(options_.bucket),
                            net::PercentEncode(key));
    std::string condition;
    if (!if_version.empty()) {
      const auto generation = GenerationOf(if_version);
      if (!generation) return Fail(Errc::kConflict, from + " was replaced meanwhile");
      condition = fmt::format(
          "{}={}", if_version.version_id.empty() ? "ifSourceGenerationMatch" : "sourceGeneration",
          *generation);
    }
    spec.query = condition;
    // It takes several requests where the bytes have to move to another place.
    for (std::string token;;) {
      LEAT_ASSIGN_OR_RETURN(const net::HttpResponse response, client_.Send(spec, UrlOf(key), ctx));
      if (response.status == 412) return Fail(Errc::kConflict, from + " was replaced meanwhile");
      if (!Ok(response)) return client_.Explain(from, response);
      auto rewrite = ParseRewrite(response.body);
      if (!rewrite) return Fail(std::move(rewrite), UrlOf(key));
      if (rewrite->done) return rewrite->object.info.version;
      spec.query = condition + (condition.empty() ? "" : "&") +
                   "rewriteToken=" + net::PercentEncode(rewrite->token);
    }
  }

  Status MakeBucket(const CallContext& ctx) override {
    LEAT_RETURN_IF_ERROR(CheckBucketName());
    if (options_.project.empty()) {
      // It may be there.
      LEAT_ASSIGN_OR_RETURN(const bool ours, BucketIsOurs(ctx));
      if (ours) return {};
      return Fail(Errc::kInvalid, name_ +
                                      ": name the project that the bucket shall belong to "
                                      "(GOOGLE_CLOUD_PROJECT)");
    }
    const std::string body = WriteBucket({.name = options_.bucket,
                                          .location = options_.location,
                                          .storage_class = options_.storage_class,
                                          .uniform_access = options_.uniform_access});
    Spec spec{.method = "POST",
              .path = "/storage/v1/b",
              .query = "project=" + net::PercentEncode(options_.project),
              .body = AsBytes(body)};
    spec.headers.Add("Content-Type", "application/json; charset=UTF-8");
    LEAT_ASSIGN_OR_RETURN(const net::HttpResponse response, client_.Send(spec, name_, ctx));
    if (Ok(response)) return {};
    if (response.status != 409) return client_.Explain(name_, response);
    LEAT_ASSIGN_OR_RETURN(const bool ours, BucketIsOurs(ctx));
    if (ours) return {};
    return Fail(Errc::kConflict, name_ +
                                     " belongs to somebody else: buckets' names are one "
                                     "name space for all; choose another");
  }

  Status RemoveBucket(const CallContext& ctx) override {
    LEAT_RETURN_IF_ERROR(CheckBucketName());
    const Spec spec{.method = "DELETE",
                    .path = "/storage/v1/b/" + net::PercentEncode(options_.bucket)};
    LEAT_ASSIGN_OR_RETURN(net::HttpResponse response, client_.Send(spec, name_, ctx));
    // (an emulator says 412)
    const auto full = [](const net::HttpResponse& r) { return r.status == 409 || r.status == 412; };
    if (full(response)) {
      // What uploads left behind goes with it, where there is nothing else.
      LEAT_ASSIGN_OR_RETURN(const ListPage page, List("", {.max_keys = 1}, ctx));
      if (!page.objects.empty()) return Fail(Errc::kConflict, name_ + " is not empty");
      LEAT_RETURN_IF_ERROR(RemoveBelow(std::string(kUploads), ctx));
      LEAT_ASSIGN_OR_RETURN(response, client_.Send(spec, name_, ctx));
    }
    if (Ok(response) || response.status == 404) return {};
    if (full(response))
      return Fail(Errc::kConflict, name_ + " is not empty: it has old versions of objects");
    return client_.Explain(name_, response, "bucket");
  }

  Result<std::vector<BucketInfo>> Buckets(const CallContext& ctx) override {
    if (options_.project.empty()) {
      return Fail(Errc::kInvalid,
                  "gs://: name the project whose buckets are meant (GOOGLE_CLOUD_PROJECT)");
    }
    std::vector<BucketInfo> all;
    const std::string query = "project=" + net::PercentEncode(options_.project);
    for (std::string token;;) {
      Spec spec{.path = "/storage/v1/b", .query = query};
      if (!token.empty()) spec.query += "&pageToken=" + net::PercentEncode(token);
      LEAT_ASSIGN_OR_RETURN(const net::HttpResponse response, client_.Send(spec, "gs://", ctx));
      if (!Ok(response)) return client_.Explain("gs://", response, "project");
      auto page = ParseBuckets(response.body);
      if (!page) return Fail(std::move(page), options_.endpoint);
      std::ranges::move(page->buckets, std::back_inserter(all));
      if (page->next_page.empty()) return all;
      if (page->next_page == token)
        return Fail(Errc::kCorrupt, options_.endpoint + ": the list of buckets does not go on");
      token = page->next_page;
    }
  }

 private:
  Status CheckBucketName() const {
    if (options_.bucket.empty()) return Fail(Errc::kInvalid, "gs://: name a bucket");
    return {};
  }
  // https://cloud.google.com/storage/docs/objects#naming
  Status CheckKey(std::string_view key) const {
    LEAT_RETURN_IF_ERROR(CheckBucketName());
    if (key.empty()) return Fail(Errc::kInvalid, name_ + ": a key must not be empty");
    if (key.find_first_of("\r\n") != key.npos)
      return Fail(Errc::kInvalid, UrlOf(key) + ": Google's keys have no line breaks");
    if (!IsUtf8(key)) return Fail(Errc::kInvalid, UrlOf(key) + ": Google's keys are UTF-8");
    return {};
  }

  std::string PathOf(std::string_view key) const {
    return fmt::format("/storage/v1/b/{}/o/{}", net::PercentEncode(options_.bucket),
                       net::PercentEncode(key));
  }
  /// Where an upload's parts lie: of one length, whatever the key's.
  static std::string PlaceOf(std::string_view key, std::string_view upload) {
    return fmt::format("{}{}/{}/", kUploads, ToHex(digest::HashSha256(AsBytes(key))).substr(0, 32),
                       upload);
  }
  static std::optional<std::uint64_t> NumberOf(const Resource& object, std::string_view place) {
    return ParseDecimal(std::string_view(object.info.key).substr(place.size()));
  }

  Result<Resource> Look(std::string_view key, std::string_view version_id, const CallContext& ctx) {
    Spec spec{.path = PathOf(key)};
    if (!version_id.empty()) {
      const auto generation = GenerationOf({.version_id = std::string(version_id)});
      if (!generation) return FailNoVersion(key, version_id);
      spec.query = fmt::format("generation={}", *generation);
    }
    LEAT_ASSIGN_OR_RETURN(const net::HttpResponse response, client_.Send(spec, UrlOf(key), ctx));
    if (response.status == 404 && !version_id.empty()) return FailNoVersion(key, version_id);
    if (!Ok(response)) return client_.Explain(UrlOf(key), response);
    auto object = ParseObject(response.body);
    if (!object) {
      return Fail(Errc::kInvalid,
                  fmt::format("{}: the server does not speak Google's protocol: {}{}", UrlOf(key),
                              object.error().message(), WhatItAnswered(response)));
    }
    object->info.key = key;
    if (!version_id.empty()) object->info.version.version_id = object->info.version.etag;
    return object;
  }

  std::unexpected<Error> FailNoVersion(std::string_view key, std::string_view version_id) const {
    return Fail(Errc::kNotFound,
                fmt::format("{} has no version \"{}\"", UrlOf(key), Printable(version_id)));
  }

  /// The version that a read was pinned to is not there.
  std::unexpected<Error> FailGone(std::string_view key, const Version& pin,
                                  const CallContext& ctx) {
    const auto now = Stat(key, "", ctx);
    if (!now) return std::unexpected(now.error());
    if (!pin.version_id.empty()) return FailNoVersion(key, pin.version_id);
    return FailReplaced(UrlOf(key), pin, now->version);
  }

  Status CheckIsGoogle(const net::HttpResponse& response, std::string_view key) const {
    if (!response.headers.Get("x-goog-generation")) {
      return Fail(Errc::kInvalid,
                  UrlOf(key) +
                      ": the server does not speak Google's protocol: its answer has no "
                      "generation" +
                      WhatItAnswered(response));
    }
    const bool stored = Lower(Header(response, "x-goog-stored-content-encoding")) == "gzip";
    const bool sent = Lower(Header(response, "Content-Encoding")) == "gzip";
    if (stored == sent) return {};
    return Fail(Errc::kUnsupported,
                UrlOf(key) + (stored ? " is stored compressed, and the server sends it otherwise"
                                     : ": the server sends it only compressed (gzip)"));
  }

  Status ReadNothing(std::string_view key, const ReadOptions& options, const CallContext& ctx) {
    const Version& pin = options.if_version;
    auto info = Stat(key, pin.version_id, ctx);
    if (!info) return std::unexpected(std::move(info).error());
    if (!SameVersion(pin, info->version)) return FailReplaced(UrlOf(key), pin, info->version);
    if (options.length > 0 && options.offset < info->size) {
      return Fail(Errc::kUnavailable,
                  fmt::format("{}: the server says that there is nothing at byte {} of {}",
                              UrlOf(key), options.offset, info->size));
    }
    return options.on_info ? options.on_info(*info) : Status();
  }

  Result<Listing> ListOnce(std::string_view prefix, std::string_view from, std::string_view token,
                           std::size_t most, const CallContext& ctx) {
    Spec spec{.path = "/storage/v1/b/" + net::PercentEncode(options_.bucket) + "/o"};
    spec.query = fmt::format("fields={}&maxResults={}", net::PercentEncode(kListed), most);
    const auto add = [&](std::string_view name, std::string_view value) {
      if (!value.empty()) spec.query += fmt::format("&{}={}", name, net::PercentEncode(value));
    };
    add("prefix", prefix);
    add("startOffset", from);
    add("pageToken", token);
    const std::string url = prefix.empty() ? name_ : UrlOf(prefix);
    LEAT_ASSIGN_OR_RETURN(const net::HttpResponse response, client_.Send(spec, url, ctx));
    if (!Ok(response)) return client_.Explain(name_, response, "bucket");
    auto listing = ParseListing(response.body);
    if (!listing) return Fail(std::move(listing), url);
    if (!token.empty() && listing->next_page == token)
      return Fail(Errc::kCorrupt, url + ": the listing does not go on");
    return listing;
  }

  /// All below a place of uploads, in order.
  Result<std::vector<Resource>> Held(std::string_view place, const CallContext& ctx) {
    std::vector<Resource> all;
    for (std::string token;;) {
      LEAT_ASSIGN_OR_RETURN(Listing listing, ListOnce(place, "", token, kPage, ctx));
      std::ranges::move(listing.objects, std::back_inserter(all));
      if (listing.next_page.empty()) break;
      token = listing.next_page;
    }
    std::erase_if(all, [&](const Resource& object) { return !object.info.key.starts_with(place); });
    return all;
  }

  /// The upload's parts are not there: it was completed, and the answer lost, or it is not known.
  Result<Version> Completed(std::string_view key, std::string_view upload, std::size_t missing,
                            const CallContext& ctx) {
    auto object = Look(key, "", ctx);
    if (!object && object.error().code() != Errc::kNotFound)
      return std::unexpected(std::move(object).error());
    if (!object || object->upload != upload) {
      return Fail(Errc::kNotFound,
                  fmt::format("{}: part {} of its upload is not there", UrlOf(key), missing));
    }
    LEAT_RETURN_IF_ERROR(RemoveParts(PlaceOf(key, upload)));
    return object->info.version;
  }

  Result<Resource> Compose(Spec spec, std::string_view key, std::span<const Component> components,
                           const Metadata& metadata, std::string_view upload,
                           const CallContext& ctx) {
    const std::string body = WriteCompose(components, metadata, upload);
    spec.body = AsBytes(body);
    spec.headers.Add("Content-Type", "application/json; charset=UTF-8");
    spec.stall_timeout = kServerWorks;
    LEAT_ASSIGN_OR_RETURN(const net::HttpResponse response, client_.Send(spec, UrlOf(key), ctx));
    if (response.status == 412) return Fail(Errc::kConflict, UrlOf(key) + " exists already");
    // A part that is not there any more: whoever asks again finds out why.
    if (response.status == 404)
      return Fail(Errc::kUnavailable, UrlOf(key) + ": a part of its upload is gone");
    if (!Ok(response)) return client_.Explain(UrlOf(key), response);
    auto made = ParseObject(response.body);
    if (!made) return Fail(std::move(made), UrlOf(key));
    std::uint64_t size = 0;
    std::uint32_t crc32c = 0;
    for (const Component& component : components) {
      crc32c = digest::Crc32cCombine(crc32c, component.crc32c, component.size);
      size += component.size;
    }
    if (made->info.size != size || (made->crc32c && *made->crc32c != crc32c)) {
      return Fail(Errc::kCorrupt,
                  UrlOf(key) + ": what the server composed is not what its parts were");
    }
    if (!made->crc32c) made->crc32c = crc32c;
    return made;
  }

  Result<std::vector<Component>> ComposeLevel(std::string_view key, const std::string& place,
                                              int level, const std::vector<Component>& below,
                                              const CallContext& ctx) {
    const std::size_t count = (below.size() + kMostComponents - 1) / kMostComponents;
    std::vector<Component> out(count);
    std::mutex mutex;
    std::optional<Error> failure;
    ParallelFor(count, kSideBySide, [&](std::size_t i) {
      const std::size_t first = i * kMostComponents;
      const auto part =
          std::span(below).subspan(first, std::min(kMostComponents, below.size() - first));
      const std::string name = fmt::format("{}level-{}-{:08}", place, level, i + 1);
      auto made =
          Compose({.method = "POST", .path = PathOf(name) + "/compose"}, key, part, {}, "", ctx);
      if (made) {
        out[i] = {name, made->info.version.etag, made->info.size, *made->crc32c};
        return true;
      }
      const std::lock_guard lock(mutex);
      if (!failure) failure = std::move(made).error();
      return false;
    });
    if (failure) return std::unexpected(*failure);
    return out;
  }

  /// Of an upload that is complete. Whoever may write and not delete has written all the same.
  Status RemoveParts(const std::string& place) {
    // The object is there, and nobody will ask again: a Ctrl-C does not keep it from being tidy.
    const Status removed = RemoveBelow(place, CallContext{}.Within(std::chrono::minutes(5)));
    if (removed || removed.error().code() != Errc::kDenied) return removed;
    SayOnce(name_ + kUploads.data(),
            fmt::format("{}/{}: the parts of uploads stay there, since they may not be deleted: {}",
                        name_, kUploads, removed.error().message()));
    return {};
  }

  Status RemoveBelow(const std::string& place, const CallContext& ctx) {
    LEAT_ASSIGN_OR_RETURN(const std::vector<Resource> held, Held(place, ctx));
    std::mutex mutex;
    std::optional<Error> failure;
    ParallelFor(held.size(), kSideBySide, [&](std::size_t i) {
      const Status removed = Remove(held[i].info.key, ctx);
      if (removed) return true;
      const std::lock_guard lock(mutex);
      if (!failure) failure = removed.error();
      return false;
    });
    if (failure) return std::unexpected(*failure);
    return {};
  }

  Result<bool> BucketIsOurs(const CallContext& ctx) {
    LEAT_ASSIGN_OR_RETURN(
        const net::HttpResponse response,
        client_.Send({.path = "/storage/v1/b/" + net::PercentEncode(options_.bucket)}, name_, ctx));
    if (Ok(response)) return true;
    if (response.status == 404 || response.status == 403) return false;
    return client_.Explain(name_, response, "bucket");
  }

  const GcsOptions options_;
  const std::string name_, identity_;
  Client client_;
  Clock& clock_;
};

}  // namespace

Result<std::unique_ptr<ObjectStore>> MakeGcsStore(GcsOptions options,
                                                  auth::CredentialProvider& credentials,
                                                  net::HttpTransport& http, Clock& clock) {
  // https://cloud.google.com/storage/docs/buckets#naming
  const bool well_formed = std::ranges::all_of(options.bucket, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
  });
  if (!options.bucket.empty() &&
      (!well_formed || options.bucket.size() < 3 || options.bucket.size() > 222)) {
    return Fail(Errc::kInvalid, "gs://" + Printable(options.bucket) +
                                    ": a bucket's name has 3 to 222 of a to z, 0 to 9, -, _ and .");
  }
  return std::make_unique<GcsStore>(std::move(options), credentials, http, clock);
}

}  // namespace leat::store::gcs
