"""C2PA manifests: signed by a kept key or the user's, read by C2PA's reader, broken by change."""

from __future__ import annotations

import datetime
import json
import logging
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import c2pa
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lipstream.engine.errors import MediaError, UsageError
from lipstream.streaming.files import provenance as provenance_module
from lipstream.streaming.files.manifest import read_manifest
from lipstream.streaming.files.provenance import SYNTHESIS, SYNTHETIC, Provenance, sidecar_of
from lipstream.streaming.files.signing import given_credentials, own_credentials, own_key_path
from lipstream.streaming.marking.marker import Marking
from tests.streaming.marked_files import write_marked


@pytest.fixture(scope="module")
def provenance() -> Provenance:
    made = Provenance.of(None)
    assert made is not None
    return made


@pytest.fixture(scope="module")
def signed(provenance: Provenance, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("signed") / "signed.mp4"
    write_marked(path, Marking("bar"), provenance)
    return path


def test_the_librarys_own_reader_accepts_it(signed: Path) -> None:
    with c2pa.Reader(str(signed)) as reader:
        assert reader.get_validation_state() == "Valid"
        manifest = reader.get_active_manifest()
    agent = manifest["claim_generator_info"][0]
    assert (agent["name"], agent["version"]) == ("lipstream", "9.9")
    data = {a["label"]: a["data"] for a in manifest["assertions"]}
    actions = data["c2pa.actions.v2"]["actions"]
    assert actions[0]["action"] == "c2pa.created"
    assert actions[0]["digitalSourceType"] == SYNTHETIC
    said = data[SYNTHESIS]
    assert said["synthesised"] == "mouth" and said["label"] == "bar"
    assert said["target"]["sha256"] == "12" and said["sound"]["sha256"] == "34"
    assert said["consent"]["for"] == "tests" and "who" not in said["consent"]
    mark = data["c2pa.soft-binding"]["blocks"][0]["value"]
    assert mark == said["watermark"] and len(mark) == 8
    assert actions[1]["action"] == "c2pa.watermarked.bound"


def test_reasons_stand_in_the_manifest(provenance: Provenance, tmp_path: Path) -> None:
    path = tmp_path / "plain.mov"
    write_marked(path, Marking.parse("off:shown by the player", "a test"), provenance)
    with c2pa.Reader(str(path)) as reader:
        data = {a["label"]: a["data"] for a in reader.get_active_manifest()["assertions"]}
    assert "c2pa.soft-binding" not in data
    assert len(data["c2pa.actions.v2"]["actions"]) == 1
    said = data[SYNTHESIS]
    assert (said["label"], said["no_label"]) == ("off", "shown by the player")
    assert (said["watermark"], said["no_watermark"]) == (None, "a test")


def test_who_signed_it(signed: Path, provenance: Provenance, tmp_path: Path) -> None:
    found = read_manifest(signed)
    assert found is not None and found.intact and found.synthetic and found.own_key
    assert found.signed_by == provenance.credentials.name and not found.faults
    certificate, key = chain(tmp_path)
    theirs = Provenance.of((certificate, key))
    other = tmp_path / "other.mp4"
    write_marked(other, None, theirs)
    found = read_manifest(other)
    assert found is not None and found.intact and not found.own_key
    assert found.signed_by == "Studio"
    assert "a key that this machine does not know" in found.as_text()


def test_a_changed_file_is_found(signed: Path, tmp_path: Path) -> None:
    """One bit, anywhere but in the padding that C2PA leaves out."""
    whole = signed.read_bytes()
    copy = tmp_path / "copy.mp4"
    for place in (0.3, 0.5, 0.7, 0.95):
        data = bytearray(whole)
        data[int(place * len(data))] ^= 1
        copy.write_bytes(data)
        found = read_manifest(copy)
        assert found is not None and not found.intact
        assert found.as_text().startswith("broken: the file was changed since it was signed")
    # What it says, too.
    copy.write_bytes(whole.replace(b"synthesised", b"photographe"))
    found = read_manifest(copy)
    assert found is not None and not found.intact
    # Taken from another file.
    begin = whole.index(b"uuid") - 4
    size = int.from_bytes(whole[begin : begin + 4], "big")
    other = tmp_path / "other.mp4"
    write_marked(other)
    bare = other.read_bytes()
    after_ftyp = int.from_bytes(bare[:4], "big")
    copy.write_bytes(bare[:after_ftyp] + whole[begin : begin + size] + bare[after_ftyp:])
    found = read_manifest(copy)
    assert found is not None and not found.intact


@pytest.mark.parametrize("suffix", [".webm", ".mkv"])
def test_files_without_a_binding_get_a_sidecar(
    provenance: Provenance, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"film{suffix}"
    assert write_marked(path, None, provenance).sidecar == tmp_path / "film.c2pa"
    found = read_manifest(path)
    assert found is not None and found.intact and found.synthetic
    assert found.sidecar == sidecar_of(path)
    with path.open("r+b") as file:
        file.seek(-20, 2)
        file.write(b"x")
    found = read_manifest(path)
    assert found is not None and not found.intact
    sidecar_of(path).write_bytes(b"nonsense")
    found = read_manifest(path)
    assert found is not None and not found.intact
    sidecar_of(path).unlink()
    assert read_manifest(path) is None


def test_a_file_that_cannot_be_signed_is_not_left(
    provenance: Provenance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bytes:
        raise RuntimeError("no more ink")

    monkeypatch.setattr(provenance, "_sign", fail)
    for name in ("film.mp4", "film.webm"):
        with pytest.raises(MediaError, match=r"cannot sign .*: no more ink"):
            write_marked(tmp_path / name, None, provenance)
    assert [path.name for path in tmp_path.iterdir()] == ["film.wav"]


def test_a_key_is_made_once_and_kept_for_its_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert own_credentials(make=False) is None and list(tmp_path.iterdir()) == []
    with ThreadPoolExecutor(8) as threads:
        made = {made.chain for made in threads.map(lambda _: own_credentials(), range(8)) if made}
    assert len(made) == 1
    path = own_key_path()
    assert path is not None and stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in path.parent.iterdir()] == ["signing.pem"]
    assert path.read_bytes().count(b"PRIVATE KEY") == 2  # one key, its first and its last line
    path.chmod(0o640)
    with pytest.raises(UsageError, match="others may read this key: chmod 600"):
        own_credentials()
    path.chmod(0o600)
    path.write_text("no key")
    with pytest.raises(UsageError, match="remove it, and another key is made"):
        own_credentials()


@pytest.mark.parametrize("nowhere", ["/dev/null/config", "/proc/config"])
def test_without_a_place_for_it_the_key_is_for_one_file(
    nowhere: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", nowhere)
    with caplog.at_level(logging.WARNING):
        made = Provenance.of(None)
    assert made is not None and made.credentials.name.startswith("lipstream key ")
    assert "cannot be kept" in caplog.text and "--sign CERT KEY" in caplog.text


@pytest.mark.parametrize("kind", ["p256", "p384", "rsa", "ed25519"])
def test_the_users_certificate(kind: str, tmp_path: Path) -> None:
    made = Provenance.of(chain(tmp_path, kind))
    assert made is not None and made.credentials.name == "Studio"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("missing", "No such file"),
        ("swapped", "expected a chain of certificates"),
        ("another key", "not that of the first certificate"),
        ("password", "expected a chain of certificates"),
        ("ended", "the certificate ended on 20"),
        ("of a server", "C2PA does not take this certificate"),
    ],
)
def test_certificates_that_cannot_sign(wrong: str, message: str, tmp_path: Path) -> None:
    """Known before anything is painted."""
    certificate, key = chain(tmp_path)
    if wrong == "missing":
        key = tmp_path / "nowhere.pem"
    elif wrong == "swapped":
        certificate, key = key, certificate
    elif wrong == "another key":
        (tmp_path / "b").mkdir()
        key = chain(tmp_path / "b")[1]
    elif wrong == "password":
        secret = serialization.load_pem_private_key(key.read_bytes(), None)
        key.write_bytes(
            secret.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(b"secret"),
            )
        )
    else:
        certificate, key = chain(tmp_path, wrong=wrong)
    with pytest.raises(UsageError, match=message) as raised:
        Provenance.of((certificate, key))
    assert "\n" not in str(raised.value)


