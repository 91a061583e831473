"""The expression stream as JSON lines: one object for every 20 ms of sound."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from lipstream.engine.face.arkit import ARKIT_NAMES
from lipstream.engine.face.model import FaceModel, face_model
from lipstream.engine.speech.file_encoder import make_encoder
from lipstream.engine.speech.profiles import FILE
from lipstream.engine.stream import Stage
from lipstream.engine.types import F32, SAMPLE_RATE_HZ, AudioChunk, Expression
from lipstream.streaming.files.audio_file import AudioFile

_DIGITS: Final = 5


def express_lines(audio: str | Path, profile: str = FILE, backend: str = "auto") -> Iterator[str]:
    """One JSON object a line for a file's speech.

    Raises:
        UsageError: unknown profile.
        MediaError: the file cannot be read or holds no sound.
        BackendUnavailable: a backend asked for by name is not here.
    """
    encoder = make_encoder(profile, backend)
    with AudioFile(audio) as sound:
        blocks = (block.speech for block in sound.blocks())
        yield from lines(encoder, blocks)


def lines(encoder: Stage[Any, AudioChunk, Expression], chunks: Iterable[F32]) -> Iterator[str]:
    """JSON lines of a stream of chunks f32 [n], mono 16 kHz, each as soon as it is known."""
    face = face_model()
    for expression in expressions(encoder, chunks):
        yield json.dumps(record(expression, face), allow_nan=False)


def expressions(
    encoder: Stage[Any, AudioChunk, Expression], chunks: Iterable[F32]
) -> Iterator[Expression]:
    """The encoder as a fold over chunks f32 [n] of any length, flushed at the end."""
    state, start = encoder.init(), 0
    for samples in chunks:
        outputs, state = encoder.step(state, AudioChunk(samples, start))
        start += len(samples)
        yield from outputs
    yield from encoder.flush(state)


def record(expression: Expression, face: FaceModel) -> dict[str, Any]:
    """One expression as plain numbers. All lip measures are over the inter-ocular distance."""
    weights = face.arkit_weights(expression.coefficients).tolist()
    lips = expression.lips
    return {
        "t": expression.sample / SAMPLE_RATE_HZ,
        "expression": [round(value, _DIGITS) for value in expression.coefficients.tolist()],
        "lips": {
            "opening": round(lips.opening, _DIGITS),
            "width": round(lips.width, _DIGITS),
            "protrusion": round(lips.protrusion, _DIGITS),
        },
        "arkit": {
            name: round(weight, _DIGITS) for name, weight in zip(ARKIT_NAMES, weights, strict=True)
        },
        "speech": expression.speech,
    }
