// A dataset in a folder that the user names: what leat dataset pull does, and leat.download() of
// Python.
#ifndef LEAT_JOB_PULL_H_
#define LEAT_JOB_PULL_H_

#include <cstdint>
#include <string>

#include "base/context.h"
#include "base/error.h"
#include "job/mount_spec.h"
#include "job/remote.h"

namespace leat::job {

struct Pulled {
  std::string dir;
  std::uint64_t files = 0, bytes = 0, requests = 0;
  bool there_before = false;  ///< it was complete, and of this version
  std::string etag, version_id, pin;
};

/// A source as `leat dataset pull` reads it: with the options of a mount, expanded where its name
/// says so.
Result<MountSpec> ParsePull(std::string_view text, const config::Environment& env);

/// `dir` (absolute) is there complete and verified, or as it was. All who pull the same on this
/// machine download it once: the others copy what the first has, or what a run has copied. Files
/// are read-only, folders are the user's. kConflict: `dir` holds what no pull has put there. What a
/// killed one has brought is gone on with by the next into the same folder. Nothing is synced:
/// after a power loss the next pull finds out.
Result<Pulled> PullDataset(const MountSpec& spec, const std::string& dir, Toolbox& tools,
                           const CallContext& ctx);

}  // namespace leat::job

#endif  // LEAT_JOB_PULL_H_
