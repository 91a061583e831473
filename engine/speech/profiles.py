"""The profiles, and which of them can answer a voice that is still speaking."""

from __future__ import annotations

from typing import Final

from lipstream.engine.errors import UsageError
from lipstream.engine.networks.models import Models
from lipstream.engine.speech.encoder import PROFILE_LOOK_AHEAD_MS, Encoder
from lipstream.engine.speech.file_encoder import FileEncoder

FILE: Final = "file"
PROFILES: Final = (*PROFILE_LOOK_AHEAD_MS, FILE)


def make_encoder(
    profile: str, backend: str = "auto", models: Models | None = None
) -> Encoder | FileEncoder:
    """The encoder of a profile; that of files runs in NumPy, whatever the backend.

    `models`: where it is loaded from; those of the process if None.

    Raises: UsageError for an unknown profile; BackendUnavailable.
    """
    if profile == FILE:
        return FileEncoder(models)
    if profile not in PROFILE_LOOK_AHEAD_MS:
        raise UsageError(f"profile {profile!r}: expected one of {', '.join(PROFILES)}")
    return Encoder(PROFILE_LOOK_AHEAD_MS[profile], backend, models)


def require_live(profile: str) -> None:
    """Refuse the profile `file` where the voice is still speaking. Raises: UsageError."""
    if profile == FILE:
        raise UsageError("the profile file needs the whole sound; expected low, live or studio")
