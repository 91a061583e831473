"""Thirty clips, while their workers are killed: the files are those of single runs."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lipstream.streaming.batch.journal import NAME
from lipstream.streaming.files.dub import DubOptions, dub
from tests.streaming.sound_files import write_wav

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/task").is_dir(), reason="finds the workers in /proc"
)

CLIPS = 30
MANIFEST_BOX = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")  # C2PA 2.2, A.5.1
# The shortest way through the whole command.
OPTIONS = ("--profile", "low", "--background", "sequential", "--renderer", "none")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(0)
    for number in range(CLIPS):
        noise = 0.2 * rng.standard_normal(3_200).astype(np.float32)
        write_wav(folder / f"{number:02}.wav", noise)
    return folder


@pytest.fixture(scope="module")
def single(target: Path, clips: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """By name: the files of single runs, without their manifests."""
    folder = tmp_path_factory.mktemp("single")
    options = DubOptions("low", background="sequential", renderer="none")
    for clip in sorted(clips.iterdir()):
        dub(target, clip, folder / f"{clip.stem}.mp4", options)
    return {path.name: without_manifest(path) for path in folder.iterdir()}


def without_manifest(video: Path) -> bytes:
    """The boxes of an MP4 file but that of C2PA, whose ids, salts and signature are random."""
    data, kept, at = video.read_bytes(), [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        assert size >= 8
        box = data[at : at + size]
        if not (box[4:8] == b"uuid" and box[8:24] == MANIFEST_BOX):
            kept.append(box)
        at += size
    assert sum(map(len, kept)) < len(data)
    return b"".join(kept)


def differences(one: bytes, other: bytes) -> tuple[int, int, int]:
    """How many bytes differ, where the first does, and how much longer the other is."""
    at = [k for k, (a, b) in enumerate(zip(one, other, strict=False)) if a != b]
    return len(at), at[0] if at else min(len(one), len(other)), len(other) - len(one)


@contextlib.contextmanager
def two_nodes() -> Iterator[list[str]]:
    """The option `--ray` for a cluster of two node processes of one core each."""
    from ray.cluster_utils import Cluster

    memory = {"num_cpus": 1, "object_store_memory": 80_000_000}
    cluster = Cluster(True, head_node_args={**memory, "include_dashboard": False})
    try:
        cluster.add_node(**memory)
        yield ["--ray", cluster.address]
    finally:
        cluster.shutdown()


def descendants(pid: int) -> Iterator[tuple[int, bytes]]:
    """(pid, command line) of every process below `pid`."""
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with contextlib.suppress(OSError):
            for child in map(int, (task / "children").read_text().split()):
                yield child, Path(f"/proc/{child}/cmdline").read_bytes()
                yield from descendants(child)


def kill_workers() -> int:
    """All that perform a job, on this machine or of a cluster that this process has started."""
    killed = 0
    for pid, line in list(descendants(os.getpid())):
        if line.startswith(b"ray::perform") or b"multiprocessing.spawn" in line:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                killed += 1
    return killed


def done(folder: Path) -> int:
    journal = folder / NAME
    return journal.read_text().count('"done"') if journal.is_file() else 0


@pytest.mark.parametrize("where", ["local", "ray"])
def test_thirty_clips_whose_workers_are_killed(
    target: Path, clips: Path, single: dict[str, bytes], tmp_path: Path, where: str
) -> None:
    if where == "ray" and importlib.util.find_spec("ray") is None:
        pytest.skip("needs Ray: pip install -e '.[ray]'")
    out = tmp_path / "out"
    with two_nodes() if where == "ray" else contextlib.nullcontext(["--jobs", "2"]) as options:
        command = ["dub", target, clips, "-o", out, *OPTIONS, "--retries", "6", "--json", *options]
        process = subprocess.Popen(
            [sys.executable, "-m", "lipstream", *map(str, command)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        killed = 0
        try:
            for count in (3, 9, 15):
                deadline_s = time.monotonic() + 120
                while done(out) < count and process.poll() is None:
                    assert time.monotonic() < deadline_s
                    time.sleep(0.01)
                killed += kill_workers()
            stdout, stderr = process.communicate(timeout=300)
        finally:
            process.kill()
    assert (process.returncode, stderr) == (0, "")
    *lines, summary = [json.loads(line) for line in stdout.splitlines()]
    assert summary["done"] == summary["items"] == CLIPS
    assert killed >= 3
    assert sum(line["attempts"] for line in lines) > CLIPS  # what was lost was tried again
    # No incomplete file is left, and each is the one of a single run.
    assert {path.name for path in out.iterdir()} == {NAME, *single}
    other = {
        name: differences(data, found)
        for name, data in single.items()
        if (found := without_manifest(out / name)) != data
    }
    assert not other
