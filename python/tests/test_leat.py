"""What python/leat does, without a network and without the program: both are played here."""

import json
import os
import pathlib
import socket
import sys
import tempfile
import threading
import unittest
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import leat  # noqa: E402


def environment(**variables):
    """Nothing but these, and what Python itself needs."""
    keep = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR") if name in os.environ}
    return mock.patch.dict(os.environ, {**keep, **variables}, clear=True)


class Environment(unittest.TestCase):
    def test_data_of_the_job_file(self):
        with environment(LEAT_DATA_CONFIG='{"bucket":"b","n":3,"deep":{"a":[1,null]}}'):
            self.assertEqual(leat.data_config(), {"bucket": "b", "n": 3, "deep": {"a": [1, None]}})

    def test_outside_of_a_run_there_is_none(self):
        with environment():
            self.assertEqual((leat.data_config(), leat.mounts(), leat.rank(), leat.world_size()), ({}, {}, 0, 1))

    def test_what_is_no_object_is_an_error(self):
        for text in ("[1]", "{", '"b"'):
            with environment(LEAT_DATA_CONFIG=text), self.assertRaisesRegex(leat.Error, "LEAT_DATA_CONFIG"):
                leat.data_config()

    def test_mounts(self):
        with environment(LEAT_MOUNTS='{"/data/dataset A":"s3://b/my-dataset.zip"}'):
            self.assertEqual(leat.mounts(), {"/data/dataset A": "s3://b/my-dataset.zip"})

    def test_ranks(self):
        batch = {"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}
        for variables, wanted in (
            ({"LEAT_RANK": "3", "LEAT_WORLD_SIZE": "5"}, (3, 5)),
            ({"LEAT_RANK": "3", "LEAT_WORLD_SIZE": "5", **batch}, (3, 5)),  # replicas in a batch job
            ({"LEAT_RANK": "0", "LEAT_WORLD_SIZE": "1", "RANK": "6", "WORLD_SIZE": "8"}, (6, 8)),  # torchrun in a run
            ({"LEAT_RANK": "1", "LEAT_WORLD_SIZE": "2", "RANK": "9", "WORLD_SIZE": "16"}, (9, 16)),  # a run a node
            ({"LEAT_RANK": "0", "LEAT_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "4"}, (2, 4)),
            ({"SLURM_PROCID": "2", "SLURM_NTASKS": "4"}, (2, 4)),
            ({"LEAT_RANK": "0", "LEAT_WORLD_SIZE": "1"}, (0, 1)),
        ):
            with self.subTest(variables), environment(**variables):
                self.assertEqual((leat.rank(), leat.world_size()), wanted)
        with environment(RANK="x"), self.assertRaisesRegex(leat.Error, "RANK"):
            leat.rank()


class Supervisor:
    """Answers one request with `answer`; keeps what was asked."""

    def __init__(self, answer):
        self.answer, self.asked = answer, None
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.name = f"leat-test-{os.getpid()}-{id(self)}"
        self.socket.bind("\0" + self.name)
        self.socket.listen(1)
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self):
        connection, _ = self.socket.accept()
        with connection, connection.makefile("rb") as lines:
            self.asked = json.loads(lines.readline())
            for part in self.answer:
                connection.sendall(part)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.thread.join()
        self.socket.close()


class InsideOfARun(unittest.TestCase):
    def ask(self, answer, *args, **options):
        with Supervisor(answer) as supervisor, environment(LEAT_SOCK="@" + supervisor.name, LEAT="/nonexistent"):
            self.supervisor = supervisor
            return leat.download(*args, **options)

    def test_request_and_answer(self):
        answer = [b'{"dir":"/x","fi', b'les":2}\n']
        with tempfile.TemporaryDirectory() as folder:
            before = os.getcwd()
            os.chdir(folder)
            try:
                path = self.ask(answer, "s3://b/a,b", pathlib.Path("data-rank0"), etag="e", version="v", expand="never",
                                endpoint="http://h:1", anonymous=True, strict_pins=True)
            finally:
                os.chdir(before)
            self.assertEqual(path, os.path.join(os.path.realpath(folder), "data-rank0"))
        self.assertEqual(self.supervisor.asked, {
            "do": "pull", "source": "s3://b/a,b,etag=e,version=v,expand=never,endpoint=http://h:1,anon", "dir": path, "strict_pins": True})

    def test_a_path_is_absolute(self):
        self.ask([b"{}\n"], "./a.zip", "/x")
        self.assertEqual(self.supervisor.asked["source"], os.getcwd() + "/./a.zip")

    def test_error(self):
        with self.assertRaises(leat.Error) as raised:
            self.ask([b'{"error":"s3://b/k is not there"}\n'], "s3://b/k", "/x")
        self.assertEqual(str(raised.exception), "s3://b/k is not there")

    def test_supervisor_that_goes(self):
        for answer in ([], [b'{"dir":']):
            with self.assertRaisesRegex(leat.Error, "has gone"):
                self.ask(answer, "s3://b/k", "/x")


class OutsideOfARun(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = os.path.realpath(folder.name)
        self.program = os.path.join(self.folder, "leat")

    def play(self, script):
        with open(self.program, "w") as file:
            file.write("#!/bin/sh\n" + script)
        os.chmod(self.program, 0o755)

    def test_words_of_the_program(self):
        self.play(f'for word; do echo "$word"; done >{self.folder}/words\necho "leat: note" >&2\necho "{{}}"\n')
        with environment(LEAT=self.program), mock.patch("sys.stderr") as stderr:
            path = leat.download("s3://b/dir/", self.folder + "/x/../to here/", strict_pins=True, requester_pays=True)
        self.assertEqual(path, self.folder + "/to here")
        with open(self.folder + "/words") as file:
            self.assertEqual(file.read().splitlines(), ["dataset", "pull", "--json", "--strict-pins", "s3://b/dir/,requester_pays", path])
        self.assertIn("leat: note", "".join(call.args[0] for call in stderr.write.call_args_list))

    def test_on_the_path(self):
        self.play('echo "{}"\n')
        with environment(PATH=self.folder + ":/usr/bin:/bin"):
            self.assertEqual(leat.download("s3://b/k", "/x"), "/x")

    def test_a_socket_without_a_listener(self):
        self.play('echo "{}"\n')
        with environment(LEAT=self.program, LEAT_SOCK="@leat-nobody"):
            self.assertEqual(leat.download("s3://b/k", "/x"), "/x")

    def test_sentence(self):
        self.play('echo "leat: s3://b/k has no version \\"v\\"" >&2\nexit 1\n')
        with environment(LEAT=self.program), self.assertRaises(leat.Error) as raised:
            leat.download("s3://b/k", "/x", version="v")
        self.assertEqual(str(raised.exception), 's3://b/k has no version "v"')
        self.assertIsNone(raised.exception.__cause__)

    def test_killed_and_silent(self):
        for script, sentence in (("kill -9 $$\n", "signal 9"), ("exit 3\n", "without a word"), ("echo no\n", "without a word")):
            self.play(script)
            with environment(LEAT=self.program), self.assertRaisesRegex(leat.Error, sentence):
                leat.download("s3://b/k", "/x")

    def test_no_program(self):
        with environment(LEAT=self.program), self.assertRaisesRegex(leat.Error, "scripts/install") as raised:
            leat.download("s3://b/k", "/x")
        self.assertTrue(raised.exception.__suppress_context__)

    def test_words_that_cannot_be(self):
        for source, folder, options in (("s3://b/k", "/x", {"etag": "a,anon"}), ("s3://b/k", "/x", {"version": ""}), ("-q", "/x", {}), ("s3://b/\0", "/x", {})):
            with environment(LEAT=self.program), self.assertRaises(leat.Error) as raised:
                leat.download(source, folder, **options)
            self.assertNotIn("scripts/install", str(raised.exception))


if __name__ == "__main__":
    unittest.main()
