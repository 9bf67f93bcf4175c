#include <fmt/format.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <nlohmann/json.hpp>

#include "base/bytes.h"
#include "base/log.h"
#include "cache/cache.h"
#include "cli/cli.h"
#include "job/isolation.h"
#include "job/remote.h"

namespace leat::cli {
namespace {

using nlohmann::ordered_json;

void PrintJson(const ordered_json& document) {
  const std::string text =
      document.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n";
  std::fwrite(text.data(), 1, text.size(), stdout);
}

int Refuse(const Error& error, int status) {
  Say(error.message());
  return status;
}

/// What `leat doctor` found: a line each, with a verdict.
class Findings {
 public:
  enum class Verdict : std::uint8_t { kGood, kLess, kBad };
  void Add(Verdict verdict, const std::string& what, const std::string& text) {
    items_.push_back({verdict, what, text});
    bad_ |= verdict == Verdict::kBad;
  }
  bool bad() const { return bad_; }
  void Print(bool json) const {
    static constexpr const char* kNames[] = {"ok", "less", "no"};
    ordered_json list = ordered_json::array();
    for (const Item& item : items_) {
      const char* name = kNames[static_cast<int>(item.verdict)];
      if (json) {
        list.push_back({{"what", item.what}, {"verdict", name}, {"text", item.text}});
      } else {
        std::printf("%-5s %-14s %s\n", name, item.what.c_str(), item.text.c_str());
      }
    }
    if (json) PrintJson({{"findings", std::move(list)}});
  }

