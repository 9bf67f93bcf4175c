#include "store/memory/memory_store.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "base/bytes.h"

namespace leat::store::memory {
namespace {

/// Small enough that the tests of every reader see a body in pieces.
constexpr std::size_t kPiece = 64 * kKiB;

struct Stored {
  ObjectInfo info;
  /// Shared by the map and the reads under way, so that a put need not wait for them.
  std::shared_ptr<const std::string> body;
};

class MemoryStore final : public ObjectStore {
 public:
  MemoryStore(std::string name, std::size_t page_size)
      : name_(std::move(name)), page_size_(std::max<std::size_t>(page_size, 1)) {}

  std::string_view Describe() const override { return name_; }
  std::string_view Identity() const override { return name_; }
  Capabilities capabilities() const override {
    return {.list = true,
            .ranges = true,
            .versions = true,
            .list_versions = true,
            .conditional_read = true,
            .put = true,
            .put_if_absent = true,
            .metadata = true,
            .any_key = true};
  }

  Result<ObjectInfo> Stat(std::string_view key, std::string_view version_id,
                          const CallContext& ctx) override {
    LEAT_RETURN_IF_ERROR(Begin(key, ctx));
    LEAT_ASSIGN_OR_RETURN(const Stored stored, Find(key, version_id));
    return stored.info;
  }

  Status Read(std::string_view key, const ReadOptions& options, const Sink& sink,
              const CallContext& ctx) override {
    LEAT_RETURN_IF_ERROR(Begin(key, ctx));
    LEAT_ASSIGN_OR_RETURN(Stored stored, Find(key, options.if_version.version_id));
    if (!SameVersion(options.if_version, stored.info.version)) {
      return FailReplaced(UrlOf(key), options.if_version, stored.info.version);
    }
    const std::span<const std::byte> body = AsBytes(*stored.body);
    const std::uint64_t from = std::min<std::uint64_t>(options.offset, body.size());
    const std::uint64_t length = std::min<std::uint64_t>(options.length, body.size() - from);
    if (options.on_info) LEAT_RETURN_IF_ERROR(options.on_info(stored.info));
    for (std::span<const std::byte> rest = body.subspan(from, length); !rest.empty();) {
      if (ctx.cancelled()) return Fail(Errc::kCancelled, UrlOf(key) + ": cancelled");
      const auto piece = rest.first(std::min(rest.size(), kPiece));
      LEAT_RETURN_IF_ERROR(sink(piece));
      rest = rest.subspan(piece.size());
    }
    return {};
  }

  Result<ListPage> List(std::string_view prefix, const ListOptions& options,
                        const CallContext& ctx) override {
    LEAT_RETURN_IF_ERROR(Begin(prefix, ctx));
    const std::size_t limit =
        options.max_keys == 0 ? page_size_ : std::min(options.max_keys, page_size_);
    ListPage page;
    const std::lock_guard lock(mutex_);
    auto it = std::string_view(options.start_after) < prefix
                  ? objects_.lower_bound(prefix)
                  : objects_.upper_bound(std::string_view(options.start_after));
    for (; it != objects_.end() && it->first.starts_with(prefix); ++it) {
      if (it->second.removed) continue;
      if (page.objects.size() == limit) {
        page.truncated = true;
        page.next_after = page.objects.back().key;
        break;
      }
      ObjectInfo info = it->second.versions.back().info;
      if (!options.with_versions) info.version.version_id.clear();
      info.expected.reset();
      info.metadata.clear();
      page.objects.push_back(std::move(info));
    }
    return page;
  }

  Result<Version> Put(std::string_view key, std::span<const std::byte> body,
                      const PutOptions& options, const CallContext& ctx) override {
    LEAT_RETURN_IF_ERROR(Begin(key, ctx));
    if (key.empty()) return Fail(Errc::kInvalid, UrlOf(key) + ": a key must not be empty");
    digest::Hasher md5(digest::Kind::kMd5);
    md5.Update(body);
    const std::string sum = md5.Finish();
    Stored stored;
    stored.body = std::make_shared<const std::string>(AsText(body));
    stored.info.key = key;
    stored.info.size = body.size();
    stored.info.modified = std::chrono::system_clock::now();
    stored.info.version.etag = ToHex(AsBytes(sum));
    stored.info.expected = digest::Expected{digest::Kind::kMd5, sum};
    stored.info.metadata = options.metadata;

    const std::lock_guard lock(mutex_);
    History& history = objects_.try_emplace(std::string(key)).first->second;
    if (options.if_absent && !history.removed && !history.versions.empty()) {
      return Fail(Errc::kConflict, UrlOf(key) + " exists already (" +
                                       NameOf(history.versions.back().info.version) + ")");
    }
    stored.info.version.version_id = "v" + std::to_string(++last_version_);
    history.removed = false;
    history.versions.push_back(std::move(stored));
    return history.versions.back().info.version;
  }

  Status Remove(std::string_view key, const CallContext& ctx) override {
    LEAT_RETURN_IF_ERROR(Begin(key, ctx));
    const std::lock_guard lock(mutex_);
    if (const auto it = objects_.find(key); it != objects_.end()) it->second.removed = true;
    return {};
  }

