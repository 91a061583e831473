"""C2PA manifests: what was synthesised, by what and with what consent, signed into the file.

MP4 and MOV carry the manifest. Matroska and WebM have no C2PA binding: theirs is written beside the
file, as NAME.c2pa. Nothing is asked of the network: no time stamp server, no remote manifest.

The manifest holds hashes, not names: neither the person's name nor that of a file is published.

Source: C2PA technical specification 2.2, claims of version 2; the library is c2pa-python.
"""

from __future__ import annotations

import io
import json
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from lipstream.engine.errors import MediaError, UsageError
from lipstream.streaming.files.partial_file import PartialFile, write_error
from lipstream.streaming.files.signing import Credentials, given_credentials, own_credentials

logger = logging.getLogger(__name__)

SYNTHETIC: Final = (
    "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
)
SYNTHESIS: Final = "org.lipstream.synthesis"  # our own assertion
WATERMARK: Final = "org.lipstream.watermark.1"  # of the soft binding
EMBEDDED: Final = {".mp4": "video/mp4", ".mov": "video/quicktime"}
_BESIDE: Final = "application/octet-stream"
# No network, and no thumbnails, which need a decoder of the library's own.
OFFLINE: Final[dict[str, Any]] = {
    "version": 1,
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
    "builder": {"thumbnail": {"enabled": False}},
}


@dataclass(frozen=True, slots=True)
class Synthesis:
    """What a manifest says of a file."""

    version: str  # of lipstream
    target: dict[str, Any]  # kind, sha256 of its target.json, sha256 of the footage
    sound_sha256: str | None
    consent: dict[str, str] | None  # for what, when recorded, hash of the statement
    marks: dict[str, Any]  # see `FrameMarker.as_json`


class Provenance:
    """Signs files with one key."""

    def __init__(self, credentials: Credentials) -> None:
        """Raises: UsageError for a certificate that C2PA does not take."""
        self.credentials = credentials
        try:
            self._sign(_manifest("check", None), _BESIDE, io.BytesIO(b"check"), None)
        except Exception as error:  # the library's errors have no common base of their own
            raise UsageError(f"C2PA does not take this certificate: {_reason(error)}") from error

    @classmethod
    def of(cls, sign: tuple[Path, Path] | None) -> Provenance | None:
        """By the user's certificate and key, else by the kept key.

        None, with a warning, where c2pa-python is not installed.

        Raises: UsageError.
        """
        if find_spec("c2pa") is None:
            if sign is not None:
                raise UsageError(f"--sign needs c2pa-python: {_INSTALL}")
            logger.warning(
                "the file gets no signed provenance: c2pa-python is missing: %s", _INSTALL
            )
            return None
        credentials = own_credentials() if sign is None else given_credentials(*sign)
        assert credentials is not None
        return cls(credentials)

    def seal(self, part: PartialFile, synthesis: Synthesis) -> Callable[[], Path | None]:
        """Sign the finished temporary file.

        Returns:
            to be called when the file has its name: writes the sidecar, where there is one, and
            returns its path.

        Raises:
            MediaError: it cannot be written.
        """
        kind = EMBEDDED.get(part.path.suffix.lower())
        manifest = _manifest(part.path.name, synthesis)
        signed = part.temporary.with_name(part.temporary.name + ".c2pa")
        try:
            with part.temporary.open("rb") as source:
                if kind is None:
                    data = self._sign(manifest, _BESIDE, source, None)
                    return lambda: _write_sidecar(part.path, data)
                with signed.open("w+b") as target:
                    self._sign(manifest, kind, source, target)
            os.replace(signed, part.temporary)
        except OSError as error:
            raise write_error(part.path, error) from error
        except Exception as error:
            raise MediaError(f"cannot sign {part.path}: {_reason(error)}") from error
        finally:
            signed.unlink(missing_ok=True)
        return lambda: None

    def _sign(self, manifest: dict[str, Any], kind: str, source: Any, target: Any) -> bytes:
        import c2pa

        key = self.credentials
        info = c2pa.C2paSignerInfo(key.algorithm.encode(), key.chain, key.key, None)
        with (
            c2pa.Context(settings=c2pa.Settings.from_dict(OFFLINE)) as context,
            c2pa.Signer.from_info(info) as signer,
            c2pa.Builder(json.dumps(manifest), context=context) as builder,
        ):
            if target is None:
                builder.set_no_embed()
                target = io.BytesIO()
            data: bytes = builder.sign(signer, kind, source, target)
            return data


_INSTALL: Final = "pip install c2pa-python"


def sidecar_of(path: Path) -> Path:
    """Where the manifest of a file without a binding lies."""
    return path.with_suffix(".c2pa")


def _write_sidecar(path: Path, data: bytes) -> Path:
    with PartialFile(sidecar_of(path)) as part:
        try:
            part.temporary.write_bytes(data)
        except OSError as error:
            raise write_error(part.path, error) from error
        part.commit()
    return part.path


def _manifest(title: str, synthesis: Synthesis | None) -> dict[str, Any]:
    """As the library's Builder takes it."""
    version = "0" if synthesis is None else synthesis.version
    agent = {"name": "lipstream", "version": version}
    created = {
        "action": "c2pa.created",
        "digitalSourceType": SYNTHETIC,
        "softwareAgent": agent,
        "description": "The mouth was synthesised from sound, over footage of a person.",
    }
    actions, assertions = [created], []
    if synthesis is not None:
        watermark = synthesis.marks["watermark"]
        if watermark is not None:
            actions.append({"action": "c2pa.watermarked.bound", "softwareAgent": agent})
            blocks = [{"scope": {}, "value": watermark}]
            assertions.append(
                {"label": "c2pa.soft-binding", "data": {"alg": WATERMARK, "blocks": blocks}}
            )
        said = {
            "synthesised": "mouth",
            "target": synthesis.target,
            "sound": {"sha256": synthesis.sound_sha256},
            "consent": synthesis.consent,
            **synthesis.marks,
        }
        assertions.append({"label": SYNTHESIS, "data": said})
    return {
        "title": title,
        "claim_generator_info": [agent],
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": actions}}, *assertions],
    }


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