def test_without_the_library_a_warning_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setattr(provenance_module, "find_spec", lambda name: None)
    with caplog.at_level(logging.WARNING):
        assert Provenance.of(None) is None
    assert "no signed provenance: c2pa-python is missing: pip install c2pa-python" in caplog.text
    with pytest.raises(UsageError, match="--sign needs c2pa-python"):
        Provenance.of(chain(tmp_path))


def test_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch, signed: Path) -> None:
    settings = json.dumps(provenance_module.OFFLINE)
    assert '"remote_manifest_fetch": false' in settings and '"ocsp_fetch": false' in settings
    credentials = own_credentials()
    assert credentials is not None and given_credentials  # the signer gets no time stamp server
    info = c2pa.C2paSignerInfo(b"es256", credentials.chain, credentials.key, None)
    assert info.ta_url is None


def chain(folder: Path, kind: str = "p256", wrong: str = "") -> tuple[Path, Path]:
    """A studio's certificate, issued by its authority, and its key: two files."""
    issuer = ec.generate_private_key(ec.SECP256R1())
    key = {
        "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
        "rsa": lambda: rsa.generate_private_key(65537, 2048),
        "ed25519": ed25519.Ed25519PrivateKey.generate,
    }[kind]()
    now = datetime.datetime.now(datetime.UTC)
    days = datetime.timedelta(days=1)
    end = now - days if wrong == "ended" else now + 30 * days
    purpose = (
        ExtendedKeyUsageOID.SERVER_AUTH
        if wrong == "of a server"
        else ExtendedKeyUsageOID.EMAIL_PROTECTION
    )
    above = key if wrong == "self-signed" else issuer

    def name(text: str) -> x509.Name:
        return x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Studio Ltd"),
                x509.NameAttribute(NameOID.COMMON_NAME, text),
            ]
        )

    usage = x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, key_cert_sign=False, crl_sign=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip
    public = x509.SubjectKeyIdentifier.from_public_key
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key
    issued = (
        x509.CertificateBuilder()
        .subject_name(name("Studio"))
        .issuer_name(name("Studio" if wrong == "self-signed" else "Authority"))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 60 * days)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=True)
        .add_extension(public(key.public_key()), critical=False)
        .add_extension(authority(above.public_key()), critical=False)
        .sign(above, hashes.SHA256())
    )
    folder.mkdir(exist_ok=True)
    certificate_path, key_path = folder / "chain.pem", folder / "key.pem"
    certificate_path.write_bytes(issued.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return certificate_path, key_path
