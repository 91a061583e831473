"""The mouth sources of a target: real pixels of its mouth, and what tells them apart."""

from __future__ import annotations

from dataclasses import dataclass

from lipstream.engine.face.retarget import Placement
from lipstream.engine.types import U8


@dataclass(frozen=True, slots=True)
class MouthSource:
    """Real pixels of one mouth."""

    rgb: U8  # u8 [h, w, 3]
    origin: tuple[float, float]  # x, y of the crop in the coordinates of `placement`, px
    zoom: float  # crop pixels per pixel of `placement`
    placement: Placement
