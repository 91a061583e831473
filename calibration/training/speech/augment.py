"""Augmentation of speech: speed and pitch, spectrum, room, noise, codecs, packet loss.

All linear changes (resampling, spectrum, room, bandwidth) are one multiplication in the frequency
domain, about a thousand times faster than real time; noise, clipping and codecs follow.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from scipy import fft, signal

from lipstream.engine.types import F32, SAMPLE_RATE_HZ

# PyAV codec, container, bit rate in bit/s and sample rate in Hz, as in calls and videos.
_CODECS: Final = (
    ("libopus", "ogg", 12_000, 16_000),
    ("libopus", "ogg", 24_000, 16_000),
    ("libopus", "ogg", 64_000, 48_000),
    ("libmp3lame", "mp3", 32_000, 16_000),
    ("aac", "adts", 32_000, 16_000),
    ("pcm_mulaw", "wav", 64_000, 8_000),
)


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Probability of each kind of augmentation."""

    room: float = 0.45
    noise: float = 0.8
    equaliser: float = 0.8
    telephone: float = 0.1
    codec: float = 0.12
    clip: float = 0.05
    babble: float = 0.25  # other voices
    music: float = 0.08
    loss: float = 0.08  # of packets
    gain: float = 0.08  # changes of loudness, and a constant offset


DRY: Final = Augmentation(0, 0, 0, 0, 0, 0, 0, 0, 0, 0)


def resample_and_equalise(
    samples: F32, rate_hz: float, rng: np.random.Generator, how: Augmentation
) -> F32:
    """Audio at `rate_hz` resampled to 16 kHz, with a random spectrum and room.

    A `rate_hz` other than the true one scales durations, pitch and formants together.
    """
    length = len(samples)
    tail = int(0.4 * rate_hz)
    padded = fft.next_fast_len(length + tail, real=True)
    spectrum = fft.rfft(samples.astype(np.float32), padded)
    out_length = round(padded * SAMPLE_RATE_HZ / rate_hz)
    bins = out_length // 2 + 1
    ratio = out_length / padded
    resized = np.zeros(bins, np.complex64)
    shared = min(bins, len(spectrum))
    resized[:shared] = spectrum[:shared] * ratio
    hz = np.arange(bins, dtype=np.float32) * (SAMPLE_RATE_HZ / out_length)
    if rng.random() < how.equaliser:
        resized *= _equaliser(hz, rng)
    if rng.random() < how.room:
        response = _room(rng)
        resized *= fft.rfft(response, out_length)[:bins].astype(np.complex64)
    if rng.random() < how.telephone:
        low, high = rng.uniform(200, 400), rng.uniform(2800, 3600)
        resized *= 1.0 / np.sqrt(1.0 + (low / (hz + 1.0)) ** 8)
        resized *= 1.0 / np.sqrt(1.0 + (hz / high) ** 16)
    out = fft.irfft(resized, out_length)[: round(length * SAMPLE_RATE_HZ / rate_hz)]
    return np.asarray(out, dtype=np.float32)


def _equaliser(hz: F32, rng: np.random.Generator) -> F32:
    """A random smooth gain over frequency: microphone, distance, equaliser."""
    knots_hz = np.array([0, 100, 250, 500, 1000, 2000, 3000, 4500, 6000, 8000], np.float32)
    gains_db = rng.normal(0.0, 3.5, len(knots_hz)) + rng.uniform(-2.5, 2.0) * np.arange(-4, 6)
    gain_db = np.interp(hz, knots_hz, gains_db)
    if rng.random() < 0.3:
        gain_db -= 12.0 * np.clip(np.log2(hz / rng.uniform(2500, 7000) + 1e-6), 0.0, 2.0)
    if rng.random() < 0.4:
        gain_db -= 12.0 * np.clip(np.log2(rng.uniform(60, 250) / (hz + 1.0)), 0.0, 3.0)
    return np.asarray(10.0 ** (gain_db / 20.0), dtype=np.float32)


def _room(rng: np.random.Generator) -> F32:
    """An impulse response: the direct sound, a few early echoes, a noisy exponential tail."""
    decay_s = float(rng.uniform(0.1, 0.7))
    length = int(min(0.4, decay_s) * SAMPLE_RATE_HZ)
    time_s = np.arange(length) / SAMPLE_RATE_HZ
    tail = rng.standard_normal(length) * np.exp(-6.9 * time_s / decay_s)
    tail = signal.lfilter([1.0 - 0.6], [1.0, -0.6], tail)
    tail[: int(rng.uniform(0.001, 0.008) * SAMPLE_RATE_HZ)] = 0.0
    direct_db = float(rng.uniform(0.0, 18.0))
    tail *= 10.0 ** (-direct_db / 20.0) / np.sqrt(np.sum(tail**2) + 1e-12)
    for _ in range(int(rng.integers(0, 5))):
        tail[int(rng.uniform(0.002, 0.03) * SAMPLE_RATE_HZ)] += rng.normal(0.0, 0.25)
    tail[0] = 1.0
    return np.asarray(tail, dtype=np.float32)


