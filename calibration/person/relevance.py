"""`calibrate --adapt`: the relevance of each feature for one person's mouth texture.

The texture of a mouth is predicted from frames with similar features (`engine.target.appearance`).
By default every feature has the same weight for everybody. For one person the turn of the head
changes the light on the lips, for another it does not. Here the weights are learned by gradient
descent on the error of each second of the footage, predicted from the rest (automatic relevance
determination: Rasmussen and Williams, 2006, §5.1).

The first part of the footage is the training set. The next part is for early stopping. On the last
part mouths are painted with the default and with the learned weights, equally sharp; the learned
weights are kept only where PSNR and SSIM together gain, and neither loses.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from lipstream.calibration import bundle_writer
from lipstream.calibration.person.appearance_fit import (
    AppearanceFit,
    MouthTextures,
    fit_appearance,
)
from lipstream.calibration.person.leave_one_out import EXCLUSION_WINDOW_S
from lipstream.engine.errors import UsageError
from lipstream.engine.extras import require
from lipstream.engine.face.mesh import build_mesh
from lipstream.engine.face.model import face_model
from lipstream.engine.networks.registry import shipped
from lipstream.engine.rendering.refiner import Renderer, load_renderer
from lipstream.engine.target.bundle import Target, load_target
from lipstream.engine.types import F32

if TYPE_CHECKING:
    import torch

Report = Callable[[str, float], None]
# Change of each score when other frames of the same footage are drawn: less is chance.
_CHANCE: Final = {"psnr_db": 0.1, "ssim": 0.002}
_TOO_FEW: Final = "not adapted: too few usable frames to learn from"
_NO_GAIN: Final = "not adapted: no gain on held-out footage"
_PROGRESS: Final = "learning feature relevance"
_MIN_SHARPNESS: Final = 0.9  # relative to the camera's


@dataclass(frozen=True, slots=True)
class AdaptOptions:
    """Limits of the descent, and the parts of the footage."""

    rate: float = 0.05
    steps: int = 60
    time_limit_s: float = 200.0
    used_fraction: float = 1.0  # of the footage, from its start
    stopping_from: float = 0.6  # start of the early-stopping part, as a fraction of the used frames
    evaluation_from: float = 0.8  # start of the evaluation part
    max_frames: int = 500  # fitted to, spread over the used frames
    stop_every: int = 5  # steps between evaluations of the early-stopping part
    patience: int = 2  # such evaluations without a gain
    regularisation: float = 1e-3  # cost of the squared logarithm of a weight


def require_adaptable(footage: Path) -> None:
    """Check what adapting needs, before any work.

    Raises:
        UsageError: torch is not installed, or `footage` is a photo.
    """
    from lipstream.calibration.media.video import is_photo

    require("torch", "--adapt", "torch")
    if is_photo(footage):
        raise UsageError("--adapt learns from motion, and a photo has none; leave it out")


def adapt(folder: Path, report: Report, options: AdaptOptions = AdaptOptions()) -> dict[str, Any]:
    """Adapt the finished bundle in `folder`; its appearance is rewritten if the scores gain.

    Returns figures: `kept`; `default_score` and `score`, the unexplained variance of the textures
    in the early-stopping part with default and learned weights (0: none, 1: all); `steps`,
    `seconds`, and `summary`, a sentence.
    """
    began = time.monotonic()
    clip = load_target(folder)
    total = int(len(clip.track) * options.used_fraction)
    stopping, evaluation = (
        int(total * start) for start in (options.stopping_from, options.evaluation_from)
    )
    if clip.similarity is None or clip.appearance is None:
        return _figures(began, 0, None, _TOO_FEW)
    window_frames = EXCLUSION_WINDOW_S * float(clip.fps)
    mesh, read = build_mesh(face_model()), clip.frames.decoder().read
    textures = MouthTextures.of(clip.track, read, clip.similarity, mesh, clip.source_frames)
    few = textures.of_frames(textures.frames < total, options.max_frames)
    default = fit_appearance(few, window_frames)
    if default is None:
        return _figures(began, 0, None, _TOO_FEW)
    report(_PROGRESS, 0.0)
    best = _Best(None, 0, (1.0, 1.0))
    for best in _descent(few, default, window_frames, (stopping, evaluation), options):
        spent = (time.monotonic() - began) / options.time_limit_s
        report(_PROGRESS, min(1.0, max(spent, best.steps / options.steps)))
        if spent >= 1:
            break
    steps, scores = best.steps, best.scores
    adapted = None
    if scores[1] < scores[0]:
        adapted = fit_appearance(textures, window_frames, best.relevance)
    if adapted is None:
        return _figures(began, steps, scores, _NO_GAIN)
    gains, sharpen = _gains(clip, replace(clip, appearance=adapted.appearance), (evaluation, total))
    if not _is_gain(gains):
        return _figures(began, steps, scores, _NO_GAIN)
    bundle_writer.write_appearance(folder, adapted.appearance)
    bundle_writer.note_sharpen(folder, sharpen, shipped("renderer").safetensors)
    summary = (
        f"adapted: on held-out footage, PSNR {gains['psnr_db']:+.2f} dB, SSIM {gains['ssim']:+.3f}"
    )
    return {**_figures(began, steps, scores, summary), "kept": True}


class _Best(NamedTuple):
    """State of a descent."""

    relevance: F32 | None  # f32 [F], the best so far; None at the start
    steps: int  # done
    scores: tuple[float, float]  # of the early-stopping part, with weights 1 and with the best


def _descent(
    textures: MouthTextures,
    default: AppearanceFit,
    window_frames: float,
    parts: tuple[int, int],
    options: AdaptOptions,
) -> Iterator[_Best]:
    """The state every few steps, until the early-stopping part gains no more.

    parts: first frames of the early-stopping and of the evaluation part.
    """
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    score = _Score(textures, default, device)
    frames = textures.frames
    windows = float(frames[-1] - frames[0] + 1) / (2 * window_frames)
    folds = np.array_split(np.arange(len(frames)), max(4, round(windows)))
    stopping, evaluation = parts
    trained = [rows for rows in folds if frames[rows[-1]] < stopping - window_frames]
    stops = [rows for rows in folds if stopping <= frames[rows[0]] < evaluation - window_frames]
    logs = torch.zeros(
        textures.features.shape[1], dtype=torch.float64, device=device, requires_grad=True
    )
    if not trained or not stops:
        return
    optimizer = torch.optim.Adam([logs], lr=options.rate)
    relevance, default_score, least, waited = None, 1.0, np.inf, 0
    for step in range(options.steps + 1):
        if step % options.stop_every == 0:
            with torch.no_grad():
                now = float(score(logs, stops))
            default_score = now if step == 0 else default_score
            waited += 1
            if now < least:
                least, waited = now, 0
                relevance = logs.detach().exp().cpu().numpy().astype(np.float32)
            yield _Best(relevance, step, (default_score, least))
            if waited > options.patience:
                return
        loss = score(logs, trained) + options.regularisation * (logs**2).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


class _Score:
    """Fraction of the texture variance of each fold that the frames outside it do not predict."""

    def __init__(self, textures: MouthTextures, fit: AppearanceFit, device: str) -> None:
        import torch

        self._features = torch.tensor(textures.features, dtype=torch.float64, device=device)
        self._coefficients = torch.tensor(fit.pca_coefficients, device=device)
        variance = fit.appearance.spread().astype(np.float64) ** 2
        variance /= variance.sum()
        self._variance = torch.tensor(variance, device=device)
        self._length_scale, self._noise = fit.appearance.length_scale, fit.noise
        self._identity = torch.eye(len(textures.frames), dtype=torch.float64, device=device)

    def __call__(self, logs: torch.Tensor, folds: list[Any]) -> torch.Tensor:
        """logs f64 [F], logarithms of the weights; folds: rows i64 of each fold's frames."""
        import torch

        weighted = self._features * logs.exp()
        squared = ((weighted[:, None] - weighted[None]) ** 2).sum(-1)
        distance = torch.sqrt(squared + 1e-12)  # keeps the slope finite at 0
        error = torch.zeros((), dtype=torch.float64, device=logs.device)
        pairs = zip(self._length_scale.tolist(), self._noise.tolist(), strict=True)
        for length_scale, noise in sorted({*pairs}):
            members = np.flatnonzero(
                (self._length_scale == np.float32(length_scale)) & (self._noise == noise)
            )
            coefficients, variance = self._coefficients[:, members], self._variance[members]
            if not np.isfinite(noise):
                error = error + sum(
                    ((coefficients[rows] ** 2).sum(0) * variance).sum() for rows in folds
                )
                continue
            scaled = 3**0.5 / length_scale * distance
            kernel = (1 + scaled) * torch.exp(-scaled) + noise * self._identity
            inverse = torch.linalg.inv(kernel)
            weights = inverse @ coefficients
            for rows in folds:
                residual = torch.linalg.solve(inverse[rows][:, rows], weights[rows])
                error = error + ((residual**2).sum(0) * variance).sum()
        return error / sum(len(rows) for rows in folds)


