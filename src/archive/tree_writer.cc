#include "archive/tree_writer.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "archive/file_task.h"
#include "archive/member_path.h"
#include "base/bytes.h"
#include "base/log.h"
#include "base/text.h"
#include "digest/digest.h"

namespace leat::archive {

/// Some of a file's bytes, or its end.
struct WriteJob {
  std::shared_ptr<FileTask> task;  // shared with the jobs that follow
  std::vector<Slice> slices;
  std::uint64_t bytes = 0;
  bool last = false;
};

namespace {

/// Small files are handed over by so many at once.
constexpr std::uint64_t kBatchBytes = 512 * kKiB;
constexpr std::size_t kBatchJobs = 32;
/// Jobs that wait; each holds a folder's descriptor.
constexpr std::uint64_t kMostQueued = 256;
constexpr std::size_t kDirectoriesOpen = 16;
/// What the names of an archive's members may take in memory.
constexpr std::uint64_t kMostNames = 4 * kGiB;
constexpr std::uint64_t kNodeBytes = 160;
constexpr std::size_t kMostTarget = 4095;
constexpr std::size_t kMostNotes = 8;
constexpr std::int64_t kSecond = 1'000'000'000;

timespec TimeOf(std::int64_t ns) {
  const std::int64_t rest = (ns % kSecond + kSecond) % kSecond;
  return {(ns - rest) / kSecond, rest};
}

}  // namespace

TreeWriter::TreeWriter(const ExpandOptions& options, int root, std::size_t threads,
                       std::shared_ptr<BufferPool> pool, Failure& failure)
    : options_(options), root_(root), pool_(std::move(pool)), failure_(failure), workers_(threads) {
  nodes_[""].kind = Node::Kind::kDirectory;
  for (std::size_t i = 0; i < threads; ++i)
    workers_[i].thread = std::jthread([this, i] { Work(i); });
}

TreeWriter::~TreeWriter() {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
  }
  wake_.notify_all();
  for (Worker& worker : workers_) worker.thread.join();
}

// --- what may be where

Status TreeWriter::CheckRoom(std::uint64_t bytes, std::uint64_t inodes) const {
  if (bytes > options_.limit_bytes)
    return Fail(Errc::kNoSpace,
                fmt::format("its contents need {}, but {} is {}", FormatBytes(bytes),
                            options_.limit_name, FormatBytes(options_.limit_bytes)));
  if (inodes > options_.limit_inodes)
    return Fail(
        Errc::kNoSpace,
        fmt::format("its contents are {} files and folders, but {} is {} of them",
                    FormatCount(inodes), options_.limit_name, FormatCount(options_.limit_inodes)));
  return {};
}

Status TreeWriter::Count(std::uint64_t bytes, std::uint64_t inodes, std::string_view member) {
  if (bytes > options_.limit_bytes || result_.bytes > options_.limit_bytes - bytes)
    return Fail(
        Errc::kNoSpace,
        fmt::format("its contents need {} or more (as far as {}), but {} is {}",
                    FormatBytes(result_.bytes + std::min(bytes, UINT64_MAX - result_.bytes)),
                    Quoted(member), options_.limit_name, FormatBytes(options_.limit_bytes)));
  result_.bytes += bytes;
  inodes_ += inodes;
  return CheckRoom(0, inodes_);
}

void TreeWriter::Note(std::string note) {
  if (result_.notes.size() < kMostNotes) result_.notes.push_back(std::move(note));
}

