// leat dataset pull, list, verify, clean and lock.
#include <fmt/format.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/log.h"
#include "cli/cli.h"
#include "cli/interruptible.h"
#include "dataset/storage.h"
#include "engine/local/pull_server.h"
#include "job/dataset.h"
#include "job/job_file.h"
#include "job/lock.h"
#include "job/pull.h"
#include "net/url.h"

namespace leat::cli {
namespace {

using nlohmann::ordered_json;

int Refuse(const Error& error) {
  Progress("");
  Say(error.message());
  return error.code() == Errc::kInvalid ? 2 : 1;
}

void PrintJson(const ordered_json& document) {
  const std::string text =
      document.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n";
  std::fwrite(text.data(), 1, text.size(), stdout);
}

std::string DateOf(std::int64_t seconds) {
  return seconds == 0 ? "-" : net::FormatDate(std::chrono::system_clock::from_time_t(seconds));
}

Result<job::Toolbox> Tools() {
  LEAT_ASSIGN_OR_RETURN(job::Home home, job::FindHome(config::ProcessEnvironment(), 0, 0));
  return job::MakeToolbox(config::ProcessEnvironment(), std::move(home));
}

Result<job::Pulled> Pull(const DatasetCommand& command, const Interruptible& interruptible) {
  const std::string& source = command.names.at(0);
  const std::string dir = os::Absolute(command.names.at(1));
  // Inside a job, leat's home is not to be seen: the leat that runs the job has it.
  if (const char* socket = std::getenv("LEAT_SOCK"); socket != nullptr && *socket != '\0') {
    auto pulled = engine::local::PullBySocket(socket, source, dir, command.strict_pins);
    if (pulled || pulled.error().code() != Errc::kNotFound) return pulled;
    Debug(pulled.error().message());
  }
  LEAT_ASSIGN_OR_RETURN(job::Toolbox tools, Tools());
  LEAT_ASSIGN_OR_RETURN(job::MountSpec spec, job::ParsePull(source, tools.env));
  spec.strict_pins = spec.strict_pins || command.strict_pins;
  return job::PullDataset(spec, dir, tools, interruptible.context());
}

std::string StateOf(const dataset::Stored& stored) {
  if (!stored.complete) return "half downloaded";
  if (stored.in_use) return stored.superseded ? "superseded, in use" : "in use";
  return stored.superseded ? "superseded" : "complete";
}

/// Those of the names, or all; kNotFound for a name that there is not.
Result<std::vector<dataset::Stored>> Chosen(const dataset::Storage& storage,
                                            const std::vector<std::string>& names) {
  LEAT_ASSIGN_OR_RETURN(std::vector<dataset::Stored> all, storage.List());
  if (names.empty()) return all;
  std::vector<dataset::Stored> out;
  for (const std::string& name : names) {
    bool found = false;
    for (const dataset::Stored& stored : all) {
      if (stored.folder != name && stored.id != name) continue;
      out.push_back(stored);
      found = true;
    }
    if (!found)
      return Fail(Errc::kNotFound,
                  fmt::format("the storage has no \"{}\" (leat dataset list)", Printable(name)));
  }
  return out;
}

ordered_json JsonOf(const dataset::Stored& stored) {
  ordered_json item = {{"name", stored.folder},
                       {"path", stored.path},
                       {"state", StateOf(stored)},
                       {"bytes", stored.bytes}};
  if (!stored.record) return item;
  item["files"] = stored.record->shape.files;
  item["source"] = stored.record->uri;
  item["etag"] = stored.record->etag;
  item["versionId"] = stored.record->version_id;
  item["digest"] = stored.record->digest;
  item["expanded"] = stored.record->expanded;
  item["created"] = DateOf(stored.record->created);
  item["last_used"] = DateOf(stored.last_used);
  return item;
}

/// The terminal's answer; where there is none, no.
bool Confirmed(const std::string& question) {
  std::fputs((question + " [y/N] ").c_str(), stderr);
  std::string answer;
  std::getline(std::cin, answer);
  return answer == "y" || answer == "Y" || answer == "yes";
}

Result<std::vector<job::MountSpec>> SourcesToLock(const std::vector<std::string>& words,
                                                  const config::Environment& env) {
  std::vector<job::MountSpec> specs;
  for (const std::string& word : words) {
    if (word.ends_with(".yaml") || word.ends_with(".yml")) {
      LEAT_ASSIGN_OR_RETURN(const std::string text, os::ReadFile(word, 16 << 20));
      LEAT_ASSIGN_OR_RETURN(job::JobFile file, job::ParseJobFile(text, word, env));
      for (job::MountSpec& mount : file.mounts) specs.push_back(std::move(mount));
    } else {
      LEAT_ASSIGN_OR_RETURN(job::MountSpec spec, job::ParsePull(word, env));
      specs.push_back(std::move(spec));
    }
  }
  std::erase_if(specs, [](const job::MountSpec& spec) { return spec.is_bind(); });
  if (specs.empty())
    return Fail(Errc::kInvalid, "there is nothing to lock: only folders of this machine are named");
  return specs;
}

Status Lock(const DatasetCommand& command, const CallContext& ctx, snapshot::LockFile& lock) {
  LEAT_ASSIGN_OR_RETURN(job::Toolbox tools, Tools());
  LEAT_ASSIGN_OR_RETURN(const auto specs, SourcesToLock(command.names, tools.env));
  const std::string file = os::Absolute(command.lock);
  for (const job::MountSpec& spec : specs) {
    store::RequestCounts counts;
    LEAT_ASSIGN_OR_RETURN(const auto remote, job::Remote::Open(spec, tools, &counts));
    remote->WantVersions();
    const std::string url = spec.source.ForMessages();
    LEAT_ASSIGN_OR_RETURN(
        const job::SnapshotFile taken, remote->TakeSnapshot(ctx, [&](std::uint64_t objects) {
          Progress(fmt::format("listing {}: {} objects", url, FormatCount(objects)));
        }));
    Progress("");
    for (const std::string& note : taken.notes) Note(note);
    LEAT_ASSIGN_OR_RETURN(snapshot::LockedSource source, job::LockOf(spec, *remote, taken, file));
    lock.sources.push_back(std::move(source));
  }
  return snapshot::WriteLock(file, lock);
}

}  // namespace

int DatasetPull(const DatasetCommand& command) {
  const Interruptible interruptible;
  const auto pulled = Pull(command, interruptible);
  Progress("");
  if (!pulled) return interruptible.ExitStatus(Refuse(pulled.error()));
  if (command.json) {
    PrintJson({{"dir", pulled->dir},
               {"files", pulled->files},
               {"bytes", pulled->bytes},
               {"requests", pulled->requests},
               {"there_before", pulled->there_before},
               {"etag", pulled->etag},
               {"versionId", pulled->version_id},
               {"pin", pulled->pin}});
  } else if (pulled->there_before) {
    Note(fmt::format("{} is complete, and of this version; nothing was downloaded", pulled->dir));
  } else {
    Note(fmt::format("{} {}, {}, in {}", FormatCount(pulled->files),
                     pulled->files == 1 ? "file" : "files", FormatBytes(pulled->bytes),
                     pulled->dir));
  }
  return 0;
}

int DatasetList(const DatasetCommand& command) {
  auto tools = Tools();
  if (!tools) return Refuse(tools.error());
  const dataset::Storage storage(tools->home.storage_dir);
  const auto chosen = Chosen(storage, command.names);
  if (!chosen) return Refuse(chosen.error());
  if (command.json) {
    ordered_json list = ordered_json::array();
    for (const dataset::Stored& stored : *chosen) list.push_back(JsonOf(stored));
    PrintJson({{"storage", tools->home.storage_dir}, {"datasets", std::move(list)}});
    return 0;
  }
  for (const dataset::Stored& stored : *chosen) {
    std::fputs(
        fmt::format("{:>10}  {:>20}  {:<16}  {}  {}\n", FormatBytes(stored.bytes),
                    DateOf(stored.last_used).substr(0, 20), StateOf(stored),
                    Printable(stored.folder), stored.record ? Printable(stored.record->uri) : "")
            .c_str(),
        stdout);
  }
  return 0;
}

int DatasetVerify(const DatasetCommand& command) {
  const Interruptible interruptible;
  auto tools = Tools();
  if (!tools) return Refuse(tools.error());
  const dataset::Storage storage(tools->home.storage_dir);
  const auto chosen = Chosen(storage, command.names);
  if (!chosen) return Refuse(chosen.error());
  bool good = true;
  ordered_json list = ordered_json::array();
  for (const dataset::Stored& stored : *chosen) {
    if (!stored.complete) {
      Say(fmt::format("{}: half downloaded; the next run that uses it goes on",
                      Printable(stored.folder)));
      good = good && command.names.empty();
      continue;
    }
    Progress("verifying " + Printable(stored.folder));
    const auto difference = storage.Verify(stored, interruptible.context());
    Progress("");
    if (!difference) return interruptible.ExitStatus(Refuse(difference.error()));
    good = good && difference->none();
    list.push_back({{"name", stored.folder},
                    {"good", difference->none()},
                    {"missing", difference->missing},
                    {"changed", difference->changed},
                    {"added", difference->added}});
    if (command.json) continue;
    if (difference->none()) {
      std::fputs(
          fmt::format("{}: {} files, {}, as they were downloaded\n", Printable(stored.folder),
                      FormatCount(stored.record->shape.files), FormatBytes(stored.bytes))
              .c_str(),
          stdout);
    }
    for (const auto& [what, paths] :
         {std::pair("missing", &difference->missing), std::pair("changed", &difference->changed),
          std::pair("added", &difference->added)}) {
      for (const std::string& path : *paths)
        std::fputs(
            fmt::format("{}/{}: {}\n", Printable(stored.folder), Printable(path), what).c_str(),
            stdout);
    }
  }
  if (command.json) PrintJson({{"datasets", std::move(list)}});
  return good ? 0 : 1;
}

int DatasetClean(const DatasetCommand& command) {
  auto tools = Tools();
  if (!tools) return Refuse(tools.error());
  dataset::Storage storage(tools->home.storage_dir);
  auto chosen = Chosen(storage, command.names);
  if (!chosen) return Refuse(chosen.error());
  if (command.names.empty() && !command.all) {
    std::erase_if(*chosen, [](const dataset::Stored& s) { return s.complete && !s.superseded; });
  }
  if (!command.unused_for.empty()) {
    const auto age = ParseSeconds(command.unused_for);
    if (!age) return Refuse(age.error());
    const std::int64_t before = ::time(nullptr) - age->count();
    std::erase_if(*chosen, [&](const dataset::Stored& s) { return s.last_used > before; });
  }
  std::uint64_t bytes = 0;
  for (const dataset::Stored& stored : *chosen) {
    bytes += stored.bytes;
    if (!command.json)
      Note(fmt::format("{}: {}, {}", Printable(stored.folder), FormatBytes(stored.bytes),
                       StateOf(stored)));
  }
  if (chosen->empty()) {
    Note(command.names.empty() && !command.all ? "nothing is superseded or half downloaded; leat "
                                                 "dataset clean NAME removes others, --all all"
                                               : "there is nothing to remove");
  } else if (!command.yes && !command.dry_run) {
    if (::isatty(STDIN_FILENO) == 0) {
      Say("nothing is removed without --yes where nobody can be asked");
      return 2;
    }
    if (!Confirmed(fmt::format("Remove {} {}, {}?", chosen->size(),
                               chosen->size() == 1 ? "dataset" : "datasets", FormatBytes(bytes)))) {
      Note("nothing was removed");
      return 1;
    }
  }
  ordered_json removed = ordered_json::array();
  int status = 0;
  for (const dataset::Stored& stored : *chosen) {
    if (!command.dry_run) {
      if (const Status done = storage.Remove(stored); !done) {
        Say(fmt::format("{} stays: {}", Printable(stored.folder), done.error().message()));
        status = 1;
        continue;
      }
    }
    removed.push_back({{"name", stored.folder}, {"bytes", stored.bytes}});
  }
  if (command.json) PrintJson({{command.dry_run ? "would_remove" : "removed", std::move(removed)}});
  return status;
}

int DatasetLock(const DatasetCommand& command) {
  const Interruptible interruptible;
  snapshot::LockFile lock;
  if (const Status locked = Lock(command, interruptible.context(), lock); !locked)
    return interruptible.ExitStatus(Refuse(locked.error()));
  std::ranges::sort(lock.sources, {}, &snapshot::LockedSource::name);
  for (const snapshot::LockedSource& source : lock.sources) {
    std::fputs(fmt::format("{}  {}  {}\n", Printable(source.name), Printable(source.source),
                           source.files ? source.digest : source.etag)
                   .c_str(),
               stdout);
  }
  return 0;
}

}  // namespace leat::cli
