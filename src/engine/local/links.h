// Where there are no namespaces: attachments in folders of the home, and symbolic links at the
// targets.
#ifndef LEAT_ENGINE_LOCAL_LINKS_H_
#define LEAT_ENGINE_LOCAL_LINKS_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "job/data_process.h"
#include "os/file.h"

namespace leat::engine::local {

/// The folder of one run under HOME/mnt, with a lock that says that the run lives. Takes everything
/// away when it goes out of scope. What killed runs have left there is taken away when the next one
/// is made.
class RunFolder {
 public:
  static Result<std::unique_ptr<RunFolder>> Make(const std::string& mounts_dir,
                                                 const std::string& run_id);
  ~RunFolder();

  const std::string& path() const { return path_; }
  /// Mounts FUSE in a folder of its own; the descriptor to serve. The folder is `path()`/i.
  Result<os::UniqueFd> MountFuse(std::size_t i, bool allow_other);
  /// A symbolic link at the attachment's target to where it is. kConflict: something is there, or
  /// another run's link.
  Status Link(std::size_t i, const job::Attachment& attachment);

 private:
  RunFolder(std::string mounts_dir, std::string path)
      : mounts_dir_(std::move(mounts_dir)), path_(std::move(path)) {}
  bool IsStale(const std::string& link) const;

  const std::string mounts_dir_, path_;
  os::UniqueFd lock_;
  std::vector<std::string> links_;
};

}  // namespace leat::engine::local

#endif  // LEAT_ENGINE_LOCAL_LINKS_H_
