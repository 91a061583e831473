"""`lipstream publish`: the avatar goes into an SFU by WHIP (RFC 9725), and the SFU fans it out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import aiohttp
from yarl import URL

from lipstream.engine.errors import PublishError, UsageError
from lipstream.engine.types import SAMPLE_RATE_HZ
from lipstream.streaming.devices.sound_card import SoundCard
from lipstream.streaming.files.audio_file import AudioFile
from lipstream.streaming.marking.marker import Marking
from lipstream.streaming.server.access import is_loopback
from lipstream.streaming.session.gc_policy import few_arenas, freeze
from lipstream.streaming.session.live_engine import LiveEngine, warm_up
from lipstream.streaming.session.runner import RunnerOptions, SessionRunner
from lipstream.streaming.shutdown import cancelled_by_sigterm
from lipstream.streaming.webrtc import aiortc_patches
from lipstream.streaming.webrtc.h264 import Encoding, PictureFormat
from lipstream.streaming.webrtc.ice_restart import MEDIA_TYPE
from lipstream.streaming.webrtc.ice_servers import IceServer, from_links
from lipstream.streaming.webrtc.peer import Peer, PeerOptions
from lipstream.streaming.webrtc.video_feed import VideoFeed

logger = logging.getLogger(__name__)

_REQUEST_S: Final = 10.0
_CONNECT_S: Final = 2.0  # for a TCP connection: a machine that is gone does not even refuse
_RETRY_S: Final = (0.3, 30.0)  # first and longest wait; doubled in between
_QUEUED_S: Final = 2.0  # of a file's sound that waits for its time, at most
_MAX_ANSWER_BYTES: Final = 64 << 10
_SILENT_S: Final = 1.5  # without an answer, before the addresses are thought to have changed
_WATCH_S: Final = 0.25


class _Retry(Exception):
    """The server may accept us later."""


class _NoRestart(Exception):
    """The server does not restart ICE."""


@dataclass(frozen=True, slots=True)
class _Session:
    """What the server answered to an offer."""

    address: str | None
    answer: str
    restarts: bool  # by PATCH: it named an ICE session


@dataclass(frozen=True, slots=True)
class PublishOptions:
    """Where to, and whose voice."""

    url: str
    token: str | None = None
    microphone: str | None = None  # see sound_card.choose
    audio: Path | None = None  # played once; afterwards the target is at rest
    seconds: float | None = None  # None: to the end of the file, or until Ctrl-C
    ice_servers: tuple[IceServer, ...] = ()
    encoding: Encoding = field(default_factory=Encoding)
    tell: Callable[[str], None] = logger.info
    marking: Marking = field(default_factory=Marking)

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise UsageError(f"{self.url!r}: expected the http(s) address of a WHIP endpoint")
        if self.microphone is not None and self.audio is not None:
            raise UsageError("a microphone or a file, not both: one voice at a time")

    @property
    def local(self) -> bool:
        """Whether the endpoint is on this machine."""
        return is_loopback(urlsplit(self.url).hostname)


def publish(engine: LiveEngine, options: PublishOptions) -> dict[str, Any]:
    """Send the avatar to an SFU; a connection that breaks is made again.

    Returns:
        seconds, frames (rendered), connections (made), key_frames, kbps (of the video),
        late_frames, dropped_frames.

    Raises:
        PublishError: the server refuses us, or cannot be reached at the first attempt.
        LipstreamError: the microphone or the file cannot be opened.
    """
    few_arenas()
    warm_up(engine)
    freeze()
    aiortc_patches.apply(aiortc_patches.PatchOptions(loopback=options.local))
    return asyncio.run(_publish(engine, options))


async def _publish(engine: LiveEngine, options: PublishOptions) -> dict[str, Any]:
    runner = SessionRunner(engine, RunnerOptions(marking=options.marking))
    feed = VideoFeed(runner, options.encoding, PictureFormat.of(engine))
    card = None
    began_s = runner.clock.now()
    publisher = _Publisher(feed, options)
    work = []
    try:
        if options.microphone is not None:
            card = SoundCard(runner, options.microphone, None, options.tell)
        runner.start()
        work.append(asyncio.create_task(publisher.stay()))
        if options.audio is not None:
            work.append(asyncio.create_task(_play(runner, options.audio, publisher.connected)))
        if options.seconds is not None:
            work.append(asyncio.create_task(asyncio.sleep(options.seconds)))
        with cancelled_by_sigterm():
            done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    except asyncio.CancelledError:  # Ctrl-C or SIGTERM: the end that was asked for
        pass
    finally:
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        try:
            if card is not None:
                await asyncio.to_thread(card.close)
        finally:
            await asyncio.to_thread(runner.close)
    seconds = runner.clock.now() - began_s
    return {
        "seconds": round(seconds, 3),
        "frames": runner.counters.frames,
        "connections": publisher.connections,
        "key_frames": feed.key_frames,
        "kbps": round(8 * feed.encoded_bytes / seconds / 1000),
        "late_frames": runner.counters.late_frames,
        "dropped_frames": runner.counters.dropped_frames,
        "marks": runner.marker.as_json(),
    }


async def _play(runner: SessionRunner, path: Path, connected: asyncio.Event) -> None:
    """Play a file once the server is connected; returns when all of it was sent."""
    await connected.wait()
    with await asyncio.to_thread(AudioFile, path) as sound:
        blocks = sound.blocks()
        while (block := await asyncio.to_thread(next, blocks, None)) is not None:
            runner.push_audio(block.speech)
            while runner.counters.queue_depth > _QUEUED_S * SAMPLE_RATE_HZ:
                await asyncio.sleep(0.1)
    while runner.speaking:
        await asyncio.sleep(0.1)
    await asyncio.sleep(0.5)  # for the last packets


class _Publisher:
    """Keeps one connection to the endpoint."""

    def __init__(self, feed: VideoFeed, options: PublishOptions) -> None:
        self.connected = asyncio.Event()  # set by the first connection, and never cleared
        self.connections = 0
        self._feed = feed
        self._options = options
        self._resume: str | None = None  # the token of the last connection
        self._endpoints = [options.url]  # the first is used; the others take its place
        self._headers = {"Authorization": f"Bearer {options.token}"} if options.token else {}

    async def stay(self) -> None:
        """Connect, and again whenever the connection breaks; ends by cancellation or an error.

        Raises:
            PublishError: refused, or not reached at the first attempt.
        """
        first_s, longest_s = _RETRY_S
        wait_s = first_s
        timeout = aiohttp.ClientTimeout(total=_REQUEST_S, sock_connect=_CONNECT_S)
        async with aiohttp.ClientSession(headers=self._headers, timeout=timeout) as http:
            while True:
                before = self.connections
                try:
                    why = await self._once(http)
                except (_Retry, aiohttp.ClientError, TimeoutError, OSError) as error:
                    why = str(error) or type(error).__name__
                    if isinstance(error, aiohttp.ClientConnectionError | TimeoutError):
                        self._endpoints.append(self._endpoints.pop(0))
                if not self.connections:
                    raise PublishError(f"{self._options.url}: {why}")
                if self._feed.runner.error is not None:
                    raise RuntimeError(self._feed.runner.error)
                wait_s = first_s if self.connections > before else min(2 * wait_s, longest_s)
                self._options.tell(f"off the air ({why}); again in {wait_s:.1f} s")
                await asyncio.sleep(wait_s)

    async def _once(self, http: aiohttp.ClientSession) -> str:
        """One connection, until it ends; returns why it did."""
        over: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def ended(reason: str) -> None:
            if not over.done():
                over.set_result(reason)

        servers = (*self._options.ice_servers, *await self._endpoint_ice_servers(http))
        peer = Peer(self._feed, PeerOptions(listens=False, shows=True, ice_servers=servers), ended)
        session = None
        try:
            session = await self._post(http, await peer.offer())
            await peer.accept(session.answer)
            connected = asyncio.create_task(peer.connected())
            waiting: set[asyncio.Future[Any]] = {connected, over}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            connected.cancel()
            if over.done():
                raise _Retry(over.result())
            self.connections += 1
            self.connected.set()
            self._options.tell(f"on the air at {self._endpoints[0]}")
            return await self._watch(http, peer, session, over)
        finally:
            broken = over.done() and self._resume is not None  # the server keeps our place
            address = None if session is None or broken else session.address
            await asyncio.shield(self._leave(http, peer, address))

    async def _watch(
        self,
        http: aiohttp.ClientSession,
        peer: Peer,
        session: _Session,
        over: asyncio.Future[str],
    ) -> str:
        """Until the connection is over; where the server is silent, try from our new addresses."""
        while not (await asyncio.wait({over}, timeout=_WATCH_S))[0]:
            if peer.silent_s < _SILENT_S or not session.restarts:
                continue
            try:
                await peer.restart(lambda fragment: self._patch(http, session, fragment))
            except (_Retry, aiohttp.ClientError, TimeoutError, OSError) as error:
                logger.info("PATCH %s: %s", session.address, error)
                unreached = isinstance(error, aiohttp.ClientConnectionError | TimeoutError)
                if unreached and len(self._endpoints) > 1 and not over.done():
                    self._endpoints.append(self._endpoints.pop(0))
                    over.set_result("its node cannot be reached")
            except (_NoRestart, UsageError) as error:
                if not over.done():
                    over.set_result(f"no answer, and no ICE restart: {error}")
            else:
                await asyncio.wait({over}, timeout=_SILENT_S)
        return over.result()

    async def _patch(self, http: aiohttp.ClientSession, session: _Session, fragment: str) -> str:
        """The server's SDP fragment for an ICE restart (RFC 9725, 4.3.3)."""
        assert session.address is not None
        headers = {"Content-Type": MEDIA_TYPE, "If-Match": "*"}
        async with http.patch(session.address, data=fragment.encode(), headers=headers) as response:
            body = (await response.content.read(_MAX_ANSWER_BYTES)).decode("utf-8", "replace")
            if response.status == 200:
                return body
            if response.status >= 500 or response.status == 429:
                raise _Retry(str(response.status))
            raise _NoRestart(str(response.status))

    async def _leave(self, http: aiohttp.ClientSession, peer: Peer, address: str | None) -> None:
        try:
            if address is not None:
                # Before the connection closes: a server may keep the place of who is lost.
                async with http.delete(address):
                    pass
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            logger.info("DELETE %s: %s", address, error)
        finally:
            await peer.close()

    async def _endpoint_ice_servers(self, http: aiohttp.ClientSession) -> Sequence[IceServer]:
        """ICE servers that the endpoint names before an offer is made (RFC 9725, 4.6)."""
        try:
            async with http.options(self._endpoints[0]) as response:
                return from_links(response.headers.getall("Link", []))
        except aiohttp.ClientConnectionError:
            raise
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            logger.info("OPTIONS %s: %s", self._endpoints[0], error)
            return ()

    async def _post(self, http: aiohttp.ClientSession, offer: str) -> _Session:
        headers = {"Content-Type": "application/sdp", "Accept": "application/sdp"}
        if self._resume is not None:
            headers["Lipstream-Resume"] = self._resume
        url = self._endpoints[0]
        async with http.post(url, data=offer.encode(), headers=headers) as response:
            body = (await response.content.read(_MAX_ANSWER_BYTES)).decode("utf-8", "replace")
            if response.status == 201:
                self._resume = response.headers.get("Lipstream-Resume")
                others = _alternates(response)
                self._endpoints = [url, *(one for one in others if one != url)]
                location = response.headers.get("Location")
                return _Session(
                    urljoin(str(response.url), location) if location else None,
                    body,
                    restarts=bool(location and "ETag" in response.headers),
                )
            text = " ".join(body.split())[:200]
            why = f"{response.status} {response.reason or ''}".strip()
            why += f": {text}" if text else ""
            if response.status >= 500 or response.status == 429:
                raise _Retry(why)
            hint = "; see --token" if response.status in (401, 403) else ""
            raise PublishError(f"{url} refuses: {why}{hint}")


def _alternates(response: aiohttp.ClientResponse) -> list[str]:
    """Other addresses of the same service (RFC 8288, rel=alternate), no less private than this."""
    links = response.links.getall("alternate", [])
    urls = [link["url"] for link in links]
    return [str(url) for url in urls if isinstance(url, URL) and url.scheme == response.url.scheme]
