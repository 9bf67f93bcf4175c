#include "vfs/file_system.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <list>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <unordered_map>
#include <utility>

#include "vfs/readahead.h"

namespace leat::vfs {
namespace {

/// Each takes two descriptors and two mappings; as many descriptors are left to all else.
std::size_t OpenFilesAtMost(std::size_t file_systems) {
  rlimit limit = {};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return 256;
  return std::clamp<std::size_t>(limit.rlim_cur / 4 / std::max<std::size_t>(1, file_systems), 16,
                                 2048);
}

}  // namespace

/// A large file that is being read.
struct FileSystem::Open {
  std::shared_ptr<cache::LargeFile> file;
  std::mutex mutex;
  Readahead readahead;  // guarded by mutex
};

/// The large files in use, least recently used last. What is dropped here is opened again by the
/// next read.
struct FileSystem::Table {
  std::mutex mutex;
  std::list<std::pair<snapshot::FileIndex, std::shared_ptr<Open>>> order;
  std::unordered_map<snapshot::FileIndex, decltype(order)::iterator> by_file;
  std::size_t most = 16;
};

/// Whom failures are told, and of each file once why it could not be read. Outlives the file system
/// where fetches do.
struct FileSystem::Failures {
  std::shared_ptr<const snapshot::Content> content;
  std::function<void(std::string_view path, const Error&)> on_error;
  std::function<void(Node)> on_wrong;
  std::mutex mutex;
  std::set<snapshot::FileIndex> told;          // guarded by mutex
  std::map<snapshot::FileIndex, Error> wrong;  // likewise: large files that are not to be read
  std::atomic<bool> any_wrong{false};

  /// Bytes of it were not what the store promised: whoever opens it anew must not see them either.
  std::optional<Error> WrongOf(snapshot::FileIndex file) {
    if (!any_wrong) return std::nullopt;
    const std::lock_guard lock(mutex);
    const auto it = wrong.find(file);
    return it == wrong.end() ? std::nullopt : std::optional(it->second);
  }
  void NoteWrong(snapshot::FileIndex file, const Error& error) {
    {
      const std::lock_guard lock(mutex);
      wrong.emplace(file, error);
      any_wrong = true;
    }
    Tell(file, error);
  }
  void Tell(snapshot::FileIndex file, const Error& error) {
    {
      const std::lock_guard lock(mutex);
      if (error.code() == Errc::kCancelled || !told.insert(file).second) return;
    }
    if (on_error) on_error(content->index->PathOfFile(file), error);
  }
};

class FileSystem::LargeFetcher final : public cache::FetchFrom<snapshot::EntryReader> {
 public:
  LargeFetcher(std::shared_ptr<Failures> failures, Node node, snapshot::FileIndex file)
      : FetchFrom(snapshot::EntryReader(failures->content, file)),
        failures_(std::move(failures)),
        node_(node),
        file_(file) {}
  void OnWrong(const Error& error) override {
    failures_->NoteWrong(file_, error);
    if (failures_->on_wrong) failures_->on_wrong(node_);
  }

