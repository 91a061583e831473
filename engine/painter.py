"""The face painter of one target: `kernels.painter` with the engine's constants."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lipstream.engine import inner_mouth, mouth, warp
from lipstream.engine.appearance import LOOK_SHAPE
from lipstream.engine.types import F32, I32, U8
from lipstream.kernels.face import Limits
from lipstream.kernels.painter import FacePainter


def face_painter(
    mesh: warp.FaceMesh, teeth: mouth.Mouth, *, triangles: I32, lip_vertices: I32, skin: I32,
    texture: U8, texture_xy: F32, gap_row: F32, look_xy: F32, light: Limits, still_px: float,
    seam_depth: float,
) -> FacePainter:  # fmt: skip
    """With the meshes, the teeth and what the compositor made of them."""
    colours = (
        mouth.TEETH_RGB, mouth.TONGUE_RGB, mouth.DARK_RGB, mouth.SEAM_RGB, mouth.SHADOW_LOSS,
    )  # fmt: skip
    crowns = [mouth.borders(mouth.UPPER_WIDTHS), mouth.borders(mouth.LOWER_WIDTHS)]
    arrays: dict[str, NDArray[Any]] = {
        "basis": mesh.model.basis, "jaw_row": warp.jaw_row(mesh.model), "rings": warp.RINGS,
        "lips": warp.LIPS, "line": warp.JAW_VERTICES, "chin": warp.JAW_TIP,
        "jaw": mesh.jaw_triangles, "mouth": triangles, "gap": mesh.inner_triangles,
        "lip_vertices": lip_vertices, "skin": skin, "texture": texture, "texture_xy": texture_xy,
        "gap_row": gap_row, "look_xy": look_xy, "limits": np.array(light),
        "teeth": np.stack(crowns), "colours": np.array(colours), "light": teeth.light,
    }  # fmt: skip
    numbers = {
        "still": still_px, "inset": warp.INSET, "shadow_reach": inner_mouth.SHADOW_REACH,
        "seam_depth": seam_depth, "upper_edge": teeth.upper_edge, "lower_edge": teeth.lower_edge,
        "trusted": inner_mouth.TRUSTED, "least_lowered": inner_mouth.LEAST_LOWERED,
        "lip_shadow": inner_mouth.LIP_SHADOW, "edge_px": inner_mouth.EDGE_PX,
    }  # fmt: skip
    return FacePainter(arrays, numbers, warp.NOSE_TIP, LOOK_SHAPE)
