"""The report of the benchmarks: report.json with every raw sample, and report.html to read.

Each command writes its own section and keeps those of the others, so one folder gathers the figures
of a machine. A section holds a description of the machine at the time of the measurement.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from lipstream.bench.report.sections import PARTS, at_a_glance
from lipstream.bench.report.template import document, fragment, template
from lipstream.engine.errors import UsageError
from lipstream.streaming.files.partial_file import PartialFile, write_error

SCHEMA: Final = 3
_BODY: Final = template("""\
{% if figures %}
<dl>
{% for name, value in figures %}
<div><dt>{{ name }}</dt><dd>{{ value }}</dd></div>
{% endfor %}
</dl>
{% endif %}
{% for kind, content, machine in sections %}
<section id="{{ kind }}">
{{ content }}
<p class="eyebrow">{{ machine }}</p>
</section>
{% endfor %}""")


def section(machine: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """The section of one command: its figures, and the machine they were measured on."""
    return {"machine": dict(machine), "data": dict(data)}


def read_report(path: Path) -> dict[str, Any]:
    """A report.json, or the one in the folder `path`.

    Raises: UsageError when it is no report, or of another version.
    """
    file = path / "report.json" if path.is_dir() else path
    try:
        report = json.loads(file.read_text("utf8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{file}: not a report of `lipstream bench` ({error})") from error
    if not isinstance(report, dict) or report.get("schema") != SCHEMA:
        raise UsageError(
            f"{file}: not a report of this version (schema {SCHEMA}); measure again, into an empty "
            "folder"
        )
    return report


def write_report(folder: Path, sections: Mapping[str, Any]) -> Path:
    """Add sections to the report in `folder`, which is made if missing; returns the page.

    Raises:
        UsageError: `folder` holds a report of another version.
        MediaError: `folder` cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "report.json"
    report: dict[str, Any] = {"schema": SCHEMA, "sections": {}}
    if file.exists():
        report = read_report(file)
    report["sections"].update(sections)
    text = json.dumps(report, default=_plain, allow_nan=False)
    write_text(file, text)
    write_text(folder / "report.html", page(json.loads(text)))
    return folder / "report.html"


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file, whole or not at all.

    Raises: MediaError when it cannot be written.
    """
    with PartialFile(path) as part:
        try:
            part.temporary.write_text(text, "utf8")
        except OSError as error:
            raise write_error(path, error) from error
        part.commit()


def page(report: Mapping[str, Any]) -> str:
    """The report as self-contained HTML."""
    sections = report["sections"]
    drawn = [
        (kind, draw(sections[kind]["data"]), _machine(sections[kind]["machine"]))
        for kind, draw in PARTS.items()
        if kind in sections
    ]
    body = fragment(_BODY, figures=at_a_glance(sections), sections=drawn)
    return document("lipstream: benchmarks", body)


def _machine(machine: Mapping[str, Any]) -> str:
    """The machine of a section, as one line."""
    instructions = " ".join(machine["instructions"]) or "no vector instructions known"
    others = machine["others_cores"]
    load = (
        "load by other processes unknown"
        if others is None
        else f"other processes used {others:.2f} cores"
    )
    if machine["stolen_cores"]:
        load += f", the host took {machine['stolen_cores']:.2f}"
    return (
        f"{machine['processor']} ({instructions}), {machine['cores']} cores, "
        f"{machine['memory_gib']} GiB, {machine['system']}, Python {machine['python']}, "
        f"commit {machine['commit']}, {machine['date']}, "
        f"{load}{'' if machine['quiet'] else ': NOT a quiet machine'}"
    )


def _plain(value: object) -> object:
    """NumPy scalars and arrays as JSON types."""
    for method in ("tolist", "item"):
        if hasattr(value, method):
            return getattr(value, method)()
    return str(value)
