"""Proves, on a machine with an NVIDIA card, what is built without one.

    python -m lipstream.bench.gpu -o DIR                  on the card, within 330 s
    python -m lipstream.bench.gpu --device host -o DIR    the same code without a card

DIR/gpu.json is written after each phase. The exit status is 1 where a bound or a phase fails.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from lipstream.bench.gpu.kernels import fresh_seed
from lipstream.bench.gpu.phases import PHASES, Context
from lipstream.bench.gpu.runner import Plan, earlier_results, prove, run_phase


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m lipstream.bench.gpu", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--device", choices=("cuda", "host"), default="cuda")
    parser.add_argument("--budget", type=float, default=330.0, metavar="S", help="in all")
    parser.add_argument("--only", choices=tuple(PHASES), action="append", help="these phases")
    parser.add_argument("--seed", type=int, help="of the inputs; fresh ones if none")
    parser.add_argument("--phase", choices=tuple(PHASES), help=argparse.SUPPRESS)
    parser.add_argument("--small", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    seed = fresh_seed(time.asctime()) if options.seed is None else options.seed
    folder: Path = options.output.resolve()
    if options.phase:
        earlier = earlier_results(folder)
        context = Context(options.device, folder, options.small, seed, earlier)
        return 0 if run_phase(options.phase, context) else 1
    phases = tuple(name for name in PHASES if not options.only or name in options.only)
    return 0 if prove(Plan(options.device, folder, options.budget, seed, phases)) else 1


if __name__ == "__main__":
    sys.exit(main())
