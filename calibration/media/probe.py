"""Finds rate and origin of footage from presentation times, because headers lie."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import numpy as np

from lipstream.calibration.media.decoding import decoded
from lipstream.calibration.media.opening import media_errors, open_media, video_stream
from lipstream.engine.errors import MediaError

MAX_FPS: Final = 60
STANDARD_RATES: Final = (
    Fraction(24000, 1001),
    Fraction(24),
    Fraction(25),
    Fraction(30000, 1001),
    Fraction(30),
    Fraction(48),
    Fraction(50),
    Fraction(60000, 1001),
    Fraction(60),
)
_DURATION: Final = re.compile(r"(\d{1,6}):(\d{1,2}):(\d{1,2}(?:\.\d*)?)", re.ASCII)
_PROBE_PACKETS: Final = 3000  # two minutes at 25 fps: enough to tell 29.97 from 30 in ms stamps


@dataclass(frozen=True, slots=True)
class Source:
    """Rate and time window of footage."""

    origin_s: float  # presentation time of grid frame 0, on the file's own clock
    end_s: float | None  # presentation time to stop at, on the file's own clock
    fps: Fraction
    notes: tuple[str, ...]


def _packet_times_s(path: Path) -> list[float]:
    """Presentation times of the first packets, sorted; none for an elementary stream."""
    times: list[float] = []
    with open_media(path) as container:
        stream = video_stream(container, path)
        base = stream.time_base or Fraction(1, 1000)
        with media_errors(path):
            for packet in container.demux(stream):
                ticks = packet.pts if packet.pts is not None else packet.dts
                if ticks is not None and packet.size:
                    times.append(float(ticks * base))
                if len(times) >= _PROBE_PACKETS:
                    break
    times.sort()
    return times


def probe(path: Path, start_s: float | None, end_s: float | None) -> Source:
    """Rate and origin of footage, from its presentation times.

    Raises:
        MediaError: not a video, no frame, or a start or end outside of it.
    """
    for name, value in (("start", start_s), ("end", end_s)):
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise MediaError(f"--{name} is {value}; expected seconds from the beginning, 0 or more")
    if start_s is not None and end_s is not None and end_s <= start_s:
        raise MediaError(f"--end {end_s:g} lies before --start {start_s:g}")
    with open_media(path) as container:
        stream = video_stream(container, path)
        times = _packet_times_s(path)
        if not times and not stream.average_rate:
            raise MediaError(f"{path}: has a video stream without a single frame")
        # Decode for the origin: with an edit list the first packets are not shown at all.
        first_s = next((t for t, _ in decoded(path, -math.inf)), None)
        if first_s is None:
            raise MediaError(f"{path}: no frame could be decoded; is the file whole?")
        fps, rate_note = constant_rate([t for t in times if t >= first_s], stream.average_rate)
    origin_s = first_s
    if start_s:
        frames = decoded(path, first_s + start_s - 0.5 / float(fps))
        origin_s = next((time_s for time_s, _ in frames), math.nan)
        if math.isnan(origin_s):
            raise MediaError(f"{path}: ends before --start {start_s:g}")
    notes = (rate_note,) if rate_note else ()
    return Source(origin_s, None if end_s is None else first_s + end_s, fps, notes)


def constant_rate(times_s: list[float], declared: Fraction | None) -> tuple[Fraction, str]:
    """Rate of the target for footage with these presentation times, and a note if it differs.

    A rate within 0.5 % of a broadcast rate is that rate. Slower than 24 or faster than 60 is
    multiplied or divided by a whole number; an odd or variable rate goes up to the next broadcast
    rate, so that no frame of the footage is lost to rounding.
    """
    steps = np.diff(np.asarray(times_s, np.float64))
    steps = steps[steps > 1e-6]
    if steps.size:
        typical = float(np.median(steps))
        steady = float(np.mean(np.abs(steps - typical) < max(0.2 * typical, 0.0015))) > 0.9
        usual = steps[np.abs(steps - typical) < 0.5 * typical] if steady else steps
        rate = 1.0 / float(np.mean(usual))
    elif declared:
        rate, steady = float(declared), True
    else:
        rate, steady = 25.0, True
    whole = rate
    if whole < float(STANDARD_RATES[0]) * 0.995:
        whole *= math.ceil(float(STANDARD_RATES[0]) * 0.995 / whole)
    if whole > MAX_FPS * 1.005:
        whole /= math.ceil(whole / (MAX_FPS * 1.005))
    nearest = min(STANDARD_RATES, key=lambda r: abs(float(r) - whole))
    if abs(float(nearest) - whole) / whole > 0.005:
        nearest = next((r for r in STANDARD_RATES if float(r) >= whole), STANDARD_RATES[-1])
    kind = "" if steady else "variable rate, "
    if steady and abs(float(nearest) - rate) / rate <= 0.005:
        return nearest, ""
    return nearest, f"{kind}{rate:.2f} fps converted to {float(nearest):.2f}"


def declared_end_s(stream: av.VideoStream) -> float | None:
    """The end of the video by its header, on the file's clock, s."""
    if stream.duration is not None and stream.time_base is not None:
        return float(((stream.start_time or 0) + stream.duration) * stream.time_base)
    tag = stream.metadata.get("DURATION")  # Matroska: "00:00:20.040000000"
    stated = _DURATION.fullmatch(tag.strip()) if tag else None
    if stated is not None:
        hours, minutes, seconds = stated.groups()
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    return None


def refuse_truncated(stream: av.VideoStream, path: Path, end_s: float | None) -> None:
    """Check that every packet in the index of an MP4 lies within the file; raises MediaError."""
    size = path.stat().st_size
    base = stream.time_base or Fraction(1, 1000)
    entries = stream.index_entries
    for k in range(len(entries)):
        entry = entries[k]
        at_s = float(entry.timestamp * base)
        if end_s is not None and at_s > end_s + 1.0:
            return
        if entry.pos + entry.size > size:
            raise MediaError(
                f"{path}: is cut short, the picture stops at {max(0.0, at_s):.1f} s; copy the file "
                f"again" + (f", or use --end {at_s - 1.2:.1f}" if at_s > 2.2 else "")
            )
