"""The face painter of one target: `kernels.face_painter` with the engine's constants."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lipstream.engine.face import mesh as topology
from lipstream.engine.face import retarget
from lipstream.engine.rendering import inner_mouth
from lipstream.engine.target import oral_cavity
from lipstream.engine.target.appearance import TEXTURE_SHAPE
from lipstream.engine.types import F32, I32, U8
from lipstream.kernels.face import Limits
from lipstream.kernels.face_painter import FacePainter


def face_painter(
    mesh: topology.FaceMesh, teeth: oral_cavity.Mouth, *,
    triangles: I32, lip_vertices: I32, skin: I32,
    texture: U8, texture_xy: F32, gap_row: F32, look_xy: F32, light: Limits, still_px: float,
    seam_depth: float,
) -> FacePainter:  # fmt: skip
    """With the meshes, the teeth and what the compositor made of them."""
    colours = (
        oral_cavity.TEETH_RGB, oral_cavity.TONGUE_RGB, oral_cavity.DARK_RGB,
        oral_cavity.SEAM_RGB, oral_cavity.SHADOW_LOSS,
    )  # fmt: skip
    crowns = [
        oral_cavity.borders(oral_cavity.UPPER_WIDTHS),
        oral_cavity.borders(oral_cavity.LOWER_WIDTHS),
    ]
    arrays: dict[str, NDArray[Any]] = {
        "basis": mesh.model.basis, "jaw_row": retarget.jaw_row(mesh.model), "rings": topology.RINGS,
        "lips": topology.LIPS, "line": topology.JAW_VERTICES, "chin": topology.JAW_TIP,
        "jaw": mesh.jaw_triangles, "mouth": triangles, "gap": mesh.inner_triangles,
        "lip_vertices": lip_vertices, "skin": skin, "texture": texture, "texture_xy": texture_xy,
        "gap_row": gap_row, "look_xy": look_xy, "limits": np.array(light),
        "teeth": np.stack(crowns), "colours": np.array(colours), "light": teeth.light,
    }  # fmt: skip
    numbers = {
        "still": still_px, "inset": retarget.INSET, "shadow_reach": inner_mouth.SHADOW_REACH,
        "seam_depth": seam_depth, "upper_edge": teeth.upper_edge, "lower_edge": teeth.lower_edge,
        "trusted": inner_mouth.CONFIDENT, "least_lowered": inner_mouth.LEAST_LOWERED,
        "lip_shadow": inner_mouth.LIP_SHADOW, "edge_px": inner_mouth.EDGE_PX,
    }  # fmt: skip
    return FacePainter(arrays, numbers, topology.NOSE_TIP, TEXTURE_SHAPE)
