// Of one mind about user namespaces: a user is himself in them, and nobody else is there.
#ifndef LEAT_JOB_NAMESPACES_H_
#define LEAT_JOB_NAMESPACES_H_

#include <sys/types.h>

namespace leat::job {

/// In a user namespace just made: maps the ids that the process had outside to themselves.
bool MapOwnIds(uid_t uid, gid_t gid);

}  // namespace leat::job

#endif  // LEAT_JOB_NAMESPACES_H_
