"""What is seen between parted lips where no footage shows it: teeth, tongue, and what is behind."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lipstream.kernels import native
from lipstream.kernels.checks import require
from lipstream.kernels.dispatch import kernel
from lipstream.kernels.errors import UsageError
from lipstream.kernels.reference import oral_cavity as reference
from lipstream.kernels.reference.oral_cavity import GRAIN, Cavity

F32 = NDArray[np.float32]
__all__ = ["GRAIN", "Cavity", "check_cavity", "lip_shade", "paint", "structure_of"]


def paint(cavity: Cavity, motion: F32, points: F32, lips: F32) -> F32:
    """Colours f32 [n, 3], 0 to 255, of points f32 [n, 3] between the lips.

    motion: f32 [6]: x of the middle of the mouth, how far the jaw is below its rest, the height of
    the gap in the middle, how far the tongue is raised, 0 to 1, and the slope of the line of sight
    in x and y per z. lips: f32 [n, 2], y of the lips above and below each point.
    """
    check_cavity(cavity)
    require("motion", motion, np.float32, (6,))
    require("points", points, np.float32, (None, 3))
    require("lips", lips, np.float32, (len(points), 2))
    return colors(cavity, motion, points, lips)


def check_cavity(cavity: Cavity) -> None:
    """Raise UsageError for arrays of other shapes, or tables too small to be sampled."""
    require("teeth", cavity.teeth, np.float32, (2, None, None, 4))
    require("colours", cavity.colours, np.float32, (5, 3))
    require("grain", cavity.grain, np.float32, (GRAIN, GRAIN))
    require("shape", cavity.shape, np.float32, (11,))
    if min(cavity.teeth.shape[1:3]) < 2 or not min(cavity.shape[3], cavity.shape[9]) > 1e-6:
        raise UsageError(
            f"teeth are {list(cavity.teeth.shape)}, {cavity.shape[3]} apart, grains "
            f"{cavity.shape[9]}; expected two rows and columns or more, some distance apart"
        )


def structure_of(cavity: Cavity) -> Any:
    """The cavity as compiled code takes it; valid as long as `cavity`, whose arrays must be
    contiguous."""
    rows, columns = cavity.teeth.shape[1:3]
    return native.structure("LsCavity")(
        **{name: native.address(array) for name, array in cavity._asdict().items()},
        rows=rows, columns=columns,
    )  # fmt: skip


@kernel(reference.paint)
def colors(cavity: Cavity, motion: F32, points: F32, lips: F32) -> F32:
    """`paint` without its checks."""
    cavity = Cavity(*map(np.ascontiguousarray, cavity))
    out = native.empty(points.shape, np.float32)
    native.library().ls_paint_cavity(
        structure_of(cavity), np.ascontiguousarray(motion), np.ascontiguousarray(points),
        np.ascontiguousarray(lips), len(points), out,
    )  # fmt: skip
    return out


def lip_shade(y: F32, roof: F32, floor: F32) -> F32:
    """How much of the light reaches a point between the lips, 0 to 1; all f32 of one shape.

    roof, floor: y of the lips above and below it. Lips keep light out, the upper one more, as it
    comes from above.
    """
    return reference.lip_shade(y, roof, floor)
