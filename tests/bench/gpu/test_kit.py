"""What travels to a machine with a card: enough, and no more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from lipstream.bench.gpu.kit import MOST_BYTES, copy_package


def test_the_package_that_travels_runs_by_itself(tmp_path: Path) -> None:
    kit, out = tmp_path / "kit", tmp_path / "out"
    copy_package(kit)
    files = [path for path in kit.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < MOST_BYTES // 4, "pycuda comes on top"
    assert not [path for path in files if path.is_symlink() or "streaming" in path.parts]
    assert (kit / "lipstream" / "engine" / "weights" / "encoder.safetensors").is_file()
    out.mkdir()
    where = "import lipstream.bench.gpu as g, sys; sys.stdout.write(g.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(kit)}
    found = subprocess.run(
        [sys.executable, "-c", where], env=environment, capture_output=True, text=True, cwd=out
    )
    assert found.stdout.startswith(str(kit)), "not the checkout's"
    done = subprocess.run(
        [kit / "run", "--device", "host", "--only", "kernels", "-o", str(out)],
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((out / "gpu.json").read_text())["passed"]
