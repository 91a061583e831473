"""Sound as people bring it to `express` and `dub`."""

from __future__ import annotations

import gzip
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lipstream.made_inputs import (
    cut,
    noise,
    photo_file,
    sound_file,
    video_file,
    voice,
    wav_file,
)
from lipstream.self_test import Trial

Make = Callable[[Path], Path]
_CHANNELS = (1, 2, 3, 5, 6, 7, 8, 9, 12, 24, 64)


def encoded(name: str, codec: str, **options: Any) -> Make:
    rate_hz = options.get("rate_hz", 48_000)
    return lambda folder: sound_file(folder / name, voice(0.6, rate_hz), codec=codec, **options)


def surround(name: str, codec: str, layout: str, channels: int) -> Make:
    return lambda folder: sound_file(
        folder / name, np.stack([voice()] * channels), codec=codec, layout=layout,
        holes_s=[(0.3, 0.4)] if name.endswith("webm") else (),
    )  # fmt: skip


def stated(**numbers: int) -> Make:
    return lambda folder: wav_file(folder / "stated.wav", voice(), **numbers)


def written(name: str, data: bytes) -> Make:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    return make


def with_tags(folder: Path) -> Path:
    """Titles in Latin-1, as old recorders and taggers write them, before the sound."""
    wav = wav_file(folder / "tags.wav", voice())
    data = wav.read_bytes()
    text = "Interview mit Jürgen, Café".encode("latin-1")
    text += b"\0" * (len(text) % 2)
    info = b"INFOINAM" + len(text).to_bytes(4, "little") + text
    chunk = b"LIST" + len(info).to_bytes(4, "little") + info
    wav.write_bytes(data[:4] + (len(data) - 8 + len(chunk)).to_bytes(4, "little") + data[8:36])
    with wav.open("ab") as file:
        file.write(chunk + data[36:])
    return wav


def with_id3(folder: Path) -> Path:
    """An MP3 with an ID3v1 tag in Latin-1 behind it."""
    path = sound_file(folder / "tag.mp3", voice(), codec="libmp3lame")
    tag = b"TAG" + "Söylüyor".encode("latin-1").ljust(30) + b"\0" * 94 + b"\xff"
    path.write_bytes(path.read_bytes() + tag)
    return path


def quiet(folder: Path) -> Path:
    return wav_file(folder / "quiet.wav", voice() * (0.01 / np.abs(voice()).max()))


def clipped(folder: Path) -> Path:
    return wav_file(folder / "loud.wav", np.sign(voice()) * (np.abs(voice()) > 0.02))


def with_number(number: float) -> Make:
    def make(folder: Path) -> Path:
        samples = voice().copy()
        samples[9000] = number
        return sound_file(folder / "number.wav", samples, codec="pcm_f32le")

    return make


def of_two_formats(folder: Path) -> Path:
    """Two Ogg streams behind one another, as radio stations write them."""
    parts = [
        sound_file(folder / "a.ogg", voice(), codec="libopus"),
        sound_file(folder / "b.ogg", np.stack([voice()] * 2), codec="libopus"),
    ]
    path = folder / "chained.ogg"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def joined(name: str, codec: str, channels: tuple[int, int] = (1, 1)) -> Make:
    """Two files behind one another, as `cat` joins them."""

    def make(folder: Path) -> Path:
        path = folder / name
        parts = [
            sound_file(folder / f"{k}{name}", np.stack([voice()] * count), codec=codec)
            for k, count in enumerate(channels)
        ]
        path.write_bytes(b"".join(part.read_bytes() for part in parts))
        return path

    return make


def playlist(name: str, text: str) -> Make:
    def make(folder: Path) -> Path:
        wav_file(folder / "other.wav", voice())
        (folder / name).write_text(text)
        return folder / name

    return make


def named_pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe.wav")
    return folder / "pipe.wav"


def archive(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "voice.zip", "w") as file:
        file.write(wav_file(folder / "voice.wav", voice()), "voice.wav")
    return folder / "voice.zip"


def zipped(folder: Path) -> Path:
    path = folder / "voice.wav.gz"
    path.write_bytes(gzip.compress(wav_file(folder / "voice.wav", voice()).read_bytes()))
    return path


def silent_film(folder: Path) -> Path:
    return video_file(folder / "silent.mp4", [noise(64, 96)] * 5)


def film(folder: Path) -> Path:
    return video_file(folder / "film.mkv", [noise(64, 96)] * 15, sound=voice())


def link_to_itself(folder: Path) -> Path:
    (folder / "loop.wav").symlink_to(folder / "loop.wav")
    return folder / "loop.wav"


def tone_files() -> list[Trial]:
    """Every sample format and rate that recorders write."""
    named = [
        ("a.wav", "pcm_u8"), ("b.wav", "pcm_s24le"), ("c.wav", "pcm_s32le"),
        ("d.wav", "pcm_f32le"), ("e.wav", "pcm_f64le"), ("f.wav", "pcm_mulaw"),
        ("g.wav", "pcm_alaw"), ("h.au", "pcm_s16be"),
        ("i.aiff", "pcm_s16be"), ("j.caf", "pcm_s16le"), ("k.w64", "pcm_s16le"), ("l.flac", "flac"),
        ("m.mka", "ac3"), ("n.wav", "adpcm_ima_wav"), ("o.wv", "wavpack"), ("p.m4a", "alac"),
        ("q.ts", "mp2"),
    ]  # fmt: skip
    trials = [
        Trial(f"{codec} in .{name.split('.')[1]}", "express", encoded(name, codec), 0.6)
        for name, codec in named
    ]
    trials += [
        Trial(f"{rate_hz} Hz", "express", encoded("rate.wav", "pcm_s16le", rate_hz=rate_hz), 0.6)
        for rate_hz in (8_000, 11_025, 22_050, 44_100, 96_000, 192_000, 384_000)
    ]
    return trials + [
        Trial(
            f"{count} channels", "express",
            lambda folder, count=count: wav_file(folder / "many.wav", np.stack([voice()] * count)),
            0.6,
        )
        for count in _CHANNELS
    ]  # fmt: skip


