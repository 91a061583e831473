"""Who is seen when: footage divided into spans of one person each, and the one to follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lipstream.calibration.tracking.face_identity import SAME_PERSON, distance
from lipstream.engine.errors import CalibrationError

_FEW: Final = 3  # descriptors; the mean of fewer is not certain enough to be a person
_UNCERTAIN: Final = 0.3  # by how much farther such a span may be from the person it belongs to
_AROUND: Final = 3  # descriptors before and after a place where the person may change
_DISSOLVE_FRAMES: Final = 6  # on each side of such a place
_EQUALLY_LONG: Final = 0.8  # of the frames of the person seen longest
_BRIEFLY: Final = 0.1  # of these frames; who is seen for less is not offered to choose from
_SHOWN_SPANS: Final = 4

Span = tuple[int, int]  # first frame, and the frame after the last


@dataclass(frozen=True, slots=True)
class Descriptors:
    """Descriptions of the followed face in some of the frames."""

    frames: NDArray[np.int64]  # i64 [n], ascending
    rows: NDArray[np.float16]  # f16 [n, 4428], of `face_identity.describe`

    def mean(self, first: int, stop: int) -> NDArray[np.float32]:
        """The mean over rows first to stop - 1, f32 [4428]."""
        return self.rows[first:stop].mean(axis=0, dtype=np.float32)


def other_people(
    described: Descriptors,
    found: NDArray[np.bool_],
    cuts: Sequence[int],
    fps: Fraction,
    person: int | None,
) -> tuple[Span, ...]:
    """Spans of frames that show somebody else than the person to follow.

    Args:
        described: of the face that was tracked.
        found: bool [T], frames with a face.
        cuts: first frames of shots.
        fps: for the times in a message.
        person: number of the person to follow, from 1, in the order in which they appear; None for
            the one seen longest.

    Raises:
        CalibrationError: two people are seen about equally long, or there is no such person.
    """
    spans = _spans(described, found, cuts)
    labels = _labels(described, spans)
    seen = {
        label: sum(stop - first for (first, stop), of in zip(spans, labels, strict=True)
                   if of == label)
        for label in dict.fromkeys(labels) if label is not None
    }  # fmt: skip
    if not seen:
        return ()
    longest = max(seen.values())
    people = [label for label, frames in seen.items() if frames >= _BRIEFLY * longest]
    spans_of = {
        label: [s for s, of in zip(spans, labels, strict=True) if of == label] for label in people
    }
    if person is not None:
        if person > len(people):
            count = "1 person is" if len(people) == 1 else f"{len(people)} people are"
            raise CalibrationError(f"--person {person}: {count} seen in the footage")
        chosen = people[person - 1]
    else:
        chosen = max(people, key=lambda label: seen[label])
        if sum(seen[label] >= _EQUALLY_LONG * longest for label in people) > 1:
            listed = "; ".join(
                f"--person {k + 1}: {times(spans_of[label], fps)}" for k, label in enumerate(people)
            )
            raise CalibrationError(
                f"{len(people)} people are seen, and about equally long; choose one with {listed}"
            )
    others = np.zeros(found.size, np.bool_)
    for (first, stop), label in zip(spans, labels, strict=True):
        others[first:stop] = label is not None and label != chosen
    # Where the picture dissolves from one to the other there is no cut, and frames show both.
    edges = np.flatnonzero(np.diff(others.astype(np.int8))) + 1
    for edge in edges:
        if edge not in cuts and found[edge - 1] and found[edge]:
            others[max(0, edge - _DISSOLVE_FRAMES) : edge + _DISSOLVE_FRAMES] = True
    return _runs(others & found)


def times(spans: Sequence[Span], fps: Fraction) -> str:
    """Spans as "0.0-2.0 s, 4.0-6.0 s"; those that follow each other at once are one."""
    joined: list[list[int]] = []
    for first, stop in spans:
        if joined and first == joined[-1][1]:
            joined[-1][1] = stop
        else:
            joined.append([first, stop])
    rate = float(fps)
    words = ", ".join(
        f"{first / rate:.1f}-{stop / rate:.1f}" for first, stop in joined[:_SHOWN_SPANS]
    )
    return words + (" s" if len(joined) <= _SHOWN_SPANS else " s and later")


def _runs(mask: NDArray[np.bool_]) -> tuple[Span, ...]:
    """Runs of True in bool [T]."""
    edges = np.flatnonzero(np.diff(np.r_[0, mask.astype(np.int8), 0]))
    return tuple((int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True))


def _spans(described: Descriptors, found: NDArray[np.bool_], cuts: Sequence[int]) -> list[Span]:
    """Spans with a face, divided at cuts, and where the description changes to another person."""
    changes: list[int] = []
    row_of = np.searchsorted(described.frames, [0, *cuts, found.size])
    for low, high in zip(row_of[:-1], row_of[1:], strict=True):
        jumps = {
            k: distance(described.mean(k - _AROUND, k), described.mean(k, k + _AROUND))
            for k in range(int(low) + _AROUND, int(high) - _AROUND + 1)
        }
        for k, jump in jumps.items():
            near = [jumps.get(j, 0.0) for j in range(k - _AROUND, k + _AROUND + 1)]
            if jump > SAME_PERSON and jump == max(near):
                changes.append(int(described.frames[k]))
    starts = sorted({*cuts, *changes})
    spans: list[Span] = []
    for first, stop in _runs(found):
        inside = [first, *(s for s in starts if first < s < stop), stop]
        spans += list(zip(inside[:-1], inside[1:], strict=True))
    return spans


def _labels(described: Descriptors, spans: Sequence[Span]) -> list[int | None]:
    """A number for each span, equal for spans of one person; None where nothing describes it.

    Spans are joined to the nearest one, and it to the next (single linkage), as a person's light
    and distance change by and by.
    """
    rows = [np.searchsorted(described.frames, span) for span in spans]
    counts = [int(stop - first) for first, stop in rows]
    certain = [k for k, count in enumerate(counts) if count >= _FEW]
    if not certain:
        certain = [k for k, count in enumerate(counts) if count]
    means = {
        k: described.mean(int(rows[k][0]), int(rows[k][1])) for k in range(len(spans)) if counts[k]
    }
    labels: list[int | None] = [None] * len(spans)
    for k in certain:
        labels[k] = k
        for earlier in certain[: certain.index(k)]:
            if labels[earlier] != labels[k] and (distance(means[earlier], means[k]) <= SAME_PERSON):
                old, new = labels[k], labels[earlier]
                labels = [new if label == old else label for label in labels]
    for k in means:
        if labels[k] is None:
            apart, nearest = min((distance(means[c], means[k]), c) for c in certain)
            labels[k] = labels[nearest] if apart <= SAME_PERSON + _UNCERTAIN else k
    return labels
