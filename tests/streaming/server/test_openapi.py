"""The API's own description against the routes that there are, and the token before all of them."""

from __future__ import annotations

import asyncio
import json
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed")
pytest.importorskip("aiortc", reason="aiortc is not installed")

from lipstream.streaming.server.api import openapi_document  # noqa: E402
from lipstream.streaming.server.app import PAGE, ServerOptions, make_app  # noqa: E402
from lipstream.streaming.server.targets import TargetRegistry  # noqa: E402
from tests.streaming.server.fake_server import AUTHORISED, TOKEN, fake_engine, server  # noqa: E402

OPEN = set(PAGE) | {"/healthz"}


def served() -> set[tuple[str, str]]:
    """(method, path) of every route; the page's own files aside, but for the page."""
    app = make_app(ServerOptions(), lambda: ["face"], fake_engine)
    return {
        (route.method.lower(), route.resource.canonical)
        for route in app.router.routes()
        if route.resource is not None and route.method != "HEAD"
        if route.resource.canonical not in set(PAGE) - {"/"}
    }


def described() -> set[tuple[str, str]]:
    return {(method, path) for path, item in openapi_document()["paths"].items() for method in item}


def test_every_route_is_described_and_every_description_is_a_route() -> None:
    assert served() - described() == set(), "routes that the document does not know"
    assert described() - served() == set(), "described, but not there"


def resolved(node: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    """What a "$ref" refers to; anything else as it is."""
    if "$ref" not in node:
        return node
    for key in node["$ref"].removeprefix("#/").split("/"):
        document = document[key]
    return document


def test_the_document_is_whole() -> None:
    text = json.dumps(made := openapi_document())
    assert made["openapi"].startswith("3.1.") and made["info"]["version"] == version("lipstream")
    references = set(re.findall(r'"\$ref": "(#/components/(\w+)/(\w+))"', text))
    for reference, group, name in references:
        assert name in made["components"][group], reference
    for group in ("parameters", "responses", "schemas"):
        used = {name for _, where, name in references if where == group}
        assert set(made["components"][group]) == used, f"{group} that nothing refers to"
    for path, item in made["paths"].items():
        for method, operation in item.items():
            assert operation["summary"] and operation["responses"], (method, path)
            listed = [resolved(p, made) for p in operation.get("parameters", [])]
            named = {p["name"] for p in listed if p["in"] == "path"}
            assert named == set(re.findall(r"{(\w+)}", path)), (method, path)
            assert ("401" in operation["responses"]) == (path not in OPEN), (method, path)
            for response in operation["responses"].values():
                assert resolved(response, made)["description"], (method, path)


def test_every_route_but_page_and_health_needs_the_token() -> None:
    async def test() -> None:
        async with server(token=TOKEN) as http:
            for method, path in sorted(served()) + [("get", path) for path in PAGE]:
                at = path.replace("{key}", "x").replace("{name}", "face")
                answer = await http.request(method, at)
                assert (answer.status == 401) == (path not in OPEN), (method, path, answer.status)
                assert path not in OPEN or answer.status == 200, (method, path, answer.status)

    asyncio.run(test())


def test_answers_have_what_the_document_promises(target: Path) -> None:
    schemas: dict[str, Any] = openapi_document()["components"]["schemas"]
    kinds = {"string": str, "integer": int, "number": (int, float), "object": dict}
    registry = TargetRegistry(target.parent)

    async def test() -> None:
        async with server(registry, token=TOKEN) as http:
            http.headers.update(AUTHORISED)
            listed = (await (await http.get("/api/targets")).json())["targets"]
            assert [entry["name"] for entry in listed] == ["demo"]
            one = await (await http.get("/api/targets/demo")).json()
            assert one == listed[0]
            assert set(one) == set(schemas["Target"]["properties"])
            for name, schema in schemas["Target"]["properties"].items():
                kind = schema["type"] if isinstance(schema["type"], str) else schema["type"][0]
                assert isinstance(one[name], kinds[kind]), name
            assert set(one["consent"]) == set(
                schemas["Target"]["properties"]["consent"]["properties"]
            )
            assert one["consent"]["who"] == "NASA portrait of Eileen Collins"
            assert (one["width"], one["height"], one["fps"]) == (512, 512, 25.0)
            assert one["duration_s"] == pytest.approx(one["frames"] / one["fps"], abs=0.1)
            poster = await http.get(one["poster"])
            assert poster.content_type == "image/jpeg"
            picture = await poster.read()
            assert picture[:2] == b"\xff\xd8" and picture[-2:] == b"\xff\xd9"
            for name in ("nobody", "..%2fdemo", "demo.target"):
                for path in (f"/api/targets/{name}", f"/api/targets/{name}/poster"):
                    assert (await http.get(path)).status == 404, path
            assert await (await http.get("/api/openapi.json")).json() == openapi_document()
            moved = await http.get("/api", allow_redirects=False)
            assert (moved.status, moved.headers["Location"]) == (302, "/api.html")
            assert set(await (await http.get("/api/version")).json()) == {"version"}
            assert await (await http.get("/api/sessions")).json() == {"sessions": []}
            async with http.ws_connect("/ws?target=demo"):
                (session,) = (await (await http.get("/api/sessions")).json())["sessions"]
                assert set(session) == set(schemas["Session"]["properties"])

    asyncio.run(test())


def test_a_damaged_bundle_hides_no_other(tmp_path: Path) -> None:
    whole = {"kind": "video", "width": 2, "height": 2, "fps": "25", "frames": 1, "duration_s": 0.04}
    for name, text in (("a", json.dumps(whole)), ("b", "{"), ("c", "[]")):
        (tmp_path / f"{name}.target").mkdir()
        (tmp_path / f"{name}.target" / "target.json").write_text(text)
        (tmp_path / f"{name}.target" / "frames.mjpeg").write_bytes(b"no picture")
    registry = TargetRegistry(tmp_path)

    async def test() -> None:
        async with server(registry) as http:
            listed = (await (await http.get("/api/targets")).json())["targets"]
            assert [entry["name"] for entry in listed] == ["a"]
            assert (await http.get("/api/targets/b")).status == 500
            assert (await http.get("/api/targets/a/poster")).status == 500

    asyncio.run(test())
