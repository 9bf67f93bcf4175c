#include "job/job_file.h"

#include <gtest/gtest.h>

namespace leat::job {
namespace {

config::Environment Env() {
  return [](std::string_view name) -> std::optional<std::string> {
    if (name == "SECRET") return "hidden";
    return std::nullopt;
  };
}
JobFile Parsed(const std::string& text) {
  auto file = ParseJobFile(text, "dir/job.yaml", Env());
  EXPECT_TRUE(file) << file.error().message();
  return file ? std::move(*file) : JobFile();
}
std::string Refusal(const std::string& text) {
  const auto file = ParseJobFile(text, "job.yaml", Env());
  EXPECT_FALSE(file) << text;
  return file ? "" : file.error().message();
}

TEST(JobFile, SaysWhatTheOptionsSay) {
  const JobFile file = Parsed(R"(
name: train
command: python3 train.py
context: .
env: {EPOCHS: 5}
datasets:
- url: s3://b/mnist.zip
  name: "dataset A"
  awsAccessKeyId: A
  awsSecretAccessKey: ${SECRET}
  versionId: v1
  etag: 9a
  volumeKind: dynamic
  volumeSize: 10Gi
- {url: s3://b/dir, name: none, etag: none, expand: never, target: /x}
mounts: ["/m=s3://b/k"]
bind_mounts:
- {host_path: /mnt/data, container_path: /mnt/data, read_only: true}
- {host_path: /mnt/data, container_path: data, propagation: rslave}
replicas: {worker: 3, parameter_server: 2}
)");
  EXPECT_EQ(file.name, "train");
  EXPECT_EQ(file.command, (std::vector<std::string>{"/bin/sh", "-c", "python3 train.py"}));
  EXPECT_EQ(file.context, "dir/.");
  ASSERT_EQ(file.mounts.size(), 3U);
  EXPECT_EQ(file.mounts[0].target, "/data/dataset A");
  EXPECT_EQ(file.mounts[0].secret_access_key, "hidden");
  EXPECT_EQ(file.mounts[0].version, "v1");
  EXPECT_EQ(file.mounts[0].volume_size, 10 * kGiB);
  EXPECT_EQ(file.mounts[1].target, "/x");
  EXPECT_EQ(file.mounts[1].name, "dir");
  EXPECT_EQ(file.mounts[1].etag, "");
  EXPECT_EQ(file.mounts[1].expand, Expand::kNever);
  EXPECT_EQ(file.mounts[2].target, "/m");
  ASSERT_EQ(file.bind_mounts.size(), 2U);
  EXPECT_TRUE(file.bind_mounts[0].read_only);
  EXPECT_FALSE(file.bind_mounts[1].read_only);
  EXPECT_EQ(file.bind_mounts[1].propagation, Propagation::kSlave);
  ASSERT_EQ(file.replicas.size(), 2U);
  EXPECT_EQ(file.replicas[0], (std::pair<std::string, unsigned>("worker", 3)));
  EXPECT_EQ(
      Parsed("datasets: [{url: s3://b/k, volumeKind: dynamic, size: 1Gi}]").mounts[0].volume_size,
      kGiB);
}

TEST(JobFile, DataIsJsonWithYamlsTypes) {
  EXPECT_EQ(
      Parsed("data: {bucket: b, n: 3, f: 1.5, t: true, no: null, s: \"3\", l: [1, a], d: {x: -1}}")
          .data_config,
      R"({"bucket":"b","n":3,"f":1.5,"t":true,"no":null,"s":"3","l":[1,"a"],"d":{"x":-1}})");
  EXPECT_EQ(Parsed("name: x").data_config, "{}");
}

TEST(JobFile, WhatMakesNoSenseIsRefusedWithItsLine) {
  EXPECT_NE(Refusal("name: x\ncomand: y").find("job.yaml:2: a job has no key \"comand\""),
            std::string::npos);
  EXPECT_NE(Refusal("image: x").find("\"image\" is not supported by this version"),
            std::string::npos);
  EXPECT_NE(Refusal("[").find("job.yaml:"), std::string::npos);
  EXPECT_NE(Refusal("a: b: c").find("job.yaml:"), std::string::npos);
  EXPECT_NE(Refusal("just text").find("keys are expected"), std::string::npos);
  EXPECT_NE(Refusal("").find("keys are expected"), std::string::npos);
  EXPECT_NE(Refusal("datasets: [{name: x}]").find("has no URI"), std::string::npos);
  EXPECT_NE(Refusal("datasets: [{uri: s3://b/k}]").find("no key \"uri\""), std::string::npos);
  EXPECT_NE(Refusal("datasets: {url: s3://b/k}").find("a list is expected"), std::string::npos);
  EXPECT_NE(Refusal("datasets: [{url: s3://b/k, awsSecretAccessKey: '${NONE}', awsAccessKeyId: A}]")
                .find("NONE"),
            std::string::npos);
  EXPECT_NE(Refusal("datasets: [{url: s3://b/k, name: ''}]").find("the name is empty"),
            std::string::npos);
  EXPECT_NE(Refusal("datasets: [{url: s3://b/k, volumeKind: dynamic, size: 1G, volumeSize: 2G}]")
                .find("the same"),
            std::string::npos);
  EXPECT_NE(Refusal("bind_mounts: [{host_path: rel, container_path: /x}]").find("rel"),
            std::string::npos);
  Refusal("bind_mounts: [{host_path: /a, container_path: .}]");
  Refusal("bind_mounts: [{host_path: /a, container_path: /x, read_only: maybe}]");
  Refusal("bind_mounts: [{host_path: /a, container_path: /x, propagation: some}]");
  Refusal("replicas: {worker: -1}");
  Refusal("replicas: {worker: 0}");
  Refusal("replicas: {worker: 100000}");
  Refusal("replicas: [worker]");
  Refusal("command: []");
  Refusal("data: [1]");
  Refusal("env: [A]");
  Refusal("engine: slurm");
}

}  // namespace
}  // namespace leat::job