  UploadLimits upload_limits() const override {
    return {.min_part = 1, .max_part = UINT64_MAX, .max_parts = 10'000};
  }

  Result<std::string> BeginUpload(std::string_view key, const PutOptions& options,
                                  const CallContext& ctx) override {
    LEAT_RETURN_IF_ERROR(Begin(key, ctx));
    if (key.empty()) return Fail(Errc::kInvalid, UrlOf(key) + ": a key must not be empty");
    const std::lock_guard lock(mutex_);
    const std::string id = "u" + std::to_string(++last_upload_);
    uploads_[id].metadata = options.metadata;
    return id;
  }
  Result<Part> PutPart(std::string_view key, std::string_view upload, std::size_t number,
                       std::span<const std::byte> body, const CallContext& ctx) override {
    LEAT_RETURN_IF_ERROR(Begin(key, ctx));
    digest::Hasher md5(digest::Kind::kMd5);
    md5.Update(body);
    const Part part{number, body.size(), ToHex(AsBytes(md5.Finish()))};
    const std::lock_guard lock(mutex_);
    const auto found = uploads_.find(upload);
    if (found == uploads_.end()) return NoUpload(key);
    found->second.parts[number] = {part, std::string(AsText(body))};
    return part;
  }
  Result<std::vector<Part>> UploadedParts(std::string_view key, std::string_view upload,
                                          const CallContext& ctx) override {
    LEAT_RETURN_IF_ERROR(Begin(key, ctx));
    const std::lock_guard lock(mutex_);
    const auto found = uploads_.find(upload);
    if (found == uploads_.end()) return NoUpload(key);
    std::vector<Part> parts;
    for (const auto& [number, stored] : found->second.parts) parts.push_back(stored.first);
    return parts;
  }
  Result<Version> CompleteUpload(std::string_view key, std::string_view upload,
                                 std::span<const Part> parts, const PutOptions& options,
                                 const CallContext& ctx) override {
    std::string body;
    PutOptions put = options;
    {
      const std::lock_guard lock(mutex_);
      const auto found = uploads_.find(upload);
      if (found == uploads_.end()) {
        const auto done = completed_.find(upload);
        if (done != completed_.end()) return done->second;
        return NoUpload(key);
      }
      for (const Part& part : parts) {
        const auto stored = found->second.parts.find(part.number);
        if (stored == found->second.parts.end() || stored->second.first.etag != part.etag)
          return Fail(Errc::kInvalid, UrlOf(key) + ": a part is not there");
        body += stored->second.second;
      }
      put.metadata = found->second.metadata;
    }
    LEAT_ASSIGN_OR_RETURN(Version version, Put(key, AsBytes(body), put, ctx));
    const std::lock_guard lock(mutex_);
    uploads_.erase(uploads_.find(upload));
    completed_[std::string(upload)] = version;
    return version;
  }
  Status AbortUpload(std::string_view key, std::string_view upload,
                     const CallContext& ctx) override {
    LEAT_RETURN_IF_ERROR(Begin(key, ctx));
    const std::lock_guard lock(mutex_);
    if (const auto found = uploads_.find(upload); found != uploads_.end()) uploads_.erase(found);
    return {};
  }

 private:
  struct Upload {
    Metadata metadata;
    std::map<std::size_t, std::pair<Part, std::string>> parts;
  };
  struct History {
    std::vector<Stored> versions;  ///< oldest first
    bool removed = false;          ///< no version is the newest; each can still be read by its id
  };

  Status Begin(std::string_view key, const CallContext& ctx) const {
    if (ctx.cancelled()) return Fail(Errc::kCancelled, UrlOf(key) + ": cancelled");
    if (ctx.expired()) return Fail(Errc::kDeadline, UrlOf(key) + ": out of time");
    return {};
  }

  std::unexpected<Error> NoUpload(std::string_view key) const {
    return Fail(Errc::kNotFound, UrlOf(key) + ": there is no such upload");
  }

  Result<Stored> Find(std::string_view key, std::string_view version_id) const {
    const std::lock_guard lock(mutex_);
    if (const auto it = objects_.find(key); it != objects_.end()) {
      if (version_id.empty()) {
        if (!it->second.removed && !it->second.versions.empty()) return it->second.versions.back();
      } else {
        for (const Stored& stored : it->second.versions) {
          if (stored.info.version.version_id == version_id) return stored;
        }
      }
    }
    if (version_id.empty()) return Fail(Errc::kNotFound, UrlOf(key) + " does not exist");
    return Fail(Errc::kNotFound,
                UrlOf(key) + " has no version \"" + std::string(version_id) + "\"");
  }

  const std::string name_;
  const std::size_t page_size_;
  mutable std::mutex mutex_;
  std::map<std::string, History, std::less<>> objects_;
  std::uint64_t last_version_ = 0, last_upload_ = 0;
  std::map<std::string, Upload, std::less<>> uploads_;
  std::map<std::string, Version, std::less<>> completed_;
};

}  // namespace

std::unique_ptr<ObjectStore> MakeMemoryStore(std::string name, std::size_t page_size) {
  return std::make_unique<MemoryStore>(std::move(name), page_size);
}

}  // namespace leat::store::memory
