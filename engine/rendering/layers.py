"""What the two painters take and give: a wanted mouth, and the layers of a patch that shows it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, NamedTuple

from lipstream.engine.face.retarget import Placement
from lipstream.engine.rendering.mouth_crop import MouthCrop
from lipstream.engine.target.appearance import AppearancePrior
from lipstream.engine.target.sources import SourceWeights
from lipstream.engine.types import F32, U8
from lipstream.kernels import face

STILL_PX: Final = 0.12  # triangles that move less keep the background's pixels
SEAM_DEPTH: Final = 0.38  # of the light, lost between closed lips
LIGHT: Final = face.Limits(least=8, stiffness=0.6, reach=24.0, tint=0.05)
_PRIOR_PX: Final = 96.0  # per inter-ocular distance, at most: the resolution of its texture


class WantedMouth(NamedTuple):
    """What to paint on a background."""

    placement: Placement  # the background's face
    expression: F32  # f32 [K]
    sources: SourceWeights  # more than one during a crossfade
    prior: AppearancePrior | None  # for the renderer


@dataclass(frozen=True, slots=True)
class Layers:
    """A painted lower face that has not been composited into its frame yet."""

    box: tuple[int, int, int, int]  # x, y, w, h of the patch in the frame, px
    painted: U8  # u8 [h, w, 3]
    mask: U8  # u8 [h, w], 0 where the frame keeps its pixels
    conditioning: U8 | None  # u8 [h, w, 3] maps for the renderer: opacity of the lip layer; row of
    # the gap from upper to lower lip; confidence in the source's pixels there
    crop: MouthCrop | None  # in the patch, where there are conditioning maps
    prior: U8 | None = None  # u8 [h', w', 3], the appearance prior over the patch's rectangle
    confidence: float = 0.0  # in it


def prior_shape(patch: tuple[int, int], scale: float) -> tuple[int, int]:
    """Rows and columns of the prior over a patch with `scale` px per inter-ocular distance."""
    zoom = min(1.0, _PRIOR_PX / scale)
    return math.ceil(patch[0] * zoom), math.ceil(patch[1] * zoom)
