"""`calibrate --adapt`: how much each reading of a frame tells of one person's mouth.

What a mouth looks like is foretold from frames with like readings (`engine.target.appearance`).
Readings count as they do for everybody, which is not how they tell most of this person: for one the
turn of the head changes the light on the lips, for another it does not. Here their weights are
learned, by descending on what each second of the footage looks like, foretold from the others
(automatic relevance determination: Rasmussen and Williams, 2006, §5.1).

The first part of the footage is learned from; the next one stops it, when it sees no more gain; the
last one judges: mouths are painted with what was known before and with this, one as sharp as the
other, and unless the latter are nearer to the camera's in PSNR and SSIM together, and farther in
neither, all stays as it was.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from lipstream.calibration import bundle_writer
from lipstream.calibration.person.appearance_fit import Learned, MouthTextures, learn
from lipstream.calibration.person.leave_one_out import EXCLUSION_WINDOW_S
from lipstream.engine.errors import UsageError
from lipstream.engine.face.mesh import build_mesh
from lipstream.engine.face.model import face_model
from lipstream.engine.networks.registry import shipped
from lipstream.engine.rendering.refiner import Renderer, load_renderer
from lipstream.engine.target.bundle import Target, load_target
from lipstream.engine.types import F32

if TYPE_CHECKING:
    import torch

Report = Callable[[str, float], None]
# What other frames of the same footage would change in each figure: less is neither gain nor loss.
_CHANCE: Final = {"psnr_db": 0.1, "ssim": 0.002}
_SOFTEST: Final = 0.9  # of the camera's edges


@dataclass(frozen=True, slots=True)
class AdaptOptions:
    """How long to try, and from which part of the footage."""

    rate: float = 0.05
    steps: int = 60
    time_limit_s: float = 200.0
    used_share: float = 1.0  # of the footage, from its start
    stopping_from: float = 0.6  # of what is used, the part that stops it
    judging_from: float = 0.8  # and the part that judges
    most_frames: int = 500  # that are learned from at once, spread over what is used
    stop_every: int = 5
    patience: int = 2  # looks at the stopping part without a gain
    held: float = 1e-3  # what a weight costs that is not 1, the square of its logarithm


def check(footage: Path) -> None:
    """Tell early what adapting needs.

    Raises: UsageError without torch, or for a photo.
    """
    from lipstream.calibration.media.video import is_photo

    if importlib.util.find_spec("torch") is None:
        raise UsageError("--adapt needs torch; pip install 'lipstream[torch]', or leave it out")
    if is_photo(footage):
        raise UsageError("--adapt learns from motion, and a photo has none; leave it out")


def adapt(folder: Path, report: Report, options: AdaptOptions = AdaptOptions()) -> dict[str, Any]:
    """Adapt the finished bundle in `folder`; if it gains, its appearance is written anew.

    Returns figures: `kept`; `universal_score` and `score`, what of the looks of the stopping part
    is not foretold, before and after (0: all is, 1: nothing); `steps`, `seconds`, and `told`, a
    sentence for people.
    """
    began = time.monotonic()
    clip = load_target(folder)
    total = int(len(clip.track) * options.used_share)
    stopping, judging = (
        int(total * share) for share in (options.stopping_from, options.judging_from)
    )
    if clip.similarity is None or clip.appearance is None:
        return _figures(began, 0, None, "not adapted: too few usable frames to learn from")
    apart = EXCLUSION_WINDOW_S * float(clip.fps)
    mesh, read = build_mesh(face_model()), clip.frames.decoder().read
    textures = MouthTextures.of(clip.track, read, clip.similarity, mesh, clip.source_frames)
    few = textures.of_frames(textures.frames < total, options.most_frames)
    known = learn(few, apart)
    if known is None:
        return _figures(began, 0, None, "not adapted: too few usable frames to learn from")
    report("learning what tells of this mouth", 0.0)
    best = _Best(None, 0, (1.0, 1.0))
    for best in _descent(few, known, apart, (stopping, judging), options):
        spent = (time.monotonic() - began) / options.time_limit_s
        done = min(1.0, max(spent, best.steps / options.steps))
        report("learning what tells of this mouth", done)
        if spent >= 1:
            break
    steps, scores = best.steps, best.scores
    told = "not adapted: on footage it had not learned from, what was known before was as good"
    found = None if scores[1] >= scores[0] else learn(textures, apart, best.relevance)
    if found is None:
        return _figures(began, steps, scores, told)
    frame_offset = replace(clip, appearance=found.appearance)
    gains, sharpen = _gains(clip, frame_offset, (judging, total))
    pca_coefficients = [gains[name] / chance for name, chance in _CHANCE.items() if name in gains]
    if (
        len(pca_coefficients) < len(_CHANCE)
        or gains["softer"]
        or min(pca_coefficients) < -1
        or sum(pca_coefficients) < 1
    ):
        return _figures(began, steps, scores, told)
    bundle_writer.write_appearance(folder, found.appearance)
    bundle_writer.note_sharpen(folder, sharpen, shipped("renderer").safetensors)
    told = (
        "adapted: on footage it had not learned from, PSNR "
        f"{gains['psnr_db']:+.2f} dB, SSIM {gains['ssim']:+.3f}"
    )
    return {**_figures(began, steps, scores, told), "kept": True}


class _Best(NamedTuple):
    """Where a descent stands."""

    relevance: F32 | None  # f32 [F], the best so far; None before any
    steps: int  # done
    scores: tuple[float, float]  # of the stopping part, with all counts 1 and with the best


def _descent(
    textures: MouthTextures,
    known: Learned,
    apart: float,
    parts: tuple[int, int],
    options: AdaptOptions,
) -> Iterator[_Best]:
    """How it stands every few steps, until the stopping part sees no more gain."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    score = _Score(textures, known, device)
    seconds = np.array_split(
        np.arange(len(textures.frames)), max(4, round(_moments(textures, apart)))
    )
    stopping, judging = parts
    learned = [at for at in seconds if textures.frames[at[-1]] < stopping - apart]
    stops = [at for at in seconds if stopping <= textures.frames[at[0]] < judging - apart]
    logs = torch.zeros(
        textures.features.shape[1], dtype=torch.float64, device=device, requires_grad=True
    )
    if not learned or not stops:
        return
    optimizer = torch.optim.Adam([logs], lr=options.rate)
    relevance, before, least, waited = None, 1.0, np.inf, 0
    for step in range(options.steps + 1):
        if step % options.stop_every == 0:
            with torch.no_grad():
                now = float(score(logs, stops))
            before = now if step == 0 else before
            waited += 1
            if now < least:
                least, waited = now, 0
                relevance = logs.detach().exp().cpu().numpy().astype(np.float32)
            yield _Best(relevance, step, (before, least))
            if waited > options.patience:
                return
        loss = score(logs, learned) + options.held * (logs**2).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _moments(textures: MouthTextures, apart: float) -> float:
    """How many moments of twice `apart` frames the looks span."""
    return float(textures.frames[-1] - textures.frames[0] + 1) / (2 * apart)


