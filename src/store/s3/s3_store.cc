#include "store/s3/s3_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <set>
#include <utility>

#include "base/bytes.h"
#include "base/log.h"
#include "base/text.h"
#include "base/thread_pool.h"
#include "digest/md5_lanes.h"
#include "net/url.h"
#include "store/http_answer.h"
#include "store/remove_together.h"
#include "store/s3/client.h"
#include "store/s3/xml.h"

namespace leat::store::s3 {
namespace {

Version VersionOf(const net::HttpResponse& response) {
  return {.etag = UnquoteEtag(Header(response, "ETag")),
          .version_id = Header(response, "x-amz-version-id")};
}

/// A checksum header's digest, unless it is one over the parts' checksums.
std::optional<digest::Expected> Checksum(const net::HttpResponse& response, std::string_view name,
                                         digest::Kind kind, std::size_t size) {
  const auto header = response.headers.Get(name);
  if (!header || header->find('-') != header->npos ||
      Header(response, "x-amz-checksum-type") == "COMPOSITE") {
    return std::nullopt;
  }
  auto value = digest::Base64Decode(*header);
  if (!value || value->size() != size) return std::nullopt;
  return digest::Expected{kind, *std::move(value)};
}

/// Then its etag is no digest of its bytes.
/// https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html
bool HasItsOwnKey(const net::HttpResponse& response) {
  return Header(response, "x-amz-server-side-encryption").starts_with("aws:kms") ||
         response.headers.Get("x-amz-server-side-encryption-customer-algorithm").has_value();
}

/// What the etag tells of the whole object, in the answer to a range too: the MD5 of what was put
/// in one piece.
std::optional<digest::Expected> Md5Of(const net::HttpResponse& response) {
  if (HasItsOwnKey(response)) return std::nullopt;
  const std::string etag = UnquoteEtag(Header(response, "ETag"));
  if (etag.size() != 32 || !digest::CanHash(digest::Kind::kMd5)) return std::nullopt;
  auto md5 = FromHex(etag);
  if (!md5) return std::nullopt;
  return digest::Expected{digest::Kind::kMd5, *std::move(md5)};
}

/// The strongest digest that the answer to a request for the whole object gives.
std::optional<digest::Expected> ExpectedOf(const net::HttpResponse& response) {
  if (auto sha = Checksum(response, "x-amz-checksum-sha256", digest::Kind::kSha256, 32)) return sha;
  if (auto crc = Checksum(response, "x-amz-checksum-crc32c", digest::Kind::kCrc32c, 4)) return crc;
  return Md5Of(response);
}

ObjectInfo InfoOf(std::string_view key, const net::HttpResponse& response) {
  ObjectInfo info;
  info.key = key;
  info.version = VersionOf(response);
  info.modified = net::ParseHttpDate(Header(response, "Last-Modified"));
  info.in_parts = info.version.etag.find('-') != std::string::npos;
  const std::string archive = Header(response, "x-amz-archive-status");
  const bool restored =
      Header(response, "x-amz-restore").find("ongoing-request=\"false\"") != std::string::npos;
  for (const auto& [name, value] : response.headers.fields()) {
    constexpr std::string_view kMeta = "x-amz-meta-";
    std::string lower = Lower(name);
    if (lower.starts_with(kMeta)) info.metadata[lower.substr(kMeta.size())] = value;
  }
  info.archived =
      !restored && (IsArchiveClass(Header(response, "x-amz-storage-class")) || !archive.empty());
  return info;
}

/// What the server holds the bytes to: their SHA-256 in the signature, and for requests that are
/// not signed their MD5.
Spec WithBody(Spec spec, std::span<const std::byte> body) {
  spec.body = body;
  spec.payload_sha256 = ToHex(digest::HashSha256(body));
  return spec;
}

constexpr const char* kChecksumHeader = "x-amz-checksum-crc32c";

/// What the server does by itself before it answers takes as long as it takes.
constexpr std::chrono::seconds kServerWorks{900};

/// Of an object in parts, as S3 makes it; empty where a part's is no MD5.
std::string EtagOf(std::span<const Part> parts) {
  if (!digest::CanHash(digest::Kind::kMd5)) return {};
  digest::Hasher md5(digest::Kind::kMd5);
  for (const Part& part : parts) {
    const auto bytes = FromHex(part.etag);
    if (!bytes || bytes->size() != 16) return {};
    md5.Update(AsBytes(*bytes));
  }
  return ToHex(AsBytes(md5.Finish())) + "-" + std::to_string(parts.size());
}

/// As x-amz-checksum-crc32c has it.
std::string ChecksumOf(std::span<const std::byte> body) {
  digest::Hasher crc(digest::Kind::kCrc32c);
  crc.Update(body);
  return digest::Base64Encode(AsBytes(crc.Finish()));
}

/// Of an object in parts.
constexpr std::size_t kPartsAtOnce = 8, kMostPartsToAsk = 1000;

/// Of an upload whose parts have checksums: before what the store calls it.
constexpr std::string_view kWithChecksums = "crc32c:";
std::string QueryOf(std::string_view upload) {
  if (upload.starts_with(kWithChecksums)) upload.remove_prefix(kWithChecksums.size());
  return "uploadId=" + net::PercentEncode(upload);
}

/// Some vendors refuse headers that they do not know.
bool DoesNotKnowChecksums(const Answer& answer) {
  const std::string_view code = answer.error.code;
  return answer.response.status == 501 || code == "NotImplemented" ||
         (answer.response.status == 400 && (code == "InvalidArgument" || code == "InvalidRequest"));
}

class S3Store final : public ObjectStore {
 public:
  S3Store(S3Options options, Endpoint endpoint, auth::CredentialProvider& credentials,
          net::HttpTransport& http, Clock& clock)
      : put_headers_(options.put_headers),
        client_(std::move(options), std::move(endpoint), credentials, http, clock) {}