Result<TreeWriter::Directory> TreeWriter::OpenDirectory(const std::string& path) const {
  open_how how = {};
  how.flags = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS;
  long fd = 0;
  do {
    fd = ::syscall(SYS_openat2, root_, path.empty() ? "." : path.c_str(), &how, sizeof how);
  } while (fd < 0 && (errno == EAGAIN || errno == EINTR));
  if (fd < 0 && (errno == ENOSYS || errno == EPERM)) {
    // Not there (or a container forbids it): one after the other.
    os::UniqueFd at(::openat(root_, ".", O_PATH | O_DIRECTORY | O_CLOEXEC));
    for (std::string_view rest = path; at && !rest.empty();) {
      const auto slash = rest.find('/');
      const std::string part(rest.substr(0, slash));
      rest = slash == rest.npos ? std::string_view() : rest.substr(slash + 1);
      at = os::UniqueFd(
          ::openat(at.get(), part.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    }
    fd = at.Release();
  }
  if (fd < 0) return FailErrno(errno, "opening the folder " + Quoted(path));
  return std::make_shared<os::UniqueFd>(static_cast<int>(fd));
}

/// Makes it, and those above it, where they are not there.
Result<TreeWriter::Directory> TreeWriter::DirectoryAt(std::string_view path,
                                                      std::string_view member) {
  for (std::size_t i = directories_.size(); i-- > 0;) {
    if (directories_[i].first != path) continue;
    if (i + 1 < directories_.size())
      std::rotate(directories_.begin() + static_cast<std::ptrdiff_t>(i),
                  directories_.begin() + static_cast<std::ptrdiff_t>(i) + 1, directories_.end());
    return directories_.back().second;
  }
  const std::string name(path);
  Directory opened;
  if (const auto found = nodes_.find(name); found != nodes_.end()) {
    if (found->second.kind == Node::Kind::kSymlink)
      return Fail(Errc::kInvalid, fmt::format("the member {} would be written through the link {}",
                                              Quoted(member), Quoted(path)));
    if (found->second.kind != Node::Kind::kDirectory)
      return Fail(Errc::kInvalid, fmt::format("the member {} would lie in {}, which is a file",
                                              Quoted(member), Quoted(path)));
    LEAT_ASSIGN_OR_RETURN(opened, OpenDirectory(name));
  } else {
    LEAT_ASSIGN_OR_RETURN(const Directory parent, DirectoryAt(ParentOf(path), member));
    LEAT_RETURN_IF_ERROR(Claim(name, {Node::Kind::kDirectory}, member));
    const std::string leaf(LeafOf(path));
    if (::mkdirat(parent->get(), leaf.c_str(), 0755) == 0) {
      // Whatever the umask says.
      if (::fchmodat(parent->get(), leaf.c_str(), 0755, 0) != 0)
        return FailErrno(errno, "making the folder " + Quoted(path));
    } else if (errno == ENOSPC || errno == EDQUOT) {
      return Fail(Errc::kNoSpace,
                  fmt::format("the disk is full: the folder {} cannot be made", Quoted(path)));
    } else if (errno != EEXIST) {
      return FailErrno(errno, "making the folder " + Quoted(path));
    }
    const int fd =
        ::openat(parent->get(), leaf.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return FailErrno(errno, "opening the folder " + Quoted(path));
    opened = std::make_shared<os::UniqueFd>(fd);
    ++result_.directories;
  }
  if (directories_.size() == kDirectoriesOpen) directories_.erase(directories_.begin());
  directories_.emplace_back(name, opened);
  return opened;
}

Status TreeWriter::MakeDirectories(std::string_view path, std::string_view member) {
  LEAT_ASSIGN_OR_RETURN([[maybe_unused]] const Directory made, DirectoryAt(path, member));
  return {};
}

Status TreeWriter::Claim(const std::string& path, Node node, std::string_view member) {
  const auto [at, added] = nodes_.try_emplace(path);
  Node& there = at->second;
  names_bytes_ += kNodeBytes + path.size() + node.target.size();
  if (names_bytes_ > kMostNames)
    return Fail(Errc::kUnsupported,
                fmt::format("the names of its members need more than {}", FormatBytes(kMostNames)));
  if (added) {
    if (!folded_.insert(digest::Xxh3(AsBytes(Lower(path)))).second && only_case_++ == 0)
      first_only_case_ = path;
  } else {
    if (there.kind == Node::Kind::kDirectory)
      return Fail(Errc::kInvalid,
                  fmt::format("the member {} stands where a folder is", Quoted(member)));
    if (node.kind == Node::Kind::kDirectory)
      return Fail(Errc::kInvalid,
                  fmt::format("the folder {} stands where a file is", Quoted(member)));
    if (replaced_++ == 0) first_replaced_ = path;
    // Its bytes, and what links to it, are there before it goes.
    LEAT_RETURN_IF_ERROR(Drain());
    LEAT_RETURN_IF_ERROR(MakeHardLinks());
    LEAT_ASSIGN_OR_RETURN(const Directory parent, DirectoryAt(ParentOf(path), member));
    if (::unlinkat(parent->get(), std::string(LeafOf(path)).c_str(), 0) != 0 && errno != ENOENT)
      return FailErrno(errno, "replacing " + Quoted(path));
    --(there.kind == Node::Kind::kFile ? result_.files : result_.links);
    result_.bytes -= there.bytes;
    --inodes_;
  }
  there = std::move(node);
  return Count(there.bytes, 1, member);
}

// --- members

Status TreeWriter::Begin(const Member& member, const ZipMember* zip) {
  LEAT_ASSIGN_OR_RETURN(const std::string path, MemberPath(member.name));
  member_ = member;
  zip_ = zip;
  task_ = nullptr;
  text_.reset();
  if (member.kind == MemberKind::kDirectory) return MakeDirectory(path, member);
  if (path.empty())
    return Fail(Errc::kInvalid, fmt::format("a member has no name ({})", Quoted(member.name)));
  switch (member.kind) {
    case MemberKind::kDirectory:
      break;
    case MemberKind::kSpecial:
      return Fail(Errc::kInvalid, fmt::format("the member {} is a device, a fifo or a socket",
                                              Quoted(member.name)));
    case MemberKind::kHardLink:
      return AddHardLink(path, member);
    case MemberKind::kSymlink:
      if (zip == nullptr) return AddSymlink(path, member, member.link);
      if (member.size > kMostTarget)
        return Fail(Errc::kInvalid, fmt::format("the link {} has a target of more than {} bytes",
                                                Quoted(member.name), kMostTarget));
      text_.emplace();
      break;
    case MemberKind::kFile: {
      LEAT_RETURN_IF_ERROR(Claim(
          path, {Node::Kind::kFile, member.sparse ? member.stored : member.size}, member.name));
      ++result_.files;
      LEAT_ASSIGN_OR_RETURN(Directory directory, DirectoryAt(ParentOf(path), member.name));
      task_ = std::make_shared<FileTask>(std::move(directory), std::string(LeafOf(path)), member,
                                         zip, written_, resumed_);
      streamed_ = false;
    }
  }
  return {};
}

Status TreeWriter::MakeDirectory(const std::string& path, const Member& member) {
  if (const auto found = nodes_.find(path);
      found != nodes_.end() && found->second.kind != Node::Kind::kDirectory)
    return Claim(path, {Node::Kind::kDirectory}, member.name);  // says why not
  if (!path.empty()) LEAT_RETURN_IF_ERROR(MakeDirectories(path, member.name));
  nodes_[path].mtime_ns = member.mtime_ns;
  return {};
}

Status TreeWriter::AddHardLink(const std::string& path, const Member& member) {
  LEAT_ASSIGN_OR_RETURN(const std::string target, MemberPath(member.link));
  const auto found = nodes_.find(target);
  if (found == nodes_.end() || found->second.kind == Node::Kind::kDirectory)
    return Fail(Errc::kInvalid,
                fmt::format("the member {} is a link to {}, which is no file before it",
                            Quoted(member.name), Quoted(member.link)));
  if (target == path) return {};
  if (found->second.kind == Node::Kind::kSymlink)
    return AddSymlink(path, member, found->second.target);
  LEAT_RETURN_IF_ERROR(Claim(path, {Node::Kind::kHardLink}, member.name));
  LEAT_RETURN_IF_ERROR(MakeDirectories(ParentOf(path), member.name));
  ++result_.links;
  hard_links_.push_back({path, target});
  return {};
}

Status TreeWriter::AddSymlink(const std::string& path, const Member& member, std::string target) {
  const auto refuse = [&](std::string_view why) {
    return Fail(Errc::kInvalid,
                fmt::format("the link {} {}: {}", Quoted(member.name), why, Quoted(target)));
  };
  if (target.empty() || target.find('\0') != target.npos) return refuse("has no target");
  if (target.size() > kMostTarget) return refuse("has a target that is too long");
  if (target.starts_with('/')) return refuse("leads out of the folder");
  if (LeadsOut(path, target)) return refuse("leads out of the folder");
  Node node{Node::Kind::kSymlink};
  node.mtime_ns = member.mtime_ns;
  node.target = std::move(target);
  LEAT_RETURN_IF_ERROR(Claim(path, std::move(node), member.name));
  LEAT_RETURN_IF_ERROR(MakeDirectories(ParentOf(path), member.name));
  ++result_.links;
  symlinks_.push_back(path);
  return {};
}

/// As the kernel would follow it, but that what is not there is taken for a folder.
bool TreeWriter::LeadsOut(const std::string& path, const std::string& target) const {
  constexpr int kMostLinks = 40;
  std::string at(ParentOf(path));
  std::vector<std::string_view> ahead;  // the last first
  const auto follow = [&](std::string_view text) {
    std::vector<std::string_view> parts;
    while (!text.empty()) {
      const auto slash = text.find('/');
      parts.push_back(text.substr(0, slash));
      text = slash == text.npos ? std::string_view() : text.substr(slash + 1);
    }
    ahead.insert(ahead.end(), parts.rbegin(), parts.rend());
  };
  follow(target);
  for (int links = 0; !ahead.empty();) {
    const std::string_view part = ahead.back();
    ahead.pop_back();
    if (part.empty() || part == ".") continue;
    if (part == "..") {
      if (at.empty()) return true;
      at = ParentOf(at);
      continue;
    }
    const std::size_t before = at.size();
    if (!at.empty()) at += '/';
    at += part;
    const auto found = nodes_.find(at);
    if (found == nodes_.end() || found->second.kind != Node::Kind::kSymlink) continue;
    if (++links > kMostLinks) return false;  // nobody can follow it
    at.resize(before);
    follow(found->second.target);
  }
  return false;
}

bool TreeWriter::IsFinished(const Member& member) const {
  const auto path = MemberPath(member.name);
  if (!path || path->empty() || member.kind != MemberKind::kFile) return false;
  const auto directory = OpenDirectory(std::string(ParentOf(*path)));
  struct stat st;
  return directory &&
         ::fstatat((*directory)->get(), std::string(LeafOf(*path)).c_str(), &st,
                   AT_SYMLINK_NOFOLLOW) == 0 &&
         IsFinishedFile(st, member);
}

Status TreeWriter::Adopt(const Member& member) {
  LEAT_ASSIGN_OR_RETURN(const std::string path, MemberPath(member.name));
  LEAT_RETURN_IF_ERROR(Claim(path, {Node::Kind::kFile, member.size}, member.name));
  LEAT_RETURN_IF_ERROR(MakeDirectories(ParentOf(path), member.name));
  ++result_.files;
  written_ += member.size;
  resumed_ += member.size;
  return {};
}

// --- their bytes

void TreeWriter::Add(std::span<const std::byte> bytes, std::shared_ptr<const Buffer> owner) {
  sliced_ += bytes.size();
  if (!slices_.empty() && slices_.back().owner == owner &&
      slices_.back().bytes.data() + slices_.back().bytes.size() == bytes.data()) {
    Slice& back = slices_.back();
    back.bytes = {back.bytes.data(), back.bytes.size() + bytes.size()};
    return;
  }
  slices_.push_back({std::move(owner), bytes});
}

Status TreeWriter::Data(std::span<const std::byte> bytes,
                        const std::shared_ptr<const Buffer>& owner) {
  if (text_) {
    if (bytes.size() > 2 * kMostTarget - std::min(text_->size(), 2 * kMostTarget))
      return FailMemberSize(member_.name, member_.size, true);
    text_->append(AsText(bytes));
    return {};
  }
  if (!task_) return {};
  if (!owner) return AddCopied(bytes);
  Add(bytes, owner);
  return sliced_ > kSmallMember ? Submit(false) : Status();
}

Status TreeWriter::AddCopied(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    if (!copy_ || copy_->size == pool_->buffer_size()) {
      copy_ = nullptr;
      // Those that have the buffers that we wait for must not wait for us.
      LEAT_RETURN_IF_ERROR(Flush());
      copy_ = pool_->Take(failure_.stop());
      if (!copy_) return failure_.Or(Fail(Errc::kCancelled, "cancelled"));
    }
    const std::size_t n = std::min(bytes.size(), pool_->buffer_size() - copy_->size);
    std::byte* to = copy_->bytes.get() + copy_->size;
    std::memcpy(to, bytes.data(), n);
    copy_->size += n;
    Add({to, n}, copy_);
    bytes = bytes.subspan(n);
    if (sliced_ > kSmallMember) LEAT_RETURN_IF_ERROR(Submit(false));
  }
  return {};
}

Status TreeWriter::End() {
  if (task_) return Submit(true);
  if (!text_) return {};
  std::string target;
  LEAT_ASSIGN_OR_RETURN(const auto decoder,
                        MakeMemberDecoder(*zip_, [&](std::span<const std::byte> bytes) -> Status {
                          if (bytes.size() > member_.size - target.size())
                            return FailMemberSize(member_.name, member_.size, true);
                          target += AsText(bytes);
                          return {};
                        }));
  LEAT_RETURN_IF_ERROR(decoder->Write(AsBytes(*text_)));
  LEAT_RETURN_IF_ERROR(decoder->Finish());
  if (target.size() != member_.size) return FailMemberSize(member_.name, member_.size, false);
  if (ZipCrc(AsBytes(target)) != zip_->crc32) return FailChecksum(member_.name);
  LEAT_ASSIGN_OR_RETURN(const std::string path, MemberPath(member_.name));
  return AddSymlink(path, member_, std::move(target));
}

Status TreeWriter::Submit(bool last) {
  const bool whole = last && !streamed_;
  batch_.push_back({task_, std::move(slices_), sliced_, last});
  slices_ = {};
  batch_bytes_ += std::exchange(sliced_, 0);
  streamed_ = true;
  if (last) task_ = nullptr;
  // What is not whole needs a worker of its own.
  if (whole && batch_bytes_ < kBatchBytes && batch_.size() < kBatchJobs) return {};
  return Flush();
}

Status TreeWriter::Flush() {
  if (batch_.empty()) return {};
  {
    std::unique_lock lock(mutex_);
    if (!room_.wait(lock, failure_.stop(), [&] { return queued_ < kMostQueued; }))
      return failure_.Or({});
    std::size_t least = 0;
    for (std::size_t i = 1; i < workers_.size(); ++i) {
      const auto load = [](const Worker& w) { return w.bytes + (w.busy ? 1 : 0); };
      if (load(workers_[i]) < load(workers_[least])) least = i;
    }
    for (WriteJob& job : batch_) {
      // A file that is streamed stays with the worker that has begun it.
      std::size_t to = least;
      if (job.task == streaming_) to = worker_of_task_;
      if (!job.last && job.task != streaming_) {
        streaming_ = job.task;
        worker_of_task_ = to;
      }
      if (job.last && job.task == streaming_) streaming_ = nullptr;
      workers_[to].bytes += job.bytes;
      workers_[to].jobs.push_back(std::move(job));
      ++queued_;
    }
  }
  wake_.notify_all();
  batch_.clear();
  batch_bytes_ = 0;
  return {};
}

Status TreeWriter::Drain() {
  LEAT_RETURN_IF_ERROR(Flush());
  std::unique_lock lock(mutex_);
  room_.wait(lock, failure_.stop(), [&] { return queued_ == 0; });
  lock.unlock();
  return failure_.Or({});
}

void TreeWriter::Work(std::size_t index) {
  Worker& mine = workers_[index];
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [&] { return !mine.jobs.empty() || closing_; });
    if (mine.jobs.empty()) return;
    WriteJob job = std::move(mine.jobs.front());
    mine.jobs.pop_front();
    mine.busy = true;
    lock.unlock();
    if (!failure_.stop().stop_requested()) {
      if (Status done = job.task->Take(job.slices, job.last); !done)
        failure_.Set(std::move(done).error());
    }
    const std::uint64_t bytes = job.bytes;
    job = {};  // gives its buffers back
    lock.lock();
    mine.busy = false;
    mine.bytes -= bytes;
    if (--queued_ == 0 || queued_ == kMostQueued - 1) room_.notify_one();
  }
}

