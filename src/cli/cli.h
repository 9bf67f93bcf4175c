// The command line (design section 2).
#ifndef LEAT_CLI_CLI_H_
#define LEAT_CLI_CLI_H_

#include <cstdint>
#include <string>

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
};
int List(const SourceCommand& command);
int Stat(const SourceCommand& command);
int Cat(const SourceCommand& command);
int DiskUsage(const SourceCommand& command);

int CacheStat(bool json, std::uint64_t cache_size);
int CacheClean(bool json, bool all);
int Doctor(bool json, const std::string& source);
/// A completion script for bash, zsh or fish; empty for another shell.
std::string Completion(const std::string& shell);

inline constexpr const char* kVersion = "0.1.0";

}  // namespace leat::cli

#endif  // LEAT_CLI_CLI_H_
