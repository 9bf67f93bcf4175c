#include "job/home.h"

#include <fmt/format.h>
#include <sys/vfs.h>

#include <algorithm>
#include <array>

#include "base/bytes.h"
#include "base/memory_budget.h"
#include "os/file.h"

namespace leat::job {
namespace {

/// The name of the network file system that the nearest existing folder of `path` lies on; empty
/// for a local one. A cache there would be slower than the store, and its locks are not to be
/// relied on.
std::string NetworkFileSystem(std::string path) {
  if (!path.starts_with('/')) return "";  // refused further on
  while (!os::Exists(path) && path.size() > 1)
    path.resize(std::max<std::size_t>(path.rfind('/'), 1));
  struct statfs st;
  if (::statfs(path.c_str(), &st) != 0) return "";
  static constexpr std::array<std::pair<std::uint32_t, const char*>, 8> kNetwork = {
      {{0x6969, "NFS"},
       {0xff534d42, "CIFS"},
       {0xfe534d42, "SMB"},
       {0x0bd00bd0, "Lustre"},
       {0x00c36400, "CephFS"},
       {0x19830326, "BeeGFS"},
       {0x47504653, "GPFS"},
       {0x01021997, "9p"}}};
  for (const auto& [magic, name] : kNetwork) {
    if (static_cast<std::uint32_t>(st.f_type) == magic) return name;
  }
  return "";
}

}  // namespace

Status MakeHome(const Home& home) {
  return home.dir.empty() ? Status{} : os::MakeDirs(home.dir, 0700);
}

Result<Home> FindHome(const config::Environment& env, std::uint64_t cache_size,
                      std::uint64_t memory) {
  Home home;
  LEAT_ASSIGN_OR_RETURN(const config::LeatConfig file, config::LeatConfig::Load(env));
  const auto size_of = [&](const char* variable) -> Result<std::uint64_t> {
    const auto text = env(variable);
    if (!text) return 0;
    auto size = ParseSize(*text);
    if (!size) return Fail(std::move(size), variable);
    return *size;
  };
  const std::string user = env("HOME").value_or("");
  const auto xdg = [&](const char* variable, const char* otherwise) {
    return env(variable).value_or(user.empty() ? "" : user + otherwise);
  };
  if (const auto dir = env("LEAT_HOME")) {
    home.dir = *dir;
  } else if (const std::string data = xdg("XDG_DATA_HOME", "/.local/share"); !data.empty()) {
    home.dir = data + "/leat";
  }
  home.storage_dir = file.storage_path ? *file.storage_path : home.dir + "/storage";
  if (const auto dir = env("LEAT_STORAGE")) home.storage_dir = *dir;
  if (const auto dir = env("LEAT_CACHE_DIR")) {
    home.cache_dir = *dir;
  } else if (file.cache_dir) {
    home.cache_dir = *file.cache_dir;
  } else {
    if (env("LEAT_HOME")) {
      home.cache_dir = home.dir + "/cache";
    } else if (const std::string cache = xdg("XDG_CACHE_HOME", "/.cache"); !cache.empty()) {
      home.cache_dir = cache + "/leat";
    }
    // Node-local scratch, where the default would lie on a server.
    if (const std::string network = NetworkFileSystem(home.cache_dir); !network.empty()) {
      for (const char* variable : {"SLURM_TMPDIR", "TMPDIR"}) {
        const auto scratch = env(variable);
        if (!scratch || !NetworkFileSystem(*scratch).empty()) continue;
        home.cache_note = fmt::format(
            "{} is on {}, so the cache is in {}/leat-cache (LEAT_CACHE_DIR chooses another place)",
            home.cache_dir, network, *scratch);
        home.cache_dir = *scratch + "/leat-cache";
        break;
      }
      if (home.cache_note.empty()) {
        home.cache_note = fmt::format("{} is on {}: give LEAT_CACHE_DIR a folder on a local disk",
                                      home.cache_dir, network);
      }
    }
  }
  for (const std::string* dir : {&home.dir, &home.cache_dir, &home.storage_dir}) {
    if (!dir->empty() && !dir->starts_with('/'))
      return Fail(Errc::kInvalid,
                  *dir + " is not an absolute path (LEAT_HOME, LEAT_CACHE_DIR, LEAT_STORAGE)");
  }
  LEAT_ASSIGN_OR_RETURN(const std::uint64_t env_cache, size_of("LEAT_CACHE_SIZE"));
  LEAT_ASSIGN_OR_RETURN(const std::uint64_t env_memory, size_of("LEAT_MEMORY"));
  home.cache_bytes = cache_size != 0  ? cache_size
                     : env_cache != 0 ? env_cache
                                      : file.cache_size.value_or(0);
  home.memory_bytes = memory != 0       ? memory
                      : env_memory != 0 ? env_memory
                                        : file.memory.value_or(MemoryBudget::DefaultBytes());
  home.memory_bytes = std::max(home.memory_bytes, 16 * kMiB);
  home.retry_seconds =
      file.retry_total ? static_cast<std::uint64_t>(file.retry_total->count()) : 120;
  return home;
}

}  // namespace leat::job
