"""The report is one file, shows the measurements, and has a verdict."""

from __future__ import annotations

import base64
import dataclasses
import io
import re
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lipstream.calibration.report.page import write_report
from lipstream.calibration.report.pictures import SIDE_PX, data_uri, face_crop, with_mesh
from lipstream.calibration.report.verdict import (
    ReportData,
    ReportPicture,
    choose_pictures,
    choose_rejected,
    coverage,
    judge_target,
)
from lipstream.calibration.tracking.rejection import REASONS, Rejection
from lipstream.engine.errors import MediaError
from tests.synthetic import make_footage

FOOTAGE = make_footage(60, size=(160, 160), seed=2)


def good() -> ReportData:
    """Twenty seconds of lively speech."""
    count = 500
    rng = np.random.default_rng(0)
    opening = np.abs(0.12 * np.sin(np.arange(count) / 2.1) + rng.normal(0, 0.05, count))
    opening[::9] = 0.01
    pictures = [ReportPicture(k, FOOTAGE.frame(k), FOOTAGE.exact[k]) for k in (3, 20)]
    return ReportData(
        name="someone",
        source="talk <1> & more.mp4",
        is_photo=False,
        width=160,
        height=160,
        fps=Fraction(25),
        opening=opening.astype(np.float32),
        mouth_width=(0.85 + rng.normal(0, 0.07, count)).astype(np.float32),
        pose=rng.normal(0, 4, (count, 3)).astype(np.float32),
        iod_px=90.0,
        source_frames=np.arange(0, count, 20, dtype=np.int32),
        rejected=[],
        pictures=pictures,
        rejected_pictures=[],
        triangles=FOOTAGE.model.triangles,
        av_offset_ms=120,
        av_offset_confidence=0.9,
        notes=("variable rate, 27.30 fps converted to 29.97",),
    )


def but(**changes: object) -> ReportData:
    return dataclasses.replace(good(), **changes)  # type: ignore[arg-type]


