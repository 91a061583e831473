"""Curves and scatter plots of the report, as inline SVG in the colors of the page."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lipstream.calibration.footage.subset import spread_over
from lipstream.engine.types import F32, I32

_WIDTH: Final = 960
_HEIGHT: Final = 200
_LEFT: Final = 48
_BOTTOM: Final = 26
_MAX_POINTS: Final = 600  # of a curve
_MAX_DOTS: Final = 1500  # of the scatter


@dataclass(frozen=True, slots=True)
class Band:
    """A stretch of frames to shade."""

    start: int  # first frame
    end: int  # one past the last
    label: str


def time_chart(
    title: str, series: Sequence[tuple[str, F32]], fps: float, bands: Sequence[Band], unit: str
) -> str:
    """Line chart over time, as HTML; gaps where a series is NaN."""
    frames = max(1, max(values.size for _, values in series))
    finite = np.concatenate([v[np.isfinite(v)] for _, v in series])
    if finite.size == 0:
        return '<p class="lead">Nothing was measured.</p>'
    low, high = min(0.0, float(finite.min())), float(finite.max())
    ticks = _ticks(low, max(high, low + 1e-3))
    low, high = min(low, ticks[0]), max(high, ticks[-1])
    plot_w, plot_h = _WIDTH - _LEFT - 12, _HEIGHT - _BOTTOM - 10

    def x(frame: float) -> float:
        return _LEFT + plot_w * frame / max(1, frames - 1)

    def y(value: float) -> float:
        return 10 + plot_h * (1 - (value - low) / (high - low))

    out = [_open(title, f"{title}, {unit}", _WIDTH, _HEIGHT)]
    for band in bands:
        left, right = x(band.start - 0.5), x(band.end - 0.5)
        out.append(
            f'<rect class="band" x="{max(_LEFT, left):.1f}" y="10" '
            f'width="{max(1.5, right - left):.1f}" height="{plot_h}">'
            f"<title>{html.escape(band.label)}</title></rect>"
        )
    for tick in ticks:
        out.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - 12}" y1="{y(tick):.1f}" '
            f'y2="{y(tick):.1f}"/><text class="tick" x="{_LEFT - 8}" y="{y(tick) + 4:.1f}" '
            f'text-anchor="end">{tick:g}</text>'
        )
    duration_s = (frames - 1) / fps
    for tick in _ticks(0.0, max(duration_s, 0.1), 8):
        if tick <= duration_s:
            out.append(
                f'<text class="tick" x="{x(tick * fps):.1f}" y="{_HEIGHT - 6}" '
                f'text-anchor="middle">{tick:g} s</text>'
            )
    for k, (_, values) in enumerate(series):
        path = _path(values, x, y)
        out.append(f'<path class="line s{k}" d="{path}"/>')
    out.append("</svg>")
    chart = "".join(out)
    if len(series) == 1:
        return f'<div class="chart">{chart}</div>'
    legend = "".join(
        f'<span><i class="s{k}"></i>{html.escape(name)}</span>'
        for k, (name, _) in enumerate(series)
    )
    return f'<div class="chart"><p class="legend">{legend}</p>{chart}</div>'


def coverage_chart(opening: F32, width: F32, keep: NDArray[np.bool_], sources: I32) -> str:
    """Scatter plot of opening against mouth width, as HTML; dots are frames, rings are sources."""
    shown = keep & np.isfinite(opening) & np.isfinite(width)
    if not shown.any():
        return '<p class="lead">Nothing was measured.</p>'
    size_w, size_h = 620, 380
    centre = float(np.median(width[shown]))
    span = max(0.15, float(np.abs(width[shown] - centre).max()) * 1.05)
    top = max(0.2, float(opening[shown].max()) * 1.05)

    def x(value: float) -> float:
        return 56 + (size_w - 70) * (value - centre + span) / (2 * span)

    def y(value: float) -> float:
        return 12 + (size_h - 56) * (1 - max(0.0, value) / top)

    out = [_open("Coverage of mouth shapes", "lip opening against mouth width", size_w, size_h)]
    for tick in _ticks(0.0, top):
        if tick <= top:
            out.append(
                f'<line class="grid" x1="56" x2="{size_w - 14}" y1="{y(tick):.1f}" '
                f'y2="{y(tick):.1f}"/><text class="tick" x="48" y="{y(tick) + 4:.1f}" '
                f'text-anchor="end">{tick:g}</text>'
            )
    for tick in _ticks(centre - span, centre + span):
        if abs(tick - centre) <= span:
            out.append(
                f'<text class="tick" x="{x(tick):.1f}" y="{size_h - 26}" '
                f'text-anchor="middle">{tick:g}</text>'
            )
    frames = spread_over(np.flatnonzero(shown), _MAX_DOTS)
    dots = "".join(f"M{x(float(width[k])):.1f} {y(float(opening[k])):.1f}h0" for k in frames)
    out.append(f'<path class="dots" d="{dots}"/>')
    for k in sources:
        if 0 <= k < opening.size and np.isfinite(opening[k]) and np.isfinite(width[k]):
            out.append(
                f'<circle class="ring" cx="{x(float(width[k])):.1f}" '
                f'cy="{y(float(opening[k])):.1f}" r="3.4"/>'
            )
    out.append(
        f'<text class="axis" x="{(size_w + 42) / 2}" y="{size_h - 6}" text-anchor="middle">'
        "rounded ← mouth width → spread</text>"
        f'<text class="axis" transform="translate(14 {(size_h - 44) / 2}) rotate(-90)" '
        'text-anchor="middle">lip opening →</text></svg>'
    )
    return f'<div class="chart narrow">{"".join(out)}</div>'


def _open(title: str, description: str, width: int, height: int) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{html.escape(description)}">'
        f"<title>{html.escape(title)}</title>"
    )


def _ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers that cover low to high, about `most` of them."""
    raw = (high - low) / most
    size = 10.0 ** np.floor(np.log10(raw))
    step = size * next(m for m in (1, 2, 5, 10) if m * size >= raw)
    first, last = int(np.floor(low / step)), int(np.ceil(high / step))
    return [round(k * step, 6) for k in range(first, last + 1)]


def _path(values: F32, x: Callable[[float], float], y: Callable[[float], float]) -> str:
    """SVG path; long series keep the minimum and maximum of each bin, so that peaks remain."""
    index = np.arange(values.size)
    if values.size > 2 * _MAX_POINTS:
        kept: list[int] = []
        for part in np.array_split(index, _MAX_POINTS):
            finite = part[np.isfinite(values[part])]
            if finite.size == 0:
                kept.append(int(part[0]))
            else:
                ends = {
                    int(finite[np.argmin(values[finite])]),
                    int(finite[np.argmax(values[finite])]),
                }
                kept.extend(sorted(ends))
        index = np.asarray(kept)
    steps: list[str] = []
    pen_down = False
    for k in index:
        value = float(values[k])
        if not np.isfinite(value):
            pen_down = False
            continue
        steps.append(f"{'L' if pen_down else 'M'}{x(float(k)):.1f} {y(value):.1f}")
        pen_down = True
    return "".join(steps)
