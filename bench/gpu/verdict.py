"""Whether what was measured holds: bounds, and a table of them for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

_ONE_ROW_MS: Final = 0.5
_ROWS_S: Final = 20_000  # in batches of 64
_TIMES_FLOOR: Final = 2.0
# Of memory over all sessions; an allocation of the driver's, or the interpreter's, is no leak.
_CARD_GROWN: Final = 4 << 20
_HOST_GROWN: Final = 32 << 20


@dataclass(frozen=True, slots=True)
class Line:
    """One bound. `holds`: None where it cannot be judged, with the reason in `measured`."""

    name: str
    bound: str
    measured: str
    holds: bool | None


def judge(report: Mapping[str, Any]) -> list[Line]:
    """Every bound, of a report as the runner keeps it; times only of a card."""
    phases, on_card = report["phases"], report["device"] == "cuda"
    lines = [_ran(name, phase) for name, phase in phases.items()]
    for name in ("kernels", "ptx", "networks", "stage"):
        result = phases.get(name, {}).get("result")
        if result is not None:
            wrong = result.get("wrong", ["no comparison"])
            if result.get("not_run"):
                lines.append(Line(f"{name}: right", "as its twin", result["not_run"], None))
                continue
            lines.append(Line(f"{name}: right", "as its twin", "; ".join(wrong[:3]) or "yes",
                              not wrong))  # fmt: skip
    lines += _sanitizer(phases)
    lines += _speeds(phases, on_card)
    lines += _memory(phases)
    return lines


def _ran(name: str, phase: Mapping[str, Any]) -> Line:
    took = f"{phase.get('seconds', 0):.0f} s"
    if phase.get("error"):
        return Line(name, "ends", f"{took}; {phase['error'][-160:]}", False)
    return Line(name, "ends", took, True)


def _sanitizer(phases: Mapping[str, Any]) -> list[Line]:
    result = phases.get("sanitizer", {}).get("result")
    if result is None:
        return []
    if not result["found"]:
        return [Line("sanitizer", "no finding", result["why"], None)]
    tools = result["tools"]
    measured = "; ".join(f"{name}: {tool['verdict']}" for name, tool in tools.items())
    judged = [tool["clean"] for tool in tools.values()]
    clean = False if False in judged else None if None in judged else True
    return [Line("sanitizer", "no finding", measured, clean)]


def _speeds(phases: Mapping[str, Any], on_card: bool) -> list[Line]:
    lines = []

    def line(name: str, bound: str, measured: str, holds: bool) -> None:
        lines.append(Line(name, bound, measured, holds if on_card else None))

    rows = _result(phases, "stage").get("rows", {})
    if "1" in rows:
        spent = rows["1"]["p50_ms"]
        line("stage, one row", f"<= {_ONE_ROW_MS} ms", f"{spent:.3f} ms", spent <= _ONE_ROW_MS)
    if "64" in rows:
        rate = rows["64"]["rows_s"]
        line("stage, rows a second at 64", f">= {_ROWS_S}", f"{rate:.0f}", rate >= _ROWS_S)
    for steps, speeds in _result(phases, "stage").get("from_the_host", {}).items():
        told = "; ".join(
            f"{count}: {row['p50_ms']:.2f} ms, {row['rows_s']:.0f}/s"
            for count, row in speeds.items()
        )
        lines.append(Line(f"from and to the host, by {steps}", "no bound", told, None))
    kernels = _result(phases, "times").get("kernels", {})
    for name, row in kernels.items():
        slower = row["times_floor"]
        line(f"{name}, times its floor", f"<= {_TIMES_FLOOR:.0f}", f"{slower:.2f}",
             slower <= _TIMES_FLOOR)  # fmt: skip
    return lines


def _memory(phases: Mapping[str, Any]) -> list[Line]:
    result = _result(phases, "sessions")
    if not result:
        return []
    card = max(result["card_bytes_grown"], result["torch_bytes_grown"])
    host, opened = result["host_bytes_grown"], result["opened"]
    return [
        Line(f"memory of the card, {opened} sessions", f"+{_CARD_GROWN >> 20} MiB at most",
             f"{card / 2**20:+.1f} MiB", card <= _CARD_GROWN),
        Line(f"memory of the host, {opened} sessions", f"+{_HOST_GROWN >> 20} MiB at most",
             f"{host / 2**20:+.1f} MiB", host <= _HOST_GROWN),
    ]  # fmt: skip


def _result(phases: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return phases.get(name, {}).get("result") or {}


def table(lines: list[Line]) -> str:
    """For people; the last line is the verdict."""
    marks = {True: "holds", False: "FAILS", None: "not judged"}
    width = max((len(line.name) for line in lines), default=0)
    rows = [
        f"{line.name:<{width}}  {line.bound:<18}  {marks[line.holds]:<10}  {line.measured}"
        for line in lines
    ]
    failed = sum(line.holds is False for line in lines)
    unjudged = sum(line.holds is None for line in lines)
    rows.append(f"{len(lines) - failed - unjudged} hold, {failed} fail, {unjudged} not judged")
    return "\n".join(rows) + "\n"
