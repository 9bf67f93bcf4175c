#include "dataset/storage.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <limits.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <map>
#include <random>
#include <set>
#include <thread>
#include <utility>

#include "base/bytes.h"
#include "base/json_fields.h"
#include "base/log.h"
#include "dataset/name.h"
#include "digest/digest.h"

namespace leat::dataset {

using namespace std::chrono_literals;

namespace {

/// Below data/: what the links of names without pins lead to. No dataset may have such a name.
constexpr std::string_view kTrees = ".leat-trees";
constexpr mode_t kFolder = 0777;  // as the umask allows: several users may share a storage

std::string LinkTarget(const std::string& path) {
  char target[PATH_MAX];
  const ssize_t n = ::readlink(path.c_str(), target, sizeof(target));
  return n < 0 ? std::string() : std::string(target, static_cast<std::size_t>(n));
}

std::uint64_t InodeOf(const std::string& path) {
  struct stat st;
  return ::lstat(path.c_str(), &st) == 0 && S_ISDIR(st.st_mode) ? st.st_ino : 0;
}

Status SyncFolder(const std::string& path) {
  LEAT_ASSIGN_OR_RETURN(const os::UniqueFd dir, os::Open(path, O_RDONLY | O_DIRECTORY));
  if (::fsync(dir.get()) != 0) return FailErrno(errno, "syncing " + path);
  return {};
}

std::uint64_t NumberOf(const nlohmann::json& document, const char* key) {
  const nlohmann::json& field = Field(document, key);
  return field.is_number_unsigned() ? field.get<std::uint64_t>() : 0;
}

/// None where there is no such folder.
std::vector<std::string> NamesIn(const std::string& dir) {
  auto names = os::ListDir(dir);
  return names ? std::move(*names) : std::vector<std::string>();
}

/// Locks the file of that name, shared; nullopt where it was removed. Whoever has it alone removes
/// what it stands for, or looks for a moment whether it is in use: that is waited for, since what
/// cannot be locked is not what is not there.
Result<std::optional<os::UniqueFd>> Use(const std::string& path) {
  const auto until = std::chrono::steady_clock::now() + 60s;
  for (;;) {
    struct stat held, there;
    auto fd = os::Open(path, O_RDONLY);
    if (!fd) return std::nullopt;
    // (Where a file system has no locks, nobody can be kept from removing it.)
    const Status locked = os::Flock(fd->get(), false, false);
    if (locked || locked.error().code() != Errc::kConflict) {
      if (::fstat(fd->get(), &held) != 0 || ::stat(path.c_str(), &there) != 0 ||
          held.st_ino != there.st_ino) {
        return std::nullopt;
      }
      return std::move(*fd);
    }
    if (std::chrono::steady_clock::now() > until)
      return Fail(Errc::kConflict, path + " is locked by another process");
    std::this_thread::sleep_for(20ms);
  }
}

/// Makes a network file system ask its server what is at `path`: names and missing names may be
/// believed for a minute there. Opening a folder has it ask for the folder's; where a name seems to
/// be missing, making it does. For the lease's holder alone.
void LookAnew(const std::string& path) {
  (void)os::Open(path.substr(0, path.rfind('/')), O_RDONLY | O_DIRECTORY);
  const auto there = os::Open(path, O_RDONLY);
  if (!there && there.error().code() == Errc::kNotFound && ::mkdir(path.c_str(), 0700) == 0)
    ::rmdir(path.c_str());
}

/// Room that is given up where the disk is full to the last block, so that what is there can be
/// removed: a lease takes some.
void KeepSpare(const std::string& path) {
  constexpr std::size_t kBytes = 64 * kKiB;
  const auto file = os::Open(path, O_WRONLY | O_CREAT | O_EXCL, 0666);
  if (file) (void)os::PwriteAll(file->get(), AsBytes(std::string(kBytes, '\n')), 0);
}

/// Removes the small files that killed processes have left in a dataset's folder of leat's. Whoever
/// makes such a file at this moment makes it again.
void Sweep(const std::string& meta) {
  for (const std::string& name : NamesIn(meta)) {
    if (name.starts_with("link.") || name.starts_with("lease.") ||
        name.find(".tmp-") != std::string::npos) {
      ::unlink((meta + "/" + name).c_str());
    }
  }
}

/// What has the name already is from the same source.
Status CheckSame(const PlaceRequest& request, const Record& there, const std::string& path) {
  if (there.origin == request.origin) return {};
  return Fail(
      Errc::kConflict,
      there.uri == request.uri
          ? fmt::format("dataset {}: {} holds {} of another server already; give one of them "
                        "another name",
                        Printable(request.name), path, Printable(there.uri))
          : fmt::format("dataset {}: {} holds {} already, not {}; give one of them another name",
                        Printable(request.name), path, Printable(there.uri),
                        Printable(request.uri)));
}

}  // namespace

/// A dataset's places. `id` is its folder's path below data/.
struct Storage::Names {
  std::string id;
  std::string path;  ///< the folder
  std::string meta;  ///< what only leat writes
  std::string record() const { return meta + "/.dataset.json"; }
  std::string lease() const { return meta + "/lease"; }
  /// Of which contents the part is, and which machine has brought it.
  std::string part_of() const { return meta + "/part-of"; }
  std::string files() const { return meta + "/files"; }
  std::string folders() const { return meta + "/folders"; }
  /// Where the lease's holder makes the folder.
  std::string part(const Lease& lease) const {
    return fmt::format("{}/part.{}", meta, lease.holder().substr(lease.holder().rfind(' ') + 1));
  }
};

std::string Record::Encode() const {
  nlohmann::ordered_json out;
  out["leat-dataset"] = 1;
  out["name"] = name;
  out["uri"] = uri;
  out["etag"] = etag;
  out["versionId"] = version_id;
  out["size"] = size;
  out["digest"] = digest;
  out["expanded"] = expanded;
  out["created"] = created;
  out["origin"] = origin;
  out["identity"] = identity;
  out["files"] = shape.files;
  out["folders"] = shape.folders;
  out["bytes"] = shape.bytes;
  out["foldersDigest"] = shape.folders_digest;
  out["rootInode"] = root_inode;
  return out.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

Result<Record> Record::Decode(std::string_view text) {
  const nlohmann::json document = ParseJson(text);
  Record out;
  out.name = TextOf(document, "name");
  out.uri = TextOf(document, "uri");
  out.etag = TextOf(document, "etag");
  out.version_id = TextOf(document, "versionId");
  out.size = NumberOf(document, "size");
  out.digest = TextOf(document, "digest");
  out.expanded =
      Field(document, "expanded").is_boolean() && Field(document, "expanded").get<bool>();
  out.created = static_cast<std::int64_t>(NumberOf(document, "created"));
  out.origin = TextOf(document, "origin");
  out.identity = TextOf(document, "identity");
  out.shape.files = NumberOf(document, "files");
  out.shape.folders = NumberOf(document, "folders");
  out.shape.bytes = NumberOf(document, "bytes");
  out.shape.folders_digest = TextOf(document, "foldersDigest");
  out.root_inode = NumberOf(document, "rootInode");
  if (NumberOf(document, "leat-dataset") != 1 || out.identity.empty() || out.root_inode == 0)
    return Fail(Errc::kCorrupt, "not the record of a dataset that this version knows");
  return out;
}

Storage::Names Storage::NamesOf(const std::string& id) const {
  return {id, fmt::format("{}/data/{}", root_, id), fmt::format("{}/.leat/{}", root_, id)};
}

Result<Storage::Names> Storage::NamesFor(const PlaceRequest& request) const {
  LEAT_ASSIGN_OR_RETURN(const std::string folder,
                        FolderName(request.name, request.etag, request.version));
  if (folder.starts_with(".leat"))
    return Fail(
        Errc::kInvalid,
        fmt::format("a dataset cannot be called \"{}\": such names are leat's own", folder));
  if (!request.etag.empty() || !request.version.empty()) return NamesOf(folder);
  const digest::Sha256 hash = digest::HashSha256(AsBytes(request.uri + "\n" + request.identity));
  return NamesOf(fmt::format("{}/{}", kTrees, ToHex(hash).substr(0, 32)));
}

Result<std::optional<Placed>> Storage::Ready(const Names& names,
                                             const PlaceRequest& request) const {
  const auto text = os::ReadFile(names.record());
  if (!text) return std::nullopt;
  auto record = Record::Decode(*text);
  const std::uint64_t inode = InodeOf(names.path);
  if (!record || inode == 0) return std::nullopt;
  LEAT_RETURN_IF_ERROR(CheckSame(request, *record, names.path));
  if (record->expanded != request.expanded && !request.identity.empty()) {
    return Fail(Errc::kConflict,
                fmt::format("dataset {}: {} holds it {} already; give one of them another name",
                            Printable(request.name), names.path,
                            record->expanded ? "expanded" : "as it is"));
  }
  // Somebody has removed or changed it.
  if (inode != record->root_inode ||
      (!request.identity.empty() && record->identity != request.identity)) {
    return std::nullopt;
  }
  const auto digest = FoldersDigest(names.path, names.folders());
  if (!digest || *digest != record->shape.folders_digest) return std::nullopt;
  Placed placed;
  placed.path = names.path;
  LEAT_ASSIGN_OR_RETURN(auto used, Use(names.record()));
  if (!used) return std::nullopt;
  placed.used = std::move(*used);
  (void)::utimensat(AT_FDCWD, names.record().c_str(), nullptr, 0);
  placed.record = std::move(*record);
  placed.reused = true;
  return placed;
}

Status Storage::CheckLink(const PlaceRequest& request) const {
  if (!request.etag.empty() || !request.version.empty()) return {};
  const std::string link = data_dir() + "/" + request.name;
  const std::string target = LinkTarget(link);
  // (Gone, perhaps just now, or on another machine; only what is there and no link is EINVAL.)
  if (target.empty() && errno != EINVAL) return {};
  if (!target.starts_with(std::string(kTrees) + "/")) {
    return Fail(
        Errc::kConflict,
        fmt::format("dataset {}: {} is there and is not leat's; give the dataset another name",
                    Printable(request.name), link));
  }
  const auto text = os::ReadFile(NamesOf(target).record());
  if (!text) return {};
  const auto record = Record::Decode(*text);
  // (What has been made of it may differ: the trees are two.)
  return record ? CheckSame(request, *record, link) : Status{};
}

Status Storage::PointTo(const PlaceRequest& request, const Names& names) {
  if (!request.etag.empty() || !request.version.empty()) return {};
  const std::string link = data_dir() + "/" + request.name;
  const std::string target = LinkTarget(link);
  if (target == names.id || (!target.empty() && !request.newest)) return {};
  // Folders cannot be exchanged on NFS; a link takes another's place everywhere. (Names of its own:
  // numbers of processes are those of others in containers and on other machines.)
  for (int attempt = 0;; ++attempt) {
    std::random_device random;
    const std::string fresh = fmt::format("{}/link.{:08x}{:08x}", names.meta, random(), random());
    if (::symlink(names.id.c_str(), fresh.c_str()) != 0) return FailErrno(errno, fresh);
    if (::rename(fresh.c_str(), link.c_str()) == 0) break;
    const int error = errno;
    ::unlink(fresh.c_str());
    // (Who fills the folder anew sweeps it.)
    if (error != ENOENT || attempt == 3)
      return FailErrno(error, "giving the dataset its name " + link);
  }
  return SyncFolder(data_dir());
}

Result<std::optional<Placed>> Storage::Find(const PlaceRequest& request) {
  LEAT_ASSIGN_OR_RETURN(const Names names, NamesFor(request));
  LEAT_RETURN_IF_ERROR(CheckLink(request));
  return Ready(names, request);
}

Result<Placed> Storage::Place(const PlaceRequest& request, const CallContext& ctx) {
  LEAT_ASSIGN_OR_RETURN(const Names names, NamesFor(request));
  LEAT_RETURN_IF_ERROR(CheckLink(request));
  for (;;) {
    LEAT_ASSIGN_OR_RETURN(auto there, Ready(names, request));
    if (there) {
      LEAT_RETURN_IF_ERROR(PointTo(request, names));
      return std::move(*there);
    }
    LEAT_RETURN_IF_ERROR(os::MakeDirs(names.meta, kFolder));
    LEAT_RETURN_IF_ERROR(os::MakeDirs(names.path.substr(0, names.path.rfind('/')), kFolder));
    KeepSpare(spare());
    auto lease = Lease::Take(names.lease(), times_, ctx, [&](const std::string& holder) {
      Progress(fmt::format("waiting for {}, which downloads {}", holder, Printable(request.name)));
      return true;
    });
    if (!lease) {
      // (Whoever cleaned the dataset away took its folder with it.)
      if (lease.error().code() == Errc::kNotFound) continue;
      return std::unexpected(std::move(lease).error());
    }
    LookAnew(names.record());
    if (os::Exists(names.record())) LookAnew(names.path);
    LEAT_ASSIGN_OR_RETURN(there, Ready(names, request));
    if (there) continue;  // made while this one waited
    const Status filled = FillAndPublish(names, request, **lease, ctx);
    // (A holder before this one may have taken the folder back, before it knew that it is none.)
    if (!filled && !ctx.cancelled() &&
        (!(*lease)->Check() ||
         (filled.error().code() == Errc::kNotFound && !os::Exists(names.part(**lease))))) {
      Note(fmt::format("{}: {}; it is looked at anew", Printable(request.name),
                       filled.error().message()));
      continue;
    }
    LEAT_RETURN_IF_ERROR(filled);
    LEAT_RETURN_IF_ERROR(PointTo(request, names));
    LEAT_ASSIGN_OR_RETURN(there, Ready(names, request));
    if (there) {
      there->reused = false;
      return std::move(*there);
    }
  }
}

Status Storage::FillAndPublish(const Names& names, const PlaceRequest& request, Lease& lease,
                               const CallContext& caller) {
  // A lease that is lost ends the filling.
  std::stop_source stop;
  const std::stop_callback given_up(caller.stop, [&] { stop.request_stop(); });
  const std::stop_callback taken(lease.lost(), [&] { stop.request_stop(); });
  const CallContext ctx{stop.get_token(), caller.deadline};

  const std::string part = names.part(lease);
  // What a dead holder has brought is gone on with, under a name that it does not know: of the same
  // contents, and where no power loss of its machine can have taken bytes of it.
  const std::string machine = lease.holder().substr(0, lease.holder().find(' '));
  const std::string was = os::ReadFile(names.part_of()).value_or("");
  const std::string was_machine = was.substr(0, was.find('\n'));
  const bool rebooted = was_machine != machine && was_machine.substr(0, was_machine.find('/')) ==
                                                      machine.substr(0, machine.find('/'));
  const bool same = !rebooted && was.ends_with("\n" + request.identity);
  LEAT_ASSIGN_OR_RETURN(const auto left, os::ListDir(names.meta));
  for (const std::string& name : left) {
    const std::string path = names.meta + "/" + name;
    if (same && name.starts_with("part.") && !os::Exists(part) &&
        ::rename(path.c_str(), part.c_str()) == 0)
      continue;
    if (name.starts_with("part.") || name.starts_with("gone."))
      LEAT_RETURN_IF_ERROR(os::RemoveTree(path));
  }
  // (Where it cannot be written, what comes now is of no use to the next holder; and why, shows.)
  ::unlink(names.part_of().c_str());
  (void)os::WriteFileAtomic(names.part_of(), machine + "\n" + request.identity, 0644);
  // What stands in the dataset's place and is not complete, or not what it was, goes, where leat
  // has put it there and no run reads it. (It may be there no more, but for a network file system's
  // memory.)
  os::UniqueFd used;
  // (Opening asks the server, where a look would be answered from memory.)
  if (const auto there = os::Open(names.path, O_RDONLY);
      there || there.error().code() != Errc::kNotFound) {
    auto record = os::Open(names.record(), O_RDWR);
    if (!record) {
      return Fail(Errc::kConflict,
                  fmt::format("dataset {}: {} is there and is not leat's; give the dataset another "
                              "name",
                              Printable(request.name), names.path));
    }
    used = std::move(*record);
    if (const Status free = os::Flock(used.get(), true, false);
        !free && free.error().code() == Errc::kConflict) {
      return Fail(Errc::kConflict,
                  fmt::format("dataset {}: {} is not as it was left, and a run uses it",
                              Printable(request.name), names.path));
    }
  }
  const std::string gone = names.meta + "/gone" + part.substr(part.rfind('.'));
  if (::rename(names.path.c_str(), gone.c_str()) == 0) {
    Note(fmt::format("{}: {} is not as it was left, and is downloaded again",
                     Printable(request.name), names.path));
    LEAT_RETURN_IF_ERROR(os::RemoveTree(gone));
  } else if (errno != ENOENT) {
    return FailErrno(errno, "putting aside " + names.path);
  }
  if (::unlink(names.record().c_str()) != 0) ::rmdir(names.record().c_str());
  used.Reset();
  // (Of an archive its expansion looks.)
  const std::uint64_t free = os::FreeBytes(names.meta);
  const std::uint64_t here = request.bytes > free ? os::UsageOf(part).bytes : 0;
  if (const std::uint64_t needed = request.bytes - std::min(here, request.bytes); needed > free) {
    return Fail(
        Errc::kNoSpace,
        fmt::format("dataset {}: {} more are needed in {}, which has {} (leat dataset clean)",
                    Printable(request.name), FormatBytes(needed), root_, FormatBytes(free)));
  }
  LEAT_RETURN_IF_ERROR(os::MakeDirs(part, 0755));
  if (Status filled = request.fill(part, ctx); !filled) {
    LEAT_RETURN_IF_ERROR(lease.Check());
    return filled;
  }
  Record record;
  record.name = request.name;
  record.uri = request.uri;
  record.origin = request.origin;
  record.identity = request.identity;
  record.etag = request.found_etag;
  record.version_id = request.found_version;
  record.digest = request.digest;
  record.size = request.size;
  record.expanded = request.expanded;
  record.created = ::time(nullptr);
  Sweep(names.meta);
  LEAT_ASSIGN_OR_RETURN(record.shape, IndexTree(part, names.files(), names.folders(), ctx));
  LEAT_RETURN_IF_ERROR(SyncTree(part, ctx));
  record.root_inode = InodeOf(part);
  LEAT_RETURN_IF_ERROR(lease.Check());
  // Without the folder in its place the record says nothing; with it, all is said.
  LEAT_RETURN_IF_ERROR(os::WriteFileAtomic(names.record(), record.Encode(), 0644));
  LEAT_RETURN_IF_ERROR(SyncFolder(names.meta));
  if (::rename(part.c_str(), names.path.c_str()) != 0)
    return FailErrno(errno, "publishing " + names.path);
  ::unlink(names.part_of().c_str());
  return SyncFolder(names.path.substr(0, names.path.rfind('/')));
}

Result<std::vector<Stored>> Storage::List() const {
  std::vector<Stored> out;
  std::set<std::string> ids;
  std::map<std::string, std::vector<std::string>> links_of;  // by id
  for (const std::string& name : NamesIn(data_dir())) {
    const std::string target = LinkTarget(data_dir() + "/" + name);
    if (target.starts_with(std::string(kTrees) + "/")) links_of[target].push_back(name);
  }
  for (const std::string& name : NamesIn(root_ + "/.leat")) {
    if (name != kTrees) ids.insert(name);
  }
  for (const std::string& name : NamesIn(fmt::format("{}/.leat/{}", root_, kTrees)))
    ids.insert(fmt::format("{}/{}", kTrees, name));
  for (const std::string& id : ids) {
    const Names names = NamesOf(id);
    Stored stored;
    stored.id = id;
    stored.path = names.path;
    const bool tree = id.starts_with(kTrees);
    const auto links = links_of.find(id);
    stored.folder = id;
    struct stat st;
    if (const auto text = os::ReadFile(names.record())) {
      if (auto record = Record::Decode(*text)) stored.record = std::move(*record);
      if (::stat(names.record().c_str(), &st) == 0) stored.last_used = st.st_mtim.tv_sec;
      const auto used = os::Open(names.record(), O_RDWR);  // (NFS locks alone only so)
      stored.in_use = used && !os::Flock(used->get(), true, false);
    }
    stored.complete = stored.record && InodeOf(names.path) == stored.record->root_inode;
    stored.superseded = stored.complete && tree && links == links_of.end();
    stored.bytes = stored.complete ? stored.record->shape.bytes : 0;
    if (!stored.complete) {
      for (const std::string& name : NamesIn(names.meta)) {
        if (name.starts_with("part.")) stored.bytes += os::UsageOf(names.meta + "/" + name).bytes;
      }
      if (os::Exists(names.path)) stored.bytes += os::UsageOf(names.path).bytes;
      if (tree && stored.record) stored.folder = stored.record->name;
    }
    // (A folder that two datasets have the same contents in is there by each name.)
    if (links != links_of.end()) {
      for (const std::string& name : links->second) {
        stored.folder = name;
        out.push_back(stored);
      }
      continue;
    }
    out.push_back(std::move(stored));
  }
  std::ranges::sort(out, {}, &Stored::folder);
  return out;
}

Result<TreeDifference> Storage::Verify(const Stored& stored, const CallContext& ctx) const {
  return VerifyTree(stored.path, NamesOf(stored.id).files(), ctx);
}

Status Storage::Remove(const Stored& stored) {
  const Names names = NamesOf(stored.id);
  const auto take = [&] {
    return Lease::Take(names.lease(), times_, {}, [](const std::string&) { return false; });
  };
  auto lease = take();
  if (!lease && lease.error().code() == Errc::kNoSpace && ::unlink(spare().c_str()) == 0)
    lease = take();
  const os::Cleanup keep([&] { KeepSpare(spare()); });
  if (!lease) {
    if (lease.error().code() == Errc::kNotFound) return {};
    if (lease.error().code() != Errc::kConflict) return std::unexpected(std::move(lease).error());
    return Fail(Errc::kConflict, fmt::format("{} is being downloaded", Printable(stored.folder)));
  }
  auto used = os::Open(names.record(), O_RDWR);
  if (used && !os::Flock(used->get(), true, false))
    return Fail(Errc::kConflict, fmt::format("{} is in use by a run", Printable(stored.folder)));
  bool named = false;  // by another, too
  for (const std::string& name : NamesIn(data_dir())) {
    const std::string link = data_dir() + "/" + name;
    if (LinkTarget(link) != stored.id) continue;
    if (name == stored.folder) {
      if (::unlink(link.c_str()) != 0) return FailErrno(errno, link);
    } else {
      named = true;
    }
  }
  if (named) return {};
  // Out of sight at once; what is left of it when this process is killed is no dataset.
  const std::string gone = fmt::format("{}/gone.removed", names.meta);
  LEAT_RETURN_IF_ERROR(os::RemoveTree(gone));
  if (::rename(names.path.c_str(), gone.c_str()) != 0 && errno != ENOENT)
    return FailErrno(errno, "removing " + names.path);
  ::unlink(names.record().c_str());
  // (On NFS what is open stays for a while, as .nfs..., which cannot be removed.)
  if (used) used->Reset();
  for (const std::string& name : NamesIn(names.meta)) {
    if (name != "lease" && !name.starts_with(".nfs"))
      LEAT_RETURN_IF_ERROR(os::RemoveTree(names.meta + "/" + name));
  }
  lease->reset();
  for (int i = 0; ::rmdir(names.meta.c_str()) != 0 && errno == ENOTEMPTY && i < 50; ++i)
    std::this_thread::sleep_for(20ms);
  return {};
}

bool Storage::Lost(const Stored& before) const {
  if (!before.complete || before.superseded) return false;
  struct stat st;
  if (!before.id.starts_with(kTrees))
    return ::lstat(before.path.c_str(), &st) != 0 && errno == ENOENT;
  // (Another run may have led the name to newer contents; several may lead to the same.)
  if (::lstat((data_dir() + "/" + before.folder).c_str(), &st) == 0 || errno != ENOENT)
    return false;
  return std::ranges::none_of(NamesIn(data_dir()), [&](const std::string& name) {
    return LinkTarget(data_dir() + "/" + name) == before.id;
  });
}

}  // namespace leat::dataset
