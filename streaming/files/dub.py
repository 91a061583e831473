"""A sound file and a target make a video: the engine, fed as fast as it can go."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

import av
import numpy as np

from lipstream.engine.errors import MediaError
from lipstream.engine.output_paths import refuse_to_overwrite
from lipstream.engine.paths import libav_url
from lipstream.engine.target.consent import why_missing
from lipstream.engine.types import F32, SAMPLE_RATE_HZ, AudioChunk, VideoFrame
from lipstream.streaming.files.audio_file import OUTPUT_RATE_HZ, AudioFile
from lipstream.streaming.files.mp4_writer import Mp4Writer, PictureFormat, Seal, container_of
from lipstream.streaming.files.parents import Parents
from lipstream.streaming.files.partial_file import PartialFile
from lipstream.streaming.files.provenance import Provenance, sidecar_of
from lipstream.streaming.marking.marker import FrameMarker, Marking

logger = logging.getLogger(__name__)

# Frames and blocks of sound between engine and encoder: more than the engine makes at once. A full
# queue blocks the engine and drops nothing; 1080x1920 frames take 3 MB each.
_QUEUE_ITEMS: Final = 40
# Within one push the engine prepares one frame while it refines another. Longer pushes gain next to
# nothing, and all their frames are in memory at once.
_PUSH_SAMPLES: Final = SAMPLE_RATE_HZ // 2

Progress = Callable[[str, float], None]  # the task, and the fraction of it that is done


class SpeakingSession(Protocol):
    """The part of `Session` that a dub needs."""

    def frames(self, chunk: AudioChunk | None) -> Iterator[VideoFrame]:
        """Frames that this sound completes, or with None the remaining ones, one at a time."""
        ...


class SpeakingEngine(Protocol):
    """The part of `Engine` that a dub needs."""

    @property
    def delay_ms(self) -> float:
        """Stated delay between sound in and picture out."""
        ...

    def session(self) -> SpeakingSession:
        """A fresh session."""
        ...


@dataclass(frozen=True, slots=True)
class DubOptions:
    """How to dub; the engine checks the names."""

    profile: str = "file"
    backend: str = "auto"
    background: str = "matched"
    renderer: str = "auto"
    progress: Progress | None = None
    crop_resolution: int = 256  # of the renderer, see `engine.rendering.refiner.CROP_RESOLUTIONS`
    marking: Marking = field(default_factory=Marking)
    sign: tuple[Path, Path] | None = None  # certificate and key; None: the kept key

    def shown(self) -> dict[str, Any]:
        """Those that frames depend on."""
        return {
            "profile": self.profile,
            "backend": self.backend,
            "background": self.background,
            "renderer": self.renderer,
            "crop_resolution": self.crop_resolution,
            "marking": asdict(self.marking),
        }


def dub(
    target_path: str | Path,
    audio_path: str | Path,
    out_path: str | Path,
    options: DubOptions | None = None,
) -> dict[str, Any]:
    """Write the video `out_path`, in which the target speaks what is spoken in `audio_path`.

    Returns:
        frames, fps, duration_s, seconds, realtime_factor, backend, profile, background, renderer,
        renderer_precision, delay_ms, av_offset_ms, peak_rss_mib, output, marks (see
        `FrameMarker.as_json`), provenance (signed_by, sidecar; None where nothing signs).
        `seconds` counts everything, loading included.

    Raises:
        LipstreamError: input that cannot be read, output that cannot be written or is an input.
    """
    refuse_to_overwrite(out_path, target_path, audio_path)
    refuse_to_overwrite(sidecar_of(Path(out_path)), target_path, audio_path)
    container_of(out_path)
    from lipstream.engine.pipeline import Engine
    from lipstream.engine.target.bundle import load_target

    options = options or DubOptions()
    began_s = time.monotonic()
    # The cheap checks come first: sound and output are known to be good before the target loads.
    with AudioFile(audio_path) as sound, PartialFile(out_path) as part:
        provenance = Provenance.of(options.sign)
        target = load_target(target_path)
        if target.consent is None:
            logger.warning(why_missing(str(target_path), target.info))
        engine = Engine(
            target,
            profile=options.profile,
            backend=options.backend,
            background=options.background,
            renderer=options.renderer,
            crop_resolution=options.crop_resolution,
        )
        parents = Parents.of(target, Path(audio_path))
        outgoing = Outgoing(FrameMarker(options.marking, parents.watermark(options.shown())))
        if provenance is not None:
            outgoing.seal = partial(_seal, provenance, parents, outgoing.marker)
        written = write_dub(engine, sound, part, options.progress, outgoing)
    seconds = time.monotonic() - began_s
    peak_mib = peak_rss_mib()
    return written | {
        "output": str(out_path),
        "seconds": round(seconds, 3),
        "realtime_factor": round(written["duration_s"] / seconds, 2),
        "backend": engine.backend,
        "profile": options.profile,
        "background": options.background,
        "renderer": "none" if engine.renderer is None else "network",
        "renderer_precision": None
        if engine.renderer is None
        else engine.renderer.network.precision,
        "delay_ms": engine.delay_ms,
        "peak_rss_mib": None if peak_mib is None else round(peak_mib),
        "marks": outgoing.marker.as_json(),
        "provenance": None
        if provenance is None
        else {
            "signed_by": provenance.credentials.name,
            "sidecar": None if outgoing.sidecar is None else str(outgoing.sidecar),
        },
    }


@dataclass(slots=True)
class Outgoing:
    """What is done to frames and file on their way out."""

    marker: FrameMarker
    seal: Seal | None = None
    sidecar: Path | None = None  # that was written


def _seal(
    provenance: Provenance, parents: Parents, marker: FrameMarker, part: PartialFile
) -> Callable[[], Path | None]:
    return provenance.seal(part, parents.synthesis(marker))


def write_dub(
    engine: SpeakingEngine,
    sound: AudioFile,
    part: PartialFile,
    progress: Progress | None = None,
    outgoing: Outgoing | None = None,
) -> dict[str, Any]:
    """Run one session over `sound`, and mark, encode and sign its frames in a second thread.

    outgoing: None leaves the frames and the file without marks.

    Returns:
        frames, fps, duration_s, av_offset_ms.

    Raises:
        MediaError: the sound breaks off, or the output cannot be written.
    """
    session = engine.session()
    total_s = sound.duration_s
    if progress is not None:
        progress("dubbing", 0.0)
    with _Encoder(part, sound.channels, outgoing) as encoder:

        def paint(chunk: AudioChunk | None) -> None:
            for frame in session.frames(chunk):
                encoder.put(frame)
                if progress is not None and total_s:
                    progress("dubbing", frame.audio.start_sample / SAMPLE_RATE_HZ / total_s)

        buffer = _PushBuffer()
        for block in sound.blocks():
            encoder.put(block.output)
            for chunk in buffer.add(block.speech):
                paint(chunk)
        for chunk in buffer.rest():
            paint(chunk)
        paint(None)
        encoder.finish()
    picture = encoder.picture
    return {
        "frames": encoder.frames,
        "fps": float(picture.fps),
        "duration_s": round(float(encoder.frames / picture.fps), 3),
        "av_offset_ms": av_offset_ms(part.path),
    }


class _PushBuffer:
    """Collects blocks of any length into chunks of `_PUSH_SAMPLES` or more."""

    def __init__(self) -> None:
        self._blocks: list[F32] = []  # f32 [samples] each, together shorter than a chunk
        self._start_sample = 0

    def add(self, samples: F32) -> Iterator[AudioChunk]:
        self._blocks.append(samples)
        if sum(block.size for block in self._blocks) >= _PUSH_SAMPLES:
            yield from self.rest()

    def rest(self) -> Iterator[AudioChunk]:
        samples = np.concatenate([*self._blocks, np.zeros(0, np.float32)])
        self._blocks = []
        if samples.size:
            yield AudioChunk(samples, self._start_sample)
            self._start_sample += samples.size


class _Encoder:
    """Owns the writer in its own thread; x264 and AAC run outside the interpreter lock."""

    def __init__(self, part: PartialFile, channels: int, outgoing: Outgoing | None) -> None:
        self._part = part
        self._outgoing = outgoing
        self._channels = channels
        self._items: queue.Queue[VideoFrame | F32 | None] = queue.Queue(_QUEUE_ITEMS)
        self._error: BaseException | None = None
        self._abandoned = threading.Event()
        self._thread = threading.Thread(target=self._run, name="encoder", daemon=True)
        self._picture: PictureFormat | None = None
        self.frames = 0

    @property
    def picture(self) -> PictureFormat:
        """Of the frames written; known after the first."""
        if self._picture is None:
            raise MediaError("the sound is shorter than one frame; expected at least 40 ms of it")
        return self._picture

    def put(self, item: VideoFrame | F32 | None) -> None:
        """Queue a frame or a block of sound; waits while the encoder is behind."""
        while True:
            if self._error is not None:
                raise self._error
            try:
                self._items.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def finish(self) -> None:
        """Wait until everything is written and the file has its name."""
        self.put(None)
        while self._thread.is_alive():  # in short waits, so that Ctrl-C gets through
            self._thread.join(0.1)
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            self._write()
        except BaseException as error:  # raised by `put` or `finish` in the caller's thread
            self._error = error

    def _write(self) -> None:
        # Sound waits for the picture of its time: frames may come 40 s later, and the container
        # would lay that much sound in front of them.
        waiting: deque[F32] = deque()
        first = self._next()
        while isinstance(first, np.ndarray):
            waiting.append(first)
            first = self._next()
        if first is None:
            if not self._abandoned.is_set():
                raise MediaError("no frame came of this sound; expected at least 40 ms of it")
            return
        self._picture = PictureFormat(first.width, first.height, Fraction(first.fps))
        with Mp4Writer(self._part, self._picture, self._channels) as writer:
            written_samples = 0
            item: VideoFrame | F32 | None = first
            while item is not None:
                if isinstance(item, VideoFrame):
                    writer.write_frame(
                        item if self._outgoing is None else self._outgoing.marker.mark(item)
                    )
                    self.frames += 1
                else:
                    waiting.append(item)
                while waiting and written_samples * first.fps < self.frames * OUTPUT_RATE_HZ:
                    written_samples += waiting[0].shape[1]
                    writer.write_sound(waiting.popleft())
                item = self._next()
            if not self._abandoned.is_set():
                for samples in waiting:
                    writer.write_sound(samples)
                self._finish(writer)

    def _finish(self, writer: Mp4Writer) -> None:
        if self._outgoing is None:
            writer.finish()
        else:
            self._outgoing.sidecar = writer.finish(self._outgoing.seal)

    def _next(self) -> VideoFrame | F32 | None:
        while not self._abandoned.is_set():
            try:
                return self._items.get(timeout=0.1)
            except queue.Empty:
                continue
        return None

    def __enter__(self) -> _Encoder:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._abandoned.set()
        self._thread.join()


def av_offset_ms(path: Path) -> float:
    """Start of a file's sound less the start of its video, read back from the file."""
    # Opened for each: a search back to time 0 would pass over the encoder's delay before it.
    with av.open(libav_url(path)) as container:
        picture = next(container.decode(container.streams.video[0]))
    with av.open(libav_url(path)) as container:
        sound = next(container.decode(container.streams.audio[0]))
    return round((_start_s(sound) - _start_s(picture)) * 1000, 3)


def _start_s(frame: av.VideoFrame | av.AudioFrame) -> float:
    return float((frame.pts or 0) * (frame.time_base or Fraction(0)))


def peak_rss_mib() -> float | None:
    """The largest resident set of this process so far; None where the system does not tell."""
    try:
        status = Path("/proc/self/status").read_text()
        high_water_kib = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(high_water_kib.split()[1]) / 1024
    except (OSError, StopIteration):
        pass
    try:
        import resource  # POSIX only
    except ImportError:
        return None
    # The second choice: it counts what the parent held before exec as well.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
