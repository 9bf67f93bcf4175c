// libcurl's functions behind names of our own, loaded on first use; curl/curl.h stays in the .cc
// files.
#ifndef LEAT_NET_CURL_LIBRARY_H_
#define LEAT_NET_CURL_LIBRARY_H_

#include <string>

#include "base/error.h"

namespace leat::net {

/// The few functions of libcurl that the HTTP client uses. Options, infos and results are the
/// numbers of curl/curl.h; what they mean is in libcurl's manual. Thread-safe as far as libcurl is:
/// a handle belongs to one thread at a time, but for Wakeup.
class CurlLibrary {
 public:
  using AnyFunction = void (*)();
  struct Done {
    bool done = false;
    int code = 0;
  };

  /// Loads libcurl.so.4 and initializes it, once a process. kUnsupported where it is not installed.
  static Result<const CurlLibrary*> Load();

  void* NewEasy() const;
  void FreeEasy(void* easy) const;
  /// Forgets all options; connections and name lookups are kept.
  void Reset(void* easy) const;
  int Set(void* easy, int option, long value) const;
  int Set(void* easy, int option, const void* value) const;
  int Set(void* easy, int option, AnyFunction function) const;
  long GetLong(void* easy, int info) const;
  /// `list` may be nullptr; nullptr when there is no memory.
  void* Append(void* list, const char* line) const;
  void FreeList(void* list) const;
  std::string ErrorText(int code) const;
  std::string Version() const;

  void* NewMulti() const;
  void FreeMulti(void* multi) const;
  int SetMulti(void* multi, int option, long value) const;
  int Add(void* multi, void* easy) const;
  void Remove(void* multi, void* easy) const;
  /// Does what can be done without waiting; then says whether the multi handle's transfer has
  /// ended, and how.
  Result<Done> Step(void* multi) const;
  /// Waits for the sockets, for Wakeup, or for the time to pass.
  void Poll(void* multi, int timeout_ms) const;
  /// From any thread: ends a Poll.
  void Wakeup(void* multi) const;

  void* NewShare() const;
  void FreeShare(void* share) const;
  int SetShare(void* share, int option, long value) const;
  int SetShare(void* share, int option, const void* value) const;
  int SetShare(void* share, int option, AnyFunction function) const;

 private:
  CurlLibrary() = default;
};

}  // namespace leat::net

#endif  // LEAT_NET_CURL_LIBRARY_H_
