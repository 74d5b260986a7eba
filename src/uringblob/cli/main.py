"""The command line: dispatch, and the exit code and message of an error."""

from __future__ import annotations

import argparse
import importlib
import keyword
import sys
from collections.abc import Sequence
from typing import Final

import uringblob
from uringblob.cli import errors
from uringblob.cli.stdio import STDOUT, discard_output, full_write_streams, naming_file, print_stderr
from uringblob.errors import BlobCorrupt, BlobNotFound, BlobStoreError
from uringblob.logs import logger

#: Each is a module of this package (``import_`` for a keyword), with ``EXAMPLES``, ``add_arguments(parser)`` and ``run(args) -> int``.
#: It is imported only when its command is given.
COMMANDS: Final = {
    "create": "make an empty store",
    "info": "say what a store holds, and which engine serves it here",
    "ls": "list the guids of all blobs, sorted",
    "put": "store one frame, durably, from a file or from standard input",
    "get": "read one frame, its checksum checked, into a file or to standard output",
    "rm": "delete blobs, durably, all of them or none",
    "verify": "read every frame and all metadata, check every checksum, name each bad blob",
    "vacuum": "give space that a store does not need back to the file system",
    "backup": "copy a store into a file that is a store, or bring an earlier backup up to date",
    "restore": "make a store of a backup",
    "diff": "list the blobs that two stores do not share",
    "copy": "make a new store of the same blobs, of another frame size too",
    "export": "write each blob into a file of a directory, with a manifest of checksums",
    "import": "make a store of an exported directory, checked against its manifest",
    "repair": "save what can be saved of a damaged store into a new one, and name what is lost",
    "import-holt": "copy the blobs of a directory of holt 0.7 to 0.9 into a store, verified",
    "doctor": "say what runs here, why not more, and the command that fixes it",
}
#: Another distribution's command, which has its own help and ``--json FILE``.
BENCH: Final = {"bench": "measure the store beside fio and its peers (distribution uringblob-bench)"}


def make_parser(given: str | None) -> errors.Parser:
    """Return the parser of the whole command line; only the ``given`` command has its arguments."""
    parser = errors.Parser(
        prog="uringblob",
        description="Stores of large frames, on io_uring.",
        epilog=errors.EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"uringblob {uringblob.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, text in {**COMMANDS, **BENCH}.items():
        sub = commands.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name == given:
            _fill(sub, name)
    return parser


def _fill(parser: argparse.ArgumentParser, name: str) -> None:
    module = f"{name}_" if keyword.iskeyword(name) else name.replace("-", "_")
    command = importlib.import_module(f"uringblob.cli.{module}")
    command.add_arguments(parser)
    if name in COMMANDS:
        exit_codes = getattr(command, "EXIT_CODES", errors.EXIT_CODES)
        parser.epilog = f"examples:\n{command.EXAMPLES}\n{exit_codes}"
        parser.add_argument("--json", action="store_true", help="one JSON value instead of words, errors too")
        parser.set_defaults(run=command.run)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; an error becomes one line on standard error."""
    with full_write_streams():
        return _main(list(sys.argv[1:] if argv is None else argv))


def _main(words: list[str]) -> int:
    as_json = errors.asks_json(words)
    given = next((word for word in words if not word.startswith("-")), None)
    args = argparse.Namespace(command=given if given in {*COMMANDS, *BENCH} else None)
    warnings = errors.JsonWarnings()
    if as_json:
        logger.addHandler(warnings)
    try:
        args = make_parser(given).parse_args(words)
        code: int = args.run(args)
        with naming_file(STDOUT):
            sys.stdout.flush()
    except (KeyboardInterrupt, errors.CliError, BlobStoreError, ValueError, OSError) as error:
        return _failed(error, args, as_json=as_json)
    finally:
        logger.removeHandler(warnings)
    return code


def _failed(error: BaseException, args: argparse.Namespace, *, as_json: bool) -> int:
    code = _exit_code(error)
    if isinstance(error, OSError) and error.filename == STDOUT:
        discard_output()
        if isinstance(error, BrokenPipeError) and not as_json:
            return code  # the reader closed the pipe: a message would be noise
    if isinstance(error, errors.UsageError) and not as_json:
        print_stderr(error.with_usage())
        return code
    if isinstance(error, KeyboardInterrupt) and not error.args:
        error = KeyboardInterrupt("interrupted; the store is sound" if "store" in args else "interrupted")
    path = getattr(args, "store", None) or getattr(args, "directory", None)
    return errors.print_error(error, args.command, code, path=path, as_json=as_json)


def _exit_code(error: BaseException) -> int:
    if isinstance(error, errors.CliError):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return errors.EXIT_INTERRUPTED
    if isinstance(error, (BlobNotFound, BlobCorrupt)):
        return errors.EXIT_NO
    return errors.EXIT_USAGE if isinstance(error, ValueError) else errors.EXIT_FAILED
