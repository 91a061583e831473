"""Consent: who agreed to the use of a face, when and for what, bound to one bundle by hash.

`target.json` holds the statement as `consent` and the rest as `consent_record`. The record's
`bundle_sha256` covers the checksums of the bundle's files, so that a record that is copied into
another bundle does not fit there. It shows a copy or a change, not a lie: whoever can write the
bundle can also state a consent that was never given.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from dataclasses import dataclass
from typing import Any, Final

from lipstream.engine.errors import ConsentMissing, TargetError, UsageError
from lipstream.engine.paths import as_text

RECORD: Final = "consent_record"
_MAX_CHARACTERS: Final = 2000
_NOT_STATED: Final = "not stated"


@dataclass(frozen=True, slots=True)
class Consent:
    """One statement, and when it was recorded."""

    statement: str
    recorded: str  # UTC, ISO 8601

    @classmethod
    def stated(cls, statement: str) -> Consent:
        """Now. `statement`: "WHO; WHEN; FOR WHAT", or with commas; a shorter one names who.

        Raises: UsageError for one that is empty, or longer than 2000 characters.
        """
        if not statement.strip():
            raise UsageError(
                "--consent is empty: say who agreed to this use, when and how, or leave it out"
            )
        if len(statement) > _MAX_CHARACTERS:
            raise UsageError(
                f"--consent has {len(statement)} characters, expected at most {_MAX_CHARACTERS}: "
                "who, when and for what"
            )
        now = datetime.datetime.now(datetime.UTC)
        return cls(as_text(statement), now.isoformat(timespec="seconds"))

    @property
    def who(self) -> str:
        """The person, or the holder of the rights."""
        return self._parts[0]

    @property
    def when(self) -> str:
        """As stated; else the day of the record."""
        return self._parts[1] or self.recorded[:10]

    @property
    def purpose(self) -> str:
        """For what."""
        return self._parts[2]

    @property
    def sha256(self) -> str:
        """Of the statement, UTF-8."""
        return hashlib.sha256(self.statement.encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def _parts(self) -> tuple[str, str, str]:
        separator = ";" if ";" in self.statement else ","
        parts = [part.strip() for part in self.statement.split(separator, 2)]
        if len(parts) == 3:
            return parts[0], parts[1], parts[2] or _NOT_STATED
        return self.statement.strip(), "", _NOT_STATED

    def as_json(self) -> dict[str, str]:
        """Who, when, for what and the statement's hash."""
        return {
            "who": self.who,
            "when": self.when,
            "for": self.purpose,
            "recorded": self.recorded,
            "statement_sha256": self.sha256,
        }

    def unbound(self) -> dict[str, Any]:
        """Entries of a target.json whose files are not all written; see `bind`."""
        return {"consent": self.statement, RECORD: {"recorded": self.recorded}}

    def bound(self, files: dict[str, Any]) -> dict[str, Any]:
        """The entries of a target.json with these `files`."""
        record = self.as_json() | {"bundle_sha256": self._bound_to(files)}
        return {"consent": self.statement, RECORD: record}

    def _bound_to(self, files: dict[str, Any]) -> str:
        whole = {"files": files, "statement": self.statement, "recorded": self.recorded}
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def bind(info: dict[str, Any], files: dict[str, Any]) -> dict[str, Any]:
    """The entries that bind the consent in `info` to `files`; empty without one. For writers."""
    statement, record = info.get("consent"), info.get(RECORD)
    if not isinstance(statement, str) or not statement.strip():
        return {}
    recorded = record.get("recorded") if isinstance(record, dict) else None
    consent = Consent(statement, recorded) if recorded else Consent.stated(statement)
    return consent.bound(files)


def read_consent(info: dict[str, Any]) -> Consent | None:
    """The consent of a target.json; None without one, and for one that no record binds to it.

    Raises:
        TargetError: it belongs to another bundle, or the bundle has changed since.
    """
    statement, record = info.get("consent"), info.get(RECORD)
    if record is None or not isinstance(statement, str) or not statement.strip():
        return None
    recorded = record.get("recorded") if isinstance(record, dict) else None
    if not isinstance(recorded, str) or len(statement) > _MAX_CHARACTERS:
        raise TargetError(f"target.json: {RECORD} is damaged; state the consent again")
    consent = Consent(statement, recorded)
    files = info.get("files")
    if not isinstance(files, dict) or record != consent.bound(files)[RECORD]:
        raise TargetError(
            "target.json: its consent was given for another bundle, or the bundle was changed "
            'since; state it again: lipstream consent NAME.target "WHO; WHEN; FOR WHAT"'
        )
    return consent


def why_missing(name: str, info: dict[str, Any]) -> str:
    """One line for a bundle without consent: what is missing, and what to do."""
    remedy = f'state it: lipstream consent {name} "WHO; WHEN; FOR WHAT"'
    statement = info.get("consent")
    if isinstance(statement, str) and statement.strip():
        return (
            f"{name}: the consent in it ({statement.strip()[:80]!r}) is of an older version and "
            f"not bound to the bundle; {remedy}"
        )
    return f"{name}: it records no consent of the person shown; {remedy}"


def require_consent(name: str, info: dict[str, Any]) -> Consent:
    """The consent of a bundle for live use.

    Raises:
        ConsentMissing: it holds none, or one that is not bound to it.
        TargetError: it belongs to another bundle.
    """
    consent = read_consent(info)
    if consent is None:
        raise ConsentMissing(why_missing(name, info))
    return consent
