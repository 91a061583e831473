"""The profiles, and which of them can answer a voice that is still speaking."""

from __future__ import annotations

from typing import Final

from lipstream.engine.errors import UsageError
from lipstream.engine.speech.encoder import PROFILE_LOOK_AHEAD_MS

FILE: Final = "file"
PROFILES: Final = (*PROFILE_LOOK_AHEAD_MS, FILE)


def require_live(profile: str) -> None:
    """Refuse the profile `file` where the voice is still speaking. Raises: UsageError."""
    if profile == FILE:
        raise UsageError("the profile file needs the whole sound; expected low, live or studio")
