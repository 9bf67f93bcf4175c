#include "job/remote.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <limits.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

#include "archive/archive_name.h"
#include "archive/member_store.h"
#include "auth/google.h"
#include "auth/keystone.h"
#include "base/bytes.h"
#include "base/log.h"
#include "base/thread_pool.h"
#include "digest/digest.h"
#include "net/url.h"
#include "store/gcs/gcs_store.h"
#include "store/http/http_store.h"
#include "store/local/local_store.h"
#include "store/s3/s3_store.h"
#include "store/swift/swift_store.h"

namespace leat::job {
namespace {

constexpr std::string_view kFolderPin = "mf:";
constexpr std::size_t kKeptSnapshots = 3;

std::string LastComponent(std::string_view key) {
  const std::size_t slash = key.rfind('/');
  return std::string(slash == std::string_view::npos ? key : key.substr(slash + 1));
}

}  // namespace

Toolbox MakeToolbox(config::Environment env, Home home) {
  return {std::move(env), std::move(home), net::MakeHttpClient(), &SystemClock()};
}

Remote::~Remote() = default;

Result<std::unique_ptr<Remote>> Remote::Open(const MountSpec& spec, Toolbox& tools,
                                             store::RequestCounts* counts) {
  std::unique_ptr<Remote> remote(new Remote(spec, tools));
  // A dataset's name is that of its folder; an object in it has its own.
  if (spec.placed()) remote->spec_.name.clear();
  if (spec.locked) {
    remote->spec_.etag =
        spec.locked->source.files ? spec.locked->source.digest : spec.locked->source.etag;
    remote->spec_.version = spec.locked->source.version_id;
  }
  std::unique_ptr<store::ObjectStore> driver;
  if (spec.source.kind == Source::Kind::kS3) {
    LEAT_ASSIGN_OR_RETURN(driver, remote->OpenS3());
  } else if (spec.source.kind == Source::Kind::kSwift) {
    LEAT_ASSIGN_OR_RETURN(driver, remote->OpenSwift());
  } else if (spec.source.kind == Source::Kind::kGcs) {
    LEAT_ASSIGN_OR_RETURN(driver, remote->OpenGcs());
  } else if (spec.source.kind == Source::Kind::kLocal) {
    LEAT_ASSIGN_OR_RETURN(driver, remote->OpenLocal());
  } else {
    store::http::HttpOptions http;
    http.origin = spec.source.origin;
    if (!spec.source.user_info.empty()) {
      http.origin.insert(http.origin.find("//") + 2, spec.source.user_info + "@");
    }
    LEAT_ASSIGN_OR_RETURN(driver, store::http::MakeHttpStore(http, *tools.http));
  }
  remote->store_ = store::MakeRetrying(store::MakeCounted(std::move(driver), counts),
                                       &remote->policy_, *tools.clock, counts);
  remote->plain_store_ = remote->store_;
  remote->SetRetryTotal(std::chrono::seconds(15), 4);
  return remote;
}

/// A folder of this machine is a bucket, a file is an object in that of its folder.
Result<std::unique_ptr<store::ObjectStore>> Remote::OpenLocal() {
  char resolved[PATH_MAX];
  struct stat st;
  if (::realpath(spec_.source.path.c_str(), resolved) == nullptr || ::stat(resolved, &st) != 0) {
    return Fail(Errc::kNotFound, fmt::format("{}: {}", Printable(spec_.source.path),
                                             errno == ENOENT ? "there is no such file or folder"
                                                             : std::strerror(errno)));
  }
  std::string root = resolved;
  if (!S_ISDIR(st.st_mode)) {
    spec_.source.key = LastComponent(root);
    root.resize(std::max<std::size_t>(root.size() - spec_.source.key.size() - 1, 1));
  }
  return store::local::MakeLocalStore(root);
}

Result<std::unique_ptr<store::ObjectStore>> Remote::OpenS3() {
  LEAT_ASSIGN_OR_RETURN(config::AwsConfig aws, config::AwsConfig::Load(tools_.env));
  aws_ = std::make_unique<config::AwsConfig>(std::move(aws));
  // A remote of rclone's says all of it, but where it says env_auth.
  const config::RcloneRemote* const section = spec_.source.remote.get();
  std::string profile = spec_.profile, region = spec_.region, endpoint = spec_.endpoint;
  const auto take = [&](std::string& to, std::string_view option) {
    if (section != nullptr && to.empty()) to = section->GetOr(option, "");
  };
  take(profile, "profile");
  take(region, "region");
  take(endpoint, "endpoint");
  // (rclone takes one without a scheme)
  if (spec_.endpoint.empty() && !endpoint.empty() && endpoint.find("://") == std::string::npos)
    endpoint.insert(0, "https://");
  const bool configured =
      section == nullptr || section->IsSet("env_auth") || !spec_.profile.empty();
  config::S3Settings settings;
  if (configured) {
    LEAT_ASSIGN_OR_RETURN(
        settings, config::ResolveS3Settings(tools_.env, *aws_, {profile, region, endpoint}));
  } else {
    if (!region.empty() && region != "other-v2-signature") settings.region = region;
    settings.endpoint = endpoint;
    settings.ca_bundle = tools_.env("AWS_CA_BUNDLE").value_or("");
  }
  const std::string key = section == nullptr ? "" : section->GetOr("access_key_id", "");
  if (!spec_.access_key_id.empty()) {
    credentials_ = auth::MakeStatic({.access_key_id = spec_.access_key_id,
                                     .secret_access_key = spec_.secret_access_key,
                                     .provider = "the dataset's own keys"});
  } else if (spec_.anonymous) {
    credentials_ = auth::MakeAnonymous();
  } else if (!key.empty()) {
    credentials_ = auth::MakeStatic({.access_key_id = key,
                                     .secret_access_key = section->GetOr("secret_access_key", ""),
                                     .session_token = section->GetOr("session_token", ""),
                                     .provider = "remote " + section->name});
  } else if (!configured) {
    credentials_ = auth::MakeAnonymous();
  } else {
    auth::AwsChainOptions chain;
    chain.profile = profile;
    chain.region = settings.region;
    chain.ca_file = settings.ca_bundle;
    credentials_ =
        auth::MakeAwsChain(std::move(chain), tools_.env, *aws_, *tools_.http, *tools_.clock);
  }
  store::s3::S3Options options;
  options.bucket = spec_.source.bucket;
  options.region = settings.region;
  options.endpoint = settings.endpoint;
  options.addressing_style = settings.addressing_style;
  if (section != nullptr && section->Get("force_path_style"))
    options.addressing_style = section->IsSet("force_path_style") ? "path" : "virtual";
  for (const auto& [option, header] :
       {std::pair("server_side_encryption", "x-amz-server-side-encryption"),
        std::pair("sse_kms_key_id", "x-amz-server-side-encryption-aws-kms-key-id"),
        std::pair("storage_class", "x-amz-storage-class"), std::pair("acl", "x-amz-acl")}) {
    if (const auto value = section == nullptr ? std::nullopt : section->Get(option))
      options.put_headers.Add(header, *value);
  }
  options.ca_file = settings.ca_bundle;
  options.requester_pays =
      spec_.requester_pays || (section != nullptr && section->IsSet("requester_pays"));
  ca_file_ = settings.ca_bundle;
  return store::s3::MakeS3Store(std::move(options), *credentials_, *tools_.http, *tools_.clock);
}

Result<std::unique_ptr<store::ObjectStore>> Remote::OpenSwift() {
  LEAT_ASSIGN_OR_RETURN(config::OpenStackSettings settings,
                        spec_.source.remote != nullptr
                            ? config::OpenStackFromRemote(*spec_.source.remote, tools_.env)
                            : config::OpenStackFromVariables(tools_.env));
  if (!spec_.region.empty()) settings.region = spec_.region;
  if (spec_.anonymous) {
    if (settings.storage_url.empty()) {
      return Fail(Errc::kInvalid,
                  fmt::format("{}: without credentials the account's URL must be given "
                              "(OS_STORAGE_URL, or the remote's storage_url)",
                              spec_.source.ForMessages()));
    }
    settings.auth_url.clear();
    settings.token.clear();
  }
  // What tells accounts apart. (A project is the same whoever comes; an application credential
  // has one of its own.)
  std::string who;
  if (settings.has_application_credential()) {
    who = fmt::format("{} {} {} {} {}", settings.application_credential_id,
                      settings.application_credential_name, settings.user_id, settings.user,
                      settings.user_domain + settings.user_domain_id);
  } else if (!settings.project_id.empty()) {
    who = settings.project_id;
  } else {
    who = fmt::format("{} {} {} {}", settings.project, settings.project_domain,
                      settings.project_domain_id, settings.user_domain + settings.user_domain_id);
    if (settings.project.empty()) who += fmt::format(" {} {}", settings.user_id, settings.user);
  }
  store::swift::SwiftOptions options;
  options.container = spec_.source.bucket;
  if (spec_.source.remote != nullptr)
    options.storage_policy = spec_.source.remote->GetOr("storage_policy", "");
  options.account = fmt::format(
      "{} {} {} {}",
      net::Redacted(settings.auth_url.empty() ? settings.storage_url : settings.auth_url),
      settings.region, net::PercentEncode(who), net::Redacted(settings.storage_url));
  options.ca_file = settings.ca_file;
  ca_file_ = settings.ca_file;
  credentials_ = auth::MakeKeystone(std::move(settings), *tools_.http, *tools_.clock);
  return store::swift::MakeSwiftStore(std::move(options), *credentials_, *tools_.http,
                                      *tools_.clock);
}

Result<std::unique_ptr<store::ObjectStore>> Remote::OpenGcs() {
  const config::RcloneRemote* const section = spec_.source.remote.get();
  config::GoogleSettings settings;
  if (!spec_.anonymous) {
    LEAT_ASSIGN_OR_RETURN(settings, section != nullptr
                                        ? config::GoogleFromRemote(*section, tools_.env)
                                        : config::GoogleFromVariables(tools_.env));
  } else {
    // Credentials that do not work must not stand in the way of what needs none.
    config::RcloneRemote public_one = section != nullptr ? *section : config::RcloneRemote();
    public_one.options["anonymous"] = "true";
    LEAT_ASSIGN_OR_RETURN(settings, config::GoogleFromRemote(public_one, tools_.env));
    const auto emulator = tools_.env("STORAGE_EMULATOR_HOST");
    if (section == nullptr && emulator) {
      LEAT_ASSIGN_OR_RETURN(settings, config::GoogleFromVariables(tools_.env));
    }
  }
  store::gcs::GcsOptions options;
  options.bucket = spec_.source.bucket;
  options.endpoint = spec_.endpoint.empty() ? settings.endpoint : spec_.endpoint;
  while (options.endpoint.ends_with('/')) options.endpoint.pop_back();
  if (const auto url = net::ParseUrl(options.endpoint); !url || !url->user_info.empty()) {
    return Fail(Errc::kInvalid,
                fmt::format("{}: the endpoint {} is not a URL like "
                            "https://storage.googleapis.com",
                            spec_.source.ForMessages(), net::Redacted(options.endpoint)));
  }
  options.project = settings.project;
  options.quota_project = settings.quota_project;
  options.requester_pays = spec_.requester_pays;
  if (options.requester_pays && options.project.empty() && options.quota_project.empty()) {
    return Fail(Errc::kInvalid, fmt::format("{}: requester_pays needs a project that pays "
                                            "(GOOGLE_CLOUD_PROJECT)",
                                            spec_.source.ForMessages()));
  }
  if (section != nullptr) {
    options.location = section->GetOr("location", "");
    options.storage_class = section->GetOr("storage_class", "");
    options.uniform_access = section->IsSet("bucket_policy_only");
  }
  credentials_ = auth::MakeGoogle(std::move(settings), *tools_.http, *tools_.clock);
  return store::gcs::MakeGcsStore(std::move(options), *credentials_, *tools_.http, *tools_.clock);
}

void Remote::SetRetryTotal(std::chrono::milliseconds total, int attempts) {
  policy_.total = total;
  policy_.max_attempts = attempts;
}

std::string Remote::endpoint() const {
  if (spec_.source.kind == Source::Kind::kHttp) return spec_.source.origin;
  const std::string_view identity = store_->Identity();
  return std::string(identity.substr(0, identity.find(' ')));
}

Result<Remote::Greeting> Remote::Greet(const CallContext& ctx) {
  net::HttpRequest request{.method = "HEAD", .url = endpoint() + "/"};
  request.ca_file = ca_file_;
  const auto began = std::chrono::steady_clock::now();
  LEAT_ASSIGN_OR_RETURN(const net::HttpResponse response, tools_.http->Perform(request, ctx));
  Greeting greeting;
  greeting.took = std::chrono::duration_cast<std::chrono::milliseconds>(
      std::chrono::steady_clock::now() - began);
  if (const auto date = net::ParseHttpDate(response.headers.Get("Date").value_or(""))) {
    greeting.ahead = std::chrono::duration_cast<std::chrono::seconds>(*date - tools_.clock->Now());
  }
  return greeting;
}

std::string Remote::SavedName(std::string_view prefix) const {
  const digest::Sha256 hash =
      digest::HashSha256(AsBytes(fmt::format("{}\n{}", store_->Identity(), prefix)));
  return ToHex(hash).substr(0, 32);
}

Result<SnapshotFile> Remote::TakeSnapshot(const CallContext& ctx,
                                          const std::function<void(std::uint64_t)>& on_progress) {
  const Source& source = spec_.source;
  LEAT_RETURN_IF_ERROR(CheckBucket(source));
  if (spec_.locked) return SnapshotOfLock();
  if (source.kind == Source::Kind::kHttp) {
    LEAT_ASSIGN_OR_RETURN(const store::ObjectInfo info, store_->Stat(source.key, "", ctx));
    return SnapshotOfObject(info);
  }
  const bool folder_pin = spec_.etag.starts_with(kFolderPin);
  const bool folder_only = source.key.empty() || source.key.ends_with('/');
  if (!folder_only && !folder_pin) {
    const auto info = store_->Stat(source.key, spec_.version, ctx);
    if (info) return SnapshotOfObject(*info);
    // Without the right to list, a missing object and a forbidden one look alike (403): the listing
    // decides.
    const bool pinned = !spec_.version.empty();
    if (info.error().code() != Errc::kNotFound && info.error().code() != Errc::kDenied &&
        !(pinned && info.error().code() == Errc::kInvalid)) {
      return std::unexpected(info.error());
    }
    // An object that has no such version is not a folder, whatever lies below its name.
    if (pinned && store_->Stat(source.key, "", ctx)) return std::unexpected(info.error());
    auto folder = SnapshotOfFolder(ctx, on_progress);
    if (!folder && info.error().code() == Errc::kDenied) return std::unexpected(info.error());
    if (!folder && folder.error().code() == Errc::kNotFound) {
      if (pinned) return std::unexpected(info.error());
      // The object's own sentence may know more: that the bucket is missing.
      if (info.error().message().find("bucket") != std::string::npos)
        return std::unexpected(info.error());
      return Fail(Errc::kNotFound,
                  fmt::format("{}: there is no such object, and no folder of that name",
                              source.ForMessages()));
    }
    return folder;
  }
  return SnapshotOfFolder(ctx, on_progress);
}

Result<SnapshotFile> Remote::SnapshotOfObject(const store::ObjectInfo& info) {
  const std::string url = spec_.source.ForMessages();
  if (!spec_.etag.empty()) {
    if (spec_.etag.starts_with(kFolderPin))
      return Fail(Errc::kConflict, url + " is an object, but a folder was pinned (etag=mf:...)");
    if (NormalEtag(spec_.etag) != NormalEtag(info.version.etag)) {
      return Fail(
          Errc::kConflict,
          fmt::format(
              "{} has etag \"{}\", but \"{}\" was asked for{}", url, info.version.etag, spec_.etag,
              info.modified ? "; it was replaced on " + net::FormatDate(*info.modified) : ""));
    }
  }
  if (info.archived) {
    return Fail(Errc::kUnsupported, url +
                                        " is archived (Glacier) and must be restored before it can "
                                        "be read: aws s3api restore-object");
  }
  std::string real = spec_.source.key;
  std::string name = spec_.name;
  if (name.empty()) {
    name = spec_.source.kind == Source::Kind::kHttp
               ? net::PercentDecode(LastComponent(std::string_view(real).substr(0, real.find('?'))))
               : LastComponent(real);
  }
  std::string prefix = real.substr(0, real.size() - LastComponent(real).size());
  if (spec_.source.kind == Source::Kind::kHttp) prefix.clear();
  store::ObjectInfo entry = info;
  entry.key = prefix + name;
  // Naming a version that nobody asked for would need another right (s3:GetObjectVersion); the etag
  // pins the object as well.
  if (!spec_.version.empty() || !entry.version.etag.empty())
    entry.version.version_id = spec_.version;
  // The snapshot knows the object by its name; what tells its bytes from others of that name is
  // where they really are.
  std::string identity(store_->Identity());
  if (entry.key != real) {
    identity += "#" + ToHex(digest::HashSha256(AsBytes(net::WithoutSignature(real)))).substr(0, 32);
    store_ = store::MakeMapped(store_, {{entry.key, real}});
  }
  snapshot::Builder builder(std::move(identity), prefix);
  LEAT_RETURN_IF_ERROR(builder.Add(entry));
  auto saved = Save(builder, "");
  if (saved) {
    saved->expected = info.expected;
    saved->version_id = info.version.version_id;
  }
  if (saved && saved->index->file_count() != 1) {
    return Fail(Errc::kInvalid,
                fmt::format("{}: \"{}\" cannot be a file's name; give one with name=", url,
                            Printable(name)));
  }
  return saved;
}

Result<SnapshotFile> Remote::SnapshotOfFolder(
    const CallContext& ctx, const std::function<void(std::uint64_t)>& on_progress) {
  const std::string url = spec_.source.ForMessages();
  std::string prefix = spec_.source.key;
  if (!prefix.empty() && !prefix.ends_with('/')) prefix += '/';
  std::vector<std::string> notes;
  std::string pin = spec_.etag.starts_with(kFolderPin) ? spec_.etag : "";
  if ((!spec_.etag.empty() && pin.empty()) || !spec_.version.empty()) {
    const std::string_view pins = spec_.version.empty()                ? "etag="
                                  : spec_.etag.empty() || !pin.empty() ? "version="
                                                                       : "etag= and version=";
    if (spec_.strict_pins) {
      return Fail(Errc::kInvalid, fmt::format("{} is a folder: {} cannot pin it (etag=mf:... pins "
                                              "a folder; leat stat shows it)",
                                              url, pins));
    }
    notes.push_back(
        fmt::format("{} is a folder: {} {} ignored (etag=mf:... pins a folder; leat "
                    "stat shows it)",
                    url, pins, pins.size() > 8 ? "are" : "is"));
  }
  const std::string saved_name = SavedName(prefix);
  const std::string dir = tools_.home.snapshots_dir();
  if (!pin.empty() && !want_versions_) {
    if (auto saved = FindSaved(saved_name, pin)) return saved;
  }
  // The newest of this source shows where to cut the listing.
  std::shared_ptr<const snapshot::Snapshot> hint;
  std::string newest;
  timespec newest_time = {};
  if (const auto names = os::ListDir(dir)) {
    for (const std::string& name : *names) {
      struct stat st;
      if (!name.starts_with(saved_name) || ::stat((dir + "/" + name).c_str(), &st) != 0) continue;
      if (std::pair(st.st_mtim.tv_sec, st.st_mtim.tv_nsec) >
          std::pair(newest_time.tv_sec, newest_time.tv_nsec)) {
        newest = name;
        newest_time = st.st_mtim;
      }
    }
  }
  if (!newest.empty()) {
    if (auto fd = os::Open(dir + "/" + newest, O_RDONLY)) {
      if (auto index = snapshot::Snapshot::Open(fd->get())) hint = std::move(*index);
    }
  }
  snapshot::Builder builder(std::string(store_->Identity()), prefix);
  snapshot::ListingOptions options;
  options.hint = hint;
  options.on_progress = on_progress;
  options.with_versions = want_versions_ && store_->capabilities().list_versions;
  auto built = snapshot::BuildFromListing(*store_, prefix, options, ctx, builder);
  if (!built && options.with_versions &&
      (built.error().code() == Errc::kDenied || built.error().code() == Errc::kUnsupported)) {
    // The right to list versions is one of its own.
    options.with_versions = false;
    builder.Clear(false);
    built = snapshot::BuildFromListing(*store_, prefix, options, ctx, builder);
  }
  if (!built) return std::unexpected(std::move(built).error());
  snapshot::KeyMap moved = std::move(*built);
  if (!spec_.name.empty()) {
    return Fail(
        Errc::kInvalid,
        fmt::format("{} is a folder: name= is for the file that a single object becomes", url));
  }
  // (one that holds for minutes, and would be wrong without the map, is not kept)
  LEAT_ASSIGN_OR_RETURN(SnapshotFile out, Save(builder, moved.empty() ? saved_name : ""));
  store_ = moved.empty() ? plain_store_ : store::MakeMapped(plain_store_, std::move(moved), true);
  out.notes = std::move(notes);
  out.is_folder = true;
  if (!pin.empty() && out.index->pin() != pin) {
    return Fail(Errc::kConflict,
                fmt::format("{} has the pin {}, but {} was asked for; its contents have changed",
                            url, out.index->pin(), pin));
  }
  // A command must not see an empty folder in place of data.
  if (out.index->file_count() == 0) {
    return Fail(Errc::kNotFound,
                out.left_out.count == 0
                    ? url + ": the folder is empty"
                    : fmt::format("{}: none of its {} keys can be a file's name, first \"{}\" ({})",
                                  url, FormatCount(out.left_out.count),
                                  Printable(out.left_out.first_key), out.left_out.first_why));
  }
  LEAT_RETURN_IF_ERROR(CheckArchived(*out.index, ctx));
  return out;
}

Result<SnapshotFile> Remote::FindSaved(const std::string& saved_name,
                                       const std::string& pin) const {
  LEAT_ASSIGN_OR_RETURN(os::UniqueFd fd,
                        os::Open(fmt::format("{}/{}-{}", tools_.home.snapshots_dir(), saved_name,
                                             pin.substr(kFolderPin.size())),
                                 O_RDONLY));
  SnapshotFile out;
  LEAT_ASSIGN_OR_RETURN(out.index, snapshot::Snapshot::Open(fd.get()));
  if (out.index->pin() != pin) return Fail(Errc::kCorrupt, "a snapshot under another's name");
  out.file = std::move(fd);
  out.known = out.is_folder = true;
  return out;
}

Result<SnapshotFile> Remote::SnapshotOfLock() {
  const snapshot::LockedSource& locked = spec_.locked->source;
  if (!locked.files) {
    store::ObjectInfo info;
    info.key = spec_.source.key;
    info.size = locked.size;
    info.version = {locked.etag, locked.version_id};
    info.expected = digest::FromText(locked.digest);
    LEAT_ASSIGN_OR_RETURN(SnapshotFile out, SnapshotOfObject(info));
    out.known = true;
    return out;
  }
  std::string prefix = spec_.source.key;
  if (!prefix.empty() && !prefix.ends_with('/')) prefix += '/';
  // (One with versions is found under the same name as one without.)
  const std::string saved_name = SavedName("locked\n" + prefix);
  if (auto saved = FindSaved(saved_name, locked.digest)) return saved;
  LEAT_ASSIGN_OR_RETURN(const std::vector<snapshot::LockedEntry> entries,
                        snapshot::ReadLockedEntries(spec_.locked->file, locked.digest));
  snapshot::Builder builder(std::string(store_->Identity()), prefix);
  LEAT_RETURN_IF_ERROR(snapshot::AddEntries(entries, prefix, builder));
  LEAT_ASSIGN_OR_RETURN(SnapshotFile out, Save(builder, saved_name));
  out.known = out.is_folder = true;
  return out;
}

Result<std::string> Remote::DifferenceFromLock(const CallContext& ctx) {
  const snapshot::LockedSource& locked = spec_.locked->source;
  store_ = plain_store_;
  if (!locked.files) {
    LEAT_ASSIGN_OR_RETURN(const store::ObjectInfo now,
                          store_->Stat(spec_.source.key, locked.version_id, ctx));
    if (now.size == locked.size && NormalEtag(now.version.etag) == NormalEtag(locked.etag))
      return "";
    return fmt::format(
        "it has etag \"{}\", and \"{}\"{} was locked{}", now.version.etag, locked.etag,
        locked.version_id.empty() ? "" : " of version " + locked.version_id,
        now.modified ? "; it was replaced on " + net::FormatDate(*now.modified) : "");
  }
  LEAT_ASSIGN_OR_RETURN(const auto entries,
                        snapshot::ReadLockedEntries(spec_.locked->file, locked.digest));
  MountSpec locked_spec = spec_;
  spec_.locked.reset();
  spec_.etag.clear();
  spec_.version.clear();
  auto now = SnapshotOfFolder(ctx, {});
  spec_ = std::move(locked_spec);
  store_ = plain_store_;
  if (!now) return std::unexpected(std::move(now).error());
  const snapshot::LockDifference difference = snapshot::Compare(entries, *now->index);
  return difference.empty() ? "" : difference.Describe();
}

Error Remote::ExplainLock(Error error, const CallContext& ctx) {
  if (!spec_.locked || (error.code() != Errc::kConflict && error.code() != Errc::kNotFound))
    return error;
  const auto difference = DifferenceFromLock(ctx);
  if (difference && difference->empty()) return error;
  return Error(
      Errc::kConflict,
      fmt::format("{} is not any more what {} has locked: {}", spec_.source.ForMessages(),
                  spec_.locked->file, difference ? *difference : difference.error().message()));
}

Status Remote::CheckLock(const snapshot::Snapshot& index, const CallContext& ctx) {
  if (!spec_.locked) return {};
  // What has a version's name is there whatever came after it.
  bool versions = spec_.locked->source.files.has_value();
  for (snapshot::FileIndex i = 0; versions && i < index.file_count(); ++i)
    versions = !index.file(i).version_id.empty();
  if (versions) return {};
  const auto store = store_;
  const auto difference = DifferenceFromLock(ctx);
  store_ = store;
  if (difference && difference->empty()) return {};
  return Fail(
      Errc::kConflict,
      fmt::format("{} is not any more what {} has locked: {}", spec_.source.ForMessages(),
                  spec_.locked->file, difference ? *difference : difference.error().message()));
}

Result<bool> Remote::Expands(const SnapshotFile& taken) const {
  if (spec_.expand == Expand::kNever) return false;
  if (taken.is_folder) {
    if (spec_.expand == Expand::kAuto) return false;
    return Fail(Errc::kInvalid,
                spec_.source.ForMessages() + " is a folder: expand=always is for a single archive");
  }
  return spec_.expand == Expand::kAlways ||
         !archive::ArchiveExtension(taken.index->file(0).name).empty();
}

store::ObjectInfo Remote::ArchiveOf(const snapshot::Snapshot& object) const {
  store::ObjectInfo info;
  info.key = object.KeyOfFile(0);
  info.size = object.file(0).size;
  info.version = {object.file(0).etag.str(), std::string(object.file(0).version_id)};
  return info;
}

Result<SnapshotFile> Remote::TakeMembers(const SnapshotFile& object, const CallContext& ctx,
                                         const std::function<void(std::uint64_t)>& on_progress) {
  store::ObjectInfo archive = ArchiveOf(*object.index);
  archive.expected = object.expected;
  // An object that lies in the tree under another name than its own is told apart by its snapshot.
  const auto members =
      archive::MakeMemberStore(store_, archive, std::string(object.index->store_identity()));
  // What was indexed once for this version of the archive need not be again; the pin is known by
  // the index alone.
  const std::string saved_name =
      ToHex(digest::HashSha256(AsBytes(fmt::format("members\n{}", members->Identity()))))
          .substr(0, 32);
  SnapshotFile out;
  const std::string dir = tools_.home.snapshots_dir();
  if (const auto names = os::ListDir(dir); names && !archive.version.empty()) {
    for (const std::string& name : *names) {
      if (!name.starts_with(saved_name + "-")) continue;
      auto fd = os::Open(dir + "/" + name, O_RDONLY);
      if (!fd) continue;
      auto index = snapshot::Snapshot::Open(fd->get());
      if (!index || (*index)->store_identity() != members->Identity()) continue;
      out.index = std::move(*index);
      out.file = std::move(*fd);
      out.known = true;
    }
  }
  if (!out.index) {
    snapshot::Builder builder(std::string(members->Identity()), "");
    LEAT_RETURN_IF_ERROR(archive::IndexMembers(*store_, archive, spec_.source.ForMessages(), ctx,
                                               on_progress, builder));
    LEAT_ASSIGN_OR_RETURN(out, Save(builder, archive.version.empty() ? "" : saved_name));
    if (out.index->file_count() == 0)
      return Fail(Errc::kNotFound, spec_.source.ForMessages() + ": the archive holds no files");
  }
  store_ = members;
  out.members = true;
  return out;
}

/// A listing goes on calling archived what has been restored.
Status Remote::CheckArchived(const snapshot::Snapshot& index, const CallContext& ctx) {
  std::vector<std::uint32_t> listed;
  for (std::uint32_t i = 0; i < index.file_count(); ++i) {
    if (index.file(i).archived) listed.push_back(i);
  }
  constexpr std::size_t kCounted = 1000;  // more are counted as they were listed
  std::mutex mutex;
  std::set<std::uint32_t> archived;
  ParallelFor(listed.size(), 16, [&](std::size_t i) {
    const auto info = store_->Stat(index.KeyOfFile(listed[i]), "", ctx);
    const std::lock_guard lock(mutex);
    // (Where nothing more can be told, it is as it was listed.)
    if (!info || info->archived) archived.insert(listed[i]);
    return listed.size() <= kCounted || archived.empty();
  });
  if (archived.empty()) return {};
  return Fail(
      Errc::kUnsupported,
      fmt::format("{} of {} objects of {} are archived (Glacier) and must be restored before "
                  "they can be read, first {} "
                  "(aws s3api restore-object --bucket {} --key ... --restore-request Days=7)",
                  FormatCount(listed.size() <= kCounted ? archived.size() : listed.size()),
                  FormatCount(index.file_count()), spec_.source.ForMessages(),
                  index.PathOfFile(*archived.begin()), spec_.source.bucket));
}

Result<SnapshotFile> Remote::Save(snapshot::Builder& builder, const std::string& name) {
  SnapshotFile out;
  const std::string dir = tools_.home.snapshots_dir();
  std::string temporary;
  if (!name.empty() && !tools_.home.dir.empty() && os::MakeDirs(dir, 0700)) {
    // The same source may be attached twice by one process, side by side.
    static std::atomic<unsigned> count{0};
    temporary = fmt::format("{}/.new-{}-{}-{}", dir, ::getpid(), count++, name);
    if (auto fd = os::Open(temporary, O_RDWR | O_CREAT | O_TRUNC)) {
      out.file = std::move(*fd);
    } else {
      temporary.clear();
    }
  }
  const os::Cleanup remove([&] {
    if (!temporary.empty()) ::unlink(temporary.c_str());
  });
  if (temporary.empty()) {
    out.file.Reset(::memfd_create("leat-snapshot", MFD_CLOEXEC));
    if (!out.file) return FailErrno(errno, "keeping the snapshot in memory");
  }
  if (const Status written = builder.WriteTo(out.file.get(), false, &out.left_out); !written) {
    return std::unexpected(
        Error(written.error()).While("writing the snapshot of " + spec_.source.ForMessages()));
  }
  LEAT_ASSIGN_OR_RETURN(out.index, snapshot::Snapshot::Open(out.file.get()));
  if (temporary.empty()) return out;
  // A torn file after a power loss is recognised by its checksum and listed again: no sync is owed
  // here.
  const std::string path =
      fmt::format("{}/{}-{}", dir, name, out.index->pin().substr(kFolderPin.size()));
  if (::rename(temporary.c_str(), path.c_str()) == 0) {
    temporary.clear();
    std::vector<std::pair<timespec, std::string>> old;
    if (const auto names = os::ListDir(dir)) {
      for (const std::string& other : *names) {
        struct stat st;
        if (::stat((dir + "/" + other).c_str(), &st) != 0) continue;
        if (other.starts_with(name)) old.emplace_back(st.st_mtim, other);
        // Of a process that was killed: no listing takes a day.
        if (other.starts_with(".new-") && st.st_mtim.tv_sec < ::time(nullptr) - 86400)
          ::unlink((dir + "/" + other).c_str());
      }
    }
    std::ranges::sort(old, [](const auto& a, const auto& b) {
      return std::pair(a.first.tv_sec, a.first.tv_nsec) >
             std::pair(b.first.tv_sec, b.first.tv_nsec);
    });
    for (std::size_t i = kKeptSnapshots; i < old.size(); ++i)
      ::unlink((dir + "/" + old[i].second).c_str());
  }
  return out;
}

Result<SnapshotFile> Remote::ReopenSnapshot(os::UniqueFd file) {
  SnapshotFile out;
  out.file = std::move(file);
  LEAT_ASSIGN_OR_RETURN(out.index, snapshot::Snapshot::Open(out.file.get()));
  if (auto archive = archive::ArchiveOfIdentity(out.index->store_identity())) {
    // The one that was indexed: where another has taken its place, each read tells.
    if (archive->key != spec_.source.key)
      store_ = store::MakeMapped(store_, {{archive->key, spec_.source.key}});
    if (archive->version.version_id.empty()) archive->version.version_id = spec_.version;
    store_ = archive::MakeMemberStore(store_, *archive);
    return out;
  }
  // A single object may lie in the tree under another name than its own.
  const bool single = spec_.source.kind == Source::Kind::kHttp ||
                      (out.index->file_count() == 1 && !spec_.source.key.empty() &&
                       !spec_.source.key.ends_with('/') && !spec_.name.empty());
  if (single && out.index->KeyOfFile(0) != spec_.source.key) {
    store_ = store::MakeMapped(store_, {{std::string(out.index->KeyOfFile(0)), spec_.source.key}});
  }
  if (out.index->store_identity().ends_with(snapshot::kMoved)) {
    // (Where they are settled by now, there is no map, or no manifest; their etags tell.)
    std::string prefix = spec_.source.key;
    if (!prefix.empty() && !prefix.ends_with('/')) prefix += '/';
    const auto manifest = snapshot::ReadManifest(*store_, prefix, {});
    if (manifest) store_ = store::MakeMapped(store_, manifest->Moved(prefix), true);
  }
  return out;
}

}  // namespace leat::job