// --- the end

Status TreeWriter::MakeHardLinks() {
  if (hard_links_.empty()) return {};
  LEAT_RETURN_IF_ERROR(Drain());
  for (const HardLink& link : hard_links_) {
    LEAT_ASSIGN_OR_RETURN(const Directory from, DirectoryAt(ParentOf(link.target), link.path));
    LEAT_ASSIGN_OR_RETURN(const Directory to, DirectoryAt(ParentOf(link.path), link.path));
    const std::string target(LeafOf(link.target));
    const std::string leaf(LeafOf(link.path));
    int made = ::linkat(from->get(), target.c_str(), to->get(), leaf.c_str(), 0);
    if (made != 0 && errno == EEXIST) {
      if (::unlinkat(to->get(), leaf.c_str(), 0) == 0)
        made = ::linkat(from->get(), target.c_str(), to->get(), leaf.c_str(), 0);
    }
    if (made != 0) return FailErrno(errno, "making the link " + Quoted(link.path));
  }
  hard_links_.clear();
  return {};
}

Status TreeWriter::MakeSymlinks() {
  // Each once more: links that came later may have changed where it leads.
  std::ranges::sort(symlinks_);
  symlinks_.erase(std::ranges::unique(symlinks_).begin(), symlinks_.end());
  std::erase_if(symlinks_, [&](const std::string& path) {
    return nodes_.at(path).kind != Node::Kind::kSymlink;  // replaced
  });
  for (const std::string& path : symlinks_) {
    if (const Node& node = nodes_.at(path); LeadsOut(path, node.target))
      return Fail(Errc::kInvalid, fmt::format("the link {} leads out of the folder: {}",
                                              Quoted(path), Quoted(node.target)));
  }
  for (const std::string& path : symlinks_) {
    const Node& node = nodes_.at(path);
    LEAT_ASSIGN_OR_RETURN(const Directory directory, DirectoryAt(ParentOf(path), path));
    const std::string leaf(LeafOf(path));
    int made = ::symlinkat(node.target.c_str(), directory->get(), leaf.c_str());
    if (made != 0 && errno == EEXIST) {
      if (::unlinkat(directory->get(), leaf.c_str(), 0) == 0)
        made = ::symlinkat(node.target.c_str(), directory->get(), leaf.c_str());
    }
    if (made != 0) return FailErrno(errno, "making the link " + Quoted(path));
    const timespec times[2] = {{0, UTIME_OMIT}, TimeOf(node.mtime_ns.value_or(0))};
    ::utimensat(directory->get(), leaf.c_str(), times, AT_SYMLINK_NOFOLLOW);
  }
  return {};
}

