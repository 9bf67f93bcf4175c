// Reads the files of tests/golden/snapshot, which every later version must read, and holds today's
// writer to the newest of them. A new format gets a folder of its own (v2); LEAT_WRITE_GOLDEN=DIR
// writes today's files there.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include "snapshot/test_snapshots.h"
#include "testing/source_root.h"

namespace leat::snapshot {
namespace {

using testing::BytesOf;
using testing::Key;
using testing::MemoryFile;

struct Golden {
  std::string name, prefix, pin;
  std::vector<store::ObjectInfo> objects;
};

store::ObjectInfo At(store::ObjectInfo info, std::int64_t seconds) {
  info.modified = std::chrono::system_clock::time_point(std::chrono::seconds(seconds));
  return info;
}

std::vector<Golden> All() {
  std::vector<Golden> all;
  all.push_back(
      {"empty", "", "mf:c5542ac5cc34fc51b536dea795e48fa7008d8863f4cce10984a3bdf0802a8735", {}});
  all.push_back({"one-object",
                 "a//b/../",
                 "mf:2f8aa791472f623bfcd83f2d1c7134df0ab3624a7c36e2f07cee601523de75de",
                 {At(Key("c.bin", 3), 1'700'000'000)}});

  Golden awkward{"awkward",
                 "pre/fix/",
                 "mf:15c8c8192d15bf52e06d5026cb6125812e7b02a5a6ab63f8b2c53ab16ba6d47a",
                 {}};
  const std::string md5 = "d41d8cd98f00b204e9800998ecf8427e";
  awkward.objects = {At(Key("train/0/1.png", 784, md5), 1'600'000'000),
                     At(Key("train/0/\xf0\x9f\x98\x80 +%?#&='\"\\.png", 1, md5 + "-12"), -1),
                     Key("train-0", 5, "W/\"weak\""),
                     Key("train.txt", 6, ""),
                     Key("train", 7),
                     Key("train/", 0),
                     Key("train/empty/folder/", 0),
                     Key("a//b", 8),
                     Key("..", 9, "text"),
                     Key("full/", 10),
                     Key(std::string(256, 'n'), 11),
                     Key(std::string(255, 'n'), 12),
                     Key("versioned", 13)};
  awkward.objects[3].archived = true;
  awkward.objects[12].version.version_id =
      "3sL4kqtJlcpXroDTDmJ+rmSpXd3dIbrHY+MTRCxf3vjVBH40Nr8X8gdRQBpUMLUo";
  all.push_back(awkward);

  Golden blocks{
      "blocks", "", "mf:1cd6f2b6c836a3c8ab62e5927ee1b0c3e52868e8b844f95b97fe40f8d400c7b3", {}};
  for (int i = 0; i < 2500; ++i) {
    blocks.objects.push_back(Key("d" + std::to_string(i % 7) + "/" + std::to_string(1000 + i),
                                 static_cast<std::uint64_t>(i)));
  }
  all.push_back(blocks);
  return all;
}

std::filesystem::path FileOf(const Golden& golden) {
  return leat::testing::SourceRoot() / "tests/golden/snapshot/v1" / (golden.name + ".snap");
}

std::string ReadWhole(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in) << path;
  return {std::istreambuf_iterator<char>(in), {}};
}

TEST(Golden, FilesOfVersionOneAreRead) {
  for (const Golden& golden : All()) {
    SCOPED_TRACE(golden.name);
    const auto s = Snapshot::Open(MemoryFile(ReadWhole(FileOf(golden))).fd());
    ASSERT_TRUE(s) << s.error().message();
    EXPECT_EQ((*s)->pin(), golden.pin);
    EXPECT_EQ((*s)->prefix(), golden.prefix);
    EXPECT_EQ((*s)->store_identity(), "mem://test");
    EXPECT_TRUE((*s)->VerifyPin());
    std::map<std::string, store::ObjectInfo> objects;
    for (const auto& o : golden.objects) objects[o.key] = o;
    for (FileIndex i = 0; i < (*s)->file_count(); ++i) {
      const store::ObjectInfo& o = objects.at((*s)->PathOfFile(i));
      const FileInfo info = (*s)->file(i);
      EXPECT_EQ(info.size, o.size);
      EXPECT_EQ(info.etag, o.version.etag);
      EXPECT_EQ(info.version_id, o.version.version_id);
      EXPECT_EQ(info.archived, o.archived);
      EXPECT_EQ(info.mtime_ns,
                o.modified ? std::chrono::nanoseconds(o.modified->time_since_epoch()).count() : 0);
    }
  }
}

TEST(Golden, WhatIsInTheAwkwardOne) {
  const auto s = *Snapshot::Open(MemoryFile(ReadWhole(FileOf(All()[2]))).fd());
  std::vector<std::string> paths, directories;
  for (FileIndex i = 0; i < s->file_count(); ++i) paths.push_back(s->PathOfFile(i));
  for (DirIndex d = 0; d < s->directory_count(); ++d) directories.push_back(s->PathOfDirectory(d));
  EXPECT_EQ(paths, (std::vector<std::string>{
                       std::string(255, 'n'), "train-0", "train.txt", "train/0/1.png",
                       "train/0/\xf0\x9f\x98\x80 +%?#&='\"\\.png", "versioned"}));
  EXPECT_EQ(directories, (std::vector<std::string>{"", "full", "train", "train/0", "train/empty",
                                                   "train/empty/folder"}));
  EXPECT_EQ(s->left_out().count, 5U);
  EXPECT_EQ(s->left_out().first_key, "pre/fix/..");
  EXPECT_EQ(s->left_out().first_why, "a path component \"..\"");
}

TEST(Golden, TodaysWriterWritesTheSameBytes) {
  for (const Golden& golden : All()) {
    const std::string today = BytesOf(golden.objects, golden.prefix);
    if (const char* dir = std::getenv("LEAT_WRITE_GOLDEN")) {
      std::ofstream(std::filesystem::path(dir) / (golden.name + ".snap"), std::ios::binary)
          << today;
    }
    EXPECT_TRUE(today == ReadWhole(FileOf(golden))) << golden.name;
  }
}

}  // namespace
}  // namespace leat::snapshot
