// bench_reader [-t THREADS] [-b BLOCK_BYTES] [-s] PATH...: reads whole files with pread, as plain
// as it can be, and prints one line of JSON:
// {"seconds":1.2,"files":2000,"bytes":204800000,"xor":"…"}. A folder is read in the order of its
// names, recursively; "@FILE" names a list of paths, one a line. With -s it only stats (find +
// stat) what it walks. The xor of all words makes a wrong byte visible.
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

[[noreturn]] void Die(const std::string& what) {
  std::fprintf(stderr, "bench_reader: %s: %s\n", what.c_str(), std::strerror(errno));
  std::exit(1);
}

/// Files below `path`, folder by folder in the order of names; `stat_each` asks the kernel for
/// every entry's attributes.
void Walk(const std::string& path, bool stat_each, std::vector<std::string>& files,
          std::uint64_t& entries) {
  DIR* dir = ::opendir(path.c_str());
  if (dir == nullptr) {
    if (errno != ENOTDIR) Die(path);
    files.push_back(path);
    return;
  }
  std::vector<std::pair<std::string, unsigned char>> names;
  while (const dirent* e = ::readdir(dir)) {
    const std::string name = e->d_name;
    if (name != "." && name != "..") names.emplace_back(name, e->d_type);
  }
  if (!stat_each) std::ranges::sort(names);
  const int fd = ::dirfd(dir);
  for (const auto& [name, type] : names) {
    ++entries;
    struct stat st{};
    bool folder = type == DT_DIR;
    if (stat_each || type == DT_UNKNOWN) {
      if (::fstatat(fd, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) Die(path + "/" + name);
      folder = S_ISDIR(st.st_mode);
    }
    if (folder) {
      Walk(path + "/" + name, stat_each, files, entries);
    } else {
      files.push_back(path + "/" + name);
    }
  }
  ::closedir(dir);
}

struct Sum {
  std::uint64_t bytes = 0, words = 0;
};

void ReadFile(const std::string& path, std::vector<char>& buffer, Sum& sum) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) Die(path);
  off_t at = 0;
  for (;;) {
    const ssize_t n = ::pread(fd, buffer.data(), buffer.size(), at);
    if (n < 0) Die(path);
    if (n == 0) break;
    // One word of every page: enough to touch what arrived, too little to be what is measured.
    for (std::size_t i = 0; i + 8 <= static_cast<std::size_t>(n); i += 4096) {
      std::uint64_t w = 0;
      std::memcpy(&w, buffer.data() + i, 8);
      sum.words ^= w;
    }
    at += n;
    sum.bytes += static_cast<std::uint64_t>(n);
  }
  ::close(fd);
}

}  // namespace

int main(int argc, char** argv) {
  std::size_t threads = 1, block = 1 << 20;
  bool stat_only = false;
  int option = 0;
  while ((option = ::getopt(argc, argv, "t:b:s")) != -1) {
    if (option == 't') {
      threads = std::strtoul(optarg, nullptr, 10);
    } else if (option == 'b') {
      block = std::strtoul(optarg, nullptr, 10);
    } else if (option == 's') {
      stat_only = true;
    } else {
      return 2;
    }
  }
  const auto begin = std::chrono::steady_clock::now();
  std::vector<std::string> files;
  std::uint64_t entries = 0;
  for (int i = optind; i < argc; ++i) {
    if (argv[i][0] == '@') {
      std::ifstream list(argv[i] + 1);
      for (std::string line; std::getline(list, line);) files.push_back(line);
    } else {
      Walk(argv[i], stat_only, files, entries);
    }
  }
  Sum total;
  if (!stat_only) {
    std::vector<Sum> sums(threads);
    std::vector<std::thread> readers;
    std::atomic<std::size_t> next = 0;
    for (std::size_t t = 0; t < threads; ++t) {
      readers.emplace_back([&, t] {
        std::vector<char> buffer(block);
        for (std::size_t i = next++; i < files.size(); i = next++)
          ReadFile(files[i], buffer, sums[t]);
      });
    }
    for (auto& r : readers) r.join();
    for (const auto& s : sums) {
      total.bytes += s.bytes;
      total.words ^= s.words;
    }
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  std::printf(
      "{\"seconds\":%.6f,\"files\":%zu,\"entries\":%llu,\"bytes\":%llu,\"xor\":\"%016llx\"}\n",
      took.count(), files.size(), static_cast<unsigned long long>(entries),
      static_cast<unsigned long long>(total.bytes), static_cast<unsigned long long>(total.words));
  return 0;
}
