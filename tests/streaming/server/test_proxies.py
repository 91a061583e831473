"""The server behind a reverse proxy: its names, its root path, and nginx itself."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from urllib.parse import urljoin

import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed")
pytest.importorskip("aiortc", reason="aiortc is not installed")

from aiohttp import ClientSession  # noqa: E402

from lipstream.engine.errors import UsageError  # noqa: E402
from lipstream.streaming.server.app import PAGE, ServerOptions  # noqa: E402
from lipstream.streaming.server.proxies import ProxyOptions, same_host  # noqa: E402
from tests.streaming.ports import free_port  # noqa: E402
from tests.streaming.server.fake_server import AUTHORISED, SDP, TOKEN, server  # noqa: E402
from tests.streaming.waiting import eventually, listens  # noqa: E402
from tests.streaming.webrtc.client import Client  # noqa: E402

LIVE_MD = Path(__file__).parents[3] / "docs" / "live.md"
TRUSTED = ProxyOptions.parse("", ["127.0.0.0/8"])


@pytest.mark.parametrize(
    "origin, host, same",
    [
        ("https://name", "name:443", True),
        ("https://name", "name", True),
        ("http://name", "name:80", True),
        ("http://Name", "NAME", True),
        ("http://[::1]:8080", "[::1]:8080", True),
        ("https://[::1]", "[::1]:443", True),
        ("https://name:8443", "name:8443", True),
        ("http://name", "name:443", False),
        ("https://name:8443", "name", False),
        ("https://name", "other", False),
        ("https://name.other", "name", False),
        ("null", "name", False),
        ("https://[", "name", False),
        ("https://name", "name:port", False),
    ],
)
def test_an_origin_and_a_host_are_compared_with_their_default_ports(
    origin: str, host: str, same: bool
) -> None:
    assert same_host(origin, host) == same


PUBLIC = "https://avatar.example.org"


@pytest.mark.parametrize(
    "proxies, headers, status",
    [
        (ProxyOptions(), {"Host": "avatar.example.org"}, 200),
        (ProxyOptions(), {"Host": "avatar.example.org:443"}, 200),
        (ProxyOptions(), {"Sec-Fetch-Site": "same-origin"}, 200),
        (ProxyOptions(), {"Sec-Fetch-Site": "same-site"}, 403),
        (ProxyOptions(), {"Sec-Fetch-Site": "cross-site"}, 403),
        (ProxyOptions(), {"X-Forwarded-Host": "avatar.example.org"}, 403),
        (ProxyOptions.parse("", ["10.0.0.0/8"]), {"X-Forwarded-Host": "avatar.example.org"}, 403),
        (TRUSTED, {"X-Forwarded-Host": "avatar.example.org"}, 200),
        (TRUSTED, {"X-Forwarded-Host": "avatar.example.org, inner"}, 200),
        (TRUSTED, {"X-Forwarded-Host": "avatar.example.org:443"}, 200),
        (TRUSTED, {"Forwarded": 'for=10.1.1.1;host="avatar.example.org";proto=https'}, 200),
        (TRUSTED, {"X-Forwarded-Host": "other.example.org"}, 403),
        (TRUSTED, {"Forwarded": "for=10.1.1.1;host=other.example.org"}, 403),
        (TRUSTED, {}, 200),  # the proxy states no host: the token decides
    ],
)
def test_who_is_the_server_behind_a_proxy(
    proxies: ProxyOptions, headers: dict[str, str], status: int
) -> None:
    async def test() -> None:
        async with server(token=TOKEN, proxies=proxies) as http:
            asked = {"Origin": PUBLIC, **headers}
            without = await http.get("/api/targets", headers=asked)
            assert without.status == (401 if status == 200 else 403)
            answer = await http.get("/api/targets", headers={**AUTHORISED, **asked})
            assert answer.status == status, await answer.text()

    asyncio.run(test())


def test_a_forwarded_port_belongs_to_the_host() -> None:
    async def test() -> None:
        async with server(token=TOKEN, proxies=TRUSTED) as http:
            for origin, status in ((f"{PUBLIC}:8443", 200), (f"{PUBLIC}:8444", 403)):
                headers = {"Host": "avatar.example.org", "X-Forwarded-Port": "8443"}
                asked = {**AUTHORISED, **headers, "Origin": origin}
                assert (await http.get("/api/targets", headers=asked)).status == status

    asyncio.run(test())


def test_without_a_token_no_header_makes_another_name_this_machine() -> None:
    async def test() -> None:
        async with server() as http:
            for headers in (
                {"Host": "evil.example", "X-Forwarded-Host": "localhost"},
                {"Host": "evil.example", "Sec-Fetch-Site": "same-origin"},
            ):
                answer = await http.get("/api/targets", headers=headers)
                assert answer.status == 403, headers

    asyncio.run(test())
    with pytest.raises(UsageError, match="--token"):
        ServerOptions(proxies=TRUSTED)


@pytest.mark.parametrize("text", ["avatar", "/a b", "/a//b", "/../a?", "//evil.example"])
def test_a_root_path_is_a_path(text: str) -> None:
    with pytest.raises(UsageError, match="/avatar"):
        ProxyOptions.parse(text, ())


@pytest.mark.parametrize("text", ["proxy.example", "10.0.0.0/33", ""])
def test_a_trusted_proxy_is_an_address(text: str) -> None:
    with pytest.raises(UsageError, match=r"10\.0\.0\.0/8"):
        ProxyOptions.parse("", [text])


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [v for k, v in attrs if k in ("href", "src") and v]


async def check_everything_under(http: ClientSession, base: str) -> None:
    """The page, what it links, the API and a call; `base` ends with a slash."""
    for page in ("", "api.html"):
        answer = await http.get(base + page)
        assert answer.status == 200, page
        links = _Links()
        links.feed(await answer.text())
        own = [one for one in links.found if not one.startswith(("#", "data:"))]
        assert len(own) >= 3
        for link in own:
            url = urljoin(base + page, link)
            assert url.startswith(base), link
            assert (await http.get(url, headers=AUTHORISED)).status == 200, url
    moved = await http.get(base + "api", headers=AUTHORISED)
    assert moved.status == 200 and str(moved.url) == base + "api.html"
    document = await (await http.get(base + "api/openapi.json", headers=AUTHORISED)).json()
    assert urljoin(base, document["servers"][0]["url"]) == base.rstrip("/")
    assert (await http.get(base + "metrics")).status == 401
    async with http.ws_connect(base + "ws?target=face", headers=AUTHORISED) as voice:
        await voice.send_json({"type": "start", "rate": 16000})
        assert (await voice.receive_json(timeout=5))["type"] == "started"
    client = Client()
    answer = await http.post(
        base + "whip?target=face", data=await client.offer(), headers={**SDP, **AUTHORISED}
    )
    assert answer.status == 201, await answer.text()
    place = urljoin(base + "whip", answer.headers["Location"])
    assert place.startswith(base + "sessions/")
    await client.accept(await answer.text())
    await eventually(lambda: len(client.pictures) > 3)
    assert (await http.get(place, headers=AUTHORISED)).status == 200
    assert (await http.delete(place, headers=AUTHORISED)).status == 200
    await client.close()


@pytest.mark.parametrize("name", [name for name, _ in PAGE.values()])
def test_the_page_asks_for_nothing_by_an_absolute_path(name: str) -> None:
    """Under a root path it would leave it."""
    text = files("lipstream.streaming.server").joinpath("web", name).read_text("utf-8")
    absolute = re.findall(r"""(?:fetch\(|href=|src=|from |url\()["'`]/[^"'`]*""", text)
    assert absolute == []


@pytest.mark.parametrize(
    "proxies, headers",
    [
        (ProxyOptions.parse("/avatar", []), {}),
        (ProxyOptions.parse("/deep/avatar/", []), {}),
    ],
)
def test_all_of_it_works_under_a_root_path(proxies: ProxyOptions, headers: dict[str, str]) -> None:
    async def test() -> None:
        async with server(token=TOKEN, proxies=proxies) as http:
            root = f"http://127.0.0.1:{http._base_url.port}{proxies.root_path}"  # type: ignore[union-attr]
            await check_everything_under(http, root + "/")
            without_slash = await http.get(root)
            assert str(without_slash.url) == root + "/" and without_slash.status == 200
            assert (await http.get("/healthz")).status == 200, "a probe knows no proxy"

    asyncio.run(test())


def test_a_trusted_proxy_may_state_the_root_path() -> None:
    async def test() -> None:
        async with server(token=TOKEN, proxies=TRUSTED) as http:
            for stated, location in (
                ("/avatar", "/avatar/api.html"),
                ("/avatar/", "/avatar/api.html"),
                ("//evil.example", "/api.html"),
            ):
                headers = {**AUTHORISED, "X-Forwarded-Prefix": stated}
                moved = await http.get("/api", headers=headers, allow_redirects=False)
                assert moved.headers["Location"] == location

    asyncio.run(test())


@asynccontextmanager
async def nginx(folder: Path, locations: str) -> AsyncIterator[str]:
    """nginx on loopback with these `location` blocks; yields its origin."""
    binary = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if binary is None:
        pytest.skip("no nginx: apt-get install nginx-light")
    port = free_port()
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = folder / "nginx.conf"
    config.write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;\n"
        f"events {{}}\nhttp {{ access_log off;\n{temporary}"
        f"server {{ listen 127.0.0.1:{port};\n{locations}\n}} }}\n"
    )
    process = await asyncio.create_subprocess_exec(
        binary, "-p", str(folder), "-c", str(config), stderr=asyncio.subprocess.DEVNULL
    )
    try:

        async def ready() -> bool:
            assert process.returncode is None, (folder / "error.log").read_text()
            return await listens(port)

        await eventually(ready, what="nginx listens")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()


def documented() -> str:
    """The `location` block of docs/live.md."""
    (found,) = re.findall(
        r"^ {4}location /avatar/ \{\n.*?^ {4}\}$", LIVE_MD.read_text(), re.M | re.S
    )
    return str(found)


BARE = "location /avatar/ { proxy_pass http://127.0.0.1:8080/; }"
KEEPS_THE_PATH = """location /avatar/ { proxy_pass http://127.0.0.1:8080; proxy_http_version 1.1;
proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; }"""


@pytest.mark.parametrize("block", ["documented", KEEPS_THE_PATH])
def test_a_call_through_nginx(block: str, tmp_path: Path) -> None:
    """Also a page's own Origin, whatever Host header nginx sends."""
    locations = documented() if block == "documented" else block
    proxies = ProxyOptions.parse("/avatar", ["127.0.0.1"])

    async def test() -> None:
        async with server(token=TOKEN, proxies=proxies) as http:
            port = http._base_url.port  # type: ignore[union-attr]
            assert ":8080" in locations
            async with nginx(tmp_path, locations.replace(":8080", f":{port}")) as origin:
                async with ClientSession(headers={"Origin": origin}) as browser:
                    await check_everything_under(browser, origin + "/avatar/")
                foreign = {**AUTHORISED, "Origin": "https://evil.example"}
                answer = await http.get(f"{origin}/avatar/api/targets", headers=foreign)
                # Without a forwarded host nothing but the token can decide.
                assert answer.status == (403 if block == "documented" else 200)

    asyncio.run(test())


def test_nginx_as_it_is_without_options_serves_a_browser(tmp_path: Path) -> None:
    """Its Host header is then that of the upstream; browsers say by themselves whose page asks."""

    async def test() -> None:
        async with server(token=TOKEN) as http:
            port = http._base_url.port  # type: ignore[union-attr]
            block = BARE.replace(":8080", f":{port}")
            async with nginx(tmp_path, block) as origin:
                for site, status in (("same-origin", 200), ("cross-site", 403)):
                    headers = {**AUTHORISED, "Origin": origin, "Sec-Fetch-Site": site}
                    answer = await http.get(f"{origin}/avatar/api/targets", headers=headers)
                    assert answer.status == status

    asyncio.run(test())
