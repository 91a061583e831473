"""Templates, the style and the frame of the HTML pages of the benchmarks."""

from __future__ import annotations

from typing import Final

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from lipstream.calibration.report.page_style import style_sheet

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
.close-ups{width:100%}
"""
_ENVIRONMENT: Final = Environment(
    autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)


def template(source: str) -> Template:
    """A Jinja template that escapes every value which is not `Markup`."""
    return _ENVIRONMENT.from_string(source)


_DOCUMENT: Final = template("""\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{{ title }}</title>
<style>{{ style }}</style>
<main>
<h1>{{ title }}</h1>
{{ body }}
</main>
</html>
""")


def document(title: str, body: Markup) -> str:
    """A self-contained HTML page."""
    return _DOCUMENT.render(title=title, style=Markup(style_sheet() + _STYLE), body=body)


def fragment(source: Template, **values: object) -> Markup:
    """A part of a page, safe to be set into another template."""
    return Markup(source.render(**values))
