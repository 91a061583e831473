"""Sound in, MP4 out: exact times, whole files or none, one clear line for what cannot be read."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from lipstream.engine.errors import MediaError, UsageError
from lipstream.streaming.files.audio_file import OUTPUT_RATE_HZ, AudioFile, read_speech
from lipstream.streaming.files.dub import DubOptions, peak_rss_mib
from lipstream.streaming.files.dub import dub as dub_files
from lipstream.streaming.files.mp4_writer import PictureFormat
from lipstream.streaming.files.partial_file import PartialFile
from lipstream.streaming.marking.marker import Marking
from tests.streaming.fake_engine import FakeEngine
from tests.streaming.sound_files import bad_inputs, dub, write_wav
from tests.streaming.waiting import eventually_in_thread


def decoded(path: Path) -> tuple[list[float], list[float], np.ndarray, float]:
    """Frame times in s, mean brightness of each, sound f32 [channels, samples], its start in s."""
    times_s, levels, parts, start_s = [], [], [], None
    with av.open(str(path)) as file:
        for frame in file.decode(video=0):
            times_s.append(float(frame.pts * frame.time_base))
            levels.append(float(frame.to_ndarray(format="gray").mean()))
    with av.open(str(path)) as file:
        for frame in file.decode(audio=0):
            start_s = float(frame.pts * frame.time_base) if start_s is None else start_s
            parts.append(frame.to_ndarray())
    assert start_s is not None
    return times_s, levels, np.concatenate(parts, axis=1), start_s


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 22_050, 44_100, 48_000])
def test_click_keeps_its_place_at_every_rate(tmp_path: Path, rate_hz: int) -> None:
    samples = np.zeros(rate_hz * 2, np.float32)
    samples[rate_hz] = 0.9
    with AudioFile(write_wav(tmp_path / "click.wav", samples, rate_hz)) as sound:
        blocks = list(sound.blocks())
    speech = np.concatenate([b.speech for b in blocks])
    output = np.concatenate([b.output for b in blocks], axis=1)
    assert speech.size == 32_000
    assert output.shape == (1, 2 * OUTPUT_RATE_HZ)
    assert np.abs(speech).argmax() == 16_000
    assert np.abs(output[0]).argmax() == OUTPUT_RATE_HZ


def test_speech_is_the_mean_of_the_channels_and_output_keeps_them(tmp_path: Path) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(48_000) / 48_000)
    both = np.stack([tone, np.zeros_like(tone)], axis=1)
    with AudioFile(write_wav(tmp_path / "left.wav", both, 48_000)) as sound:
        assert sound.channels == 2
        blocks = list(sound.blocks())
    output = np.concatenate([b.output for b in blocks], axis=1)
    speech = np.concatenate([b.speech for b in blocks])
    assert np.abs(output[0]).max() == pytest.approx(0.5, abs=1e-3)
    assert np.abs(output[1]).max() == 0.0
    assert np.abs(speech[200:-200]).max() == pytest.approx(0.25, abs=2e-3)


@pytest.mark.parametrize("fps", [Fraction(24), Fraction(25), Fraction(30000, 1001), Fraction(60)])
def test_picture_and_sound_of_a_click_agree(tmp_path: Path, fps: Fraction) -> None:
    """White frames are exactly those whose own stretch of sound holds a click."""
    rng = np.random.default_rng(7)
    samples = np.zeros(16_000 * 3, np.float32)
    clicks = np.sort(rng.choice(np.arange(1000, samples.size - 1000, 1700), 6, replace=False))
    samples[clicks] = 0.9
    out = tmp_path / "out.mp4"
    report = dub(FakeEngine(fps=fps), write_wav(tmp_path / "in.wav", samples), out)
    times_s, levels, sound, start_s = decoded(out)

    assert report["av_offset_ms"] == 0.0
    assert report["frames"] == len(times_s) == int(np.ceil(3 * fps))
    np.testing.assert_allclose(times_s, [float(k / fps) for k in range(len(times_s))], atol=1e-4)
    assert start_s == 0.0
    # Each click is where it was, to the sample, after AAC's own 1024 samples of delay.
    for click in clicks:
        at = click * 3
        near = np.abs(sound[0, at - 40 : at + 40])
        assert abs(int(near.argmax()) - 40) <= 1
    white = {k for k, level in enumerate(levels) if level > 128}
    assert white == {int(Fraction(int(c), 16_000) * fps) for c in clicks}


def test_sound_is_as_long_as_the_input(tmp_path: Path) -> None:
    samples = 0.1 * np.ones(16_000 + 123, np.float32)
    dub(FakeEngine(), write_wav(tmp_path / "in.wav", samples), tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as file:
        track = file.streams.audio[0]
        # The resampler's last block may run over by a fraction of a millisecond.
        beyond_s = float(track.duration * track.time_base) - samples.size / 16_000
        assert 0 <= beyond_s < 0.001
        assert file.streams.video[0].frames == 26  # 25.2 frames of sound


def test_file_is_tagged_and_starts_fast(tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    dub(FakeEngine(), write_wav(tmp_path / "in.wav", np.zeros(16_000, np.float32)), out)
    data = out.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    with av.open(str(out)) as file:
        codec = file.streams.video[0].codec_context
        assert (codec.name, codec.pix_fmt) == ("h264", "yuv420p")
        tags = (codec.color_range, codec.colorspace, codec.color_primaries, codec.color_trc)
        assert [int(tag) for tag in tags] == [1, 1, 1, 1]
        assert file.streams.audio[0].codec_context.name == "aac"
        assert not codec.has_b_frames
    assert out.stat().st_mode & 0o444 & ~os.umask(os.umask(0)) == out.stat().st_mode & 0o444


def test_engine_is_fed_half_a_second_at_a_time(tmp_path: Path) -> None:
    sessions = []

    class Watched(FakeEngine):
        def session(self):  # type: ignore[no-untyped-def]
            sessions.append(super().session())
            return sessions[-1]

    path = write_wav(tmp_path / "in.wav", np.zeros(20_007, np.float32))
    dub(Watched(), path, tmp_path / "out.mp4")
    assert 8000 <= sessions[0].longest_chunk < 9600, "half a second, and no more than a block over"
    assert sessions[0].sound.size == 20_007


def test_memory_does_not_grow_with_the_sound(tmp_path: Path) -> None:
    """A reader that kept its blocks would hold 10 minutes of 48 kHz stereo: 220 MiB."""
    rng = np.random.default_rng(0)
    minute = (0.1 * rng.standard_normal((60 * 16_000, 2))).astype(np.float32)
    path = write_wav(tmp_path / "long.wav", np.tile(minute, (10, 1)))
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    count = 0
    with AudioFile(path) as sound:
        for block in sound.blocks():
            count += block.speech.size
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib) / 1024
    assert count == 600 * 16_000
    assert grown_mib < 40


@pytest.mark.parametrize(
    "name",
    ["missing", "folder", "text", "empty", "no sound", "no samples", "cut wav", "cut mp4"],
)
def test_bad_sound_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    path, reason = bad_inputs(tmp_path)[name]
    left = set(tmp_path.iterdir())
    with pytest.raises(MediaError) as caught:
        dub(FakeEngine(), path, tmp_path / "out.mp4")
    message = str(caught.value)
    assert reason in message
    assert str(path) in message
    assert "\n" not in message
    assert set(tmp_path.iterdir()) == left


def test_output_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="there is no folder"):
        PartialFile(tmp_path / "nowhere" / "out.mp4")
    with pytest.raises(MediaError, match="it is a folder"):
        PartialFile(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(MediaError, match="there is no folder"):
        PartialFile(tmp_path / "file" / "out.mp4")


def test_full_disk_leaves_nothing(tmp_path: Path) -> None:
    """A limit on file size stands for a full disk: the same failed write, without root."""
    sound = write_wav(tmp_path / "in.wav", 0.3 * np.ones(16_000 * 20, np.float32))
    out = tmp_path / "out" / "out.mp4"
    out.parent.mkdir()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, hard))
        with pytest.raises(MediaError, match="cannot write .*out.mp4: .*(large|space)"):
            dub(FakeEngine(512, 512), sound, out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert list(out.parent.iterdir()) == []


def test_interrupted_engine_leaves_nothing_and_keeps_the_old_file(tmp_path: Path) -> None:
    class Interrupted(FakeEngine):
        def session(self):  # type: ignore[no-untyped-def]
            session = super().session()
            push = session.push

            def stop_half_way(chunk):  # type: ignore[no-untyped-def]
                if session.sound.size > 8_000:
                    raise KeyboardInterrupt
                return push(chunk)

            session.push = stop_half_way
            return session

    sound = write_wav(tmp_path / "in.wav", np.zeros(32_000, np.float32))
    out = tmp_path / "out.mp4"
    out.write_bytes(b"the old one")
    with pytest.raises(KeyboardInterrupt):
        dub(Interrupted(), sound, out)
    assert out.read_bytes() == b"the old one"
    assert {p.name for p in tmp_path.iterdir()} == {"in.wav", "out.mp4"}
    # Threads end with the dub, not with the process.
    eventually_in_thread(lambda: all(t.name != "encoder" for t in threading.enumerate()), 2)


def test_sound_shorter_than_a_frame_is_refused(tmp_path: Path) -> None:
    class Nothing(FakeEngine):
        def session(self):  # type: ignore[no-untyped-def]
            session = super().session()
            session.flush = lambda: []
            return session

    sound = write_wav(tmp_path / "in.wav", np.zeros(100, np.float32))
    with pytest.raises(MediaError, match="no frame"):
        dub(Nothing(), sound, tmp_path / "out.mp4")


def test_a_system_without_the_resource_module_reports_no_peak_memory() -> None:
    """As on Windows: no POSIX module, no /proc."""
    program = (
        "import sys, pathlib; sys.modules['resource'] = None\n"
        "from lipstream.streaming.files import dub\n"
        "def missing(self): raise FileNotFoundError\n"
        "pathlib.Path.read_text = missing\n"
        "print(dub.peak_rss_mib())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "None", done.stderr


def test_peak_memory_is_that_of_this_process() -> None:
    own_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    assert peak_rss_mib() == pytest.approx(own_mib, rel=0.5)


def packets(path: Path) -> list[tuple[int, int | None, bytes]]:
    with av.open(str(path)) as container:
        return [(p.stream_index, p.pts, bytes(p)) for p in container.demux()]


@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv", "webm"])
def test_the_same_command_makes_the_same_video(target: Path, tmp_path: Path, ending: str) -> None:
    """Outside the manifest, whose salts and signature are random."""
    noise = 0.2 * np.random.default_rng(0).standard_normal(4_800).astype(np.float32)
    sound = write_wav(tmp_path / "a.wav", noise)
    options = DubOptions("low", background="sequential", renderer="none")
    paths = [tmp_path / name / f"a.{ending}" for name in ("one", "two")]
    ids = set()
    for path in paths:
        path.parent.mkdir()
        ids.add(dub_files(target, sound, path, options)["marks"]["watermark"])
    one, two = (path.read_bytes() for path in paths)
    assert packets(paths[0]) == packets(paths[1])
    assert (one == two) == (ending in ("mkv", "webm")) and len(one) == len(two)
    if ending == "mkv":
        other = replace(options, marking=Marking(label="bar"))
        ids.add(dub_files(target, sound, paths[0], other)["marks"]["watermark"])
        ids.add(dub_files(target, paths[1], paths[0], options)["marks"]["watermark"])
        assert len(ids) == 3
    else:
        assert len(ids) == 1


@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv"])
def test_x264_has_one_thread(tmp_path: Path, ending: str) -> None:
    """With more, two of them share a scratch buffer, and the bytes depend on which comes first."""
    out = tmp_path / f"out.{ending}"
    sound = write_wav(tmp_path / "a.wav", np.zeros(4_800, np.float32))
    dub(FakeEngine(height=128), sound, out)  # x264 gives a smaller frame one thread by itself
    found = re.search(rb" threads=.*? sliced_threads=\d(?: slices=\d)?", out.read_bytes())
    assert found is not None
    assert found[0] == b" threads=1 lookahead_threads=1 sliced_threads=0"


def test_odd_sizes_are_refused() -> None:
    with pytest.raises(UsageError, match="63x48"):
        PictureFormat(63, 48, Fraction(25))


def test_read_speech_joins_the_blocks(tmp_path: Path) -> None:
    samples = np.linspace(-0.5, 0.5, 5_000, dtype=np.float32)
    speech = read_speech(write_wav(tmp_path / "ramp.wav", samples))
    np.testing.assert_allclose(speech, samples, atol=1e-4)