class Checker(HTMLParser):
    """Collects what a browser would, and complains of unclosed tags."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def read(folder: Path, data: ReportData) -> tuple[str, Checker]:
    write_report(folder, data)
    page = (folder / "report.html").read_text("utf-8")
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    return page, checker


def test_the_page_needs_no_other_file(tmp_path: Path) -> None:
    page, checker = read(tmp_path, good())
    assert not any(tag in ("script", "link", "iframe") for tag, _ in checker.tags)
    assert "http" not in page and "url(" not in page
    images = [a for tag, a in checker.tags if tag == "img"]
    assert len(images) == 2
    for attributes in images:
        assert attributes["alt"]
        source = attributes["src"] or ""
        assert source.startswith("data:image/jpeg;base64,")
        picture = Image.open(io.BytesIO(base64.b64decode(source.split(",")[1])))
        assert picture.size == (SIDE_PX, SIDE_PX)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_the_page_shows_the_measurements(tmp_path: Path) -> None:
    rejected = [Rejection(k, "blur") for k in (50, 51, 52)] + [Rejection(90, "cut")]
    bad = [ReportPicture(51, FOOTAGE.frame(5), None)]
    page, checker = read(tmp_path, but(rejected=rejected, rejected_pictures=bad))
    text = " ".join(" ".join(checker.words).split())
    for words in ("120 ms late", "496 of 500", "20.0 s", "90 px", "talk <1> & more.mp4"):
        assert words in text
    assert "The mouth is blurred 3 frames, 0.6%" in text
    assert "The picture cuts to another shot 1 frame, 0.2%" in text
    assert "<1>" not in page  # names are escaped
    charts = [a for tag, a in checker.tags if tag == "svg"]
    assert len(charts) == 3 and all(a["role"] == "img" and a["aria-label"] for a in charts)
    # Two runs are shaded in each of the two curves; every frame that is used has its dot.
    assert page.count('class="band"') == 2 * 2
    assert len(re.findall(r"\dh0(?=[M\"])", page)) == 496
    assert page.count('class="ring"') == 25


def test_long_footage_makes_no_long_page(tmp_path: Path) -> None:
    many = 15_000
    data = but(
        opening=np.resize(good().opening, many),
        mouth_width=np.resize(good().mouth_width, many),
        pose=np.resize(good().pose, (many, 3)),
    )
    page, _ = read(tmp_path, data)
    assert len(page) < 400_000


def test_good_footage_is_good() -> None:
    verdict = judge_target(good())
    assert verdict.grade == "good" and verdict.advice == ()


@pytest.mark.parametrize(
    ("changes", "grade", "reason", "advice"),
    [
        ({"iod_px": 50.0}, "usable", "small", "closer"),
        ({"iod_px": 26.0}, "poor", "very small", "closer"),
        ({"opening": np.full(500, 0.03, np.float32)}, "poor", "hardly opens", "talk"),
        ({"opening": good().opening * 0.45}, "usable", "open far", "lively"),
        ({"opening": good().opening + 0.25}, "usable", "seldom closed", "pause"),
        ({"mouth_width": np.full(500, 0.9, np.float32)}, "usable", "variety", "smiles"),
        ({"pose": np.full((500, 3), 28, np.float32)}, "usable", "turned", "towards"),
        (
            {"rejected": [Rejection(k, "occlusion") for k in range(100)]},
            "usable",
            "left out",
            "hands",
        ),
        ({"rejected": [Rejection(k, "blur") for k in range(300)]}, "poor", "Only 200", "light"),
        ({"fps": Fraction(60)}, "good", "large", ""),
        (
            {"rejected": [Rejection(k, "occlusion") for k in range(40)]},
            "good",
            "40 of 500",
            "hands",
        ),
    ],
)
def test_each_fault_has_a_reason_and_advice(
    changes: dict[str, object], grade: str, reason: str, advice: str
) -> None:
    verdict = judge_target(but(**changes))
    assert verdict.grade == grade
    assert any(reason in line for line in verdict.reasons)
    assert advice in " ".join(verdict.advice)


def test_a_short_clip_and_a_photo(tmp_path: Path) -> None:
    short = but(
        opening=good().opening[:40], mouth_width=good().mouth_width[:40], pose=good().pose[:40]
    )
    assert judge_target(short).grade == "poor"
    photo = but(
        is_photo=True,
        opening=good().opening[:1],
        mouth_width=good().mouth_width[:1],
        pose=good().pose[:1],
        pictures=[ReportPicture(0, FOOTAGE.frame(0), FOOTAGE.exact[0])],
        av_offset_ms=None,
    )
    assert judge_target(photo).grade == "usable"
    page, _ = read(tmp_path, photo)
    assert "<svg" not in page and "one photo" in page


def test_missing_values_do_not_stop_it(tmp_path: Path) -> None:
    data = good()
    opening, pose = data.opening.copy(), data.pose.copy()
    opening[100:200] = np.nan
    pose[100:200] = np.nan
    page, _ = read(tmp_path, but(opening=opening, pose=pose, triangles=None))
    assert "nan" not in re.sub(r"base64,[^\"]*", "", page).lower()
    empty = np.full(500, np.nan, np.float32)
    read(tmp_path, but(opening=empty, mouth_width=empty, pose=np.full((500, 3), np.nan)))


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"report\.html"):
        write_report(tmp_path / "absent", good())


def test_pictures_for_the_sheet_differ_and_are_usable() -> None:
    data = good()
    rejected = [Rejection(k, "blur") for k in range(0, 500, 2)]
    chosen = choose_pictures(data.opening, data.mouth_width, data.pose, rejected, 12)
    assert chosen == sorted(set(chosen)) and len(chosen) == 12
    assert all(k % 2 for k in chosen)
    spread = data.opening[chosen].std()
    assert spread > 1.3 * data.opening.std()
    assert choose_pictures(data.opening[:5], data.mouth_width[:5], data.pose[:5], []) == [
        0,
        1,
        2,
        3,
        4,
    ]


def test_rejected_pictures_show_each_reason() -> None:
    rejected = [Rejection(k, "blur") for k in range(100)] + [Rejection(200, "cut")]
    chosen = choose_rejected(rejected, 4)
    assert chosen == [0, 33, 66, 99, 200]
    assert set(REASONS) >= {r.reason for r in rejected}


def test_coverage_grows_with_variety() -> None:
    one = but(opening=np.full(500, 0.02, np.float32), mouth_width=np.full(500, 0.9, np.float32))
    assert coverage(one) == pytest.approx(1 / 18)
    assert coverage(good()) > 0.6


def test_the_mesh_is_drawn_on_the_face_only() -> None:
    rgb = FOOTAGE.frame(10)
    crop, points = face_crop(rgb, FOOTAGE.exact[10])
    assert points is not None and crop.shape == (SIDE_PX, SIDE_PX, 3)
    # The crop holds the face with a margin, and the points lie where the picture shows them.
    assert points.min() > 10 and points.max() < SIDE_PX - 10
    lips = crop[tuple(np.round(points[17, ::-1] - (4, 0)).astype(int))].astype(int)
    cheek = crop[tuple(np.round(points[205, ::-1]).astype(int))].astype(int)
    assert lips[0] - lips[1] > cheek[0] - cheek[1] + 20  # redder
    drawn = with_mesh(crop, points, FOOTAGE.model.triangles)
    changed = (drawn != crop).any(axis=2)
    assert changed[:, : int(points[:, 0].min()) - 2].sum() == 0
    assert changed.sum() > 2000
    assert np.array_equal(crop, face_crop(rgb, FOOTAGE.exact[10])[0])


def test_a_picture_survives_embedding() -> None:
    image = FOOTAGE.frame(10)
    found = re.fullmatch(r"data:image/jpeg;base64,(.*)", data_uri(image))
    assert found
    back = np.asarray(Image.open(io.BytesIO(base64.b64decode(found[1]))).convert("RGB"))
    assert np.abs(back.astype(int) - image).mean() < 4
