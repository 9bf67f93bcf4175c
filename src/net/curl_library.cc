#include "net/curl_library.h"

#include <curl/curl.h>
#include <dlfcn.h>
#include <fmt/format.h>

namespace leat::net {
namespace {

// curl.h defines some of these names as macros that check argument types; the bare functions are
// meant here.
#undef curl_easy_setopt
#undef curl_easy_getinfo
#undef curl_multi_setopt
#undef curl_share_setopt

struct Functions {
  decltype(&curl_global_init) global_init = nullptr;
  decltype(&curl_easy_init) easy_init = nullptr;
  decltype(&curl_easy_cleanup) easy_cleanup = nullptr;
  decltype(&curl_easy_reset) easy_reset = nullptr;
  decltype(&curl_easy_setopt) easy_setopt = nullptr;
  decltype(&curl_easy_getinfo) easy_getinfo = nullptr;
  decltype(&curl_easy_strerror) easy_strerror = nullptr;
  decltype(&curl_slist_append) slist_append = nullptr;
  decltype(&curl_slist_free_all) slist_free_all = nullptr;
  decltype(&curl_version) version = nullptr;
  decltype(&curl_multi_init) multi_init = nullptr;
  decltype(&curl_multi_cleanup) multi_cleanup = nullptr;
  decltype(&curl_multi_setopt) multi_setopt = nullptr;
  decltype(&curl_multi_add_handle) multi_add_handle = nullptr;
  decltype(&curl_multi_remove_handle) multi_remove_handle = nullptr;
  decltype(&curl_multi_perform) multi_perform = nullptr;
  decltype(&curl_multi_poll) multi_poll = nullptr;
  decltype(&curl_multi_wakeup) multi_wakeup = nullptr;
  decltype(&curl_multi_info_read) multi_info_read = nullptr;
  decltype(&curl_share_init) share_init = nullptr;
  decltype(&curl_share_cleanup) share_cleanup = nullptr;
  decltype(&curl_share_setopt) share_setopt = nullptr;
};

Functions f;  // written once, before Load returns for the first time

Status LoadFunctions() {
  void* const library = dlopen("libcurl.so.4", RTLD_LAZY | RTLD_LOCAL);
  if (library == nullptr) {
    return Fail(Errc::kUnsupported,
                "libcurl.so.4 cannot be loaded, install the package libcurl4 (" +
                    std::string(dlerror()) + ")");
  }
  std::string missing;
  const auto find = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
    if (function == nullptr && missing.empty()) missing = name;
  };
  find(f.global_init, "curl_global_init");
  find(f.easy_init, "curl_easy_init");
  find(f.easy_cleanup, "curl_easy_cleanup");
  find(f.easy_reset, "curl_easy_reset");
  find(f.easy_setopt, "curl_easy_setopt");
  find(f.easy_getinfo, "curl_easy_getinfo");
  find(f.easy_strerror, "curl_easy_strerror");
  find(f.slist_append, "curl_slist_append");
  find(f.slist_free_all, "curl_slist_free_all");
  find(f.version, "curl_version");
  find(f.multi_init, "curl_multi_init");
  find(f.multi_cleanup, "curl_multi_cleanup");
  find(f.multi_setopt, "curl_multi_setopt");
  find(f.multi_add_handle, "curl_multi_add_handle");
  find(f.multi_remove_handle, "curl_multi_remove_handle");
  find(f.multi_perform, "curl_multi_perform");
  find(f.multi_poll, "curl_multi_poll");
  find(f.multi_wakeup, "curl_multi_wakeup");
  find(f.multi_info_read, "curl_multi_info_read");
  find(f.share_init, "curl_share_init");
  find(f.share_cleanup, "curl_share_cleanup");
  find(f.share_setopt, "curl_share_setopt");
  if (!missing.empty()) {
    return Fail(Errc::kUnsupported, fmt::format("libcurl.so.4 is too old: it has no {}", missing));
  }
  if (const CURLcode code = f.global_init(CURL_GLOBAL_DEFAULT); code != CURLE_OK) {
    return Fail(Errc::kInternal, fmt::format("libcurl does not start: {}", f.easy_strerror(code)));
  }
  return {};
}

CURLoption Option(int option) { return static_cast<CURLoption>(option); }
CURLSHoption ShareOption(int option) { return static_cast<CURLSHoption>(option); }

}  // namespace

