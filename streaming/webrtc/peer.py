"""A conversation over WebRTC: the avatar's picture and sound out, a voice in.

Picture and sound of one media time leave at one wall time, both paced by the session's clock. That
alone keeps them together at the other end, because sender reports carry the time of sending.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import av
from aiortc import (
    RTCConfiguration,
    RTCDataChannel,
    RTCPeerConnection,
    RTCSessionDescription,
)
from aiortc.mediastreams import MediaStreamTrack
from aiortc.rtcrtpsender import RTCRtpSender
from aiortc.sdp import SessionDescription, candidate_from_sdp

from lipstream.engine.errors import NoFreePort, UsageError
from lipstream.streaming.background_tasks import BackgroundTasks
from lipstream.streaming.session.subscription import TimedFrame, TimedSound
from lipstream.streaming.webrtc import aioice_patches, aiortc_patches
from lipstream.streaming.webrtc.h264 import SingleNalEncoder
from lipstream.streaming.webrtc.ice_restart import IceRestart, tag_of
from lipstream.streaming.webrtc.ice_servers import IceServer
from lipstream.streaming.webrtc.negotiation import Negotiation, with_level, with_one_fingerprint
from lipstream.streaming.webrtc.offer import one_line
from lipstream.streaming.webrtc.sdp_lines import read_sdp
from lipstream.streaming.webrtc.tracks import IncomingVoice, OutgoingAudio, OutgoingVideo
from lipstream.streaming.webrtc.video_feed import VideoFeed

logger = logging.getLogger(__name__)
CONNECT_TIMEOUT_S: Final = 15.0
_MOST_CHANNELS: Final = 4
_REASON_TRIES: Final = 20  # of 10 ms


@dataclass(frozen=True, slots=True)
class PeerOptions:
    """What a connection may do."""

    listens: bool = True  # takes the other side's voice
    shows: bool = True  # sends picture and sound
    ice_servers: tuple[IceServer, ...] = ()


class Peer:
    """One WebRTC connection to a conversation. Made and used on the event loop.

    `ended` is called once, with the reason, when the connection is over for whatever cause.
    """

    def __init__(self, feed: VideoFeed, options: PeerOptions, ended: Callable[[str], None]) -> None:
        servers = [server.for_aiortc() for server in options.ice_servers]
        self.pc = RTCPeerConnection(RTCConfiguration(iceServers=servers))
        self._feed = feed
        self._options = options
        self._ended: Callable[[str], None] | None = ended
        self.video = OutgoingVideo(feed)
        self.audio = OutgoingAudio(feed.runner)
        self._shown: tuple[str, ...] = ()  # what of it the other side takes: audio, video
        self._connected = asyncio.Event()
        self._tasks = BackgroundTasks(failed=self.end)
        self.pc.on("track", self._on_track)
        self.pc.on("connectionstatechange", self._on_state)
        self.pc.on("datachannel", self._on_channel)
        self._channels: list[RTCDataChannel] = []
        self._restart: asyncio.Task[None] | None = None

    @property
    def takes_packets(self) -> bool:
        """For the feed: whether H.264 was agreed on."""
        return self.video.takes_packets

    def push_audio(self, item: TimedSound) -> None:
        """For the feed: sound, before its time."""
        if "audio" in self._shown:
            self.audio.push_audio(item)

    def show(self, item: TimedFrame, packet: av.Packet[Any] | None) -> None:
        """For the feed: a frame whose time has come."""
        if "video" in self._shown:
            self.video.offer(item, packet)

    def end(self, reason: str) -> None:
        """Report, once, that the connection is over; whoever made it closes it."""
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(reason)

    @property
    def is_lost(self) -> bool:
        """Whether a connection that was there has broken off."""
        return self._connected.is_set() and self.pc.connectionState in ("failed", "closed")

    @property
    def silent_s(self) -> float:
        """How long the other side has answered nothing."""
        transports = {t.receiver.transport.transport for t in self.pc.getTransceivers()}
        return max((aioice_patches.silent_s(one) for one in transports), default=0.0)

    @property
    def ice_tag(self) -> str:
        """The HTTP entity tag of the ICE session."""
        return tag_of(self.pc)

    async def answer_restart(self, fragment: str) -> tuple[str, str]:
        """(our SDP fragment, the new entity tag) for an ICE restart of the other side.

        Raises: UsageError when there is no such connection, or for what is no fragment.
        """
        restart = await self._new_restart()
        try:
            await restart.set_remote(fragment)
            answer = await restart.local_fragment()
        except BaseException:
            await restart.close()
            raise
        self._restart = self._tasks.start(self._reconnect(restart), "ICE restart")
        return answer, restart.tag

    async def restart(self, exchange: Callable[[str], Awaitable[str]]) -> None:
        """An ICE restart of ours; `exchange` sends our SDP fragment and returns the other's.

        Raises: UsageError as `answer_restart`; what `exchange` does.
        """
        restart = await self._new_restart()
        try:
            await restart.set_remote(await exchange(await restart.local_fragment()))
        except BaseException:
            await restart.close()
            raise
        self._restart = self._tasks.start(self._reconnect(restart), "ICE restart")

    async def _new_restart(self) -> IceRestart:
        previous, self._restart = self._restart, None
        if previous is not None:
            previous.cancel()
            await asyncio.gather(previous, return_exceptions=True)
        if self.pc.connectionState != "connected":
            raise UsageError("an ICE restart needs a connection that was made")
        return IceRestart(self.pc)

    async def _reconnect(self, restart: IceRestart) -> None:
        try:
            await restart.connect()
            self._feed.want_key_frame()
        except (ConnectionError, TimeoutError) as error:
            logger.info("an ICE restart failed: %s", error)
        finally:
            await restart.close()

    def _on_channel(self, channel: RTCDataChannel) -> None:
        if len(self._channels) < _MOST_CHANNELS:
            self._channels.append(channel)

    async def _say_why(self, reason: str) -> None:
        """Tell the other side why the connection ends, if it has a channel for that."""
        channels = [one for one in self._channels if one.readyState == "open"]
        for channel in channels:
            channel.send(json.dumps({"type": "ended", "reason": reason}))
        for _ in range(_REASON_TRIES):
            if not any(channel.bufferedAmount for channel in channels):
                break
            await asyncio.sleep(0.01)

    async def answer(self, offer_sdp: str) -> str:
        """The answer to an offer, with all candidates in it.

        Raises:
            UsageError: it is not SDP, or has nothing in it that we can send or take.
            NoFreePort: every UDP port that media may use is taken.
        """
        offer = Negotiation(read_sdp(offer_sdp), self._options.listens, self._options.shows)
        tracks = {"audio": self.audio, "video": self.video}
        for use in offer.uses:  # before the offer is set, in its order: aiortc takes them so
            if use.kind in tracks:
                what = tracks[use.kind] if use.sends else use.kind
                self.pc.addTransceiver(what, direction=use.direction)
        try:
            description = RTCSessionDescription(offer.for_aiortc(), "offer")
            await self.pc.setRemoteDescription(description)
            answer = await self.pc.createAnswer()
            await self.pc.setLocalDescription(answer)
        except (UsageError, NoFreePort):
            raise
        except Exception as error:  # aiortc raises whatever comes first
            raise UsageError(
                f"the offer cannot be answered: {one_line(error)}; expected WebRTC SDP"
            ) from error
        for transceiver in self.pc.getTransceivers():
            if transceiver.kind == "audio":
                aiortc_patches.remove_jitter_buffer(transceiver.receiver)
        if self._options.shows:
            video = offer.video
            packets = video is not None and video.is_h264 and not video.single_nal_units
            if video is not None and video.single_nal_units:
                aiortc_patches.encode_with(
                    self._video_sender(), SingleNalEncoder(self._feed.encoding)
                )
            self._begin_to_show(tuple(use.kind for use in offer.uses if use.sends), packets)
        for candidate, mid in offer.local_names():
            self._tasks.start(self._add_local_name(candidate, mid), "a candidate's name")
        self._tasks.start(self._give_up(), "connection timeout")
        return offer.answer(self.pc.localDescription.sdp, self._feed.level_idc)

    async def offer(self) -> str:
        """An offer that sends, with all candidates in it; `accept` takes the answer."""
        self._send_tracks()
        await self.pc.setLocalDescription(await self.pc.createOffer())
        return with_level(with_one_fingerprint(self.pc.localDescription.sdp), self._feed.level_idc)

    async def accept(self, answer_sdp: str) -> None:
        """The answer to `offer`.

        Raises:
            UsageError: it is not SDP, or it takes neither picture nor sound.
        """
        try:
            await self.pc.setRemoteDescription(RTCSessionDescription(answer_sdp, "answer"))
        except Exception as error:  # aiortc raises whatever comes first
            raise UsageError(f"the answer cannot be used: {one_line(error)}") from error
        # The order of codecs is ours, H.264 first: where the answer lists it, it is used.
        sections = SessionDescription.parse(answer_sdp).media
        agreed = [c.mimeType for m in sections if m.kind == "video" for c in m.rtp.codecs]
        self._begin_to_show(("audio", "video"), "video/H264" in agreed)
        self._tasks.start(self._give_up(), "connection timeout")

    async def connected(self) -> None:
        """Return when media can flow; if it never can, `ended` is called instead."""
        await self._connected.wait()

    def _send_tracks(self) -> None:
        self.pc.addTransceiver(self.audio, direction="sendonly")
        video = self.pc.addTransceiver(self.video, direction="sendonly")
        codecs = RTCRtpSender.getCapabilities("video").codecs
        video.setCodecPreferences(sorted(codecs, key=lambda codec: codec.mimeType != "video/H264"))

    def _begin_to_show(self, kinds: tuple[str, ...], packets: bool) -> None:
        """`packets`: the picture goes as the feed compressed it."""
        self._shown = kinds
        self.video.takes_packets = packets
        if "video" in kinds:
            sender = self._video_sender()
            aiortc_patches.forward_key_frame_requests(sender, self._feed.want_key_frame)
        self._feed.attach(self)

    def _video_sender(self) -> RTCRtpSender:
        return next(t.sender for t in self.pc.getTransceivers() if t.sender.track is self.video)

    async def _add_local_name(self, candidate: str, mid: str) -> None:
        """Look a multicast DNS name up while the call goes on; most are never found."""
        found = candidate_from_sdp(candidate)
        found.sdpMid = mid
        try:
            await self.pc.addIceCandidate(found)
        except OSError as error:
            logger.info("no multicast DNS: %s", error)

    def _on_track(self, track: MediaStreamTrack) -> None:
        if track.kind == "audio" and self._options.listens:
            voice = IncomingVoice(self._feed.runner)
            for transceiver in self.pc.getTransceivers():
                if transceiver.receiver.track is track:
                    aiortc_patches.take_packets(transceiver.receiver, voice.push_packet)
            self._tasks.start(voice.listen(track), "incoming voice")

    def _on_state(self) -> None:
        state = self.pc.connectionState
        logger.info("connection is %s", state)
        if state == "connected":
            self._connected.set()
        if state in ("failed", "closed"):
            self.end(f"connection {state}")

    async def _give_up(self) -> None:
        await asyncio.sleep(CONNECT_TIMEOUT_S)
        if self.pc.connectionState != "connected":
            self.end(f"no connection within {CONNECT_TIMEOUT_S:.0f} s")

    async def close(self, reason: str = "") -> None:
        """End the connection and everything that belongs to it; the other side is told why."""
        self._ended = None
        try:
            self._feed.detach(self)
            if reason:
                await self._say_why(reason)
            self.video.stop()
            self.audio.stop()
            await self._tasks.cancel()
        finally:
            await self.pc.close()