  std::string_view Describe() const override { return client_.name(); }
  std::string_view Identity() const override { return client_.identity(); }
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
            .copy_parts = true,
            .buckets = true,
            .any_key = true};
  }

  Result<ObjectInfo> Stat(std::string_view key, std::string_view version_id,
                          const CallContext& ctx) override {
    LEAT_RETURN_IF_ERROR(CheckKey(key));
    Spec spec{.method = "HEAD", .key = std::string(key), .version_id = std::string(version_id)};
    spec.headers.Add("x-amz-checksum-mode", "ENABLED");
    LEAT_ASSIGN_OR_RETURN(const Answer answer, client_.Send(spec, ctx));
    if (!answer.ok()) return answer.Failure();
    LEAT_RETURN_IF_ERROR(CheckIsS3(answer.response, key));
    const auto size = ParseDecimal(Header(answer.response, "Content-Length"));
    if (!size) return Fail(Errc::kCorrupt, UrlOf(key) + ": the server did not say how large it is");
    ObjectInfo info = InfoOf(key, answer.response);
    info.size = *size;
    info.expected = ExpectedOf(answer.response);
    return info;
  }

  Status Read(std::string_view key, const ReadOptions& options, const Sink& sink,
              const CallContext& ctx) override {
    LEAT_RETURN_IF_ERROR(CheckKey(key));
    RangeDelivery delivery(UrlOf(key), options);
    if (delivery.asks_nothing()) return ReadNothing(key, options, ctx);
    const Version& pin = options.if_version;
    Spec spec{.key = std::string(key), .version_id = pin.version_id};
    delivery.AddHeader(spec.headers);
    // A weak etag never matches in If-Match (RFC 9110, 13.1.1): the answer's is compared below.
    if (!pin.etag.empty() && !pin.weak()) spec.headers.Add("If-Match", QuoteEtag(pin.etag));
    if (delivery.asks_whole()) spec.headers.Add("x-amz-checksum-mode", "ENABLED");
    spec.on_response = [&](const net::HttpResponse& response) -> Status {
      LEAT_RETURN_IF_ERROR(CheckIsS3(response, key));
      ObjectInfo info = InfoOf(key, response);
      if (!SameVersion(pin, info.version)) return FailReplaced(UrlOf(key), pin, info.version);
      LEAT_RETURN_IF_ERROR(delivery.Begin(response));
      if (!delivery.size()) {
        return Fail(Errc::kCorrupt, UrlOf(key) + ": the server did not say how large it is");
      }
      info.size = *delivery.size();
      const bool whole = delivery.is_whole() && options.offset == 0 && options.length >= info.size;
      info.expected = whole ? ExpectedOf(response) : Md5Of(response);
      return options.on_info ? options.on_info(info) : Status();
    };
    spec.sink = [&](std::span<const std::byte> piece) { return delivery.Take(piece, sink); };
    auto answer = client_.Send(spec, ctx);
    if (!answer && delivery.enough()) return {};
    if (!answer) return std::unexpected(std::move(answer).error());
    if (answer->ok()) return delivery.End();
    if (answer->response.status == 416) return ReadNothing(key, options, ctx);
    if (answer->response.status == 412) return FailWithPresent(key, pin, ctx);
    return answer->Failure();
  }

