"""Phases that end, fail, crash and hang; and the verdict over what they left."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from lipstream.bench.gpu import phases, runner
from lipstream.bench.gpu.limited import run_limited
from lipstream.bench.gpu.phases import PHASES, Context
from lipstream.bench.gpu.runner import Plan, prove, run_phase
from lipstream.bench.gpu.verdict import judge, table
from lipstream.engine.networks.gpus import Gpu, Gpus
from tests.streaming.waiting import eventually_in_thread

WRITES = "import json, sys; open(sys.argv[1], 'w').write(json.dumps({'result': {'wrong': []}}))"


def python(program: str, *arguments: object) -> list[str]:
    return [sys.executable, "-c", program, *map(str, arguments)]


def test_a_phase_that_fails_costs_no_other(tmp_path: Path, capsys: Any) -> None:
    plan = Plan("host", tmp_path, 60, 1, ("kernels", "ptx", "times", "networks", "stage"))
    kept: list[dict[str, Any]] = []
    look = f"import json; print(json.load(open({str(tmp_path / 'gpu.json')!r}))['phases'].keys())"
    commands = {
        "kernels": python(WRITES, tmp_path / "phase_kernels.json"),
        "ptx": python("import os; os.abort()"),
        "times": python(look),
        "networks": python("raise SystemExit('no such card')"),
        "stage": python(WRITES, tmp_path / "phase_stage.json"),
    }
    assert not prove(plan, commands)
    report = json.loads((tmp_path / "gpu.json").read_text())
    found = report["phases"]
    assert found["kernels"]["result"] == found["stage"]["result"] == {"wrong": []}
    assert "status -6" in found["ptx"]["error"]
    assert "'kernels', 'ptx'" in found["times"]["error"], "written after each phase"
    assert "no such card" in found["networks"]["error"]
    assert not report["passed"] and not kept
    assert "FAILS" in capsys.readouterr().out


def test_a_phase_that_hangs_is_stopped_with_what_it_started(tmp_path: Path) -> None:
    program = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "open(sys.argv[1], 'w').write(str(child.pid))\n"
        "time.sleep(60)\n"
    )
    commands = {
        "kernels": python(program, tmp_path / "pid"),
        "stage": python(WRITES, tmp_path / "phase_stage.json"),
    }
    begin = time.monotonic()
    assert not prove(Plan("host", tmp_path, 3, 1, ("kernels", "stage")), commands)
    assert time.monotonic() - begin < 20
    found = json.loads((tmp_path / "gpu.json").read_text())["phases"]
    assert "was stopped after 3 s" in found["kernels"]["error"]
    assert found["stage"]["error"] == "no time was left"
    assert ends(int((tmp_path / "pid").read_text())), "what the phase started goes on"


def ends(pid: int) -> bool:
    """Within 5 s."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


LIMITED = (
    "import sys\n"
    "from pathlib import Path\n"
    "from lipstream.bench.gpu.limited import run_limited\n"
    "child = 'import os, sys, time; open(sys.argv[1], \"w\").write(str(os.getpid())); '"
    " 'time.sleep(60)'\n"
    "folder = Path(sys.argv[1])\n"
    "run_limited([sys.executable, '-c', child, folder / 'pid'], 60, folder / 'inner.log')\n"
)


def test_a_proof_that_is_terminated_leaves_no_phase(tmp_path: Path) -> None:
    """As by `timeout`, which ends a run that took too long: the next one needs the card."""
    process = subprocess.Popen(python(LIMITED, tmp_path))
    eventually_in_thread(lambda: (tmp_path / "pid").is_file() and (tmp_path / "pid").read_text())
    process.terminate()
    assert process.wait(10) == 128 + signal.SIGTERM
    assert ends(int((tmp_path / "pid").read_text())), "the phase goes on"


def test_a_phase_that_is_stopped_leaves_no_tool_that_it_limits_itself(tmp_path: Path) -> None:
    """Each is in a session of its own."""
    found: list[int | None] = []
    outer = threading.Thread(
        target=lambda: found.append(
            run_limited(python(LIMITED, tmp_path), 4, tmp_path / "outer.log")
        )
    )
    outer.start()
    outer.join(20)
    assert found == [None], (tmp_path / "outer.log").read_text()
    assert ends(int((tmp_path / "pid").read_text())), "the tool goes on"


def test_a_result_of_an_earlier_run_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "phase_kernels.json").write_text('{"result": {"wrong": []}}')
    commands = {"kernels": python("pass")}
    assert not prove(Plan("host", tmp_path, 30, 1, ("kernels",)), commands)


def test_an_error_is_recorded_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(context: Context) -> dict[str, Any]:
        raise ValueError("a bad day")

    monkeypatch.setitem(PHASES, "times", phases.Phase(1, fail, {}))
    assert not run_phase("times", Context("host", tmp_path, False, 1, {}))
    found = json.loads((tmp_path / "phase_times.json").read_text())
    assert found == {"error": "ValueError: a bad day"}


def test_phases_fit_into_330_seconds() -> None:
    assert sum(phase.budget_s for phase in PHASES.values()) <= 330
    assert PHASES["ptx"].environment["CUDA_FORCE_PTX_JIT"] == "1"


def report(**results: dict[str, Any]) -> dict[str, Any]:
    found = {name: {"result": result, "seconds": 1.0} for name, result in results.items()}
    return {"device": "cuda", "phases": found}