def coloured_noise(samples: int, rng: np.random.Generator) -> F32:
    """White, pink, brown, filtered or humming noise of unit power, f32 [samples]."""
    padded = fft.next_fast_len(samples, real=True)
    spectrum = fft.rfft(rng.standard_normal(padded).astype(np.float32))
    hz = np.arange(len(spectrum), dtype=np.float32) * (SAMPLE_RATE_HZ / padded)
    spectrum *= (hz + 20.0) ** -float(rng.choice([0.0, 0.5, 0.5, 1.0]))
    if rng.random() < 0.4:
        spectrum *= _equaliser(hz, rng)
    noise = fft.irfft(spectrum, padded)[:samples]
    noise /= np.sqrt(np.mean(noise**2)) + 1e-9
    time_s = np.arange(samples) / SAMPLE_RATE_HZ
    if rng.random() < 0.2:  # mains and its harmonics
        for harmonic in range(1, int(rng.integers(2, 9))):
            hz_h = harmonic * float(rng.choice([50.0, 60.0, 100.0, 120.0]))
            noise += np.sin(2 * np.pi * hz_h * time_s) * float(rng.exponential(0.8))
    if rng.random() < 0.3:  # wind, breath, passing cars
        swell = np.interp(
            time_s, np.arange(0.0, time_s[-1] + 1.0, 0.7),
            rng.exponential(1.0, len(np.arange(0.0, time_s[-1] + 1.0, 0.7))),
        )  # fmt: skip
        noise *= swell
    return np.asarray(noise / (np.sqrt(np.mean(noise**2)) + 1e-9), dtype=np.float32)


def mouth_noise(samples: int, rng: np.random.Generator) -> F32:
    """Sounds of a mouth without speech: breaths, clicks; f32 [samples]."""
    out = np.zeros(samples, np.float32)
    time_s = np.arange(samples) / SAMPLE_RATE_HZ
    if rng.random() < 0.7:
        low, high = float(rng.uniform(200, 900)), float(rng.uniform(2000, 6500))
        shape = signal.butter(2, [low, high], "bandpass", fs=SAMPLE_RATE_HZ)
        breath = signal.lfilter(*shape, rng.standard_normal(samples))
        swell = np.sin(np.pi * np.clip(time_s / time_s[-1], 0.0, 1.0)) ** float(rng.uniform(0.5, 2))
        out += (breath * swell).astype(np.float32)
    else:
        for _ in range(int(rng.integers(1, 4))):
            at = int(rng.integers(0, max(1, samples - 200)))
            click = rng.standard_normal(200) * np.exp(-np.arange(200) / rng.uniform(5, 60))
            out[at : at + 200] += click[: samples - at].astype(np.float32)
    return out / (np.sqrt(np.mean(out**2, dtype=np.float32)) + np.float32(1e-6))


def add_noise(samples: F32, babble: F32 | None, rng: np.random.Generator, how: Augmentation) -> F32:
    """Voice plus babble, music or noise at a random ratio; then a random level."""
    power = float(np.mean(samples**2))
    if power < 1e-8:  # no speech: noise as loud as with speech
        power = 1e-3
    out = samples.copy()
    if babble is None and rng.random() < how.music:
        babble = music(len(out), rng)
    if babble is not None or rng.random() < how.noise:
        if babble is not None:
            noise = babble / np.float32(np.sqrt(np.mean(babble**2)) + 1e-9)
            ratio_db = float(rng.uniform(4.0, 28.0))
        else:
            noise = coloured_noise(len(out), rng)
            ratio_db = float(rng.uniform(5.0, 45.0))
        out += noise * np.float32(np.sqrt(power) * 10.0 ** (-ratio_db / 20.0))
    level_db = float(rng.normal(-25.0, 7.0))
    if rng.random() < how.gain:
        out *= _gain_steps(len(out), rng)
    out *= np.float32(10.0 ** (level_db / 20.0) / np.sqrt(power))
    if rng.random() < how.clip:
        limit = float(np.quantile(np.abs(out), rng.uniform(0.97, 0.999))) + 1e-6
        out = np.clip(out, -limit, limit)
    if rng.random() < how.gain:
        out += np.float32(rng.normal(0.0, 0.02))  # constant offset of a sound card
    return np.asarray(out, dtype=np.float32)


