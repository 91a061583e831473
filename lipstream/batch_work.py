"""What a worker of a batch does: one call of `dub` or `calibrate`, and the hashes of its output."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from lipstream import __version__
from lipstream.console import as_json_reads
from lipstream.engine.errors import LipstreamError, MediaError
from lipstream.streaming.batch.jobs import Done, Failed, Job, Outcome
from lipstream.streaming.batch.journal import Kinds
from lipstream.streaming.remote.locations import is_url
from lipstream.streaming.remote.targets import json_sha256, local_target


def perform(job: Job) -> Outcome:
    """Make the output of a job. Every error becomes a `Failed`, but for what stops the process."""
    if job.version != __version__:
        return Failed(f"this machine has lipstream {__version__}, not {job.version}", again=True)
    try:
        with _warnings() as notes:
            report = _dub(job) if job.command == "dub" else _calibrate(job)
            sha256 = output_sha256(job)
            if sha256 is None:
                raise MediaError(f"{job.output}: is gone, or was changed by something else")
            report = as_json_reads(report)
            return Done(report, sha256, content_sha256(job), tuple(notes))
    except LipstreamError as error:
        return Failed(_one_line(error), again=False)  # the same input gives the same error
    except MemoryError:
        return Failed("out of memory; use shorter or smaller footage, or fewer --jobs", again=True)
    except Exception as error:
        return Failed(f"{type(error).__name__}: {_one_line(error)}", again=True)


def _dub(job: Job) -> dict[str, Any]:
    from lipstream.streaming.files.dub import DubOptions, dub
    from lipstream.streaming.marking.marker import Marking

    given = dict(job.options)
    target, sound = given.pop("target"), given.pop("input")
    marking = Marking.parse(given.pop("label", "corner"), given.pop("no_watermark", None))
    sign = given.pop("sign", None)
    options = DubOptions(
        **given, marking=marking, sign=sign and (Path(sign[0]), Path(sign[1]))
    )  # the rest is called as the command calls it
    return dub(local_target(target), Path(sound), Path(job.output), options)


def _calibrate(job: Job) -> dict[str, Any]:
    from lipstream.engine.extras import require

    require("calibrate", "calibrate")
    from lipstream.calibration.build import calibrate
    from lipstream.calibration.options import CalibrationOptions

    given = dict(job.options)
    footage = given.pop("input")
    times = {f"{name}_s": given.pop(name) for name in ("start", "end") if name in given}
    return calibrate(Path(footage), Path(job.output), CalibrationOptions(**given, **times))


def input_hashes(job: Job) -> dict[str, str]:
    """sha256 of each file that a job reads, by its option. Raises: OSError, TargetError."""
    from lipstream.engine.target.bundle_checks import sha256_of

    found = {"input": sha256_of(Path(job.options["input"]))}
    target = job.options.get("target")
    if target is not None:  # target.json holds the hashes of the bundle's other files
        if is_url(target):
            found["target"] = _sha256_there(target)
        else:
            found["target"] = sha256_of(Path(target) / "target.json")
    if "sign" in job.options:
        found["sign"] = sha256_of(Path(job.options["sign"][0]))
    return found


@cache
def _sha256_there(url: str) -> str:
    """Asked for once in a batch."""
    return json_sha256(url)


def output_sha256(job: Job) -> str | None:
    """Of an output as it lies there, its sidecar included; None for one that is not whole."""
    from lipstream.engine.target.bundle_checks import check_files, read_info, sha256_of

    output = Path(job.output)
    try:
        if job.command == "calibrate":
            check_files(output, read_info(output / "target.json"))
            return sha256_of(output / "target.json")
        from lipstream.streaming.files.provenance import EMBEDDED, sidecar_of

        files = [output]
        if output.suffix.lower() not in EMBEDDED and sidecar_of(output).is_file():
            files.append(sidecar_of(output))
        return _joined(sha256_of(file) for file in files)
    except (OSError, LipstreamError):
        return None


def content_sha256(job: Job) -> str:
    """Of what two runs of a job have in common.

    Of a video: the encoded pictures and sound with their times; its signature is drawn at random.
    Of a target: all its files but target.json, which states when a consent was recorded.
    """
    if job.command == "calibrate":
        info = json.loads((Path(job.output) / "target.json").read_text("utf-8"))
        return _joined(f"{name} {file['sha256']}" for name, file in sorted(info["files"].items()))
    return _sha256_of_packets(Path(job.output))


def _sha256_of_packets(video: Path) -> str:
    from lipstream.engine.paths import open_with_libav

    digest = hashlib.sha256()
    with open_with_libav(video) as container:
        for stream in container.streams:
            context = stream.codec_context
            digest.update(f"{stream.index} {stream.time_base} {context.name}".encode())
            digest.update(context.extradata or b"")
        for packet in container.demux():
            digest.update(f"{packet.stream_index} {packet.pts} {packet.dts}".encode())
            digest.update(bytes(packet))
    return digest.hexdigest()


def remove_leftovers(job: Job) -> None:
    """What a killed worker has left beside the output of a job."""
    if job.command == "calibrate":
        from lipstream.calibration import bundle_writer

        return bundle_writer.remove_leftovers(Path(job.output))
    from lipstream.streaming.files import partial_file
    from lipstream.streaming.files.provenance import sidecar_of

    partial_file.remove_leftovers(Path(job.output))
    return partial_file.remove_leftovers(sidecar_of(Path(job.output)))


KINDS = Kinds(input_hashes, output_sha256, remove_leftovers)


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """What lipstream warns of meanwhile, which a worker cannot show."""
    found: list[str] = []

    class _Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.name.startswith("lipstream"):
                found.append(_one_line(record.getMessage()))

    handler = _Collect(logging.WARNING)
    logging.getLogger("lipstream").addHandler(handler)
    try:
        yield found
    finally:
        logging.getLogger("lipstream").removeHandler(handler)


def _joined(texts: Iterator[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def _one_line(error: object) -> str:
    return " ".join(str(error).split())
