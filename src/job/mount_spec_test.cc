#include "job/mount_spec.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <map>
#include <optional>

#include "os/file.h"

namespace leat::job {
namespace {

MountSpec Parsed(std::string_view text) {
  auto spec = ParseMount(text);
  EXPECT_TRUE(spec) << text << ": " << spec.error().message();
  return spec ? std::move(*spec) : MountSpec{};
}
std::string Refusal(std::string_view text) {
  const auto spec = ParseMount(text);
  EXPECT_FALSE(spec) << text << " was read as " << spec->target << " = " << spec->source.text;
  if (spec) return "";
  EXPECT_EQ(spec.error().code(), Errc::kInvalid) << text;
  return spec.error().message();
}

// ---------------------------------------------------------------- target or no target

TEST(MountSpec, SourceAloneGoesToData) {
  for (const char* text :
       {"s3://b/k", "/mnt/set", "./set", "../set", "set", "https://h/f", "file:///mnt/set"}) {
    EXPECT_EQ(Parsed(text).target, "/data") << text;
    EXPECT_EQ(Parsed(text).source.text, text);
  }
}

TEST(MountSpec, TargetStandsBeforeWhatBeginsLikeASource) {
  for (const char* source : {"s3://b/k", "/mnt/set", "./set", "../set", "~/set", "https://h/f?a=b",
                             "file:///mnt/set", ".", "..", "~"}) {
    setenv("HOME", "/home/u", 1);
    const MountSpec spec = Parsed(std::string("/in/put=") + source);
    EXPECT_EQ(spec.target, "/in/put") << source;
    EXPECT_EQ(spec.source.text, source);
  }
}

TEST(MountSpec, EqualsInAPathOrKeyIsNoTarget) {
  EXPECT_EQ(Parsed("/mnt/year=2024").source.path, "/mnt/year=2024");
  EXPECT_EQ(Parsed("/mnt/year=2024").target, "/data");
  EXPECT_EQ(Parsed("s3://b/year=2024/").source.key, "year=2024/");
  EXPECT_EQ(Parsed("/in=s3://b/year=2024/").source.key, "year=2024/");
  EXPECT_EQ(Parsed("/in=/mnt/year=2024").source.path, "/mnt/year=2024");
  EXPECT_EQ(Parsed("/a=b=/mnt/x").target, "/a=b") << "the first '=' that a source follows";
  EXPECT_EQ(Parsed("https://h/f?x=/y").target, "/data");
}

TEST(MountSpec, TargetIsMadePlain) { EXPECT_EQ(Parsed("//in///a/./b/=s3://b").target, "/in/a/b"); }

TEST(MountSpec, TargetsOfTheSystemAreRefused) {
  for (const char* target :
       {"/", "//", "/.", "/proc", "/proc/x", "/sys", "/dev", "/dev/shm", "//proc/"}) {
    EXPECT_NE(Refusal(std::string(target) + "=s3://b/k").find("the target"), std::string::npos)
        << target;
  }
  EXPECT_EQ(Parsed("/processed=s3://b/k").target, "/processed");
  EXPECT_EQ(Parsed("/device=s3://b/k").target, "/device");
  EXPECT_EQ(Refusal("/a/../b=s3://b/k"), "the target \"/a/../b\" must not contain \"..\"");
  EXPECT_EQ(Refusal("data=s3://b/k"),
            "the target \"data\" is not an absolute path (write /data=...)");
  Refusal("/" + std::string(256, 'x') + "=s3://b/k");
  std::string deep;
  for (int i = 0; i < 500; ++i) deep += "/123456789";
  Refusal(deep + "=s3://b/k");
}

TEST(MountSpec, TheSameTargetTwiceIsRefused) {
  EXPECT_TRUE(CheckTargets({Parsed("/a=s3://b"), Parsed("/a/b=s3://b"), Parsed("/c=s3://b")}));
  const auto twice = CheckTargets({Parsed("/a=s3://b"), Parsed("//a/=s3://c")});
  ASSERT_FALSE(twice);
  EXPECT_EQ(twice.error().message(), "the target /a is given twice");
}

// ---------------------------------------------------------------- options

TEST(MountSpec, OptionsAreReadFromTheEnd) {
  const MountSpec spec = Parsed(
      "/in=s3://b/k,mode=copy,etag=\"9a\",version=v1,name=n,profile=p,region=r,"
      "endpoint=http://e:1,requester_pays");
  EXPECT_EQ(spec.source.key, "k");
  EXPECT_EQ(spec.mode, Mode::kCopy);
  EXPECT_EQ(spec.etag, "\"9a\"");
  EXPECT_EQ(spec.version, "v1");
  EXPECT_EQ(spec.name, "n");
  EXPECT_EQ(spec.profile, "p");
  EXPECT_EQ(spec.region, "r");
  EXPECT_EQ(spec.endpoint, "http://e:1");
  EXPECT_TRUE(spec.requester_pays);
  EXPECT_FALSE(spec.anonymous);
  EXPECT_FALSE(spec.writable);
  EXPECT_TRUE(Parsed("s3://b/k,anon").anonymous);
  EXPECT_TRUE(Parsed("/out=./results,rw").writable);
  EXPECT_FALSE(Parsed("/out=./results,ro").writable);
  EXPECT_EQ(Parsed("s3://b/k,mode=stream").mode, Mode::kStream);
  EXPECT_EQ(Parsed("s3://b/k").mode, Mode::kStream);
}

TEST(MountSpec, OtherCommasBelongToTheSource) {
  EXPECT_EQ(Parsed("s3://b/a,b").source.key, "a,b");
  EXPECT_EQ(Parsed("s3://b/a,ro,b").source.key, "a,ro,b") << "only words at the end are options";
  EXPECT_EQ(Parsed("s3://b/a,b,mode=copy").source.key, "a,b");
  EXPECT_EQ(Parsed("s3://b/a,x=1").source.key, "a,x=1");
  EXPECT_EQ(Parsed("s3://b/a,").source.key, "a,");
  EXPECT_EQ(Parsed("s3://b/a,mode").source.key, "a,mode") << "mode has a value";
  EXPECT_EQ(Parsed("s3://b/a,ro=1").source.key, "a,ro=1") << "ro has none";
  EXPECT_EQ(Parsed("https://h/f?X-Amz-SignedHeaders=a,b&c=d,e").source.key,
            "f?X-Amz-SignedHeaders=a,b&c=d,e");
}

TEST(MountSpec, OptionsThatMakeNoSenseAreRefusedWithASentence) {
  EXPECT_EQ(Refusal("s3://b/k,ro,ro"), "s3://b/k: the option ro is given twice");
  EXPECT_EQ(Refusal("/x=/mnt,ro,rw").find("/mnt: the option r"), 0u);
  EXPECT_EQ(Refusal("s3://b/k,mode=copy,mode=stream"), "s3://b/k: the option mode is given twice");
  EXPECT_EQ(Refusal("s3://b/k,mode=fast"), "s3://b/k: mode is stream or copy, not \"fast\"");
  EXPECT_EQ(Refusal("s3://b/k,etag="), "s3://b/k: the option etag= has no value");
  EXPECT_EQ(Refusal("s3://b/k,name=a/b"), "s3://b/k: \"a/b\" cannot be a file's name");
  EXPECT_EQ(Refusal("s3://b/k,name=.."), "s3://b/k: \"..\" cannot be a file's name");
  EXPECT_EQ(Refusal("s3://b/k,rw"),
            "s3://b/k: rw is for a folder of this machine; an object store is attached read-only");
  EXPECT_EQ(Refusal("/mnt/x,etag=1"),
            "/mnt/x: the option etag is for sources in stores and https://");
  EXPECT_EQ(Refusal("https://h/f,version=1"),
            "https://h/f: the option version is for s3://, swift:// and gs:// sources");
  for (const char* option :
       {"profile=p", "region=r", "endpoint=http://e", "anon", "requester_pays"})
    Refusal(std::string("https://h/f,") + option);
  EXPECT_EQ(Refusal("gs://b/k,region=r"),
            "gs://b/k: the option region is for s3:// and swift:// sources");
  EXPECT_EQ(Refusal("gs://b/k,profile=p"), "gs://b/k: the option profile is for s3:// sources");
  EXPECT_EQ(Refusal("swift://b/k,endpoint=http://e"),
            "swift://b/k: the option endpoint is for s3:// and gs:// sources");
  for (const char* option : {"endpoint=http://e", "anon", "requester_pays", "version=1", "etag=1"})
    EXPECT_TRUE(ParseMount(std::string("gs://b/k,") + option)) << option;
  EXPECT_EQ(Refusal("s3://b/k,anon,profile=p"), "anon and profile= exclude each other");
  EXPECT_EQ(Refusal("s3://b/k,expand=maybe"),
            "s3://b/k: expand is auto, always or never, not \"maybe\"");
  EXPECT_EQ(Refusal("s3://b/k,volume=big"), "s3://b/k: a volume is shared or dynamic, not \"big\"");
  EXPECT_EQ(Refusal("s3://b/k,size=1Gi"), "s3://b/k: size= is for volume=dynamic");
  EXPECT_EQ(Refusal("s3://b/k,volume=shared,size=1Gi"), "s3://b/k: size= is for volume=dynamic");
  EXPECT_EQ(Refusal("s3://b/k,volume=dynamic,size=0"),
            "s3://b/k: a volume of no size holds nothing");
  Refusal("s3://b/k,volume=dynamic,size=-1");
  EXPECT_EQ(Refusal("s3://b/k,volume=shared,mode=stream"),
            "s3://b/k: volume= downloads everything, and mode=stream does not; choose one");
  EXPECT_EQ(Refusal("/x/y.zip,expand=auto"),
            "/x/y.zip: an archive of this machine is expanded with volume=shared or "
            "volume=dynamic");
  Refusal("s3://b/k,volume=shared,name=none");
  Refusal("s3://b/k,volume=shared,rw");
}

TEST(MountSpec, AVolumeMakesADataset) {
  const auto plain = ParseMount("/x=s3://b/k.zip");
  ASSERT_TRUE(plain);
  EXPECT_EQ(plain->expand, Expand::kNever);
  EXPECT_FALSE(plain->placed());
  const auto shared = ParseMount("s3://b/k.zip,volume=Shared");
  ASSERT_TRUE(shared);
  EXPECT_EQ(shared->volume, Volume::kShared);
  EXPECT_EQ(shared->expand, Expand::kAuto);
  EXPECT_EQ(shared->target, "/data/k");
  const auto dynamic =
      ParseMount("/x=s3://b/k.zip,etag=9a,name=n,volume=dynamic,size=10Gi,expand=never");
  ASSERT_TRUE(dynamic);
  EXPECT_EQ(dynamic->volume_size, 10 * kGiB);
  EXPECT_EQ(dynamic->expand, Expand::kNever);
  EXPECT_EQ(dynamic->target, "/x");
  EXPECT_EQ(ParseMount("s3://b/k,volume=dynamic")->volume_size, 5'368'709'120U);
  EXPECT_TRUE(ParseMount("s3://b/k,volume=dynamic,size=advisory")->advisory_size);
  EXPECT_TRUE(ParseMount("/mnt/x.zip,volume=shared")->placed());
  EXPECT_FALSE(ParseMount("/mnt/x.zip,volume=shared")->is_bind());
}

std::string DatasetRefusal(const dataset::Options& options) {
  const auto mount = DatasetMount(options);
  EXPECT_FALSE(mount);
  return mount ? "" : mount.error().message();
}

TEST(DatasetMount, IsASharedCopyUnderItsName) {
  dataset::Options options;
  options.uri = "s3://bucket-name/my-dataset.zip";
  auto mount = DatasetMount(options);
  ASSERT_TRUE(mount);
  EXPECT_EQ(mount->target, "/data/my-dataset");
  EXPECT_EQ(mount->volume, Volume::kShared);
  EXPECT_EQ(mount->expand, Expand::kAuto);
  options.name = "dataset A";
  options.volume_kind = "Dynamic";
  options.volume_size = "10Gi";
  options.access_key_id = "A";
  options.secret_access_key = "s";
  mount = DatasetMount(options);
  ASSERT_TRUE(mount);
  EXPECT_EQ(mount->target, "/data/dataset A");
  EXPECT_EQ(mount->volume_size, 10 * kGiB);
  EXPECT_EQ(mount->secret_access_key, "s");
  EXPECT_EQ(DatasetMount({.uri = "s3://my-bucket"})->target, "/data/my-bucket");
  EXPECT_EQ(DatasetMount({.uri = "s3://b/dir/"})->target, "/data/dir");
  EXPECT_EQ(DatasetMount({.uri = "https://h/x/data%20a.tar.gz?X-Amz-Signature=1"})->target,
            "/data/data a");
}

TEST(DatasetMount, WhatMakesNoSenseIsRefusedWithASentence) {
  EXPECT_EQ(DatasetRefusal({.uri = "none"}), "a dataset has no URI (--datasetUri, url)");
  EXPECT_EQ(DatasetRefusal({.uri = "s3://"}),
            "s3://: the bucket's name is missing (s3://bucket/prefix)");
  EXPECT_EQ(DatasetRefusal({.uri = "s3://b/k", .access_key_id = "A"}),
            "s3://b/k: an access key's id and its secret go together, and there is only the id");
  EXPECT_EQ(DatasetRefusal({.uri = "s3://b/k", .volume_size = "5Gi"}),
            "s3://b/k: a volume's size is for volumes of the kind dynamic; the shared storage has "
            "none");
  EXPECT_EQ(DatasetRefusal({.uri = "s3://b/k", .volume_kind = "static"}),
            "s3://b/k: a volume is shared or dynamic, not \"static\"");
  for (const char* name : {"a/b", "..", "."}) DatasetRefusal({.uri = "s3://b/k", .name = name});
  EXPECT_NE(DatasetRefusal({.uri = "s3://b/none"}).find("give it one (--datasetName, name)"),
            std::string::npos);
}

TEST(DatasetMount, ASourceWhoseNameCannotBeAFoldersWantsOne) {
  for (const char* source : {"s3://b/x/..", "s3://..", "s3://b/none"}) {
    const auto refused = ParseMount(std::string(source) + ",volume=shared");
    ASSERT_FALSE(refused) << source;
    EXPECT_TRUE(refused.error().message().ends_with("give it one (--datasetName, name)"))
        << refused.error().message();
    const auto named = ParseMount(std::string(source) + ",volume=shared,name=n");
    ASSERT_TRUE(named) << named.error().message();
    EXPECT_EQ(named->target, "/data/n");
  }
}

// ---------------------------------------------------------------- sources

TEST(Source, BucketAndKeyAreTakenLiterally) {
  const auto source = ParseSource("s3://bucket/a%20b//c?d#e f/\xf0\x9f\x98\x80");
  ASSERT_TRUE(source);
  EXPECT_EQ(source->kind, Source::Kind::kS3);
  EXPECT_EQ(source->bucket, "bucket");
  EXPECT_EQ(ParseSource("GS://bucket/a%20b")->kind, Source::Kind::kGcs);
  EXPECT_EQ(ParseSource("gs://bucket/a%20b")->key, "a%20b");
  EXPECT_EQ(source->key, "a%20b//c?d#e f/\xf0\x9f\x98\x80");
  EXPECT_EQ(ParseSource("s3://bucket")->key, "");
  EXPECT_EQ(ParseSource("s3://bucket/")->key, "");
  EXPECT_EQ(ParseSource("S3://bucket/K")->key, "K");
}

TEST(Source, FileIsAPath) {
  EXPECT_EQ(ParseSource("file:///a%20b")->path, "/a%20b");
  EXPECT_EQ(ParseSource("/a b")->path, "/a b");
  EXPECT_EQ(ParseSource("./x:y")->path, "./x:y");
  EXPECT_EQ(ParseSource("dir/x:y")->path, "dir/x:y");
  setenv("HOME", "/home/u", 1);
  EXPECT_EQ(ParseSource("~/x")->path, "/home/u/x");
  EXPECT_EQ(ParseSource("~")->path, "/home/u");
  EXPECT_EQ(ParseSource("~other/x")->path, "~other/x");
}

class RcloneRemoteTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char path[] = "/tmp/leat-remotes-XXXXXX";
    dir_ = ::mkdtemp(path);
    ASSERT_TRUE(os::WriteFileAtomic(dir_ + "/rclone.conf", R"(
# of a tutorial
[chi_tacc]
type = swift
user_id = 0123456789abcdef0123456789abcdef
application_credential_id = id
application_credential_secret = a=b;c#d
auth = https://chi.tacc.chameleoncloud.org:5000/v3
region = CHI@TACC

[lab]
type = s3
provider = Ceph
access_key_id = AK
secret_access_key = SK
endpoint = http://ceph.lab:7480
[photos]
type = alias
remote = lab:bucket/photos
[circle]
type = alias
remote = circle:x
[web]
type = http
url = https://files.example/pub
[disk]
type = local
[google]
type = google cloud storage
service_account_file = /key.json
[drive]
type = drive
[empty]
)"));
  }
  void TearDown() override { ASSERT_TRUE(os::RemoveTree(dir_)); }
  config::Environment Env() {
    return [this](std::string_view name) -> std::optional<std::string> {
      if (name == "RCLONE_CONFIG") return dir_ + "/rclone.conf";
      const auto found = variables_.find(std::string(name));
      return found == variables_.end() ? std::nullopt : std::optional(found->second);
    };
  }
  MountSpec Get(std::string_view text) {
    auto spec = ParseMount(text, Env());
    EXPECT_TRUE(spec) << spec.error().message();
    return spec ? *spec : MountSpec();
  }
  std::string Refused(std::string_view text) {
    const auto spec = ParseMount(text, Env());
    return spec ? "it is taken" : spec.error().message();
  }

  std::string dir_;
  std::map<std::string, std::string> variables_;
};

TEST_F(RcloneRemoteTest, ARemoteStandsForWhatItsSectionSays) {
  const MountSpec swift = Get("/data=chi_tacc:object-persist/Food-11/a b,mode=copy");
  EXPECT_EQ(swift.target, "/data");
  EXPECT_EQ(swift.mode, Mode::kCopy);
  EXPECT_EQ(swift.source.kind, Source::Kind::kSwift);
  EXPECT_EQ(swift.source.bucket, "object-persist");
  EXPECT_EQ(swift.source.key, "Food-11/a b");
  EXPECT_EQ(swift.source.ForMessages(), "chi_tacc:object-persist/Food-11/a b");
  EXPECT_EQ(swift.source.remote->Get("application_credential_secret"), "a=b;c#d");
  EXPECT_EQ(Get("google:b/k").source.kind, Source::Kind::kGcs);
  EXPECT_EQ(Get("gs://b/k,remote=google").source.remote->name, "google");
  EXPECT_EQ(Get("photos:2024/").source.bucket, "bucket");
  EXPECT_EQ(Get("photos:2024/").source.key, "photos/2024/");
  EXPECT_EQ(Get("photos:").source.key, "photos");
  EXPECT_EQ(Get("web:a b.zip").source.origin, "https://files.example");
  EXPECT_EQ(Get("web:a b.zip").source.key, "pub/a%20b.zip");
  EXPECT_EQ(Get("disk:/srv/x").source.path, "/srv/x");
  EXPECT_EQ(Get("swift://c/k,remote=chi_tacc").source.remote->name, "chi_tacc");
}

TEST_F(RcloneRemoteTest, VariablesWinAndMayBeAllThereIs) {
  variables_["RCLONE_CONFIG_LAB_ACCESS_KEY_ID"] = "other";
  EXPECT_EQ(Get("lab:b/k").source.remote->Get("access_key_id"), "other");
  variables_["RCLONE_CONFIG_MY_NEW_TYPE"] = "s3";
  EXPECT_EQ(Get("my-new:b/k").source.kind, Source::Kind::kS3);
}

TEST_F(RcloneRemoteTest, WhatIsWrongIsSaidInOneSentence) {
  EXPECT_EQ(Refused("nowhere:c"), "there is no remote nowhere in " + dir_ +
                                      "/rclone.conf; it has chi_tacc, circle, disk, drive, empty, "
                                      "google, lab, photos, web");
  EXPECT_EQ(Refused("chi_tacc:"),
            "chi_tacc:: the container is missing (chi_tacc:container/prefix)");
  EXPECT_EQ(Refused("circle:a"), "circle:a: aliases lead in a circle");
  EXPECT_NE(Refused("drive:a").find("its type is drive, which leat does not speak"),
            std::string::npos);
  EXPECT_EQ(Refused("empty:a"), dir_ + "/rclone.conf: the remote empty has no type");
  EXPECT_EQ(Refused("s3://b/k,remote=chi_tacc"), "s3://b/k: the remote chi_tacc is of type swift");
}

TEST(Source, MalformedOnesAreRefused) {
  for (const char* text : {"", "s3:///k", "swift:///k", "ftp://h/f", "file://host/x", "file://",
                           "https://", "http:///f", "https://h:99999/f", "a?b:path", ":swift:c",
                           "datastore://n", "gs:///k", "gs://u:p@b/k"}) {
    const auto source = ParseSource(text);
    EXPECT_FALSE(source) << text;
    if (!source) {
      EXPECT_EQ(source.error().code(), Errc::kInvalid) << text;
      EXPECT_FALSE(source.error().message().empty());
    }
  }
  for (const char* folder : {"https://h", "https://h/", "https://h/dir/", "https://h/dir/?a=b"}) {
    EXPECT_NE(Refusal(folder).find("names no file"), std::string::npos) << folder;
    EXPECT_TRUE(ParseSourceWithOptions(folder, config::ProcessEnvironment(), true)) << folder;
  }
  EXPECT_FALSE(ParseSource(std::string_view("/a\0b", 4)));
  EXPECT_NE(Refusal("s3://").find("the bucket's name is missing"), std::string::npos);
  EXPECT_NE(Refusal("swift://").find("the container's name is missing"), std::string::npos);
  EXPECT_NE(Refusal("gs://").find("the bucket's name is missing (gs://bucket/prefix)"),
            std::string::npos);
  EXPECT_TRUE(ParseSource("s3://b/" + std::string(1024, 'k')));
  EXPECT_FALSE(ParseSource("s3://b/" + std::string(1025, 'k')));
}

TEST(Source, NothingOfAUrlThatMayBeSecretIsInMessages) {
  const char* secret = "hush";
  for (const char* text : {"https://h/f?X-Amz-Signature=hush", "https://user:hush@h/f",
                           "https://user:hush@h/f?hush", "http://hush@h/f"}) {
    const auto source = ParseSource(text);
    ASSERT_TRUE(source) << text;
    EXPECT_EQ(source->ForMessages().find(secret), std::string::npos) << source->ForMessages();
    EXPECT_EQ(source->ForMessages().substr(source->ForMessages().size() - 4), "/h/f") << text;
  }
  for (const char* text :
       {"https://user:hush@h:x/f?hush", "https://user:hush@/f", "https://h/?hush",
        "https://h/f?hush,mode=fast", "https://u:hush@h/f,version=1"}) {
    const auto spec = ParseMount(text);
    ASSERT_FALSE(spec) << text;
    EXPECT_EQ(spec.error().message().find(secret), std::string::npos) << spec.error().message();
  }
}

}  // namespace
}  // namespace leat::job
