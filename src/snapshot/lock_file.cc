#include "snapshot/lock_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <initializer_list>
#include <limits>
#include <set>
#include <tuple>
#include <utility>

#include "base/bytes.h"
#include "base/json_fields.h"
#include "base/log.h"
#include "base/text.h"
#include "net/url.h"
#include "os/file.h"
#include "snapshot/builder.h"
#include "snapshot/lock_entries.h"

namespace leat::snapshot {
namespace {

using nlohmann::json;

constexpr const char* kVersionKey = "leat-lock";
constexpr std::uint64_t kVersion = 1;
constexpr std::uint64_t kLargestSize = std::numeric_limits<std::int64_t>::max();
constexpr std::size_t kLargestEntries = std::size_t{8} << 30;
constexpr mode_t kFileMode = 0644, kDirMode = 0755;  // it goes into git, and holds no secret
constexpr std::size_t kShown = 10;

/// The texts of a source, in the order in which they are written; the size stands behind them, and
/// behind it digest, expand and files.
struct TextField {
  const char* key;
  std::string LockedSource::* member;
};
constexpr TextField kBeforeSize[] = {
    {"name", &LockedSource::name},         {"source", &LockedSource::source},
    {"endpoint", &LockedSource::endpoint}, {"region", &LockedSource::region},
    {"etag", &LockedSource::etag},         {"versionId", &LockedSource::version_id}};
constexpr TextField kBehindSize[] = {{"digest", &LockedSource::digest},
                                     {"expand", &LockedSource::expand}};

std::unexpected<Error> Bad(std::string_view why) {
  return Fail(Errc::kCorrupt, fmt::format("it is not a lock file of leat's: {}", why));
}

std::string Quoted(std::string_view text) {
  return json(text).dump(-1, ' ', false, json::error_handler_t::replace);
}

void Sort(std::vector<LockedSource>& sources) {
  std::ranges::sort(sources, {}, [](const LockedSource& s) { return std::tie(s.name, s.source); });
}

bool HasControl(std::string_view text) {
  return std::ranges::any_of(
      text, [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
}

/// A user or a password before the host, or a query that signs.
bool HoldsSecret(std::string_view url) {
  if (net::WithoutSignature(url) != url) return true;
  const std::size_t scheme = url.find("://");
  if (scheme == url.npos) return false;
  const std::string_view rest = url.substr(scheme + 3);
  return rest.substr(0, rest.find_first_of("/?#")).find('@') != rest.npos;
}

bool IsDigest(std::string_view text) {
  struct Form {
    std::string_view head;
    std::size_t digits;
  };
  for (const auto& [head, digits] :
       {Form{"md5:", 32}, Form{"sha256:", 64}, Form{"crc32c:", 8}, Form{"mf:", 64}}) {
    if (!text.starts_with(head)) continue;
    text.remove_prefix(head.size());
    return text.size() == digits && text.find_first_not_of("0123456789abcdef") == text.npos;
  }
  return false;
}

/// What is wrong with it by itself; empty: nothing.
std::string Problem(const LockedSource& s) {
  for (const auto& fields : {std::span<const TextField>(kBeforeSize), {kBehindSize}}) {
    for (const auto& [key, member] : fields) {
      if (HasControl(s.*member)) return fmt::format("\"{}\" has a control character", key);
      if (!IsUtf8(s.*member)) return fmt::format("\"{}\" is not UTF-8", key);
    }
  }
  if (s.name.empty()) return "it has no name";
  if (s.source.empty()) return "it has no source";
  if (HoldsSecret(s.source))
    return "its source carries a signature or a password, and a lock file holds no secret";
  if (!s.endpoint.empty()) {
    if (HoldsSecret(s.endpoint))
      return "its endpoint carries a password, and a lock file holds no secret";
    const auto url = net::ParseUrl(s.endpoint);
    if (!url || !url->query.empty()) return "its endpoint is no http or https URL";
  }
  if (s.size > kLargestSize) return "its size is beyond 2^63";
  if (!s.digest.empty() && !IsDigest(s.digest))
    return "its digest is none of md5, sha256, crc32c and mf with their digits";
  const bool is_folder = s.digest.starts_with("mf:");
  if (s.files && !is_folder) return "it counts files without the digest of a folder (mf)";
  if (s.files && *s.files > format::kMaxEntries) return "it has too many files";
  if (is_folder && !(s.etag.empty() && s.version_id.empty() && s.expand.empty()))
    return "a folder has no etag, no version and is not expanded";
  return "";
}

/// What is wrong with all of them, sorted.
Status Check(const std::vector<LockedSource>& sources) {
  for (std::size_t i = 0; i < sources.size(); ++i) {
    const LockedSource& s = sources[i];
    if (const std::string problem = Problem(s); !problem.empty())
      return Fail(Errc::kInvalid, fmt::format("\"{}\": {}", Printable(s.name), problem));
    if (i > 0 && sources[i - 1].name == s.name)
      return Fail(Errc::kInvalid, fmt::format("\"{}\" is there twice", Printable(s.name)));
  }
  return {};
}

/// JSON without an object that has a key twice, and no deeper than a lock is; null for another.
json ParseStrictly(std::string_view text) {
  constexpr int kDeepest = 8;
  std::vector<std::set<std::string>> keys;
  bool refused = false;
  const auto watch = [&](int depth, json::parse_event_t event, json& value) {
    if (refused) return false;
    if (event == json::parse_event_t::object_start) {
      keys.emplace_back();
    } else if (event == json::parse_event_t::object_end) {
      keys.pop_back();
    } else if (event == json::parse_event_t::key) {
      refused |= !keys.back().insert(value.get<std::string>()).second;
    }
    refused |= depth > kDeepest;
    return !refused;  // (what is not kept costs nothing)
  };
  json parsed = json::parse(text, watch, /*allow_exceptions=*/false);
  return refused ? json() : parsed;
}

std::optional<std::uint64_t> NumberOf(const json& value) {
  if (!value.is_number_unsigned()) return std::nullopt;
  return value.get<std::uint64_t>();
}

/// The field's text goes into the source. False: there is no such field.
bool TakeText(LockedSource& source, std::string_view key, const std::string& text) {
  for (const auto& fields : {std::span<const TextField>(kBeforeSize), {kBehindSize}}) {
    for (const auto& field : fields) {
      if (key != field.key) continue;
      source.*field.member = text;
      return true;
    }
  }
  return false;
}

Result<LockedSource> ReadSource(const json& entry) {
  if (!entry.is_object()) return Bad("a source is no object");
  LockedSource source;
  bool has_size = false;
  for (const auto& [key, value] : entry.items()) {
    if (key == "size" || key == "files") {
      const auto number = NumberOf(value);
      if (!number) return Bad(fmt::format("\"{}\" is no number of bytes or files", key));
      if (key == "size") {
        source.size = *number;
        has_size = true;
      } else {
        source.files = *number;
      }
    } else if (!value.is_string()) {
      return Bad(fmt::format("\"{}\" of a source is no text", Printable(key)));
    } else if (!TakeText(source, key, value.get_ref<const std::string&>())) {
      return Bad(
          fmt::format("this leat does not know \"{}\" of a source; a later one may have "
                      "written it",
                      Printable(key)));
    } else if (value.get_ref<const std::string&>().empty()) {
      return Bad(fmt::format("\"{}\" of a source is empty", Printable(key)));
    }
  }
  if (!has_size) return Bad(fmt::format("\"{}\" has no size", Printable(source.name)));
  return source;
}

std::string DirOf(const std::string& lock_path) { return lock_path + ".d"; }

/// Names of a folder survive a power loss once it is synced.
Status SyncDir(const std::string& path) {
  LEAT_ASSIGN_OR_RETURN(const os::UniqueFd fd, os::Open(path, O_RDONLY | O_DIRECTORY));
  if (::fsync(fd.get()) != 0 && errno != EINVAL) return FailErrno(errno, "syncing " + path);
  return {};
}

std::string ParentOf(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  if (slash == path.npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace

std::string EncodeLock(const LockFile& lock) {
  std::vector<LockedSource> sources = lock.sources;
  Sort(sources);
  std::string out = fmt::format("{{\n  \"{}\": {},\n  \"sources\": [", kVersionKey, kVersion);
  const char* between = "\n";
  for (const LockedSource& source : sources) {
    out += between;
    between = ",\n";
    out += "    {";
    const char* comma = "\n";
    const auto put = [&](const char* key, const std::string& value) {
      out += fmt::format("{}      \"{}\": {}", comma, key, value);
      comma = ",\n";
    };
    const auto put_texts = [&](std::span<const TextField> fields) {
      for (const auto& [key, member] : fields) {
        if (const std::string& text = source.*member; !text.empty()) put(key, Quoted(text));
      }
    };
    put_texts(kBeforeSize);
    put("size", std::to_string(source.size));
    put_texts(kBehindSize);
    if (source.files) put("files", std::to_string(*source.files));
    out += "\n    }";
  }
  out += sources.empty() ? "]\n}\n" : "\n  ]\n}\n";
  return out;
}

Result<LockFile> DecodeLock(std::string_view text) {
  const json document = ParseStrictly(text);
  if (!document.is_object()) return Bad("it is no JSON object, or has a key twice");
  const json& version = Field(document, kVersionKey);
  if (version.is_null()) return Bad(fmt::format("it has no \"{}\"", kVersionKey));
  if (NumberOf(version) != kVersion) return Bad("its version is not known to this leat");
  const json& entries = Field(document, "sources");
  if (!entries.is_array()) return Bad("it has no list of sources");
  for (const auto& [key, value] : document.items()) {
    if (key != kVersionKey && key != "sources") {
      return Bad(fmt::format("this leat does not know \"{}\"; a later one may have written it",
                             Printable(key)));
    }
  }
  LockFile lock;
  for (const json& entry : entries) {
    LEAT_ASSIGN_OR_RETURN(LockedSource source, ReadSource(entry));
    lock.sources.push_back(std::move(source));
  }
  Sort(lock.sources);
  if (const Status sound = Check(lock.sources); !sound) return Bad(sound.error().message());
  return lock;
}

Result<LockFile> ReadLock(const std::string& path) {
  LEAT_ASSIGN_OR_RETURN(const std::string text, os::ReadFile(path));
  auto lock = DecodeLock(text);
  if (!lock) return Fail(std::move(lock), path);
  return lock;
}

Status WriteLock(const std::string& path, const LockFile& lock) {
  std::vector<LockedSource> sources = lock.sources;
  Sort(sources);
  if (Status sound = Check(sources); !sound)
    return Fail(std::move(sound), path + " cannot hold a source");
  LEAT_RETURN_IF_ERROR(os::WriteFileAtomic(path, EncodeLock(lock), kFileMode));
  return SyncDir(ParentOf(path));
}

std::vector<LockedEntry> EntriesOf(const Snapshot& snapshot) {
  std::vector<LockedEntry> entries;
  entries.reserve(snapshot.file_count() + snapshot.left_out().count);
  snapshot.ForEachListed([&](const Snapshot::Listed& listed) {
    entries.push_back({.key = std::string(listed.key),
                       .size = listed.size,
                       .etag = std::string(listed.etag),
                       .version_id = std::string(listed.version_id)});
  });
  return entries;
}

Status AddEntries(const std::vector<LockedEntry>& entries, std::string_view prefix,
                  Builder& builder) {
  store::ObjectInfo info;
  for (const LockedEntry& entry : entries) {
    info.key = prefix;
    info.key += entry.key;
    info.size = entry.size;
    info.version = {.etag = entry.etag, .version_id = entry.version_id};
    LEAT_RETURN_IF_ERROR(builder.Add(info));
  }
  return {};
}

Status WriteLockedEntries(const std::string& lock_path, std::string_view mf,
                          const std::vector<LockedEntry>& entries) {
  const auto by_key = [](const LockedEntry& a, const LockedEntry& b) { return a.key < b.key; };
  if (!std::ranges::is_sorted(entries, by_key)) {
    std::vector<LockedEntry> sorted = entries;
    std::ranges::sort(sorted, by_key);
    return WriteLockedEntries(lock_path, mf, sorted);
  }
  const auto hex = HexOfPin(mf);
  if (!hex || PinOf(entries) != mf)
    return Fail(Errc::kInvalid, fmt::format("{} does not name the entries", Printable(mf)));
  const std::string dir = DirOf(lock_path), path = fmt::format("{}/{}.zst", dir, *hex);
  if (const auto there = ReadLockedEntries(lock_path, mf); there && *there == entries) return {};
  LEAT_ASSIGN_OR_RETURN(const std::string bytes, EncodeEntries(entries));
  LEAT_RETURN_IF_ERROR(os::MakeDirs(dir, kDirMode));
  LEAT_RETURN_IF_ERROR(os::WriteFileAtomic(path, bytes, kFileMode));
  LEAT_RETURN_IF_ERROR(SyncDir(dir));
  return SyncDir(ParentOf(dir));
}

Result<std::vector<LockedEntry>> ReadLockedEntries(const std::string& lock_path,
                                                   std::string_view mf) {
  const auto hex = HexOfPin(mf);
  if (!hex) return Fail(Errc::kInvalid, fmt::format("{} names no entries", Printable(mf)));
  const std::string path = fmt::format("{}/{}.zst", DirOf(lock_path), *hex);
  LEAT_ASSIGN_OR_RETURN(const std::string bytes, os::ReadFile(path, kLargestEntries));
  auto entries = DecodeEntries(bytes, mf);
  if (!entries) return Fail(std::move(entries), path);
  return entries;
}

LockDifference Compare(const std::vector<LockedEntry>& locked, const Snapshot& now) {
  LockDifference out;
  auto next = locked.begin();
  now.ForEachListed([&](const Snapshot::Listed& listed) {
    for (; next != locked.end() && next->key < listed.key; ++next) out.removed.push_back(next->key);
    if (next == locked.end() || next->key != listed.key) {
      out.added.emplace_back(listed.key);
      return;
    }
    if (next->size != listed.size || next->etag != listed.etag) out.changed.push_back(next->key);
    ++next;
  });
  for (; next != locked.end(); ++next) out.removed.push_back(next->key);
  return out;
}

std::string LockDifference::Describe() const {
  std::string out;
  const auto add = [&](const std::vector<std::string>& keys, std::string_view what) {
    if (keys.empty()) return;
    out += fmt::format("{}{} {} (", out.empty() ? "" : ", ", FormatCount(keys.size()), what);
    for (std::size_t i = 0; i < std::min(keys.size(), kShown); ++i)
      out += (i > 0 ? " " : "") + Printable(keys[i]);
    out += keys.size() > kShown ? " ...)" : ")";
  };
  add(added, "added");
  add(removed, "removed");
  add(changed, "changed");
  return out.empty() ? "nothing" : out;
}

}  // namespace leat::snapshot