  Result<ListPage> List(std::string_view prefix, const ListOptions& options,
                        const CallContext& ctx) override {
    if (options.with_versions) return ListWithVersions(prefix, options, ctx);
    LEAT_ASSIGN_OR_RETURN(Listing listing, ListOnce(prefix, options, "", ctx));
    // Where a stretch holds nothing but what was deleted, a page may be empty and not the last.
    for (int empty_pages = 0; listing.objects.empty() && listing.truncated; ++empty_pages) {
      if (listing.next.empty() || empty_pages == 1000) {
        return Fail(Errc::kCorrupt,
                    UrlOf(prefix) + ": the listing is truncated but does not go on");
      }
      const std::string at = std::exchange(listing.next, "");
      LEAT_ASSIGN_OR_RETURN(listing, ListOnce(prefix, options, at, ctx));
    }
    ListPage page;
    page.objects = std::move(listing.objects);
    page.truncated = listing.truncated;
    LEAT_RETURN_IF_ERROR(CheckOrder(prefix, options.start_after, page.objects));
    if (page.truncated) page.next_after = page.objects.back().key;
    return page;
  }

  Result<Version> Put(std::string_view key, std::span<const std::byte> body,
                      const PutOptions& options, const CallContext& ctx) override {
    LEAT_RETURN_IF_ERROR(CheckKey(key));
    Spec spec{.method = "PUT", .key = std::string(key), .body = body};
    AddWhatIsKept(spec, options.metadata);
    if (options.if_absent) spec.headers.Add("If-None-Match", "*");
    LEAT_ASSIGN_OR_RETURN(const Answer answer,
                          SendData(std::move(spec), checksums_ != Checksums::kIgnored, ctx));
    if (answer.response.status == 412 && options.if_absent) {
      return Fail(Errc::kConflict, UrlOf(key) + " exists already");
    }
    if (!answer.ok()) return answer.Failure();
    LEAT_RETURN_IF_ERROR(CheckIsS3(answer.response, key));
    return VersionOf(answer.response);
  }

  Status Remove(std::string_view key, const CallContext& ctx) override {
    LEAT_RETURN_IF_ERROR(CheckKey(key));
    LEAT_ASSIGN_OR_RETURN(const Answer answer,
                          client_.Send({.method = "DELETE", .key = std::string(key)}, ctx));
    if (answer.ok() || answer.error.code == "NoSuchKey") return {};
    return answer.Failure();
  }

  // https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html
  std::size_t max_removals() const override { return removes_many_ ? 1000 : 1; }

  std::vector<Status> RemoveMany(std::span<const Removal> removals,
                                 const CallContext& ctx) override {
    return RemoveTogether(
        *this, removals,
        [&](const Removal& removal) { return CheckKey(removal.key) && XmlCanHold(removal.key); },
        [&](std::span<const std::string_view> keys) { return DeleteObjects(keys, ctx); }, ctx);
  }

