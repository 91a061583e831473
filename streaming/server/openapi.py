"""The API, described for programs: an OpenAPI 3.1 document, which /api.html shows to people."""

from __future__ import annotations

from typing import Any, Final

_JSON: Final = "application/json"
_SDP: Final = "application/sdp"

_TARGET: Final = {
    "name": "target",
    "in": "query",
    "required": True,
    "description": "A name from /api/targets.",
    "schema": {"type": "string"},
}
_SESSION: Final = {
    "name": "session",
    "in": "query",
    "required": False,
    "description": "Which conversation to join, or to begin; by default the target's name.",
    "schema": {"type": "string", "maxLength": 64},
}
_KEY: Final = {
    "name": "key",
    "in": "path",
    "required": True,
    "description": "From the Location of the answer to an offer.",
    "schema": {"type": "string"},
}
_NAME: Final = {
    "name": "name",
    "in": "path",
    "required": True,
    "description": "A name from /api/targets.",
    "schema": {"type": "string"},
}
_REASONS: Final = {
    400: "What was sent cannot be used; the reason says why.",
    401: "The token is missing or wrong.",
    403: "The request comes from another site's page.",
    404: "There is no such target or session; of a session that ended, the reason why.",
    405: "Not offered here.",
    409: "The session speaks as another target.",
    413: "Larger than this server takes.",
    415: "Not application/sdp.",
    500: "A fault of the server, or a damaged target.",
    503: "Too many conversations, or every UDP port is taken; see Retry-After.",
}


def document(version: str) -> dict[str, Any]:
    """The whole document; `version` is the package's."""
    offer = {"required": True, "content": {_SDP: {"schema": {"type": "string"}}}}
    answer = {
        "description": "Answered: the SDP holds every candidate.",
        "headers": {
            "Location": _header("The connection: GET, DELETE, and POST to its /interrupt."),
            "Link": _header("An ICE server, as RFC 9725 section 4.6 writes it; one or more."),
        },
        "content": {_SDP: {"schema": {"type": "string"}}},
    }
    described = {
        "description": "What the endpoint takes.",
        "headers": {"Accept-Post": _header("application/sdp"), "Link": _header("ICE servers.")},
    }
    socket = {"description": "Switching to the WebSocket protocol; docs/live.md has the messages."}
    figures = _schema("Session")
    paths: dict[str, Any] = {
        "/": {"get": _operation("The page for people", {200: _content("HTML", "text/html")}, ())},
        "/healthz": {
            "get": _operation("Does it run?", {200: _object("Yes", {"status": "ok"})}, ())
        },
        "/metrics": {
            "get": _operation("Figures for Prometheus", {200: _content("Text", "text/plain")})
        },
        "/whip": {
            "post": _operation(
                "A voice in; with a receiving offer, a call (RFC 9725)",
                {201: answer},
                (400, 401, 403, 404, 409, 413, 415, 500, 503),
                parameters=[_TARGET, _SESSION],
                requestBody=offer,
            ),
            "options": _operation("What it takes", {204: described}),
        },
        "/whep": {
            "post": _operation(
                "Picture and sound out, to any WHEP player",
                {201: answer},
                (400, 401, 403, 404, 409, 413, 415, 500, 503),
                parameters=[_TARGET, _SESSION],
                requestBody=offer,
            ),
            "options": _operation("What it takes", {204: described}),
        },
        "/ws": {
            "get": _operation(
                "A voice in, PCM16 over a WebSocket",
                {101: socket},
                (400, 401, 403, 404, 409, 500, 503),
                parameters=[_TARGET, _SESSION],
            )
        },
        "/sessions/{key}": {
            "get": _operation(
                "Figures of the conversation that a connection takes part in",
                {200: figures}, (401, 403, 404), parameters=[_KEY],
            ),
            "delete": _operation(
                "End a connection",
                {200: {"description": "Ended."}}, (401, 403, 404), parameters=[_KEY],
            ),
            "patch": _operation(
                "Trickle ICE: not offered", {}, (401, 403, 405), parameters=[_KEY]
            ),
        },
        "/sessions/{key}/interrupt": {
            "post": _operation(
                "Barge-in: the turn ends now",
                {200: _object("How much of it was played", {"played_ms": 840})},
                (401, 403, 404),
                parameters=[_KEY],
            )
        },
        "/api": {"get": _operation("To the readable page", {302: {"description": "/api.html"}})},
        "/api/openapi.json": {
            "get": _operation("This document", {200: _content("OpenAPI 3.1", _JSON)})
        },
        "/api/version": {
            "get": _operation("Which version", {200: _object("Version", {"version": version})})
        },
        "/api/config": {
            "get": _operation(
                "What a browser needs before it makes an offer",
                {200: _object("RTCConfiguration", {"iceServers": [{"urls": ["stun:HOST"]}]})},
            )
        },
        "/api/targets": {"get": _operation("Who can speak", {200: _list("targets", "Target")})},
        "/api/targets/{name}": {
            "get": _operation(
                "One target", {200: _schema("Target")}, (401, 403, 404, 500), parameters=[_NAME]
            )
        },
        "/api/targets/{name}/poster": {
            "get": _operation(
                "The first frame of its footage",
                {200: _content("A picture", "image/jpeg")},
                (401, 403, 404, 500),
                parameters=[_NAME],
            )
        },
        "/api/sessions": {
            "get": _operation("Conversations that go on", {200: _list("sessions", "Session")})
        },
    }  # fmt: skip
    for path in ("/", "/healthz"):
        paths[path]["get"]["security"] = []
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "lipstream",
            "version": version,
            "summary": "A voice in, a talking target out.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {
                "Error": {
                    "type": "object",
                    "required": ["error"],
                    "properties": {"error": {"type": "string"}},
                },
                "Target": _properties(
                    {
                        "name": ("string", ""),
                        "kind": ("string", "video or photo"),
                        "width": ("integer", "px"),
                        "height": ("integer", "px"),
                        "fps": ("number", "frames per second"),
                        "frames": ("integer", "of footage"),
                        "duration_s": ("number", "of footage, s"),
                        "poster": ("string", "where its picture is"),
                    }
                ),
                "Session": _properties(
                    {
                        "session": ("string", "its name"),
                        "target": ("string", "who speaks"),
                        "age_s": ("number", "s since it began"),
                        "members": ("integer", "connections"),
                        "engine_delay_ms": ("number", "stated by the engine"),
                        "lead_ms": ("integer", "for jitter and painting"),
                        "compute_ms_p95": (["number", "null"], "of a push of 20 ms of sound"),
                        "frames": ("integer", "painted"),
                        "late_frames": ("integer", "painted after their time"),
                        "dropped_frames": ("integer", "never shown"),
                        "unpainted_frames": ("integer", "showed the picture before: no time"),
                        "queued_sound_ms": ("integer", "waiting"),
                        "dropped_sound_ms": ("integer", "too late, or too much"),
                        "source_ppm": ("number", "how much faster than ours the microphone runs"),
                        "key_frames": ("integer", "of H.264, made so far"),
                        "skipped_ms": ("integer", "time skipped by a machine that is too slow"),
                        "unheard_ms": (
                            ["integer", "null"],
                            "since sound last came; null if none ever did",
                        ),
                        "speaking": ("boolean", "sound of this turn has still to leave"),
                        "played_ms": ("integer", "of this turn"),
                    }
                ),
            },
        },
    }


