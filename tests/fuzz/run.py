"""Shares jobs among workers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from queue import Empty, SimpleQueue

from tests.fuzz.worker import Failure, Job, Outcome, Worker

_PIECE = 20_000  # cases of a job that one worker takes at a time


def fuzz(
    jobs: Iterable[Job], workers: int, report: Callable[[Failure], None]
) -> dict[str, Outcome]:
    """What came out of each kind; `report` is called with each failure as it comes."""
    waiting: SimpleQueue[Job] = SimpleQueue()
    results: dict[str, Outcome] = {}
    pieces = 0
    for job in jobs:
        results[job.kind] = Outcome()
        for first in range(job.first, job.last, _PIECE):
            waiting.put(Job(job.kind, job.seed, first, min(first + _PIECE, job.last)))
            pieces += 1
    lock = threading.Lock()
    broken: list[RuntimeError] = []

    def work() -> None:
        worker = Worker()
        try:
            while True:
                job = waiting.get_nowait()
                for outcome in worker.run(job):
                    with lock:
                        _add(results[job.kind], outcome)
                        for failure in outcome.failures:
                            report(failure)
        except Empty:
            pass
        except RuntimeError as error:
            broken.append(error)
        finally:
            worker.close()

    threads = [threading.Thread(target=work) for _ in range(max(1, min(workers, pieces)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if broken:
        raise broken[0]
    return results


def _add(total: Outcome, more: Outcome) -> None:
    total.done += more.done
    total.refused += more.refused
    total.worst_cpu_s = max(total.worst_cpu_s, more.worst_cpu_s)
    total.peak_mib = max(total.peak_mib, more.peak_mib)
    total.failures += more.failures
