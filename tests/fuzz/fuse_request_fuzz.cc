// Feeds a server arbitrary requests (each after two bytes that say how long it is), and holds its
// answers to the protocol's form.
#include <fcntl.h>
#include <linux/fuse.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "fuse/server.h"
#include "snapshot/builder.h"
#include "store/memory/memory_store.h"

namespace {

using namespace leat;

void Require(bool condition) {
  if (!condition) std::abort();
}

/// One file system for all inputs.
struct World {
  MemoryBudget budget{64 * kMiB};
  std::unique_ptr<cache::Cache> cache;
  std::shared_ptr<vfs::FileSystem> fs;
  int ends[2];
  std::array<fuse::OpenRecord, 4> opens = {};
  fuse::ConnectionRecord connection = {};

  World() {
    std::shared_ptr<store::ObjectStore> store = store::memory::MakeMemoryStore("mem://bucket");
    snapshot::Builder builder(std::string(store->Identity()), "");
    for (const auto& [key, size] : {std::pair("a", 10), std::pair("d/b", 5000),
                                    std::pair("d/c/d", 0), std::pair("large", 2 << 20)}) {
      const std::string body(static_cast<std::size_t>(size), 'x');
      Require(store->Put(key, AsBytes(body), {}, {}).has_value());
      Require(builder.Add(*store->Stat(key, "", {})).has_value());
    }
    const int fd = ::memfd_create("snapshot", MFD_CLOEXEC);
    Require(builder.WriteTo(fd, false, nullptr).has_value());
    auto content = std::make_shared<snapshot::Content>();
    content->index = *snapshot::Snapshot::Open(fd);
    content->store = std::move(store);
    cache::CacheOptions options;
    options.budget = &budget;
    cache = cache::Cache::Open(options);
    vfs::FileSystemOptions fs_options;
    fs_options.content = content;
    fs_options.cache = cache.get();
    fs_options.extra_directories = {"extra/x"};
    fs_options.sibling_prefetch = false;
    fs = std::make_shared<vfs::FileSystem>(fs_options);
    Require(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, ends) == 0);
    const int bytes = 4 << 20;
    ::setsockopt(ends[0], SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes));
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static World& world = *new World;
  for (const bool open_mode : {false, true}) {
    fuse::ServerOptions options;
    options.fs = world.fs;
    options.fd = world.ends[0];
    options.open_mode = open_mode;
    options.opens = world.opens;
    options.connection = &world.connection;
    options.max_threads = 0;  // requests are handled here
    fuse::Server server(options);
    for (std::size_t at = 0; at + 2 <= size;) {
      const std::size_t length =
          std::min<std::size_t>(data[at] | (data[at + 1] << 8), size - at - 2);
      at += 2;
      // A copy of its own, so that reading beyond it is seen.
      const std::vector<std::byte> request(reinterpret_cast<const std::byte*>(data) + at,
                                           reinterpret_cast<const std::byte*>(data) + at + length);
      at += length;
      server.Handle(request);
      static std::vector<std::byte> answer((1 << 20) + 4096);
      for (;;) {
        const ssize_t n = ::recv(world.ends[1], answer.data(), answer.size(), 0);
        if (n < 0) break;
        fuse_out_header header;
        Require(static_cast<std::size_t>(n) >= sizeof(header));
        std::memcpy(&header, answer.data(), sizeof(header));
        Require(header.len == static_cast<std::uint32_t>(n) && header.error <= 0 &&
                header.error > -1000);
        fuse_in_header in;
        std::memcpy(&in, request.data(), sizeof(in));
        Require(header.unique == in.unique);
        Require(header.error == 0 || n == sizeof(header));
      }
    }
  }
  return 0;
}
