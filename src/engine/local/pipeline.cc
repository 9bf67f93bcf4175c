#include "engine/local/pipeline.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/log.h"
#include "engine/local/run.h"
#include "job/pipeline.h"
#include "net/url.h"
#include "os/file.h"

namespace leat::engine::local {
namespace {

using job::Pipeline;
using job::Stage;

/// Hands on what a stage says, each line behind the stage's name.
class Prefixed {
 public:
  Prefixed(os::UniqueFd from, int to, std::string prefix)
      : from_(std::move(from)), to_(to), prefix_(std::move(prefix)) {}

  int fd() const { return from_.get(); }
  void Read() {
    char buffer[16384];
    const ssize_t n = ::read(from_.get(), buffer, sizeof(buffer));
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) return;
    if (n <= 0) {
      if (!line_.empty()) Write(line_ + "\n");
      line_.clear();
      from_.Reset();
      return;
    }
    line_.append(buffer, static_cast<std::size_t>(n));
    std::string out;
    std::size_t begin = 0;
    for (std::size_t end; (end = line_.find('\n', begin)) != std::string::npos; begin = end + 1)
      out += prefix_ + line_.substr(begin, end + 1 - begin);
    line_.erase(0, begin);
    if (line_.size() > kLongest) out += prefix_ + std::exchange(line_, "") + "\n";
    if (!out.empty()) WriteAll(out);
  }

 private:
  static constexpr std::size_t kLongest = 64 * 1024;

  void Write(const std::string& line) { WriteAll(prefix_ + line); }
  void WriteAll(std::string_view text) const {
    while (!text.empty()) {
      const ssize_t n = ::write(to_, text.data(), text.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return;  // nobody reads: the stage goes on
      text.remove_prefix(static_cast<std::size_t>(n));
    }
  }

  os::UniqueFd from_;
  const int to_;
  const std::string prefix_;
  std::string line_;
};

/// One pipeline's folder in the home: what the stages share, and a record a stage that succeeded.
class Runner {
 public:
  Runner(const PipelineOptions& options, Pipeline pipeline, std::string dir)
      : options_(options), pipeline_(std::move(pipeline)), dir_(std::move(dir)) {}

  /// The exit status; the sentence of an error has been said where there is none.
  Result<int> Run() {
    LEAT_ASSIGN_OR_RETURN(const std::vector<bool> wanted, Wanted());
    // Before hours have gone into the stages in front.
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      if (wanted[i]) LEAT_RETURN_IF_ERROR(CheckVariables(pipeline_.stages[i]));
    }
    LEAT_RETURN_IF_ERROR(os::MakeDirs(dir_ + "/stages"));
    LEAT_RETURN_IF_ERROR(os::MakeDirs(dir_ + "/work"));
    auto lock = os::OpenLocked(dir_ + "/lock", O_RDWR | O_CREAT);
    if (!lock) {
      return Fail(lock.error().code(), fmt::format("pipeline {} is being run already by another "
                                                   "leat",
                                                   pipeline_.name));
    }
    nlohmann::ordered_json plan = nlohmann::ordered_json::array();
    const auto count = std::ranges::count(wanted, true);
    std::int64_t number = 0;
    std::vector<bool> stale(wanted.size(), false);
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      if (!wanted[i]) continue;
      const Stage& stage = pipeline_.stages[i];
      ++number;
      const std::string where = fmt::format("stage {} ({} of {})", stage.name, number, count);
      // What has been made in the meantime, a dry run cannot know.
      stale[i] = options_.dry_run && std::ranges::any_of(stage.needs, [&](std::size_t n) {
                   return static_cast<bool>(stale[n]);
                 });
      std::string inputs;
      std::optional<std::string> done;
      if (!stale[i]) {
        auto digest =
            job::InputsDigest(stage, Needed(stage), config::ProcessEnvironment(), options_.home);
        if (!digest) return Fail(digest.error().code(), where + ": " + digest.error().message());
        inputs = std::move(*digest);
        done = options_.force ? std::nullopt : SucceededAt(stage, inputs);
      }
      if (options_.dry_run) {
        stale[i] = !done;
        plan.push_back({{"name", stage.name}, {"state", done ? "up to date" : "to be run"}});
        if (done) plan.back()["since"] = *done;
        continue;
      }
      if (done) {
        Note(fmt::format("{}: succeeded with the same inputs on {}; not run again (--force)", where,
                         *done));
        continue;
      }
      Note(where);
      ::unlink(RecordOf(stage).c_str());
      const auto began = std::chrono::steady_clock::now();
      LEAT_ASSIGN_OR_RETURN(const int status, RunStage(stage));
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
      if (status != 0) {
        Say(fmt::format("{}: failed with status {} after {:.1f} s; the pipeline ends here", where,
                        status, took.count()));
        return status;
      }
      LEAT_RETURN_IF_ERROR(os::WriteFileAtomic(
          RecordOf(stage), fmt::format("{}\n{}\n", inputs, std::time(nullptr))));
      Note(fmt::format("{}: done in {:.1f} s", where, took.count()));
    }
    if (options_.dry_run) ShowPlan(plan);
    return 0;
  }