HEADERS = [
    Trial(f"a header that says {numbers}", "express", stated(**numbers), seconds, refusal)
    for numbers, seconds, refusal in (
        ({"riff": 0, "data": 0}, 0.6, ""),
        ({"riff": 0x7FFFF024, "data": 0x7FFFF000}, 0.6, ""),
        ({"riff": 2_000_000_036, "data": 2_000_000_000}, 0.6, ""),
        ({"riff": 0xFFFFFFFF, "data": 0xFFFFFFFF}, 0.6, ""),
        ({"riff": 1_000_000}, None, "cut short"),
        ({"rate": 0}, None, "not an audio or video file"),
        ({"rate": 1}, None, "samples a second"),
        ({"rate": 1_000_000}, None, "samples a second"),
        ({"channels": 0}, None, "cut short or damaged"),
        ({"channels": 255}, None, "channels"),
        ({"channels": 65_535}, None, "cut short or damaged"),
        ({"bits": 0}, None, "no sound in it"),
        ({"format": 0xFFFF}, None, "no sound in it"),
    )
]

SOUNDS = [
    *tone_files(),
    *HEADERS,
    Trial("tags in Latin-1", "express", with_tags, 0.6),
    Trial("an MP3 with a tag in Latin-1", "dub", with_id3, 0.6),
    Trial("7.1 in Opus with a hole", "express", surround("s.webm", "libopus", "7.1", 8), 1.0),
    Trial("5.1 in AAC", "dub", surround("s.m4a", "aac", "5.1", 6), 0.6),
    Trial("7.1 in FLAC", "dub", surround("s.flac", "flac", "7.1", 8), 0.6),
    Trial("tracks of a recorder", "dub",
          lambda folder: wav_file(folder / "t.wav", np.stack([voice()] * 9)), 0.6),
    Trial("a quiet voice", "express", quiet, 0.6, profile="file"),
    Trial("a clipped voice", "express", clipped, 0.6),
    Trial("a sample that is no number", "express", with_number(np.nan), refusal="not finite"),
    Trial("an infinite sample", "dub", with_number(np.inf), refusal="not finite"),
    Trial("a chained Ogg of two formats", "dub", of_two_formats, refusal="cannot be decoded"),
    Trial("MP3s behind one another", "dub", joined("j.mp3", "libmp3lame"), 1.28),
    Trial("AACs behind one another", "express", joined("j.aac", "aac"), 1.25),
    Trial("mono, then stereo", "dub", joined("j.ts", "mp2", (1, 2)), 1.22),
    Trial("stereo, then mono", "express", joined("k.ts", "mp2", (2, 1)), 1.22),
    Trial("a WAV without a sample", "dub",
          lambda folder: wav_file(folder / "z.wav", voice()[:0]), refusal="empty"),
    Trial("a WAV of 1 ms", "dub",
          lambda folder: wav_file(folder / "z.wav", voice()[:48]), refusal="at least 40 ms"),
    Trial("a cut M4A", "express",
          lambda folder: cut(sound_file(folder / "c.m4a", voice(), codec="aac"), 0.6),
          refusal="cut short"),
    Trial("a cut FLAC", "express",
          lambda folder: cut(sound_file(folder / "c.flac", voice(), codec="flac"), 0.5),
          refusal="cut short"),
    Trial("a film with sound", "dub", film, 0.6),
    Trial("a film without sound", "dub", silent_film, refusal="no sound in it"),
    Trial("a photo for sound", "express",
          lambda folder: photo_file(folder / "p.png", noise(64, 64)), refusal="no sound in it"),
    Trial("a named pipe", "express", named_pipe, refusal="pipe or a device"),
    Trial("a device", "dub", lambda folder: Path("/dev/zero"), refusal="pipe or a device"),
    Trial("a folder", "express", lambda folder: folder, refusal="folder"),
    Trial("no file", "dub", lambda folder: folder / "none.wav", refusal="no such file"),
    Trial("a link to itself", "express", link_to_itself, refusal="cannot be read"),
    Trial("an empty file", "express", written("e.wav", b""), refusal="not an audio or video file"),
    Trial("zeros", "express", written("z.mp3", bytes(5000)), refusal="not an audio or video file"),
    Trial("a PDF", "dub", written("a.pdf", b"%PDF-1.7\n" + bytes(range(256)) * 9),
          refusal="not an audio or video file"),
    Trial("an archive", "express", archive, refusal="not an audio or video file"),
    Trial("a compressed WAV", "express", zipped, refusal="not an audio or video file"),
    Trial("a playlist", "express", playlist("l.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:9\n"
          "#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n"), refusal="l.m3u8"),
    Trial("a list of files", "express", playlist("l.ffconcat", "ffconcat version 1.0\n"
          "file '/etc/hostname'\n"), refusal="l.ffconcat"),
    Trial("a session description", "express", playlist("l.sdp", "v=0\no=- 0 0 IN IP4 127.0.0.1\n"
          "s=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n"), refusal="l.sdp"),
    Trial("subtitles", "express", written("a.srt", b"1\n00:00:01,000 --> 00:00:02,000\nhello\n"),
          refusal="a.srt"),
]  # fmt: skip
