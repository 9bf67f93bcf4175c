// The suite that every driver and decorator of ObjectStore passes. A test file instantiates it for
// its stores:
//   INSTANTIATE_TEST_SUITE_P(Memory, ObjectStoreSuite, ::testing::Values(StoreCase{...}),
//   NameOfCase);
// What a store cannot do is a capability that it lacks, or a fact of the case; the suite then
// expects the refusal.
#ifndef LEAT_TESTING_CONFORMANCE_H_
#define LEAT_TESTING_CONFORMANCE_H_

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

#include "store/object_store.h"

namespace leat::testing {

/// An empty store under test, and what the suite needs beside it.
class Subject {
 public:
  virtual ~Subject() = default;
  virtual store::ObjectStore& store() = 0;
  /// The store's key of an object that people call `name`.
  virtual std::string KeyOf(std::string_view name) { return std::string(name); }
  /// Makes or replaces the object `name`, by Put unless the store cannot write.
  virtual Status Place(std::string_view name, std::string_view body);
  /// The same server's store of a bucket that does not exist.
  virtual std::unique_ptr<store::ObjectStore> MissingBucket() { return nullptr; }
  /// The same store for somebody who may not read it.
  virtual std::unique_ptr<store::ObjectStore> Denied() { return nullptr; }
};

/// For stores that are ready to use: memory, and decorators around it.
std::unique_ptr<Subject> MakeSubject(std::unique_ptr<store::ObjectStore> store);

struct StoreCase {
  std::string name = {};
  std::function<std::unique_ptr<Subject>()> make = {};
  bool has_buckets = false;  ///< MissingBucket is given
  bool has_users = false;    ///< Denied is given
  /// The server takes the condition and does not heed it (Ceph in a bucket with versions): what Put
  /// then does is pinned, so that the suite notices when it is mended.
  bool ignores_put_if_absent = false;
  /// Of writers that meet, several are told that they won (Swift): pinned as well.
  bool several_may_win = false;
  bool no_line_breaks = false;          ///< keys with CR or LF are kInvalid (Google)
  bool ignores_copy_condition = false;  ///< CopyFrom copies what it was not asked for; pinned too
  bool keeps_old_versions = false;      ///< a bucket whose objects were removed is not empty
};
/// For googletest's messages.
inline void PrintTo(const StoreCase& store_case, std::ostream* out) { *out << store_case.name; }
std::string NameOfCase(const ::testing::TestParamInfo<StoreCase>& info);

class ObjectStoreSuite : public ::testing::TestWithParam<StoreCase> {
 protected:
  void SetUp() override;

  store::ObjectStore& store() { return subject_->store(); }
  store::Capabilities can() { return subject_->store().capabilities(); }
  std::string KeyOf(std::string_view name) { return subject_->KeyOf(name); }
  void Place(std::string_view name, std::string_view body);
  Result<std::string> Read(std::string_view name, store::ReadOptions options = {});
  Result<store::ObjectInfo> Stat(std::string_view name) {
    return store().Stat(KeyOf(name), "", ctx_);
  }
  /// Every key below `prefix`, page by page; fails the test where a page is not as it should be.
  std::vector<std::string> ListAll(std::string_view prefix, std::size_t max_keys = 0,
                                   std::string start_after = {}, bool with_versions = false);

  std::unique_ptr<Subject> subject_;
  CallContext ctx_;
};

}  // namespace leat::testing

#endif  // LEAT_TESTING_CONFORMANCE_H_
