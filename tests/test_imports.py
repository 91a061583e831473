"""Who may import whom, what an import may do, and what running a target must not need."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.streaming.sound_files import write_wav

ROOT = Path(__file__).parents[1]

# A folder may import itself and the folders named here.
ALLOWED = {
    "kernels": set(),
    "engine": {"kernels"},
    "calibration": {"kernels", "engine"},
    "streaming": {"kernels", "engine"},
    "bench": {"kernels", "engine", "calibration", "streaming"},
}

# OpenCV and MediaPipe need GL libraries that a server has not; torch is a gigabyte.
FORBIDDEN_AT_RUN_TIME = ("torch", "cv2", "mediapipe", "jax", "tensorflow")
# What the extra `calibrate` brings besides: the base install runs a target without them.
NOT_IN_THE_BASE = ("skimage", "scipy", "PIL", "jinja2", "matplotlib")


def sources(*folders: str) -> list[Path]:
    found = [p for f in folders for p in sorted((ROOT / f).rglob("*.py"))]
    assert found
    return found


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, module) of every import, wherever it stands; `from a import b` gives a.b as well."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports inside the project are absolute"
            assert node.module is not None
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


@pytest.mark.parametrize("folder", ALLOWED)
def test_imports_go_one_way(folder: str) -> None:
    wrong = []
    for path in sources(folder):
        for line, module in imports(ast.parse(path.read_text())):
            parts = module.split(".")
            if parts[0] != "lipstream":
                continue
            if parts[1] not in ALLOWED[folder] | {folder}:
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {module}")
    assert not wrong, "\n".join(wrong)


# The rooms of engine/ in the order in which data flows: each may import those before it. The files
# at the root of engine/ besides pipeline are the floor: any room may import them, they import none.
ROOMS = ("watermark", "face", "networks", "target", "speech", "retrieval", "rendering", "pipeline")
MOST_ARROWS = 42


def room_of(module: str) -> str | None:
    """The room of `lipstream.engine.X...`; None for the floor and for other folders."""
    package, folder, *rest = (*module.split("."), "", "")
    return rest[0] if (package, folder) == ("lipstream", "engine") and rest[0] in ROOMS else None


def test_rooms_of_the_engine_import_downwards() -> None:
    """An arrow is one file that imports one other room."""
    arrows, wrong = set(), []
    for path, name in zip(sources("engine"), module_names("engine"), strict=True):
        own = room_of(name)
        for line, module in imports(ast.parse(path.read_text())):
            other = room_of(module)
            if other is None or other == own:
                continue
            arrows.add((path, own, other))
            if own is None or ROOMS.index(other) > ROOMS.index(own):
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {module}")
    pairs = {(own, other) for _, own, other in arrows}
    print(f"{len(arrows)} arrows between the rooms of engine/, {len(pairs)} pairs of rooms")
    assert not wrong, "\n".join(wrong)  # so there is no circle either
    assert len(arrows) <= MOST_ARROWS


@pytest.mark.parametrize("folder", ["kernels", "engine", "calibration", "streaming"])
def test_only_the_command_line_and_bench_import_training(folder: str) -> None:
    training = "lipstream.calibration.training"
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for path in sources(folder)
        if "training" not in path.relative_to(ROOT).parts
        for line, module in imports(ast.parse(path.read_text()))
        if module.startswith(training)
    ]
    assert not wrong, "\n".join(wrong)


def test_nobody_imports_the_folders_by_their_bare_names() -> None:
    wrong = []
    for path in sources(*ALLOWED, "lipstream", "tests"):
        for line, module in imports(ast.parse(path.read_text())):
            if module.split(".")[0] in ALLOWED:
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {module}")
    assert not wrong, "\n".join(wrong)


def test_libraries_print_nothing_by_themselves() -> None:
    wrong = []
    for path in sources(*ALLOWED):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id == "print"
            ):
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not wrong, "\n".join(wrong)


def python(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120
    )


def module_names(*folders: str) -> list[str]:
    names = []
    for path in sources(*folders):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[-1] == "__init__":
            parts = parts[:-1]
        names.append(".".join(("lipstream", *parts)))
    return names


def test_importing_lipstream_loads_no_library() -> None:
    heavy = ("numpy", "av", "openvino", "rich", "scipy", "typer")
    done = python(
        "import sys, lipstream\n"
        f"print([m for m in {heavy} if m in sys.modules], lipstream.__version__)"
    )
    assert done.stdout == "[] 0.1.0\n", done.stderr


def test_the_command_line_loads_no_numpy_before_it_computes() -> None:
    done = python("import sys, lipstream.cli\nprint('numpy' in sys.modules)")
    assert done.stdout == "False\n", done.stderr


def test_every_public_name_is_there() -> None:
    done = python(
        "import lipstream\nprint([n for n in lipstream.__all__ if not hasattr(lipstream, n)])"
    )
    assert done.stdout == "[]\n", done.stderr


def test_importing_does_nothing() -> None:
    """Every module at once, in a fresh interpreter: no output, no thread, no child process."""
    optional = ("torch", "onnx", "mediapipe", "cv2", "tensorrt", "pycuda")
    # Those that belong to a framework load it, and Pipecat greets.
    names = [n for n in module_names(*ALLOWED) if not n.endswith((".pipecat", ".livekit"))]
    done = python(
        "import importlib, sys, threading\n"
        f"for name in {names!r}:\n"
        "    try:\n"
        "        importlib.import_module(name)\n"
        "    except ModuleNotFoundError as error:\n"
        f"        assert error.name.split('.')[0] in {optional}, (name, error)\n"
        "assert threading.active_count() == 1, threading.enumerate()\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_running_a_target_needs_no_torch_no_opencv_no_mediapipe(
    target: Path, tmp_path: Path
) -> None:
    """A dub and an expression stream, with the three made impossible to import."""
    sound = write_wav(tmp_path / "speech.wav", np.zeros(16_000, np.float32))
    done = python(
        "import importlib, sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] in {FORBIDDEN_AT_RUN_TIME + NOT_IN_THE_BASE}:\n"
        "            raise AssertionError('imported: ' + name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "import lipstream.doctor, lipstream.streaming.present, lipstream.streaming.publish\n"
        "import lipstream.streaming.server.app, lipstream.streaming.workers.process\n"
        "from lipstream.cli import run\n"
        f"code = run(['dub', {str(target)!r}, {str(sound)!r}, '-o', {str(tmp_path / 'o.mp4')!r}])\n"
        f"code += run(['express', {str(sound)!r}, '-o', {str(tmp_path / 'o.jsonl')!r}])\n"
        "sys.exit(code)\n"
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "o.mp4").is_file()
    assert (tmp_path / "o.jsonl").is_file()


def test_nothing_is_told_to_anyone(tmp_path: Path) -> None:
    """OpenVINO's telemetry would leave its identity in the home folder, and call home with it."""
    sound = write_wav(tmp_path / "speech.wav", np.zeros(8_000, np.float32))
    home = tmp_path / "home"
    home.mkdir()
    for command in (["express", str(sound)], ["doctor"]):
        done = subprocess.run(
            [sys.executable, "-m", "lipstream", *command],
            capture_output=True,
            text=True,
            env={**os.environ, "HOME": str(home), "XDG_CACHE_HOME": str(tmp_path / "cache")},
        )
        assert done.returncode == 0, done.stderr
    assert list(home.iterdir()) == []
