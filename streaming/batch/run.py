"""Runs a batch: jobs that are done already are skipped, those that were lost are tried again."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import replace

from lipstream.engine.errors import LipstreamError
from lipstream.streaming.batch.jobs import Done, Executor, Failed, Job, Outcome, Result, Summary
from lipstream.streaming.batch.journal import Journal

_WAIT_S = 0.5  # in short waits, so that Ctrl-C gets through


def run_batch(
    jobs: Sequence[Job],
    executor: Executor,
    journal: Journal,
    retries: int,
    report: Callable[[Result], None],
) -> Summary:
    """Perform every job, in any order; one that fails does not stop the others.

    retries: further attempts at a job whose worker was lost, or whose error may pass.
    report: is given each result as it comes.
    """
    summary, waiting = Summary(), deque(jobs)
    attempts: Counter[int] = Counter()
    running: set[int] = set()

    def ended(job: Job, outcome: Outcome | None) -> None:
        result = Result(job, outcome, attempts[job.number])
        summary.results.append(result)
        report(result)

    while waiting or running:
        while waiting and executor.room:
            job = waiting.popleft()
            try:
                finished = not attempts[job.number] and journal.is_done(job)
                if not finished:
                    journal.started(job)
            except OSError as error:  # an input that cannot be read, or a folder to be written
                ended(job, Failed(_reason(error), again=False))
                continue
            except LipstreamError as error:  # an input elsewhere that cannot be read
                ended(job, Failed(str(error), again=False))
                continue
            if finished:
                ended(job, None)
                continue
            attempts[job.number] += 1
            executor.submit(job)
            running.add(job.number)
        for job, outcome in executor.wait(_WAIT_S) if running else ():
            running.remove(job.number)
            outcome = _written_down(journal, job, outcome)
            if isinstance(outcome, Failed) and outcome.again and attempts[job.number] <= retries:
                waiting.appendleft(job)
            else:
                ended(job, outcome)
    return summary


def _written_down(journal: Journal, job: Job, outcome: Outcome) -> Outcome:
    """The outcome, once the journal has it; with a word where that could not be."""
    try:
        if isinstance(outcome, Done):
            journal.done(job, outcome)
        else:
            journal.failed(job)
    except OSError as error:
        why = _reason(error)
        if isinstance(outcome, Failed):
            return replace(outcome, reason=f"{outcome.reason}; {why}")
        note = f"{why}; the next run makes {job.output} again"
        return replace(outcome, notes=(*outcome.notes, note))
    return outcome


def _reason(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename else str(error)
