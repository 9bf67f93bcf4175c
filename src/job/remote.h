// A source in an object store, opened: its driver with credentials around it, and the snapshot of
// what it holds.
#ifndef LEAT_JOB_REMOTE_H_
#define LEAT_JOB_REMOTE_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "auth/credentials.h"
#include "base/clock.h"
#include "base/context.h"
#include "base/error.h"
#include "config/aws_config.h"
#include "job/home.h"
#include "job/mount_spec.h"
#include "net/http_client.h"
#include "os/file.h"
#include "snapshot/builder.h"
#include "snapshot/content.h"
#include "store/decorators.h"
#include "store/object_store.h"

namespace leat::job {

/// What all sources of a process share. Built once by whoever runs; outlives them.
struct Toolbox {
  config::Environment env;
  Home home;
  std::unique_ptr<net::HttpTransport> http;
  Clock* clock = nullptr;
};
Toolbox MakeToolbox(config::Environment env, Home home);

struct SnapshotFile {
  std::shared_ptr<const snapshot::Snapshot> index;
  os::UniqueFd file;  ///< the snapshot's bytes, in the home or in memory
  snapshot::LeftOut left_out;
  std::vector<std::string> notes;  ///< for the user: ignored pins and the like
  bool known = false;              ///< it was pinned and lay in the home: nothing was listed
  bool is_folder = false;
  std::string version_id;  ///< that a single object has, whether or not it was asked for
  std::optional<digest::Expected> expected;  ///< of a single object, where the store promises one
  bool members = false;                      ///< the files are those in an archive
};

/// Resolves to one object, or to a folder.
class Remote {
 public:
  /// Finds settings and credentials' providers; asks nothing of the network. Without a bucket only
  /// the store's Buckets can be asked. `counts` outlives it.
  static Result<std::unique_ptr<Remote>> Open(const MountSpec& spec, Toolbox& tools,
                                              store::RequestCounts* counts);
  ~Remote();

  store::ObjectStore& store() { return *store_; }
  std::shared_ptr<store::ObjectStore> shared_store() { return store_; }
  auth::CredentialProvider* credentials() { return credentials_.get(); }
  /// The server's URL: "https://s3.amazonaws.com", "http://ceph.lab:8000".
  std::string endpoint() const;

  struct Greeting {
    std::chrono::milliseconds took;
    std::optional<std::chrono::seconds> ahead;  ///< of our clock; none where it told no time
  };
  /// What any answer of the server's tells, whether or not it lets us in.
  Result<Greeting> Greet(const CallContext& ctx);

  /// From now on failures are retried for this long: seconds while attaching, longer while a job
  /// runs. Not while calls are under way.
  void SetRetryTotal(std::chrono::milliseconds total, int attempts);

  /// One HEAD for an object, the listing for a folder; nothing where the pinned snapshot is in the
  /// home.
  Result<SnapshotFile> TakeSnapshot(const CallContext& ctx,
                                    const std::function<void(std::uint64_t)>& on_progress);
  /// From now on snapshots of folders name the versions of their objects, where the store lists
  /// them and lets us.
  void WantVersions() { want_versions_ = true; }
  /// Of a single object's snapshot: whether it is to be expanded, as the spec says. kInvalid:
  /// expand=always of a folder.
  Result<bool> Expands(const SnapshotFile& taken) const;
  /// What is in the archive that `object` (a single object's snapshot) is, to be read without
  /// expanding it. Taken once a version of the archive, and kept in the home. From now on the store
  /// is that of the members.
  Result<SnapshotFile> TakeMembers(const SnapshotFile& object, const CallContext& ctx,
                                   const std::function<void(std::uint64_t)>& on_progress);
  /// The snapshot that an earlier process took.
  Result<SnapshotFile> ReopenSnapshot(os::UniqueFd file);
  /// Of a source that is locked and could not be had as it was: how it differs from that now.
  Error ExplainLock(Error error, const CallContext& ctx);
  /// Before a locked source is read piece by piece: kConflict where it is not what it was, and its
  /// versions are not known by name.
  Status CheckLock(const snapshot::Snapshot& index, const CallContext& ctx);

 private:
  Remote(MountSpec spec, Toolbox& tools) : spec_(std::move(spec)), tools_(tools) {}
  Result<SnapshotFile> SnapshotOfObject(const store::ObjectInfo& info);
  Result<SnapshotFile> SnapshotOfLock();
  /// Empty: none.
  Result<std::string> DifferenceFromLock(const CallContext& ctx);
  Result<SnapshotFile> FindSaved(const std::string& saved_name, const std::string& pin) const;
  store::ObjectInfo ArchiveOf(const snapshot::Snapshot& object) const;
  Result<SnapshotFile> SnapshotOfFolder(const CallContext& ctx,
                                        const std::function<void(std::uint64_t)>& on_progress);
  Status CheckArchived(const snapshot::Snapshot& index, const CallContext& ctx);
  Result<SnapshotFile> Save(snapshot::Builder& builder, const std::string& name);
  std::string SavedName(std::string_view prefix) const;

  MountSpec spec_;
  Toolbox& tools_;
  store::RetryPolicy policy_;
  Result<std::unique_ptr<store::ObjectStore>> OpenLocal();
  Result<std::unique_ptr<store::ObjectStore>> OpenS3();
  Result<std::unique_ptr<store::ObjectStore>> OpenSwift();
  Result<std::unique_ptr<store::ObjectStore>> OpenGcs();

  std::unique_ptr<config::AwsConfig> aws_;
  std::unique_ptr<auth::CredentialProvider> credentials_;
  std::shared_ptr<store::ObjectStore> store_;        // owned by this and by the snapshot's content
  std::shared_ptr<store::ObjectStore> plain_store_;  // every object under its own key
  std::string ca_file_;
  bool want_versions_ = false;
};

}  // namespace leat::job

#endif  // LEAT_JOB_REMOTE_H_
