// An object's bytes in order, fetched by several requests at once, and held to its digest. Private
// to this folder.
#ifndef LEAT_ARCHIVE_ORDERED_READER_H_
#define LEAT_ARCHIVE_ORDERED_READER_H_

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "archive/buffers.h"
#include "archive/failure.h"
#include "digest/digest.h"
#include "store/object_store.h"

namespace leat::archive {

/// For one thread. Begins to read when it is made. Errors are set in `failure` as well.
class OrderedReader {
 public:
  struct Range {
    std::uint64_t offset = 0, length = 0;
  };
  struct Piece {
    std::uint64_t offset = 0;
    std::shared_ptr<const Buffer> buffer;  ///< null: there are no more
  };

  /// `ranges` in order; where the store cannot read ranges, all bytes are delivered. All outlive
  /// it.
  OrderedReader(store::ObjectStore& store, const store::ObjectInfo& object,
                const std::vector<Range>& ranges, std::size_t request, std::size_t most_requests,
                Failure& failure);
  ~OrderedReader();

  Result<Piece> Next();
  /// When the last piece was delivered, and they were the whole object: kCorrupt where it is not
  /// what the store promises.
  Status CheckDigest();

 private:
  void FetchRanges();
  Status Fetch(std::size_t index, Buffer& buffer);
  /// Whether ranges are what the server sends, as the first one's answer shows, for which others
  /// wait where theirs was all of the object.
  bool SendsRanges(std::size_t index, const store::ObjectInfo& info);
  Status FetchWhole();
  Status OnInfo(const store::ObjectInfo& info);
  void Deliver(std::size_t index, Piece piece);
  void StartHash();
  void Hash();

  store::ObjectStore& store_;
  const store::ObjectInfo& object_;
  Failure& failure_;
  std::vector<Range> requests_;
  const std::shared_ptr<BufferPool> pool_;  // shared with its buffers

  std::mutex claim_;  // held while waiting for a buffer, so that the first request gets the first
  std::size_t claimed_ = 0;

  std::mutex mutex_;  // guards what follows
  std::condition_variable_any arrived_, known_;
  bool whole_ = false;                // what is read is the whole object
  std::optional<bool> sends_ranges_;  // null: not known yet
  std::map<std::size_t, Piece> pieces_;
  std::optional<std::size_t> end_;  // so many pieces there are
  std::optional<store::Version> version_;
  std::optional<digest::Expected> expected_;

  std::size_t next_ = 0;

  std::mutex hash_mutex_;  // guards the two that follow
  std::deque<std::shared_ptr<const Buffer>> to_hash_;
  bool no_more_ = false;
  std::condition_variable_any to_hash_changed_;
  std::unique_ptr<digest::Hasher> hasher_;
  std::jthread hash_thread_;
  std::vector<std::jthread> threads_;
};

}  // namespace leat::archive

#endif  // LEAT_ARCHIVE_ORDERED_READER_H_