  // https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
  UploadLimits upload_limits() const override {
    return {.max_put = 5 * kGiB, .min_part = 5 * kMiB, .max_part = 5 * kGiB, .max_parts = 10'000};
  }

  Result<std::string> BeginUpload(std::string_view key, const PutOptions& options,
                                  const CallContext& ctx) override {
    LEAT_RETURN_IF_ERROR(CheckKey(key));
    Spec spec{.method = "POST", .key = std::string(key), .query = "uploads"};
    AddWhatIsKept(spec, options.metadata);
    const Spec plain = spec;
    bool with_checksums = checksums_ != Checksums::kIgnored;
    if (with_checksums) spec.headers.Add("x-amz-checksum-algorithm", "CRC32C");
    LEAT_ASSIGN_OR_RETURN(Answer answer, client_.Send(spec, ctx));
    if (with_checksums && DoesNotKnowChecksums(answer)) {
      with_checksums = false;
      checksums_ = Checksums::kIgnored;
      LEAT_ASSIGN_OR_RETURN(answer, client_.Send(plain, ctx));
    }
    if (!answer.ok()) return answer.Failure();
    auto upload = ParseUpload(answer.response.body);
    if (!upload) return Fail(std::move(upload), UrlOf(key));
    // Then each part has to have one, also those that another process brings, whether or not the
    // server repeats what it was told: some do not, and refuse parts without.
    if (with_checksums) return std::string(kWithChecksums) + *upload;
    return upload;
  }

  Result<Part> PutPart(std::string_view key, std::string_view upload, std::size_t number,
                       std::span<const std::byte> body, const CallContext& ctx) override {
    Spec spec{.method = "PUT", .key = std::string(key), .body = body};
    spec.query = "partNumber=" + std::to_string(number) + "&" + QueryOf(upload);
    const bool with_checksum = upload.starts_with(kWithChecksums);
    LEAT_ASSIGN_OR_RETURN(const Answer answer, SendData(std::move(spec), with_checksum, ctx));
    if (!answer.ok()) return answer.Failure();
    LEAT_RETURN_IF_ERROR(CheckIsS3(answer.response, key));
    return Part{number, body.size(), VersionOf(answer.response).etag,
                with_checksum ? Header(answer.response, kChecksumHeader) : ""};
  }

  Result<std::vector<Part>> UploadedParts(std::string_view key, std::string_view upload,
                                          const CallContext& ctx) override {
    std::vector<Part> parts;
    for (PartsPage page{.parts = {}, .truncated = true}; page.truncated;) {
      Spec spec{.key = std::string(key), .query = QueryOf(upload)};
      if (!parts.empty())
        spec.query += "&part-number-marker=" + std::to_string(parts.back().number);
      LEAT_ASSIGN_OR_RETURN(const Answer answer, client_.Send(spec, ctx));
      if (!answer.ok()) return answer.Failure();
      auto got = ParseParts(answer.response.body);
      if (!got) return Fail(std::move(got), UrlOf(key));
      if (!parts.empty() && !got->parts.empty() &&
          got->parts.front().number <= parts.back().number) {
        return Fail(Errc::kCorrupt, UrlOf(key) + ": the list of parts does not go on");
      }
      page = *std::move(got);
      parts.insert(parts.end(), page.parts.begin(), page.parts.end());
    }
    return parts;
  }

  Result<Version> CompleteUpload(std::string_view key, std::string_view upload,
                                 std::span<const Part> parts, const PutOptions& options,
                                 const CallContext& ctx) override {
    std::string body = "<CompleteMultipartUpload>";
    for (const Part& part : parts) {
      body += "<Part><PartNumber>" + std::to_string(part.number) + "</PartNumber><ETag>&quot;" +
              part.etag + "&quot;</ETag>";
      if (!part.checksum.empty()) body += "<ChecksumCRC32C>" + part.checksum + "</ChecksumCRC32C>";
      body += "</Part>";
    }
    body += "</CompleteMultipartUpload>";
    Spec spec = WithBody({.method = "POST", .key = std::string(key)}, AsBytes(body));
    spec.query = QueryOf(upload);
    spec.headers.Add("Content-Type", "application/xml");
    spec.stall_timeout = kServerWorks;
    if (options.if_absent) spec.headers.Add("If-None-Match", "*");
    LEAT_ASSIGN_OR_RETURN(Answer answer, client_.Send(spec, ctx));
    if (answer.response.status == 412 && options.if_absent)
      return Fail(Errc::kConflict, UrlOf(key) + " exists already");
    // It may take so long that the answer begins before it is known how it ends.
    if (answer.ok()) {
      if (const auto error = ParseError(answer.response.body)) {
        answer.error = *error;
        answer.response.status = 500;
      }
    }
    if (answer.error.code == "NoSuchUpload") {
      // An earlier call whose answer was lost may have done it.
      const std::string etag = EtagOf(parts);
      const auto there = Stat(key, "", ctx);
      if (there && !etag.empty() && there->version.etag == etag) return there->version;
    }
    if (!answer.ok()) return answer.Failure();
    auto etag = ParseResultEtag(answer.response.body);
    if (!etag) return Fail(std::move(etag), UrlOf(key));
    Version version = VersionOf(answer.response);
    version.etag = etag->empty() ? EtagOf(parts) : *std::move(etag);  // (Ceph leaves it out)
    return version;
  }

  Status AbortUpload(std::string_view key, std::string_view upload,
                     const CallContext& ctx) override {
    const Spec spec{.method = "DELETE", .key = std::string(key), .query = QueryOf(upload)};
    LEAT_ASSIGN_OR_RETURN(const Answer answer, client_.Send(spec, ctx));
    const std::string_view code = answer.error.code;
    if (answer.ok() || code == "NoSuchUpload" || code == "NoSuchBucket") return {};
    return answer.Failure();
  }

  Result<Version> CopyFrom(std::string_view bucket, std::string_view source,
                           const Version& if_version, std::string_view key,
                           const CallContext& ctx) override {
    Spec spec{.method = "PUT", .key = std::string(key)};
    AddWhatIsKept(spec, {});
    LEAT_ASSIGN_OR_RETURN(const Answer answer,
                          Copy(std::move(spec), bucket, source, if_version, ctx));
    auto etag = ParseResultEtag(answer.response.body);
    if (!etag) return Fail(std::move(etag), UrlOf(key));
    Version version = VersionOf(answer.response);
    version.etag = *std::move(etag);
    // Ceph does not heed the condition; the copy of an object that is not in parts has its etag.
    const bool whole = if_version.etag.size() == 32 && version.etag.size() == 32;
    if (whole && version.etag != if_version.etag) {
      return Fail(Errc::kConflict, "s3://" + std::string(bucket) + "/" + Printable(source) +
                                       " was replaced meanwhile");
    }
    return version;
  }

  Result<Part> CopyPart(std::string_view bucket, std::string_view source, const Version& if_version,
                        std::uint64_t offset, std::uint64_t length, std::string_view key,
                        std::string_view upload, std::size_t number,
                        const CallContext& ctx) override {
    // Ceph decodes such a name twice here, and would take another object.
    if (source.find_first_of("%?") != source.npos)
      return Fail(Errc::kUnsupported,
                  UrlOf(source) + ": not every server copies parts of that name");
    Spec spec{.method = "PUT", .key = std::string(key)};
    spec.query = "partNumber=" + std::to_string(number) + "&" + QueryOf(upload);
    spec.headers.Add("x-amz-copy-source-range",
                     fmt::format("bytes={}-{}", offset, offset + length - 1));
    LEAT_ASSIGN_OR_RETURN(const Answer answer,
                          Copy(std::move(spec), bucket, source, if_version, ctx));
    auto part = ParseCopiedPart(answer.response.body);
    if (!part) return Fail(std::move(part), UrlOf(key));
    part->number = number;
    part->size = length;
    return part;
  }

  /// Their sizes alone; a request for each:
  /// https://docs.aws.amazon.com/AmazonS3/latest/API/API_HeadObject.html, partNumber.
  Result<std::vector<PartDigest>> PartDigests(std::string_view key, const Version& version,
                                              const CallContext& ctx) override {
    LEAT_ASSIGN_OR_RETURN(const auto first, OnePart(key, 1, version, ctx));
    std::vector<PartDigest> parts(first.count, {first.size, ""});
    std::mutex mutex;
    Status out;
    ParallelFor(parts.size() - 1, kPartsAtOnce, [&](std::size_t i) {
      const auto part = OnePart(key, i + 2, version, ctx);
      if (part) parts[i + 1].size = part->size;
      if (part) return true;
      const std::lock_guard lock(mutex);
      out = std::unexpected(part.error());
      return false;
    });
    if (!out) return std::unexpected(out.error());
    return parts;
  }

  Status MakeBucket(const CallContext& ctx) override {
    std::string body;
    if (const std::string region = client_.region();
        region != "us-east-1" && IsAwsHost(net::ParseUrl(client_.ServerName())->host)) {
      body = "<CreateBucketConfiguration><LocationConstraint>" + region +
             "</LocationConstraint></CreateBucketConfiguration>";
    }
    LEAT_ASSIGN_OR_RETURN(const Answer answer,
                          client_.Send(WithBody({.method = "PUT"}, AsBytes(body)), ctx));
    if (answer.ok() || answer.error.code == "BucketAlreadyOwnedByYou") return {};
    if (answer.response.status == 409) {
      return Fail(Errc::kConflict, client_.name() + ": the name belongs to somebody else (" +
                                       answer.error.code + ")");
    }
    return answer.Failure();
  }

  Status RemoveBucket(const CallContext& ctx) override {
    LEAT_ASSIGN_OR_RETURN(const Answer answer, client_.Send({.method = "DELETE"}, ctx));
    if (answer.ok() || answer.error.code == "NoSuchBucket") return {};
    if (answer.response.status == 409)
      return Fail(Errc::kConflict, client_.name() + " is not empty");
    return answer.Failure();
  }

  Result<std::vector<BucketInfo>> Buckets(const CallContext& ctx) override {
    if (!client_.bucket().empty())
      return Fail(Errc::kInternal, "buckets are listed by the service");
    LEAT_ASSIGN_OR_RETURN(const Answer answer, client_.Send({}, ctx));
    if (!answer.ok()) return answer.Failure();
    auto buckets = ParseBuckets(answer.response.body);
    if (!buckets) {
      return Fail(Errc::kInvalid,
                  client_.ServerName() + " does not speak S3" + WhatItAnswered(answer.response));
    }
    return buckets;
  }

 private:
  /// What this server does with the checksum of a body.
  enum class Checksums : std::uint8_t { kUnknown, kConfirmed, kIgnored };

  /// Sends a body that the server is held to: by its SHA-256 in the signature, or, on an encrypted
  /// line to a server that has confirmed checksums before, by its CRC32C alone. A checksum that is
  /// not confirmed proves nothing: Ceph takes a wrong one.
  Result<Answer> SendData(Spec spec, bool with_checksum, const CallContext& ctx) {
    const Spec plain = spec;
    const auto send_signed = [&](Spec with) {
      return client_.Send(WithBody(std::move(with), plain.body), ctx);
    };
    if (!with_checksum) return send_signed(plain);
    const std::string checksum = ChecksumOf(spec.body);
    spec.headers.Add(kChecksumHeader, checksum);
    const Checksums known = checksums_;
    // (what must not be there already cannot be sent twice)
    const bool unsigned_payload = known == Checksums::kConfirmed && client_.encrypted() &&
                                  !refuses_unsigned_ && !spec.headers.Get("If-None-Match");
    const Spec checked = spec;
    if (unsigned_payload) spec.payload_sha256 = auth::kUnsignedPayload;
    LEAT_ASSIGN_OR_RETURN(Answer answer,
                          unsigned_payload ? client_.Send(spec, ctx) : send_signed(spec));
    if (unsigned_payload && (answer.response.status == 403 || answer.response.status == 400)) {
      // A bucket's policy may want it signed.
      LEAT_ASSIGN_OR_RETURN(answer, send_signed(checked));
      if (answer.ok()) refuses_unsigned_ = true;
    }
    if (!answer.ok()) {
      // (by what was known when it was sent: another thread may have learnt more meanwhile)
      if (known == Checksums::kConfirmed || !DoesNotKnowChecksums(answer)) return answer;
      checksums_ = Checksums::kIgnored;
      return send_signed(plain);
    }
    const std::string confirmed = Header(answer.response, kChecksumHeader);
    if (confirmed == checksum) {
      checksums_ = Checksums::kConfirmed;
      return answer;
    }
    if (!confirmed.empty()) {
      return Fail(Errc::kUnavailable,
                  UrlOf(spec.key) + ": the store received other bytes than were sent");
    }
    checksums_ = Checksums::kIgnored;
    return unsigned_payload ? send_signed(checked) : std::move(answer);
  }

  /// Sends a request whose body the server takes from another object.
  Result<Answer> Copy(Spec spec, std::string_view bucket, std::string_view source,
                      const Version& if_version, const CallContext& ctx) {
    LEAT_RETURN_IF_ERROR(CheckKey(spec.key));
    std::string from = "/" + net::PercentEncode(bucket) + "/" + net::PercentEncode(source, true);
    if (!if_version.version_id.empty())
      from += "?versionId=" + net::PercentEncode(if_version.version_id);
    spec.headers.Add("x-amz-copy-source", std::move(from));
    spec.stall_timeout = kServerWorks;
    if (!if_version.etag.empty())
      spec.headers.Add("x-amz-copy-source-if-match", QuoteEtag(if_version.etag));
    LEAT_ASSIGN_OR_RETURN(Answer answer, client_.Send(spec, ctx));
    if (answer.response.status == 412) {
      return Fail(Errc::kConflict, "s3://" + std::string(bucket) + "/" + Printable(source) +
                                       " was replaced meanwhile");
    }
    // It may have begun to answer before it knew.
    if (const auto error = answer.ok() ? ParseError(answer.response.body) : std::nullopt) {
      answer.error = *error;
      answer.response.status = 500;
    }
    if (!answer.ok()) return answer.Failure();
    return answer;
  }

  /// What was not removed. kUnsupported where the server does not know the request.
  Result<std::set<std::string>> DeleteObjects(std::span<const std::string_view> keys,
                                              const CallContext& ctx) {
    const std::string body = WriteDelete(keys);
    Spec spec = WithBody({.method = "POST", .query = "delete"}, AsBytes(body));
    spec.headers.Add("Content-Type", "application/xml");
    spec.headers.Add("Content-MD5", digest::Base64Encode(AsBytes(digest::Md5(AsBytes(body)))));
    spec.stall_timeout = kServerWorks;
    LEAT_ASSIGN_OR_RETURN(const Answer answer, client_.Send(spec, ctx));
    const int status = answer.response.status;
    const std::string_view code = answer.error.code;
    if (answer.ok()) {
      auto refused = ParseDeleteErrors(answer.response.body);
      if (refused) return refused;
      // A server that takes it for something else does not know it.
    } else if (code == "NoSuchBucket" ||
               (status != 404 && status != 405 && status != 501 && code != "NotImplemented" &&
                code != "InvalidRequest" && code != "InvalidArgument" && code != "MalformedXML")) {
      return answer.Failure();
    }
    removes_many_ = false;
    return Fail(Errc::kUnsupported, client_.name() + ": several objects cannot be removed at once");
  }

  struct PartSize {
    std::uint64_t size = 0;
    std::size_t count = 0;  ///< of all parts
  };
  Result<PartSize> OnePart(std::string_view key, std::size_t number, const Version& version,
                           const CallContext& ctx) {
    const Spec spec{.method = "HEAD",
                    .key = std::string(key),
                    .version_id = version.version_id,
                    .query = "partNumber=" + std::to_string(number)};
    LEAT_ASSIGN_OR_RETURN(const Answer answer, client_.Send(spec, ctx));
    if (!answer.ok()) return answer.Failure();
    const Version now = VersionOf(answer.response);
    if (!SameVersion(version, now)) return FailReplaced(UrlOf(key), version, now);
    const auto size = ParseDecimal(Header(answer.response, "Content-Length"));
    const auto count = ParseDecimal(Header(answer.response, "x-amz-mp-parts-count"));
    if (!size || !count || *count == 0 || *count > kMostPartsToAsk || HasItsOwnKey(answer.response))
      return Fail(Errc::kUnsupported, UrlOf(key) + ": the store does not tell of its parts");
    return PartSize{*size, *count};
  }

  Status CheckKey(std::string_view key) const {
    if (client_.bucket().empty()) return Fail(Errc::kInvalid, "s3://: name a bucket");
    if (key.empty()) return Fail(Errc::kInvalid, client_.name() + ": a key must not be empty");
    return {};
  }

  /// What S3 says of an object always has an etag: a proxy's page, or an error behind a 200, has
  /// not.
  Status CheckIsS3(const net::HttpResponse& response, std::string_view key) const {
    if (response.headers.Get("ETag")) return {};
    const std::string type = Header(response, "Content-Type");
    if (type.find("xml") != std::string::npos) {
      return Fail(Errc::kUnavailable, UrlOf(key) +
                                          ": the server began to answer and sent an error"
                                          " in place of the object" +
                                          WhatItAnswered(response));
    }
    return Fail(Errc::kInvalid, UrlOf(key) + ": " + client_.ServerName() +
                                    " does not speak S3: its answer has no ETag" +
                                    WhatItAnswered(response));
  }

  /// For a range in which there is nothing to read: what the object is, and that it is there.
  Status ReadNothing(std::string_view key, const ReadOptions& options, const CallContext& ctx) {
    LEAT_ASSIGN_OR_RETURN(ObjectInfo info, Stat(key, options.if_version.version_id, ctx));
    if (!SameVersion(options.if_version, info.version)) {
      return FailReplaced(UrlOf(key), options.if_version, info.version);
    }
    if (options.length > 0 && options.offset < info.size) {
      return Fail(Errc::kUnavailable,
                  UrlOf(key) + ": the server says that there is nothing at byte " +
                      std::to_string(options.offset) + " of " + std::to_string(info.size));
    }
    return options.on_info ? options.on_info(info) : Status();
  }

  /// The condition did not hold: finds out what is there now, so that the message names both.
  std::unexpected<Error> FailWithPresent(std::string_view key, const Version& pin,
                                         const CallContext& ctx) {
    auto now = Stat(key, pin.version_id, ctx);
    if (now) return FailReplaced(UrlOf(key), pin, now->version);
    return Fail(Errc::kConflict, UrlOf(key) + " was replaced while it was read (" + NameOf(pin) +
                                     " was asked for; what is there now cannot be told: " +
                                     now.error().message() + ")");
  }

  Status CheckOrder(std::string_view prefix, std::string_view before,
                    std::span<const ObjectInfo> objects) const {
    for (const ObjectInfo& info : objects) {
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
    return {};
  }

  /// A page may be empty and not the last: where a stretch holds nothing but what was deleted or
  /// replaced, what is known so far is not asked for again after a failure.
  Result<ListPage> ListWithVersions(std::string_view prefix, const ListOptions& options,
                                    const CallContext& ctx) {
    constexpr int kMostRequests = 1000;
    std::string key = options.start_after, version;
    for (int request = 0; request < kMostRequests; ++request) {
      LEAT_ASSIGN_OR_RETURN(VersionListing listing,
                            ListVersionsOnce(prefix, options, key, version, ctx));
      // Ceph begins with the marker's own versions again.
      const auto known = [&](const std::string& k) {
        return !options.start_after.empty() && k <= options.start_after;
      };
      ListPage page;
      page.objects = std::move(listing.objects);
      const auto first = std::ranges::find_if_not(page.objects, known, &ObjectInfo::key);
      page.objects.erase(page.objects.begin(), first);
      LEAT_RETURN_IF_ERROR(CheckOrder(prefix, options.start_after, page.objects));
      page.truncated = listing.truncated;
      page.next_after = listing.truncated ? std::move(listing.settled) : "";
      if (!page.truncated || (!page.next_after.empty() && !known(page.next_after))) return page;
      // All of it were versions of one key: the next ones.
      if (listing.last_key < key || (listing.last_key == key && listing.last_version == version))
        break;
      key = std::move(listing.last_key);
      version = std::move(listing.last_version);
    }
    return Fail(Errc::kCorrupt, UrlOf(prefix) + ": the listing is truncated but does not go on");
  }

  Result<VersionListing> ListVersionsOnce(std::string_view prefix, const ListOptions& options,
                                          const std::string& key, const std::string& version,
                                          const CallContext& ctx) {
    Spec spec{.query = "versions&encoding-type=url"};
    if (!key.empty()) spec.query += "&key-marker=" + net::PercentEncode(key);
    if (!version.empty()) spec.query += "&version-id-marker=" + net::PercentEncode(version);
    if (options.max_keys > 0) spec.query += "&max-keys=" + std::to_string(options.max_keys);
    if (!prefix.empty()) spec.query += "&prefix=" + net::PercentEncode(prefix);
    LEAT_ASSIGN_OR_RETURN(Answer answer, AskForListing(spec, prefix, ctx));
    if (answer.response.status == 403) {
      auto refused = answer.Failure();
      return Fail(refused.error().code(),
                  refused.error().message() +
                      "; listing versions needs a right of its own (s3:ListBucketVersions)");
    }
    if (!answer.ok()) return answer.Failure();
    std::string& body = answer.response.body;
    // A server that does not know the parameter lists objects.
    if (std::string_view(body).substr(0, 512).find("<ListBucketResult") != std::string_view::npos) {
      return Fail(Errc::kUnsupported,
                  UrlOf(prefix) + ": " + client_.ServerName() + " does not list versions");
    }
    auto listing = ParseVersions(body);
    if (!listing) return Fail(std::move(listing), UrlOf(prefix));
    return listing;
  }

  /// An answer that is a listing, or the store's refusal.
  Result<Answer> AskForListing(const Spec& spec, std::string_view prefix, const CallContext& ctx) {
    LEAT_ASSIGN_OR_RETURN(Answer answer, client_.Send(spec, ctx));
    answer.asked.url = UrlOf(prefix);
    if (!answer.ok()) return answer;
    const std::string_view start = std::string_view(answer.response.body).substr(0, 512);
    const bool is_xml = start.find("<ListBucketResult") != start.npos ||
                        start.find("<ListVersionsResult") != start.npos ||
                        start.find("<?xml") != start.npos;
    if (!is_xml) {
      return Fail(Errc::kInvalid, UrlOf(prefix) + ": " + client_.ServerName() +
                                      " does not speak S3" + WhatItAnswered(answer.response));
    }
    if (start.find("<Error") != start.npos) {
      if (const auto error = ParseError(answer.response.body)) {
        answer.error = *error;
        answer.response.status = 500;  // an error behind a 200 came up while the server worked
      }
    }
    return answer;
  }

  Result<Listing> ListOnce(std::string_view prefix, const ListOptions& options,
                           const std::string& at, const CallContext& ctx) {
    for (;;) {
      const bool v1 = IsV1();
      Spec spec{.query = ListQuery(prefix, options, at, v1)};
      LEAT_ASSIGN_OR_RETURN(Answer answer, AskForListing(spec, prefix, ctx));
      if (!answer.ok()) {
        if (!v1 && (answer.error.code == "NotImplemented" || answer.response.status == 501)) {
          NoteV1();
          continue;
        }
        return answer.Failure();
      }
      auto listing = ParseListing(answer.response.body);
      if (!listing) return Fail(std::move(listing), UrlOf(prefix));
      // Version 1 does not know start-after; a first page is the same in both.
      if (!v1 && !listing->is_v2) {
        NoteV1();
        if (!options.start_after.empty()) continue;
      }
      return listing;
    }
  }

  static std::string ListQuery(std::string_view prefix, const ListOptions& options,
                               const std::string& at, bool v1) {
    std::string query = v1 ? "encoding-type=url" : "list-type=2&encoding-type=url";
    if (!at.empty()) {
      query += (v1 ? "&marker=" : "&continuation-token=") + net::PercentEncode(at);
    } else if (!options.start_after.empty()) {
      query += (v1 ? "&marker=" : "&start-after=") + net::PercentEncode(options.start_after);
    }
    if (options.max_keys > 0) query += "&max-keys=" + std::to_string(options.max_keys);
    if (!prefix.empty()) query += "&prefix=" + net::PercentEncode(prefix);
    return query;
  }

  bool IsV1() { return v1_.load(std::memory_order_relaxed); }
  void NoteV1() { v1_.store(true, std::memory_order_relaxed); }

  void AddWhatIsKept(Spec& spec, const Metadata& metadata) const {
    for (const auto& [name, value] : metadata) spec.headers.Add("x-amz-meta-" + name, value);
    for (const auto& [name, value] : put_headers_.fields()) spec.headers.Add(name, value);
  }

  const net::Headers put_headers_;
  S3Client client_;
  std::atomic<Checksums> checksums_{Checksums::kUnknown};
  std::atomic<bool> refuses_unsigned_{false};
  std::atomic<bool> removes_many_{digest::CanHash(digest::Kind::kMd5)};
  std::atomic<bool> v1_{false};  ///< the server lists by version 1 only
};

}  // namespace

Result<std::unique_ptr<ObjectStore>> MakeS3Store(S3Options options,
                                                 auth::CredentialProvider& credentials,
                                                 net::HttpTransport& http, Clock& clock) {
  LEAT_ASSIGN_OR_RETURN(
      Endpoint endpoint,
      Endpoint::Make(options.bucket, options.region, options.endpoint, options.addressing_style));
  return std::make_unique<S3Store>(std::move(options), std::move(endpoint), credentials, http,
                                   clock);
}

}  // namespace leat::store::s3
