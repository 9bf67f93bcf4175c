// What a run says at its end about the data that it read, and before it about what it would read.
#ifndef LEAT_ENGINE_LOCAL_STATS_H_
#define LEAT_ENGINE_LOCAL_STATS_H_

#include <optional>
#include <string>
#include <vector>

#include "job/data_process.h"

namespace leat::engine::local {

/// "12,000 files, 9.1 MB read, 100 % from cache, 0 requests, waited 0.0 s for data"; empty when
/// nothing was remote.
std::string Summary(const std::vector<job::Attachment>& attachments);
std::string StatsTable(const std::vector<job::Attachment>& attachments);
/// {"attachments": [{"target": ..., "requests": {...}, ...}], "exit_status": ...}
std::string StatsJson(const std::vector<job::Attachment>& attachments, int exit_status,
                      double seconds);

std::string PlanTable(const std::vector<job::Attachment>& attachments);
std::string PlanJson(const std::vector<job::Attachment>& attachments);

/// {"/data": "s3://b/p", ...}: for LEAT_MOUNTS.
std::string MountsJson(const std::vector<job::Attachment>& attachments);

}  // namespace leat::engine::local

#endif  // LEAT_ENGINE_LOCAL_STATS_H_