def _gains(clip: Target, adapted: Target, span: tuple[int, int]) -> tuple[dict[str, float], float]:
    """Gain of each score on mouths painted in a span of frames, and the adapted sharpening.

    Empty where the footage is too short.
    """
    from lipstream.calibration.person.evaluation import Evaluator

    renderer = load_renderer("network", "auto", sharpen=clip.sharpen)
    assert renderer is not None, "asked for by name"
    before = Evaluator(clip, span).figures(renderer)
    evaluator = Evaluator(adapted, span)
    if not before:
        return {}, clip.sharpen
    # Scores depend on sharpness: both are brought to the same.
    sharpen = evaluator.sharpening(renderer, before["sharpness"])
    after = evaluator.figures(Renderer(renderer.network, renderer.crop_resolution, sharpen))
    gains = {name: after[name] - before[name] for name in _CHANCE}
    gains["softer"] = after["sharpness"] < min(before["sharpness"], _MIN_SHARPNESS)
    return gains, sharpen


def _is_gain(gains: dict[str, float]) -> bool:
    """Whether PSNR and SSIM together gain more than chance, and neither loses as much."""
    relative = [gains[name] / chance for name, chance in _CHANCE.items() if name in gains]
    if len(relative) < len(_CHANCE) or gains["softer"]:
        return False
    return min(relative) >= -1 and sum(relative) >= 1


def _figures(
    began_s: float, steps: int, scores: tuple[float, float] | None, summary: str
) -> dict[str, Any]:
    return {
        "kept": False,
        "default_score": None if scores is None else round(scores[0], 5),
        "score": None if scores is None else round(scores[1], 5),
        "steps": steps,
        "seconds": round(time.monotonic() - began_s, 1),
        "summary": summary,
    }
