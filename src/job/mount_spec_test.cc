#include "job/mount_spec.h"

#include <gtest/gtest.h>
#include <stdlib.h>

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
  EXPECT_EQ(Refusal("/mnt/x,etag=1"), "/mnt/x: the option etag is for s3:// and https:// sources");
  EXPECT_EQ(Refusal("https://h/f,version=1"),
            "https://h/f: the option version is for s3:// sources");
  for (const char* option :
       {"profile=p", "region=r", "endpoint=http://e", "anon", "requester_pays"})
    Refusal(std::string("https://h/f,") + option);
  EXPECT_EQ(Refusal("s3://b/k,anon,profile=p"), "anon and profile= exclude each other");
  for (const char* option : {"expand=auto", "volume=shared", "size=1Gi", "remote=r"}) {
    EXPECT_NE(Refusal(std::string("s3://b/k,") + option).find("is not supported by this version"),
              std::string::npos);
  }
}

// ---------------------------------------------------------------- sources

TEST(Source, BucketAndKeyAreTakenLiterally) {
  const auto source = ParseSource("s3://bucket/a%20b//c?d#e f/\xf0\x9f\x98\x80");
  ASSERT_TRUE(source);
  EXPECT_EQ(source->kind, Source::Kind::kS3);
  EXPECT_EQ(source->bucket, "bucket");
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

TEST(Source, MalformedOnesAreRefused) {
  for (const char* text : {"", "s3://", "s3:///k", "ftp://h/f", "file://host/x", "file://",
                           "https://", "http:///f", "https://h", "https://h/", "https://h/dir/",
                           "https://h:99999/f", "remote:path", "datastore://n", "gs://b/k"}) {
    const auto source = ParseSource(text);
    EXPECT_FALSE(source) << text;
    if (!source) {
      EXPECT_EQ(source.error().code(), Errc::kInvalid) << text;
      EXPECT_FALSE(source.error().message().empty());
    }
  }
  EXPECT_FALSE(ParseSource(std::string_view("/a\0b", 4)));
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
