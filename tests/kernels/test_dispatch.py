"""The one choice of compiled code or NumPy twin."""

import logging

import pytest

from lipstream.engine.errors import BackendUnavailable, UsageError
from lipstream.kernels import dispatch, native


def test_the_choice_is_logged_once(kernels, caplog):
    dispatch.implementation.cache_clear()
    with caplog.at_level(logging.INFO):
        assert [dispatch.implementation(), dispatch.implementation()] == [kernels] * 2
    assert [record.kernels for record in caplog.records] == [kernels]


def test_nobody_falls_back_in_silence(kernels, monkeypatch, caplog):
    def missing():
        raise BackendUnavailable("not built")

    monkeypatch.setattr(native, "library", missing)
    monkeypatch.setenv(dispatch.ENVIRONMENT_VARIABLE, "compiled")
    dispatch.implementation.cache_clear()
    with pytest.raises(BackendUnavailable, match="not built"):
        dispatch.implementation()
    monkeypatch.delenv(dispatch.ENVIRONMENT_VARIABLE)
    assert dispatch.implementation() == "numpy"
    assert caplog.records[-1].levelno == logging.WARNING
    assert caplog.records[-1].reason == "not built"
    monkeypatch.setenv(dispatch.ENVIRONMENT_VARIABLE, "fast")
    dispatch.implementation.cache_clear()
    with pytest.raises(UsageError, match="'fast'"):
        dispatch.implementation()
    monkeypatch.setenv(dispatch.ENVIRONMENT_VARIABLE, kernels)


def test_a_kernel_runs_what_was_chosen(kernels):
    @dispatch.kernel(lambda: "numpy")
    def which():
        return "compiled"

    assert which() == kernels
