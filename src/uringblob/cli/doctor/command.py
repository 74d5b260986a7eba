"""The command ``uringblob doctor``: one screen for people, or JSON; needs no extra."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from uringblob.cli.doctor.check_result import CheckResult, Level
from uringblob.cli.doctor.checks import Examination, examine
from uringblob.cli.errors import EXIT_FAILED, Failure, Parser, output_failed, parse, print_error
from uringblob.cli.start import EXIT_INTERRUPTED, asks_json
from uringblob.cli.stdio import say, whole_streams

EXAMPLES = """\
examples:
  uringblob doctor                        # stores in the current directory
  uringblob doctor /var/lib/frames -v     # with every flag, feature and opcode
  uringblob doctor /data --json | jq -r .command

exit codes:
  0  io_uring works
  1  the fallback, the pread engine, works
  2  no store can be made there
  3  the output cannot be written
  130  interrupted
"""
_MARKS = {Level.GOOD: ("ok", "32"), Level.NOTE: ("--", "33"), Level.BAD: ("no", "31")}
_NAME_WIDTH = 18


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments, examples and exit codes."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    parser.add_argument(
        "directory", metavar="DIR", nargs="?", default=".", type=_named, help="where stores shall lie (.)"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="name every flag, feature and opcode")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of words, errors too")


def _named(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("DIR is empty")
    return text


def run(args: argparse.Namespace) -> int:
    """Examine, show, and return the exit code: the diagnosis', or 130 after Ctrl-C."""
    try:
        seen = examine(args.directory)
    except KeyboardInterrupt:
        failure = Failure("interrupted", "KeyboardInterrupt", "doctor", EXIT_INTERRUPTED, args.directory)
        return print_error(failure, as_json=args.json)
    if args.json:
        text = json.dumps(as_dict(seen), default=list)
    else:
        coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        text = screen(seen, coloured=coloured, verbose=args.verbose)
    say(text)
    return seen.diagnosis.exit_code


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``python -m uringblob.cli.doctor``."""
    parser = Parser(prog="uringblob doctor", description="Says what will run here, and why not more.")
    add_arguments(parser)
    with whole_streams():
        try:
            return run(parse(parser, argv))
        except OSError as error:
            as_json = asks_json(list(sys.argv[1:] if argv is None else argv))
            return output_failed(error, "doctor", EXIT_FAILED, as_json=as_json)


def as_dict(seen: Examination) -> dict[str, Any]:
    """Return everything as plain data; ``command`` and ``verdict`` are the diagnosis in short."""
    findings = {f.name: {**dataclasses.asdict(f), "level": f.level.value} for f in seen.findings}
    diagnosis = seen.diagnosis
    return {
        "verdict": diagnosis.verdict,
        "command": diagnosis.command,
        "exit_code": diagnosis.exit_code,
        "causes": [dataclasses.asdict(cause) for cause in diagnosis.causes],
        "findings": findings,
    }


def screen(seen: Examination, *, coloured: bool = False, verbose: bool = False) -> str:
    """Return the screen: a line a finding, the verdict, and the command that mends it."""
    lines = []
    for finding in seen.findings:
        mark, colour = _MARKS[finding.level]
        lines.append(f"{_paint(mark, colour, coloured)} {finding.name:<{_NAME_WIDTH}} {finding.text}")
        if verbose:
            lines += _details(finding)
    diagnosis = seen.diagnosis
    colour = ("32", "33", "31")[diagnosis.exit_code]
    lines += ["", _paint(diagnosis.verdict, colour, coloured)]
    for number, cause in enumerate(diagnosis.causes):
        if number:
            lines.append(f"also: {cause.why}")
        if cause.command:
            lines.append(f"  {'then' if number else 'mend it'}: {cause.command}")
    return "\n".join(lines)


def _details(finding: CheckResult) -> list[str]:
    lines = []
    for name, value in finding.detail.items():
        words = [f"{k} {_plain(v)}" for k, v in value.items()] if isinstance(value, dict) else [_plain(value)]
        lines.append(f"   {'':<{_NAME_WIDTH}}   {name.replace('_', ' ')}: {', '.join(words)}")
    return lines


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _paint(text: str, colour: str, wanted: bool) -> str:
    return f"\x1b[{colour}m{text}\x1b[0m" if wanted else text
