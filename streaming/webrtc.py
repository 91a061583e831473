"""A conversation over WebRTC: the avatar's picture and sound out, a voice in.

Picture and sound of one media time leave at one wall time, both paced by the session's clock;
that alone keeps them together at the other end, because sender reports carry the time of sending.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import av
import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from aiortc.rtcrtpsender import RTCRtpSender
from aiortc.sdp import SessionDescription

from lipstream.engine.errors import UsageError
from lipstream.engine.frames import as_picture
from lipstream.engine.types import F32, SAMPLE_RATE_HZ, STEP_SAMPLES
from lipstream.streaming import aiortc_tuning
from lipstream.streaming.aioice_tuning import NoFreePort
from lipstream.streaming.ice import IceServer
from lipstream.streaming.runner import SessionRunner, TimedFrame, TimedSound
from lipstream.streaming.sound_queue import TurnSound
from lipstream.streaming.video_feed import VIDEO_CLOCK_HZ, VideoFeed

logger = logging.getLogger(__name__)

_PACKETS_WAITING: Final = 12  # half a second, for a connection that does not take them
_OUTGOING_SOUND_S: Final = 2  # more than the engine can be ahead of what has left
_LATE_SOUND_S: Final = 0.06  # how long it waits for sound that was heard late
_BEHIND_S: Final = 0.2  # how late sound may leave; what would be later is left out
_RTP_WRAP: Final = 1 << 32
CONNECT_TIMEOUT_S: Final = 15.0


class OutgoingVideo(MediaStreamTrack):
    """Frames at their release times: packets that the feed compressed, or I420 for VP8."""

    kind = "video"

    def __init__(self, feed: VideoFeed) -> None:
        super().__init__()
        self.takes_packets = False
        self.sent_frames = 0
        self._feed = feed
        self._queued: deque[TimedFrame | av.Packet[Any]] = deque()
        self._ready = asyncio.Event()
        self._decodes = False  # the other side has a key frame and everything since

    def offer(self, item: TimedFrame, packet: av.Packet[Any] | None) -> None:
        """A frame whose time has come."""
        if not self.takes_packets:
            # One that waits while one is encoded; the oldest goes: a viewer wants the newest.
            while len(self._queued) > 1:
                self._queued.popleft()
            self._queued.append(item)
        elif packet is not None:
            if len(self._queued) >= _PACKETS_WAITING:
                self._queued.clear()  # none alone: each needs the one before
                self._decodes = False
            if not self._decodes and not packet.is_keyframe:
                self._feed.want_key_frame()
                return
            self._decodes = True
            self._queued.append(packet)
        self._ready.set()

    async def recv(self) -> av.VideoFrame | av.Packet[Any]:
        """For aiortc: the next frame."""
        while not self._queued:
            if self.readyState != "live":
                raise MediaStreamError
            self._ready.clear()
            await self._ready.wait()
        item = self._queued.popleft()
        self.sent_frames += 1
        if not isinstance(item, TimedFrame):
            return item
        frame = as_picture(item.frame.i420)
        frame.pts = item.media_sample * VIDEO_CLOCK_HZ // SAMPLE_RATE_HZ
        frame.time_base = Fraction(1, VIDEO_CLOCK_HZ)
        return frame

    def stop(self) -> None:
        """End, and wake who waits for a frame."""
        super().stop()
        self._ready.set()


class OutgoingAudio(MediaStreamTrack):
    """20 ms of sound every 20 ms of the session's clock, silence where none was heard.

    A loop that was held up leaves sound out, and its stamps say so: sent all the same it would only
    fill the other side's buffer, and stay late there.
    """

    kind = "audio"

    def __init__(self, runner: SessionRunner) -> None:
        super().__init__()
        self._runner = runner
        self._sound = TurnSound(_OUTGOING_SOUND_S * SAMPLE_RATE_HZ, runner.turn)
        self._next_sample: int | None = None
        self._pts = 0

    def hear(self, item: TimedSound) -> None:
        """Sound before its time, from any thread: the next 20 ms may lie in two of these."""
        self._sound.put(item.samples, item.media_sample, item.turn)

    async def recv(self) -> av.AudioFrame:
        """For aiortc: the next 20 ms, at their release time."""
        if self.readyState != "live":
            raise MediaStreamError
        clock = self._runner.clock
        delay = self._runner.delay_samples
        if self._next_sample is None:
            self._next_sample = max(0, clock.sample() - delay)
        behind_s = clock.now() - clock.wall_s(self._next_sample + delay)
        if behind_s > _BEHIND_S:
            left_out = int(behind_s * SAMPLE_RATE_HZ) // STEP_SAMPLES * STEP_SAMPLES
            self._next_sample += left_out
            self._pts += left_out
        start = self._next_sample
        self._next_sample = start + STEP_SAMPLES
        release_s = clock.wall_s(start + delay)
        await asyncio.sleep(max(0.0, release_s - clock.now()))
        while not self._sound.ready(start + STEP_SAMPLES):
            if clock.now() > release_s + _LATE_SOUND_S:
                break
            await asyncio.sleep(0.005)
        if self.readyState != "live":
            raise MediaStreamError
        samples = self._sound.take(start, STEP_SAMPLES, self._runner.turn)
        if self._pts == 0:
            # The encoder's resampler holds 1 ms back, and would be a packet late for good.
            samples = np.concatenate([np.zeros(32, np.float32), samples])
        pcm = (np.clip(samples, -1, 1) * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE_HZ
        frame.time_base = Fraction(1, SAMPLE_RATE_HZ)
        frame.pts = self._pts
        self._pts += pcm.size
        return frame


class IncomingVoice:
    """Reads a remote audio track until it ends and hands it to the runner, mono at 16 kHz."""

    def __init__(self, runner: SessionRunner) -> None:
        self._runner = runner
        self._resampler: av.AudioResampler | None = None
        self._last_pts: int | None = None
        self._time = 0  # pts without the wrap of 32 bits
        self._next_sample: int | None = None

    async def listen(self, track: MediaStreamTrack) -> None:
        """Until the track ends."""
        with suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                if isinstance(frame, av.AudioFrame):
                    self.hear(frame)

    def hear(self, frame: av.AudioFrame) -> None:
        """One decoded packet."""
        pts, rate_hz = frame.pts, frame.sample_rate
        if pts is None:
            return
        if self._last_pts is not None:
            step = (pts - self._last_pts) % _RTP_WRAP
            self._time += step if step < _RTP_WRAP // 2 else step - _RTP_WRAP
        self._last_pts = pts
        at_sample = self._time * SAMPLE_RATE_HZ // rate_hz
        if self._resampler is None or self._next_sample is None:
            # To mono by the mean, ourselves: the resampler's own downmix adds 3 dB to speech.
            self._resampler = av.AudioResampler("fltp", frame.layout, SAMPLE_RATE_HZ)
            self._next_sample = at_sample
        frame.pts = None
        samples = _mono(self._resampler.resample(frame))
        if abs(at_sample - self._next_sample) > STEP_SAMPLES // 2:  # packets were lost, or paused
            self._next_sample = at_sample
        self._runner.hear(samples, self._next_sample)
        self._next_sample += samples.size


def _mono(frames: list[av.AudioFrame]) -> F32:
    parts = [frame.to_ndarray().mean(axis=0, dtype=np.float32) for frame in frames]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


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
        self._connected = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self.pc.on("track", self._on_track)
        self.pc.on("connectionstatechange", self._on_state)

    @property
    def takes_packets(self) -> bool:
        """For the feed: whether H.264 was agreed on."""
        return self.video.takes_packets

    def hear(self, item: TimedSound) -> None:
        """For the feed: sound, before its time."""
        self.audio.hear(item)

    def show(self, item: TimedFrame, packet: av.Packet[Any] | None) -> None:
        """For the feed: a frame whose time has come."""
        self.video.offer(item, packet)

    def over(self, reason: str) -> None:
        """For the feed: the conversation has ended."""
        self._tell_end(reason)

    async def answer(self, offer_sdp: str) -> str:
        """The answer to an offer, with all candidates in it.

        Raises:
            UsageError: it is not SDP, or has nothing in it that we can send or take.
            NoFreePort: every UDP port that media may use is taken.
        """
        try:
            if self._options.shows:
                self._send_tracks("sendrecv")
            self._check_offer(offer_sdp)
            await self.pc.setRemoteDescription(RTCSessionDescription(offer_sdp, "offer"))
            answer = await self.pc.createAnswer()
            await self.pc.setLocalDescription(answer)
        except (UsageError, NoFreePort):
            raise
        except Exception as error:  # the parser raises whatever comes first
            raise UsageError(
                f"the offer cannot be answered: {_reason(error)}; expected WebRTC SDP"
            ) from error
        for transceiver in self.pc.getTransceivers():
            if transceiver.kind == "audio":
                aiortc_tuning.hand_on_at_once(transceiver.receiver)
        if self._options.shows:
            self._begin_to_show(self.pc.localDescription.sdp)
        self._spawn(self._give_up())
        return self.pc.localDescription.sdp

    async def offer(self) -> str:
        """An offer that sends, with all candidates in it; `accept` takes the answer."""
        self._send_tracks("sendonly")
        await self.pc.setLocalDescription(await self.pc.createOffer())
        return self.pc.localDescription.sdp

    async def accept(self, answer_sdp: str) -> None:
        """The answer to `offer`.

        Raises:
            UsageError: it is not SDP, or it takes neither picture nor sound.
        """
        try:
            await self.pc.setRemoteDescription(RTCSessionDescription(answer_sdp, "answer"))
        except Exception as error:  # the parser raises whatever comes first
            raise UsageError(f"the answer cannot be used: {_reason(error)}") from error
        self._begin_to_show(answer_sdp)
        self._spawn(self._give_up())

    async def connected(self) -> None:
        """Return when media can flow; `ended` tells if it never will."""
        await self._connected.wait()

    def _send_tracks(self, sound: str) -> None:
        # Before the offer is set: a preference that comes later has no effect.
        self.pc.addTransceiver(self.audio, direction=sound)
        video = self.pc.addTransceiver(self.video, direction="sendonly")
        codecs = RTCRtpSender.getCapabilities("video").codecs
        video.setCodecPreferences(sorted(codecs, key=lambda codec: codec.mimeType != "video/H264"))

    def _begin_to_show(self, answer_sdp: str) -> None:
        # Ours is the order of codecs, H.264 first, whoever answers: if it is there, it is used.
        sections = SessionDescription.parse(answer_sdp).media
        agreed = [c.mimeType for m in sections if m.kind == "video" for c in m.rtp.codecs]
        self.video.takes_packets = "video/H264" in agreed
        for transceiver in self.pc.getTransceivers():
            if transceiver.kind == "video":
                aiortc_tuning.key_frames_from(transceiver.sender, self._feed.want_key_frame)
        self._feed.attach(self)

    def _check_offer(self, offer_sdp: str) -> None:
        sections = SessionDescription.parse(offer_sdp).media
        receives = any(m.direction in ("recvonly", "sendrecv") for m in sections)
        speaks = any(
            m.kind == "audio" and m.direction in ("sendonly", "sendrecv") for m in sections
        )
        if self._options.shows and not receives:
            raise UsageError("the offer receives nothing: expected recvonly video or audio")
        if not self._options.shows and not speaks:
            raise UsageError("the offer sends no sound: expected an audio section that sends")

    def _on_track(self, track: MediaStreamTrack) -> None:
        if track.kind == "audio" and self._options.listens:
            self._spawn(IncomingVoice(self._feed.runner).listen(track))

    def _on_state(self) -> None:
        state = self.pc.connectionState
        logger.info("connection is %s", state)
        if state == "connected":
            self._connected.set()
        if state in ("failed", "closed"):
            self._tell_end(f"connection {state}")

    def _tell_end(self, reason: str) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(reason)

    async def _give_up(self) -> None:
        await asyncio.sleep(CONNECT_TIMEOUT_S)
        if self.pc.connectionState != "connected":
            self._tell_end(f"no connection within {CONNECT_TIMEOUT_S:.0f} s")

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """End the connection and everything that belongs to it."""
        self._ended = None
        self._feed.detach(self)
        self.video.stop()
        self.audio.stop()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.pc.close()


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