class _Score:
    """What of the looks of some frames is not foretold from all frames but their own second."""

    def __init__(self, textures: MouthTextures, known: Learned, device: str) -> None:
        import torch

        self._features = torch.tensor(textures.features, dtype=torch.float64, device=device)
        self._shares = torch.tensor(known.pca_coefficients, device=device)
        part = known.appearance.spread().astype(np.float64) ** 2
        part /= part.sum()
        self._part = torch.tensor(part, device=device)
        self._reach, self._noise = known.appearance.length_scale, known.noise
        self._same = torch.eye(len(textures.frames), dtype=torch.float64, device=device)

    def __call__(self, logs: torch.Tensor, seconds: list[Any]) -> torch.Tensor:
        """logs f64 [F], of the weights; seconds: of each the rows of its frames."""
        import torch

        counted = self._features * logs.exp()
        between = ((counted[:, None] - counted[None]) ** 2).sum(-1)
        distance = torch.sqrt(between + 1e-12)  # whose slope is finite at 0
        missed = torch.zeros((), dtype=torch.float64, device=logs.device)
        pairs = zip(self._reach.tolist(), self._noise.tolist(), strict=True)
        for length_scale, noise in sorted({*pairs}):
            felt = np.flatnonzero(
                (self._reach == np.float32(length_scale)) & (self._noise == noise)
            )
            pca_coefficients, part = self._shares[:, felt], self._part[felt]
            if not np.isfinite(noise):
                missed = missed + sum(
                    ((pca_coefficients[at] ** 2).sum(0) * part).sum() for at in seconds
                )
                continue
            scaled = 3**0.5 / length_scale * distance
            kernel = (1 + scaled) * torch.exp(-scaled) + noise * self._same
            inverse = torch.linalg.inv(kernel)
            weights = inverse @ pca_coefficients
            for at in seconds:
                off = torch.linalg.solve(inverse[at][:, at], weights[at])
                missed = missed + ((off**2).sum(0) * part).sum()
        return missed / sum(len(at) for at in seconds)


def _gains(
    clip: Target, frame_offset: Target, span: tuple[int, int]
) -> tuple[dict[str, float], float]:
    """What painted mouths of a span of frames gain, by name, and by how much to sharpen then."""
    from lipstream.calibration.person.evaluation import Evaluator

    renderer = load_renderer("network", "auto", sharpen=clip.sharpen)
    assert renderer is not None, "asked for by name"
    before = Evaluator(clip, span).figures(renderer)
    judge = Evaluator(frame_offset, span)
    if not before:
        return {}, clip.sharpen
    # As sharp as one another, so that they compare.
    sharpen = judge.sharpening(renderer, before["sharpness"])
    after = judge.figures(Renderer(renderer.network, renderer.crop_resolution, sharpen))
    gains = {name: after[name] - before[name] for name in _CHANCE}
    gains["softer"] = after["sharpness"] < min(before["sharpness"], _SOFTEST)
    return gains, sharpen


def _figures(
    began_s: float, steps: int, scores: tuple[float, float] | None, told: str
) -> dict[str, Any]:
    return {
        "kept": False,
        "universal_score": None if scores is None else round(scores[0], 5),
        "score": None if scores is None else round(scores[1], 5),
        "steps": steps,
        "seconds": round(time.monotonic() - began_s, 1),
        "told": told,
    }
