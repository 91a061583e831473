"""The phases of the proof, in order, each with its budget; and what one runs in its process."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lipstream.bench.gpu import kernels
from lipstream.bench.gpu.card import open_card
from lipstream.bench.gpu.limited import run_limited
from lipstream.bench.gpu.sizes import CHECKED, ON_CARD, ON_HOST, Sizes
from lipstream.engine.networks.gpus import find_gpus

_SPEC_COPY_GB_S: Final = 3350.0  # where the copy was not measured
_FORCE_PTX: Final = {"CUDA_FORCE_PTX_JIT": "1", "CUDA_CACHE_DISABLE": "1"}
_TOOLS: Final = ("memcheck", "initcheck")
_TOOL_S: Final = 21  # each
_FIRST_WITH_PTX: Final = (9, 0)  # compute capability that our PTX is for
_FINDINGS_STATUS: Final = 77  # of a process that the sanitizer has a complaint of
_SANITIZER_FOLDERS: Final = ("/usr/local/cuda/bin", "/opt/cuda/bin")


@dataclass(frozen=True, slots=True)
class Context:
    """What a phase is given."""

    device: str  # "cuda" or "host"
    folder: Path
    small: bool
    seed: int
    earlier: Mapping[str, Any]  # results of the phases before, by name

    def sizes(self) -> Sizes:
        """Of the work."""
        if self.device == "host":
            return ON_HOST
        return CHECKED if self.small else ON_CARD

    def copy_gb_s(self) -> float:
        """Measured in this run, else as a vendor states it."""
        return float(self.earlier.get("ceilings", {}).get("copy_gb_s", _SPEC_COPY_GB_S))

    def command(self, phase: str, folder: Path) -> list[str]:
        """Another process with one phase, small."""
        return [
            sys.executable, "-m", "lipstream.bench.gpu", "--device", self.device,
            "--phase", phase, "--small", "--seed", str(self.seed), "-o", str(folder),
        ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of the proof."""

    budget_s: float
    run: Callable[[Context], dict[str, Any]]
    environment: Mapping[str, str]


def _ceilings(context: Context) -> dict[str, Any]:
    from lipstream.bench.gpu import ceilings

    with open_card(context.device, context.folder) as card:
        return ceilings.measure(card, context.sizes())


def _check(context: Context) -> dict[str, Any]:
    with open_card(context.device, context.folder) as card:
        return kernels.check(card, context.sizes(), context.seed)


def _ptx(context: Context) -> dict[str, Any]:
    """The comparison once more, where the driver was told to take PTX."""
    if context.device == "cuda":
        card = find_gpus().cards[0]
        if card.capability < _FIRST_WITH_PTX:
            return {"wrong": [], "not_run": "the PTX is of 9.0 and 12.0, the card is older"}
    return _check(context)


def _times(context: Context) -> dict[str, Any]:
    with open_card(context.device, context.folder) as card:
        return kernels.times(card, context.sizes(), context.seed, context.copy_gb_s())


def _networks(context: Context) -> dict[str, Any]:
    from lipstream.bench.gpu import networks

    with open_card(context.device, context.folder) as card:
        return networks.measure(card, context.sizes(), context.seed, context.copy_gb_s())


def _stage(context: Context) -> dict[str, Any]:
    from lipstream.bench.gpu import stage

    with open_card(context.device, context.folder) as card:
        return stage.measure(card, context.sizes(), context.seed)


def _sessions(context: Context) -> dict[str, Any]:
    from lipstream.bench.gpu import stage

    with open_card(context.device, context.folder) as card:
        return stage.sessions(card, context.sizes(), context.seed)


def _sanitizer(context: Context) -> dict[str, Any]:
    """NVIDIA's checker of memory over the kernels' comparison, where it is installed."""
    path = os.pathsep.join((os.environ.get("PATH", ""), *_SANITIZER_FOLDERS))
    program = shutil.which("compute-sanitizer", path=path)
    if program is None:
        return {"found": False, "why": "compute-sanitizer is not on this machine"}
    found: dict[str, Any] = {"found": True, "tools": {}}
    for tool in _TOOLS:
        folder = context.folder / f"sanitizer_{tool}"
        folder.mkdir(parents=True, exist_ok=True)
        log = context.folder / f"sanitizer_{tool}.log"
        status = run_limited(
            [program, "--tool", tool, "--error-exitcode", str(_FINDINGS_STATUS)]
            + context.command("kernels", folder),
            _TOOL_S,
            log,
        )
        found["tools"][tool] = _sanitized(status, log.read_text(errors="replace").strip())
    return found


def _sanitized(status: int | None, said: str) -> dict[str, Any]:
    """`clean` is None where the tool could not do its work."""
    summary = [line for line in said.splitlines() if "ERROR SUMMARY" in line]
    row = {"status": status, "said": said[-1500:]}
    if status == 0 and summary and ": 0 errors" in summary[-1]:
        return {**row, "clean": True, "verdict": "0 errors"}
    if status == _FINDINGS_STATUS and summary:
        return {**row, "clean": False, "verdict": summary[-1].split("SUMMARY:")[-1].strip()}
    return {**row, "clean": None, "verdict": _why_not(status)}


def _why_not(status: int | None) -> str:
    return f"had no end after {_TOOL_S} s" if status is None else f"did not run (status {status})"


# 330 s together. Each runs in a process of its own: after a fault on the card every later call of
# that process fails.
PHASES: Final[dict[str, Phase]] = {
    "ceilings": Phase(30, _ceilings, {}),
    "kernels": Phase(50, _check, {}),
    "ptx": Phase(45, _ptx, _FORCE_PTX),
    "sanitizer": Phase(45, _sanitizer, {}),
    "times": Phase(40, _times, {}),
    "networks": Phase(50, _networks, {}),
    "stage": Phase(45, _stage, {}),
    "sessions": Phase(25, _sessions, {}),
}
