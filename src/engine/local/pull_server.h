// Downloads for the processes of a job, which do not see leat's home: they ask by LEAT_SOCK
// (docs/formats/socket.md).
#ifndef LEAT_ENGINE_LOCAL_PULL_SERVER_H_
#define LEAT_ENGINE_LOCAL_PULL_SERVER_H_

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "job/home.h"
#include "job/pull.h"
#include "os/file.h"

namespace leat::engine::local {

/// Listens on an abstract socket, and lets in processes of the same user alone. Each request has a
/// process of its own, so that the supervisor waits for none.
class PullServer {
 public:
  /// Where the job sees a folder of this machine, and that folder.
  using Folders = std::vector<std::pair<std::string, std::string>>;

  /// `close_in_child`: what those processes must not hold. Null where no socket can be had.
  static std::unique_ptr<PullServer> Open(const std::string& run_id, job::Home home,
                                          Folders folders, std::function<void()> close_in_child);

  int fd() const { return socket_.get(); }
  /// "@leat-RUN": for LEAT_SOCK.
  const std::string& name() const { return name_; }
  /// Somebody has connected.
  void OnConnection();

 private:
  PullServer(std::string name, os::UniqueFd socket, job::Home home, Folders folders,
             std::function<void()> close)
      : name_(std::move(name)),
        socket_(std::move(socket)),
        home_(std::move(home)),
        folders_(std::move(folders)),
        close_(std::move(close)) {}
  [[noreturn]] void Serve(os::UniqueFd connection);

  const std::string name_;
  os::UniqueFd socket_;
  const job::Home home_;
  const Folders folders_;
  const std::function<void()> close_;
};

/// What a leat inside a job does instead of downloading by itself. kNotFound: LEAT_SOCK names no
/// supervisor that answers.
Result<job::Pulled> PullBySocket(const std::string& socket, const std::string& source,
                                 const std::string& dir, bool strict_pins);

}  // namespace leat::engine::local

#endif  // LEAT_ENGINE_LOCAL_PULL_SERVER_H_
