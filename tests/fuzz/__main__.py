"""Hostile input by the thousand: `python -m tests.fuzz --cases 10000 --seed 1`.

Exit code 1, and for each failing case its seed and the command that repeats it, if the process
crashes, a case takes over a second of CPU time or half a GiB, or raises anything but an error of
ours.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

from tests.fuzz.kinds import KINDS, cases_of
from tests.fuzz.run import fuzz
from tests.fuzz.worker import Job, Outcome


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000, help="of all kinds together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kind", choices=sorted(KINDS), help="of this kind only")
    parser.add_argument("--case", type=int, help="this one case of --kind")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    if options.case is not None:
        if options.kind is None:
            parser.error("--case needs --kind")
        jobs = [Job(options.kind, options.seed, options.case, options.case + 1)]
    else:
        counts = {options.kind: options.cases} if options.kind else cases_of(options.cases)
        jobs = [Job(kind, options.seed, 0, count) for kind, count in counts.items() if count]
    began_s = time.monotonic()
    outcomes = fuzz(jobs, options.jobs, lambda failure: print(failure, flush=True))
    for kind, outcome in outcomes.items():
        print(_line(kind, outcome))
    failures = sum(len(outcome.failures) for outcome in outcomes.values())
    cases = sum(job.last - job.first for job in jobs)
    print(f"{cases} cases in {time.monotonic() - began_s:.0f} s, {failures} failures")
    return 1 if failures else 0


def _line(kind: str, outcome: Outcome) -> str:
    return (
        f"{kind:<13} {outcome.done:>7} done, {outcome.refused:>7} refused, "
        f"{len(outcome.failures):>3} failures; at most {outcome.worst_cpu_s:.2f} s of CPU time "
        f"and {outcome.peak_mib:.0f} MiB"
    )


if __name__ == "__main__":
    sys.exit(main())
