"""A Ray cluster of this machine: each node has its own processes, resources and address."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from lipstream.engine.target.consent import Consent
from tests.streaming.ports import free_port
from tests.streaming.waiting import eventually_in_thread

ROOT = Path(__file__).parents[3]
TOKEN = "a-secret-token"
STARTS_S = 120.0  # on a machine whose cores are busy with other work
CPUS = 4


class RayCluster:
    """A head, up to one more node at 127.0.0.2, and the command that serves on them."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ls-ray-", dir="/tmp"))  # short: socket names
        self.address = f"127.0.0.1:{free_port()}"
        self.port = free_port()  # of the ingresses, each on its node's address
        self.lines: list[str] = []
        self._processes: list[subprocess.Popen[str]] = []
        self._second: subprocess.Popen[str] | None = None
        self._command: subprocess.Popen[str] | None = None
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_DISABLE_DOCKER_CPU_WARNING": "1",
        }
        port = self.address.partition(":")[2]
        self._start("--head", "--port", port, "--temp-dir", str(self.folder / "r"),
                    "--node-ip-address=127.0.0.1", "--include-dashboard=false",
                    "--ray-client-server-port", str(free_port()))  # fmt: skip

    def _start(self, *options: str) -> subprocess.Popen[str]:
        with (self.folder / f"node-{len(self._processes)}.log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "ray.scripts.scripts", "start", "--block",
                 "--disable-usage-stats", "--num-cpus", str(CPUS),
                 "--dashboard-agent-listen-port=0", *options],
                env=self.environment, stdin=subprocess.DEVNULL, cwd=self.folder,
                stdout=log, stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip
        self._processes.append(process)
        return process

    def serve(self) -> None:
        targets = self.folder / "targets"
        (targets / "face.target").mkdir(parents=True)
        consent = Consent.stated("nobody; today; tests").bound({})
        info = {"kind": "video", "width": 64, "height": 48, "fps": "25", "frames": 25,
                "duration_s": 1.0, "files": {}, **consent}  # fmt: skip
        (targets / "face.target" / "target.json").write_text(json.dumps(info))
        program = str(ROOT / "tests/streaming/cluster/serve_fake.py")
        eventually_in_thread(self._head_is_up, STARTS_S)
        with (self.folder / "serve.log").open("w") as log:
            command = subprocess.Popen(
                [sys.executable, program, self.address, str(targets), TOKEN, str(self.port)],
                env=self.environment, stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
        self._command = command
        self._reader = threading.Thread(target=self._read, args=(command,), daemon=True)
        self._reader.start()
        eventually_in_thread(lambda: self.urls or command.poll() is not None, STARTS_S)
        assert self.urls, (self.folder / "serve.log").read_text()

    def _head_is_up(self) -> bool:
        assert self._processes[0].poll() is None, (self.folder / "node-0.log").read_text()
        return "Ray runtime started" in (self.folder / "node-0.log").read_text()

    def _read(self, command: subprocess.Popen[str]) -> None:
        assert command.stdout is not None
        with command.stdout as lines:
            for line in lines:
                self.lines.append(line.strip())

    @property
    def urls(self) -> list[str]:
        """Where calls are taken, by the lines of the command."""
        return [found[1] for line in self.lines if (found := re.search(r"on (http\S+)/ ", line))]

    def add_node(self) -> None:
        """Start the second node; returns at once."""
        if self._second is None or self._second.poll() is not None:
            self._second = self._start("--address", self.address, "--node-ip-address=127.0.0.2")

    def kill_node(self) -> None:
        """All processes of the second node at once, as when its machine loses power."""
        if self._second is not None and self._second.poll() is None:
            kill_all(self._second)
            # The next one says anew where it takes calls.
            self.lines = [line for line in self.lines if "//127.0.0.2:" not in line]

    def kill_actor(self, kind: str) -> None:
        """The processes of the first node that hold an actor of this class."""
        found = [pid for pid in descendants(self._processes[0].pid) if _title(pid).startswith(
            f"ray::{kind}")]  # fmt: skip
        assert found, kind
        for pid in found:
            os.kill(pid, signal.SIGKILL)

    def logs(self) -> str:
        """What all processes of the cluster have written."""
        found = sorted((self.folder / "r").glob("session_2*/logs/worker-*.err"))
        return "\n".join(path.read_text(errors="replace") for path in found)

    def close(self) -> None:
        if self._command is not None:
            self._command.terminate()
            self._command.wait(30)
            self._reader.join()
        for process in self._processes:
            kill_all(process)
        shutil.rmtree(self.folder, ignore_errors=True)


def kill_all(process: subprocess.Popen[str]) -> None:
    """A process and all below it, at once."""
    doomed = [process.pid, *descendants(process.pid)]
    for how in (signal.SIGSTOP, signal.SIGKILL):
        for pid in doomed:
            try:
                os.kill(pid, how)
            except ProcessLookupError:
                continue
    process.wait()


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except OSError:  # it has ended
        return ""


def descendants(pid: int) -> list[int]:
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text()
        except OSError:
            continue
        parents[int(path.parent.name)] = int(text.rpartition(")")[2].split()[1])
    found, todo = [], [pid]
    while todo:
        above = todo.pop()
        children = [child for child, parent in parents.items() if parent == above]
        found += children
        todo += children
    return found
