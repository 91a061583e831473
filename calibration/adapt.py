"""`calibrate --adapt`: the universal renderer, fitted to one person's footage.

The first part of the footage is learned from; the last part judges. Training stops when the judge
sees no more gain, or when the time is up. The best that was seen goes half-way back to the
universal weights: footage not yet seen gains as much or more so, and loses less where it differs
(Wortsman et al., "Robust fine-tuning of zero-shot models", 2022). Then mouths of the last part are
painted with the universal weights and with these, one as sharp as the other; unless the latter are
nearer to the camera's in PSNR and SSIM together, and farther in neither, the universal ones stay.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lipstream.calibration import bundle
from lipstream.engine.ahead import ahead
from lipstream.engine.errors import UsageError
from lipstream.engine.renderer import load_renderer, shipped_model

if TYPE_CHECKING:
    import torch

Report = Callable[[str, float], None]
WEIGHTS: Final = "renderer.safetensors"
# What other frames of the same footage would change in each figure: less is neither gain nor loss.
_CHANCE: Final = {"psnr_db": 0.1, "ssim": 0.002}
_SOFTEST: Final = 0.9  # of the camera's edges
_LEARNED: Final = 0.5  # of what the weights changed by


@dataclass(frozen=True, slots=True)
class AdaptOptions:
    """How long to try, and from which weights."""

    universal: Path = shipped_model().safetensors
    seed: int = 0
    rate: float = 2e-4
    batch: int = 6
    steps: int = 1200
    time_limit_s: float = 240.0
    used_share: float = 1.0  # of the footage, from its start
    judged_share: float = 0.2  # of what is used, its end
    judged_examples: int = 32
    judge_every: int = 40
    patience: int = 4  # judgements without a gain
    least_gain: float = 0.005  # of the score, below which the universal weights stay
    least_pairs: int = 50  # of frames to learn from


def check(footage: Path) -> None:
    """Tell early what adapting needs.

    Raises: UsageError without torch, or for a photo.
    """
    from lipstream.calibration.video import is_photo

    if importlib.util.find_spec("torch") is None:
        raise UsageError("--adapt needs torch; pip install 'lipstream[torch]', or leave it out")
    if is_photo(footage):
        raise UsageError("--adapt learns from motion, and a photo has none; leave it out")


def adapt(folder: Path, report: Report, options: AdaptOptions = AdaptOptions()) -> dict[str, Any]:
    """Adapt to the finished bundle in `folder`; if it gains, add renderer.safetensors and how much
    it has to sharpen.

    Returns figures: `kept`, `score` and `universal_score` (the loss on the judging part, less is
    better), `steps`, `seconds`, and `told`, a sentence for people.
    """
    import torch

    from lipstream.calibration.likeness import Judge
    from lipstream.calibration.pretrain.export_renderer import save_weights
    from lipstream.calibration.pretrain.mouth_pairs import APART_FRAMES, Person
    from lipstream.calibration.pretrain.train_renderer import RendererTrainer, RendererTraining
    from lipstream.engine.renderer_torch import load_net
    from lipstream.engine.target import load_target

    began = time.monotonic()
    clip = load_target(folder)
    total = int(len(clip.track) * options.used_share)
    judged_from = total - max(int(total * options.judged_share), 1)
    learned = Person("learned", [clip], (0, judged_from - APART_FRAMES), varied=False)
    judge = Person("judge", [clip], (judged_from, total), varied=False)
    unseen = Judge(clip, (judged_from, total))
    if learned.pairs < options.least_pairs or not unseen.frames:
        return _figures(began, 0, None, "not adapted: too few usable frames to learn from")
    # One core lays mouths on faces, the others train. Threads that wait for one another on a busy
    # machine spin: two of them took 15 times as long as one.
    torch.set_num_threads(max(1, (os.cpu_count() or 1) - 1))
    torch.manual_seed(options.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    training = RendererTraining(
        options.seed,
        options.steps,
        options.batch,
        options.rate,
        adversarial_from=0.0,  # without, mouths come out softer, and SSIM pays for sharpening them
        device=device,
    )
    trainer = RendererTrainer(load_net(options.universal).train(), training)
    rng = np.random.default_rng(options.seed)
    exam = _batch(judge, options.judged_examples, rng)
    universal = best = trainer.score(*exam)
    shared_weights = {name: value.clone() for name, value in trainer.mean.items()}
    weights, waited = None, 0
    report("adapting the renderer", 0.0)
    batches = ahead(_batch(learned, options.batch, rng) for _ in itertools.count())
    while trainer.steps_done < options.steps and waited < options.patience:
        spent = (time.monotonic() - began) / options.time_limit_s
        trainer.step(*next(batches), max(spent, trainer.steps_done / options.steps))
        if trainer.steps_done % options.judge_every == 0 or spent >= 1:
            report(
                "adapting the renderer", min(1.0, max(spent, trainer.steps_done / options.steps))
            )
            score = trainer.score(*exam)
            waited += 1
            if score < best * (1 - options.least_gain / 4):
                waited = 0
            if score < best:
                best = score
                weights = {
                    name: value.lerp(trainer.mean[name], _LEARNED)
                    for name, value in shared_weights.items()
                }
        if spent >= 1:
            break
    batches.close()
    steps = trainer.steps_done
    scores = (universal, best)
    told = "not adapted: on footage it had not learned from, the universal renderer was as good"
    if weights is None or best > universal * (1 - options.least_gain):
        return _figures(began, steps, scores, told)
    save_weights(weights, folder / WEIGHTS, {"steps": str(steps), "seed": str(options.seed)})
    shared, own = (
        load_renderer("network", "auto", path, sharpen=clip.sharpen)
        for path in (options.universal, folder / WEIGHTS)
    )
    assert shared is not None and own is not None, "asked for by name"
    before = unseen.figures(shared)
    # As sharp as one another, so that they compare.
    own.sharpen = unseen.sharpening(own, before["sharpness"])
    after = unseen.figures(own)
    gains = {name: after[name] - before[name] for name in _CHANCE}
    shares = [gains[name] / chance for name, chance in _CHANCE.items()]
    softer = after["sharpness"] < min(before["sharpness"], _SOFTEST)
    if softer or min(shares) < -1 or sum(shares) < 1:
        (folder / WEIGHTS).unlink()
        return _figures(began, steps, scores, told)
    bundle.note_sharpen(folder, own.sharpen, folder / WEIGHTS)
    told = (
        "renderer adapted: on footage it had not learned from, PSNR "
        f"{gains['psnr_db']:+.2f} dB, SSIM {gains['ssim']:+.3f}"
    )
    return {**_figures(began, steps, scores, told), "kept": True}


def _batch(person: Any, size: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    from lipstream.calibration.pretrain.mouth_pairs import as_crops

    seen, truth = as_crops([person.example(rng) for _ in range(size)])
    return torch.from_numpy(seen), torch.from_numpy(truth)


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
