#include "base/log.h"

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <mutex>
#include <set>
#include <string>

namespace leat {
namespace {

std::atomic<bool> g_quiet{false};
std::atomic<bool> g_live_line{false};

void WriteLine(std::string_view line, std::string_view prefix = "leat: ") {
  std::string text;
  if (g_live_line.exchange(false)) text += "\r\x1b[K";
  text += prefix;
  text += Printable(line);
  text += '\n';
  [[maybe_unused]] const ssize_t n = ::write(STDERR_FILENO, text.data(), text.size());
}

}  // namespace

std::string Printable(std::string_view text) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    const auto u = static_cast<unsigned char>(c);
    // C1 controls too, in UTF-8: C2 80 to C2 9F.
    const auto before = static_cast<unsigned char>(i > 0 ? text[i - 1] : 0);
    if (u < 0x20 || u == 0x7f || (before == 0xc2 && u >= 0x80 && u <= 0x9f)) {
      out += "\\x";
      out += kHex[u >> 4];
      out += kHex[u & 15];
    } else {
      out += c;
    }
  }
  return out;
}

void Say(std::string_view line) { WriteLine(line); }

void SayOnce(std::string_view topic, std::string_view line) {
  static std::mutex mutex;
  static std::set<std::string, std::less<>> said;
  {
    const std::lock_guard lock(mutex);
    if (!said.emplace(topic).second) return;
  }
  Say(line);
}

void Note(std::string_view line) {
  if (!g_quiet) WriteLine(line);
}

void NoteOnce(std::string_view topic, std::string_view line) {
  if (!g_quiet) SayOnce(topic, line);
}

void SetQuiet(bool quiet) { g_quiet = quiet; }

void Progress(std::string_view line) {
  if (g_quiet) return;
  if (::isatty(STDERR_FILENO) == 1) {
    std::string text = "\r\x1b[K";
    if (!line.empty()) text += "leat: " + Printable(line);
    g_live_line = !line.empty();
    [[maybe_unused]] const ssize_t n = ::write(STDERR_FILENO, text.data(), text.size());
    return;
  }
  static std::mutex mutex;
  static auto last = std::chrono::steady_clock::now();
  const std::lock_guard lock(mutex);
  const auto now = std::chrono::steady_clock::now();
  if (line.empty() || now - last < std::chrono::seconds(5)) return;
  last = now;
  WriteLine(line);
}

bool DebugEnabled() {
  static const bool enabled = std::getenv("LEAT_DEBUG") != nullptr;
  return enabled;
}

void Debug(std::string_view line) {
  if (DebugEnabled()) WriteLine(line, "leat: debug: ");
}

}  // namespace leat