def _operation(
    summary: str, good: dict[int, Any], refusals: tuple[int, ...] = (401, 403), **more: Any
) -> dict[str, Any]:
    bad = {"schema": {"$ref": "#/components/schemas/Error"}}
    responses = {str(status): answer for status, answer in good.items()}
    for status in refusals:
        responses[str(status)] = {"description": _REASONS[status], "content": {_JSON: bad}}
    return {"summary": summary, **more, "responses": responses}


def _header(description: str) -> dict[str, Any]:
    return {"description": description, "schema": {"type": "string"}}


def _content(description: str, kind: str) -> dict[str, Any]:
    return {"description": description, "content": {kind: {"schema": {}}}}


def _object(description: str, example: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "required": list(example)}
    return {
        "description": description,
        "content": {_JSON: {"schema": schema, "example": example}},
    }


def _schema(name: str) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{name}"}
    return {"description": name, "content": {_JSON: {"schema": schema}}}


def _list(field: str, name: str) -> dict[str, Any]:
    items = {"type": "array", "items": {"$ref": f"#/components/schemas/{name}"}}
    schema = {"type": "object", "required": [field], "properties": {field: items}}
    return {"description": f"A list of {field}", "content": {_JSON: {"schema": schema}}}


def _properties(fields: dict[str, tuple[Any, str]]) -> dict[str, Any]:
    properties = {
        name: {"type": kind, **({"description": what} if what else {})}
        for name, (kind, what) in fields.items()
    }
    return {"type": "object", "required": ["name" if "name" in fields else "session"],
            "properties": properties}  # fmt: skip
