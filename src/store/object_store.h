// The driver behind a source: flat keys, whole objects, ranges, versions.
#ifndef LEAT_STORE_OBJECT_STORE_H_
#define LEAT_STORE_OBJECT_STORE_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/context.h"
#include "base/error.h"
#include "digest/digest.h"

namespace leat::store {

/// Which bytes a key holds, as the store tells them apart. A value. At least one of the two is set
/// for a stored object, but for HTTP servers that give neither.
struct Version {
  std::string etag = {};  ///< as the store sent it, quotes removed; a weak one keeps its W/
  /// Where the bucket keeps versions and the request named or returned one.
  std::string version_id = {};

  bool weak() const { return etag.starts_with("W/"); }
  bool empty() const { return etag.empty() && version_id.empty(); }
  bool operator==(const Version&) const = default;
};
/// "etag "9a…"", "version 7Kd…" or "no version": for messages.
std::string NameOf(const Version& version);
/// Whether an object at `now` is what was pinned as `wanted`: where both name a version id and no
/// etag, by that; else by etag.
bool SameVersion(const Version& wanted, const Version& now);
/// kConflict: "<url> was replaced while it was read (etag "9a…" is now "38…")".
std::unexpected<Error> FailReplaced(const std::string& url, const Version& was, const Version& now);

/// What is kept beside an object's bytes, by lower-case name. "mtime" is the time of the file that
/// it was, as rclone writes it.
using Metadata = std::map<std::string, std::string, std::less<>>;
/// Nanoseconds since 1970; nullopt where there is none, or no number.
std::optional<std::int64_t> MtimeOf(const Metadata& metadata);
void SetMtime(Metadata& metadata, std::int64_t ns);

struct ObjectInfo {
  std::string key;
  std::uint64_t size = 0;
  std::optional<std::chrono::system_clock::time_point> modified;
  Version version;
  /// A digest of the whole object that the store vouches for: from Stat and Read (see ReadOptions),
  /// and from List where a listing has digests that are not the etag.
  std::optional<digest::Expected> expected;
  /// Its etag is made of its parts' and is no digest of its bytes, though it may look like one.
  bool in_parts = false;
  bool archived = false;  ///< must be restored before it can be read (Glacier)
  /// From Read: the server sends all of it whatever is asked for, and what was not is dropped here.
  bool comes_whole = false;
  Metadata metadata = {};  ///< only Stat and Read give it
};

/// What a store can do, as positive facts.
struct Capabilities {
  bool list = false;
  bool ranges = false;         ///< offset and length of a read are honoured
  bool versions = false;       ///< version_id can be read
  bool list_versions = false;  ///< ListOptions::with_versions
  bool conditional_read =
      false;  ///< if_version is checked by the server, not by us on the answer's headers
  bool put = false;
  /// The store is asked for it. Whether it keeps the promise when two writers meet is for a probe
  /// to find out (decision 10).
  bool put_if_absent = false;
  bool metadata = false;    ///< is kept
  bool copy = false;        ///< CopyFrom
  bool copy_parts = false;  ///< CopyPart
  bool buckets = false;     ///< MakeBucket, RemoveBucket, Buckets
  /// Any bytes that a URL can carry are a key. Without it only what is a relative path is: no
  /// empty, "." or ".." component, no
  /// '/' at either end, no component over 255 bytes, and no key below another key.
  bool any_key = false;
};

struct ReadOptions {
  std::uint64_t offset = 0;
  /// Bytes at most; to the object's end by default.
  std::uint64_t length = UINT64_MAX;
  /// Only these bytes: an object that has been replaced meanwhile is kConflict (the message names
  /// both versions).
  Version if_version = {};
  /// Called before the first byte with what the response says of the object (size: of the whole
  /// object; expected: of the whole object, and for a range only where its answer tells it). An
  /// error ends the read with it.
  std::function<Status(const ObjectInfo&)> on_info = {};
};
/// Takes bytes in order, on the calling thread; an error ends the read with it.
using Sink = std::function<Status(std::span<const std::byte>)>;

struct ListOptions {
  std::string start_after = {};  ///< only keys greater than this one (bytes), "" for all
  std::size_t max_keys = 0;      ///< a page's size at most; 0: the store's own
  /// Each object with the version_id of what it is now; where Capabilities::list_versions. "null"
  /// is one that can be read, but stands for other bytes after the next Put. kUnsupported: this
  /// server turned out to know no such listing; kDenied: it may need a right of its own.
  bool with_versions = false;
};
struct ListPage {
  std::vector<ObjectInfo> objects;  ///< in byte order of their keys
  /// There are more; the next page starts after the greatest key of this one, `next_after`. With
  /// versions that may be a greater key, and the page may be empty: its keys were deleted.
  bool truncated = false;
  std::string next_after;
};

struct PutOptions {
  bool if_absent = false;  ///< kConflict when the key exists
  Metadata metadata = {};  ///< where the store can keep it
};

/// How large what is written may be. Without parts (max_parts 0) an object is one Put.
struct UploadLimits {
  std::uint64_t max_put = UINT64_MAX;
  std::uint64_t min_part = 0;  ///< but for the last
  std::uint64_t max_part = 0;
  std::size_t max_parts = 0;
};
/// A part of an upload that the store has.
struct Part {
  std::size_t number = 0;  ///< from 1
  std::uint64_t size = 0;
  std::string etag = {};  ///< where the store gives one: the MD5 of its bytes
  std::string checksum =
      {};  ///< another, in the store's own form, that completing has to name again
};

/// One of several objects to remove.
struct Removal {
  std::string key;
  bool in_parts = false;  ///< as a listing tells: its parts may have to be removed, too
};

/// What the store holds a piece of an object in parts to.
struct PartDigest {
  std::uint64_t size = 0;
  std::string md5;  ///< 16 bytes; empty where the etag is the digest of all together
};

struct BucketInfo {
  std::string name;
  std::optional<std::chrono::system_clock::time_point> created;
  std::optional<std::uint64_t> objects, bytes;
};

/// A flat namespace of immutable-until-replaced byte strings: one bucket, container, folder or web
/// server.
///
/// Drivers are thread-safe, block the calling thread, make one request a call (and what following a
/// redirect or a renewal of credentials needs), hold no cache and retry nothing: retries, counts
/// and fault injection are ObjectStores wrapped around an ObjectStore. Every driver and decorator
/// passes the conformance suite (testing/conformance.h). Keys are bytes, taken literally.
///
/// Errors: kNotFound (key or bucket missing), kConflict (if_version, if_absent), kDenied, kInvalid,
/// kUnavailable (worth another try), kCorrupt (the answer is not what was asked for), kUnsupported,
/// kCancelled, kDeadline. What a store lacks is kUnsupported. Messages begin with the object's URL
/// and hold no secret.
class ObjectStore {
 public:
  virtual ~ObjectStore() = default;

