// NAME:container/path, by what the user's rclone.conf says of NAME.
#ifndef LEAT_JOB_RCLONE_REMOTE_H_
#define LEAT_JOB_RCLONE_REMOTE_H_

#include <string_view>

#include "base/error.h"
#include "config/aws_config.h"
#include "job/mount_spec.h"

namespace leat::job {

/// Puts in place of the remote what it stands for: a bucket, a container, a folder or a URL, with
/// the section that says how it is reached (Source::remote). An alias is followed. kUnsupported for
/// a type that leat does not speak, kInvalid for a section that lacks what it needs.
Status ResolveRemote(Source& source, const config::Environment& env);
/// The section of that name for a source that is written as a URL (the option remote=). kInvalid
/// when its type does not fit the URL's scheme.
Status UseRemote(Source& source, std::string_view name, const config::Environment& env);

}  // namespace leat::job

#endif  // LEAT_JOB_RCLONE_REMOTE_H_
