// Archives for the tests, made by the programs that everybody makes them with.
#ifndef LEAT_ARCHIVE_TEST_TOOLS_H_
#define LEAT_ARCHIVE_TEST_TOOLS_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "os/file.h"

namespace leat::archive {

/// A folder that ends with the test.
class TestFolder {
 public:
  TestFolder() {
    std::string path = (std::filesystem::temp_directory_path() / "leat-archive.XXXXXX").string();
    path_ = ::mkdtemp(path.data());
  }
  ~TestFolder() { static_cast<void>(os::RemoveTree(path_)); }
  TestFolder(const TestFolder&) = delete;
  TestFolder& operator=(const TestFolder&) = delete;

  const std::string& path() const { return path_; }
  std::string operator/(std::string_view name) const { return path_ + "/" + std::string(name); }

  /// Runs a line of shell in it; the test fails where that does.
  void Run(const std::string& line) const {
    const std::string command = "cd '" + path_ + "' && { " + line + "\n} >run.log 2>&1 </dev/null";
    const int status = std::system(("exec bash -euc '" + Quoted(command) + "'").c_str());
    EXPECT_EQ(status, 0) << line << "\n"
                         << Read("run.log")
                         << "where a program is missing: scripts/setup installs it";
    std::filesystem::remove(path_ + "/run.log");
  }
  /// Runs a program in Python in it.
  void Python(std::string_view program) const {
    Write("program.py", program);
    Run("/usr/bin/python3 program.py");
    std::filesystem::remove(path_ + "/program.py");
  }
  std::string Read(const std::string& name) const {
    std::ifstream in(path_ + "/" + name, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  void Write(const std::string& name, std::string_view bytes) const {
    std::ofstream(path_ + "/" + name, std::ios::binary) << bytes;
  }

 private:
  static std::string Quoted(const std::string& text) {
    std::string out;
    for (const char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
    return out;
  }
  std::string path_;
};

/// Bytes that compress somewhat, as text does.
inline std::string Words(std::size_t size, std::uint64_t seed = 1) {
  std::string out;
  out.reserve(size + 8);
  while (out.size() < size) {
    seed = seed * 6364136223846793005U + 1442695040888963407U;
    for (int i = 0; i < 4; ++i) out += static_cast<char>('a' + (seed >> (33 + 5 * i)) % 23);
    out += ' ';
  }
  out.resize(size);
  return out;
}

}  // namespace leat::archive

#endif  // LEAT_ARCHIVE_TEST_TOOLS_H_
