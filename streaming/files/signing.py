"""Keys that sign provenance: one made on first use and kept, or the user's own certificate.

C2PA wants a chain: a certificate that may sign, issued by another. On first use both are made, and
the issuer's key is thrown away, so that nothing else can be issued in its name. Nobody vouches for
such a chain: it shows that files come from one key, and that they were not changed.
"""

from __future__ import annotations

import datetime
import hashlib
import logging
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lipstream.engine.errors import UsageError

logger = logging.getLogger(__name__)

# Without a time stamp of a server a signature counts for as long as its certificate does.
_VALID: Final = datetime.timedelta(days=20 * 365)
_PEM: Final = serialization.Encoding.PEM
_CURVES: Final = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}

PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


@dataclass(frozen=True, slots=True)
class Credentials:
    """A key and its certificates, PEM."""

    algorithm: str  # as C2PA names it
    chain: bytes  # the signer's certificate first, the issuers after it
    key: bytes

    @property
    def signer(self) -> x509.Certificate:
        """The certificate of the key."""
        return x509.load_pem_x509_certificates(self.chain)[0]

    @property
    def name(self) -> str:
        """Whom the certificate names."""
        return common_name(self.signer)

    @property
    def issuer(self) -> bytes:
        """The last certificate of the chain, PEM."""
        return x509.load_pem_x509_certificates(self.chain)[-1].public_bytes(_PEM)


def common_name(certificate: x509.Certificate) -> str:
    """The subject's common name, or all of the subject without one."""
    found = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else certificate.subject.rfc4514_string()


def own_key_path() -> Path | None:
    """Where the key that was made on first use lies; None where there is no home."""
    base = os.environ.get("XDG_CONFIG_HOME")
    try:
        return (Path(base) if base else Path.home() / ".config") / "lipstream" / "signing.pem"
    except RuntimeError:
        return None


def own_credentials(make: bool = True) -> Credentials | None:
    """The kept key; made where there is none, or None then without `make`.

    Where it cannot be kept, one for this run alone is made, and a warning says so.

    Raises:
        UsageError: others may read the kept key, or it is damaged or out of date.
    """
    path = own_key_path()
    if path is not None and path.is_file():
        return _read_kept(path)
    if not make:
        return None
    made = _make()
    try:
        if path is None:
            raise OSError("there is no home folder")
        return _keep(path, made)
    except OSError as error:
        why = error.strerror or str(error)
        logger.warning(
            "the signing key cannot be kept in %s (%s): this file has a key of its own; "
            "set XDG_CONFIG_HOME, or use --sign CERT KEY",
            path or "~/.config",
            why,
        )
        return made


def given_credentials(certificate: Path, key: Path) -> Credentials:
    """Of `--sign CERT KEY`: a PEM chain, the signer first, and its private key.

    Raises:
        UsageError: they cannot be read, do not belong together, or are of no kind that C2PA takes.
    """
    option = f"--sign {certificate} {key}"
    try:
        chain, secret = certificate.read_bytes(), key.read_bytes()
    except OSError as error:
        raise UsageError(f"{option}: {error.filename}: {error.strerror}") from error
    try:
        return _credentials(chain, secret)
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"{option}: {error}; expected a chain of certificates and the key of the first, "
            "PEM, without a password"
        ) from error


def _credentials(chain: bytes, secret: bytes) -> Credentials:
    """Raises: ValueError, TypeError."""
    certificates = x509.load_pem_x509_certificates(chain)
    key = serialization.load_pem_private_key(secret, None)
    if not isinstance(key, PrivateKey):
        raise ValueError("the key is of a kind that C2PA does not take")
    if key.public_key() != certificates[0].public_key():
        raise ValueError("the key is not that of the first certificate")
    if certificates[0].not_valid_after_utc < datetime.datetime.now(datetime.UTC):
        raise ValueError(f"the certificate ended on {certificates[0].not_valid_after_utc:%Y-%m-%d}")
    return Credentials(
        _algorithm(key),
        b"".join(one.public_bytes(_PEM) for one in certificates),
        _pem(key),
    )


def _algorithm(key: PrivateKey) -> str:
    if isinstance(key, rsa.RSAPrivateKey):
        return "ps256"
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if key.curve.name not in _CURVES:
        raise ValueError(f"C2PA does not take keys on {key.curve.name}")
    return _CURVES[key.curve.name]


def _pem(key: PrivateKey) -> bytes:
    nothing = serialization.NoEncryption()
    return key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, nothing)


def _read_kept(path: Path) -> Credentials:
    try:
        if os.name == "posix" and path.stat().st_mode & 0o077:
            raise UsageError(f"{path}: others may read this key: chmod 600 {path}")
        data = path.read_bytes()
        return _credentials(data, data)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; this is the key that signs files") from error
    except (ValueError, TypeError) as error:
        raise UsageError(f"{path}: {error}; remove it, and another key is made") from error


def _keep(path: Path, made: Credentials) -> Credentials:
    """Write the key for its owner alone; the one that another process kept first counts."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, name = tempfile.mkstemp(prefix=".signing.", dir=path.parent)  # mode 600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(made.key + made.chain)
        try:
            os.link(name, path)
        except FileExistsError:
            return _read_kept(path)
    finally:
        os.unlink(name)
    logger.info("a key that signs files was made", extra={"path": str(path)})
    return made


def _make() -> Credentials:
    issuer, signer = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    spki = signer.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    number = hashlib.sha256(spki).hexdigest()[:12]
    of_issuer = _name(f"lipstream issuer of {number}")
    issued = (
        _builder(of_issuer, of_issuer, issuer, issuer)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(issuer, hashes.SHA256())
    )
    certificate = (
        _builder(_name(f"lipstream key {number}"), of_issuer, signer, issuer)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=True)
        .sign(issuer, hashes.SHA256())
    )
    chain = certificate.public_bytes(_PEM) + issued.public_bytes(_PEM)
    return Credentials("es256", chain, _pem(signer))


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer_key: ec.EllipticCurvePrivateKey,
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    public, above = key.public_key(), issuer_key.public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))  # clocks differ
        .not_valid_after(now + _VALID)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(above), critical=False)
    )


def _name(text: str) -> x509.Name:
    names = ((NameOID.ORGANIZATION_NAME, "lipstream user"), (NameOID.COMMON_NAME, text))
    return x509.Name([x509.NameAttribute(kind, value) for kind, value in names])


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
