#include "dataset/fill.h"

#include <fmt/format.h>

#include "archive/expand.h"
#include "base/bytes.h"
#include "base/log.h"
#include "os/file.h"
#include "transfer/tree.h"

namespace leat::dataset {

std::uint64_t RoomFor(const snapshot::Snapshot& index) {
  constexpr std::uint64_t kBlock = 4096;
  std::uint64_t bytes = kBlock * index.directory_count();
  for (snapshot::FileIndex i = 0; i < index.file_count(); ++i)
    bytes += (index.file(i).size + kBlock - 1) / kBlock * kBlock;
  return bytes;
}

Status CheckRoom(const FillOptions& options) {
  const std::uint64_t room = RoomFor(*options.content->index);
  if (options.expand || room <= options.limit_bytes) return {};
  return Fail(Errc::kNoSpace,
              fmt::format("{}: its files need {}, but {} is {}", options.source, FormatBytes(room),
                          options.limit_name, FormatBytes(options.limit_bytes)));
}

void ExpandInto(transfer::TreeOptions& options, MemoryBudget& budget) {
  options.made = "expanded";
  // (What archives of images hold: they hardly get smaller, or by half.)
  options.bytes = 2 * options.content->index->total_bytes();
  options.inodes = 2;
  options.fill = [content = options.content, source = options.source, cache = options.cache,
                  &budget](const std::string& dir, const CallContext& ctx) {
    FillOptions fill;
    fill.content = content;
    fill.expand = true;
    fill.source = source;
    fill.cache = cache;
    fill.budget = &budget;
    return Fill(fill, dir, ctx);
  };
}

Status Fill(const FillOptions& options, const std::string& dir, const CallContext& ctx) {
  const snapshot::Snapshot& index = *options.content->index;
  if (!options.expand) {
    FillOptions within = options;
    if (const std::uint64_t room = os::RoomAt(dir); room < within.limit_bytes) {
      within.limit_bytes = room;
      within.limit_name = options.room_name;
    }
    LEAT_RETURN_IF_ERROR(CheckRoom(within));
    transfer::TreeOptions tree;
    tree.content = options.content;
    tree.cache = options.cache;
    tree.source = options.source;
    tree.folder_mode = 0755;
    return transfer::FetchTree(tree, dir, ctx);
  }
  archive::ExpandOptions expand;
  expand.store = options.content->store;
  expand.object.key = index.KeyOfFile(0);
  expand.object.size = index.file(0).size;
  expand.object.version = options.content->VersionOf(0);
  expand.source = options.source;
  expand.dir = dir;
  expand.limit_bytes = options.limit_bytes;
  expand.limit_name = options.limit_name;
  expand.room_name = options.room_name;
  expand.budget = options.budget;
  expand.on_progress = [&](std::uint64_t read, std::uint64_t written) {
    Progress(fmt::format("expanding {}: {} of {} read, {} written", options.source,
                         FormatBytes(read), FormatBytes(index.file(0).size), FormatBytes(written)));
  };
  const auto expanded = archive::Expand(expand, ctx);
  Progress("");
  if (!expanded) return std::unexpected(expanded.error());
  for (const std::string& note : expanded->notes) Note(fmt::format("{}: {}", options.source, note));
  return {};
}

}  // namespace leat::dataset
