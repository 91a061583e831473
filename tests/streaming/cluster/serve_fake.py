"""`lipstream serve --ray` with the fake engine: ADDRESS FOLDER TOKEN PORT."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path

from lipstream.streaming.cluster.connection import connect
from lipstream.streaming.cluster.serve import _serve
from lipstream.streaming.cluster.service import OWN_ADDRESS, Service, Share
from lipstream.streaming.server.app import ServerOptions
from tests.streaming.live_engine import LiveFakeEngine


@dataclass(frozen=True)
class FakeLoader:
    def load(self, folder: Path) -> LiveFakeEngine:
        return LiveFakeEngine()


def main(address: str, folder: str, token: str, port: str) -> None:
    from tests.streaming.cluster.serve_fake import FakeLoader  # by its name, for other processes

    options = ServerOptions(OWN_ADDRESS, int(port), token, sessions=8)
    service = Service(folder, FakeLoader(), options, Share(1.0), 2, "INFO")
    ray = connect(address)
    try:
        asyncio.run(_serve(service, ["face"], lambda line: print(line, flush=True)))
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
