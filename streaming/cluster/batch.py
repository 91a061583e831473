"""Jobs of a batch on a Ray cluster: each is a task that takes a core of some node.

Every node has this version of lipstream, and the same files under the same paths. Ray is not asked
to retry: a batch counts its own attempts.
"""

from __future__ import annotations

from typing import Any, Final

from lipstream.streaming.batch.jobs import Failed, Job, Outcome, Perform
from lipstream.streaming.cluster.connection import connect, in_one_line

_STOP_S: Final = 10.0  # for removing what is incomplete
_CORES: Final = 1  # that a job takes
_AHEAD: Final = 2  # jobs handed in for each core: a node that comes later finds some waiting


class RayExecutor:
    """The nodes of a running cluster. Those that join it later take jobs too."""

    def __init__(self, perform: Perform, address: str) -> None:
        """Raises: UsageError where Ray is not installed, or no cluster answers."""
        self._ray = connect(address)
        self._task = self._ray.remote(num_cpus=_CORES, max_retries=0)(perform)
        self._running: dict[Any, Job] = {}

    @property
    def room(self) -> int:
        """By the cores of the cluster as it now is."""
        cores = int(self._ray.cluster_resources().get("CPU", 0))
        return max(0, max(1, cores // _CORES) * _AHEAD - len(self._running))

    def submit(self, job: Job) -> None:
        """To whichever node has a core to spare."""
        # A target on a GPU needs to see one.
        gpus = 1 if job.options.get("backend") == "tensorrt" else 0
        self._running[self._task.options(num_gpus=gpus).remote(job)] = job

    def wait(self, timeout_s: float) -> list[tuple[Job, Outcome]]:
        """What has ended."""
        ready, _ = self._ray.wait(list(self._running), timeout=timeout_s)
        return [(self._running.pop(task), self._outcome(task)) for task in ready]

    def _outcome(self, task: Any) -> Outcome:
        errors = self._ray.exceptions
        try:
            outcome: Outcome = self._ray.get(task)
            return outcome
        except errors.RayTaskError as error:  # not by `perform`: Ray could not call it
            return Failed(f"a node cannot perform this: {in_one_line(error)}", again=False)
        except errors.RayError as error:
            return Failed(f"its worker was lost: {in_one_line(error)}", again=True)

    def close(self) -> None:
        """Stop what still runs, and leave the cluster."""
        for task in self._running:
            self._ray.cancel(task)
        if self._running:
            self._ray.wait(list(self._running), num_returns=len(self._running), timeout=_STOP_S)
            for task in self._running:
                self._ray.cancel(task, force=True)
        self._running.clear()
        self._ray.shutdown()
