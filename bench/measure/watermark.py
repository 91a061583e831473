"""The watermark: found after what happens to video, not found where there is none, seen by nobody.

Clips of 10 s: footage as it is, photos that speak (a frame of footage, calibrated as a photo and
rendered with real speech), and both darkened by a gamma of 2.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
from numpy.typing import NDArray

from lipstream.bench.measure.statistics import percentiles
from lipstream.bench.measure.watermark_attacks import ATTACKS, FPS
from lipstream.engine.errors import UsageError
from lipstream.engine.types import SAMPLE_RATE_HZ, U8
from lipstream.engine.watermark import code
from lipstream.engine.watermark.detect import MARKED_BELOW, detect, search_scores
from lipstream.engine.watermark.embed import Watermark

Report = Callable[[str, float], None]

FRAMES: Final = 10 * FPS
# Of a library, an office, a dark room; the rest are portraits in front of walls and of curtains.
FOOTAGE: Final = (
    "video/obama_challenges_library.mp4",
    "video/obama_town_halls_library.mp4",
    "video/obama_heres_the_thing.mp4",
    "video/obama_working_families_dark.mp4",
    "video/obama_yemen_red_tie.mp4",
    "video/obama_oval_20s_450.mp4",
    "video/talkers/may_5s_512.mp4",
    "video/talkers/vretalk_2.mp4",
    "video/talkers/vretalk_5.mp4",
    "video/portraits/lp_d9.mp4",
)
PHOTOS: Final = (
    "video/obama_yemen_red_tie.mp4",
    "video/talkers/may_5s_512.mp4",
    "video/talkers/vretalk_5.mp4",
    "video/portraits/lp_d10.mp4",
    "video/portraits/lp_d14.mp4",
)
# Once more, darkened.
DARKENED: Final = (*FOOTAGE[:3], PHOTOS[1], PHOTOS[3])
SPEECH: Final = "audio/jfk.flac"
_GAMMA: Final = 2.0
_MOST_PIXELS: Final = 1280 * 720
_UNMARKED_FRAMES: Final = 100
_BINS: Final = np.arange(-8.0, 8.25, 0.25)


@dataclass(frozen=True, slots=True)
class Clip:
    """Ten seconds."""

    name: str
    frames: list[U8]  # I420, u8 [h*3/2, w]

    @property
    def height(self) -> int:
        """Pixels."""
        return len(self.frames[0]) * 2 // 3


def measure_watermark(data: Path, report: Report | None = None) -> dict[str, Any]:
    """Every attack on every clip, the score's distribution on unmarked video, PSNR and speed.

    Raises: UsageError when `data` holds none of the clips; AssetError without the face landmarker.
    """
    report = (lambda what, share: None) if report is None else report
    clips = [one for one in FOOTAGE if (data / one).is_file()]
    if not clips:
        raise UsageError(f"{data} holds none of {', '.join(FOOTAGE)}")
    count = sum((data / one).is_file() for one in PHOTOS) + len(clips) + len(DARKENED)
    rows = []
    for index, clip in enumerate(every_clip(data)):
        report(f"attacks on {clip.name}", index / count)
        rows.append(attacked(clip, session=0x5EED0000 + index))
    unmarked = unmarked_scores(sorted((data / "video").rglob("*.mp[4g]")), report)
    return {
        "clips": rows,
        "attacks": by_attack(rows),
        "psnr_db": percentiles([row["psnr_db"] for row in rows]),
        "least_psnr_db": min(row["psnr_db"] for row in rows),
        "unmarked": unmarked,
        "embed_ms": {f"{w}x{h}": embed_ms(h, w) for h, w in ((512, 512), (720, 1280))},
    }


def every_clip(data: Path) -> Iterator[Clip]:
    """Footage, photos that speak, and some of each darkened."""
    for name in FOOTAGE:
        if (data / name).is_file():
            clip = Clip(f"footage {Path(name).stem}", ten_seconds(read_i420(data / name, FRAMES)))
            yield clip
            if name in DARKENED:
                yield darkened(clip)
    for name in PHOTOS:
        if (data / name).is_file():
            frames = spoken_photo(data / name, data / SPEECH)
            clip = Clip(f"photo {Path(name).stem}", ten_seconds(frames))
            yield clip
            if name in DARKENED:
                yield darkened(clip)


def read_i420(path: Path, most: int) -> list[U8]:
    """The first frames of a file, of at most 1280x720 pixels and even sides."""
    frames: list[U8] = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            shrink = min(1.0, math.sqrt(_MOST_PIXELS / (frame.width * frame.height)))
            w, h = (round(side * shrink) // 2 * 2 for side in (frame.width, frame.height))
            planes = frame.reformat(w, h, "yuv420p").to_ndarray()
            frames.append(np.ascontiguousarray(planes, np.uint8))
            if len(frames) == most:
                break
    return frames


def ten_seconds(frames: list[U8]) -> list[U8]:
    """Played forth and back as often as it takes."""
    cycle = [*range(len(frames)), *range(len(frames) - 2, 0, -1)]
    return [frames[cycle[index % len(cycle)]] for index in range(FRAMES)]


def darkened(clip: Clip) -> Clip:
    """With a gamma of 2: a face that had a luma of 140 has one of 86."""
    share = np.clip((np.arange(256) - 16) / 219, 0, 1)
    table = np.rint(16 + 219 * share**_GAMMA).astype(np.uint8)
    dark = []
    for frame in clip.frames:
        copy = frame.copy()
        copy[: clip.height] = table[frame[: clip.height]]
        dark.append(copy)
    return Clip(f"dark {clip.name}", dark)


def spoken_photo(path: Path, speech: Path) -> list[U8]:
    """A frame of a clip as a photo, that speaks for 10 s."""
    from PIL import Image

    from lipstream.calibration.build import calibrate
    from lipstream.calibration.options import CalibrationOptions
    from lipstream.engine.pipeline import Engine
    from lipstream.engine.target.bundle import load_target
    from lipstream.kernels.color import i420_to_rgb
    from lipstream.streaming.files.audio_file import AudioFile

    with AudioFile(speech) as file:
        blocks = []
        for block in file.blocks():
            blocks.append(block.speech)
            if sum(map(len, blocks)) >= 11 * SAMPLE_RATE_HZ:
                break
        sound = np.concatenate(blocks)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Image.fromarray(i420_to_rgb(read_i420(path, 1)[0])).save(folder / "photo.png")
        calibrate(
            folder / "photo.png", folder / "target", CalibrationOptions(consent="measurement")
        )
        session = Engine(load_target(folder / "target"), "live").session()
        frames = session.push(sound[: 11 * SAMPLE_RATE_HZ])
        session.close()
        return [frame.i420 for frame in frames[:FRAMES]]


def attacked(clip: Clip, session: int) -> dict[str, Any]:
    """What the detector finds after each attack, and the PSNR of the mark."""
    mark, h = Watermark(session), clip.height
    lumas = [mark.marked(frame)[:h] for frame in clip.frames]
    squares = [
        float(np.mean((marked - frame[:h].astype(np.float32)) ** 2))
        for marked, frame in zip(lumas[::10], clip.frames[::10], strict=True)
    ]
    found = {}
    for attack in ATTACKS:
        began_s = time.perf_counter()
        # What treats each frame alike need not be done to all of them.
        one = detect(attack(lumas if attack.through_a_codec else lumas[::5]))
        found[attack.name] = {
            "bits": 0 if one.session is None else 32 - (one.session ^ session).bit_count(),
            "log10_p": round(math.log10(max(one.p_value, 1e-300)), 1),
            "seconds": round(time.perf_counter() - began_s, 2),
        }
    w = clip.frames[0].shape[1]
    psnr_db = round(10 * math.log10(255**2 / float(np.mean(squares))), 2)
    return {"clip": clip.name, "width": w, "height": h, "psnr_db": psnr_db, "found": found}


def by_attack(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each attack: clips with all 32 bits, the mean of bits, the weakest find."""
    table = []
    for attack in ATTACKS:
        found = [row["found"][attack.name] for row in rows]
        bits = [one["bits"] for one in found]
        table.append(
            {
                "attack": attack.name,
                "clips": len(rows),
                "whole": sum(one == 32 for one in bits),
                "bits": round(float(np.mean(bits)), 2),
                "weakest_log10_p": max(one["log10_p"] for one in found),
            }
        )
    return table


