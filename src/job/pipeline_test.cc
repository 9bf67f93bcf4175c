#include "job/pipeline.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <map>

#include "os/file.h"

namespace leat::job {
namespace {

class PipelineTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char path[] = "/tmp/leat-pipeline-test-XXXXXX";
    dir_ = ::mkdtemp(path);
    home_.dir = dir_ + "/home";
  }
  void TearDown() override { ASSERT_TRUE(os::RemoveTree(dir_)); }
  void Write(const std::string& name, const std::string& text) {
    ASSERT_TRUE(os::WriteFileAtomic(dir_ + "/" + name, text));
  }
  Pipeline Parsed(const std::string& text) {
    auto pipeline = ParsePipeline(text, dir_ + "/my.yaml");
    EXPECT_TRUE(pipeline) << pipeline.error().message();
    return pipeline.value_or(Pipeline());
  }
  config::Environment env() {
    return [this](std::string_view name) -> std::optional<std::string> {
      const auto it = variables_.find(std::string(name));
      return it == variables_.end() ? std::nullopt : std::optional(it->second);
    };
  }
  std::string DigestOf(const Stage& stage, const std::vector<std::string>& needed = {}) {
    const auto digest = InputsDigest(stage, needed, env(), home_);
    EXPECT_TRUE(digest) << digest.error().message();
    return digest.value_or("");
  }

  std::string dir_;
  Home home_;
  std::map<std::string, std::string> variables_;
};

TEST_F(PipelineTest, StagesComeBehindWhatTheyNeed) {
  const Pipeline p = Parsed(
      "stages:\n- {name: c, command: x, needs: [b, a]}\n- {name: b, command: [y, z], needs: a}\n"
      "- {name: a, command: w}\n- {name: d, command: v}\n");
  EXPECT_EQ(p.name, "my");
  EXPECT_EQ(p.workdir, "/data");
  ASSERT_EQ(p.stages.size(), 4u);
  std::string order;
  for (const Stage& stage : p.stages) order += stage.name;
  EXPECT_EQ(order, "abcd");
  EXPECT_EQ(p.stages[2].needs, (std::vector<std::size_t>{1, 0}));
  EXPECT_EQ(p.stages[1].command, (std::vector<std::string>{"y", "z"}));
  EXPECT_EQ(p.stages[0].command, (std::vector<std::string>{"/bin/sh", "-c", "w"}));
}

TEST_F(PipelineTest, VariablesAreReplacedOrMissed) {
  variables_ = {{"A", "one"}, {"E", ""}};
  EXPECT_EQ(*ExpandVariables("x${A}y${B:-two}z${E:-}", env()), "xoneytwoz");
  EXPECT_EQ(*ExpandVariables("$A ${unfinished", env()), "$A ${unfinished");
  EXPECT_EQ(ExpandVariables("${E}", env()).error().message(), "ERROR: E is not set");
  EXPECT_EQ(ExpandVariables("${NO}", env()).error().message(), "ERROR: NO is not set");
}

TEST_F(PipelineTest, WhateverAResultDependsOnChangesTheDigest) {
  Write("script", "#!/bin/sh\n");
  Write("in", "data");
  const auto stage = [&] {
    return Parsed(
               "stages:\n- name: s\n  script: [script, arg]\n  env: {V: '${A:-}'}\n"
               "  requires: R\n  mounts: '/in=" +
               dir_ + "/in'\n")
        .stages[0];
  };
  const std::string first = DigestOf(stage());
  EXPECT_EQ(DigestOf(stage()), first);
  std::vector<std::string> seen = {first, DigestOf(stage(), {"record"})};
  variables_["A"] = "1";
  seen.push_back(DigestOf(stage()));
  variables_["R"] = "1";
  seen.push_back(DigestOf(stage()));
  Write("in", "other");
  seen.push_back(DigestOf(stage()));
  Write("script", "#!/bin/bash\n");
  seen.push_back(DigestOf(stage()));
  Stage other = stage();
  other.command.push_back("more");
  seen.push_back(DigestOf(other));
  std::ranges::sort(seen);
  EXPECT_EQ(std::ranges::adjacent_find(seen), seen.end());
}

TEST_F(PipelineTest, MalformedOnesAreRefusedWithTheLine) {
  const auto refusal = [&](const std::string& text) {
    const auto pipeline = ParsePipeline(text, "p.yaml");
    EXPECT_FALSE(pipeline) << text;
    return pipeline ? "" : pipeline.error().message();
  };
  EXPECT_EQ(refusal("stages:\n- name: a\n  comand: x").substr(0, 9), "p.yaml:3:");
  for (const char* text :
       {"", "1", "[]", "stages:", "stages: {}", "stages: [1]", "stages: [{name: [a], command: x}]",
        "stages: [{name: a, command: {}}]", "stages: [{name: a, command: []}]",
        "stages: [{name: a, command: x, env: [b]}]", "stages: [{name: a, command: x, env: {=: b}}]",
        "stages: [{name: a, command: x, mounts: {}}]",
        "name: ../x\nstages: [{name: a, command: x}]",
        "workdir: data\nstages: [{name: a, command: x}]", "stages: [{name: a, command: x}, &b *b]",
        "stages: [{name: a, name: b, command: x}]", "\xff\xfe", "stages: [{name: -a, command: x}]"})
    EXPECT_NE(refusal(text), "") << text;
}

}  // namespace
}  // namespace leat::job
