// Lock files and their entries: no crash, and what is read is written and read the same again.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "snapshot/lock_entries.h"
#include "snapshot/lock_file.h"

namespace {

void Lock(std::string_view text) {
  const auto lock = leat::snapshot::DecodeLock(text);
  if (!lock) return;
  const std::string encoded = EncodeLock(*lock);
  const auto again = leat::snapshot::DecodeLock(encoded);
  if (!again || again->sources != lock->sources || EncodeLock(*again) != encoded) std::abort();
}

/// As the text of entries, in two pieces.
void Entries(std::string_view text) {
  leat::snapshot::EntryTextReader reader;
  const std::size_t half = text.size() / 2;
  if (!reader.Feed("leat-entries 1\n") || !reader.Feed(text.substr(0, half)) ||
      !reader.Feed(text.substr(half)))
    return;
  const auto entries = reader.entries();
  const std::string mf = leat::snapshot::PinOf(entries);
  const bool whole = text.empty() || text.ends_with('\n');
  if (reader.Finish(mf).has_value() != whole) std::abort();
  const auto encoded = leat::snapshot::EncodeEntries(entries);
  if (!encoded) std::abort();
  const auto again = leat::snapshot::DecodeEntries(*encoded, mf);
  if (!again || *again != entries) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  Lock(text);
  Entries(text);
  (void)leat::snapshot::DecodeEntries(text, leat::snapshot::PinOf({}));
  return 0;
}