def unmarked_scores(paths: list[Path], report: Report) -> dict[str, Any]:
    """The scores at every shift and scale of the search, in clips without a mark.

    Raises: UsageError without a clip.
    """
    if not paths:
        raise UsageError("no clip without a mark to look at")
    counts = np.zeros(len(_BINS) - 1, np.int64)
    total, squares, best, p_values = 0.0, 0.0, [], []
    for index, path in enumerate(paths):
        report(f"scores without a mark in {path.name}", index / len(paths))
        frames = read_i420(path, _UNMARKED_FRAMES)
        lumas = [frame[: len(frame) * 2 // 3] for frame in frames]
        mean: NDArray[np.float32] = np.mean(lumas, axis=0, dtype=np.float32)
        highest = -math.inf
        for scores in search_scores(mean):
            counts += np.histogram(scores, _BINS)[0]
            total += float(scores.sum(dtype=np.float64))
            squares += float((scores.astype(np.float64) ** 2).sum())
            highest = max(highest, float(scores.max()))
        best.append(highest)
        p_values.append(detect(lumas).p_value)
    n = int(counts.sum())
    return {
        "clips": len(paths),
        "scores": n,
        "mean": round(total / n, 4),
        "deviation": round(math.sqrt(squares / n), 4),
        "highest": round(max(best), 2),
        "highest_of_a_clip": percentiles(best),
        "least_p_value": min(p_values),
        "called_marked": sum(p < MARKED_BELOW for p in p_values),
        "tail": [
            {
                "z": z,
                "share": float(counts[_BINS[:-1] >= z].sum() / n),
                "normal": 0.5 * math.erfc(z / math.sqrt(2)),
                "bound": math.exp(-z * z / 2),
            }
            for z in (2.0, 3.0, 4.0, 4.5, 5.0, 5.5)
        ],
        "z_for_a_mark": {
            "without the id": round(_needed_z(n // len(paths), 0), 2),
            "with the id": round(_needed_z(n // len(paths), code.CHECK_BITS), 2),
        },
    }


def _needed_z(places: int, check_bits: int) -> float:
    """The score from which the bound says: marked."""
    return math.sqrt(2 * math.log(places / MARKED_BELOW / 2**check_bits))


def embed_ms(h: int, w: int, count: int = 200) -> dict[str, float]:
    """CPU time to mark a frame in place, percentiles, ms."""
    random = np.random.default_rng(0)
    frame = np.clip(random.normal(110, 12, (h * 3 // 2, w)), 16, 235).astype(np.uint8)
    mark, copy = Watermark(1), frame.copy()
    mark.prepare(h, w)
    spent = []
    for _ in range(count):
        np.copyto(copy, frame)
        began_s = time.thread_time()
        mark.apply(copy)
        spent.append((time.thread_time() - began_s) * 1000)
    return percentiles(spent)


def watermark_text(found: dict[str, Any]) -> str:
    """The figures as a table."""
    lines = [f"{'attack':36s} all 32 bits   bits   weakest find"]
    for row in found["attacks"]:
        lines.append(
            f"{row['attack']:36s} {row['whole']:5d} of {row['clips']:<3d} {row['bits']:6.1f}"
            f"   p < 1e{math.ceil(row['weakest_log10_p']):+d}"
        )
    unmarked, psnr = found["unmarked"], found["psnr_db"]
    lines.append(f"PSNR {psnr['p50']:.1f} dB, least {found['least_psnr_db']:.1f} dB")
    for size, spent in found["embed_ms"].items():
        lines.append(f"{size}: {spent['p50']:.2f} ms of one core a frame, p95 {spent['p95']:.2f}")
    lines.append(
        f"{unmarked['clips']} clips without a mark: {unmarked['called_marked']} called marked; "
        f"{unmarked['scores']} scores, deviation {unmarked['deviation']}, "
        f"highest {unmarked['highest']}; a mark needs {unmarked['z_for_a_mark']}"
    )
    lines += [
        f"  share above {row['z']}: {row['share']:.2e}, normal {row['normal']:.2e}, "
        f"bound {row['bound']:.2e}"
        for row in unmarked["tail"]
    ]
    return "\n".join(lines)
