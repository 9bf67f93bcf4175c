"""Where the cases of bench.py run: servers, folders, and programs that are started, timed and ended."""
import contextlib
import itertools
import json
import mmap
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request

import s3

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
MIB = 1 << 20


class Failed(Exception):
    """A program did not do what the case needs; the row says so and the bench goes on."""


class Usage:
    """What a run of a program took: wall and CPU seconds, with its children, and its reader's own seconds."""

    def __init__(self, wall, cpu, peak_mib=0.0, reads=None):
        self.wall, self.cpu, self.peak_mib = wall, cpu, peak_mib
        self.reads = reads or []  # the readers' reports, in order

    def as_dict(self):
        return {"wall": self.wall, "cpu": self.cpu, "peak_mib": self.peak_mib, "reads": self.reads}


class MemoryWatch(threading.Thread):
    """The peak of RssAnon + RssShmem, summed over the processes of one program that belong to one home."""

    def __init__(self, program, home):
        super().__init__(daemon=True)
        self.program, self.mark = str(program), f"LEAT_HOME={home}\0".encode()
        self.peak_kib, self.known, self.over = 0, {}, threading.Event()

    def _ours(self, pid):
        try:
            if os.readlink(f"/proc/{pid}/exe") != self.program:  # asked each time: the job was a fork of ours before its exec
                return False
            if pid not in self.known:
                self.known[pid] = self.mark in pathlib.Path(f"/proc/{pid}/environ").read_bytes()
            return self.known[pid]
        except OSError:
            return False

    def run(self):
        while not self.over.wait(0.1):
            total = 0
            for pid in filter(str.isdigit, os.listdir("/proc")):
                if not self._ours(pid):
                    continue
                with contextlib.suppress(OSError):
                    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
                        if line.startswith(("RssAnon", "RssShmem")):
                            total += int(line.split()[1])
            self.peak_kib = max(self.peak_kib, total)