Status TreeWriter::SetDirectoryTimes() {
  for (const auto& [path, node] : nodes_) {
    if (node.kind != Node::Kind::kDirectory || !node.mtime_ns) continue;
    LEAT_ASSIGN_OR_RETURN(const Directory parent, OpenDirectory(std::string(ParentOf(path))));
    const timespec times[2] = {{0, UTIME_OMIT}, TimeOf(*node.mtime_ns)};
    const std::string leaf = path.empty() ? "." : std::string(LeafOf(path));
    ::utimensat(parent->get(), leaf.c_str(), times, AT_SYMLINK_NOFOLLOW);
  }
  return {};
}

Result<Expanded> TreeWriter::Finish() {
  LEAT_RETURN_IF_ERROR(Drain());
  LEAT_RETURN_IF_ERROR(MakeHardLinks());
  LEAT_RETURN_IF_ERROR(MakeSymlinks());
  LEAT_RETURN_IF_ERROR(SetDirectoryTimes());
  ::fchmod(root_, 0755);
  if (replaced_ > 0)
    Note(fmt::format("{} {} there more than once, the last is kept (the first is {})",
                     FormatCount(replaced_), replaced_ == 1 ? "name is" : "names are",
                     Quoted(first_replaced_)));
  if (only_case_ > 0)
    Note(fmt::format("{} {} from another only in upper and lower case (the first is {})",
                     FormatCount(only_case_), only_case_ == 1 ? "name differs" : "names differ",
                     Quoted(first_only_case_)));
  result_.resumed_bytes = resumed_;
  return std::move(result_);
}

}  // namespace leat::archive
