"""The tracks of a call: picture and sound that are sent, and the voice that is received."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from contextlib import suppress
from fractions import Fraction
from typing import Any, Final

import av
import numpy as np
from aiortc.codecs import get_decoder
from aiortc.jitterbuffer import JitterFrame
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from lipstream.engine.target.frames import as_picture
from lipstream.engine.types import SAMPLE_RATE_HZ, STEP_SAMPLES
from lipstream.streaming.session.audio_in import SpeechResampler
from lipstream.streaming.session.runner import SessionRunner
from lipstream.streaming.session.sound_queue import TurnSound
from lipstream.streaming.session.subscription import TimedFrame, TimedSound
from lipstream.streaming.webrtc.h264 import VIDEO_CLOCK_HZ
from lipstream.streaming.webrtc.packet_order import PacketOrder, VoicePacket
from lipstream.streaming.webrtc.video_feed import VideoFeed

logger = logging.getLogger(__name__)

_MAX_PACKETS: Final = 12  # half a second, for a connection that does not take them
_OUTGOING_SOUND_S: Final = 2  # more than the engine can be ahead of what was sent
_MAX_WAIT_S: Final = 0.06  # for sound that arrives late
_MAX_LATE_S: Final = 0.2  # of sound that is sent; what would be later is left out
_RTP_WRAP: Final = 1 << 32


class OutgoingVideo(MediaStreamTrack):
    """Frames at their release times: packets that the feed compressed, or I420 for VP8."""

    kind = "video"

    def __init__(self, feed: VideoFeed) -> None:
        super().__init__()
        self.takes_packets = False
        self._feed = feed
        self._queued: deque[TimedFrame | av.Packet[Any]] = deque()
        self._ready = asyncio.Event()
        self._decodable = False  # the other side has a key frame and every packet since

    def offer(self, item: TimedFrame, packet: av.Packet[Any] | None) -> None:
        """A frame whose time has come."""
        if not self.takes_packets:
            # One waits while one is encoded. The oldest is dropped: a viewer wants the newest.
            while len(self._queued) > 1:
                self._queued.popleft()
            self._queued.append(item)
        elif packet is not None:
            if len(self._queued) >= _MAX_PACKETS:
                self._queued.clear()  # all of them: each refers to the one before it
                self._decodable = False
            if not self._decodable and not packet.is_keyframe:
                self._feed.want_key_frame()
                return
            self._decodable = True
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
        if not isinstance(item, TimedFrame):
            return item
        frame = as_picture(item.frame.i420)
        frame.pts = item.media_sample * VIDEO_CLOCK_HZ // SAMPLE_RATE_HZ
        frame.time_base = Fraction(1, VIDEO_CLOCK_HZ)
        return frame

    def stop(self) -> None:
        """End, and wake `recv`."""
        super().stop()
        self._ready.set()


class OutgoingAudio(MediaStreamTrack):
    """20 ms of sound every 20 ms of the session's clock, silence where there is none.

    A loop that was held up skips sound, and the timestamps skip with it: late sound would fill the
    other side's jitter buffer and stay late there.
    """

    kind = "audio"

    def __init__(self, runner: SessionRunner) -> None:
        super().__init__()
        self._runner = runner
        self._sound = TurnSound(_OUTGOING_SOUND_S * SAMPLE_RATE_HZ, runner.turn)
        self._next_sample: int | None = None
        self._pts = 0

    def push_audio(self, item: TimedSound) -> None:
        """Sound before its time, from any thread; 20 ms of it may span two calls."""
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
        if behind_s > _MAX_LATE_S:
            skipped = int(behind_s * SAMPLE_RATE_HZ) // STEP_SAMPLES * STEP_SAMPLES
            self._next_sample += skipped
            self._pts += skipped
        start = self._next_sample
        self._next_sample = start + STEP_SAMPLES
        release_s = clock.wall_s(start + delay)
        await asyncio.sleep(max(0.0, release_s - clock.now()))
        while not self._sound.ready(start + STEP_SAMPLES):
            if clock.now() > release_s + _MAX_WAIT_S:
                break
            await asyncio.sleep(0.005)
        if self.readyState != "live":
            raise MediaStreamError
        samples = self._sound.take(start, STEP_SAMPLES, self._runner.turn)
        if self._pts == 0:
            # The encoder's resampler holds 1 ms back; without these it is a packet late throughout.
            samples = np.concatenate([np.zeros(32, np.float32), samples])
        pcm = (np.clip(samples, -1, 1) * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE_HZ
        frame.time_base = Fraction(1, SAMPLE_RATE_HZ)
        frame.pts = self._pts
        self._pts += pcm.size
        return frame


class IncomingVoice:
    """Hands a remote audio track to the runner, mono at 16 kHz, until it ends.

    The format of the track may change from frame to frame. Packets come through `push_packet` as
    they arrive; frames that the track itself decodes are taken as well.
    """

    def __init__(self, runner: SessionRunner) -> None:
        self._runner = runner
        self._order = PacketOrder(self._decode, self._note_late, self._needed_by_s)
        self._decoder: tuple[str, Any] | None = None  # of a codec, by its name
        self._failure: Exception | None = None
        self._failed = asyncio.Event()
        self._resampler = SpeechResampler()
        self._time_base: Fraction | None = None  # of pts
        self._origin_sample = 0  # at 16 kHz, where `_elapsed` began
        self._elapsed = 0  # in time_base, without the wrap of 32 bits
        self._last_pts = 0
        self._next_sample = 0  # at 16 kHz

    async def listen(self, track: MediaStreamTrack) -> None:
        """Until the track ends.

        Raises: whatever a packet failed with.
        """
        reading = asyncio.ensure_future(self._read(track))
        failing = asyncio.ensure_future(self._failed.wait())
        try:
            await asyncio.wait((reading, failing), return_when=asyncio.FIRST_COMPLETED)
            if self._failure is not None:
                raise self._failure
            reading.result()
        finally:
            self._order.close()
            reading.cancel()
            failing.cancel()
            await asyncio.gather(reading, failing, return_exceptions=True)

    async def _read(self, track: MediaStreamTrack) -> None:
        with suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                if isinstance(frame, av.AudioFrame):
                    self.push_audio(frame)

    def push_packet(self, packet: VoicePacket) -> None:
        """A packet that has arrived; raises nothing, `listen` does."""
        if self._failure is None:
            try:
                self._order.push(packet)
            except Exception as error:
                self._fail(error)

    def push_audio(self, frame: av.AudioFrame, arrival_s: float | None = None) -> None:
        """One decoded packet, which arrived at that time, or now."""
        if frame.pts is None:
            return
        at_sample = self._place(frame.pts, frame.time_base or Fraction(1, frame.sample_rate))
        samples = self._resampler.push(frame)
        if abs(at_sample - self._next_sample) > STEP_SAMPLES // 4:  # packets were lost, or paused
            self._next_sample = at_sample
        self._runner.push_audio(samples, self._next_sample, arrival_s)
        self._next_sample += samples.size

    def _decode(self, packet: VoicePacket) -> None:
        """In order, possibly from a timer."""
        try:
            name = packet.codec.name
            if self._decoder is None or self._decoder[0] != name:
                self._decoder = (name, get_decoder(packet.codec))
            frames = self._decoder[1].decode(JitterFrame(packet.payload, packet.timestamp))
        except av.FFmpegError as error:
            logger.info("a packet of sound cannot be decoded: %s", error)
            return
        except Exception as error:
            self._fail(error)
            return
        try:
            for frame in frames:
                if isinstance(frame, av.AudioFrame):
                    self.push_audio(frame, packet.arrival_s)
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._failure = self._failure or error
        self._failed.set()

    def _needed_by_s(self, packet: VoicePacket) -> float:
        """When its step is fed at the latest."""
        if self._time_base is None:
            return packet.arrival_s
        return self._runner.needed_by_s(self._sample_of(packet.timestamp))

    def _note_late(self, packet: VoicePacket) -> None:
        if self._time_base is not None:
            self._runner.note_late(self._sample_of(packet.timestamp), packet.arrival_s)

    def _sample_of(self, pts: int) -> int:
        """The 16 kHz sample of a timestamp of the time base in use."""
        assert self._time_base is not None
        elapsed = self._elapsed + self._step(pts)
        return self._origin_sample + math.floor(elapsed * self._time_base * SAMPLE_RATE_HZ)

    def _step(self, pts: int) -> int:
        """From the last timestamp to this one, either way."""
        step = (pts - self._last_pts) % _RTP_WRAP
        return step if step < _RTP_WRAP // 2 else step - _RTP_WRAP

    def _place(self, pts: int, time_base: Fraction) -> int:
        """The 16 kHz sample of a timestamp; with a new time base the sound goes on seamlessly."""
        if time_base != self._time_base:
            self._time_base, self._last_pts = time_base, pts
            self._origin_sample, self._elapsed = self._next_sample, 0
        self._elapsed += self._step(pts)
        self._last_pts = pts
        return self._origin_sample + math.floor(self._elapsed * time_base * SAMPLE_RATE_HZ)
