"""The commands, what they share, and what an error becomes: one line and an exit code."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

import uringblob
from uringblob.cli import bench, create, exits, get, info, ls, put, rm, verify
from uringblob.cli.doctor import command as doctor_command
from uringblob.cli.errors import (
    CliError,
    JsonWarnings,
    Parser,
    ShowVersion,
    failure_of,
    output_failed,
    parse,
    print_error,
    words_of,
)
from uringblob.cli.output import Output
from uringblob.cli.start import asks_json
from uringblob.cli.stdio import STDOUT, named, whole_streams
from uringblob.errors import BlobCorrupt, BlobNotFound, BlobStoreError
from uringblob.logs import logger

COMMANDS: dict[str, ModuleType] = {
    "create": create,
    "info": info,
    "ls": ls,
    "put": put,
    "get": get,
    "rm": rm,
    "verify": verify,
}


def make_parser() -> Parser:
    """Return the parser of the whole command line."""
    parser = Parser(
        prog="uringblob",
        description="Stores of large frames, on io_uring.",
        epilog=exits.TEXT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=ShowVersion, const=f"uringblob {uringblob.__version__}")
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", required=True, parser_class=bench.CommandParser
    )
    for name, command in COMMANDS.items():
        sub = commands.add_parser(
            name,
            help=command.HELP,
            description=f"{command.HELP[0].upper()}{command.HELP[1:]}.",
            epilog=f"examples:\n{command.EXAMPLES}\n{exits.TEXT}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(sub)
        sub.add_argument("--json", action="store_true", help="one JSON value instead of words, errors too")
        sub.set_defaults(run=_on_store(command))
    _add_whole(commands, "doctor", doctor_command, "say what runs here, why not more, and what mends it")
    commands.add_parser("bench", help=bench.HELP, description=bench.HELP, fill=bench.fill)
    return parser


def _add_whole(commands: Any, name: str, command: ModuleType, text: str) -> None:
    """Mount a command that speaks for itself: it has its own output and exit codes."""
    sub = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    command.add_arguments(sub)
    sub.set_defaults(run=command.run)


def _on_store(command: ModuleType) -> Callable[[argparse.Namespace], int]:
    def run(args: argparse.Namespace) -> int:
        code: int = command.run(args, Output(as_json=args.json))
        return code

    return run


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; errors become one line on standard error."""
    with whole_streams():
        return _main(argv)


def _main(argv: Sequence[str] | None) -> int:
    as_json = asks_json(list(sys.argv[1:] if argv is None else argv))
    args = argparse.Namespace(command=None)
    try:
        args = parse(make_parser(), argv)
        with _warnings(as_json=as_json):
            code: int = args.run(args)
        with named(STDOUT):
            sys.stdout.flush()
    except (KeyboardInterrupt, CliError, BlobStoreError, ValueError, OSError) as error:
        return _failed(error, args, as_json=as_json)
    return code


@contextlib.contextmanager
def _warnings(*, as_json: bool) -> Iterator[None]:
    handler = JsonWarnings()
    if as_json:
        logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _failed(error: BaseException, args: argparse.Namespace, *, as_json: bool) -> int:
    code = _exit_code(error)
    if isinstance(error, OSError) and error.filename == STDOUT:
        return output_failed(error, args.command, code, as_json=as_json)
    path = getattr(args, "store", None) or getattr(args, "directory", None)
    return print_error(failure_of(error, words_of(error), args.command, code, path=path), as_json=as_json)


def _exit_code(error: BaseException) -> int:
    if isinstance(error, CliError):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return exits.INTERRUPTED
    if isinstance(error, (BlobNotFound, BlobCorrupt)):
        return exits.NO
    return exits.USAGE if isinstance(error, ValueError) else exits.FAILED