 private:
  const std::shared_ptr<Failures> failures_;
  const Node node_;
  const snapshot::FileIndex file_;
};

/// Readers that go through small files in the snapshot's order, by where they are.
struct FileSystem::Streams {
  struct Stream {
    snapshot::FileIndex next = 0;   // the file after the last one read
    snapshot::FileIndex ahead = 0;  // prefetched up to here
    snapshot::FileIndex begin = 0;  // where it is being watched from
    std::uint32_t read = 0;         // files read since, of those from begin to next
    bool missed = false;            // a miss has been seen: a warm cache starts nothing
    std::uint64_t used = 0;
  };
  std::mutex mutex;
  std::array<Stream, 32> streams;
  std::uint64_t clock = 0;
};

FileSystem::FileSystem(FileSystemOptions options)
    : options_(std::move(options)),
      index_(*options_.content->index),
      first_file_(kRootNode + index_.directory_count()),
      first_extra_(first_file_ + index_.file_count()),
      table_(std::make_unique<Table>()),
      siblings_(std::make_unique<Streams>()),
      failures_(std::make_shared<Failures>()),
      seen_(index_.file_count() / 64 + 1),
      prefetch_(std::make_unique<ThreadPool>(options_.prefetch_threads)) {
  table_->most = OpenFilesAtMost(options_.file_systems);
  failures_->content = options_.content;
  failures_->on_error = options_.on_error;
  failures_->on_wrong = options_.on_wrong;
  lease_ = options_.cache->Hold(fmt::format("{} {}", index_.store_identity(), index_.prefix()));
  for (const std::string& path : options_.extra_directories) {
    Node at = kRootNode;
    for (std::size_t begin = 0; begin < path.size();) {
      const std::size_t end = std::min(path.find('/', begin), path.size());
      const std::string name = path.substr(begin, end - begin);
      begin = end + 1;
      if (name.empty()) continue;
      auto child = Lookup(at, name);
      if (!child) {
        extra_.push_back({at, name});
        child = first_extra_ + extra_.size() - 1;
      }
      at = *child;
    }
  }
}

FileSystem::~FileSystem() {
  stop_.request_stop();
  prefetch_.reset();
}

bool FileSystem::IsDirectory(Node node) const {
  return node >= kRootNode &&
         (node < first_file_ || (node >= first_extra_ && node < first_extra_ + extra_.size()));
}

std::optional<Node> FileSystem::Lookup(Node directory, std::string_view name) const {
  if (directory < first_file_ && directory >= kRootNode) {
    if (const auto child =
            index_.Lookup(static_cast<snapshot::DirIndex>(directory - kRootNode), name)) {
      return child->is_dir ? kRootNode + child->index : first_file_ + child->index;
    }
  }
  for (std::size_t i = 0; i < extra_.size(); ++i) {
    if (extra_[i].parent == directory && extra_[i].name == name) return first_extra_ + i;
  }
  return std::nullopt;
}

std::optional<Attributes> FileSystem::Stat(Node node) const {
  Attributes out;
  out.node = node;
  if (IsFile(node)) {
    const snapshot::FileInfo info = index_.file(FileOf(node));
    out.size = info.size;
    out.mtime_ns = info.mtime_ns;
    return out;
  }
  if (!IsDirectory(node)) return std::nullopt;
  out.is_dir = true;
  // As on btrfs and others: 1 says nothing about the number of folders in it, so that tools do not
  // rely on it.
  out.links = 1;
  return out;
}

Node FileSystem::Parent(Node directory) const {
  if (directory >= first_extra_) return extra_[directory - first_extra_].parent;
  return kRootNode +
         index_.directory_parent(static_cast<snapshot::DirIndex>(directory - kRootNode));
}

void FileSystem::ReadDirectory(
    Node directory, std::uint64_t from,
    const std::function<bool(std::uint64_t, std::string_view, Node)>& visit) const {
  std::uint64_t count = 0;
  if (directory < first_file_) {
    const auto d = static_cast<snapshot::DirIndex>(directory - kRootNode);
    count = index_.child_count(d);
    for (; from < count; ++from) {
      const snapshot::Child child = index_.child(d, static_cast<std::uint32_t>(from));
      const bool more =
          child.is_dir ? visit(from, index_.directory_name(child.index), kRootNode + child.index)
                       : visit(from, index_.file(child.index).name, first_file_ + child.index);
      if (!more) return;
    }
  }
  for (std::size_t i = from - count; i < extra_.size(); ++i) {
    if (extra_[i].parent == directory && !visit(count + i, extra_[i].name, first_extra_ + i))
      return;
  }
}

cache::FileKey FileSystem::KeyOf(snapshot::FileIndex file) const {
  return {cache::Identity::Of(options_.content->IdentityOf(file)), index_.file(file).size};
}

void FileSystem::NoteRead(snapshot::FileIndex file, std::uint64_t bytes) {
  if (options_.counts == nullptr) return;
  options_.counts->reads.fetch_add(1, std::memory_order_relaxed);
  options_.counts->read_bytes.fetch_add(bytes, std::memory_order_relaxed);
  auto& word = seen_[file / 64];
  const std::uint64_t bit = 1ULL << (file % 64);
  if ((word.load(std::memory_order_relaxed) & bit) == 0 && (word.fetch_or(bit) & bit) == 0) {
    options_.counts->files.fetch_add(1, std::memory_order_relaxed);
  }
}

std::shared_ptr<FileSystem::Open> FileSystem::OpenLarge(snapshot::FileIndex file) {
  const std::lock_guard lock(table_->mutex);
  if (const auto it = table_->by_file.find(file); it != table_->by_file.end()) {
    table_->order.splice(table_->order.begin(), table_->order, it->second);
    return it->second->second;
  }
  auto open = std::make_shared<Open>();
  open->file = options_.cache->OpenLarge(
      KeyOf(file), lease_, std::make_unique<LargeFetcher>(failures_, first_file_ + file, file));
  table_->order.emplace_front(file, open);
  table_->by_file[file] = table_->order.begin();
  if (table_->order.size() > table_->most) {
    table_->by_file.erase(table_->order.back().first);
    table_->order.pop_back();
  }
  return open;
}

void FileSystem::Plan(Open& open, std::uint64_t offset, std::uint64_t length) {
  vfs::Plan plan;
  {
    const std::lock_guard lock(open.mutex);
    plan = open.readahead.OnRead(offset, length, open.file->size(), options_.readahead_max);
  }
  if (plan.ahead_begin < plan.ahead_end && !open.file->complete()) {
    // What the reader waits for goes first, in one request with what follows where that is
    // contiguous.
    open.file->Start(offset, length, plan.request, true);
    open.file->Start(plan.ahead_begin, plan.ahead_end - plan.ahead_begin, plan.request, false);
  }
}

std::optional<cache::Data> FileSystem::TryRead(Node node, std::uint64_t offset,
                                               std::uint64_t length) {
  if (!IsFile(node)) return std::nullopt;
  const snapshot::FileIndex file = FileOf(node);
  const std::uint64_t size = index_.file(file).size;
  if (offset >= size || length == 0) return cache::Data{};
  if (size >= cache::kLargeFile) return std::nullopt;
  length = std::min(length, size - offset);
  auto data = options_.cache->FindSmall(KeyOf(file));
  if (!data) return std::nullopt;
  data->bytes = data->bytes.subspan(offset, length);
  if (offset == 0) Siblings(file, false);
  options_.cache->CountHit(length);
  NoteRead(file, length);
  return data;
}

Result<cache::Data> FileSystem::Read(Node node, std::uint64_t offset, std::uint64_t length,
                                     const CallContext& ctx) {
  if (!IsFile(node)) return Fail(Errc::kInvalid, "not a file");
  const snapshot::FileIndex file = FileOf(node);
  const std::uint64_t size = index_.file(file).size;
  if (offset >= size || length == 0) return cache::Data{};
  length = std::min(length, size - offset);
  Result<cache::Data> data = Fail(Errc::kInternal, "");
  const auto began = CallContext::Clock::now();
  if (const auto wrong = failures_->WrongOf(file)) {
    data = std::unexpected(*wrong);
  } else if (size >= cache::kLargeFile) {
    const auto open = OpenLarge(file);
    Plan(*open, offset, length);
    data = open->file->Read(offset, length, ctx);
    if (data && data->keep == open->file) data->keep = open;
  } else {
    Siblings(file, true);
    cache::FetchFrom<snapshot::EntryReader> fetcher(snapshot::EntryReader(options_.content, file));
    data = options_.cache->ReadSmall(KeyOf(file), *lease_, fetcher, ctx);
    if (data) data->bytes = data->bytes.subspan(offset, length);
  }
  if (options_.counts != nullptr) {
    const std::chrono::nanoseconds waited = CallContext::Clock::now() - began;
    options_.counts->waited_ns.fetch_add(static_cast<std::uint64_t>(waited.count()),
                                         std::memory_order_relaxed);
  }
  if (!data) {
    if (options_.counts != nullptr) options_.counts->errors.fetch_add(1, std::memory_order_relaxed);
    failures_->Tell(file, data.error());
    return data;
  }
  NoteRead(file, length);
  return data;
}

void FileSystem::Siblings(snapshot::FileIndex file, bool missed) {
  if (!options_.sibling_prefetch) return;
  snapshot::FileIndex begin = 0, end = 0;
  {
    const std::lock_guard lock(siblings_->mutex);
    ++siblings_->clock;
    Streams::Stream* stream = nullptr;
    for (auto& s : siblings_->streams) {
      if (s.used != 0 && file + 16 >= s.next && file <= s.next + 16) {
        stream = &s;
        break;
      }
    }
    if (stream == nullptr) {
      stream = &*std::ranges::min_element(siblings_->streams, {}, &Streams::Stream::used);
      *stream = {};
    }
    if (stream->used == 0) stream->begin = stream->next = file;
    stream->used = siblings_->clock;
    stream->next = std::max(stream->next, file + 1);
    stream->read = std::min(stream->read + 1, stream->next - stream->begin);
    if (stream->next - stream->begin > 64) {  // what was long ago does not count
      stream->begin = stream->next - 32;
      stream->read = std::min<std::uint32_t>(stream->read / 2, 32);
    }
    stream->missed |= missed;
    // In order: hardly a file is left out on the way. In a shuffled order now and then one lies
    // near another, but most around it do not.
    if (!stream->missed || stream->read < 3 ||
        stream->read * 4 < (stream->next - stream->begin) * 3)
      return;
    // Within the limits of files and bytes ahead of the reader; few files at first.
    const std::uint32_t files =
        std::min(options_.prefetch_files, 8U << std::min(stream->read - 3, 10U));
    std::uint64_t bytes = 0;
    end = stream->next;
    while (end < index_.file_count() && end - stream->next < files) {
      const std::uint64_t size = index_.file(end).size;
      if (size >= cache::kLargeFile || bytes + size > options_.prefetch_bytes) break;
      bytes += size;
      ++end;
    }
    begin = std::max(stream->ahead, stream->next);
    if (begin >= end) return;
    stream->ahead = end;
  }
  for (snapshot::FileIndex f = begin; f < end; ++f) Prefetch(f);
}

void FileSystem::Prefetch(snapshot::FileIndex file) {
  if (index_.file(file).size == 0 || options_.cache->FindSmall(KeyOf(file))) return;
  prefetch_->Submit([this, file] {
    if (stop_.stop_requested()) return;
    cache::FetchFrom<snapshot::EntryReader> fetcher(snapshot::EntryReader(options_.content, file));
    // An error shows again, and is told, when somebody reads the file.
    (void)options_.cache->ReadSmall(KeyOf(file), *lease_, fetcher,
                                    {stop_.get_token(), CallContext{}.deadline});
  });
}

os::UniqueFd FileSystem::PassthroughFd(Node node) {
  if (!IsFile(node) || index_.file(FileOf(node)).size < cache::kLargeFile) return {};
  if (failures_->WrongOf(FileOf(node))) return {};
  os::UniqueFd fd = OpenLarge(FileOf(node))->file->PassthroughFd();
  if (fd) {
    // The kernel will not ask for these bytes.
    const std::uint64_t size = index_.file(FileOf(node)).size;
    options_.cache->CountHit(size);
    NoteRead(FileOf(node), size);
  }
  return fd;
}

void FileSystem::Forget(Node node, std::uint64_t offset, std::uint64_t length) {
  if (!IsFile(node)) return;
  if (index_.file(FileOf(node)).size >= cache::kLargeFile) {
    OpenLarge(FileOf(node))->file->Forget(offset, length);
  } else {
    options_.cache->ForgetSmall(KeyOf(FileOf(node)));
  }
}

void FileSystem::FinishFiles(const CallContext& ctx) {
  decltype(table_->order) open;
  {
    const std::lock_guard lock(table_->mutex);
    open = table_->order;
  }
  for (const auto& [file, entry] : open) {
    if (!entry->file->complete()) continue;
    if (const Status done = entry->file->Complete(8 * kMiB, ctx); !done)
      failures_->Tell(file, done.error());
  }
}

std::string FileSystem::PathOf(Node node) const {
  if (IsFile(node)) return index_.PathOfFile(FileOf(node));
  if (node < first_file_)
    return index_.PathOfDirectory(static_cast<snapshot::DirIndex>(node - kRootNode));
  const Extra& extra = extra_[node - first_extra_];
  const std::string parent = PathOf(extra.parent);
  return parent.empty() ? extra.name : parent + "/" + extra.name;
}

std::optional<std::string> FileSystem::Attribute(Node node, std::string_view name) const {
  if (node == kRootNode) {
    for (const auto& [key, value] : root_attributes_) {
      if (key == name) return value();
    }
  }
  if (name == "user.leat.source") {
    if (IsFile(node)) return options_.content->UrlOf(FileOf(node));
    if (node < first_file_ && IsDirectory(node)) {
      const std::string path = PathOf(node);
      return options_.content->store->UrlOf(
          fmt::format("{}{}{}", index_.prefix(), path, path.empty() ? "" : "/"));
    }
  }
  if (IsFile(node)) {
    const snapshot::FileInfo info = index_.file(FileOf(node));
    if (name == "user.leat.etag" && !info.etag.empty()) return info.etag.str();
    if (name == "user.leat.version" && !info.version_id.empty())
      return std::string(info.version_id);
  }
  return std::nullopt;
}

std::vector<std::string> FileSystem::AttributeNames(Node node) const {
  std::vector<std::string> names;
  for (const char* name : {"user.leat.source", "user.leat.etag", "user.leat.version"}) {
    if (Attribute(node, name)) names.emplace_back(name);
  }
  if (node == kRootNode) {
    for (const auto& [key, value] : root_attributes_) names.push_back(key);
  }
  return names;
}

void FileSystem::SetRootAttribute(std::string name, std::function<std::string()> value) {
  root_attributes_.emplace_back(std::move(name), std::move(value));
}

std::uint64_t FileSystem::total_bytes() const { return index_.total_bytes(); }

}  // namespace leat::vfs
