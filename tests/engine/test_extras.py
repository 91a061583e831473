"""What is missing is named with the command that installs it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from lipstream.engine import extras
from lipstream.engine.errors import UsageError


def test_the_command_installs_into_this_python(monkeypatch: pytest.MonkeyPatch) -> None:
    own = str(Path(sys.executable).with_name("pip"))
    monkeypatch.setattr(shutil, "which", lambda name: own)
    assert extras.pip_install("calibrate") == "pip install 'lipstream[calibrate]'"
    for other in ("/usr/bin/pip", None):
        monkeypatch.setattr(shutil, "which", lambda name, other=other: other)
        command = extras.pip_install("calibrate")
        assert command == f"{sys.executable} -m pip install 'lipstream[calibrate]'"


def test_a_missing_module_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    extras.require("calibrate", "calibrate", "jinja2")
    monkeypatch.setitem(extras.MODULES, "calibrate", ("jinja2", "no_such_module"))
    with pytest.raises(UsageError, match=r"^calibrate needs no_such_module, .*lipstream\[calib"):
        extras.require("calibrate", "calibrate")
    assert extras.extra_of("no_such_module.part") == "calibrate"
    assert extras.extra_of("numpy") is None
