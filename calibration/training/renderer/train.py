"""Trains the renderer that ships, by self-reenactment of clips of people.

Every clip is calibrated as a user would do it; `self_reenactment` draws examples from it without
end. The first part of a run has picture losses only, the rest a discriminator as well. The weights
that ship are a running mean over the steps, which flickers less than the last weights.
"""

from __future__ import annotations

import importlib.util
import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lipstream.calibration.training.precision import computes_in_bf16
from lipstream.engine.errors import UsageError

if TYPE_CHECKING:
    import torch

    from lipstream.calibration.training.renderer.self_reenactment import Person
    from lipstream.engine.networks.renderer_torch import RendererNet
    from lipstream.engine.target.bundle import Target

Report = Callable[[str, float], None]
_RANGED_BATCHES = 6
_WARM_UP = 0.05  # of a run


@dataclass(frozen=True, slots=True)
class RendererTraining:
    """Options of a run."""

    seed: int = 0
    steps: int = 1500
    batch: int = 8
    rate: float = 6e-4
    adversarial_from: float = 0.3  # fraction of the steps without the discriminator
    loaders: int = 1
    device: str = "cpu"

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.loaders) <= 0 or not 0 < self.rate < 1:
            raise UsageError(f"{self}: expected positive numbers and a rate below 1")


