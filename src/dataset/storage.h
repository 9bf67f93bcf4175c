// The shared storage: datasets as plain folders, downloaded once for all who see it, on one machine
// or (NFS) on several. docs/formats/storage.md says what lies where.
#ifndef LEAT_DATASET_STORAGE_H_
#define LEAT_DATASET_STORAGE_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/context.h"
#include "base/error.h"
#include "dataset/lease.h"
#include "dataset/tree_index.h"
#include "os/file.h"

namespace leat::dataset {

/// What a dataset in the storage is and where it came from: its .dataset.json. A value; no secret
/// is in it.
struct Record {
  std::string name;    ///< of the dataset
  std::string uri;     ///< "s3://b/mnist.zip"
  std::string origin;  ///< tells this source from all others, whatever it holds: store and key
  std::string
      identity;  ///< tells these contents from all others: origin, version, what is made of them
  std::string etag, version_id;  ///< as the store has them, whether or not they were asked for
  /// What the store promises of the object ("md5:..."), or a folder's pin ("mf:...").
  std::string digest;
  std::uint64_t size = 0;    ///< of the object, or of the folder's objects
  bool expanded = false;     ///< it is an archive's contents
  std::int64_t created = 0;  ///< seconds since 1970
  std::uint64_t root_inode = 0;
  TreeShape shape;

  std::string Encode() const;
  static Result<Record> Decode(std::string_view text);
};

struct PlaceRequest {
  std::string name;
  std::string etag, version;  ///< that the user pinned: parts of the folder's name
  std::string uri;            ///< for messages
  std::string origin;
  /// Empty where it is not known yet: what the pins name is what is meant.
  std::string identity;
  std::string found_etag, found_version, digest;
  std::uint64_t size = 0;
  bool expanded = false;
  /// Without pins: the name leads to these contents from now on. Else only where it leads nowhere.
  bool newest = true;
  /// Room that it takes, where that is known: it is looked for before anything is downloaded.
  std::uint64_t bytes = 0;
  /// Makes the contents in the folder, which may hold what an earlier attempt has left; ends soon
  /// when the context does.
  std::function<Status(const std::string& dir, const CallContext& ctx)> fill = {};
};

/// A dataset that is complete.
struct Placed {
  std::string path;   ///< of the real folder, which never changes
  os::UniqueFd used;  ///< while it is open, the folder is not cleaned away
  Record record;
  bool reused = false;  ///< it was there
};

struct Stored {
  std::string folder;  ///< below data/: its name, or that of the link to it
  std::string path;    ///< of the real folder
  std::string id;      ///< for Verify and Remove
  std::optional<Record> record;
  bool complete = false;
  bool superseded = false;  ///< nothing leads to it: its name leads to newer contents
  bool in_use = false;
  std::int64_t last_used = 0;  ///< seconds since 1970
  std::uint64_t bytes = 0;     ///< of what is half downloaded: what lies there
};

/// Thread-safe. Any number of processes on any number of machines use one folder.
class Storage {
 public:
  /// `root` is made when something is placed.
  explicit Storage(std::string root, LeaseTimes times = LeaseTimes::Default())
      : root_(std::move(root)), times_(times) {}

  /// root/data: what runs see at /storage/data.
  std::string data_dir() const { return root_ + "/data"; }

  /// What is there for the request, complete; nullopt where it is not. `fill` is not needed.
  /// kConflict: the name belongs to another source.
  Result<std::optional<Placed>> Find(const PlaceRequest& request);
  /// Returns what is there, or fills it: one process of all does. Where that one dies, the next
  /// goes on with what it has. Without pins the name is a link to the newest contents, exchanged
  /// when they are complete.
  Result<Placed> Place(const PlaceRequest& request, const CallContext& ctx);

  /// By folder; also what is half downloaded.
  Result<std::vector<Stored>> List() const;
  /// Hashes every file of a complete one again.
  Result<TreeDifference> Verify(const Stored& stored, const CallContext& ctx) const;
  /// What is there by another name, too, loses this one. kConflict: it is in use, or being
  /// downloaded.
  Status Remove(const Stored& stored);

 private:
  struct Names;
  std::string spare() const { return root_ + "/.leat-spare"; }
  Names NamesOf(const std::string& id) const;
  Result<Names> NamesFor(const PlaceRequest& request) const;
  Result<std::optional<Placed>> Ready(const Names& names, const PlaceRequest& request) const;
  Status CheckLink(const PlaceRequest& request) const;
  Status PointTo(const PlaceRequest& request, const Names& names);
  Status FillAndPublish(const Names& names, const PlaceRequest& request, Lease& lease,
                        const CallContext& ctx);

  const std::string root_;
  const LeaseTimes times_;
};

}  // namespace leat::dataset

#endif  // LEAT_DATASET_STORAGE_H_