@contextlib.contextmanager
def held_memory():
    """Linux gives free memory of a virtual machine back to its host where the host asks for that, and getting a page again
    costs several times what any program here does with it. Meanwhile it does not, and the machine has its memory: as on
    real hardware, and on most machines that one rents."""
    order = pathlib.Path("/sys/module/page_reporting/parameters/page_reporting_order")
    before = order.read_text() if order.exists() else None
    if before is not None:
        order.write_text("11\n")  # larger than any block of free memory
    try:
        available = next(int(line.split()[1]) << 10 for line in pathlib.Path("/proc/meminfo").read_text().splitlines()
                         if line.startswith("MemAvailable"))
        with mmap.mmap(-1, available * 3 // 4) as memory:
            for at in range(0, len(memory), 4096):
                memory[at] = 1
        yield
    finally:
        if before is not None:
            order.write_text(before)


class Lab:
    def __init__(self, folder, leat, reader, fault_proxy, keep):
        self.folder, self.leat, self.reader, self.fault_proxy, self.keep = folder, leat, reader, fault_proxy, keep
        self.server = folder / "server"
        self.work = folder / "work"
        self.endpoint = None  # until the server is started
        self.running = []
        self.proxies = {}
        self.numbers = itertools.count()
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True)

    # Servers.

    def start_server(self):
        script = ROOT / "tests/servers/ceph"
        if not (self.server / "env").exists() or not self._answers():
            subprocess.run([script, "stop", self.server], check=True, stdout=subprocess.DEVNULL)
            subprocess.run([script, "start", self.server], check=True, stdout=subprocess.DEVNULL)
        self._read_server()

    def _read_server(self):
        text = (self.server / "env").read_text()
        self.vars = dict(line.removeprefix("export ").split("=", 1) for line in text.splitlines())
        self.endpoint = self.vars["LEAT_TEST_S3_ENDPOINT"]
        self.access_key = self.vars["LEAT_TEST_S3_ACCESS_KEY"]
        self.secret_key = self.vars["LEAT_TEST_S3_SECRET_KEY"]

    def _answers(self):
        try:
            self._read_server()
            urllib.request.urlopen(self.endpoint, timeout=5).close()
            return True
        except OSError:
            return False

    def close(self):
        for process in self.running:
            process.terminate()
        for process, _, _ in self.proxies.values():
            process.terminate()
        for process in self.running:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
        for line in pathlib.Path("/proc/self/mounts").read_text().splitlines():
            if line.split()[1].startswith(str(self.work)):
                subprocess.run(["/usr/bin/umount", "-l", line.split()[1]], check=False)
        shutil.rmtree(self.work, ignore_errors=True)
        if not self.keep:
            subprocess.run([ROOT / "tests/servers/ceph", "stop", self.server], check=False)

    @contextlib.contextmanager
    def _beside(self, name):
        """Another of the test servers, for as long as it is needed; yields its variables."""
        script, folder = ROOT / f"tests/servers/{name}", self.work / f"server-{name}"
        subprocess.run([script, "start", folder], check=True, stdout=subprocess.DEVNULL)
        try:
            lines = (folder / "env").read_text().splitlines()
            yield dict(line.removeprefix("export ").split("=", 1) for line in lines)
        finally:
            subprocess.run([script, "stop", folder], check=False)

    @contextlib.contextmanager
    def swift(self):
        """A remote [swift] in rclone.conf."""
        with self._beside("swift") as variables:
            options = {"type": "swift", "auth": variables["LEAT_TEST_SWIFT_AUTH_URL"], "region": variables["LEAT_TEST_SWIFT_REGION"],
                       "application_credential_id": variables["LEAT_TEST_SWIFT_CREDENTIAL_ID"],
                       "application_credential_secret": variables["LEAT_TEST_SWIFT_CREDENTIAL_SECRET"]}
            conf = "[swift]\n" + "".join(f"{key} = {value}\n" for key, value in options.items())
            (self.work / "rclone.conf").write_text(conf)
            yield

    @contextlib.contextmanager
    def nginx(self):
        """The origin of a web server, and the folder that it serves."""
        with self._beside("nginx") as variables:
            yield variables["LEAT_TEST_HTTP_ORIGIN"], pathlib.Path(variables["LEAT_TEST_HTTP_ROOT"])

    @staticmethod
    def requests(root):
        """What the web server with that folder was asked since this was called last: (requests, bytes of files that it sent)."""
        log = root.parent / "log/access.log"
        lines = log.read_text().splitlines()
        with open(log, "r+") as f:
            f.truncate(0)
        return len(lines), sum(int(line.split('"')[2].split()[1]) for line in lines)

    @contextlib.contextmanager
    def disk(self, gib):
        """A folder on a fresh file system: ext4 skips inodes that were freed in the last minutes one by one, and so files that
        are made take several times as long for as long as anybody on the same disk deletes. (Not root: an ordinary folder.)"""
        folder, image = self.fresh("disk"), self.work / "disk.img"
        if os.geteuid() != 0:
            yield folder
            return
        with open(image, "wb") as f:
            os.posix_fallocate(f.fileno(), 0, gib << 30)
        subprocess.run(["/usr/sbin/mkfs.ext4", "-q", "-F", image], check=True)
        subprocess.run(["/usr/bin/mount", "-o", "loop", image, folder], check=True)
        try:
            yield folder
        finally:
            for _ in range(100):  # what has just been made is on its way to the disk
                if subprocess.run(["/usr/bin/umount", folder], check=False, stderr=subprocess.DEVNULL).returncode == 0:
                    break
                time.sleep(0.2)
            image.unlink()

    def proxy(self, rules=""):
        """The endpoint of a fault proxy in front of the server, and its control port's address."""
        if rules not in self.proxies:
            process = subprocess.Popen([self.fault_proxy, self.endpoint.removeprefix("http://")],
                                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
            port, control = process.stdout.readline().split()
            self.proxies[rules] = process, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{control}"
            self.control(f"http://127.0.0.1:{control}", "PUT", "/rules", rules)
        return self.proxies[rules][1:]

    @staticmethod
    def control(address, method, path, body=""):
        request = urllib.request.Request(address + path, method=method, data=body.encode() or None)
        with urllib.request.urlopen(request) as answer:
            return answer.read().decode()

    # Data.

    def fill(self, name, make):
        """Runs `make` once for each life of the server."""
        mark = self.server / f"filled-{name}"
        if not mark.exists():
            print(f"bench: filling {name} ...", file=sys.stderr, flush=True)
            make()
            mark.touch()

    def put_keys(self, bucket, keys, body=b""):
        s3.put_all((self.endpoint, self.access_key, self.secret_key), bucket, keys, body)

    def upload(self, source, target):
        subprocess.run(["/usr/bin/rclone", "copy" if source.is_dir() else "copyto", "--transfers", "16", source,
                        f":s3:{target}"], check=True, env=self.env())

    def random_file(self, path, size):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as f:
            for _ in range(0, size, MIB):
                f.write(os.urandom(min(MIB, size - f.tell())))

    # Programs.

    def env(self, endpoint=None, home=None):
        endpoint = endpoint or self.endpoint
        env = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "LEAT_", "RCLONE_")) and "proxy" not in k.lower()}
        env.update(HOME=str(self.work), AWS_EC2_METADATA_DISABLED="true", RCLONE_CONFIG=str(self.work / "rclone.conf"), RCLONE_LOG_LEVEL="ERROR")
        if endpoint:
            env.update(
                AWS_ACCESS_KEY_ID=self.access_key, AWS_SECRET_ACCESS_KEY=self.secret_key, AWS_REGION="us-east-1", AWS_ENDPOINT_URL=endpoint,
                RCLONE_S3_PROVIDER="Ceph", RCLONE_S3_ENV_AUTH="true", RCLONE_S3_ENDPOINT=endpoint)
        if home:
            env["LEAT_HOME"] = str(home)
        return env

    def fresh(self, name):
        """An empty folder on the disk that the caches use."""
        path = self.work / name
        # ext4 looks for inodes among those that were freed in the last minutes, and skips each: many files that are deleted
        # between two turns make both several times slower. They stay until the end.
        if sum(len(files) for _, _, files in os.walk(path)) > 500:
            path.rename(self.work / f"old-{next(self.numbers)}")
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        return path

    @staticmethod
    def drop_page_cache():
        os.sync()
        with contextlib.suppress(PermissionError), open("/proc/sys/vm/drop_caches", "w") as f:
            f.write("3")

    @staticmethod
    def read_into_page_cache(folder):
        """So that no contender begins with memory that another's turn has emptied."""
        for path in folder.rglob("*"):
            if path.is_file():
                path.read_bytes()

    def time(self, command, env, watch=None, cwd=None):
        """Runs a command to its end; its output's JSON lines are the readers' reports."""
        if watch:
            watch.start()
        begin = time.monotonic()
        process = subprocess.Popen([str(c) for c in command], env=env, cwd=cwd, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.running.append(process)
        errors = []
        drain = threading.Thread(target=lambda: errors.append(process.stderr.read()))
        drain.start()
        output = process.stdout.read()
        _, status, rusage = os.wait4(process.pid, 0)
        wall = time.monotonic() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        drain.join()
        self.running.remove(process)
        if watch:
            watch.over.set()
            watch.join()
        if process.returncode != 0:
            raise Failed(f"{pathlib.Path(command[0]).name} ended with {process.returncode}: {''.join(errors).strip()[-300:]}")
        reads = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
        return Usage(wall, rusage.ru_utime + rusage.ru_stime, watch.peak_kib / 1024 if watch else 0.0, reads)

    def run_leat(self, home, mounts, job, endpoint=None, options=()):
        """`leat run` of a job with the mounts TARGET=SOURCE."""
        if not self.leat.exists():
            raise Failed(f"{self.leat} is not built")
        command = [self.leat, "run", "--quiet", *options]
        for mount in mounts:
            command += ["-m", mount]
        return self.time([*command, "--", *job], self.env(endpoint, home), MemoryWatch(self.leat, home))

    def pull(self, home, source, folder, memory):
        """`leat dataset pull` with so many MiB for data in flight."""
        return self.time([self.leat, "dataset", "pull", "--quiet", source, folder],
                         self.env(home=home) | {"LEAT_MEMORY": f"{memory}Mi"}, MemoryWatch(self.leat, home))

    def shell(self, script):
        return self.time(["/bin/bash", "-o", "pipefail", "-c", script], self.env())

    def move(self, home, arguments, endpoint=None):
        """`leat cp`, `sync` or `check`."""
        return self.time([self.leat, *arguments, "--quiet"], self.env(endpoint, home), MemoryWatch(self.leat, home))

    def rclone(self, arguments, endpoint=None):
        """With the words that its users give it for many files."""
        return self.time(["/usr/bin/rclone", *arguments, "--transfers", "32", "--checkers", "16", "--fast-list"], self.env(endpoint))

    def read_native(self, *arguments):
        return self.time([self.reader, *arguments], self.env())

    @contextlib.contextmanager
    def mounted(self, name, command, mountpoint, env):
        """A peer's FUSE daemon in the foreground; yields a Usage whose CPU is known when the mount is gone."""
        usage = Usage(0, 0)
        begin = time.monotonic()
        process = subprocess.Popen([str(c) for c in command], env=env, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.running.append(process)
        try:
            while not os.path.ismount(mountpoint):
                if process.poll() is not None or time.monotonic() - begin > 30:
                    process.kill()
                    raise Failed(f"{name} did not mount: {process.communicate()[1].decode().strip()[-300:]}")
                time.sleep(0.01)
            yield usage
        finally:
            self.running.remove(process)
            if process.returncode is None:
                subprocess.run(["/usr/bin/umount", mountpoint], check=False)
                os.kill(process.pid, signal.SIGTERM)  # send_signal() would reap it, and its usage be lost
                _, _, rusage = os.wait4(process.pid, 0)
                process.returncode = 0
                usage.wall = time.monotonic() - begin
                usage.cpu = rusage.ru_utime + rusage.ru_stime
                process.stderr.close()

    def _read_mounted(self, name, command, mountpoint, env, paths, options):
        with self.mounted(name, command, mountpoint, env) as daemon:
            read = self.time([self.reader, *options, *(mountpoint / p for p in paths)], env)
        return Usage(daemon.wall, daemon.cpu + read.cpu, 0, read.reads)

    def read_s3fs(self, bucket, paths, options=(), endpoint=None):
        """The paths of a bucket through s3fs with a fresh cache."""
        mountpoint, cache = self.fresh("s3fs-mount"), self.fresh("s3fs-cache")
        secret = self.work / "s3fs-secret"
        secret.touch(0o600)
        secret.write_text(f"{self.access_key}:{self.secret_key}\n")
        command = ["/usr/bin/s3fs", bucket, mountpoint, "-f", "-o", f"url={endpoint or self.endpoint}", "-o",
                   "use_path_request_style", "-o", f"passwd_file={secret}", "-o", f"use_cache={cache}", "-o", "ro"]
        return self._read_mounted("s3fs", command, mountpoint, self.env(), paths, options)

    def read_rclone(self, bucket, paths, options=(), endpoint=None):
        """The same through rclone mount with --vfs-cache-mode full."""
        mountpoint, cache = self.fresh("rclone-mount"), self.fresh("rclone-cache")
        command = ["/usr/bin/rclone", "mount", f":s3:{bucket}", mountpoint, "--read-only", "--vfs-cache-mode", "full",
                   "--cache-dir", cache]
        return self._read_mounted("rclone mount", command, mountpoint, self.env(endpoint), paths, options)

    def time_rclone_copy(self, source, endpoint=None):
        target = self.fresh("rclone-copy")
        return self.time(["/usr/bin/rclone", "copy", f":s3:{source}", target], self.env(endpoint))
