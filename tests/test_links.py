"""Relative links of the pages lead somewhere, and so do files of the project that pages name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_NAMED = re.compile(
    r"(?<![\w/.])((?:tests|engine|streaming|calibration|kernels|bench|lipstream|examples)"
    r"/[\w/.-]+\.(?:py|md|mjs|h|cpp|cuh?|onnx|safetensors|fatbin))\b"
)
_PATTERNS = ("tests/kernels/test_DOMAIN.py",)  # a name for several files


def text_of(page: Path) -> str:
    """Without fenced code."""
    return re.sub(r"^```.*?^```", "", page.read_text("utf8"), flags=re.M | re.S)


def anchors(page: Path) -> set[str]:
    """Of the headings, as GitHub makes them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ +(.+)$", text_of(page), re.M):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower().strip()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        numbered = (f"{slug}-{n}" for n in range(1, 100))
        found.add(slug if slug not in found else next(n for n in numbered if n not in found))
    return found


def broken(page: Path) -> list[str]:
    """Links of a page that lead nowhere."""
    wrong = []
    for link in _LINK.findall(text_of(page)):
        path, _, anchor = link.partition("#")
        there = page.parent / path if path else page
        if re.match(r"[a-z]+:", link):
            continue
        if not there.exists() or (anchor and anchor not in anchors(there)):
            wrong.append(link)
    return wrong


def test_links_lead_somewhere() -> None:
    assert len(PAGES) > 50
    wrong = {str(page.relative_to(ROOT)): links for page in PAGES if (links := broken(page))}
    assert not wrong


def test_files_that_pages_name_exist() -> None:
    past = ROOT / "docs" / "experiments"
    named = {
        (page.name, name)
        for page in PAGES
        if past not in page.parents and page.parent.name != "decisions"
        for name in _NAMED.findall(text_of(page))
        if name not in _PATTERNS
    }
    assert len(named) > 50
    assert not [(page, name) for page, name in sorted(named) if not (ROOT / name).is_file()]


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("[a](#one-more) [b](other.md#it)", []),
        ("[a](#two)", ["#two"]),
        ("[a](other.md#no)", ["other.md#no"]),
        ("[a](none.md)", ["none.md"]),
        ("[a](https://nowhere.example/x)", []),
        ("```\n[a](none.md)\n```", []),
    ],
)
def test_a_broken_link_is_found(tmp_path: Path, text: str, wrong: list[str]) -> None:
    (tmp_path / "other.md").write_text("# It\n")
    page = tmp_path / "page.md"
    page.write_text(f"# One, `more`\n\n{text}\n")
    assert broken(page) == wrong
