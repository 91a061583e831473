"""The attacks on the watermark, and what the bench makes of them."""

import numpy as np
import pytest

from lipstream.bench.measure import watermark as bench
from lipstream.bench.measure import watermark_attacks as attacks
from lipstream.engine.errors import UsageError
from tests.engine.watermark.pictures import clip

H, W = 96, 128


@pytest.fixture
def lumas():
    return [frame[:H] for frame in clip(H, W, 10)]


@pytest.mark.parametrize("codec", ["libx264", "libvpx"])
def test_a_codec_gives_back_every_frame_a_little_changed(lumas, codec):
    options = {"libx264": attacks._H264, "libvpx": attacks._VP8}[codec]
    got = list(attacks.encoded(iter(lumas), codec, options))
    assert [one.shape for one in got] == [(H, W)] * 10
    errors = [np.abs(a.astype(int) - b).mean() for a, b in zip(got, lumas, strict=True)]
    assert 0 < max(errors) < 8


def test_scaling_crops_levels_and_rates(lumas):
    assert next(attacks.scaled(iter(lumas), 0.73)).shape == (70, 94)
    (cropped,) = attacks.cropped(iter(lumas[:1]), 0.5, 1.0)
    np.testing.assert_array_equal(cropped, lumas[0][5:91, 14:])
    grey = np.array([[16, 126, 235]], np.uint8)
    assert next(attacks.levels(iter([grey]), gain=0.8)).tolist() == [[38, 126, 213]]
    assert next(attacks.levels(iter([grey]), offset=0.2)).tolist() == [[60, 170, 235]]
    assert len(list(attacks.recorded(iter(lumas)))) == 12


def test_ten_seconds_go_forth_and_back():
    frames = [np.full((3, 2), n, np.uint8) for n in range(4)]
    played = [int(frame[0, 0]) for frame in bench.ten_seconds(frames)]
    assert len(played) == 250 and played[:8] == [0, 1, 2, 3, 2, 1, 0, 1]


def test_a_clip_is_attacked_and_summed_up(monkeypatch):
    dim = bench.darkened(bench.Clip("room", clip(288, 384, 3)))
    assert dim.name == "dark room" and dim.frames[0][:288].mean() < 90
    monkeypatch.setattr(bench, "ATTACKS", attacks.ATTACKS[:1])
    row = bench.attacked(dim, 0xABCD1234)
    assert row["found"]["none"]["bits"] == 32 and row["psnr_db"] > 42
    other = {**row, "found": {"none": {"bits": 0, "log10_p": -0.2, "seconds": 1.0}}}
    (summed,) = bench.by_attack([row, other])
    assert (summed["clips"], summed["whole"], summed["bits"]) == (2, 1, 16.0)
    assert summed["weakest_log10_p"] == -0.2


def test_a_mark_takes_less_than_a_millisecond():
    spent = bench.embed_ms(720, 1280, count=20)
    assert 0 < spent["p50"] < 1


def test_a_folder_without_clips_is_refused(tmp_path):
    with pytest.raises(UsageError, match="holds none of"):
        bench.measure_watermark(tmp_path)