 private:
  /// The named stage with what it needs, or all.
  Result<std::vector<bool>> Wanted() const {
    const std::vector<Stage>& stages = pipeline_.stages;
    std::vector<bool> wanted(stages.size(), options_.stage.empty());
    if (options_.stage.empty()) return wanted;
    const auto it = std::ranges::find(stages, options_.stage, &Stage::name);
    if (it == stages.end()) {
      std::string names;
      for (const Stage& stage : stages) names += " " + stage.name;
      return Fail(Errc::kInvalid, fmt::format("{} has no stage \"{}\" (it has:{})", options_.file,
                                              Printable(options_.stage), names));
    }
    wanted[static_cast<std::size_t>(it - stages.begin())] = true;
    for (std::size_t i = stages.size(); i-- > 0;) {
      if (!wanted[i]) continue;
      for (const std::size_t n : stages[i].needs) wanted[n] = true;
    }
    return wanted;
  }

  Status CheckVariables(const Stage& stage) const {
    const auto env = config::ProcessEnvironment();
    const auto fail = [&](const std::string& what) {
      return Fail(Errc::kInvalid, fmt::format("stage {}: {}", stage.name, what));
    };
    for (const std::string& name : stage.required) {
      if (env(name).value_or("").empty()) return fail("ERROR: " + name + " is not set");
    }
    for (const auto& [name, value] : stage.env) {
      if (const auto expanded = job::ExpandVariables(value, env); !expanded)
        return fail(expanded.error().message());
    }
    for (const std::string& text : stage.mounts) {
      const auto expanded = job::ExpandVariables(text, env);
      if (!expanded) return fail(expanded.error().message());
      if (const auto mount = job::ParseMount(*expanded); !mount)
        return fail("mounts: " + mount.error().message());
    }
    return {};
  }

  std::string RecordOf(const Stage& stage) const { return dir_ + "/stages/" + stage.name; }
  std::vector<std::string> Needed(const Stage& stage) const {
    std::vector<std::string> out;
    for (const std::size_t n : stage.needs)
      out.push_back(os::ReadFile(RecordOf(pipeline_.stages[n])).value_or(""));
    return out;
  }
  std::optional<std::string> SucceededAt(const Stage& stage, const std::string& inputs) const {
    const auto record = os::ReadFile(RecordOf(stage));
    if (!record || !record->starts_with(inputs + "\n")) return std::nullopt;
    return net::FormatDate(
        std::chrono::system_clock::from_time_t(std::atoll(record->c_str() + inputs.size() + 1)));
  }

  /// As `leat run` would, in a process of its own.
  Result<int> RunStage(const Stage& stage) {
    const auto env = config::ProcessEnvironment();
    RunOptions run;
    run.home = options_.home;
    run.command = stage.command;
    run.name = stage.name;
    run.workdir = pipeline_.workdir;
    job::MountSpec shared;
    shared.source.kind = job::Source::Kind::kLocal;
    shared.source.path = dir_ + "/work";
    shared.target = pipeline_.workdir;
    shared.writable = true;
    run.mounts.push_back(std::move(shared));
    for (const std::string& text : stage.mounts) {
      LEAT_ASSIGN_OR_RETURN(const std::string expanded, job::ExpandVariables(text, env));
      LEAT_ASSIGN_OR_RETURN(job::MountSpec mount, job::ParseMount(expanded, env));
      run.mounts.push_back(std::move(mount));
    }
    for (const auto& [name, value] : stage.env) {
      LEAT_ASSIGN_OR_RETURN(const std::string expanded, job::ExpandVariables(value, env));
      run.env.push_back(name + "=" + expanded);
    }
    run.env.push_back("LEAT_PIPELINE=" + pipeline_.name);
    // This very leat, for stages that copy.
    char self[PATH_MAX] = {};
    if (::readlink("/proc/self/exe", self, sizeof(self) - 1) > 0) {
      const std::string program = self;
      std::string path = env("PATH").value_or("/usr/bin:/bin");
      for (const std::string& variable : run.env) {
        if (variable.starts_with("PATH=")) path = variable.substr(5);
      }
      run.env.push_back(fmt::format("PATH={}:{}", path, program.substr(0, program.rfind('/'))));
    }

    sigset_t handled, before;
    ::sigemptyset(&handled);
    for (const int sig : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) ::sigaddset(&handled, sig);
    ::sigprocmask(SIG_BLOCK, &handled, &before);
    const os::Cleanup unblock([&] { ::sigprocmask(SIG_SETMASK, &before, nullptr); });
    const os::UniqueFd signals(::signalfd(-1, &handled, SFD_CLOEXEC | SFD_NONBLOCK));
    int out[2], err[2];
    if (::pipe2(out, O_CLOEXEC) != 0) return FailErrno(errno, "starting a stage");
    os::UniqueFd out_read(out[0]), out_write(out[1]);
    if (::pipe2(err, O_CLOEXEC) != 0) return FailErrno(errno, "starting a stage");
    os::UniqueFd err_read(err[0]), err_write(err[1]);
    ::signal(SIGPIPE, SIG_IGN);
    const pid_t parent = ::getpid(), pid = ::fork();
    if (pid < 0) return FailErrno(errno, "starting a stage");
    if (pid == 0) {
      // Whatever ends its parent ends it, and nobody but the parent reads what it says.
      ::prctl(PR_SET_PDEATHSIG, SIGTERM);
      if (::getppid() != parent) ::_exit(1);
      ::signal(SIGPIPE, SIG_DFL);
      out_read.Reset();
      err_read.Reset();
      ::sigprocmask(SIG_SETMASK, &before, nullptr);
      const int null = ::open("/dev/null", O_RDONLY);
      ::dup2(null, STDIN_FILENO);
      ::close(null);
      ::dup2(out_write.get(), STDOUT_FILENO);
      ::dup2(err_write.get(), STDERR_FILENO);
      const int status = local::Run(std::move(run));
      std::fflush(nullptr);
      ::_exit(status);
    }
    out_write.Reset();
    err_write.Reset();
    Prefixed streams[] = {{std::move(out_read), STDOUT_FILENO, stage.name + " | "},
                          {std::move(err_read), STDERR_FILENO, stage.name + " | "}};
    int interrupted = 0;
    while (streams[0].fd() >= 0 || streams[1].fd() >= 0) {
      pollfd polled[3] = {
          {streams[0].fd(), POLLIN, 0}, {streams[1].fd(), POLLIN, 0}, {signals.get(), POLLIN, 0}};
      if (::poll(polled, 3, -1) < 0 && errno != EINTR) break;
      for (const std::size_t i : {0, 1}) {
        if (polled[i].revents != 0) streams[i].Read();
      }
      signalfd_siginfo info;
      while (::read(signals.get(), &info, sizeof(info)) == sizeof(info)) {
        interrupted = static_cast<int>(info.ssi_signo);
        // (what is typed at the terminal has come to the stage, too)
        if (info.ssi_code != SI_KERNEL) ::kill(pid, interrupted);
      }
    }
    int status = 0;
    while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (WIFSIGNALED(status)) return 128 + WTERMSIG(status);
    // What a signal ended has not succeeded, whatever it says.
    if (interrupted != 0 && WEXITSTATUS(status) == 0) return 128 + interrupted;
    return WEXITSTATUS(status);
  }

