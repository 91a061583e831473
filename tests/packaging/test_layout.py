"""setup.py lists every package, versions agree, and every dependency is pinned."""

from __future__ import annotations

import ast
import os
import re
import tomllib
from pathlib import Path
from typing import Any

import lipstream

ROOT = Path(__file__).parents[2]
FOLDERS = ("engine", "kernels", "calibration", "streaming", "bench")


def setup_constant(name: str) -> Any:
    for node in ast.parse((ROOT / "setup.py").read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == name:
            return ast.literal_eval(node.value)
    raise AssertionError(f"setup.py has no {name}")


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_setup_lists_every_subpackage() -> None:
    found = {"lipstream"}
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            found.add(".".join(("lipstream", *path.parent.relative_to(ROOT).parts)))
    assert set(setup_constant("PACKAGES")) == found


def test_every_package_has_an_init() -> None:
    for name in setup_constant("PACKAGES"):
        if name != "lipstream":
            folder = ROOT.joinpath(*name.split(".")[1:])
            assert (folder / "__init__.py").is_file(), folder


def test_links_and_mapping_agree() -> None:
    mapped = setup_constant("FOLDERS")
    assert set(mapped) == {"lipstream", *(f"lipstream.{f}" for f in FOLDERS)}
    for folder in FOLDERS:
        assert mapped[f"lipstream.{folder}"] == folder
        assert os.readlink(ROOT / "lipstream" / folder) == f"../{folder}"


def test_version_is_the_same_everywhere() -> None:
    assert project()["project"]["version"] == lipstream.__version__
    assert f"## {lipstream.__version__} " in (ROOT / "CHANGELOG.md").read_text()


def test_every_dependency_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    meta = project()["project"]
    wanted = meta["dependencies"] + sum(meta["optional-dependencies"].values(), [])
    names = {re.split(r"[<>=\[ ]", w)[0].lower() for w in wanted}
    assert not names - {pin.lower() for pin in pins}
    assert pins["torch"] == "2.13.0"
    assert f"setuptools=={pins['setuptools']}" in project()["build-system"]["requires"]


def test_base_install_needs_no_torch() -> None:
    base = " ".join(project()["project"]["dependencies"])
    assert "torch" not in base
    assert "onnx" not in base
