"""Runs phases in processes of their own, within their time, and keeps what each has found."""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from lipstream.bench.gpu.limited import run_limited
from lipstream.bench.gpu.phases import PHASES, Context
from lipstream.bench.gpu.verdict import judge, table

REPORT: Final = "gpu.json"
_PART: Final = "phase_{}.json"
_TAIL: Final = 1500  # characters of a failed phase's output


@dataclass(frozen=True, slots=True)
class Plan:
    """One run of the proof."""

    device: str
    folder: Path
    budget_s: float
    seed: int
    phases: tuple[str, ...] = tuple(PHASES)


def prove(plan: Plan, commands: Mapping[str, Sequence[str]] | None = None) -> bool:
    """Every phase, then the verdict, to DIR/gpu.json and to the terminal; whether nothing failed.

    commands: what to run in place of a phase.
    """
    plan.folder.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    report: dict[str, Any] = {
        "device": plan.device,
        "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seed": plan.seed,
        "budget_s": plan.budget_s,
        "phases": {},
    }
    spare = 0.0
    for name in plan.phases:
        left = plan.budget_s - (time.monotonic() - begin)
        budget = PHASES[name].budget_s if name in PHASES else left
        limit = min(budget + spare, left)
        started = time.monotonic()
        command = (commands or {}).get(name) or _command(plan, name)
        found = _run(plan, name, list(command), limit)
        found["seconds"] = round(time.monotonic() - started, 2)
        spare = max(0.0, budget + spare - found["seconds"])
        report["phases"][name] = found
        report["seconds"] = round(time.monotonic() - begin, 2)
        _write(plan.folder / REPORT, report)
        sys.stderr.write(f"{name}: {found['seconds']} s {found.get('error', '')[-200:]}\n")
    lines = judge(report)
    report["verdict"] = [asdict(line) for line in lines]
    report["passed"] = all(line.holds is not False for line in lines)
    _write(plan.folder / REPORT, report)
    sys.stdout.write(table(lines))
    return bool(report["passed"])


def _command(plan: Plan, name: str) -> list[str]:
    return [
        sys.executable, "-m", "lipstream.bench.gpu", "--device", plan.device, "--phase", name,
        "--seed", str(plan.seed), "-o", str(plan.folder),
    ]  # fmt: skip


def _run(plan: Plan, name: str, command: list[str], limit: float) -> dict[str, Any]:
    """What the phase wrote; else why it wrote nothing."""
    part = plan.folder / _PART.format(name)
    part.unlink(missing_ok=True)
    if limit <= 1:
        return {"error": "no time was left"}
    environment = {**os.environ, **(PHASES[name].environment if name in PHASES else {})}
    if plan.device == "host":
        environment |= {"OMP_NUM_THREADS": "1"}  # the host's figures mean nothing; its cores do
    log = plan.folder / f"phase_{name}.log"
    status = run_limited(command, limit, log, environment)
    tail = log.read_text(errors="replace")[-_TAIL:].strip()
    if part.is_file():
        found: dict[str, Any] = json.loads(part.read_text())
        if status != 0 and not found.get("error"):
            found["error"] = f"ended with status {status} after its result; {tail}"
        return found
    if status is None:
        return {"error": f"was stopped after {limit:.0f} s; {tail}"}
    return {"error": f"ended with status {status}; {tail}"}


def run_phase(name: str, context: Context) -> bool:
    """One phase in this process: its result, or the error that ended it, to DIR."""
    try:
        found: dict[str, Any] = {"result": PHASES[name].run(context)}
    except Exception as error:  # recorded, whatever it is: the other phases go on
        traceback.print_exc()
        found = {"error": f"{type(error).__name__}: {error}"}
    _write(context.folder / _PART.format(name), found)
    return "error" not in found


def earlier_results(folder: Path) -> dict[str, Any]:
    """Results of the phases that have run."""
    path = folder / REPORT
    if not path.is_file():
        return {}
    phases = json.loads(path.read_text())["phases"]
    return {name: phase["result"] for name, phase in phases.items() if phase.get("result")}


def _write(path: Path, report: Mapping[str, Any]) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(report, indent=1) + "\n")
    part.replace(path)