  void ShowPlan(const nlohmann::ordered_json& stages) const {
    std::string text;
    if (options_.json) {
      const nlohmann::ordered_json plan = {
          {"name", pipeline_.name}, {"work", dir_ + "/work"}, {"stages", stages}};
      text = plan.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
    } else {
      for (const auto& stage : stages) {
        text += fmt::format(
            "{}: {}{}\n", stage["name"].get<std::string>(), stage["state"].get<std::string>(),
            stage.contains("since") ? " since " + stage["since"].get<std::string>() : "");
      }
    }
    std::fwrite(text.data(), 1, text.size(), stdout);
  }

  const PipelineOptions& options_;
  const Pipeline pipeline_;
  const std::string dir_;
};

Result<Pipeline> Load(const std::string& file, const job::Home& home) {
  if (home.dir.empty()) {
    return Fail(Errc::kInvalid,
                "a pipeline needs a place for its files: neither HOME nor LEAT_HOME is set");
  }
  LEAT_ASSIGN_OR_RETURN(const std::string text, os::ReadFile(file, 1 << 20));
  char resolved[PATH_MAX];
  if (::realpath(file.c_str(), resolved) == nullptr) return FailErrno(errno, file);
  LEAT_ASSIGN_OR_RETURN(Pipeline pipeline, job::ParsePipeline(text, resolved));
  // Paths in the file are meant as seen from there.
  const std::string folder = std::string(resolved).substr(0, std::string(resolved).rfind('/') + 1);
  if (::chdir(folder.c_str()) != 0) return FailErrno(errno, folder);
  return pipeline;
}

std::string FolderOf(const Pipeline& pipeline, const job::Home& home) {
  return home.dir + "/pipelines/" + pipeline.name;
}

int Refuse(const Error& error) {
  Say(error.message());
  return 1;
}

}  // namespace

int RunPipeline(const PipelineOptions& options) {
  auto pipeline = Load(options.file, options.home);
  if (!pipeline) return Refuse(pipeline.error());
  const std::string dir = FolderOf(*pipeline, options.home);
  Runner runner(options, std::move(*pipeline), dir);
  const auto status = runner.Run();
  return status ? *status : Refuse(status.error());
}

int CleanPipeline(const std::string& file, const job::Home& home) {
  const auto pipeline = Load(file, home);
  if (!pipeline) return Refuse(pipeline.error());
  const std::string dir = FolderOf(*pipeline, home);
  if (!os::Exists(dir)) return 0;
  const auto lock = os::OpenLocked(dir + "/lock", O_RDWR | O_CREAT);
  if (!lock) return Refuse(Error(Errc::kConflict, "pipeline " + pipeline->name + " is being run"));
  if (const Status removed = os::RemoveTree(dir); !removed) return Refuse(removed.error());
  return 0;
}

}  // namespace leat::engine::local
