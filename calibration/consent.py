"""Consent that a bundle holds: kept when it is calibrated again, and stated anew."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from lipstream.engine.errors import LipstreamError, MediaError
from lipstream.engine.output_paths import remedy
from lipstream.engine.target.bundle_checks import check_files, read_info
from lipstream.engine.target.consent import RECORD, Consent, read_consent

logger = logging.getLogger(__name__)


def earlier_consent(bundle: Path) -> Consent | None:
    """The consent that a bundle holds; None without such a bundle or statement."""
    path = bundle / "target.json"
    if not path.is_file():
        return None
    try:
        info = json.loads(path.read_text("utf8"))
        statement = info.get("consent")
        if RECORD in info or not isinstance(statement, str) or not statement.strip():
            return read_consent(info)
        return Consent.stated(statement)  # of an older version
    except (OSError, ValueError, RecursionError, AttributeError, LipstreamError) as error:
        logger.warning("%s: the consent in it, if any, is lost (%s)", path, error)
        return None


def state_consent(bundle: Path, consent: Consent) -> None:
    """Record the consent of the person whom a bundle shows, in place of an earlier one.

    Raises:
        TargetError: it is no bundle, or its files are not those that it names.
        MediaError: it cannot be written.
    """
    info = read_info(bundle / "target.json")
    check_files(bundle, info)
    _replace(bundle / "target.json", {**info, **consent.bound(info["files"])})


def _replace(path: Path, info: dict[str, Any]) -> None:
    """At once: a server that reads it meanwhile gets the old text or the new one."""
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(json.dumps(info, indent=1) + "\n", "utf8")
        part.replace(path)
    except OSError as error:
        raise MediaError(f"cannot write {path}: {error.strerror}; {remedy(error)}") from error
    finally:
        part.unlink(missing_ok=True)
