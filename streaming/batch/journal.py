"""What a batch has done, in a file beside its outputs, so that the same command goes on from there.

`.lipstream-batch.jsonl` in each folder of outputs gets a line when an attempt begins and one when
an output is there:

    {"output": "a.mp4", "state": "started"}
    {"output": "a.mp4", "state": "done", "key": …, "sha256": …, "content_sha256": …}

`key` is the hash of the command, its options, its inputs and the version. An output counts as done
where the key is that of the job and the hash that of the files which lie there now.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from lipstream.streaming.batch.jobs import Done, Job, folder_of

NAME: Final = ".lipstream-batch.jsonl"


@dataclass(frozen=True, slots=True)
class Kinds:
    """What a journal must know of the commands' files."""

    inputs: Callable[[Job], dict[str, str]]  # sha256 of each; raises OSError
    output: Callable[[Job], str | None]  # sha256 of an output; None: missing or incomplete
    remove_leftovers: Callable[[Job], None]  # what a killed worker left beside the output


@dataclass(slots=True)
class _Entry:
    state: str
    key: str | None = None
    sha256: str | None = None


@dataclass(slots=True)
class Journal:
    """The journals of all folders of a batch; one process writes them."""

    kinds: Kinds
    _folders: dict[Path, dict[str, _Entry]] = field(default_factory=dict)
    _keys: dict[int, str] = field(default_factory=dict)
    _running: dict[int, Job] = field(default_factory=dict)

    def is_done(self, job: Job) -> bool:
        """Whether the output of this very job lies there, unchanged.

        What an attempt that never ended has left is removed.

        Raises: OSError for an input that cannot be read.
        """
        self._keys[job.number] = key = self._key(job)
        entry = self._entries(folder_of(job)).get(Path(job.output).name)
        if entry is None:
            return False
        if entry.state == "started":
            self.kinds.remove_leftovers(job)
            return False
        return entry.key == key and entry.sha256 == self.kinds.output(job) is not None

    def started(self, job: Job) -> None:
        """An attempt begins. Raises: OSError where the journal cannot be written."""
        self._append(job, {"state": "started"})
        self._running[job.number] = job

    def done(self, job: Job, outcome: Done) -> None:
        """The output is there. Raises: OSError where the journal cannot be written."""
        del self._running[job.number]
        line = {"key": self._keys[job.number], "sha256": outcome.sha256}
        self._append(job, {"state": "done", **line, "content_sha256": outcome.content_sha256})

    def failed(self, job: Job) -> None:
        """An attempt has ended without an output; what a killed worker has left is removed.

        Raises: OSError where that cannot be removed.
        """
        del self._running[job.number]
        self.kinds.remove_leftovers(job)

    def stopped(self) -> None:
        """The batch ends before its jobs, and no worker runs any more."""
        for job in list(self._running.values()):
            with suppress(OSError):  # what cannot be removed keeps nothing else
                self.failed(job)

    def _key(self, job: Job) -> str:
        inputs = self.kinds.inputs(job)
        # Files count by what is in them, wherever they lie.
        options = {name: value for name, value in job.options.items() if name not in inputs}
        whole = [job.command, options, inputs, job.version]
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()

    def _entries(self, folder: Path) -> dict[str, _Entry]:
        if folder not in self._folders:
            found: dict[str, _Entry] = {}
            try:
                lines = (folder / NAME).read_text("utf-8", "replace").splitlines()
            except FileNotFoundError:
                lines = []
            for text in lines:
                try:
                    line = json.loads(text)
                    entry = _Entry(line["state"], line.get("key"), line.get("sha256"))
                    found[line["output"]] = entry
                except (ValueError, TypeError, KeyError, AttributeError):
                    continue  # cut off when the machine stopped: that attempt has no end
            self._folders[folder] = found
        return self._folders[folder]

    def _append(self, job: Job, line: dict[str, Any]) -> None:
        folder, name = folder_of(job), Path(job.output).name
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / NAME).open("a+b") as file:
            if file.tell() and not _ends_a_line(file):
                file.write(b"\n")
            file.write(json.dumps({"output": name, **line}).encode() + b"\n")
        self._entries(folder)[name] = _Entry(line["state"], line.get("key"), line.get("sha256"))


def _ends_a_line(file: Any) -> bool:
    file.seek(-1, 2)
    return bool(file.read(1) == b"\n")
