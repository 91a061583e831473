"""What `--ray` says where it cannot work, and that nothing else needs Ray."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed")
pytest.importorskip("aiortc", reason="aiortc is not installed")

_REFUSE_RAY = (
    "import sys\n"
    "class Refuse:\n"
    "    def find_spec(self, name, path=None, target=None):\n"
    "        if name.split('.')[0] == 'ray':\n"
    "            raise ImportError('no ray')\n"
    "sys.meta_path.insert(0, Refuse())\n"
    "from lipstream.engine import extras\n"
    "extras.MODULES['ray'] = ('no_such_ray',)\n"
    "from lipstream.cli import run\n"
)


def test_ray_is_imported_for_the_cluster_alone(target: Path) -> None:
    """The command with `--ray` names the extra in one line; without, it gets as far as its port."""
    serve = f"'serve', '--targets', {str(target)!r}"
    program = (
        f"{_REFUSE_RAY}"
        f"code = run([{serve}, '--ray', 'auto', '--token', 'a-secret-token'])\n"
        f"other = [{serve}, '--renderer', 'none', '--host', '192.0.2.77']\n"
        "code += run(other)\n"
        "code += run([*other, '--token', 'a-secret-token'])\n"
        "import lipstream.streaming.cluster.controller, lipstream.streaming.cluster.ingress\n"
        "import lipstream.streaming.cluster.call_actor, lipstream.streaming.cluster.serve\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    first, second, third = done.stderr.splitlines()
    assert first.startswith("lipstream: --ray needs no_such_ray, which is not installed: ")
    assert "needs --token" in second
    assert third.startswith("lipstream: cannot listen on 192.0.2.77:8080")
    assert done.returncode == 6


@pytest.mark.parametrize(
    "options, reason",
    [
        (["--drain", "10.0.0.1"], "--drain NODE needs --ray"),
        (["--ray", "auto"], "needs --token"),
        (["--ray", "auto", "--token", "a-secret-token", "--call-cpus", "0"], "--call-cpus 0"),
        (["--ray", "auto", "--token", "a-secret-token", "--call-gpus", "7"], "--call-gpus 7"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(
    options: list[str], reason: str, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from lipstream.cli import run

    assert run(["serve", "--targets", str(target), *options]) == 2
    said = capsys.readouterr().err
    assert reason in said


def test_a_cluster_that_is_not_there_is_one_line(
    target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'lipstream[ray]'")
    from lipstream.cli import run

    for address, reason in (
        ("127.0.0.1:9", "no cluster answers"),
        ("ray://127.0.0.1:9", "expected auto, or HOST:PORT"),
        ("127.0.0.1:99999", "no cluster answers"),
    ):
        options = ["--ray", address, "--token", "a-secret-token"]
        assert run(["serve", "--targets", str(target), *options]) == 2
        assert capsys.readouterr().err.startswith(f"lipstream: --ray {address}: {reason}")
