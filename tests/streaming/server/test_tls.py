"""https, and what the server says at its start."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed")
pytest.importorskip("aiortc", reason="aiortc is not installed")

from aiohttp import ClientSession, web  # noqa: E402

from lipstream.engine.errors import UsageError  # noqa: E402
from lipstream.streaming.server import start_message as messages  # noqa: E402
from lipstream.streaming.server.start_message import start_message  # noqa: E402
from lipstream.streaming.server.tls import Tls, self_signed  # noqa: E402


def test_a_self_signed_certificate_is_kept_and_names_this_machine(tmp_path: Path) -> None:
    made = self_signed(tmp_path / "new")
    assert made.certificate.stat().st_mode & 0o077 == 0
    assert self_signed(tmp_path / "new") == made, "browsers are asked to trust it once"
    made.certificate.write_text("damaged")
    assert self_signed(tmp_path / "new").fingerprint != made.fingerprint

    async def ask() -> int:
        async def answer(request: web.Request) -> web.Response:
            return web.Response()

        app = web.Application()
        app.router.add_get("/", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        made = self_signed(tmp_path / "new")
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=made.context()).start()
        trusts = ssl.create_default_context(cafile=str(made.certificate))
        try:
            async with ClientSession() as http:
                url = f"https://127.0.0.1:{runner.addresses[0][1]}/"
                return (await http.get(url, ssl=trusts)).status
        finally:
            await runner.cleanup()

    assert asyncio.run(ask()) == 200


def test_files_of_the_operator(tmp_path: Path) -> None:
    both = self_signed(tmp_path).certificate
    text = both.read_text()
    cut = text.index("-----BEGIN PRIVATE")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    certificate.write_text(text[:cut])
    key.write_text(text[cut:])
    for given in ((certificate, key), (both, None)):
        tls = Tls.parse(str(given[0]), None if given[1] is None else str(given[1]))
        assert tls is not None and tls.fingerprint is None
        assert isinstance(tls.context(), ssl.SSLContext)
    assert Tls.parse(None, None) is None


@pytest.mark.parametrize(
    "certificate, key, reason",
    [
        (None, "key.pem", "expected options"),
        ("self-signed", "key.pem", "takes no 'key.pem'"),
        ("nothing.pem", "key.pem", "No such file"),
        (__file__, None, "private key, PEM"),
    ],
)
def test_what_does_not_fit_is_refused(
    certificate: str | None, key: str | None, reason: str
) -> None:
    with pytest.raises(UsageError, match=reason):
        tls = Tls.parse(certificate, key)
        assert tls is not None
        tls.context()


def test_the_start_message_has_addresses_that_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def addresses(use_ipv4: bool, use_ipv6: bool) -> list[str]:
        return ["10.0.0.7"] + ["fd00::2"] * use_ipv6

    monkeypatch.setattr(messages, "get_host_addresses", addresses)
    assert list(start_message(["a", "b"], "127.0.0.1", 8080, None)) == [
        "serving a, b on http://127.0.0.1:8080/ (Ctrl-C ends)"
    ]
    first, second = start_message(["a"], "0.0.0.0", 80, None)
    assert first == "serving a on http://localhost:80/, http://10.0.0.7:80/ (Ctrl-C ends)"
    assert "only at the first address" in second and "--tls self-signed" in second
    first, second = start_message(["a"], "10.0.0.7", 80, None)
    assert "http://10.0.0.7:80/" in first and "nowhere" in second
    first, second = start_message(["a"], "::", 443, Tls(Path("x"), None, "AB:CD"))
    assert "https://localhost:443/, https://10.0.0.7:443/, https://[fd00::2]:443/" in first
    assert second.endswith("AB:CD")
    (only,) = start_message(["a"], "0.0.0.0", 443, Tls(Path("x"), Path("y")))
    assert only.startswith("serving a on https://")
