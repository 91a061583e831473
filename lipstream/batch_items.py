"""The items of a batch: from a manifest, one JSON object a line, or from the files of a folder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from lipstream import __version__
from lipstream.engine.errors import UsageError
from lipstream.engine.output_paths import refuse_to_overwrite
from lipstream.streaming.batch.jobs import Job
from lipstream.streaming.remote.locations import is_url

_TEXT, _WHOLE, _NUMBER, _YES, _PAIR = (
    "text",
    "a whole number",
    "a number",
    "true or false",
    "[CERT, KEY]",
)
# By command: what an item may say, and of what kind it is.
OPTIONS: Final[dict[str, dict[str, str]]] = {
    "dub": {
        "target": _TEXT,
        "input": _TEXT,
        "output": _TEXT,
        "background": _TEXT,
        "profile": _TEXT,
        "backend": _TEXT,
        "renderer": _TEXT,
        "crop_resolution": _WHOLE,
        "label": _TEXT,
        "no_watermark": _TEXT,
        "sign": _PAIR,
    },
    "calibrate": {
        "input": _TEXT,
        "output": _TEXT,
        "start": _NUMBER,
        "end": _NUMBER,
        "consent": _TEXT,
        "adapt": _YES,
        "person": _WHOLE,
        "still": _YES,
        "seed": _WHOLE,
    },
}
_ALSO: Final = {"audio": "input", "sound": "input", "footage": "input"}
_PATHS: Final = ("input", "target", "output", "sign")
_ENDING: Final = {"dub": ".mp4", "calibrate": ".target"}


def _endings(names: str) -> frozenset[str]:
    return frozenset(f".{name}" for name in names.split())


# Which files of a folder are sound, video or photos; a manifest may name any file.
_SOUNDS: Final = _endings(
    "aac ac3 aif aifc aiff amr au caf flac m4a mka mp2 mp3 oga ogg opus wav wma w64"
)
_VIDEOS: Final = _endings("3gp avi flv m2ts m4v mjpeg mkv mov mp4 mpeg mpg mts mxf ogv ts webm wmv")
_PHOTOS: Final = _endings("avif bmp gif heic heif j2k jp2 jpeg jpg png tif tiff webp")
_READS: Final = {"dub": _SOUNDS | _VIDEOS, "calibrate": _VIDEOS | _PHOTOS}


class Items(NamedTuple):
    """Of a batch."""

    jobs: list[Job]
    left_out: list[str]  # names of files in a folder that the command does not read


def items_of_folder(command: str, folder: Path, output: Path, options: Mapping[str, Any]) -> Items:
    """One item for each file of a folder, without those of folders in it.

    output: the folder for NAME.mp4 or NAME.target.

    Raises: UsageError without a file that the command reads; for two of one name.
    """
    files = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    found = [path for path in files if path.suffix.lower() in _READS[command]]
    if not found:
        what = "sound or video" if command == "dub" else "video or photo"
        raise UsageError(f"{folder}: there is no {what} in this folder; --batch takes a list")
    items = [
        {**options, "input": str(path), "output": str(output / (path.stem + _ENDING[command]))}
        for path in found
    ]
    jobs = _jobs(command, zip((str(path) for path in found), items, strict=True))
    return Items(jobs, [path.name for path in files if path not in found])


def items_of_manifest(
    command: str, manifest: Path, output: Path | None, options: Mapping[str, Any]
) -> Items:
    """One item for each line: a JSON object with the command's options by name.

    Paths count from the manifest's folder. What a line leaves out comes from `options`, and its
    output from its input's name, in the folder `output`.

    Raises: UsageError that names the line; nothing has been made then.
    """
    try:
        text = manifest.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not UTF-8"
        raise UsageError(f"--batch {manifest}: cannot be read ({why})") from error
    items = []
    # Not `splitlines`: JSON may hold more characters than this one that end a line for Python.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{manifest}, line {number}"
        item = {**options, **_item(command, line, where, manifest.parent)}
        if "output" not in item and output is not None:
            item["output"] = str(output / (Path(item.get("input", "")).stem + _ENDING[command]))
        items.append((where, item))
    if not items:
        raise UsageError(f"--batch {manifest}: holds no item; expected one JSON object a line")
    return Items(_jobs(command, items), [])


def _item(command: str, line: str, where: str, folder: Path) -> dict[str, Any]:
    """The options of a line, by their names; paths from the manifest's folder."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}: not JSON ({error})") from error
    if not isinstance(found, dict):
        raise UsageError(f"{where}: expected one JSON object, with input, output and options")
    known, item = OPTIONS[command], {}
    for given, value in found.items():
        name = given.replace("-", "_")
        name = _ALSO.get(name, name)
        if name not in known:
            raise UsageError(f"{where}: unknown {given!r}; {command} takes {', '.join(known)}")
        if name in item:
            raise UsageError(f"{where}: {given!r} says {name} once more")
        if value is None:
            continue
        if not _is_a(known[name], value):
            raise UsageError(f"{where}: {given} is {json.dumps(value)}; expected {known[name]}")
        if name in _PATHS:
            value = _placed(name, value, folder)
        item[name] = value
    return item


def _placed(name: str, value: Any, folder: Path) -> Any:
    """A path, or several, as workers need them: absolute. A target's URL stays as it is."""
    if isinstance(value, list):
        return [_placed(name, path, folder) for path in value]
    return value if name == "target" and is_url(value) else os.path.abspath(folder / value)


def _is_a(kind: str, value: object) -> bool:
    if kind == _YES:
        return isinstance(value, bool)
    if kind == _PAIR:
        return isinstance(value, list) and len(value) == 2 and all(_is_a(_TEXT, v) for v in value)
    if kind == _TEXT:
        return isinstance(value, str) and bool(value) and "\0" not in value
    number = int if kind == _WHOLE else (int, float)
    return isinstance(value, number) and not isinstance(value, bool)


def _jobs(command: str, items: Iterable[tuple[str, dict[str, Any]]]) -> list[Job]:
    """Checked against each other, with absolute paths.

    Raises: UsageError.
    """
    jobs: list[Job] = []
    inputs: dict[str, str] = {}
    outputs: dict[str, str] = {}
    for where, item in items:
        for name in ("target", "input", "output"):
            if name in OPTIONS[command] and name not in item:
                raise UsageError(f"{where}: {name} is missing")
        for name in _PATHS:
            if name in item:
                item[name] = _placed(name, item[name], Path())
        output = item.pop("output")
        read = [item[name] for name in ("input", "target") if name in item]
        read = [path for path in read if not is_url(path)]
        try:
            written = _written(command, Path(output))
            for path in read:
                refuse_to_overwrite(output, path)
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from error
        for path in written:
            other = outputs.setdefault(os.path.realpath(path), where)
            if other != where:
                raise UsageError(f"{where}: would write {path}, and so would {other}")
        for path in read:
            inputs.setdefault(os.path.realpath(path), where)
        jobs.append(Job(len(jobs), command, output, item, __version__))
    for path, where in outputs.items():
        if path in inputs:
            raise UsageError(f"{where}: would write {path}, which {inputs[path]} reads")
    return jobs


def _written(command: str, output: Path) -> list[Path]:
    """The files, or the folder, that appear."""
    if command == "calibrate":
        return [output]
    from lipstream.streaming.files.mp4_writer import container_of
    from lipstream.streaming.files.provenance import EMBEDDED, sidecar_of

    container_of(output)
    beside = [] if output.suffix.lower() in EMBEDDED else [sidecar_of(output)]
    return [output, *beside]
