"""The jump graph of a synthetic head in known motion."""

import numpy as np
import pytest

from lipstream.calibration.footage.jump_graph import JumpScales, head_speed, jump_graph
from lipstream.engine.errors import CalibrationError

EYE_PX = 60.0
PERIOD = 50  # frames: the head sways and is back in the same place, moving the same way


def face() -> np.ndarray:
    """Any 478 points, the eyes 60 px apart: f32 [478, 3]."""
    points = np.random.default_rng(0).uniform(-80, 80, (478, 3))
    points[[33, 133]] = [-EYE_PX / 2, 0, 0]
    points[[362, 263]] = [EYE_PX / 2, 0, 0]
    points[[159, 386]] = points[[145, 374]] - [0, 8, 0]  # open eyes
    return points


def swaying(frames=300) -> np.ndarray:
    """f32 [frames, 478, 3], px; from side to side as a sine: place and velocity name the phase."""
    phase = 2 * np.pi * np.arange(frames) / PERIOD
    sway = np.stack([np.sin(phase), np.zeros(frames), np.zeros(frames)], axis=1) * 20
    return (face() + sway[:, None] + 200).astype(np.float32)


def test_jumps_lead_to_the_same_phase_of_the_motion():
    graph = jump_graph(swaying())
    origins = np.arange(0, 200)
    best = graph.indices[origins, 0]
    assert (np.abs((best - origins - 1 + PERIOD // 2) % PERIOD - PERIOD // 2) <= 1).all()


def test_the_same_place_in_the_opposite_motion_is_no_jump():
    """A sine passes each place twice a period; only one of the two moves the same way."""
    landmarks = swaying()
    position = landmarks[:, 33, 0]
    velocity = np.gradient(position)
    graph = jump_graph(landmarks)
    for origin in range(10, 200):
        following = origin + 1
        if abs(velocity[following]) < 1:
            continue
        target = graph.indices[origin, 0]
        assert abs(position[target] - position[following]) < 4
        assert velocity[target] * velocity[following] > 0


def test_near_frames_the_tail_and_rejected_frames_are_no_targets():
    frames = 300
    rejected = np.zeros(frames, bool)
    rejected[100:150] = True
    landmarks = swaying(frames)
    landmarks[160:165] = np.nan  # no face was found
    scales = JumpScales()
    graph = jump_graph(landmarks, rejected=rejected, scales=scales)
    assert graph.indices.shape == graph.cost.shape == (frames, 16)
    origin, slot = np.nonzero(graph.indices >= 0)
    target = graph.indices[origin, slot]
    assert (np.abs(target - origin - 1) >= scales.near_frames).all()
    assert (target < frames - scales.tail_frames).all()
    assert not rejected[target].any()
    assert not np.isin(target, range(160, 165)).any()
    assert (graph.indices[100:150] == -1).all()
    assert np.isfinite(graph.cost[origin, slot]).all()
    assert np.isinf(graph.cost[graph.indices < 0]).all()
    assert (graph.cost[origin, slot] >= 0).all()


def test_jumps_are_sorted_and_separated():
    graph = jump_graph(swaying(), scales=JumpScales(min_separation_frames=3))
    rows = graph.indices[:200]
    assert (graph.cost[:200, :-1] <= graph.cost[:200, 1:]).all()
    for row in rows:
        targets = np.sort(row[row >= 0])
        assert (np.diff(targets) > 3).all()


def test_a_jump_into_a_dead_end_costs_more():
    """The last copy of the motion can only be left by turning: earlier copies are better."""
    graph = jump_graph(swaying(400), scales=JumpScales(tail_frames=0, discount=0.95))
    origin = 20
    cost = dict(zip(graph.indices[origin].tolist(), graph.cost[origin].tolist(), strict=True))
    same_phase = {t: c for t, c in cost.items() if t >= 0 and (t - origin - 1) % PERIOD == 0}
    assert len(same_phase) >= 5
    assert cost[max(same_phase)] >= cost[min(same_phase)]


def test_thumbnails_are_part_of_the_cost():
    """Two copies of the motion, one under another light: jumps stay in the same light."""
    landmarks = swaying(400)
    thumbnails = np.full((400, 8, 8), 100, np.uint8)
    thumbnails[200:] = 180
    graph = jump_graph(landmarks, thumbnails)
    assert (graph.indices[:150, 0] < 200).all()
    assert (jump_graph(landmarks).indices[:150, :8] >= 200).any()


def test_blinking_eyes_are_not_joined_to_open_ones():
    landmarks = swaying(400)
    landmarks[200:300:50, [159, 386]] = landmarks[200:300:50, [145, 374]]
    graph = jump_graph(landmarks)
    closed = {200, 250}
    assert not closed & set(graph.indices[:150, 0].tolist())


def test_a_short_or_still_clip_is_enough():
    assert (jump_graph(swaying(1)).indices == -1).all()
    still = np.repeat(swaying(1), 120, axis=0)
    graph = jump_graph(still)
    assert (graph.indices[0] >= 0).any()


def test_head_speed_is_the_true_speed():
    frames, fps = 60, 25.0
    steps = np.zeros((frames, 3))
    steps[:, 0] = np.arange(frames) * 1.2  # px a frame = 0.5 inter-ocular distances a second
    landmarks = (face() + steps[:, None] + 200).astype(np.float32)
    speed = head_speed(landmarks, fps)
    np.testing.assert_allclose(speed, 0.5, rtol=1e-3)
    landmarks[10:12] = np.nan
    assert np.isfinite(head_speed(landmarks, fps)).all()


def test_bad_arrays_are_refused():
    with pytest.raises(CalibrationError, match="landmarks"):
        jump_graph(np.zeros((5, 20, 3), np.float32))
    with pytest.raises(CalibrationError, match="no face"):
        jump_graph(np.full((5, 478, 3), np.nan, np.float32))
    with pytest.raises(CalibrationError, match="thumbnails"):
        jump_graph(swaying(30), np.zeros((29, 8, 8), np.uint8))
    with pytest.raises(CalibrationError, match="rejected"):
        jump_graph(swaying(30), rejected=np.zeros(29, bool))
    with pytest.raises(CalibrationError, match="scales"):
        JumpScales(position=0)
