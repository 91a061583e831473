"""The wheel: built, installed into a clean environment, and run from another folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAX_WHEEL_BYTES = 20_000_000


def copy_of_the_project(folder: Path) -> Path:
    """The files that git tracks or would track, links as links: a build needs nothing else."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in filter(None, listed.stdout.split("\0")):
        source, copy = ROOT / name, folder / name
        if not os.path.lexists(source):
            continue
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, copy, follow_symlinks=False)
    return folder


def build_wheel(folder: Path, **environment: str) -> Path:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
        + ["--wheel-dir", str(folder / "dist"), "."],
        cwd=copy_of_the_project(folder / "source"),
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = (folder / "dist").glob("*.whl")
    return wheel


def install(wheel: Path, folder: Path) -> Path:
    """A new environment with the wheel, and with the dependencies of the environment of the tests.

    The site-packages of the tests are on its path, but their .pth files are not read. So the
    editable install that the tests use is not visible there.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps"]
        + ["--no-compile", "--no-warn-script-location", str(wheel)],
        check=True,
    )
    (site,) = (folder / "lib").glob("python*/site-packages")
    dependencies = [path for path in sys.path if path.endswith("site-packages")]
    (site / "dependencies.pth").write_text("\n".join(dependencies) + "\n")
    return folder / "bin" / "lipstream"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def command(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(wheel, tmp_path_factory.mktemp("clean") / "venv")


def test_wheel_holds_what_a_run_needs_and_no_more(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    for path in sorted(ROOT.glob("*/**/*.py")):
        relative = path.relative_to(ROOT)
        if relative.parts[0] in ("engine", "kernels", "calibration", "streaming", "bench"):
            assert f"lipstream/{relative}" in names
    for path in (ROOT / "engine" / "weights").iterdir():
        if path.suffix in (".safetensors", ".onnx"):
            assert f"lipstream/engine/weights/{path.name}" in names
    server = ROOT / "streaming" / "server"
    for path in (server / "openapi.json", *(server / "web").iterdir()):
        assert f"lipstream/{path.relative_to(ROOT)}" in names
    assert "lipstream/py.typed" in names
    assert not [n for n in names if n.startswith(("tests/", "examples/", "docs/", "engine/"))]
    assert wheel.stat().st_size < MAX_WHEEL_BYTES


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
def test_wheel_holds_compiled_kernels(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert "lipstream/kernels/_cpu.so" in archive.namelist()


def test_install_works_without_a_compiler(tmp_path: Path) -> None:
    without = build_wheel(tmp_path, CC="/bin/false", CXX="/bin/false")
    with zipfile.ZipFile(without) as archive:
        names = archive.namelist()
    assert "lipstream/kernels/_cpu.so" not in names
    command = install(without, tmp_path / "venv")
    done = subprocess.run([command, "doctor", "--json"], cwd=tmp_path, capture_output=True)
    checks = {c["name"]: c for c in json.loads(done.stdout)["checks"]}
    assert checks["kernels"]["status"] == "slow"
    assert "g++" in checks["kernels"]["remedy"]


def test_installed_demo_runs_from_another_folder(command: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [command, "demo", "-o", "demo.mp4", "--json"],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if not k.startswith("PYTHON")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["frames"] > 50
    assert (tmp_path / "demo.mp4").stat().st_size > 10_000
    where = subprocess.run(
        [command.parent / "python", "-c", "import lipstream; print(lipstream.__file__)"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert where.stdout.startswith(str(command.parents[1]))