  /// For messages, logs and cache identities: "s3://bucket", "https://host". Stable; never contains
  /// a secret.
  virtual std::string_view Describe() const = 0;
  /// Tells apart equal names on different servers: "https://minio.lab:9000 s3://bucket".
  virtual std::string_view Identity() const = 0;
  virtual Capabilities capabilities() const = 0;

  /// `version_id`: of that version; empty: of the newest.
  virtual Result<ObjectInfo> Stat(std::string_view key, std::string_view version_id,
                                  const CallContext& ctx) = 0;
  /// Delivers the range to `sink`. An offset at or beyond the end delivers nothing. Fewer bytes
  /// than the object has in the range is an error (kUnavailable when the connection broke; what was
  /// delivered until then is right).
  virtual Status Read(std::string_view key, const ReadOptions& options, const Sink& sink,
                      const CallContext& ctx) = 0;
  /// One page of the keys that begin with `prefix`.
  virtual Result<ListPage> List(std::string_view prefix, const ListOptions& options,
                                const CallContext& ctx) = 0;
  /// Readers see the old object or the whole new one, never a part.
  virtual Result<Version> Put(std::string_view key, std::span<const std::byte> body,
                              const PutOptions& options, const CallContext& ctx) = 0;
  /// Succeeds whether or not the object existed.
  virtual Status Remove(std::string_view key, const CallContext& ctx) = 0;
  /// An outcome for each, in order; of more than max_removals() with a request for each.
  virtual std::vector<Status> RemoveMany(std::span<const Removal> removals, const CallContext& ctx);
  /// How many objects one request can remove. A server may turn out to know of no such request.
  virtual std::size_t max_removals() const { return 1; }

