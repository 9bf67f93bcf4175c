// What `-m [TARGET=]SOURCE[,option...]` says (design section 2), and what a source's URL means.
#ifndef LEAT_JOB_MOUNT_SPEC_H_
#define LEAT_JOB_MOUNT_SPEC_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "config/rclone_config.h"
#include "dataset/options.h"
#include "snapshot/lock_file.h"

namespace leat::job {

/// Where bytes come from. A value.
struct Source {
  /// kRemote is gone once it is resolved (rclone_remote.h).
  enum class Kind : std::uint8_t { kLocal, kS3, kSwift, kGcs, kHttp, kRemote };
  Kind kind = Kind::kLocal;
  std::string text;  ///< as it was written
  /// kS3, kSwift, kGcs: bucket or container, empty for all of them; kRemote: the remote's name.
  std::string bucket;
  /// In a bucket: key or prefix, taken literally; kHttp: path and query after the origin's '/';
  /// kRemote: what follows the ':'.
  std::string key;
  std::string origin;     ///< kHttp: "https://host:port"
  std::string user_info;  ///< kHttp: "user:password", for requests alone
  std::string path;       ///< kLocal

  /// The section of rclone's configuration that says how it is reached; null: none does.
  std::shared_ptr<const config::RcloneRemote> remote;

  bool in_bucket() const { return kind == Kind::kS3 || kind == Kind::kSwift || kind == Kind::kGcs; }
  /// For messages: without what may be a secret.
  std::string ForMessages() const;
};

/// kInvalid with a sentence for a malformed URL or a scheme that there is not.
Result<Source> ParseSource(std::string_view text);

enum class Mode : std::uint8_t { kStream, kCopy };
/// Where a dataset is downloaded to. kNone: it is none, and is attached as its mode says.
enum class Volume : std::uint8_t { kNone, kShared, kDynamic };
/// Whether a source that is one archive becomes its contents. kAuto: where its name says that it is
/// one.
enum class Expand : std::uint8_t { kNever, kAuto, kAlways };

/// What a lock file says of a source.
struct Locked {
  snapshot::LockedSource source;
  std::string file;  ///< the lock file: a folder's entries lie beside it
};

struct MountSpec {
  std::string target;  ///< absolute, without a trailing '/' or "." components
  Source source;
  bool writable = false;
  Mode mode = Mode::kStream;
  std::string etag, version, name, profile, region, endpoint;
  bool anonymous = false;
  bool requester_pays = false;
  Volume volume = Volume::kNone;
  Expand expand = Expand::kNever;
  std::uint64_t volume_size = 5 * kGiB;          ///< kDynamic
  bool advisory_size = false;                    ///< kDynamic: it is not enforced
  bool strict_pins = false;                      ///< pins that a folder cannot have are an error
  std::string access_key_id, secret_access_key;  ///< S3: instead of all other credentials
  std::shared_ptr<const Locked> locked;          ///< these contents, or none
  bool follows_host = true;  ///< a folder: what the host mounts below it later is seen, too
  bool internal = false;     ///< leat's own: not told of among the mounts

  /// Only these contents are wanted, whatever comes after them.
  bool pinned() const { return !etag.empty() || !version.empty(); }
  bool placed() const { return volume != Volume::kNone; }
  /// A folder or file of this machine, attached as it is.
  bool is_bind() const { return source.kind == Source::Kind::kLocal && !placed(); }
};

/// What a dataset is called that has no name: after the last item of its path, without an archive's
/// extension.
std::string DefaultDatasetName(const Source& source);
/// Without quotes and W/, hexadecimal digits in lower case: so etags are compared.
std::string NormalEtag(std::string_view etag);

/// Reads the argument of -m. A word behind the last commas is an option only if it is one that leat
/// knows; everything before belongs to the source. kInvalid: a malformed source or target, an
/// option twice, with a bad value, or of a kind that this source or this version does not have.
/// A remote is resolved by what `env` leads to.
Result<MountSpec> ParseMount(std::string_view text,
                             const config::Environment& env = config::ProcessEnvironment());
/// Only SOURCE[,option...]. The bucket may be missing. `web_folders`: of a web server a folder may
/// be named, too, though nobody can list it.
Result<MountSpec> ParseSourceWithOptions(
    std::string_view text, const config::Environment& env = config::ProcessEnvironment(),
    bool web_folders = false);
/// "auto", "always" or "never"; `where`: for the message.
Result<Expand> ParseExpand(std::string_view value, std::string_view where);
/// An absolute path without "." and empty components. kInvalid for what cannot be a target.
Result<std::string> NormalTarget(std::string_view target);
/// A folder of this machine at a place in the job's view. kInvalid: a target that cannot be one.
Result<MountSpec> FolderMount(const std::string& folder, std::string_view target, bool writable);
/// What the options of a dataset mean: a copy in the shared storage, or in a volume of its own, at
/// /data/NAME.
Result<MountSpec> DatasetMount(const dataset::Options& options,
                               const config::Environment& env = config::ProcessEnvironment());
/// kInvalid where the source names no bucket.
Status CheckBucket(const Source& source);

/// The target with what links in it lead to.
std::string ResolvedTarget(const MountSpec& mount);
/// kInvalid for the same target twice, by whatever names.
Status CheckTargets(const std::vector<MountSpec>& mounts);

}  // namespace leat::job

#endif  // LEAT_JOB_MOUNT_SPEC_H_