Result<const CurlLibrary*> CurlLibrary::Load() {
  static const Status loaded = LoadFunctions();
  static const CurlLibrary library;
  if (!loaded) return std::unexpected(loaded.error());
  return &library;
}

void* CurlLibrary::NewEasy() const { return f.easy_init(); }
void CurlLibrary::FreeEasy(void* easy) const { f.easy_cleanup(easy); }
void CurlLibrary::Reset(void* easy) const { f.easy_reset(easy); }
int CurlLibrary::Set(void* easy, int option, long value) const {
  return f.easy_setopt(easy, Option(option), value);
}
int CurlLibrary::Set(void* easy, int option, const void* value) const {
  return f.easy_setopt(easy, Option(option), value);
}
int CurlLibrary::Set(void* easy, int option, AnyFunction function) const {
  return f.easy_setopt(easy, Option(option), function);
}
long CurlLibrary::GetLong(void* easy, int info) const {
  static_assert(sizeof(long) == sizeof(curl_off_t));  // the _T infos fill a curl_off_t
  long value = 0;
  return f.easy_getinfo(easy, static_cast<CURLINFO>(info), &value) == CURLE_OK ? value : 0;
}
void* CurlLibrary::Append(void* list, const char* line) const {
  return f.slist_append(static_cast<curl_slist*>(list), line);
}
void CurlLibrary::FreeList(void* list) const { f.slist_free_all(static_cast<curl_slist*>(list)); }
std::string CurlLibrary::ErrorText(int code) const {
  return f.easy_strerror(static_cast<CURLcode>(code));
}
std::string CurlLibrary::Version() const { return f.version(); }

void* CurlLibrary::NewMulti() const { return f.multi_init(); }
void CurlLibrary::FreeMulti(void* multi) const { f.multi_cleanup(multi); }
int CurlLibrary::SetMulti(void* multi, int option, long value) const {
  return f.multi_setopt(multi, static_cast<CURLMoption>(option), value);
}
int CurlLibrary::Add(void* multi, void* easy) const { return f.multi_add_handle(multi, easy); }
void CurlLibrary::Remove(void* multi, void* easy) const { f.multi_remove_handle(multi, easy); }

Result<CurlLibrary::Done> CurlLibrary::Step(void* multi) const {
  int running = 0;
  if (const CURLMcode code = f.multi_perform(multi, &running); code != CURLM_OK) {
    return Fail(Errc::kInternal, fmt::format("libcurl failed ({})", static_cast<int>(code)));
  }
  int left = 0;
  while (const CURLMsg* message = f.multi_info_read(multi, &left)) {
    if (message->msg == CURLMSG_DONE) return Done{true, message->data.result};
  }
  return Done{};
}

void CurlLibrary::Poll(void* multi, int timeout_ms) const {
  f.multi_poll(multi, nullptr, 0, timeout_ms, nullptr);
}
void CurlLibrary::Wakeup(void* multi) const { f.multi_wakeup(multi); }

void* CurlLibrary::NewShare() const { return f.share_init(); }
void CurlLibrary::FreeShare(void* share) const { f.share_cleanup(static_cast<CURLSH*>(share)); }
int CurlLibrary::SetShare(void* share, int option, long value) const {
  return f.share_setopt(share, ShareOption(option), value);
}
int CurlLibrary::SetShare(void* share, int option, const void* value) const {
  return f.share_setopt(share, ShareOption(option), value);
}
int CurlLibrary::SetShare(void* share, int option, AnyFunction function) const {
  return f.share_setopt(share, ShareOption(option), function);
}

}  // namespace leat::net
