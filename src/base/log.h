// The one place that writes to stderr for people: whole lines, each beginning with "leat: ".
#ifndef LEAT_BASE_LOG_H_
#define LEAT_BASE_LOG_H_

#include <string>
#include <string_view>

namespace leat {

/// Writes "leat: <line>\n" to stderr in one write(2), so that lines of several processes do not
/// mix. Thread-safe. Never pass a secret. Control characters are shown as \xNN: names of objects
/// come from strangers.
void Say(std::string_view line);
/// As Say, unless this process has said something of that topic before.
void SayOnce(std::string_view topic, std::string_view line);
/// As Say, but silent after SetQuiet(true): for summaries and progress, never for errors.
void Note(std::string_view line);
void SetQuiet(bool quiet);
void NoteOnce(std::string_view topic, std::string_view line);
/// A live status line where stderr is a terminal (overwritten by the next one; "" removes it), a
/// line every few seconds elsewhere. Silent after SetQuiet(true).
void Progress(std::string_view line);

/// Debug lines, shown where LEAT_DEBUG is set.
bool DebugEnabled();
void Debug(std::string_view line);

/// `text` with control characters (and a lone DEL) as \xNN, for use inside messages.
std::string Printable(std::string_view text);

}  // namespace leat

#endif  // LEAT_BASE_LOG_H_
