// What is copied from and to: the files below a prefix of a store, or in a folder of this machine.
#ifndef LEAT_TRANSFER_PLACE_H_
#define LEAT_TRANSFER_PLACE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/context.h"
#include "base/error.h"
#include "digest/digest.h"
#include "snapshot/manifest.h"
#include "store/object_store.h"
#include "transfer/filter.h"

namespace leat::transfer {

struct Item;

/// A value; the store is shared.
struct Place {
  std::shared_ptr<store::ObjectStore> store;  ///< null for a folder
  std::string prefix;                         ///< in the store: "" or ends in '/'
  std::string folder;                         ///< of this machine, which need not exist yet
  std::string url;                            ///< for messages
  std::string account = {};  ///< whose credentials it is reached with: tells equal names apart
  /// The one file that is meant, relative to prefix or folder; empty: all.
  std::string only = {};

  /// A source's file has this path here: its own, but where a single one gets another name.
  const std::string& NameFor(const Item& item) const;

  bool local() const { return store == nullptr; }
  std::string KeyOf(std::string_view path) const { return prefix + std::string(path); }
  std::string PathOf(std::string_view path) const { return folder + "/" + std::string(path); }
  /// Of a file of this machine: a link that is kept has its name without the suffix.
  std::string PathOf(const Item& item) const;
  /// Of one of its files: for messages.
  std::string NameOf(std::string_view path) const;
  /// The server's bucket, and what tells servers apart.
  std::string bucket() const;
  bool SameServer(const Place& other) const;
};

/// A file or an object. A value.
struct Item {
  std::string path;  ///< relative, components joined by '/'
  std::uint64_t size = 0;
  /// Of a file its own; of an object when it was stored, until its metadata is asked for.
  std::int64_t mtime_ns = 0;
  store::Version version = {};                    ///< of an object
  bool in_parts = false;                          ///< the etag is no digest of its bytes
  std::optional<digest::Expected> expected = {};  ///< what its listing says of its bytes
  bool link = false;  ///< a symbolic link that is kept as one: its target is the contents
};

enum class Links : std::uint8_t { kSkip, kFollow, kKeep };
/// A kept link is stored as an object of this name, as rclone does it.
inline constexpr std::string_view kLinkSuffix = ".rclonelink";
/// Names of files that are being written begin so: nobody lists them.
inline constexpr std::string_view kTemporary = ".leat-tmp-";

struct ListRequest {
  const Filter* filter = nullptr;  ///< null: all
  Links links = Links::kSkip;
  bool markers = false;  ///< the empty objects that stand for folders, too
  std::function<void(std::uint64_t)> on_progress = {};
  /// What really lies in a store, though a manifest there may say otherwise.
  bool raw = false;
  bool any_manifest = false;  ///< raw: it is not read, and may be damaged
};
struct Listed {
  std::vector<Item> items;                          ///< in byte order of their paths
  std::optional<snapshot::Manifest> manifest = {};  ///< of a tree that is exchanged whole
  std::vector<Item> control = {};                   ///< raw: what belongs to the manifest
  /// Set where the manifest has objects lie elsewhere than under their names: reads them.
  std::shared_ptr<store::ObjectStore> store = {};
  std::vector<std::string> empty_folders;
  std::uint64_t skipped_links = 0, skipped_special = 0;
  /// Folders that could not be read, with the reason; what lies in them is not known.
  std::vector<std::string> failed;
};
/// Everything that is meant; empty where there is nothing. kNotFound for a folder or bucket that
/// does not exist.
Result<Listed> ListPlace(const Place& place, const ListRequest& request, const CallContext& ctx);

}  // namespace leat::transfer

#endif  // LEAT_TRANSFER_PLACE_H_
