"""The commands, what they share, and what an error becomes: one line and an exit code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import uringblob
from uringblob.bench import command as bench_command
from uringblob.cli import create, exits, get, info, ls, put, rm, verify
from uringblob.cli.output import Output
from uringblob.doctor import command as doctor_command
from uringblob.errors import BlobCorrupt, BlobNotFound, BlobStoreError, BlobStoreIOError
from uringblob.streams import STDOUT, forget_output, hold_standard_streams, named

COMMANDS: dict[str, ModuleType] = {
    "create": create,
    "info": info,
    "ls": ls,
    "put": put,
    "get": get,
    "rm": rm,
    "verify": verify,
}


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="uringblob",
        description="Stores of large frames, on io_uring.",
        epilog=exits.TEXT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"uringblob {uringblob.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        sub = commands.add_parser(
            name,
            help=command.HELP,
            description=f"{command.HELP[0].upper()}{command.HELP[1:]}.",
            epilog=f"examples:\n{command.EXAMPLES}\n{exits.TEXT}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(sub)
        sub.add_argument("--json", action="store_true", help="one JSON value instead of words")
        sub.set_defaults(run=_on_store(command))
    _add_whole(commands, "doctor", doctor_command, "say what runs here, why not more, and what mends it")
    _add_whole(commands, "bench", bench_command, "measure the store beside fio and its peers (extra [bench])")
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
    hold_standard_streams()
    command = ""
    try:
        args = make_parser().parse_args(argv)
        command = f" {args.command}"
        code: int = args.run(args)
        with named(STDOUT):
            sys.stdout.flush()
    except KeyboardInterrupt:
        return _say(command, "interrupted; the store is sound", exits.INTERRUPTED)
    except BrokenPipeError:
        forget_output()  # nobody reads it any more
        return exits.FAILED
    except (BlobNotFound, BlobCorrupt) as error:
        return _say(command, str(error), exits.NO)
    except ValueError as error:
        return _say(command, str(error), exits.USAGE)
    except (BlobStoreError, OSError) as error:
        return _say(command, _words(error), exits.FAILED)
    return code


def _words(error: Exception) -> str:
    """Return what happened; to which file stands first, as it does with other commands."""
    if isinstance(error, BlobStoreIOError):
        return str(error.strerror)
    if isinstance(error, OSError) and error.filename is not None:
        if error.filename == STDOUT:
            forget_output()
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _say(command: str, text: str, code: int) -> int:
    sys.stderr.write(f"uringblob{command}: {text}\n")
    return code
