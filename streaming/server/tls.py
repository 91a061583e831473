"""TLS of the server: a certificate that the operator has, or one that this machine signs itself.

Browsers give the microphone to pages from https:// and from the same machine only.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aioice.ice import get_host_addresses
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from lipstream.engine.errors import UsageError

SELF_SIGNED: Final = "self-signed"
_VALID: Final = datetime.timedelta(days=365)
_RENEW_BEFORE: Final = datetime.timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Tls:
    """Where the certificate and its key lie."""

    certificate: Path
    key: Path | None = None  # None: in the same file
    fingerprint: str | None = None  # SHA-256 of a self-signed one, for people to compare

    @classmethod
    def parse(cls, certificate: str | None, key: str | None) -> Tls | None:
        """From `--tls CERT KEY`, `--tls CERT` or `--tls self-signed`; None without the option.

        Raises:
            UsageError: a key without a certificate, or one that cannot be written.
        """
        if certificate is None:
            if key is not None:
                raise UsageError(
                    f"got the argument {key!r}; expected options: the target by --targets {key}, a "
                    "certificate and its key by --tls CERT KEY"
                )
            return None
        if certificate != SELF_SIGNED:
            return cls(Path(certificate), Path(key) if key is not None else None)
        if key is not None:
            raise UsageError(f"--tls {SELF_SIGNED} makes its own key; it takes no {key!r}")
        return self_signed(_state_folder())

    def context(self) -> ssl.SSLContext:
        """For a server; raises UsageError when the files do not fit."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            context.load_cert_chain(self.certificate, self.key, password=_no_password)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            files = f"{self.certificate} {self.key or ''}".strip()
            raise UsageError(
                f"--tls {files}: {_reason(error)}; expected a certificate and its private key, PEM"
            ) from error
        return context


def self_signed(folder: Path) -> Tls:
    """A certificate of this machine's names and addresses; kept, so that browsers ask once.

    Raises:
        UsageError: the folder cannot be written.
    """
    path = folder / "self-signed.pem"
    names = _names()
    found = _read(path)
    if found is None or not _is_fit(found, names):
        found = _write(path, names)
    digest = found.fingerprint(hashes.SHA256()).hex(":").upper()
    return Tls(path, None, digest)


def _state_folder() -> Path:
    base = os.environ.get("XDG_STATE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".local" / "state") / "lipstream"
    except RuntimeError as error:  # no home
        raise UsageError(f"--tls {SELF_SIGNED}: set XDG_STATE_HOME, there is no home") from error


def _names() -> list[x509.GeneralName]:
    addresses = {"127.0.0.1", "::1", *get_host_addresses(use_ipv4=True, use_ipv6=True)}
    hosts = {"localhost", socket.gethostname()}
    return [
        *(x509.DNSName(host) for host in sorted(hosts) if host.isascii()),
        *(x509.IPAddress(ipaddress.ip_address(address)) for address in sorted(addresses)),
    ]


def _read(path: Path) -> x509.Certificate | None:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):  # none yet, or a damaged one: made anew
        return None


def _is_fit(found: x509.Certificate, names: list[x509.GeneralName]) -> bool:
    now = datetime.datetime.now(datetime.UTC)
    if found.not_valid_after_utc - now < _RENEW_BEFORE:
        return False
    stated = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return set(names) <= set(stated)


def _write(path: Path, names: list[x509.GeneralName]) -> x509.Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "lipstream, self-signed")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))  # clocks of clients differ
        .not_valid_after(now + _VALID)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    part = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.unlink(missing_ok=True)
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(made.public_bytes(serialization.Encoding.PEM) + secret)
        part.replace(path)
    except OSError as error:
        raise UsageError(f"--tls {SELF_SIGNED}: {path}: {error.strerror}") from error
    return made


def _no_password() -> str:
    raise ValueError("the key has a password; expected one without")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
