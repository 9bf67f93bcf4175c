// The members of an archive that stays where it is, as objects: a snapshot of them is read like one
// of a folder.
#ifndef LEAT_ARCHIVE_MEMBER_STORE_H_
#define LEAT_ARCHIVE_MEMBER_STORE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/context.h"
#include "base/error.h"
#include "snapshot/builder.h"
#include "store/object_store.h"

namespace leat::archive {

/// Stands in the Identity() of every such store, and of no other.
inline constexpr std::string_view kMembersOf = " members of ";

/// An ObjectStore around the store that holds the archive. A member's version is an etag that says
/// where in the archive its bytes are (docs/formats/members.md), so that whoever has a snapshot of
/// the members needs nothing else to read them: Read wants `if_version` and takes the place from
/// it (kInvalid without one, kCorrupt where it names none). Reads of whole members are held to
/// their CRC, as are those of a deflated one that reach its end. A deflated member is decoded from
/// its beginning, or from where a read of the last few has stopped: read it in order. Thread-safe.
/// Only reads are supported; List and Stat are kUnsupported. Identity() names the archive and its
/// version.
///
/// `store_identity`: what tells the archive's store from others where that is more than its own
/// Identity() (an object that is read under another name than its own).
std::shared_ptr<store::ObjectStore> MakeMemberStore(
    std::shared_ptr<store::ObjectStore> archive_store, store::ObjectInfo archive,
    std::string store_identity = "");
/// The archive (key, size, version) that such a store's identity names: a snapshot of the members
/// is of use with no other. nullopt where it names none.
std::optional<store::ObjectInfo> ArchiveOfIdentity(std::string_view identity);

/// Adds an entry for every file of the archive to `builder` (whose prefix is ""), with the keys
/// that Expand would give them: of a zip its directory is read, of an uncompressed tar all of it,
/// once, held to the digest that the store promises. Symbolic and hard links to files become files
/// with the same bytes. kUnsupported, with a sentence that says that it has to be expanded
/// (expand=always): compressed tars, links to directories, sparse members, methods other than
/// stored and deflate. Hostile archives are refused as by Expand.
Status IndexMembers(store::ObjectStore& archive_store, const store::ObjectInfo& archive,
                    const std::string& source, const CallContext& ctx,
                    const std::function<void(std::uint64_t bytes)>& on_progress,
                    snapshot::Builder& builder);

}  // namespace leat::archive

#endif  // LEAT_ARCHIVE_MEMBER_STORE_H_
