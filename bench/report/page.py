"""The report of the benchmarks: report.json with every raw sample, report.html for people.

Each command adds its own section and leaves those of the others, so that one folder gathers a
machine's figures. A section carries the machine as it was when it was measured.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from lipstream.bench.report.sections import PARTS, at_a_glance
from lipstream.calibration.report.page_style import style_sheet
from lipstream.engine.errors import UsageError

SCHEMA: Final = 2
_STYLE: Final = """
.bar{fill:var(--s0);opacity:.55}.best{fill:var(--s0)}
.dot{fill:var(--s0)}.dot.s1{fill:var(--s1)}.dot.s2{fill:var(--s2)}.dot.s3{fill:var(--good)}
.dot.s4{fill:var(--poor)}.dot.s5{fill:var(--usable)}
.line.s3{stroke:var(--good)}.line.s4{stroke:var(--poor)}.line.s5{stroke:var(--usable)}
.legend .s3{background:var(--good)}.legend .s4{background:var(--poor)}
.legend .s5{background:var(--usable)}.legend{flex-wrap:wrap;gap:2px 18px}
line.limit,line.roof{stroke:var(--poor);stroke-width:1;stroke-dasharray:5 4}
line.roof{stroke:var(--good);stroke-dasharray:2 3}
text.limit{fill:var(--poor)}text.roof{fill:var(--good)}
.legend i.bar,.legend i.best{height:10px;background:var(--s0)}
table{border-collapse:collapse;width:100%;font-size:.85rem;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:3px 10px 3px 0;white-space:nowrap}.n{text-align:right}
th{color:var(--soft);font-weight:600}
.chart{margin:10px 0}.wide{overflow-x:auto}.chart svg{max-width:880px;min-width:540px;margin:0 auto}
details{margin:8px 0}summary{cursor:pointer;color:var(--accent)}
.pair .chart svg{min-width:0}
.pair{display:grid;gap:0 14px;grid-template-columns:repeat(auto-fit,minmax(min(100%,440px),1fr))}
"""


def section(machine: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """One command's part of a report."""
    return {"machine": dict(machine), "data": dict(data)}


def read_report(path: Path) -> dict[str, Any]:
    """A report.json, or the folder that holds one.

    Raises: UsageError when it is none.
    """
    file = path / "report.json" if path.is_dir() else path
    try:
        report = json.loads(file.read_text("utf8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{file}: not a report of `lipstream bench` ({error})") from error
    if not isinstance(report, dict) or report.get("schema") != SCHEMA:
        raise UsageError(f"{file}: not a report of this version (schema {SCHEMA}); make it again")
    return report


def write_report(folder: Path, sections: Mapping[str, Any]) -> Path:
    """Add sections to the report in `folder`; returns the page."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "report.json"
    report: dict[str, Any] = {"schema": SCHEMA, "sections": {}}
    if file.exists():
        report = read_report(file)
    report["sections"].update(sections)
    text = json.dumps(report, default=_plain, allow_nan=False)
    fresh = folder / "report.json.part"
    fresh.write_text(text, "utf8")
    fresh.replace(file)
    (folder / "report.html").write_text(page(json.loads(text)), "utf8")
    return folder / "report.html"


def page(report: Mapping[str, Any]) -> str:
    """Self-contained HTML."""
    sections = report["sections"]
    parts = [
        f'<section id="{kind}">{draw(sections[kind]["data"])}'
        f'<p class="eyebrow">{html.escape(_machine(sections[kind]["machine"]))}</p></section>'
        for kind, draw in PARTS.items()
        if kind in sections
    ]
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>lipstream: measurements</title><style>{style_sheet()}{_STYLE}</style>"
        f"<main><h1>lipstream: measurements</h1>{at_a_glance(sections)}{''.join(parts)}</main>"
        "</html>"
    )


def _machine(machine: Mapping[str, Any]) -> str:
    """One line under each section."""
    able = " ".join(machine["instructions"]) or "no vector instructions known"
    others = machine["others_cores"]
    busy = "others unknown" if others is None else f"others kept {others:.2f} cores busy"
    if machine["stolen_cores"]:
        busy += f", the host took {machine['stolen_cores']:.2f}"
    return (
        f"{machine['processor']} ({able}), {machine['cores']} cores, {machine['memory_gib']} GiB, "
        f"{machine['system']}, Python {machine['python']}, commit {machine['commit']}, "
        f"{machine['date']}, {busy}{'' if machine['quiet'] else ': NOT a quiet machine'}"
    )


def _plain(value: object) -> object:
    """JSON for numpy scalars and arrays."""
    for method in ("tolist", "item"):
        if hasattr(value, method):
            return getattr(value, method)()
    return str(value)
