"""Places that a caller may come back to: tokens, each for one member of a conversation."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

Room = TypeVar("Room")

KEEP_S: Final = 30.0  # after the media was lost


@dataclass(slots=True)
class Place(Generic[Room]):
    """Who may come back, and where to."""

    room: Room
    key: str  # of the member
    expires_s: float | None = None  # None while the member is there


class Places(Generic[Room]):
    """The places of a server, by their tokens. A token is good for one return."""

    def __init__(self) -> None:
        self._places: dict[str, Place[Room]] = {}

    def offer(self, room: Room, key: str) -> str:
        """A token for a member's place."""
        token = secrets.token_urlsafe(24)
        self._places[token] = Place(room, key)
        return token

    def find(self, token: str) -> Place[Room] | None:
        """The place of a token."""
        return self._places.get(token)

    def keep(self, key: str, until_s: float) -> bool:
        """The member is gone and may come back until then; whether it has a token."""
        place = next((one for one in self._places.values() if one.key == key), None)
        if place is not None:
            place.expires_s = until_s
        return place is not None

    def keeps(self, key: str) -> bool:
        """Whether a member may come back."""
        return any(one.key == key for one in self._places.values())

    def drop(self, key: str) -> None:
        """Forget a member's place."""
        self._places = {t: one for t, one in self._places.items() if one.key != key}

    def kept(self, room: Room) -> list[Place[Room]]:
        """Places in a room whose members are gone."""
        return [
            one for one in self._places.values() if one.room is room and one.expires_s is not None
        ]
