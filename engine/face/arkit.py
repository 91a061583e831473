"""ARKit's blendshapes: their names, and which of them speech moves.

Source: Apple, `ARFaceAnchor.BlendShapeLocation`.
"""

from __future__ import annotations

from typing import Final

ARKIT_NAMES: Final = (
    "eyeBlinkLeft", "eyeLookDownLeft", "eyeLookInLeft", "eyeLookOutLeft", "eyeLookUpLeft",
    "eyeSquintLeft", "eyeWideLeft", "eyeBlinkRight", "eyeLookDownRight", "eyeLookInRight",
    "eyeLookOutRight", "eyeLookUpRight", "eyeSquintRight", "eyeWideRight", "jawForward", "jawLeft",
    "jawRight", "jawOpen", "mouthClose", "mouthFunnel", "mouthPucker", "mouthLeft", "mouthRight",
    "mouthSmileLeft", "mouthSmileRight", "mouthFrownLeft", "mouthFrownRight", "mouthDimpleLeft",
    "mouthDimpleRight", "mouthStretchLeft", "mouthStretchRight", "mouthRollLower",
    "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthPressLeft", "mouthPressRight",
    "mouthLowerDownLeft", "mouthLowerDownRight", "mouthUpperUpLeft", "mouthUpperUpRight",
    "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight",
    "cheekPuff", "cheekSquintLeft", "cheekSquintRight", "noseSneerLeft", "noseSneerRight",
    "tongueOut",
)  # fmt: skip
# Jaw and mouth: an expression is the lips' shape alone, and the others stay 0.
SPOKEN: Final = tuple(k for k, n in enumerate(ARKIT_NAMES) if n.startswith(("jaw", "mouth")))
# The 52 numbers of MediaPipe's landmarker: its own "_neutral", then ARKit's without the tongue.
MEDIAPIPE_NAMES: Final = ("_neutral", *sorted(n for n in ARKIT_NAMES if n != "tongueOut"))
