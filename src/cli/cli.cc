#include "cli/cli.h"

#include <fmt/format.h>
#include <signal.h>
#include <sys/stat.h>

#include <limits.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/log.h"
#include "base/text.h"
#include "cli/fstab.h"
#include "cli/run_words.h"
#include "engine/local/mount.h"
#include "engine/local/pipeline.h"
#include "engine/local/replicas.h"
#include "engine/local/run.h"
#include "job/mount_spec.h"
#include "net/url.h"

namespace leat::cli {
namespace {

constexpr int kUsage = 2;
constexpr int kRunRefused = 125;

constexpr const char* kRunFooter = R"(
leat run [-m [TARGET=]SOURCE[,OPTION...]]... [OPTIONS] -- COMMAND [ARG...]
leat run JOB.yaml [CONTEXT] [OPTIONS] [-- COMMAND [ARG...]]

Examples:
  leat run -m /data=s3://bucket/prefix -- python3 train.py
  leat run -m s3://bucket/images -m /out=./results,rw -- python3 train.py /data /out
  leat run -m /data=s3://bucket/train,mode=copy -- python3 train.py     (fetched before the start)
  leat run -m /data=s3://bucket/train,etag=mf:5d1c... -- python3 train.py  (exactly these contents)
  leat run -m /w=https://host/weights.bin -- ls -l /w
  leat run -m /data=s3://bucket/train,endpoint=https://store.lab:9000,profile=lab -- python3 train.py
  leat run --datasetUri s3://bucket/mnist.zip -- ls /data/mnist       (downloaded once, expanded)
  leat run -m /m=s3://bucket/mnist.zip,expand=auto -- ls /m           (read inside the archive)
  leat run --lock leat.lock job.yaml      leat run --locked leat.lock job.yaml
  leat run --dry-run -m s3://bucket/prefix -- true

Options of a mount, behind commas: ro rw mode=stream|copy etag= version= name= profile= region= endpoint= anon requester_pays
expand=auto|always|never volume=shared|dynamic size=.
The exit status is the command's own (128+n after signal n); 127: not found, 126: not executable, 125: leat could not start it.)";

struct Common {
  std::string memory, cache_size;
  std::string os_cloud;
  bool quiet = false;

