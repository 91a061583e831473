"""Every file of a target bundle, flipped, cut or grown; half with checksums that agree."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save

from lipstream.calibration import bundle_writer
from lipstream.calibration.footage.jump_graph import JumpGraph
from lipstream.calibration.footage.sources import cut_source
from lipstream.engine.face.mesh import build_mesh
from lipstream.engine.pipeline import Engine
from lipstream.engine.target.appearance import TEXTURE_SHAPE, Appearance
from lipstream.engine.target.bundle import MAX_SIDE_PX, Target, load_target, mouth_sources
from lipstream.engine.target.bundle_checks import frame_rate, read_info, whole_number
from lipstream.engine.target.oral_cavity import Mouth
from lipstream.engine.target.similarity import MouthSimilarity
from lipstream.engine.target.style import Style
from lipstream.kernels.color import rgb_to_i420
from tests.fuzz.mutation import NUMBERS, mutated, mutated_text
from tests.synthetic import make_footage

FRAMES = 8
_INFO = "target.json"


def tiny_bundle(folder: Path) -> Path:
    """A bundle of 8 frames of 96 × 96 px that has every file and field; 0.3 MB."""
    footage = make_footage(FRAMES, size=(96, 96))
    rng, size = np.random.default_rng(0), footage.model.size
    made = folder / "tiny.target"
    made.mkdir()
    with bundle_writer.FrameFile(made, 96, 96) as file:
        for k in range(FRAMES):
            file.append(rgb_to_i420(footage.frame(k)))
    track, zeros = footage.track(), np.zeros(size, np.float32)
    mesh, chosen = build_mesh(footage.model), np.array([0, 3], np.int32)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    similarity = MouthSimilarity(normal(8, size), normal(FRAMES, 8), normal(2, 3))
    crops = [cut_source(footage.frame(int(k)), track.placement(int(k)), mesh) for k in chosen]
    bundle_writer.write_sources(made, chosen, crops, similarity)
    textures = rng.uniform(0, 40, (3, *TEXTURE_SHAPE, 3)).astype(np.float32)
    ones = np.ones(8, np.float32)
    bundle_writer.write_appearance(
        made, Appearance(ones, normal(8, 60), ones[:2], normal(60, 2), textures, normal(2, 2), 1.5)
    )
    following = np.array([[(k + 1) % FRAMES, k] for k in range(FRAMES)], np.int32)
    bundle_writer.write_jumps(made, JumpGraph(following, np.ones((FRAMES, 2), np.float32)))
    mouth = Mouth(0.5, 0.6, np.ones(3, np.float32))
    bundle_writer.write_track(made, track, Style(zeros, 1.0, zeros, mouth), file.offsets)
    bundle_writer.write_info(made, "video", (96, 96), Fraction(25), {"sharpen": 0.5})
    return made


class _Bundle:
    """A bundle in which one file at a time is another one."""

    def __init__(self, folder: Path) -> None:
        self.folder = tiny_bundle(folder)
        self.whole = {path.name: path.read_bytes() for path in sorted(self.folder.iterdir())}
        self.names = list(self.whole)
        self.tensors = {
            name: load_file(self.folder / name) for name in self.names if name.endswith("tensors")
        }

    def load(self, rng: random.Random, gently: bool = False) -> Target:
        """Change a file, load, and put the file back. `gently`: only numbers, so that most load."""
        name = rng.choice(sorted(self.tensors) if gently else self.names)
        if name == _INFO:
            text = self.whole[name].decode()
            data = (
                mutated(self.whole[name], rng)
                if rng.random() < 0.3
                else mutated_text(text, rng).encode("utf8", "surrogatepass")
            )
        elif name in self.tensors and (gently or rng.random() < 0.5):
            data = self._other_numbers(name, rng, 2 if gently else 5)
        else:
            data = mutated(self.whole[name], rng)
        sealed = name != _INFO and (gently or rng.random() < 0.8)
        try:
            (self.folder / name).write_bytes(data)
            if sealed:  # as who changes a bundle on purpose does
                info = json.loads(self.whole[_INFO])
                digest = hashlib.sha256(data).hexdigest()
                info["files"][name] = {"bytes": len(data), "sha256": digest}
                (self.folder / _INFO).write_text(json.dumps(info))
            return load_target(self.folder)
        finally:
            # A file that is mapped keeps its bytes: it is replaced, not written over.
            for path in (self.folder / name, self.folder / _INFO):
                path.unlink()
                path.write_bytes(self.whole[path.name])

    def _other_numbers(self, name: str, rng: random.Random, kinds: int) -> bytes:
        """A valid file with other numbers (the first two kinds of change), types or shapes."""
        tensors: dict[str, Any] = dict(self.tensors[name])
        field = rng.choice(sorted(tensors))
        value = np.array(tensors[field])
        kind = rng.randrange(kinds)
        if kind == 0 and value.size:
            flat = value.reshape(-1)
            near = float(flat[rng.randrange(value.size)]) * rng.choice((1, 0.5, 2, -1))
            number = rng.choice((near, near, near, rng.uniform(-2, 2), rng.choice(NUMBERS)))
            with np.errstate(all="ignore"):
                flat[rng.randrange(value.size)] = np.float64(number).astype(value.dtype)
        elif kind == 1 and value.dtype.kind == "f":
            value = (value * np.float32(rng.choice((-1, 0, 1e-6, 0.5, 1.5, 2, 10)))).astype(
                value.dtype
            )
        elif kind == 2:
            value = value[: rng.randrange(len(value) + 1)]
        elif kind == 3:
            value = np.concatenate([value, value])
        else:
            value = value.astype(rng.choice(("float32", "float64", "int32", "uint8", "float16")))
        tensors[field] = np.ascontiguousarray(value)
        return save(tensors)


def descriptions(folder: Path) -> Callable[[random.Random], None]:
    """target.json alone."""
    path = tiny_bundle(folder) / _INFO
    whole = path.read_text("utf8")

    def case(rng: random.Random) -> None:
        path.write_bytes(mutated_text(whole, rng).encode("utf8", "surrogatepass"))
        info = read_info(path)
        frame_rate(info)
        whole_number(info, "width", 16, MAX_SIDE_PX)

    return case


def loading(folder: Path) -> Callable[[random.Random], None]:
    """Load, and read a frame of what loads."""
    bundle = _Bundle(folder)

    def case(rng: random.Random) -> None:
        target = bundle.load(rng)
        mouth_sources(target)
        target.frames.decoder().read(rng.randrange(len(target.track)))

    return case


def speaking(folder: Path) -> Callable[[random.Random], None]:
    """Load, and let what loads say a tenth of a second."""
    bundle = _Bundle(folder)
    sound = (0.3 * np.sin(np.arange(6400) / 18)).astype(np.float32)

    def case(rng: random.Random) -> None:
        profile = rng.choice(("low", "live"))
        engine = Engine(bundle.load(rng, gently=True), profile=profile, renderer="none")
        for frame in engine.session().push(sound):
            assert frame.i420.dtype == np.uint8

    return case
