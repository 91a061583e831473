"""The poster of a target: one picture of its footage, with the mouth closed and the eyes open."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray

from lipstream.engine.errors import TargetError
from lipstream.engine.target.bundle_checks import read_tensors

_MAX_EDGE_PX: Final = 640
_QUALITY_STEP: Final = 118  # FFmpeg's FF_QP2LAMBDA
_QUALITY: Final = 4  # of 2 (best) to 31: 30 to 60 kB
# Pairs of points of the face mesh: inner lips; eyelids of both eyes; outer corners of the eyes.
_LIPS: Final = (13, 14)
_LIDS: Final = ((159, 145), (386, 374))
_EYES: Final = (33, 263)
_CLOSED_SHARE: Final = 0.1  # of the frames count as closed


def draw_poster(bundle: Path) -> bytes:
    """A JPEG of at most 640 px a side.

    Raises:
        TargetError: the track or the picture cannot be read.
    """
    tensors = read_tensors(bundle, "track.safetensors")
    try:
        index = calm_frame(tensors["landmarks"], tensors["usable"] > 0, tensors["head_speed"])
        begin, end = (int(offset) for offset in tensors["frame_offsets"][index : index + 2])
        with (bundle / "frames.mjpeg").open("rb") as file:
            file.seek(begin)
            data = file.read(end - begin)
        decoder = av.CodecContext.create("mjpeg", "r")
        picture: Any = decoder.decode(av.Packet(data))[0]
        return _encoded(picture)
    except (OSError, KeyError, IndexError, ValueError, av.FFmpegError) as error:
        raise TargetError(f"{bundle.stem}: no poster can be made ({error})") from error


def calm_frame(landmarks: NDArray[Any], usable: NDArray[np.bool_], head_speed: NDArray[Any]) -> int:
    """The frame to show: lips closed, eyes open, head still.

    Args:
        landmarks: f32 [N, 468, 3], px.
        usable: bool [N].
        head_speed: f32 [N].
    """

    def distance(pair: tuple[int, int]) -> NDArray[Any]:
        return np.linalg.norm(landmarks[:, pair[0]] - landmarks[:, pair[1]], axis=1)

    width = np.maximum(distance(_EYES), 1e-6)
    lips = np.where(usable, distance(_LIPS) / width, np.inf)
    lids = sum(distance(pair) for pair in _LIDS) / width
    closed = np.flatnonzero(lips <= np.quantile(lips[usable], _CLOSED_SHARE))
    awake = closed[lids[closed] >= np.quantile(lids[closed], 0.5)]
    return int(awake[np.argmin(head_speed[awake])])


def _encoded(picture: av.VideoFrame) -> bytes:
    """As browsers read a JPEG: full range, BT.601. The footage is BT.709 in limited range."""
    shrink = max(1.0, max(picture.width, picture.height) / _MAX_EDGE_PX)
    width, height = (2 * round(edge / shrink / 2) for edge in (picture.width, picture.height))
    shown = picture.reformat(
        width,
        height,
        "yuvj420p",
        src_colorspace=Colorspace.ITU709,
        dst_colorspace=Colorspace.ITU601,
        src_color_range=ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
    )
    encoder = av.CodecContext.create("mjpeg", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuvj420p"
    encoder.time_base = Fraction(1, 25)
    encoder.options = {
        "flags": "+qscale",
        "global_quality": str(_QUALITY * _QUALITY_STEP),
        "qmin": str(_QUALITY),
        "qmax": str(_QUALITY),
    }
    shown.pts = 0
    return b"".join(bytes(packet) for packet in [*encoder.encode(shown), *encoder.encode(None)])