  /// An object in parts: begun, its parts put in any order and from any thread (again, too: the
  /// last wins), completed. Until then nothing is seen of it but by UploadedParts; what is neither
  /// completed nor aborted costs room for ever. Each part's bytes are confirmed by the store.
  virtual UploadLimits upload_limits() const { return {}; }
  virtual Result<std::string> BeginUpload(std::string_view key, const PutOptions& options,
                                          const CallContext& ctx);
  virtual Result<Part> PutPart(std::string_view key, std::string_view upload, std::size_t number,
                               std::span<const std::byte> body, const CallContext& ctx);
  /// Sorted by number. kNotFound when the store does not know the upload.
  virtual Result<std::vector<Part>> UploadedParts(std::string_view key, std::string_view upload,
                                                  const CallContext& ctx);
  /// `parts`: all of them, by number. Succeeds too when an earlier call, whose answer was lost,
  /// did.
  virtual Result<Version> CompleteUpload(std::string_view key, std::string_view upload,
                                         std::span<const Part> parts, const PutOptions& options,
                                         const CallContext& ctx);
  virtual Status AbortUpload(std::string_view key, std::string_view upload, const CallContext& ctx);

  /// Of an object that was stored in parts, where the store tells; in order, and together as large
  /// as the object.
  virtual Result<std::vector<PartDigest>> PartDigests(std::string_view key, const Version& version,
                                                      const CallContext& ctx);

  /// From the same or another bucket of the same server, without moving the bytes here; with their
  /// metadata. kConflict when the source is not `if_version` any more.
  virtual Result<Version> CopyFrom(std::string_view bucket, std::string_view source,
                                   const Version& if_version, std::string_view key,
                                   const CallContext& ctx);

  /// PutPart of a range of an object of the same server. A server may not heed `if_version`.
  virtual Result<Part> CopyPart(std::string_view bucket, std::string_view source,
                                const Version& if_version, std::uint64_t offset,
                                std::uint64_t length, std::string_view key, std::string_view upload,
                                std::size_t number, const CallContext& ctx);

  /// Succeeds when it is there and ours.
  virtual Status MakeBucket(const CallContext& ctx);
  /// kConflict when it is not empty; succeeds when it is not there.
  virtual Status RemoveBucket(const CallContext& ctx);
  /// All that the credentials can list at this server, by name.
  virtual Result<std::vector<BucketInfo>> Buckets(const CallContext& ctx);

  /// "s3://bucket/key", with unprintable bytes escaped: for messages. Never contains a secret, even
  /// where the key does (the query of a presigned URL). A decorator asks the store that it is
  /// around.
  virtual std::string UrlOf(std::string_view key) const;
};

/// Fills `out` from options.offset (options.length is ignored); returns how many bytes were there,
/// fewer than out.size() only at the end of the object.
Result<std::size_t> ReadInto(ObjectStore& store, std::string_view key, std::span<std::byte> out,
                             ReadOptions options, const CallContext& ctx);

}  // namespace leat::store

#endif  // LEAT_STORE_OBJECT_STORE_H_
