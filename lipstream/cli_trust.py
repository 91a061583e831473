"""`lipstream consent` and `verify`: whose face it is, and whether a picture is marked."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lipstream.cli_options import Json, Verbose
from lipstream.console import own_console
from lipstream.engine.errors import UsageError

if TYPE_CHECKING:
    from lipstream.console import Console

EXIT_NOT_MARKED = 1


def consent(
    target: Annotated[
        Path, typer.Argument(metavar="TARGET", help="NAME.target, made by calibrate.")
    ],
    statement: Annotated[
        str | None,
        typer.Argument(
            metavar="[STATEMENT]",
            help='Record this one: "WHO; WHEN; FOR WHAT".',
            show_default=False,
        ),
    ] = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Show the consent that a target records, or record one."""
    with own_console(verbose) as console:
        from lipstream.engine.target.bundle_checks import read_info
        from lipstream.engine.target.consent import Consent, require_consent

        if not (target / "target.json").is_file():
            raise UsageError(
                f"{target}: not a target bundle; expected a folder NAME.target, made by "
                "`lipstream calibrate VIDEO -o NAME.target`"
            )
        if statement is not None:
            from lipstream.calibration.consent import state_consent

            state_consent(target, Consent.stated(statement))
        given = require_consent(target.name, read_info(target / "target.json"))
        values = {"target": str(target), "statement": given.statement, **given.as_json()}
        sentence = f"{target}: {given.who}, {given.when}, for: {given.purpose}"
        console.result(values, json, f"{sentence} (recorded {given.recorded})")


def ask_for_consent(console: Console) -> str | None:
    """The answers of whoever sits at the terminal; None without one, or without an answer."""
    if not (sys.stdin is not None and sys.stdin.isatty() and console.err.isatty()):
        return None
    console.note("a target shows a person; state their consent, or press Enter to leave it open")
    who = _answer(console, "who agreed (the person shown, or who holds the rights)?")
    if not who:
        return None
    when = _answer(console, "when [today]?") or "today"
    purpose = _answer(console, "for what use?")
    return f"{who}; {when}; {purpose}"


def _answer(console: Console, question: str) -> str:
    console.err.write(f"  {question} ")
    console.err.flush()
    return sys.stdin.readline().strip().replace(";", ",")


def verify(
    file: Annotated[
        str, typer.Argument(metavar="FILE|URL", help="A video or a picture, or its address.")
    ],
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Say whether a file is marked as synthetic.

    By its signed manifest, the watermark in its frames and the visible label.
    Exit code: 0 marked, 1 not marked, 2 it cannot be read.
    """
    with own_console(verbose) as console:
        from lipstream.streaming.files.verify import verify as examine

        verdict = examine(file)
        console.result(verdict.as_json(), json, verdict.as_text())
    if not verdict.marked:
        raise typer.Exit(EXIT_NOT_MARKED)
