"""Charts and tables of the benchmark report: inline SVG without scripts, styled by the page."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from markupsafe import Markup

from lipstream.bench.report.template import fragment, template

_W: Final = 760
_HALF: Final = 440  # width of a chart that shares its row with another
_LEFT: Final = 64
_RIGHT: Final = 20
_COLOURS: Final = 6  # s0 to s5 of the style sheet
_LINE: Final = 15  # px from one line of text to the next
_NAME: Final = 120  # px for the name of a line

Points = Sequence[tuple[float, float]]


class Level(NamedTuple):
    """A line across a chart."""

    value: float
    name: str
    kind: str = "roof"  # "roof": bound of the machine; "limit": to stay below


def line_chart(
    title: str,
    axes: tuple[str, str],
    series: Mapping[str, Points],
    levels: Sequence[Level] = (),
    log_x: bool = False,
    half: bool = False,
) -> Markup:
    """Lines with dots.

    axes: x and y, with units; levels: at most one of them a limit; half: half as wide as the page.
    """
    width = _HALF if half else _W
    series = {name: points for name, points in series.items() if points}
    if not series:
        return _nothing()
    xs = sorted({x for points in series.values() for x, _ in points})
    ys = [y for points in series.values() for _, y in points]
    limit = next((level for level in levels if level.kind == "limit"), None)
    top = 1.05 * max(*ys, 1e-9, *(level.value for level in levels))
    if limit and top > 3 * limit.value:  # a high peak must not flatten the lines below the limit
        top = 3 * limit.value
        axes = (f"{axes[0]} (values above {top:.0f} are drawn there)", axes[1])
    bottom = min(0.0, *ys)
    low_x, high_x = xs[0], xs[-1]
    height, plot_w, plot_h = 290, width - _LEFT - _RIGHT, 226

    def place(x: float, y: float) -> tuple[float, float]:
        a, b, c = (math.log(v) if log_x else v for v in (x, low_x, high_x))
        across = (a - b) / (c - b) if c > b else 0.5
        up = (min(y, top) - bottom) / (top - bottom)
        return _LEFT + 16 + (plot_w - 40) * across, 12 + plot_h * (1 - up)

    out = [_begin(title, width, height)]
    for tick in _ticks(bottom, top):
        out.append(_level(place(low_x, tick)[1], f"{tick:g}", width))
    for x in (
        xs if len(xs) <= (4 if half else 9) or log_x else _ticks(low_x, high_x, 4 if half else 8)
    ):
        if low_x <= x <= high_x:
            out.append(_text(place(x, bottom)[0], height - 34, f"{x:g}"))
    for value, name, kind in levels:
        y = place(low_x, value)[1]
        out.append(
            f'<line class="{kind}" x1="{_LEFT}" x2="{width - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            + _text(width - _RIGHT, y - 5 if y > 24 else y + 14, name, "end", kind)
        )
    for k, points in enumerate(series.values()):
        placed = [place(x, y) for x, y in points]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in placed)
        out.append(f'<path class="line s{k % _COLOURS}" d="{path}"/>')
        for (x, y), (vx, vy) in zip(placed, points, strict=True):
            out.append(
                f'<circle class="dot s{k % _COLOURS}" cx="{x:.1f}" cy="{y:.1f}" r="3">'
                f"<title>{vx:g}: {vy:.4g}</title></circle>"
            )
    out.append(_axes(axes, width, height))
    return _chart("".join(out), list(series))


def histogram(
    title: str, axes: tuple[str, str], samples: Sequence[float], marks: Sequence[Level] = ()
) -> Markup:
    """Counts of samples up to the 99.9th percentile, with lines for p50, p95, p99 and `marks`."""
    if not len(samples):
        return _nothing()
    values = np.asarray(samples, np.float64)
    lines = [
        Level(float(np.percentile(values, percent)), f"p{percent}", "limit")
        for percent in (50, 95, 99)
    ]
    lines = sorted([*lines, *marks])
    # A name is to the right of its line; the rightmost one needs space.
    plot_w, plot_h = _W - _LEFT - _RIGHT, 150
    last = lines[-1].value * plot_w / (plot_w - _NAME)
    high = max(float(np.percentile(values, 99.9)), last, 1e-6)
    counts, edges = np.histogram(values, bins=60, range=(0.0, high))
    top = 10 + _LINE * len(lines)
    height, most = top + plot_h + 56, max(int(counts.max()), 1)
    out = [_begin(title, _W, height)]
    for tick in _ticks(0, most):
        if tick == int(tick):
            out.append(_level(top + plot_h * (1 - tick / most), f"{tick:g}"))
    for k, count in enumerate(counts):
        tall = plot_h * count / most
        out.append(
            f'<rect class="bar" x="{_LEFT + plot_w * k / 60:.1f}" y="{top + plot_h - tall:.1f}" '
            f'width="{plot_w / 60 - 1:.1f}" height="{tall:.1f}"><title>{edges[k]:.3g} to '
            f"{edges[k + 1]:.3g} ms: {count}</title></rect>"
        )
    for tick in _ticks(0, high, 8):
        out.append(_text(_LEFT + plot_w * tick / high, height - 34, f"{tick:g}"))
    for k, (value, name, kind) in enumerate(lines):
        x, y = _LEFT + plot_w * value / high, 12 + _LINE * k
        out.append(
            f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{y - 8}" y2="{top + plot_h}"/>'
            + _text(x + 5, y, f"{name} {value:.2f} ms", "start", kind)
        )
    out.append(_axes(axes, _W, height))
    return _chart("".join(out))


def waterfall(
    title: str, bars: Sequence[tuple[str, float]], least: Mapping[str, float] | None = None
) -> Markup:
    """Stages one below another, in ms, each from the end of the previous one.

    least: the lower bound of a stage, drawn as a darker bar inside its own.
    """
    whole = sum(max(value, 0.0) for _, value in bars)
    if whole <= 0:
        return _nothing()
    least = least or {}
    row, left = 24, 108
    height, plot_w = row * len(bars) + 16, _W - left - 80
    out, so_far = [_begin(title, _W, height)], 0.0
    for k, (name, value) in enumerate(bars):
        y, x = 8 + row * k, left + plot_w * so_far / whole
        wide = max(plot_w * max(value, 0.0) / whole, 1.0)
        best = min(plot_w * least.get(name, 0.0) / whole, wide)
        out.append(
            _text(left - 10, y + 16, name.replace("_", " "), "end")
            + f'<rect class="bar" x="{x:.1f}" y="{y + 4}" width="{wide:.1f}" height="{row - 8}"/>'
            + _text(x + wide + 6, y + 16, f"{max(value, 0.0):.2f} ms", "start")
        )
        if best >= 0.5:
            out.append(
                f'<rect class="best" x="{x:.1f}" y="{y + 4}" width="{best:.1f}" '
                f'height="{row - 8}"><title>roofline {least[name]:.3g} ms</title></rect>'
            )
        so_far += max(value, 0.0)
    out.append("</svg>")
    names = ("measured", "roofline") if least else ()
    return _chart("".join(out), names, ("bar", "best"))


_TABLE: Final = template("""\
{% macro cells(tag, row) %}
{% for text, right in row %}
<{{ tag }}{{ " class=n" if right }}>{{ text }}</{{ tag }}>
{%- endfor %}
{% endmacro %}
<div class="chart"><div class="wide"><table>
<tr>{{ cells("th", heads) }}</tr>
{% for row in rows %}
<tr>{{ cells("td", row) }}</tr>
{% endfor %}
</table></div></div>""")


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> Markup:
    """Text to the left, numbers to the right; None is a dash."""
    cells = [[_cell(value) for value in row] for row in rows]
    right = [all(row[k][1] for row in cells) for k in range(len(heads))]
    return fragment(_TABLE, heads=list(zip(heads, right, strict=True)), rows=cells)


def _cell(value: object) -> tuple[str, bool]:
    """The text of a cell, and whether it is aligned to the right."""
    if value is None:
        return "–", True
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return figure(value), True
    return str(value), False


def figure(value: float) -> str:
    """A number with three significant digits and without an exponent."""
    if value == 0 or isinstance(value, int):
        return f"{value:,}" if value else "0"
    size = abs(value)
    decimals = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3
    return f"{value:,.{decimals}f}" if size >= 0.0005 else "<0.001"


def _begin(title: str, width: int, height: int) -> str:
    name = html.escape(title)
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{name}"><title>{name}</title>'
    )


def _level(y: float, label: str, width: int = _W) -> str:
    line = f'<line class="grid" x1="{_LEFT}" x2="{width - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
    return line + _text(_LEFT - 8, y + 4, label, "end")


def _text(x: float, y: float, words: str, anchor: str = "middle", kind: str = "") -> str:
    name = f"tick {kind}".strip()
    return (
        f'<text class="{name}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">'
        f"{html.escape(words)}</text>"
    )


def _axes(axes: tuple[str, str], width: int, height: int) -> str:
    x, y = (html.escape(one) for one in axes)
    return (
        f'<text class="axis" x="{(width + _LEFT) / 2}" y="{height - 10}" text-anchor="middle">{x}'
        f'</text><text class="axis" transform="translate(14 {(height - 40) / 2}) rotate(-90)" '
        f'text-anchor="middle">{y}</text></svg>'
    )


def _chart(svg: str, names: Sequence[str] = (), kinds: Sequence[str] = ()) -> Markup:
    kinds = kinds or [f"s{k % _COLOURS}" for k in range(len(names))]
    legend = "".join(
        f'<span><i class="{kind}"></i>{html.escape(name)}</span>'
        for name, kind in zip(names, kinds, strict=False)
    )
    legend = f'<p class="legend">{legend}</p>' if len(names) > 1 else ""
    return Markup(f'<div class="chart">{legend}<div class="wide">{svg}</div></div>')


def _nothing() -> Markup:
    return Markup('<p class="lead">Nothing was measured.</p>')


def _ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers between low and high."""
    raw = max(high - low, 1e-9) / most
    size = 10.0 ** math.floor(math.log10(raw))
    step = size * next(m for m in (1, 2, 5, 10) if m * size >= raw * (1 - 1e-9))
    return [
        round(k * step, 9) for k in range(math.ceil(low / step - 1e-9), int(high / step + 1e-9) + 1)
    ]
