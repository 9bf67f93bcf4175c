#include "cli/fstab.h"

#include <fmt/format.h>
#include <pwd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <sstream>
#include <string_view>

namespace leat::cli {
namespace {

using std::string_view_literals::operator""sv;

/// For mount(8), its helpers and systemd.
bool IsForOthers(std::string_view option) {
  constexpr std::array kWords = {
      "ro"sv,         "rw"sv,          "suid"sv,     "nosuid"sv,     "dev"sv,
      "nodev"sv,      "exec"sv,        "noexec"sv,   "auto"sv,       "noauto"sv,
      "user"sv,       "nouser"sv,      "users"sv,    "owner"sv,      "group"sv,
      "defaults"sv,   "_netdev"sv,     "nofail"sv,   "sync"sv,       "async"sv,
      "atime"sv,      "noatime"sv,     "diratime"sv, "nodiratime"sv, "relatime"sv,
      "norelatime"sv, "strictatime"sv, "lazytime"sv, "silent"sv,     "default_permissions"sv};
  return option.empty() || option.starts_with("x-") || option.starts_with("X-") ||
         option.starts_with("comment=") || option.starts_with("fsname=") ||
         option.starts_with("subtype=") || option.starts_with("user=") ||
         std::ranges::find(kWords, option) != kWords.end();
}

bool IsOfSource(std::string_view option) {
  for (const std::string_view known : {"profile="sv, "region="sv, "endpoint="sv, "remote="sv,
                                       "version="sv, "etag="sv, "name="sv}) {
    if (option.starts_with(known)) return true;
  }
  return option == "anon" || option == "requester_pays";
}

}  // namespace

std::optional<Result<std::vector<std::string>>> MountWordsOfFstab(
    const std::vector<std::string>& words) {
  // A source never looks like a command: it has a ':' or a '/'.
  if (words.size() < 4 || words[0].find_first_of(":/") == std::string::npos ||
      words[0].starts_with('-') || words[2] != "-o") {
    return std::nullopt;
  }
  std::string source = words[0];
  std::vector<std::string> out = {"mount", "--daemon"};
  std::istringstream options(words[3]);
  for (std::string option; std::getline(options, option, ',');) {
    const std::size_t equals = option.find('=');
    if (option == "allow_other") {
      out.emplace_back("--allow-other");
    } else if (option == "strict") {
      out.emplace_back("--strict");
    } else if (option.starts_with("refresh=") || option.starts_with("memory=") ||
               option.starts_with("cache-size=")) {
      out.push_back("--" + option);
    } else if (option.starts_with("env.") && equals != std::string::npos) {
      ::setenv(option.substr(4, equals - 4).c_str(), option.c_str() + equals + 1, 1);
    } else if (IsOfSource(option)) {
      source += "," + option;
    } else if (!IsForOthers(option)) {
      return Fail(Errc::kInvalid,
                  fmt::format("{}: the mount option \"{}\" is unknown (leat's own: allow_other "
                              "strict refresh= memory= cache-size= env.NAME= profile= region= "
                              "endpoint= remote= version= etag= anon requester_pays)",
                              words[1], option.substr(0, equals)));
    }
  }
  if (std::getenv("HOME") == nullptr) {
    if (const passwd* user = ::getpwuid(::geteuid())) ::setenv("HOME", user->pw_dir, 1);
  }
  out.push_back(std::move(source));
  out.push_back(words[1]);
  return out;
}

}  // namespace leat::cli
