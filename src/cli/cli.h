// The command line (design section 2).
#ifndef LEAT_CLI_CLI_H_
#define LEAT_CLI_CLI_H_

#include <cstdint>
#include <string>
#include <vector>

#include "base/error.h"
#include "job/home.h"

namespace leat::cli {

/// The program: parses, does, and returns the exit status.
int Main(int argc, char** argv);

// The commands that show what is in a source; each returns an exit status and says on stderr what
// went wrong.
struct SourceCommand {
  std::string source;  ///< SOURCE[,option...]
  bool json = false;
  bool recursive = false;  ///< ls
  bool details = false;    ///< ls -l
  bool folders_only = false;
};
int List(const SourceCommand& command);
int Stat(const SourceCommand& command);
int Cat(const SourceCommand& command);
int DiskUsage(const SourceCommand& command);
/// The folders at one level; of an account its buckets.
int ListFolders(const SourceCommand& command);
/// As List, for callers that say themselves what went wrong.
Status ListOnly(const SourceCommand& command);

/// The words of cp, sync, check, rm and mkdir; those of rclone mean what they mean there.
struct MoveCommand {
  std::string source, target;
  bool sync = false, atomic = false;
  std::vector<std::string> include, exclude, filter_from, files_from;
  std::string min_size, max_size, cutoff, bandwidth, backup_dir;
  std::string combined, missing_on_src, missing_on_dst, differ;
  std::size_t transfers = 0, streams = 0;
  int retries = 0;  ///< attempts of a request; 0: for as long as the configuration says
  std::uint64_t max_delete = UINT64_MAX;
  bool checksum = false, size_only = false, update = false, ignore_existing = false;
  bool immutable = false, links = false, copy_links = false, no_verify = false;
  bool delete_before = false, delete_during = false, delete_everything = false;
  bool recursive = false, rmdirs = false, dry_run = false, verbose = false, json = false;
};
int CopyFiles(const MoveCommand& command);
int CheckFiles(const MoveCommand& command);
int RemoveFiles(const MoveCommand& command);
int MakeFolder(const MoveCommand& command);

/// The words of leat dataset.
struct DatasetCommand {
  std::vector<std::string> names;  ///< of datasets; of pull and lock sources
  std::string lock = "leat.lock", unused_for;
  bool json = false, yes = false, all = false, dry_run = false, strict_pins = false;
};
int DatasetPull(const DatasetCommand& command);
int DatasetList(const DatasetCommand& command);
int DatasetVerify(const DatasetCommand& command);
int DatasetClean(const DatasetCommand& command);
int DatasetLock(const DatasetCommand& command);

int RemoteList(bool json);
/// `name`: NAME, or NAME:bucket to try reading and writing too.
int RemoteTest(const std::string& name, bool json);
int CacheStat(bool json, std::uint64_t cache_size);
int CacheClean(bool json, bool all);
int Doctor(bool json, const std::string& source);
/// A completion script for bash, zsh or fish; empty for another shell.
std::string Completion(const std::string& shell);

inline constexpr const char* kVersion = "0.1.0";

}  // namespace leat::cli

#endif  // LEAT_CLI_CLI_H_
