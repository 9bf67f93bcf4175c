// Uploads under way, as they are noted on this machine, so that the next attempt goes on with them
// or takes them away. Private to this folder.
#ifndef LEAT_TRANSFER_UPLOAD_H_
#define LEAT_TRANSFER_UPLOAD_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/context.h"
#include "base/error.h"
#include "os/file.h"
#include "store/object_store.h"

namespace leat::transfer {

/// What is noted of one.
struct UploadNote {
  std::string store;  ///< its identity
  std::string key;
  std::string upload;
  std::uint64_t part_size = 0;
  std::string source;  ///< what tells the bytes apart: path, size and time, or object and version

  std::string Encode() const;
  static std::optional<UploadNote> Decode(std::string_view text);
};

/// The note of one object; held by one process at a time.
class UploadNotes {
 public:
  /// Without a folder, or where another process has the note: nothing is noted.
  static UploadNotes Open(const std::string& dir, std::string_view store, std::string_view key);
  std::optional<UploadNote> Read() const;
  Status Write(const UploadNote& note);
  void Remove();

 private:
  std::string path_;
  os::UniqueFd lock_;
};

/// Takes away what was begun in `store` below `prefix` and nobody goes on with: the notes in `dir`
/// that no process holds, older than `before` (as time(2)).
void AbortForgotten(const std::string& dir, store::ObjectStore& store, std::string_view prefix,
                    std::int64_t before, const CallContext& ctx);

}  // namespace leat::transfer

#endif  // LEAT_TRANSFER_UPLOAD_H_
