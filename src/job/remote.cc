#include "job/remote.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

#include "auth/google.h"
#include "auth/keystone.h"
#include "base/bytes.h"
#include "base/log.h"
#include "base/thread_pool.h"
#include "digest/digest.h"
#include "net/url.h"
#include "store/gcs/gcs_store.h"
#include "store/http/http_store.h"
#include "store/s3/s3_store.h"
#include "store/swift/swift_store.h"

namespace leat::job {
namespace {

constexpr std::string_view kFolderPin = "mf:";
constexpr std::size_t kKeptSnapshots = 3;

/// Quotes, W/ and the case of hexadecimal digits do not matter when a person pins an etag.
std::string NormalEtag(std::string_view etag) {
  if (etag.starts_with("W/")) etag.remove_prefix(2);
  if (etag.size() >= 2 && etag.front() == '"' && etag.back() == '"')
    etag = etag.substr(1, etag.size() - 2);
  std::string out(etag);
  std::ranges::transform(out, out.begin(), [](char c) {
    return c >= 'A' && c <= 'F' ? static_cast<char>(c + 32) : c;
  });
  return out;
}

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
  std::unique_ptr<store::ObjectStore> driver;
  if (spec.source.kind == Source::Kind::kS3) {
    LEAT_ASSIGN_OR_RETURN(driver, remote->OpenS3());
  } else if (spec.source.kind == Source::Kind::kSwift) {
    LEAT_ASSIGN_OR_RETURN(driver, remote->OpenSwift());
  } else if (spec.source.kind == Source::Kind::kGcs) {
    LEAT_ASSIGN_OR_RETURN(driver, remote->OpenGcs());
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
  if (spec_.anonymous) {
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
    if (info.error().code() != Errc::kNotFound && info.error().code() != Errc::kDenied)
      return std::unexpected(info.error());
    if (!spec_.version.empty()) return std::unexpected(info.error());
    auto folder = SnapshotOfFolder(ctx, on_progress);
    if (!folder && info.error().code() == Errc::kDenied) return std::unexpected(info.error());
    if (!folder && folder.error().code() == Errc::kNotFound) {
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
    notes.push_back(
        fmt::format("{} is a folder: {} is ignored (etag=mf:... pins a folder; leat stat shows it)",
                    url, spec_.version.empty() ? "etag=" : "version="));
  }
  const std::string saved_name = SavedName(prefix);
  const std::string dir = tools_.home.snapshots_dir();
  // The newest of this source shows where to cut the listing; the one that was asked for makes it
  // needless.
  std::shared_ptr<const snapshot::Snapshot> hint;
  std::string newest;
  timespec newest_time = {};
  if (const auto names = os::ListDir(dir)) {
    for (const std::string& name : *names) {
      struct stat st;
      if (!name.starts_with(saved_name) || ::stat((dir + "/" + name).c_str(), &st) != 0) continue;
      if (!pin.empty() && name == saved_name + "-" + pin.substr(kFolderPin.size())) {
        if (auto fd = os::Open(dir + "/" + name, O_RDONLY)) {
          if (auto index = snapshot::Snapshot::Open(fd->get()); index && (*index)->pin() == pin) {
            SnapshotFile out;
            out.index = std::move(*index);
            out.file = std::move(*fd);
            out.known = out.is_folder = true;
            return out;
          }
        }
      }
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
  LEAT_ASSIGN_OR_RETURN(snapshot::KeyMap moved,
                        snapshot::BuildFromListing(*store_, prefix, options, ctx, builder));
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