 private:
  struct Item {
    Verdict verdict;
    std::string what, text;
  };
  std::vector<Item> items_;
  bool bad_ = false;
};

void LookAtCredentials(job::Remote& remote, Findings& findings, bool* anonymous) {
  using Verdict = Findings::Verdict;
  auth::CredentialProvider* const provider = remote.credentials();
  if (provider == nullptr) return;
  const auto credentials = provider->Get({});
  const bool s3 = remote.store().Describe().starts_with("s3:");
  *anonymous = credentials && credentials->anonymous();
  findings.Add(credentials ? Verdict::kGood : Verdict::kBad, "credentials",
               !credentials ? credentials.error().message()
               : *anonymous
                   ? fmt::format("none found: requests{} are anonymous", s3 ? " to S3" : "")
                   : (s3 ? "S3: from " : "from ") + credentials->provider);
}

void LookAtEndpoint(job::Remote& remote, Findings& findings) {
  using Verdict = Findings::Verdict;
  const auto greeting = remote.Greet(CallContext{}.Within(std::chrono::seconds(20)));
  if (!greeting) {
    return findings.Add(Verdict::kBad, "endpoint",
                        fmt::format("{}: {}", remote.endpoint(), greeting.error().message()));
  }
  findings.Add(Verdict::kGood, "endpoint",
               fmt::format("{} answers in {} ms", remote.endpoint(), greeting->took.count()));
  if (!greeting->ahead) return;
  const std::int64_t ahead = greeting->ahead->count();
  if (std::abs(ahead) <= 60) {
    findings.Add(Verdict::kGood, "clock", "agrees with the endpoint's");
  } else {
    findings.Add(Verdict::kLess, "clock",
                 fmt::format("{} s {} the endpoint's: leat makes up for it, other programs are "
                             "refused (timedatectl set-ntp true)",
                             FormatCount(static_cast<std::uint64_t>(std::abs(ahead))),
                             ahead > 0 ? "behind" : "ahead of"));
  }
}

void LookAtSource(const std::string& text, const job::Home& home, Findings& findings) {
  using Verdict = Findings::Verdict;
  auto spec = job::ParseSourceWithOptions(text);
  if (!spec) return findings.Add(Verdict::kBad, "source", spec.error().message());
  if (spec->source.kind == job::Source::Kind::kLocal) {
    const auto attached = job::AttachLocal(*spec);
    return findings.Add(attached ? Verdict::kGood : Verdict::kBad, "source",
                        attached ? attached->path : attached.error().message());
  }
  job::Toolbox tools = job::MakeToolbox(config::ProcessEnvironment(), home);
  store::RequestCounts counts;
  auto remote = job::Remote::Open(*spec, tools, &counts);
  if (!remote) return findings.Add(Verdict::kBad, "source", remote.error().message());
  bool anonymous = false;
  LookAtCredentials(**remote, findings, &anonymous);
  LookAtEndpoint(**remote, findings);
  const auto taken = (*remote)->TakeSnapshot({}, [](std::uint64_t) {});
  if (!taken) return findings.Add(Verdict::kBad, "source", taken.error().message());
  findings.Add(Verdict::kGood, "source",
               fmt::format("{}: {} files, {}", spec->source.ForMessages(),
                           FormatCount(taken->index->file_count()),
                           FormatBytes(taken->index->total_bytes())));
}

/// What a source on S3 would meet.
void LookAtS3(const job::Home& home, Findings& findings) {
  using Verdict = Findings::Verdict;
  job::MountSpec any;
  any.source.kind = job::Source::Kind::kS3;
  any.source.bucket = "BUCKET";
  job::Toolbox tools = job::MakeToolbox(config::ProcessEnvironment(), home);
  store::RequestCounts counts;
  auto remote = job::Remote::Open(any, tools, &counts);
  if (!remote) return findings.Add(Verdict::kBad, "credentials", remote.error().message());
  bool anonymous = false;
  LookAtCredentials(**remote, findings, &anonymous);
  // A laptop that has nothing to do with AWS need not reach it.
  if (anonymous && (*remote)->endpoint().find(".amazonaws.com") != std::string::npos) {
    findings.Add(Verdict::kGood, "endpoint", "not tried (leat doctor s3://bucket does)");
  } else {
    LookAtEndpoint(**remote, findings);
  }
}

}  // namespace

int CacheStat(bool json, std::uint64_t cache_size) {
  const auto home = job::FindHome(config::ProcessEnvironment(), cache_size, 0);
  if (!home) return Refuse(home.error(), 2);
  const auto stat = cache::Cache::Stat(home->cache_dir, home->cache_bytes);
  if (!stat) return Refuse(stat.error(), 1);
  if (json) {
    PrintJson({{"dir", stat->dir},
               {"limit_bytes", stat->limit_bytes},
               {"used_bytes", stat->used_bytes},
               {"leased_bytes", stat->leased_bytes},
               {"inodes", stat->inodes},
               {"small_files", stat->small_files},
               {"segments", stat->segments},
               {"large_files", stat->large_files},
               {"trees", stat->trees},
               {"tree_bytes", stat->tree_bytes},
               {"aside_bytes", stat->aside_bytes}});
    return 0;
  }
  std::printf("%s", fmt::format("folder       {}\n"
                                "used         {} of {} ({} in use by running jobs)\n"
                                "small files  {} in {} segments\n"
                                "large files  {}\n"
                                "copies       {}, {}\n"
                                "set aside    {}\n",
                                stat->dir, FormatBytes(stat->used_bytes),
                                FormatBytes(stat->limit_bytes), FormatBytes(stat->leased_bytes),
                                FormatCount(stat->small_files), FormatCount(stat->segments),
                                FormatCount(stat->large_files), FormatCount(stat->trees),
                                FormatBytes(stat->tree_bytes), FormatBytes(stat->aside_bytes))
                        .c_str());
  return 0;
}

int CacheClean(bool json, bool all) {
  const auto home = job::FindHome(config::ProcessEnvironment(), 0, 0);
  if (!home) return Refuse(home.error(), 2);
  const auto freed = cache::Cache::Clean(home->cache_dir, all);
  if (!freed) return Refuse(freed.error(), 1);
  if (all) {
    if (const Status removed = os::RemoveTree(home->snapshots_dir()); !removed)
      return Refuse(removed.error(), 1);
  }
  if (json) {
    PrintJson({{"freed_bytes", *freed}});
  } else {
    std::printf("%s freed in %s\n", FormatBytes(*freed).c_str(), home->cache_dir.c_str());
  }
  return 0;
}

int Doctor(bool json, const std::string& source) {
  using Verdict = Findings::Verdict;
  Findings findings;
  const auto home = job::FindHome(config::ProcessEnvironment(), 0, 0);
  if (!home) return Refuse(home.error(), 2);
  utsname machine;
  ::uname(&machine);
  findings.Add(Verdict::kGood, "kernel", fmt::format("{} {}", machine.sysname, machine.release));
  const job::Abilities abilities = job::FindAbilities(job::FuseDevice());
  using Namespaces = job::Abilities::Namespaces;
  switch (abilities.namespaces) {
    case Namespaces::kRoot:
      findings.Add(Verdict::kGood, "namespaces",
                   "as root: a job sees its attachments at any target");
      break;
    case Namespaces::kUser:
      findings.Add(Verdict::kGood, "namespaces",
                   "the user's own: a job sees its attachments at any target");
      break;
    case Namespaces::kNone:
      findings.Add(Verdict::kLess, "namespaces",
                   abilities.no_namespaces + "; targets become symbolic links, where nothing is");
  }
  if (abilities.pid_namespace) {
    findings.Add(Verdict::kGood, "processes",
                 "a job has its own process numbers, and ends with leat");
  } else {
    findings.Add(Verdict::kLess, "processes",
                 abilities.no_pid_namespace + "; a job's processes are found and ended one by one");
  }
  if (abilities.fuse_direct) {
    findings.Add(Verdict::kGood, "fuse", "mounted by leat itself");
  } else if (abilities.fusermount) {
    findings.Add(Verdict::kGood, "fuse", "mounted through fusermount3");
  } else {
    findings.Add(Verdict::kLess, "fuse",
                 abilities.no_fuse + "; mode=copy works without, mode=stream does not");
  }
  int major = 0, minor = 0;
  std::sscanf(machine.release, "%d.%d", &major, &minor);
  const bool new_enough = major > 6 || (major == 6 && minor >= 9);
  if (abilities.passthrough && new_enough) {
    findings.Add(Verdict::kGood, "passthrough",
                 "complete large files are read by the kernel itself");
  } else {
    findings.Add(
        Verdict::kLess, "passthrough",
        !abilities.passthrough
            ? "only for root on the machine itself; reads from the cache cost one more copy"
            : "needs Linux 6.9; reads from the cache cost one more copy");
  }
  findings.Add(
      new_enough ? Verdict::kGood : Verdict::kLess, "resume",
      new_enough
          ? "a data process that dies is replaced, and no read is lost"
          : "needs Linux 6.9: reads that were under way when the data process dies are lost");
  if (!home->cache_note.empty()) findings.Add(Verdict::kLess, "cache", home->cache_note);
  MemoryBudget budget(64 * kMiB);
  cache::CacheOptions options;
  options.dir = home->cache_dir;
  options.limit_bytes = home->cache_bytes;
  options.budget = &budget;
  const auto cache = cache::Cache::Open(options);
  if (home->cache_dir.empty() || !cache->problem().empty()) {
    findings.Add(
        Verdict::kLess, "cache",
        "nothing is kept: " + (home->cache_dir.empty() ? "neither HOME nor LEAT_CACHE_DIR is set"
                                                       : cache->problem()));
  } else if (const auto stat = cache::Cache::Stat(home->cache_dir, home->cache_bytes)) {
    struct statvfs vfs;
    const std::uint64_t free =
        ::statvfs(home->cache_dir.c_str(), &vfs) == 0 ? vfs.f_bavail * vfs.f_frsize : 0;
    findings.Add(Verdict::kGood, "cache",
                 fmt::format("{}: {} of {}, {} free on the disk", home->cache_dir,
                             FormatBytes(stat->used_bytes), FormatBytes(stat->limit_bytes),
                             FormatBytes(free)));
  }
  findings.Add(Verdict::kGood, "memory",
               fmt::format("{} for data in flight", FormatBytes(home->memory_bytes)));
  if (source.empty()) {
    LookAtS3(*home, findings);
  } else {
    LookAtSource(source, *home, findings);
  }
  findings.Print(json);
  return findings.bad() ? 1 : 0;
}

std::string Completion(const std::string& shell) {
  static constexpr const char* kCommands =
      "run mount unmount ls lsd stat cat du cp sync check rm mkdir remote pipeline cache doctor "
      "version completion";
  static constexpr const char* kRun =
      "--mount --env --name --workdir --memory --cache-size --strict --pid --dry-run --json "
      "--stats --quiet --help";
  if (shell == "bash" || shell == "zsh") {
    return fmt::format(
        "{}_leat() {{\n"
        "  local word=${{COMP_WORDS[COMP_CWORD]}} command=${{COMP_WORDS[1]}} i\n"
        "  if [ \"$COMP_CWORD\" = 1 ]; then COMPREPLY=($(compgen -W '{}' -- \"$word\")); return; "
        "fi\n"
        "  for ((i = 2; i < COMP_CWORD; i++)); do\n"
        "    if [ \"${{COMP_WORDS[i]}}\" = -- ]; then COMPREPLY=($(compgen -c -f -- \"$word\")); "
        "return; fi\n"
        "  done\n"
        "  case $command in\n"
        "    run) COMPREPLY=($(compgen -W '{}' -- \"$word\") $(compgen -f -- \"$word\")) ;;\n"
        "    cache) COMPREPLY=($(compgen -W 'stat clean --json --all' -- \"$word\")) ;;\n"
        "    remote) COMPREPLY=($(compgen -W 'list test --json' -- \"$word\")) ;;\n"
        "    pipeline) COMPREPLY=($(compgen -W 'run clean --force --dry-run --json' -- \"$word\") "
        "$(compgen -f -- \"$word\")) ;;\n"
        "    mount) COMPREPLY=($(compgen -W '--daemon --allow-other --read-only --refresh --list "
        "--json --strict --quiet' -- \"$word\") $(compgen -f -- \"$word\")) ;;\n"
        "    cp|sync|check) COMPREPLY=($(compgen -W '--dry-run --checksum --size-only --include "
        "--exclude --transfers --bwlimit --update --ignore-existing --backup-dir --atomic "
        "--json --verbose --quiet' -- \"$word\") $(compgen -f -- \"$word\")) ;;\n"
        "    completion) COMPREPLY=($(compgen -W 'bash zsh fish' -- \"$word\")) ;;\n"
        "    *) COMPREPLY=($(compgen -W '--json --quiet --help' -- \"$word\") $(compgen -f -- "
        "\"$word\")) ;;\n"
        "  esac\n"
        "}}\n"
        "complete -o default -F _leat leat\n",
        shell == "zsh" ? "autoload -U +X bashcompinit && bashcompinit\n" : "", kCommands, kRun);
  }
  if (shell == "fish") {
    std::string out =
        fmt::format("complete -c leat -n __fish_use_subcommand -f -a '{}'\n", kCommands);
    for (const char* option : {"mount", "env", "name", "workdir", "memory", "cache-size", "strict",
                               "pid", "dry-run", "json", "stats", "quiet"}) {
      out += fmt::format("complete -c leat -n '__fish_seen_subcommand_from run' -l {}\n", option);
    }
    return out;
  }
  return "";
}

}  // namespace leat::cli
