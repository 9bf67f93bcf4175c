#include "testing/fake_kernel.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

namespace leat::testing {
namespace {

[[noreturn]] void Die(const char* what) {
  std::fprintf(stderr, "fake kernel: %s\n", what);
  std::abort();
}

}  // namespace

FakeKernel::FakeKernel() {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) Die("no socket pair");
  kernel_ = ends[0];
  server_ = ends[1];
  // An answer is one message: room for the largest read. Without privilege: about 400 KiB.
  const int bytes = 4 << 20;
  for (const int fd : {kernel_, server_}) {
    if (::setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) != 0)
      ::setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
  }
}

FakeKernel::~FakeKernel() {
  Disconnect();
  ::close(server_);
}

void FakeKernel::Disconnect() {
  if (kernel_ >= 0) ::close(kernel_);
  kernel_ = -1;
}

void FakeKernel::SendRaw(std::span<const std::byte> message) const {
  if (::send(kernel_, message.data(), message.size(), MSG_NOSIGNAL) < 0) Die("the server is gone");
}

std::uint64_t FakeKernel::Send(std::uint32_t opcode, std::uint64_t node,
                               std::span<const std::byte> body) {
  fuse_in_header header = {};
  header.len = static_cast<std::uint32_t>(sizeof(header) + body.size());
  header.opcode = opcode;
  header.nodeid = node;
  {
    const std::lock_guard lock(mutex_);
    header.unique = last_unique_ += 2;  // the lowest bit marks interrupts
  }
  std::vector<std::byte> message = Body(header);
  message.insert(message.end(), body.begin(), body.end());
  SendRaw(message);
  return header.unique;
}

bool FakeKernel::Receive(int timeout_ms) {
  pollfd wait = {kernel_, POLLIN, 0};
  if (::poll(&wait, 1, timeout_ms) <= 0) return false;
  std::vector<std::byte> buffer((1 << 20) + 4096);
  const ssize_t n = ::recv(kernel_, buffer.data(), buffer.size(), 0);
  fuse_out_header header = {};
  if (n < static_cast<ssize_t>(sizeof(header))) Die("the server sent less than a header");
  std::memcpy(&header, buffer.data(), sizeof(header));
  if (header.len != static_cast<std::uint32_t>(n))
    Die("an answer's header does not have its length");
  Answer answer;
  answer.unique = header.unique;
  // The codes of notifications are positive, errors are negative.
  answer.error = header.unique == 0 ? header.error : -header.error;
  if (answer.error < 0) Die("an error is positive");
  if (answer.error != 0 && header.unique != 0 && n != sizeof(header)) Die("an error has a body");
  answer.body.assign(buffer.begin() + sizeof(header), buffer.begin() + n);
  answers_.emplace(answer.unique, std::move(answer));
  return true;
}

FakeKernel::Answer FakeKernel::AnswerTo(std::uint64_t unique) {
  const std::lock_guard lock(mutex_);
  for (;;) {
    if (const auto it = answers_.find(unique); it != answers_.end()) {
      Answer answer = std::move(it->second);
      answers_.erase(it);
      return answer;
    }
    if (!Receive(20'000)) Die("no answer within 20 s");
  }
}

bool FakeKernel::Answered(std::uint64_t unique) {
  const std::lock_guard lock(mutex_);
  while (Receive(0)) {
  }
  return answers_.contains(unique);
}

std::vector<std::byte> FakeKernel::Name(std::string_view name) {
  std::vector<std::byte> out(name.size() + 1);
  std::memcpy(out.data(), name.data(), name.size());
  return out;
}

FakeKernel::Answer FakeKernel::Init(std::uint32_t minor, std::uint64_t flags) {
  fuse_init_in in = {};
  in.major = 7;
  in.minor = minor;
  in.max_readahead = 128 << 10;
  in.flags = static_cast<std::uint32_t>(flags);
  in.flags2 = static_cast<std::uint32_t>(flags >> 32);
  std::vector<std::byte> body = Body(in);
  if (minor < 36) body.resize(16);  // flags2 came with 7.36
  return Call(FUSE_INIT, 0, body);
}

std::uint64_t FakeKernel::SendRead(std::uint64_t node, std::uint64_t offset, std::uint32_t size) {
  fuse_read_in in = {};
  in.offset = offset;
  in.size = size;
  return Send(FUSE_READ, node, Body(in));
}

std::vector<FakeKernel::Entry> FakeKernel::ReadDirectory(std::uint64_t directory,
                                                         std::uint64_t offset, std::uint32_t size,
                                                         bool plus, int* error) {
  fuse_read_in in = {};
  in.offset = offset;
  in.size = size;
  const Answer answer = Call(plus ? FUSE_READDIRPLUS : FUSE_READDIR, directory, Body(in));
  if (error != nullptr) *error = answer.error;
  if (answer.body.size() > size) Die("a directory's page is larger than was asked for");
  std::vector<Entry> entries;
  for (std::size_t at = 0; at < answer.body.size();) {
    Entry entry;
    if (plus) {
      fuse_entry_out full;
      if (answer.body.size() - at < FUSE_NAME_OFFSET_DIRENTPLUS) Die("a cut READDIRPLUS entry");
      std::memcpy(&full, answer.body.data() + at, sizeof(full));
      entry.looked_up = full.nodeid;
    }
    const std::size_t head = plus ? FUSE_NAME_OFFSET_DIRENTPLUS : FUSE_NAME_OFFSET;
    if (answer.body.size() - at < head) Die("a cut READDIR entry");
    fuse_dirent dirent;
    std::memcpy(&dirent, answer.body.data() + at + head - FUSE_NAME_OFFSET, FUSE_NAME_OFFSET);
    const std::size_t whole = FUSE_DIRENT_ALIGN(head + dirent.namelen);
    if (answer.body.size() - at < whole) Die("an entry's name is cut");
    entry.name.assign(reinterpret_cast<const char*>(answer.body.data()) + at + head,
                      dirent.namelen);
    entry.node = dirent.ino;
    entry.next = dirent.off;
    entry.type = dirent.type;
    entries.push_back(std::move(entry));
    at += whole;
  }
  return entries;
}

}  // namespace leat::testing
