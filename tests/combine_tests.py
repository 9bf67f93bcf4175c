#!/usr/bin/python3
"""Writes one list of tests for ctest out of several builds':

    combine_tests.py OUT FUZZ_SECONDS KIND=REGEX...

KIND is a folder of build/ and the prefix of its tests' names ("asan/unit/leat_base"; none for release); REGEX chooses
among them. Of `fuzz` every fuzzer is a test that runs for FUZZ_SECONDS.
"""
import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
KEPT = {"ENVIRONMENT", "LABELS", "RUN_SERIAL", "SKIP_RETURN_CODE", "TIMEOUT", "WORKING_DIRECTORY"}
SLOWER = {"release": 1, "asan": 3, "tsan": 6}  # than a release build, at worst


def quote(text):
    """As a bracket argument of CMake, in which nothing is special."""
    return f"[==[{text}]==]"


def wrapper(kind):
    """TSan knows where memory may lie only while addresses are not random in more than 28 bits."""
    bits = pathlib.Path("/proc/sys/vm/mmap_rnd_bits")
    if kind == "tsan" and bits.exists() and int(bits.read_text()) > 28:
        return ["/usr/bin/setarch", "-R"]
    return []


def from_build(kind, regex):
    """(name, command, properties) of the build's tests whose name `regex` finds."""
    build = ROOT / "build" / kind
    shown = subprocess.run(["/usr/bin/ctest", "--show-only=json-v1", "--test-dir", str(build)],
                           check=True, stdout=subprocess.PIPE).stdout
    for test in json.loads(shown)["tests"]:
        if not re.search(regex, test["name"]):
            continue
        properties = {p["name"]: p["value"] for p in test.get("properties", []) if p["name"] in KEPT}
        if "TIMEOUT" in properties:
            properties["TIMEOUT"] *= SLOWER.get(kind, 1)
        name = test["name"] if kind == "release" else f"{kind}/{test['name']}"
        # A test without a command was not built: it must fail, not vanish.
        yield name, wrapper(kind) + test["command"] if "command" in test else ["/bin/false"], properties


def fuzzers(seconds):
    for source in sorted((ROOT / "tests" / "fuzz").glob("*_fuzz.cc")):
        yield (f"fuzz/{source.stem.removesuffix('_fuzz')}",
               [str(ROOT / "tests/fuzz/run"), str(ROOT / "build/fuzz" / source.stem), seconds],
               {"LABELS": ["fuzz"], "TIMEOUT": int(seconds) + 300, "WORKING_DIRECTORY": str(ROOT)})


def main():
    out, seconds = pathlib.Path(sys.argv[1]), sys.argv[2]
    lines = []
    for chosen in sys.argv[3:]:
        kind, _, regex = chosen.partition("=")
        for name, command, properties in fuzzers(seconds) if kind == "fuzz" else from_build(kind, regex):
            lines.append(f"add_test({quote(name)} {' '.join(map(quote, command))})")
            if properties:
                values = (f"{k} {quote(';'.join(v) if isinstance(v, list) else 'ON' if v is True else v)}"
                          for k, v in properties.items())
                lines.append(f"set_tests_properties({quote(name)} PROPERTIES {' '.join(values)})")
    out.mkdir(parents=True, exist_ok=True)
    (out / "CTestTestfile.cmake").write_text("\n".join(lines) + "\n")


main()