def examples(
    people: Sequence[Person], seed: int, batch: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless batches, every person equally often."""
    import torch

    from lipstream.calibration.training.renderer.self_reenactment import as_crops

    rng = np.random.default_rng(seed)
    while True:
        drawn = [people[int(rng.integers(len(people)))].example(rng) for _ in range(batch)]
        seen, truth = as_crops(drawn)
        yield torch.from_numpy(seen), torch.from_numpy(truth)


def loader(people: Sequence[Person], options: RendererTraining) -> Any:
    """`examples` from worker processes."""
    from torch.utils.data import DataLoader, IterableDataset, get_worker_info

    class Stream(IterableDataset):
        def __iter__(self) -> Iterator[Any]:
            info = get_worker_info()
            seed = options.seed * 1000 + (0 if info is None else info.id)
            return examples(people, seed, options.batch)

    return DataLoader(Stream(), batch_size=None, num_workers=options.loaders, prefetch_factor=4)


class RendererTrainer:
    """One run over batches of seen u8 [B, 2, 9, h, w] and truth u8 [B, 2, 3, h, w]."""

    def __init__(self, net: RendererNet, options: RendererTraining) -> None:
        import torch

        from lipstream.calibration.training.renderer.losses import Discriminator, LossWeights

        self.options = options
        self.net = net.to(options.device).to(memory_format=torch.channels_last)
        self.mean = {name: value.clone() for name, value in self.net.state_dict().items()}
        self.discriminator = Discriminator().to(options.device)
        self.weights = LossWeights()
        self.optimiser = torch.optim.AdamW(self.net.parameters(), options.rate, weight_decay=1e-4)
        self.discriminator_optimiser = torch.optim.Adam(
            self.discriminator.parameters(), 4e-4, (0.0, 0.9)
        )
        self.steps_done = 0

    def score(self, seen: torch.Tensor, truth: torch.Tensor) -> float:
        """Weighted picture losses of the running mean; lower is better."""
        import torch

        from lipstream.calibration.training.renderer import losses as losses
        from lipstream.engine.networks.renderer_torch import net_of

        net = net_of({n: v.clone() for n, v in self.mean.items()}).to(self.options.device).eval()
        device = self.options.device
        seen, truth = seen[:, 1].to(device).float() / 255, truth[:, 1].to(device).float() / 255
        with torch.no_grad():
            ours = refined(net, seen, seen[:, :3])
            found = losses.picture_losses(ours, truth, seen[:, 3:6])
        return sum(getattr(self.weights, name) * float(value) for name, value in found.items())

    def step(
        self, seen: torch.Tensor, truth: torch.Tensor, done: float | None = None
    ) -> dict[str, float]:
        """One step of the optimiser; the losses by name.

        done: fraction of the run, which sets the rate; None for that of `steps`.
        """
        import torch

        from lipstream.calibration.training.renderer import losses as losses

        done = self.steps_done / self.options.steps if done is None else min(done, 1.0)
        falling = 0.5 + 0.5 * math.cos(math.pi * done)
        for group in self.optimiser.param_groups:
            group["lr"] = self.options.rate * min(1.0, 0.02 + done / _WARM_UP) * falling
        device = self.options.device
        seen, truth = seen.to(device).float() / 255, truth.to(device).float() / 255
        first, second = seen[:, 0], seen[:, 1]
        with torch.no_grad():
            before = refined(self.net, first, first[:, :3])
        ours = refined(self.net, second, before)
        conditioning = second[:, 3:6]
        found = losses.picture_losses(ours, truth[:, 1], conditioning)
        weight = losses.loss_weights(conditioning)[0]
        found["motion"] = losses.motion_loss(ours, before, truth[:, 1], truth[:, 0], weight)
        adversarial = self.steps_done >= self.options.adversarial_from * self.options.steps
        if adversarial:
            self.discriminator.requires_grad_(False)
            found["adversarial"] = -self.discriminator(ours).mean()
            self.discriminator.requires_grad_(True)
        total = sum((getattr(self.weights, n) * v for n, v in found.items()), torch.zeros(()))
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimiser.step()
        if adversarial:
            adversary = losses.discriminator_loss(self.discriminator, ours.detach(), truth[:, 1])
            self.discriminator_optimiser.zero_grad(set_to_none=True)
            adversary.backward()
            self.discriminator_optimiser.step()
        self.steps_done += 1
        keep = min(0.998, self.steps_done / (self.steps_done + 20))
        with torch.no_grad():
            for name, value in self.net.state_dict().items():
                self.mean[name].lerp_(value, 1 - keep)
        return {name: float(value.detach()) for name, value in found.items()}


def refined(net: RendererNet, seen: torch.Tensor, previous: torch.Tensor) -> torch.Tensor:
    """The refined crop f32 [B, 3, h, w] of seen f32 [B, 9, h, w], as the engine makes it.

    Without sharpening: a model trained with it in the loop draws a fine grid to gain edges.
    """
    import torch

    from lipstream.engine.networks.renderer_torch import apply_gates

    stack = torch.cat([seen, previous], 1).contiguous(memory_format=torch.channels_last)
    with torch.autocast(seen.device.type, torch.bfloat16, computes_in_bf16(seen.device.type)):
        gates = net(stack)
    difference = apply_gates(gates.float(), seen[:, :3], seen[:, 6:9])
    return (seen[:, :3] + difference * seen[:, 3:4]).clamp(0, 1)


def people_of(data: Path, cache: Path, report: Report) -> list[Person]:
    """The people below `data`, each clip calibrated once into `cache`.

    Files that a manifest.json reserves for tests or for lip motion are left out.

    Raises: UsageError when nothing is left.
    """
    from lipstream.calibration.training.clips import find_paintable
    from lipstream.calibration.training.renderer.self_reenactment import Person
    from lipstream.engine.errors import CalibrationError

    found = find_paintable(data)
    clips: dict[str, list[Any]] = {}
    for index, (path, speaker) in enumerate(found):
        report(f"calibrating {path.name}", index / len(found))
        try:
            clip = kept_target(path, cache)
        except CalibrationError:
            continue
        clips.setdefault(speaker, []).append(clip)
    if not clips:
        raise UsageError(f"{data}: no clip that the renderer may learn from")
    return [Person(name, own) for name, own in sorted(clips.items())]


def kept_target(path: Path, cache: Path) -> Target:
    """The calibrated clip, from `cache` if it is current.

    Raises: CalibrationError for a clip that cannot be calibrated.
    """
    from lipstream.calibration.build import CalibrationOptions, calibrate
    from lipstream.engine.errors import TargetError
    from lipstream.engine.target.bundle import load_target

    folder = cache / f"{path.stem}.target"
    try:
        if folder.is_dir():
            kept = load_target(folder)
            if kept.appearance is not None or kept.similarity is None:
                return kept
    except TargetError:
        pass  # of another version, as is a bundle with similarity but without appearance
    shutil.rmtree(folder, ignore_errors=True)
    calibrate(path, folder, CalibrationOptions())
    return load_target(folder)


def main(
    output: Path,
    data: Path,
    cache: Path | None = None,
    options: RendererTraining | None = None,
    report: Report | None = None,
    continued: Path | None = None,
) -> dict[str, Any]:
    """Train a renderer and write renderer.safetensors and renderer.onnx into `output`.

    continued: a renderer.safetensors that is trained further, in place of a new model.

    Raises:
        UsageError: torch or onnx is missing, or `data` holds no clips.
        AssetError: the face landmarker is missing.
    """
    for module in ("torch", "onnx"):
        if importlib.util.find_spec(module) is None:
            raise UsageError(f"training needs {module}; pip install 'lipstream[torch]'")
    import torch

    from lipstream.calibration.training.renderer.export import save_renderer
    from lipstream.engine.networks.renderer_torch import RendererNet, RendererSize, load_net
    from lipstream.engine.paths import cache_folder

    options = RendererTraining() if options is None else options
    report = (lambda step, fraction: None) if report is None else report
    people = people_of(data, cache_folder() / "train" if cache is None else cache, report)
    torch.manual_seed(options.seed)
    net = RendererNet(RendererSize()) if continued is None else load_net(continued).train()
    trainer = RendererTrainer(net, options)
    output.mkdir(parents=True, exist_ok=True)
    kept: list[dict[str, float]] = []
    calibration: list[torch.Tensor] = []  # inputs for the activation ranges of int8
    for step, (seen, truth) in enumerate(loader(people, options)):
        kept.append(trainer.step(seen, truth))
        if len(calibration) < _RANGED_BATCHES:
            calibration.append(torch.cat([seen[:, 1], seen[:, 1, :3]], 1).float() / 255)
        if step % 50 == 49:
            recent = {n: round(_recent(kept, n), 5) for n in kept[-1]}
            report(" ".join(f"{n} {v:.4f}" for n, v in recent.items()), step / options.steps)
        if step % 500 == 499 or step == options.steps - 1:
            notes = {k: str(v) for k, v in asdict(options).items()} | {"done": str(step + 1)}
            if continued is not None:
                notes["continued"] = continued.name
            save_renderer(
                trainer.mean, output, {"training": json.dumps(notes)}, torch.cat(calibration)
            )
        if step == options.steps - 1:
            break
    final = {name: _recent(kept, name) for name in kept[-1]}
    return {"output": str(output), "people": len(people), "steps": options.steps, "losses": final}


def _recent(kept: Sequence[dict[str, float]], name: str) -> float:
    return float(np.mean([one[name] for one in kept[-50:] if name in one]))