def music(samples: int, rng: np.random.Generator) -> F32:
    """Changing chords, a bass and a beat, f32 [samples]."""
    time_s = np.arange(samples) / SAMPLE_RATE_HZ
    beat_s = 60.0 / float(rng.uniform(70, 150))
    scale = np.array([0, 2, 3, 5, 7, 8, 10] if rng.random() < 0.5 else [0, 2, 4, 5, 7, 9, 11])
    root_hz = float(rng.uniform(110, 220))
    bright = float(rng.uniform(0.4, 0.9))
    out = np.zeros(samples)
    for bar in range(int(time_s[-1] / (4 * beat_s)) + 1):
        at, end = (int(b * 4 * beat_s * SAMPLE_RATE_HZ) for b in (bar, bar + 1))
        place = time_s[at:end] - time_s[min(at, samples - 1)]
        degree = int(rng.integers(7))
        for note in (degree, degree + 2, degree + 4, degree - 7):
            hz = root_hz * 2.0 ** ((scale[note % 7] + 12 * (note // 7)) / 12)
            fade = np.exp(-place * float(rng.uniform(0.3, 3.0)))
            for harmonic in range(1, 7):
                out[at:end] += bright**harmonic * fade * np.sin(2 * np.pi * hz * harmonic * place)
    drum = rng.standard_normal(samples) * np.exp(-(time_s % beat_s) * float(rng.uniform(20, 60)))
    out += float(rng.uniform(0.0, 2.0)) * drum
    return np.asarray(out, dtype=np.float32)


def _gain_steps(samples: int, rng: np.random.Generator) -> F32:
    """One to three changes of loudness, at once or over half a second, f32 [samples]."""
    time = np.arange(samples)
    gain_db = np.zeros(samples)
    for _ in range(int(rng.integers(1, 4))):
        at, over = rng.uniform(0, samples), rng.choice([80, 8_000])
        gain_db += float(rng.normal(0, 7)) * np.clip((time - at) / over, 0.0, 1.0)
    return np.asarray(10.0 ** (gain_db / 20.0), dtype=np.float32)


def through_channel(samples: F32, rng: np.random.Generator, how: Augmentation) -> F32:
    """Speech after a codec and after packet loss, each with its probability."""
    if rng.random() < how.codec:
        samples = through_codec(samples, rng)
    if rng.random() < how.loss:
        samples = lose_packets(samples, rng)
    return samples


def lose_packets(samples: F32, rng: np.random.Generator) -> F32:
    """Speech with 1 to 15 % of its 20 ms packets lost in runs, concealed as by a receiver: the
    last packet repeats and fades, then silence."""
    packet = SAMPLE_RATE_HZ // 50
    out = samples.copy()
    rate, stays = float(rng.uniform(0.01, 0.15)), float(rng.uniform(0.1, 0.6))
    run = 0
    for at in range(packet, len(out) - packet, packet):
        lost = rng.random() < (stays if run else rate * (1.0 - stays))
        run = run + 1 if lost else 0
        if lost:
            fade = np.float32(0.6 if run < 4 else 0.0)
            out[at : at + packet] = fade * out[at - packet : at]
    return out


def through_codec(samples: F32, rng: np.random.Generator) -> F32:
    """Speech after a random codec, aligned with the input to the sample."""
    import av

    codec, container_format, bit_rate, rate_hz = _CODECS[int(rng.integers(len(_CODECS)))]
    peak = float(np.max(np.abs(samples))) + 1e-6
    scaled = samples * np.float32(0.5 / peak)
    if rate_hz != SAMPLE_RATE_HZ:
        scaled = signal.resample_poly(scaled, rate_hz, SAMPLE_RATE_HZ).astype(np.float32)
    pcm = (scaled * 32767.0).astype(np.int16)[None]
    buffer = io.BytesIO()
    sink: Any
    source: Any
    with av.open(buffer, "w", format=container_format) as sink:
        stream = sink.add_stream(codec, rate=rate_hz)
        stream.bit_rate = bit_rate
        stream.layout = "mono"
        frame: Any = av.AudioFrame.from_ndarray(pcm, format="s16", layout="mono")
        frame.sample_rate = rate_hz
        cutter = av.AudioResampler(stream.format, "mono", rate_hz, stream.frame_size or None)
        for piece in (*cutter.resample(frame), *cutter.resample(None)):
            sink.mux(stream.encode(piece))
        sink.mux(stream.encode(None))
    buffer.seek(0)
    with av.open(buffer) as source:
        joiner = av.AudioResampler("flt", "mono", SAMPLE_RATE_HZ)
        pieces = [
            out.to_ndarray()[0]
            for decoded in source.decode(audio=0)
            for out in joiner.resample(decoded)
        ]
        pieces += [out.to_ndarray()[0] for out in joiner.resample(None)]
    decoded_samples = np.concatenate(pieces).astype(np.float32)
    return _align(decoded_samples, samples) * np.float32(2.0 * peak)


def _align(delayed: F32, reference: F32) -> F32:
    """`delayed`, shifted by up to 150 ms to match `reference`, and as long."""
    length = len(reference)
    delayed = np.pad(delayed, (0, max(0, length - len(delayed))))[: length + 4800]
    padded = fft.next_fast_len(len(delayed) + length, real=True)
    product = fft.rfft(delayed, padded) * np.conj(fft.rfft(reference, padded))
    correlation = fft.irfft(product, padded)
    lags = np.concatenate([np.arange(0, 2400), np.arange(-2400, 0)])
    lag = int(lags[int(np.argmax(correlation[lags]))])
    shifted = delayed[lag:] if lag >= 0 else np.pad(delayed, (-lag, 0))
    return np.asarray(np.pad(shifted, (0, length))[:length], dtype=np.float32)