  Result<job::Home> FindHome() const {
    std::uint64_t memory_bytes = 0, cache_bytes = 0;
    if (!memory.empty()) {
      auto size = ParseSize(memory);
      if (!size) return Fail(std::move(size), "--memory");
      memory_bytes = *size;
    }
    if (!cache_size.empty()) {
      auto size = ParseSize(cache_size);
      if (!size) return Fail(std::move(size), "--cache-size");
      cache_bytes = *size;
    }
    return job::FindHome(config::ProcessEnvironment(), cache_bytes, memory_bytes);
  }
};

/// What follows the '?' of a presigned URL, or stands before its '@', is not for everybody who
/// looks at /proc/PID/cmdline. The supervisor and all that it forks share this memory.
void HideSecrets(int argc, char** argv) {
  const auto hide = [](char* text) { std::memset(text, 'x', std::strlen(text)); };
  // (Names are compared without case and dashes: --datasetAwsSecretAccessKey,
  // --dataset-aws-secret-access-key.)
  const auto names_key = [](std::string_view word) {
    if (!word.starts_with("--")) return false;
    std::string name = Lower(word);
    std::erase(name, '-');
    return name == "datasetawssecretaccesskey" || name == "datasetawsaccesskeyid" ||
           name == "experimentenv" || name == "registrypassword" || name == "workspacepassword" ||
           name == "apikey";
  };
  for (int i = 1; i < argc; ++i) {
    if (std::string_view(argv[i]) == "--") return;
    const std::string_view word = argv[i];
    if (const std::size_t equals = word.find('=');
        equals != word.npos && names_key(word.substr(0, equals)))
      hide(argv[i] + equals + 1);
    if (names_key(word) && i + 1 < argc) hide(argv[++i]);
    // (of /etc/fstab's options)
    if (char* variable = std::strstr(argv[i], "env.");
        variable != nullptr && std::string_view(argv[i - 1]) == "-o") {
      std::memset(variable, 'x', std::strlen(variable));
    }
    char* scheme = std::strstr(argv[i], "://");
    if (scheme == nullptr) continue;
    if (char* query = std::strchr(scheme, '?')) std::memset(query, 'x', std::strlen(query));
    char* const host = scheme + 3;
    const std::string_view authority = std::string_view(host).substr(0, std::strcspn(host, "/"));
    if (const std::size_t at = authority.rfind('@'); at != authority.npos)
      std::memset(host, 'x', at);
  }
}

/// An absolute path without links, found without asking the file system that may be mounted there.
std::string FolderOfMount(std::string dir) {
  while (dir.size() > 1 && dir.ends_with('/')) dir.pop_back();
  const std::size_t slash = dir.rfind('/');
  std::string parent =
      slash == std::string::npos ? "." : dir.substr(0, std::max<std::size_t>(slash, 1));
  std::string name = slash == std::string::npos ? dir : dir.substr(slash + 1);
  struct stat st;
  char resolved[PATH_MAX];
  // (lstat of a mount point asks its file system, which may be dead; of a link it does not)
  const bool whole = name.empty() || name == "." || name == ".." ||
                     (::lstat(dir.c_str(), &st) == 0 && S_ISLNK(st.st_mode));
  if (::realpath(whole ? dir.c_str() : parent.c_str(), resolved) == nullptr) return dir;
  if (whole) return resolved;
  parent = resolved;
  return parent + (parent == "/" ? "" : "/") + name;
}

/// Options of rclone mount that have no counterpart: a snapshot never changes, and the cache needs
/// no care.
std::vector<CLI::Option*> AcceptWordsOfRcloneMount(CLI::App& mount) {
  static std::string ignored_text;
  static bool ignored_flag = false;
  std::vector<CLI::Option*> words;
  for (const char* name : {"--vfs-cache-mode",
                           "--vfs-cache-max-age",
                           "--vfs-cache-max-size",
                           "--vfs-cache-poll-interval",
                           "--vfs-read-ahead",
                           "--vfs-read-chunk-size",
                           "--vfs-read-chunk-size-limit",
                           "--vfs-read-wait",
                           "--vfs-write-back",
                           "--vfs-write-wait",
                           "--dir-cache-time",
                           "--poll-interval",
                           "--attr-timeout",
                           "--buffer-size",
                           "--cache-dir",
                           "--max-read-ahead",
                           "--daemon-timeout",
                           "--daemon-wait",
                           "--transfers",
                           "--checkers",
                           "--dir-perms",
                           "--file-perms",
                           "--umask",
                           "--uid",
                           "--gid",
                           "--log-file",
                           "--log-level",
                           "--volname",
                           "--devname"}) {
    words.push_back(mount.add_option(name, ignored_text)->group(""));
  }
  for (const char* name :
       {"--fast-list", "--no-modtime", "--no-checksum", "--no-seek", "--async-read",
        "--default-permissions", "--vfs-fast-fingerprint", "--vfs-case-insensitive",
        "--write-back-cache", "--use-server-modtime"}) {
    words.push_back(mount.add_flag(name, ignored_flag)->group(""));
  }
  return words;
}

int Refuse(const Error& error, int status) {
  Say(error.message());
  return status;
}

int RunJob(RunWords words, const Common& common, std::vector<std::string> before,
           std::vector<std::string> command) {
  auto home = common.FindHome();
  if (!home) return Refuse(home.error(), kRunRefused);
  auto job = MakeJob(std::move(words), std::move(*home), std::move(before), std::move(command));
  if (!job) return Refuse(job.error(), kRunRefused);
  return job->replicas.empty() || job->options.dry_run
             ? engine::local::Run(std::move(job->options))
             : engine::local::RunReplicas(job->options, job->replicas);
}

}  // namespace

int Main(int argc, char** argv) {
  // The command behind "--" is not ours to read.
  std::vector<std::string> ours, command;
  bool behind = false;
  for (int i = 1; i < argc; ++i) {
    if (!behind && std::string_view(argv[i]) == "--") {
      behind = true;
    } else {
      (behind ? command : ours).emplace_back(argv[i]);
    }
  }
  HideSecrets(argc, argv);
  if (auto words = MountWordsOfFstab(ours)) {
    if (!*words) return Refuse(words->error(), kUsage);
    ours = std::move(**words);
  }
  const bool is_run = !ours.empty() && (ours[0] == "run" || ours[0] == "experiments");
  if (!is_run) ::signal(SIGCHLD, SIG_DFL);  // (a run hands on to its job what is ignored)

  CLI::App app(
      "leat brings datasets to training jobs: streamed, cached and verified, from S3, Google "
      "Cloud Storage, Swift, HTTP and local folders.",
      "leat");
  app.require_subcommand(1);
  app.set_help_all_flag("--help-all", "Print the help of all commands and exit");
  app.footer("leat COMMAND --help tells more. Documentation: README.md and docs/.");
  Common common;
  const auto add_common = [&](CLI::App* sub) {
    sub->add_flag("-q,--quiet", common.quiet,
                  "No progress, notes or summary on stderr; errors only");
    sub->add_option("--os-cloud", common.os_cloud, "For swift://: a cloud of clouds.yaml");
  };
  const auto add_sizes = [&](CLI::App* sub) {
    sub->add_option(
        "--memory", common.memory,
        "Memory for data in flight (default: 1/8 of the machine's or cgroup's, 64Mi to 1Gi)");
    sub->add_option("--cache-size", common.cache_size,
                    "Limit of the cache on disk (default: half of what is free and it holds)");
  };

  RunWords words;
  CLI::App* run = app.add_subcommand("run", "Run a command with data attached");
  run->add_option(
         "-m,--mount", words.mounts,
         "Attach SOURCE (s3://, https://, http://, file:// or a path) at TARGET (default /data)")
      ->allow_extra_args(false);
  run->add_option("-e,--env", words.env, "NAME=VALUE for the command's environment")
      ->allow_extra_args(false);
  run->add_option("--name", words.name, "A name for the run, seen in LEAT_RUN_ID");
  run->add_option("-w,--workdir", words.workdir,
                  "The command's working directory (default: the present one)");
  run->add_flag("--strict", words.strict,
                "Refuse a source that holds names which no file system can hold");
  run->add_option("--pid", words.pid,
                  "own: process numbers of its own; host: the machine's; auto: host for ranks of a "
                  "parallel job")
      ->check(CLI::IsMember({"auto", "own", "host"}));
  run->add_flag("-n,--dry-run", words.dry_run,
                "Show what would be attached where and how, and what it would take");
  run->add_flag("--json", words.json, "The dry run as JSON");
  std::string stats;
  CLI::Option* stats_option = run->add_option(
      "--stats", stats,
      "At the end, a table on stderr; --stats=json: JSON on stderr; --stats=FILE: JSON in FILE");
  stats_option->expected(0, 1)->allow_extra_args(false);
  add_sizes(run);
  add_common(run);
  AddDatasetOptions(*run, words.datasets);
  run->add_option("--bind", words.binds, "HOST:CONTAINER[:ro]: a folder of this machine in the job")
      ->allow_extra_args(false);
  run->add_option("--context", words.context,
                  "A folder whose contents are copied into the command's working directory");
  run->add_option("--context-limit", words.context_limit, "Less than this in all (default: 96M)");
  run->add_option("--lock", words.lock, "FILE gets what the sources were resolved to");
  run->add_option("--locked", words.locked, "Exactly what FILE says, or the run does not start");
  run->add_flag("--strict-pins", words.strict_pins,
                "Refuse a pin that a folder cannot have, instead of ignoring it with a note");
  run->add_option("--storage", words.storage,
                  "rw: the command may remove datasets below /storage/data")
      ->check(CLI::IsMember({"ro", "rw"}));
  run->prefix_command();
  run->footer(kRunFooter);

  GradientWords gradient;
  CLI::App* experiments =
      app.add_subcommand("experiments", "gradient experiments run singlenode, as it was written");
  experiments->group("Of other tools");
  experiments->require_subcommand(1);
  CLI::App* experiments_run = experiments->add_subcommand("run", "Run an experiment");
  experiments_run->require_subcommand(1);
  CLI::App* single = experiments_run->add_subcommand("singlenode", "On this machine");
  AddGradientOptions(*single, gradient, words);
  add_common(single);

  DatasetCommand datasets;
  CLI::App* dataset = app.add_subcommand("dataset", "Datasets: pulled, stored, verified, locked");
  dataset->require_subcommand(1);
  CLI::App* dataset_pull =
      dataset->add_subcommand("pull", "A dataset in a folder: complete, verified, or not at all");
  dataset_pull->add_option("SOURCE_DIR", datasets.names, "SOURCE[,OPTION...] and the folder")
      ->required()
      ->expected(2);
  dataset_pull->add_flag("--strict-pins", datasets.strict_pins,
                         "Refuse a pin that a folder cannot have");
  CLI::App* dataset_list = dataset->add_subcommand("list", "What is in the shared storage");
  dataset_list->add_option("NAME", datasets.names, "These alone");
  CLI::App* dataset_verify =
      dataset->add_subcommand("verify", "Hash every file again; 1 where one is not as it was");
  dataset_verify->add_option("NAME", datasets.names, "These alone");
  CLI::App* dataset_clean = dataset->add_subcommand(
      "clean", "Remove datasets from the shared storage; without a name what is superseded");
  dataset_clean->add_option("NAME", datasets.names, "These");
  dataset_clean->add_flag("--all", datasets.all, "All that no run uses");
  dataset_clean->add_option("--unused-for", datasets.unused_for,
                            "Of these what no run has used for so long: 30d");
  dataset_clean->add_flag("-y,--yes", datasets.yes, "Do not ask");
  dataset_clean->add_flag("-n,--dry-run", datasets.dry_run, "Say what would be removed");
  CLI::App* dataset_lock =
      dataset->add_subcommand("lock", "Write what a job's sources are now, for --locked");
  dataset_lock->add_option("JOB_OR_SOURCE", datasets.names, "JOB.yaml, or sources")->required();
  dataset_lock->add_option("-o,--lock", datasets.lock, "The file (default: leat.lock)");
  for (CLI::App* sub : {dataset_pull, dataset_list, dataset_verify, dataset_clean, dataset_lock})
    add_common(sub);
  for (CLI::App* sub : {dataset_pull, dataset_list, dataset_verify, dataset_clean})
    sub->add_flag("--json", datasets.json, "As JSON");
  dataset->footer(
      "\nExamples:\n  leat dataset pull s3://bucket/mnist.zip ./mnist"
      "\n  leat dataset lock job.yaml && leat run --locked leat.lock job.yaml"
      "\n  leat dataset verify mnist\n  leat dataset clean --all --unused-for 30d");

  engine::local::MountOptions mount_options;
  std::string mount_source, mount_dir, refresh;
  bool read_only = false, list_mounts = false, mounts_json = false;
  CLI::App* mount = app.add_subcommand("mount", "Mount a source at a folder");
  CLI::Option* source_word = mount->add_option(
      "SOURCE", mount_source,
      "s3://bucket/prefix, NAME:container, https://host/file; options of a mount behind commas");
  CLI::Option* dir_word = mount->add_option("DIR", mount_dir, "An empty folder");
  mount->add_flag("--daemon", mount_options.daemon, "Return when the mount answers, and serve on");
  mount->add_flag("--allow-other", mount_options.allow_other,
                  "Other users may read it, too: what runs in Docker");
  mount->add_flag("--read-only", read_only, "Accepted; a mount is always read-only");
  mount->add_option("--refresh", refresh,
                    "Look for changes so often (60s, 5m), and at SIGHUP; 0: at SIGHUP alone");
  mount->add_flag("--strict", mount_options.strict,
                  "Refuse a source that holds names which no file system can hold");
  mount->add_flag("--list", list_mounts, "Show what is mounted")->excludes(source_word);
  mount->add_flag("--json", mounts_json, "The list as JSON");
  add_sizes(mount);
  add_common(mount);
  const std::vector<CLI::Option*> ignored_words = AcceptWordsOfRcloneMount(*mount);
  mount->footer(
      "\nExamples:\n  leat mount s3://bucket/prefix /mnt/data"
      "\n  leat mount chi_tacc:container /mnt/object --read-only --allow-other --daemon"
      "\n  leat mount --list"
      "\n  leat mount s3://bucket/prefix /mnt/data --daemon --refresh 60s"
      "\nIn /etc/fstab:  s3://bucket/prefix  /mnt/data  fuse.leat  ro,allow_other,_netdev  0 0");
  std::string unmount_dir;
  CLI::App* unmount = app.add_subcommand("unmount", "End a mount");
  unmount->add_option("DIR", unmount_dir, "Where it is mounted")->required();

  SourceCommand show;
  const auto add_source = [&](const char* name, const char* help) {
    CLI::App* sub = app.add_subcommand(name, help);
    sub->add_option(
           "SOURCE", show.source,
           "s3://bucket/prefix, https://host/file or a path; options of a mount behind commas")
        ->required();
    add_common(sub);
    return sub;
  };
  CLI::App* ls = add_source("ls", "List a folder");
  ls->add_flag("-l,--long", show.details, "With sizes, dates and etags");
  ls->add_flag("-R,--recursive", show.recursive, "All files below it");
  ls->add_flag("--json", show.json, "As JSON");
  ls->footer("\nExamples:\n  leat ls s3://bucket/prefix/\n  leat ls -lR s3://bucket/prefix/,anon");
  CLI::App* stat = add_source("stat", "Show one object, or a folder's size and pin");
  stat->add_flag("--json", show.json, "As JSON");
  CLI::App* cat = add_source("cat", "Write one object to stdout, verified");
  CLI::App* du = add_source("du", "Count the files and bytes below a folder");
  du->add_flag("--json", show.json, "As JSON");

  CLI::App* lsd = add_source("lsd", "List the folders at one level, or an account's buckets");
  lsd->add_flag("--json", show.json, "As JSON");
  lsd->footer("\nExamples:\n  leat lsd chi_tacc:\n  leat lsd s3://bucket/prefix/");

  MoveCommand move;
  unsigned ignored_number = 0;
  bool ignored_flag = false;
  std::string ignored_text;
  const auto add_filters = [&](CLI::App* sub) {
    sub->add_option("--include", move.include, "Only files that match the pattern (*.jpg, /dir/**)")
        ->allow_extra_args(false);
    sub->add_option("--exclude", move.exclude, "No files that match the pattern")
        ->allow_extra_args(false);
    sub->add_option("--filter-from", move.filter_from, "Rules from a file: + PATTERN, - PATTERN")
        ->allow_extra_args(false);
    sub->add_option("--files-from", move.files_from, "Only the paths in a file, a line each")
        ->allow_extra_args(false);
    sub->add_option("--min-size", move.min_size, "Only files of this size and more");
    sub->add_option("--max-size", move.max_size, "Only files of this size and less");
    sub->add_option("--transfers", move.transfers, "Files at once (default: chosen)");
    sub->add_option("--checkers", ignored_number,
                    "Accepted: comparing and copying share --transfers");
    sub->add_option("--retries", move.retries, "Attempts of a request (default: for minutes)");
    sub->add_flag("-r,--recursive", move.recursive, "Accepted: a folder is taken whole");
    sub->add_flag("-n,--dry-run", move.dry_run, "Say what would be done, and do nothing");
    sub->add_flag("-v,--verbose", move.verbose, "A line a file");
    sub->add_flag("--json", move.json, "What was done, as JSON");
    add_common(sub);
  };
  const auto add_move = [&](const char* name, const char* help) {
    CLI::App* sub = app.add_subcommand(name, help);
    sub->add_option("SRC", move.source, "s3://bucket/prefix, NAME:container/path, a path ...")
        ->required();
    sub->add_option("DST", move.target, "Where to; of a folder the contents go into DST")
        ->required();
    add_filters(sub);
    sub->add_flag("-c,--checksum", move.checksum, "Compare by digests, whatever the times say");
    sub->add_flag("--size-only", move.size_only, "Compare by sizes alone");
    sub->add_flag("-L,--copy-links", move.copy_links, "Follow symbolic links");
    sub->add_flag("-l,--links", move.links, "Keep symbolic links, as NAME.rclonelink");
    sub->add_option("--multi-thread-streams", move.streams, "Requests at once for one large file");
    sub->add_option("--multi-thread-cutoff", move.cutoff, "From this size on (default: 16Mi)");
    sub->add_option("--bwlimit", move.bandwidth, "Bytes a second, such as 10M");
    sub->add_flag("--fast-list", ignored_flag, "Accepted: a folder is always listed whole");
    sub->add_flag("-P,--progress", ignored_flag, "Accepted: progress is shown unless --quiet");
    sub->add_option("--stats", ignored_text, "Accepted");
    return sub;
  };
  const auto add_copy = [&](CLI::App* sub) {
    sub->add_flag("-u,--update", move.update, "Leave what is newer at DST");
    sub->add_flag("--ignore-existing", move.ignore_existing, "Leave what is at DST");
    sub->add_flag("--immutable", move.immutable, "An error where a file at DST differs");
    sub->add_option("--backup-dir", move.backup_dir, "What is replaced or deleted goes there");
    sub->add_flag("--no-verify", move.no_verify, "Do not hold what arrives to the store's digest");
    sub->add_flag("-M,--metadata", ignored_flag, "Accepted: metadata goes along where it can");
  };
  CLI::App* cp = add_move("cp", "Copy files and folders from any source to any store or folder");
  add_copy(cp);
  cp->footer(
      "\nExamples:\n  leat cp ./Food-11 chi_tacc:container\n  leat cp s3://bucket/prefix ./data"
      "\n  leat cp https://host/weights.bin s3://bucket/models/");
  CLI::App* sync = add_move("sync", "Make a folder like another: copy, then delete what is extra");
  add_copy(sync);
  sync->add_option("--max-delete", move.max_delete, "Refuse to delete more files than this");
  sync->add_flag("--delete-before", move.delete_before, "Delete before anything is copied");
  sync->add_flag("--delete-during,--delete-after", move.delete_during,
                 "Delete when all was copied (the default)");
  sync->add_flag("--atomic", move.atomic,
                 "Readers through leat see the old files or the new ones, nothing in between");
  sync->add_flag("--delete-everything", move.delete_everything, "An empty source may empty DST");
  sync->footer(
      "\nExamples:\n  leat sync --dry-run ./data s3://bucket/data\n  leat sync --atomic ./data "
      "s3://bucket/data");
  CLI::App* check = add_move("check", "Compare two folders by digests, without moving data");
  check->add_option("--combined", move.combined, "A file with a line each: = + - * ! and the path");
  check->add_option("--missing-on-src", move.missing_on_src, "A file with these paths");
  check->add_option("--missing-on-dst", move.missing_on_dst, "A file with these paths");
  check->add_option("--differ", move.differ, "A file with these paths");
  check->footer(
      "\nExample:\n  leat check ./data s3://bucket/data\nThe exit status is 1 where "
      "something differs.");
  CLI::App* rm = app.add_subcommand("rm", "Remove an object, or with -r all below a folder");
  rm->add_option("SOURCE", move.source, "s3://bucket/key, NAME:container, a path ...")->required();
  add_filters(rm);
  rm->add_flag("--rmdirs", move.rmdirs, "Also the empty folders, or the empty container");
  rm->footer("\nExamples:\n  leat rm s3://bucket/key\n  leat rm -r chi_tacc:container --rmdirs");
  CLI::App* mkdir = app.add_subcommand("mkdir", "Make a bucket, a container or a folder");
  mkdir->add_option("SOURCE", move.source, "s3://bucket, NAME:container or a path")->required();
  add_common(mkdir);

  engine::local::PipelineOptions pipeline_options;
  CLI::App* pipeline = app.add_subcommand("pipeline", "Stages that share a folder, from a file");
  pipeline->require_subcommand(1);
  CLI::App* pipeline_run = pipeline->add_subcommand(
      "run", "Run what has not succeeded with the same inputs; STAGE: that one and what it needs");
  pipeline_run->add_option("FILE", pipeline_options.file, "The pipeline, in YAML")->required();
  pipeline_run->add_option("STAGE", pipeline_options.stage, "One of its stages");
  pipeline_run->add_flag("-f,--force", pipeline_options.force, "Also what has succeeded");
  pipeline_run->add_flag("-n,--dry-run", pipeline_options.dry_run, "Say what would be run");
  pipeline_run->add_flag("--json", pipeline_options.json, "The dry run as JSON");
  add_sizes(pipeline_run);
  add_common(pipeline_run);
  CLI::App* pipeline_clean =
      pipeline->add_subcommand("clean", "Remove the folder that its stages share");
  pipeline_clean->add_option("FILE", pipeline_options.file, "The pipeline, in YAML")->required();
  pipeline->footer(
      "\nExamples:\n  leat pipeline run examples/food11/pipeline.yaml --dry-run"
      "\n  leat pipeline run pipeline.yaml load-data\n  leat pipeline clean pipeline.yaml");

  bool cache_json = false, cache_all = false;
  CLI::App* cache = app.add_subcommand("cache", "The cache of this machine");
  cache->require_subcommand(1);
  CLI::App* cache_stat = cache->add_subcommand("stat", "How much is in it");
  cache_stat->add_flag("--json", cache_json, "As JSON");
  cache_stat->add_option("--cache-size", common.cache_size, "The limit to show");
  CLI::App* cache_clean = cache->add_subcommand("clean", "Remove what no running job uses");
  cache_clean->add_flag("--all", cache_all, "Also what was set aside, and the saved listings");
  cache_clean->add_flag("--json", cache_json, "As JSON");

  bool remote_json = false;
  std::string remote_name;
  CLI::App* remote = app.add_subcommand("remote", "The remotes of rclone's configuration");
  remote->require_subcommand(1);
  CLI::App* remote_list = remote->add_subcommand("list", "Their names and types");
  remote_list->add_flag("--json", remote_json, "As JSON");
  CLI::App* remote_test = remote->add_subcommand(
      "test", "What works; with a bucket also reading and writing, with a small object");
  remote_test->add_option("NAME", remote_name, "NAME, or NAME:bucket")->required();
  remote_test->add_flag("--json", remote_json, "As JSON");
  remote->footer("\nExamples:\n  leat remote list\n  leat remote test chi_tacc:object-persist");

  bool doctor_json = false;
  std::string doctor_source;
  CLI::App* doctor =
      app.add_subcommand("doctor", "What works on this machine, and what to do about the rest");
  doctor->add_option("SOURCE", doctor_source, "Also try to reach this source");
  doctor->add_flag("--json", doctor_json, "As JSON");
  CLI::App* version = app.add_subcommand("version", "Print the version");
  std::string shell;
  CLI::App* completion =
      app.add_subcommand("completion", "Print a completion script: source <(leat completion bash)");
  completion->add_option("SHELL", shell, "bash, zsh or fish")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));

  // CLI11 takes the words from the back.
  try {
    app.parse(std::vector<std::string>(ours.rbegin(), ours.rend()));
  } catch (const CLI::Success& help) {
    return app.exit(help);
  } catch (const CLI::ParseError& error) {
    std::string what = error.what();
    if (const auto unknown = app.remaining(true);
        what.starts_with("A subcommand") && !unknown.empty()) {
      what = fmt::format("there is no {} \"{}\"",
                         unknown[0].starts_with('-') ? "option" : "command", unknown[0]);
    }
    // It may quote a word that holds a secret.
    Say(fmt::format("{} (leat {}--help)", net::Redacted(what), is_run ? "run " : ""));
    return is_run ? kRunRefused : kUsage;
  }
  SetQuiet(common.quiet);
  if (!common.os_cloud.empty()) ::setenv("OS_CLOUD", common.os_cloud.c_str(), 1);

  if (run->parsed()) {
    std::vector<std::string> before = run->remaining();
    if (!before.empty() && before[0].starts_with('-')) {
      return Refuse(Error(Errc::kInvalid, fmt::format("there is no option {} (leat run --help)",
                                                      net::Redacted(before[0]))),
                    kRunRefused);
    }
    if (stats_option->count() > 0) words.stats = stats.empty() ? "text" : stats;
    return RunJob(std::move(words), common, std::move(before), std::move(command));
  }
  if (single->parsed()) {
    if (!command.empty())
      return Refuse(Error(Errc::kInvalid, "the command is --command's"), kRunRefused);
    if (const Status taken = TakeGradient(gradient, words, command); !taken)
      return Refuse(taken.error(), kRunRefused);
    return RunJob(std::move(words), common, {}, std::move(command));
  }
  if (!command.empty())
    return Refuse(Error(Errc::kInvalid, "only leat run takes a command behind --"), kUsage);
  if (mount->parsed()) {
    if (list_mounts) {
      auto home = common.FindHome();
      return home ? engine::local::ListMounts(*home, mounts_json) : Refuse(home.error(), kUsage);
    }
    if (source_word->empty() || dir_word->empty())
      return Refuse(Error(Errc::kInvalid, "leat mount SOURCE DIR (leat mount --help)"), kUsage);
    std::string not_needed;
    for (const CLI::Option* word : ignored_words) {
      if (!word->empty())
        not_needed += (not_needed.empty() ? "--" : ", --") + word->get_lnames().front();
    }
    if (!not_needed.empty()) Note("not needed here, and without effect: " + not_needed);
    auto spec = job::ParseSourceWithOptions(mount_source);
    if (!spec) return Refuse(spec.error(), kUsage);
    auto home = common.FindHome();
    if (!home) return Refuse(home.error(), kUsage);
    if (!refresh.empty()) {
      auto every = ParseSeconds(refresh);
      if (!every)
        return Refuse(Error(Errc::kInvalid, "--refresh: " + every.error().message()), kUsage);
      mount_options.refresh = *every;
    }
    mount_options.spec = std::move(*spec);
    mount_options.spec.target = FolderOfMount(mount_dir);
    mount_options.home = std::move(*home);
    return engine::local::Mount(std::move(mount_options));
  }
  if (unmount->parsed()) return engine::local::Unmount(FolderOfMount(unmount_dir));
  if (ls->parsed()) return List(show);
  if (stat->parsed()) return Stat(show);
  if (cat->parsed()) return Cat(show);
  if (du->parsed()) return DiskUsage(show);
  if (lsd->parsed()) return ListFolders(show);
  move.sync = sync->parsed();
  if (cp->parsed() || sync->parsed()) return CopyFiles(move);
  if (check->parsed()) return CheckFiles(move);
  if (rm->parsed()) return RemoveFiles(move);
  if (mkdir->parsed()) return MakeFolder(move);
  if (pipeline_run->parsed() || pipeline_clean->parsed()) {
    auto home = common.FindHome();
    if (!home) return Refuse(home.error(), kUsage);
    pipeline_options.home = std::move(*home);
    return pipeline_run->parsed()
               ? engine::local::RunPipeline(pipeline_options)
               : engine::local::CleanPipeline(pipeline_options.file, pipeline_options.home);
  }
  if (cache_stat->parsed()) {
    auto home = common.FindHome();
    return home ? CacheStat(cache_json, home->cache_bytes) : Refuse(home.error(), kUsage);
  }
  if (dataset_pull->parsed()) return DatasetPull(datasets);
  if (dataset_list->parsed()) return DatasetList(datasets);
  if (dataset_verify->parsed()) return DatasetVerify(datasets);
  if (dataset_clean->parsed()) return DatasetClean(datasets);
  if (dataset_lock->parsed()) return DatasetLock(datasets);
  if (cache_clean->parsed()) return CacheClean(cache_json, cache_all);
  if (remote_list->parsed()) return RemoteList(remote_json);
  if (remote_test->parsed()) return RemoteTest(remote_name, remote_json);
  if (doctor->parsed()) return Doctor(doctor_json, doctor_source);
  if (completion->parsed()) {
    std::fputs(Completion(shell).c_str(), stdout);
    return 0;
  }
  if (version->parsed()) {
    std::printf("leat %s\n", kVersion);
    return 0;
  }
  return kUsage;
}

}  // namespace leat::cli
