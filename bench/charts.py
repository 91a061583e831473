"""Charts of the benchmark report: inline SVG, without scripts, in the page's own colours."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

_W: Final = 960
_LEFT: Final = 64
_RIGHT: Final = 16
_COLOURS: Final = 3  # s0 to s2 of the style sheet

Points = Sequence[tuple[float, float]]


def line_chart(
    title: str,
    axes: tuple[str, str],
    series: Mapping[str, Points],
    limit: tuple[float, str] | None = None,
    log_x: bool = False,
) -> str:
    """Lines with dots. axes: x and y, with units; limit: a level to stay below, and its name."""
    series = {name: points for name, points in series.items() if points}
    if not series:
        return _nothing()
    xs = [x for points in series.values() for x, _ in points]
    ys = [y for points in series.values() for _, y in points]
    top = max(*ys, 1e-9, limit[0] * 1.05 if limit else 0.0)
    if limit:  # what lies far beyond the limit must not flatten what lies below it
        top = min(top, 3 * limit[0])
    bottom = min(0.0, *ys)
    low_x, high_x = min(xs), max(xs)
    height, plot_w, plot_h = 300, _W - _LEFT - _RIGHT, 236

    def place(x: float, y: float) -> tuple[float, float]:
        a, b, c = (math.log(v) if log_x else v for v in (x, low_x, high_x))
        across = (a - b) / (c - b) if c > b else 0.5
        up = (min(y, top) - bottom) / (top - bottom)
        return _LEFT + 10 + (plot_w - 20) * across, 12 + plot_h * (1 - up)

    out = [_begin(title, height)]
    for tick in _ticks(bottom, top):
        out.append(_level(place(low_x, tick)[1], f"{tick:g}"))
    for x in sorted(set(xs)) if len(set(xs)) <= 12 else _ticks(low_x, high_x, 8):
        if low_x <= x <= high_x:
            out.append(_text(place(x, bottom)[0], height - 34, f"{x:g}"))
    if limit:
        y = place(low_x, limit[0])[1]
        out.append(
            f'<line class="limit" x1="{_LEFT}" x2="{_W - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            + _text(_W - _RIGHT, y - 5, limit[1], "end")
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
    out.append(_axes(axes, height))
    return _chart("".join(out), list(series))


def histogram(title: str, axes: tuple[str, str], samples: Sequence[float]) -> str:
    """Counts of samples, up to the 99.9th percentile; p50, p95 and p99 are marked."""
    if not len(samples):
        return _nothing()
    values = np.asarray(samples, np.float64)
    high = max(float(np.percentile(values, 99.9)), 1e-6)
    counts, edges = np.histogram(values, bins=60, range=(0.0, high))
    height, plot_w, plot_h = 240, _W - _LEFT - _RIGHT, 176
    out, most = [_begin(title, height)], max(int(counts.max()), 1)
    for tick in _ticks(0, most):
        if tick <= most:
            out.append(_level(12 + plot_h * (1 - tick / most), f"{tick:g}"))
    for k, count in enumerate(counts):
        tall = plot_h * count / most
        out.append(
            f'<rect class="bar" x="{_LEFT + plot_w * k / 60:.1f}" y="{12 + plot_h - tall:.1f}" '
            f'width="{plot_w / 60 - 1:.1f}" height="{tall:.1f}"><title>{edges[k]:.3g} to '
            f"{edges[k + 1]:.3g} ms: {count}</title></rect>"
        )
    for tick in _ticks(0, high, 8):
        if tick <= high:
            out.append(_text(_LEFT + plot_w * tick / high, height - 34, f"{tick:g}"))
    for k, percent in enumerate((50, 95, 99)):
        value = float(np.percentile(values, percent))
        x = _LEFT + plot_w * min(value / high, 1.0)
        out.append(
            f'<line class="limit" x1="{x:.1f}" x2="{x:.1f}" y1="12" y2="{12 + plot_h}"/>'
            + _text(x + 4, 24 + 15 * k, f"p{percent} {value:.2f} ms", "start")
        )
    out.append(_axes(axes, height))
    return _chart("".join(out))


def waterfall(title: str, bars: Sequence[tuple[str, float]], unit: str = "ms") -> str:
    """Stages one under another, each beginning where the one before ended."""
    whole = sum(max(value, 0.0) for _, value in bars)
    if whole <= 0:
        return _nothing()
    row, left = 24, 130
    height, plot_w = row * len(bars) + 16, _W - 130 - 110
    out, so_far = [_begin(title, height)], 0.0
    for k, (name, value) in enumerate(bars):
        y, x = 8 + row * k, left + plot_w * so_far / whole
        wide = max(plot_w * max(value, 0.0) / whole, 1.0)
        out.append(
            _text(left - 10, y + 16, name, "end")
            + f'<rect class="bar" x="{x:.1f}" y="{y + 4}" width="{wide:.1f}" height="{row - 8}"/>'
            + _text(x + wide + 6, y + 16, f"{value:.2f} {unit}", "start")
        )
        so_far += max(value, 0.0)
    out.append("</svg>")
    return _chart("".join(out))


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Words on the left, figures on the right."""

    def cell(value: object) -> str:
        if isinstance(value, float):
            return f'<td class="n">{value:,.3g}</td>'
        if isinstance(value, int) and not isinstance(value, bool):
            return f'<td class="n">{value:,}</td>'
        return f"<td>{html.escape(str(value))}</td>"

    head = "".join(f"<th>{html.escape(one)}</th>" for one in heads)
    body = "".join(f"<tr>{''.join(cell(v) for v in row)}</tr>" for row in rows)
    return f'<div class="chart"><table><tr>{head}</tr>{body}</table></div>'


def _begin(title: str, height: int) -> str:
    name = html.escape(title)
    return f'<svg viewBox="0 0 {_W} {height}" role="img" aria-label="{name}"><title>{name}</title>'


def _level(y: float, label: str) -> str:
    line = f'<line class="grid" x1="{_LEFT}" x2="{_W - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
    return line + _text(_LEFT - 8, y + 4, label, "end")


def _text(x: float, y: float, words: str, anchor: str = "middle") -> str:
    return (
        f'<text class="tick" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">'
        f"{html.escape(words)}</text>"
    )


def _axes(axes: tuple[str, str], height: int) -> str:
    x, y = (html.escape(one) for one in axes)
    return (
        f'<text class="axis" x="{(_W + _LEFT) / 2}" y="{height - 10}" text-anchor="middle">{x}'
        f'</text><text class="axis" transform="translate(14 {(height - 40) / 2}) rotate(-90)" '
        f'text-anchor="middle">{y}</text></svg>'
    )


def _chart(svg: str, names: Sequence[str] = ()) -> str:
    legend = "".join(
        f'<span><i class="s{k % _COLOURS}"></i>{html.escape(name)}</span>'
        for k, name in enumerate(names)
    )
    legend = f'<p class="legend">{legend}</p>' if len(names) > 1 else ""
    return f'<div class="chart">{legend}{svg}</div>'


def _nothing() -> str:
    return '<p class="lead">Nothing was measured.</p>'


def _ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers between low and high."""
    raw = max(high - low, 1e-9) / most
    size = 10.0 ** math.floor(math.log10(raw))
    step = size * next(m for m in (1, 2, 5, 10) if m * size >= raw * (1 - 1e-9))
    return [
        round(k * step, 9) for k in range(math.ceil(low / step - 1e-9), int(high / step + 1e-9) + 1)
    ]
