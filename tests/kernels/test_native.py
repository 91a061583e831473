"""The header, the library made from it, and the types of the calls."""

import ctypes

import numpy as np
import pytest

from lipstream.engine.errors import BackendUnavailable
from lipstream.kernels import build, interface, native
from tests.kernels.guard_bytes import Guards


@pytest.fixture(scope="module")
def installed():
    try:
        return native.library()
    except BackendUnavailable as missing:
        pytest.skip(str(missing))


def test_a_header_is_read_into_types():
    read = interface.parse(
        """
        #include <stdint.h>  // no concern of Python's
        typedef struct Pair {
            const float *values;  // [2]
            int32_t a, b;
            float pose[9];
        } Pair;
        LS_EITHER void ls_add(const Pair *pair, const int32_t *const *rows, uint8_t *out);
        LS_BRIEF int64_t ls_size(void);
        """
    )
    values, a, b, pose = read.structures["Pair"]
    assert (values.type, values.pointers, values.is_const) == ("float", 1, True)
    assert [a.name, b.name, b.type] == ["a", "b", "int32_t"]
    assert (pose.type, pose.length) == ("float", 9)
    add, size = read.functions.values()
    assert add.lock == interface.EITHER
    assert [one.pointers for one in add.parameters] == [1, 2, 1]
    assert [one.is_const for one in add.parameters] == [True, True, False]
    assert (size.result, size.parameters, size.lock) == ("int64_t", (), interface.HOLDS)


@pytest.mark.parametrize(
    "text", ["int ls_add(int a);", "LS_API void ls_add(long a);", "LS_API void ls_add(float &a);"]
)
def test_what_python_does_not_understand_is_an_error(text):
    with pytest.raises(ValueError, match="the header|expected"):
        interface.parse(text)


def test_what_may_be_brief_is_there_twice(installed):
    both = {n for n, f in native.declared().functions.items() if f.lock == interface.EITHER}
    assert both == {"ls_min_plus", "ls_feature_distance"}
    assert {f"{name}_brief" for name in both} == {n for n in vars(installed) if "_brief" in n}


def test_every_definition_is_declared():
    defined = set()
    for source in build.SOURCES:
        text = (build.HERE.parent / source).read_text()
        for line in text.splitlines():
            if line.startswith("LS_EXPORT"):
                defined.add(line.split("(")[0].split()[-1])
    assert defined == set(native.declared().functions)


def test_a_library_of_another_header_is_refused(monkeypatch, installed):
    path = max(build.HERE.glob("_cpu*.so"), key=lambda found: found.stat().st_mtime)
    monkeypatch.setattr(native, "interface_digest", lambda: build.interface_digest() ^ 1)
    with pytest.raises(BackendUnavailable, match="another lipstream_kernels.h"):
        native.open_library(path)


def test_comments_do_not_change_the_digest(monkeypatch, tmp_path):
    before = build.interface_digest()
    copy = tmp_path / "copy.h"
    copy.write_text(build.HEADER.read_text() + "// one more\n")
    monkeypatch.setattr(build, "HEADER", copy)
    assert build.interface_digest() == before
    copy.write_text(build.HEADER.read_text() + "LS_API void ls_more(void);\n")
    assert build.interface_digest() != before


def test_arrays_of_another_type_or_layout_do_not_reach_the_compiled_code(installed):
    features, base = np.ones((2, 6), np.float32), np.zeros(6, np.float32)
    wanted, total = np.zeros(2, np.float32), np.zeros(6, np.float32)
    call = installed.ls_feature_distance
    call(6, 2, features, wanted, base, total)
    assert total.tolist() == [2.0] * 6
    with pytest.raises(ctypes.ArgumentError, match="float64; expected float32"):
        call(6, 2, features.astype(np.float64), wanted, base, total)
    with pytest.raises(ctypes.ArgumentError, match="contiguous"):
        call(3, 2, features[:, ::2], wanted, base, total)
    for array in (base, total):
        array.flags.writeable = False
    with pytest.raises(ctypes.ArgumentError, match="writable"):
        call(6, 2, features, wanted, base, total)
    call(6, 2, features, wanted, base, np.zeros(6, np.float32))  # what is const may be read-only


@pytest.mark.parametrize("at", [-1, 8])
def test_a_write_beyond_an_output_is_found(at):
    def careless():
        out = native.empty(8, np.uint8)
        ctypes.memset(native.address(out) + at, 0, 1)

    with pytest.raises(AssertionError, match="before" if at < 0 else "after"):
        Guards().call(careless)
