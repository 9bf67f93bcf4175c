"""Downloads: by the leat that runs the job, or by the program."""

import json
import os
import socket
import subprocess
import sys
from typing import Any, Dict, Optional, Union

from ._error import Error

_Path = Union[str, "os.PathLike[str]"]


def download(
    source: str,
    dir: _Path,
    *,
    etag: Optional[str] = None,
    version: Optional[str] = None,
    expand: Optional[str] = None,
    endpoint: Optional[str] = None,
    region: Optional[str] = None,
    profile: Optional[str] = None,
    anonymous: bool = False,
    requester_pays: bool = False,
    strict_pins: bool = False,
) -> str:
    """Puts the dataset at `source` into the folder `dir`, whole and verified, and returns its absolute path.

    Of a source that is there already, and unchanged, nothing is downloaded; of one that has changed the new
    contents take the old ones' place at once. All who ask for the same on one machine, in however many
    processes and for however many folders, share one download. `dir` is made; one that holds what leat has not
    put there is refused.

    source       what `leat dataset pull` takes: "s3://bucket/train", "gs://bucket/mnist.zip", "chi_tacc:container"
    etag         the object's etag, or a folder's pin "mf:...": anything else is an error
    version      the object's version
    expand       "auto" (default): an archive becomes its contents where its name says that it is one;
                 "always"; "never"
    endpoint, region, profile, anonymous, requester_pays
                 as the options of `leat run -m`
    strict_pins  a pin that a folder cannot have is an error; else it is ignored with a note

    Raises leat.Error.
    """
    if source.startswith(("./", "../")):  # another process may look for it
        source = os.path.join(os.getcwd(), source)
    words = [source]
    for name, value in (
        ("etag", etag),
        ("version", version),
        ("expand", expand),
        ("endpoint", endpoint),
        ("region", region),
        ("profile", profile),
    ):
        if value is None:
            continue
        if not value or "," in value:
            raise Error(f"{name}={value!r}: a value without commas is expected")
        words.append(f"{name}={value}")
    for name, wanted in (("anon", anonymous), ("requester_pays", requester_pays)):
        if wanted:
            words.append(name)
    text = ",".join(words)
    path = os.path.abspath(os.fspath(dir))
    for word in (text, path):
        if "\0" in word:
            raise Error(f"{word!r}: no name has a NUL byte")
    if source.startswith("-"):
        raise Error(f"{source}: neither a URL nor a remote (write ./ in front of a file of that name)")
    if _ask_supervisor(text, path, strict_pins) is None:
        _run_program(text, path, strict_pins)
    return path


def _ask_supervisor(source: str, path: str, strict_pins: bool) -> Optional[Dict[str, Any]]:
    """docs/formats/socket.md; None where there is nobody to ask."""
    name = os.environ.get("LEAT_SOCK", "")
    if not name.startswith("@"):
        return None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.connect("\0" + name[1:])
        except OSError:
            return None
        request = {"do": "pull", "source": source, "dir": path, "strict_pins": strict_pins}
        line = b""
        try:
            text = json.dumps(request, ensure_ascii=False).encode("utf-8")
        except UnicodeError:
            raise Error(f"{path!r}: a folder whose name is UTF-8 is expected") from None
        try:
            connection.sendall(text + b"\n")
            while not line.endswith(b"\n"):
                some = connection.recv(65536)
                if not some:
                    break
                line += some
        except OSError:
            line = b""
    return _checked(line.decode("utf-8", "replace"), "the leat that runs this job has gone")


def _run_program(source: str, path: str, strict_pins: bool) -> Dict[str, Any]:
    program = os.environ.get("LEAT") or "leat"
    command = [program, "dataset", "pull", "--json", *(["--strict-pins"] if strict_pins else []), source, path]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except OSError as error:
        raise Error(
            f"the program {program!r} cannot be started ({error.strerror}): install leat with scripts/install of its "
            "checkout, and put it on the PATH or its path into LEAT"
        ) from None
    said = done.stderr.decode("utf-8", "replace").splitlines()
    sentence = "leat has ended without a word"
    if done.returncode < 0:
        sentence = f"leat was ended by signal {-done.returncode}"
    elif done.returncode != 0 and said:
        sentence = said.pop()
        sentence = sentence[len("leat: "):] if sentence.startswith("leat: ") else sentence
    for note in said:
        print(note, file=sys.stderr)
    if done.returncode != 0:
        raise Error(sentence)
    return _checked(done.stdout.decode("utf-8", "replace"), sentence)


def _checked(text: str, otherwise: str) -> Dict[str, Any]:
    try:
        answer = json.loads(text)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise Error(otherwise)
    if answer.get("error"):
        raise Error(str(answer["error"]))
    return answer
