// What a store around a store does not change.
#ifndef LEAT_STORE_FORWARDING_STORE_H_
#define LEAT_STORE_FORWARDING_STORE_H_

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "store/object_store.h"

namespace leat::store {

/// Hands every call on; a decorator overrides what it is there for.
class ForwardingStore : public ObjectStore {
 public:
  explicit ForwardingStore(std::shared_ptr<ObjectStore> inner) : inner_(std::move(inner)) {}

  std::string_view Describe() const override { return inner_->Describe(); }
  std::string_view Identity() const override { return inner_->Identity(); }
  Capabilities capabilities() const override { return inner_->capabilities(); }
  std::string UrlOf(std::string_view key) const override { return inner_->UrlOf(key); }
  Result<ObjectInfo> Stat(std::string_view key, std::string_view version_id,
                          const CallContext& ctx) override {
    return inner_->Stat(key, version_id, ctx);
  }
  Status Read(std::string_view key, const ReadOptions& options, const Sink& sink,
              const CallContext& ctx) override {
    return inner_->Read(key, options, sink, ctx);
  }
  Result<ListPage> List(std::string_view prefix, const ListOptions& options,
                        const CallContext& ctx) override {
    return inner_->List(prefix, options, ctx);
  }
  Result<Version> Put(std::string_view key, std::span<const std::byte> body,
                      const PutOptions& options, const CallContext& ctx) override {
    return inner_->Put(key, body, options, ctx);
  }
  Status Remove(std::string_view key, const CallContext& ctx) override {
    return inner_->Remove(key, ctx);
  }
  std::vector<Status> RemoveMany(std::span<const Removal> removals,
                                 const CallContext& ctx) override {
    return inner_->RemoveMany(removals, ctx);
  }
  std::size_t max_removals() const override { return inner_->max_removals(); }
  UploadLimits upload_limits() const override { return inner_->upload_limits(); }
  Result<std::string> BeginUpload(std::string_view key, const PutOptions& options,
                                  const CallContext& ctx) override {
    return inner_->BeginUpload(key, options, ctx);
  }
  Result<Part> PutPart(std::string_view key, std::string_view upload, std::size_t number,
                       std::span<const std::byte> body, const CallContext& ctx) override {
    return inner_->PutPart(key, upload, number, body, ctx);
  }
  Result<std::vector<Part>> UploadedParts(std::string_view key, std::string_view upload,
                                          const CallContext& ctx) override {
    return inner_->UploadedParts(key, upload, ctx);
  }
  Result<Version> CompleteUpload(std::string_view key, std::string_view upload,
                                 std::span<const Part> parts, const PutOptions& options,
                                 const CallContext& ctx) override {
    return inner_->CompleteUpload(key, upload, parts, options, ctx);
  }
  Status AbortUpload(std::string_view key, std::string_view upload,
                     const CallContext& ctx) override {
    return inner_->AbortUpload(key, upload, ctx);
  }
  Result<std::vector<PartDigest>> PartDigests(std::string_view key, const Version& version,
                                              const CallContext& ctx) override {
    return inner_->PartDigests(key, version, ctx);
  }
  Result<Version> CopyFrom(std::string_view bucket, std::string_view source,
                           const Version& if_version, std::string_view key,
                           const CallContext& ctx) override {
    return inner_->CopyFrom(bucket, source, if_version, key, ctx);
  }
  Result<Part> CopyPart(std::string_view bucket, std::string_view source, const Version& if_version,
                        std::uint64_t offset, std::uint64_t length, std::string_view key,
                        std::string_view upload, std::size_t number,
                        const CallContext& ctx) override {
    return inner_->CopyPart(bucket, source, if_version, offset, length, key, upload, number, ctx);
  }
  Status MakeBucket(const CallContext& ctx) override { return inner_->MakeBucket(ctx); }
  Status RemoveBucket(const CallContext& ctx) override { return inner_->RemoveBucket(ctx); }
  Result<std::vector<BucketInfo>> Buckets(const CallContext& ctx) override {
    return inner_->Buckets(ctx);
  }

 protected:
  ObjectStore& inner() const { return *inner_; }

 private:
  const std::shared_ptr<ObjectStore> inner_;
};

}  // namespace leat::store

#endif  // LEAT_STORE_FORWARDING_STORE_H_
