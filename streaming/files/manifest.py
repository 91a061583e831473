"""Reads a C2PA manifest, whoever wrote it: whether it holds, who signed it, what it says."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from lipstream.engine.errors import UsageError
from lipstream.streaming.files.provenance import OFFLINE, SYNTHESIS, sidecar_of
from lipstream.streaming.files.signing import own_credentials

logger = logging.getLogger(__name__)

# IPTC's words for pictures that a model made, in whole or in part.
_BY_MODELS: Final = frozenset(
    {"trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia", "compositeSynthetic"}
)
_UNTRUSTED: Final = "signingCredential.untrusted"  # nobody we know vouches for the key
_CHANGED: Final = (".mismatch", "hashedURI", "bmffHash", "dataHash", "boxesHash")


@dataclass(frozen=True, slots=True)
class Manifest:
    """What was found."""

    intact: bool  # the signature holds, and the file is the one that was signed
    sidecar: Path | None  # None: in the file itself
    signed_by: str | None
    own_key: bool  # by the key that is kept for this user
    synthetic: bool  # it says that a model made the picture, in whole or in part
    tool: str | None  # name and version
    synthesis: dict[str, Any] | None  # lipstream's own assertion
    faults: tuple[str, ...]  # C2PA's codes

    @property
    def watermark(self) -> str | None:
        """The id that it says is in the frames."""
        found = (self.synthesis or {}).get("watermark")
        return found if isinstance(found, str) else None

    def as_json(self) -> dict[str, Any]:
        """For `verify --json`."""
        return {
            "intact": self.intact,
            "sidecar": None if self.sidecar is None else str(self.sidecar),
            "signed_by": self.signed_by,
            "own_key": self.own_key,
            "synthetic": self.synthetic,
            "tool": self.tool,
            "synthesis": self.synthesis,
            "faults": list(self.faults),
        }

    def as_text(self) -> str:
        """One line."""
        where = "" if self.sidecar is None else f" in {self.sidecar.name}"
        by = self.signed_by or "nobody named"
        if not self.intact:
            changed = any(part in fault for fault in self.faults for part in _CHANGED)
            why = "the file was changed since it was signed" if changed else "it does not hold"
            return f"broken{where}: {why} ({', '.join(self.faults)}); signed by {by}"
        known = "this user's own key" if self.own_key else "a key that this machine does not know"
        says = "says that a model made it" if self.synthetic else "does not call it synthetic"
        tool = f"; {self.tool}" if self.tool else ""
        return f"valid{where}, signed by {by} ({known}){tool}: {says}"


def can_read() -> bool:
    """Whether c2pa-python is there."""
    return find_spec("c2pa") is not None


def read_manifest(path: Path) -> Manifest | None:
    """The manifest in a file or, where it holds none, in the one beside it; None without any."""
    import c2pa

    with c2pa.Context(settings=c2pa.Settings.from_dict(_settings())) as context:
        try:
            with path.open("rb") as file:
                reader = c2pa.Reader.try_create(None, file, None, context)
                if reader is not None:
                    with reader:
                        return _manifest(reader, None)
        except c2pa.C2paError.NotSupported:
            pass  # of a kind that has no binding
        except c2pa.C2paError as error:
            logger.debug("no manifest in %s: %s", path, error)
            if (code := _code(error)) is not None:
                return _broken(code, None)
        beside = sidecar_of(path)
        if beside == path or not beside.is_file():
            return None
        try:
            with (
                path.open("rb") as file,
                c2pa.Reader(
                    "application/octet-stream", file, beside.read_bytes(), context
                ) as reader,
            ):
                return _manifest(reader, beside)
        except c2pa.C2paError as error:
            return _broken(_code(error) or "manifest.inaccessible", beside)


def _settings() -> dict[str, Any]:
    try:
        own = own_credentials(make=False)
    except UsageError as error:
        logger.warning("%s", error)
        own = None
    if own is None:
        return OFFLINE
    return {**OFFLINE, "trust": {"trust_anchors": own.issuer.decode()}}


def _code(error: Exception) -> str | None:
    """What is wrong with a manifest that is there; None for a file that merely holds none."""
    kind = type(error).__name__.removeprefix("_C2pa")
    return kind if kind in ("Manifest", "Signature", "Verify", "Decoding", "Assertion") else None


def _broken(code: str, sidecar: Path | None) -> Manifest:
    return Manifest(False, sidecar, None, False, False, None, None, (code,))


def _manifest(reader: Any, sidecar: Path | None) -> Manifest:
    store = json.loads(reader.json())
    manifests = store.get("manifests", {})
    active = manifests.get(store.get("active_manifest"), {})
    state = store.get("validation_state")
    signature = active.get("signature_info") or {}
    agent: dict[str, Any] = next(iter(active.get("claim_generator_info") or ()), {})
    tool = " ".join(str(agent[key]) for key in ("name", "version") if agent.get(key))
    assertions = [a for m in manifests.values() for a in m.get("assertions", ())]
    faults = {status["code"] for status in store.get("validation_status") or ()} - {_UNTRUSTED}
    said = (a.get("data") for a in assertions if a.get("label") == SYNTHESIS)
    return Manifest(
        intact=state in ("Valid", "Trusted"),
        sidecar=sidecar,
        signed_by=signature.get("common_name") or signature.get("issuer"),
        own_key=state == "Trusted",
        synthetic=any(_by_a_model(a) for a in assertions),
        tool=tool or active.get("claim_generator"),
        synthesis=next((one for one in said if isinstance(one, dict)), None),
        faults=tuple(sorted(faults)),
    )


def _by_a_model(assertion: dict[str, Any]) -> bool:
    """Whether an actions assertion names a source type of the models."""
    data = assertion.get("data")
    actions = data.get("actions", ()) if isinstance(data, dict) else ()
    types = [str(action.get("digitalSourceType", "")) for action in actions]
    return any(one.rpartition("/")[2] in _BY_MODELS for one in types)
