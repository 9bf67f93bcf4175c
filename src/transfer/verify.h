// What a store says of an object's bytes, and whether bytes are those. Private to this folder.
#ifndef LEAT_TRANSFER_VERIFY_H_
#define LEAT_TRANSFER_VERIFY_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/context.h"
#include "base/error.h"
#include "digest/digest.h"
#include "store/object_store.h"
#include "transfer/place.h"

namespace leat::transfer {

/// What its listing tells of an object's bytes, or the MD5 that a plain object's etag is; nullopt
/// for others.
std::optional<digest::Expected> DigestOf(const Item& item);
/// The same of what a store said when it was asked for the object; its metadata may name the MD5 of
/// the whole, as rclone writes it for objects in parts.
std::optional<digest::Expected> ExpectedOf(const store::ObjectInfo& info);
/// kCorrupt: not the `what` ("MD5") that the store promised.
std::unexpected<Error> FailDigest(const std::string& name, std::string_view what);

Status HashRange(int fd, std::uint64_t offset, std::uint64_t length, digest::Hasher& hasher,
                 const CallContext& ctx);
/// Of a file's first `size` bytes.
Result<std::string> HashFile(int fd, std::uint64_t size, digest::Kind kind, const CallContext& ctx);

/// The parts of an object, as the store tells them or as S3's etag ("...-12") lets guess: without
/// MD5s then, since they are told together. Empty where nothing is known.
Result<std::vector<store::PartDigest>> PartsOf(const Place& place, const Item& item,
                                               const CallContext& ctx);
/// Their size, where it is one but for the last; nullopt for none.
std::optional<std::uint64_t> PartSize(const std::vector<store::PartDigest>& parts);
/// Whether parts with those MD5s are the object's.
bool SameParts(const std::vector<store::PartDigest>& parts, const std::vector<std::string>& md5s,
               const std::string& etag);

/// Hashes a range of the bytes in question; from several threads at once.
using HashSome =
    std::function<Status(std::uint64_t offset, std::uint64_t length, digest::Hasher& hasher)>;
/// Whether they have the MD5s of an object's parts, each or together its etag: of `parts`
/// (PartsOf), and where those were a guess that does not fit of what the store tells when it is
/// asked. nullopt where nobody can tell: there are stores whose etags only look like that.
Result<std::optional<bool>> HasParts(const HashSome& hash,
                                     const std::vector<store::PartDigest>& parts,
                                     const Place& place, const Item& item, std::size_t threads,
                                     const CallContext& ctx);

}  // namespace leat::transfer

#endif  // LEAT_TRANSFER_VERIFY_H_