def verdict(**results: dict[str, Any]) -> dict[str, bool | None]:
    return {line.name: line.holds for line in judge(report(**results))}


def stage(p50_ms: float, rows_s: float) -> dict[str, Any]:
    return {"wrong": [], "rows": {"1": {"p50_ms": p50_ms}, "64": {"rows_s": rows_s}}}


def memory(card: int = 0, torch: int = 0, host: int = 0) -> dict[str, Any]:
    return {
        "opened": 10_000, "card_bytes_grown": card, "torch_bytes_grown": torch,
        "host_bytes_grown": host,
    }  # fmt: skip


def test_bounds_hold_at_their_edge_and_not_beyond() -> None:
    good = verdict(stage=stage(0.5, 20_000), times={"kernels": {"crop": {"times_floor": 2.0}}},
                   sessions=memory(4 << 20, 0, 32 << 20))  # fmt: skip
    assert set(good.values()) == {True}
    assert verdict(stage=stage(0.501, 20_000))["stage, one row"] is False
    assert verdict(stage=stage(float("nan"), 20_000))["stage, one row"] is False
    assert verdict(stage=stage(0.1, 19_999))["stage, rows a second at 64"] is False
    slow = verdict(times={"kernels": {"crop": {"times_floor": 2.01}, "gates": {"times_floor": 1}}})
    assert slow["crop, times its floor"] is False and slow["gates, times its floor"] is True
    for grown in (memory(card=5 << 20), memory(torch=5 << 20)):
        assert verdict(sessions=grown)["memory of the card, 10000 sessions"] is False
    assert verdict(sessions=memory(host=40 << 20))["memory of the host, 10000 sessions"] is False


def test_a_comparison_that_is_wrong_or_missing_fails() -> None:
    assert verdict(kernels={"wrong": ["crop of 3: planes is inf"]})["kernels: right"] is False
    assert verdict(networks={})["networks: right"] is False
    assert verdict(kernels={"wrong": []})["kernels: right"] is True


def test_times_of_the_host_are_not_judged() -> None:
    own = report(stage=stage(100.0, 1.0))
    own["device"] = "host"
    lines = {line.name: line.holds for line in judge(own)}
    assert lines["stage, one row"] is None and lines["stage: right"] is True
    assert "not judged" in table(judge(own))


SANITIZERS = {
    "clean": ("echo '========= ERROR SUMMARY: 0 errors'; exit 0", True),
    "findings": ("echo '========= ERROR SUMMARY: 3 errors'; exit 77", False),
    "refuses": ("echo 'Device not supported'; exit 1", None),
    "crashes": ("kill -SEGV $$", None),
    "silent": ("exit 0", None),
    "hangs": ("sleep 60", None),
}


@pytest.mark.parametrize("kind", SANITIZERS)
def test_the_sanitizer_is_believed_only_if_it_ran(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    says, clean = SANITIZERS[kind]
    program = tmp_path / "compute-sanitizer"
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n{says}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    if kind == "hangs":
        monkeypatch.setattr(phases, "_TOOL_S", 0.3)
    found = PHASES["sanitizer"].run(Context("cuda", tmp_path, False, 5, {}))
    assert {tool["clean"] for tool in found["tools"].values()} == {clean}
    assert verdict(sanitizer=found)["sanitizer"] is clean
    calls = (tmp_path / "calls").read_text()
    assert "--tool memcheck" in calls and "--tool initcheck" in calls
    assert "--phase kernels --small" in calls


def test_a_card_older_than_the_ptx_is_not_judged_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cards = (Gpu("an older one", (8, 9)),)
    monkeypatch.setattr(phases, "find_gpus", lambda: Gpus(cards, (13, 0)))
    found = PHASES["ptx"].run(Context("cuda", tmp_path, False, 5, {}))
    assert "the card is older" in found["not_run"]
    assert verdict(ptx=found)["ptx: right"] is None


def test_no_kernel_of_torch_is_there_where_ptx_is_forced() -> None:
    program = "import sys, lipstream.bench.gpu.phases; print('torch' in sys.modules)"
    done = subprocess.run(python(program), capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


def test_a_machine_without_the_sanitizer_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(phases, "_SANITIZER_FOLDERS", ())
    found = PHASES["sanitizer"].run(Context("cuda", tmp_path, False, 5, {}))
    assert found == {"found": False, "why": "compute-sanitizer is not on this machine"}
    assert verdict(sanitizer=found)["sanitizer"] is None


def test_the_command_runs_phases_on_the_host(tmp_path: Path, folder: Path) -> None:
    shutil.copy2(folder / "kernels_on_host.so", tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "lipstream.bench.gpu", "--device", "host", "-o", str(tmp_path)]
        + ["--only", "kernels", "--only", "ptx"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 hold, 0 fail, 0 not judged" in done.stdout
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["passed"] and set(found["phases"]) == {"kernels", "ptx"}


def test_without_a_card_each_phase_says_why(tmp_path: Path) -> None:
    context = Context("cuda", tmp_path, False, 1, {})
    assert not run_phase("kernels", context)
    found = json.loads((tmp_path / runner._PART.format("kernels")).read_text())
    assert found["error"].startswith("BackendUnavailable: ")
