"""The command ``uringblob doctor``: one screen for people, or JSON."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from typing import Any

from uringblob.cli.doctor.checks import run_checks
from uringblob.cli.doctor.diagnosis import Diagnosis, diagnose
from uringblob.cli.doctor.facts import CheckResult, Level, gather
from uringblob.cli.stdio import print_line

EXAMPLES = """\
  uringblob doctor                        # stores in the current directory
  uringblob doctor /var/lib/frames -v     # with every flag, feature and opcode
  uringblob doctor /data --json | jq -r .command
"""
EXIT_CODES = """\
exit codes:
  0  io_uring works
  1  the fallback, the pread engine, works
  2  no store can be made there
  3  the output cannot be written
  130  interrupted
"""
_GREEN, _YELLOW, _RED = "32", "33", "31"
_MARKS = {Level.GOOD: ("ok", _GREEN), Level.NOTE: ("--", _YELLOW), Level.BAD: ("no", _RED)}
_NAME_WIDTH = 18


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument(
        "directory", metavar="DIR", nargs="?", default=".", type=_not_empty, help="where stores shall lie (.)"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="name every flag, feature and opcode")


def _not_empty(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("DIR is empty")
    return text


def run(args: argparse.Namespace) -> int:
    """Check, print, and return the diagnosis' exit code."""
    results = run_checks(args.directory)
    diagnosis = diagnose(gather(results))
    if args.json:
        print_line(json.dumps(as_dict(results, diagnosis)))
    else:
        coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        print_line(screen(results, diagnosis, coloured=coloured, verbose=args.verbose))
    return diagnosis.exit_code


def as_dict(results: dict[str, CheckResult], diagnosis: Diagnosis) -> dict[str, Any]:
    """Return everything as plain data; ``verdict`` and ``command`` are the diagnosis in short."""
    return {
        "verdict": diagnosis.verdict,
        "command": diagnosis.command,
        "exit_code": diagnosis.exit_code,
        "causes": [cause._asdict() for cause in diagnosis.causes],
        "findings": {
            name: {"name": name, **dataclasses.asdict(result), "level": result.level.value}
            for name, result in results.items()
        },
    }


def screen(
    results: dict[str, CheckResult], diagnosis: Diagnosis, *, coloured: bool = False, verbose: bool = False
) -> str:
    """Return the screen: a line a check, the verdict, and the remedy."""

    def paint(text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if coloured else text

    lines = []
    for name, result in results.items():
        lines.append(f"{paint(*_MARKS[result.level])} {name:<{_NAME_WIDTH}} {result.text}")
        if verbose:
            lines += [
                f"   {'':<{_NAME_WIDTH}}   {key.replace('_', ' ')}: {_words(value)}"
                for key, value in result.detail.items()
            ]
    lines += ["", paint(diagnosis.verdict, (_GREEN, _YELLOW, _RED)[diagnosis.exit_code])]
    for number, cause in enumerate(diagnosis.causes):
        if number:
            lines.append(f"also: {cause.why}")
        if cause.command:
            lines.append(f"  {'then' if number else 'fix it'}: {cause.command}")
    return "\n".join(lines)


def _words(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_words(inner)}" for key, inner in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
