"""A bundle is used only after every number in it has been checked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from lipstream.calibration.bundle_writer import note_sharpen, write_appearance
from lipstream.engine.errors import TargetError
from lipstream.engine.networks.registry import shipped
from lipstream.engine.pipeline import Engine
from lipstream.engine.target.appearance import TEXTURE_SHAPE, Appearance
from lipstream.engine.target.bundle import load_target, sha256_of
from lipstream.engine.target.consent import bind
from lipstream.engine.target.style import SHARPEN_ALONE

FILES = ("track.safetensors", "frames.mjpeg", "sources.safetensors", "jumps.safetensors")


@pytest.fixture
def copy(target: Path, tmp_path: Path) -> Path:
    made = tmp_path / "copy.target"
    shutil.copytree(target, made)
    return made


def seal(folder: Path, change: Callable[[dict[str, Any]], None] = lambda _: None) -> None:
    """Recompute the checksums and bind the consent to them, as an attacker can."""
    path = folder / "target.json"
    info = json.loads(path.read_text())
    for name in info["files"]:
        if (folder / name).exists():
            file = folder / name
            info["files"][name] = {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
    info |= bind(info, info["files"])
    change(info)
    path.write_text(json.dumps(info))


def test_an_intact_bundle_loads(target: Path) -> None:
    loaded = load_target(target)
    assert (loaded.width, loaded.height, loaded.kind) == (512, 512, "photo")
    assert len(loaded.track) == loaded.jumps[0].shape[0] == 600
    first = loaded.frames.decoder().read(0)
    assert first.shape == (768, 512)
    assert not first.flags.writeable


def test_measured_sharpening_is_read(copy: Path) -> None:
    assert load_target(copy).sharpen == SHARPEN_ALONE
    note_sharpen(copy, 0.25, shipped("renderer").safetensors)
    assert load_target(copy).sharpen == 0.25
    engine = Engine(load_target(copy))
    assert engine.renderer is not None and engine.renderer.sharpen == 0.25


def test_sharpening_measured_with_other_weights_is_not_used(copy: Path) -> None:
    note_sharpen(copy, 0.25, copy / "sources.safetensors")
    assert load_target(copy).sharpen == SHARPEN_ALONE
    seal(copy, lambda info: info.pop("sharpen_for"))  # not recorded
    assert load_target(copy).sharpen == SHARPEN_ALONE
    shutil.copy(shipped("renderer").safetensors, copy / "renderer.safetensors")
    seal(copy, lambda info: None)  # the weights in the bundle itself
    assert load_target(copy).sharpen == SHARPEN_ALONE


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(name=st.sampled_from(FILES), where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_one_flipped_bit_is_refused(copy: Path, name: str, where: float, bit: int) -> None:
    path = copy / name
    whole = path.read_bytes()
    at = int(where * len(whole))
    path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << bit)]) + whole[at + 1 :])
    with pytest.raises(TargetError, match=name):
        load_target(copy)
    path.write_bytes(whole)
    load_target(copy)


@pytest.mark.parametrize("name", FILES)
def test_a_cut_file_is_refused(copy: Path, name: str) -> None:
    path = copy / name
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(TargetError, match=name):
        load_target(copy)
    seal(copy)  # with matching checksums: the contents are checked too
    with pytest.raises(TargetError):
        load_target(copy)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(TargetError, match=name):
        load_target(copy)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda i: i.update(schema_version=99), "schema_version"),
        (lambda i: i.update(width=10**9), "width"),
        (lambda i: i.update(height=511), "even"),
        (lambda i: i.update(width="512"), "width"),
        (lambda i: i.update(fps="25/0"), "fps"),
        (lambda i: i.update(fps=25.0), "fps"),
        (lambda i: i.update(kind="ghost"), "kind"),
        (lambda i: i.update(sharpen=-0.5), "sharpen"),
        (lambda i: i.update(sharpen=float("nan")), "sharpen"),
        (lambda i: i.update(sharpen="1"), "sharpen"),
        (lambda i: i["files"].update({"../../etc/passwd": {}}), "passwd"),
        (lambda i: i["files"].pop("frames.mjpeg"), "frames.mjpeg"),
        (lambda i: i.update(files=[]), "files"),
    ],
)
def test_a_hostile_description_is_refused(
    copy: Path, change: Callable[[dict[str, Any]], None], word: str
) -> None:
    seal(copy, change)
    with pytest.raises(TargetError, match=word):
        load_target(copy)


@pytest.mark.parametrize(
    ("file", "field", "attack"),
    [
        ("track.safetensors", "landmarks", lambda x: np.full_like(x, np.nan)),
        ("track.safetensors", "landmarks", lambda x: x[:0]),
        ("track.safetensors", "scale", lambda x: x * 0),
        ("track.safetensors", "usable", lambda x: x * 0),
        ("track.safetensors", "expression", lambda x: x[:, :3].copy()),
        ("track.safetensors", "frame_offsets", lambda x: x[::-1].copy()),
        ("track.safetensors", "frame_offsets", lambda x: x * 2),
        ("track.safetensors", "gain", lambda x: x * np.float32(np.inf)),
        ("sources.safetensors", "sizes", lambda x: x * 1000),
        ("sources.safetensors", "frames", lambda x: x - 5),
        ("sources.safetensors", "pixels", lambda x: x[:50].copy()),
        ("sources.safetensors", "projection", lambda x: x[:, :3].copy()),
        ("sources.safetensors", "projection", lambda x: np.repeat(x, 9, 0)),
        ("sources.safetensors", "frame_offset", lambda x: x * np.float32(np.inf)),
        ("sources.safetensors", "frame_offset", lambda x: x[:-1].copy()),
        ("sources.safetensors", "source_descriptors", lambda x: np.repeat(x, 2, 0)),
        ("sources.safetensors", "source_descriptors", lambda x: np.repeat(x, 65, 1)),
        ("sources.safetensors", "source_descriptors", lambda x: x + np.float32(1e6)),
        ("appearance.safetensors", "relevance", lambda x: x[:-1].copy()),
        ("appearance.safetensors", "relevance", lambda x: -x),
        ("appearance.safetensors", "features", lambda x: x.T.copy()),
        ("appearance.safetensors", "features", lambda x: x * np.float32(np.nan)),
        ("appearance.safetensors", "weights", lambda x: x[1:].copy()),
        ("appearance.safetensors", "weights", lambda x: np.repeat(x, 40, 1)),
        ("appearance.safetensors", "length_scale", lambda x: x * 0),
        ("appearance.safetensors", "textures", lambda x: x[:, 1:].copy()),
        ("appearance.safetensors", "textures", lambda x: x * np.float16(np.inf)),
        ("appearance.safetensors", "sources", lambda x: x[1:].copy()),
        ("appearance.safetensors", "sources", lambda x: x * np.float32(np.nan)),
        ("appearance.safetensors", "reference_distance", lambda x: x * 0),
        ("jumps.safetensors", "targets", lambda x: x + 10**6),
        ("jumps.safetensors", "costs", lambda x: x - np.float32(np.nan)),
    ],
)
def test_hostile_numbers_are_refused(
    copy: Path, file: str, field: str, attack: Callable[[Any], Any]
) -> None:
    if file in ("sources.safetensors", "appearance.safetensors"):
        measured(copy)
    tensors = load_file(copy / file)
    tensors[field] = attack(tensors[field])
    save_file(tensors, copy / file)
    seal(copy)
    with pytest.raises(TargetError, match=f"{file}.*{field}|{file}"):
        load_target(copy)


def measured(folder: Path) -> None:
    """What only footage has: features to compare mouths by."""
    loaded, file = load_target(folder), folder / "sources.safetensors"
    rng = np.random.default_rng(0)
    size = loaded.track.expression.shape[1]
    shapes = {
        "projection": (8, size),
        "frame_offset": (len(loaded.track), 8),
        "source_descriptors": (len(loaded.sources), 3),
    }
    features = {name: rng.normal(size=s).astype(np.float32) for name, s in shapes.items()}
    save_file({**load_file(file), **features}, file)
    learned = Appearance(
        np.ones(8, np.float32),
        rng.normal(size=(8, 60)).astype(np.float32),
        np.ones(2, np.float32),
        rng.normal(size=(60, 2)).astype(np.float32),
        rng.uniform(0, 40, (3, *TEXTURE_SHAPE, 3)).astype(np.float32),
        rng.normal(size=(len(loaded.sources), 2)).astype(np.float32),
        1.5,
    )
    write_appearance(folder, learned)
    path = folder / "target.json"
    info = json.loads(path.read_text())
    info["files"]["appearance.safetensors"] = {}
    path.write_text(json.dumps(info))
    seal(folder)
    seal(folder)


def test_similarity_and_appearance_are_read(copy: Path) -> None:
    assert load_target(copy).similarity is None
    assert load_target(copy).appearance is None
    measured(copy)
    stored, similarity = load_file(copy / "sources.safetensors"), load_target(copy).similarity
    assert similarity is not None
    for name in ("projection", "frame_offset", "source_descriptors"):
        np.testing.assert_array_equal(getattr(similarity, name), stored[name])
    appearance = load_target(copy).appearance
    assert appearance is not None
    for name, value in load_file(copy / "appearance.safetensors").items():
        np.testing.assert_array_equal(getattr(appearance, name), value.astype(np.float32))
    session = Engine(load_target(copy)).session()
    assert session.push(np.zeros(16000, np.float32)), "it is asked what to expect"


def test_a_bundle_of_schema_1_is_refused_with_one_line(copy: Path) -> None:
    seal(copy, lambda info: info.update(schema_version=1))
    with pytest.raises(TargetError, match="calibrate the footage again") as refusal:
        load_target(copy)
    assert "\n" not in str(refusal.value)


def test_a_link_out_of_the_bundle_is_refused(copy: Path, tmp_path: Path) -> None:
    outside = tmp_path / "elsewhere"
    (copy / "frames.mjpeg").rename(outside)
    (copy / "frames.mjpeg").symlink_to(outside)
    with pytest.raises(TargetError, match="frames.mjpeg"):
        load_target(copy)


def test_a_frame_that_is_no_picture_is_named(copy: Path) -> None:
    path = copy / "frames.mjpeg"
    whole = bytearray(path.read_bytes())
    offsets = load_file(copy / "track.safetensors")["frame_offsets"]
    whole[: offsets[1]] = b"\0" * int(offsets[1])
    path.write_bytes(bytes(whole))
    seal(copy)
    loaded = load_target(copy)
    with pytest.raises(TargetError, match="frame 0"):
        loaded.frames.decoder().read(0)


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="target.json"):
        load_target(tmp_path)
    with pytest.raises(TargetError, match="not a target bundle"):
        load_target(tmp_path / "nowhere")
