"""Names and prose use the terms of the field: words that the project has replaced are not used.

docs/experiments and the changelog describe the past, and are exempt.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = (
    "kernels", "engine", "calibration", "streaming", "bench", "lipstream", "examples", "tests",
    "docs", ".ci",
)  # fmt: skip
SUFFIXES = {".py", ".cpp", ".h", ".cuh", ".cu", ".md", ".js", ".html", ".css", ".json", ".toml", ""}
LINKS = ("engine", "kernels", "calibration", "streaming", "bench")  # below lipstream/

# Whole words without regard to case -> the term in use. A name that is an ordinary word as well is
# matched with its case, in a group (?-i:...).
REPLACED = {
    # appearance and similarity of mouths
    r"looks?_points": "canonical_uv",
    r"foretell(s|ing)?|foretold": "predict, prediction",
    r"elsewhen": "LeaveOneOutPredictor",
    r"MOMENT_S": "EXCLUSION_WINDOW_S",
    r"resemblance": "MouthSimilarity",
    r"likest": "nearest",
    r"(?-i:Expected)(?=[(\]])": "AppearancePrior",
    # sources and warps
    r"lend(s|ing)?|lent": "source mouth, map_to_source",
    r"stirred": "moving_triangles",
    r"(?-i:Driven)(?=[(\]:])": "RetargetedFace",
    r"(?-i:Walk)(?=[(\]:])": "JumpBlend",
    r"(?-i:Drawing|Painting)(?=[(\]:])": "WarpedFrame, ComposedFrame",
    r"left_behind": "SourceCrossfade.previous",
    r"anywhere_cost": "default_cost",
    r"(?-i:_Draft)": "PreparedFrame",
    r"_in_one_go": "layers_native",
    r"_new_closure": "closure_amount",
    # renderer and crop kernels
    r"undrawn": "override_in_synthetic",
    r"withheld|withhold(s|ing)?": "attenuate_in_synthetic",
    r"believed(?=\()": "prior_weight",
    r"mend(s|ed|ing)?": "refine",
    r"halve_into": "downsample2x",
    r"outdone": "has_wider_simd",
    # streaming
    r"lead_ms|lead_s": "playout_delay",
    r"patience_m?s": "max_wait",
    r"unpainted(_frames)?": "repeated",
    r"SourceFollower": "SourceClockTracker",
    r"(?-i:Catalogue)": "TargetRegistry",
    r"(?-i:Refused)(?=\()": "HttpError",
    r"aio(ice|rtc)_tuning": "aioice_patches, aiortc_patches",
    r"SegmentEnd": "(deleted)",
    # training
    r"mouth_pairs": "self_reenactment",
    r"(?-i:Judge)": "Evaluator",
    # bench
    r"(?-i:Ways?)(?=[(\],])": "Configurations, Method",
    # modules
    r"(vad|ahead|painter|timing|footage|stopping|screens|likeness|seam|hearing|subject)\.py": (
        "(docs/architecture.md has the modules)"
    ),
    r"latency_live": "live",
    r"pretrain": "calibration/training",
    # prose
    r"laid to the pixel": "sub-pixel registration",
    r"pictures (a|per) second": "fps",
    r"sound against (the )?picture": "A/V offset",
    r"mouths? that (is|are) lent": "source mouth",
    r"slow hour": "(the present tense, with a measurement)",
    r"until lately": "(the present tense)",
    r"network of before": "(the present tense)",
    r"of earlier versions": "(the present tense)",
}


# One expression for all of them, since every file is searched.
TERMS = {f"term{number}": term for number, term in enumerate(REPLACED.values())}
GROUPS = (f"(?P<{name}>{words})" for name, words in zip(TERMS, REPLACED, strict=True))
WORDS = re.compile(rf"\b(?:{'|'.join(GROUPS)})\b", re.IGNORECASE)


def files() -> list[Path]:
    found = [ROOT / "README.md", ROOT / "Makefile", ROOT / "setup.py", ROOT / "pyproject.toml"]
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            parts = path.relative_to(ROOT).parts
            linked = parts[0] == "lipstream" and parts[1] in LINKS
            past = parts[:2] == ("docs", "experiments")
            if path.is_file() and path.suffix in SUFFIXES and not linked and not past:
                found.append(path)
    assert len(found) > 200
    return [path for path in found if path != Path(__file__)]


def occurrences(text: str) -> Iterator[tuple[int, str, str]]:
    """(line, word, the term in use) of every replaced word."""
    for match in WORDS.finditer(text):
        (term,) = (term for name, term in TERMS.items() if match[name])
        yield text.count("\n", 0, match.start()) + 1, match.group(), term


def test_replaced_words_are_not_used() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {word!r}: use {term}"
        for path in files()
        for line, word, term in occurrences(path.read_text("utf8"))
    ]
    assert not wrong, f"{len(wrong)} replaced words:\n" + "\n".join(wrong)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a mouth is\nlent to it", [(2, "lent")]),
        ("excellent talent, lentil", []),
        ("class Elsewhen:", [(1, "Elsewhen")]),
        ("the catalogue of targets", []),
        ("self._catalogue = Catalogue(folder)", [(1, "Catalogue")]),
        ("25 pictures a second", [(1, "pictures a second")]),
        ("ways: Ways, x: list[Way]", [(1, "Ways"), (1, "Way")]),
    ],
)
def test_words_are_found_whole(text: str, found: list[tuple[int, str]]) -> None:
    assert [(line, word) for line, word, _ in occurrences(text)] == found
