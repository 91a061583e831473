"""The inputs of the benchmarks: a target, its resized and lengthened variants, and speech."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lipstream.calibration.demo import build_demo_target, demo_speech
from lipstream.engine.face.model import Pose
from lipstream.engine.face.retarget import Placement
from lipstream.engine.target.bundle import Target, load_target
from lipstream.engine.target.frames import FrameReader, FrameWriter
from lipstream.engine.target.track import Track
from lipstream.engine.types import F32, SAMPLE_RATE_HZ, U8, VideoFrame
from lipstream.kernels import color
from lipstream.kernels.mesh import remap
from lipstream.streaming.files.audio_file import read_speech
from lipstream.streaming.webrtc.h264 import H264, VIDEO_CLOCK_HZ
from lipstream.streaming.webrtc.h264 import Encoding as EncoderOptions

_JUMPS: Final = 16  # of each frame of a lengthened track, as many as calibration keeps


@contextmanager
def bench_target(path: Path | None) -> Iterator[Target]:
    """The bundle at `path`; without a path, the demo target in a temporary folder."""
    if path is not None:
        yield load_target(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        yield load_target(build_demo_target(Path(folder)))


def voice(seconds: float) -> F32:
    """The speech of the demo, repeated to the length asked for: f32 [seconds * 16000]."""
    with tempfile.TemporaryDirectory() as folder:
        speech = read_speech(demo_speech(Path(folder)))
    return np.resize(speech, round(seconds * SAMPLE_RATE_HZ)).astype(np.float32)


def burst(samples: int) -> F32:
    """A loud [a] at 120 Hz with an abrupt onset, f32 [samples]."""
    t = np.arange(samples) / SAMPLE_RATE_HZ
    wave = np.zeros(samples)
    for harmonic in range(1, 30):
        hz = 120.0 * harmonic
        strength = sum(np.exp(-(((hz - f) / 130) ** 2)) for f in (730, 1090, 2440))
        wave += (strength + 0.02) * np.cos(2 * np.pi * hz * t)
    return (0.5 * wave / np.abs(wave).max()).astype(np.float32)


@dataclass
class Encoding:
    """H.264 with the settings of the server."""

    fps: Fraction

    def __post_init__(self) -> None:
        """The encoder opens with the first frame, which is a key frame."""
        self._encoder: H264 | None = None

    def encode(self, frame: VideoFrame) -> int:
        """Bytes of one frame's packet."""
        if self._encoder is None:
            height, width = frame.i420.shape[0] * 2 // 3, frame.i420.shape[1]
            self._encoder = H264(EncoderOptions(), width, height, self.fps)
        pts = round(frame.frame_index * VIDEO_CLOCK_HZ / self.fps)
        packet = self._encoder.encode(frame, pts, frame.frame_index == 0)
        return packet.size if packet is not None else 0


def resized(target: Target, side_px: int, folder: Path) -> Target:
    """The target with its longer side at `side_px`; the new frames are written to `folder`."""
    zoom = side_px / max(target.width, target.height)
    width, height = (round(n * zoom / 2) * 2 for n in (target.width, target.height))
    x = (np.arange(width, dtype=np.float32) + 0.5) / np.float32(zoom)
    y = (np.arange(height, dtype=np.float32) + 0.5) / np.float32(zoom)
    grid = np.stack(np.meshgrid(x, y), -1).astype(np.float32)
    decoder = target.frames.decoder()
    file = folder / f"frames-{side_px}.mjpeg"
    with FrameWriter(file, width, height) as writer:
        for index in range(len(target.track)):
            rgb = remap(color.i420_to_rgb(decoder.read(index)), grid)
            i420: U8 = np.zeros((height * 3 // 2, width), np.uint8)
            color.rgb_region_into_i420(rgb, i420, 0, 0, None)
            writer.append(i420)
    track, pose, factor = target.track, target.track.pose, np.float32(zoom)
    track = replace(
        track,
        landmarks=track.landmarks * factor,
        pose=Pose(pose.scale * factor, pose.rotation, pose.translation * factor),
    )
    sources = tuple(
        replace(
            one,
            origin=(one.origin[0] * zoom, one.origin[1] * zoom),
            zoom=one.zoom / zoom,
            placement=_zoomed(one.placement, factor),
        )
        for one in target.sources
    )
    reader = FrameReader(file, np.asarray(writer.offsets, np.int64), width, height)
    return replace(target, width=width, height=height, track=track, sources=sources, frames=reader)


def _zoomed(place: Placement, factor: np.float32) -> Placement:
    return replace(place, scale=place.scale * float(factor), translation=place.translation * factor)


class _Repeated(FrameReader):
    """Footage that repeats: frame i is frame i modulo the length of the original."""

    def __init__(self, reader: FrameReader, offsets: NDArray[np.int64]) -> None:
        height, width = reader.shape
        super().__init__(reader.path, offsets, width, height * 2 // 3)
        self._reader, self._frames = reader, len(offsets) - 1

    def __reduce__(self) -> tuple[Any, ...]:
        return _Repeated, (self._reader, self._offsets)

    def jpeg(self, index: int) -> bytes:
        return super().jpeg(index % self._frames)


def lengthened(target: Target, frames: int, seed: int = 0) -> Target:
    """The target with a track of `frames`: its own repeated, with random jumps."""
    track, pose = target.track, target.track.pose
    order = np.arange(frames) % len(track)
    random = np.random.default_rng(seed)
    jumps = random.integers(0, frames, (frames, _JUMPS)).astype(np.int32)
    # The offsets hold the sizes of the JPEGs, and every repetition shares them.
    offsets = target.frames._offsets
    return replace(
        target,
        track=Track(
            track.landmarks[order],
            Pose(pose.scale[order], pose.rotation[order], pose.translation[order]),
            track.expression[order],
            track.geometry,
            track.usable[order],
            track.paintable[order],
            track.head_speed[order],
        ),
        frames=_Repeated(target.frames, offsets),
        jumps=(jumps, random.gamma(2, 0.3, jumps.shape).astype(np.float32)),
        conduct=None,
    )
