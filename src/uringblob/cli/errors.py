"""What an error of a command looks like: a line of words, or under ``--json`` one JSON object.

Both go to standard error, and the exit code is the same.
"""

from __future__ import annotations

import argparse
import errno
import json
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

from uringblob.cli.start import asks_json
from uringblob.cli.stdio import STDIN, STDOUT, complain, forget_output, say
from uringblob.errors import BlobStoreIOError, encodable
from uringblob.logs import FIELDS

#: Wrong usage; what a command could not do: the store cannot be opened, an I/O failed, its output too.
EXIT_USAGE, EXIT_FAILED = 2, 3


class Failure(NamedTuple):
    """What happened; all of it under ``--json``, where unknown is ``null``.

    ``error`` is the text that people read, ``kind`` the exception's name.  ``path`` is the file at
    fault, or the store that the command was given.  ``offset`` is in bytes, in that file.
    """

    error: str
    kind: str
    command: str | None
    exit_code: int
    path: str | None = None
    guid: str | None = None
    offset: int | None = None
    errno: int | None = None

    def as_json(self) -> str:
        """Return one line."""
        name = errno.errorcode.get(self.errno) if self.errno else None
        return json.dumps({**self._asdict(), "errno_name": name})


class CliError(Exception):
    """A command's own no: a text, the exit code, and what is known beside."""

    def __init__(
        self, message: str, exit_code: int, *, path: str | None = None, guid: bytes | None = None
    ) -> None:
        super().__init__(encodable(message))
        self.exit_code = exit_code
        self.filename = path
        self.guid = guid


class _UsageError(Exception):
    def __init__(self, parser: argparse.ArgumentParser, message: str) -> None:
        super().__init__(message)
        self.parser = parser


class Parser(argparse.ArgumentParser):
    """A parser whose errors :func:`parse` says; those of its subcommands, too."""

    def error(self, message: str) -> NoReturn:
        """Hand the error to :func:`parse`."""
        raise _UsageError(self, message)

    def print_help(self, file: Any = None) -> None:
        """Say the help, or fail: argparse swallows what the system answers."""
        if file is None:
            say(self.format_help().rstrip("\n"))
        else:
            super().print_help(file)


class ShowVersion(argparse.Action):
    """``--version``, said or failed like the help; ``const`` is the text."""

    def __init__(self, option_strings: Sequence[str], dest: str, const: str) -> None:
        super().__init__(option_strings, dest, nargs=0, const=const, help="say the version, and go")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Say it."""
        say(str(self.const))
        parser.exit()


def parse(parser: Parser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Read a command line.

    :raises SystemExit: 2, said as words and usage or as JSON; 0 after ``--help`` and ``--version``.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return parser.parse_args(words)
    except _UsageError as wrong:
        prog = wrong.parser.prog
        if asks_json(words):
            command = prog.partition(" ")[2] or None
            print_error(Failure(str(wrong), "UsageError", command, EXIT_USAGE), as_json=True)
        else:
            complain(f"{wrong.parser.format_usage()}{prog}: error: {wrong}")
        raise SystemExit(EXIT_USAGE) from None


def words_of(error: BaseException) -> str:
    """Return what happened; to which file stands first, as it does with other commands."""
    if isinstance(error, KeyboardInterrupt):
        return str(error) or "interrupted; the store is sound"
    if isinstance(error, BlobStoreIOError):
        return str(error.strerror)
    if isinstance(error, OSError) and error.filename is not None:
        return f"{encodable(os.fsdecode(error.filename))}: {error.strerror}"
    return str(error)


def output_failed(error: OSError, command: str, exit_code: int, *, as_json: bool) -> int:
    """Say that a command's output could not be written, and return ``exit_code``."""
    forget_output()
    if isinstance(error, BrokenPipeError) and not as_json:
        return exit_code  # nobody reads it any more, and a pipe's other end knows
    return print_error(failure_of(error, words_of(error), command, exit_code), as_json=as_json)


def failure_of(
    error: BaseException, text: str, command: str | None, exit_code: int, *, path: str | None = None
) -> Failure:
    """Return what is known of an error; ``path`` is the file it is about where it names none itself."""
    named = getattr(error, "filename", None)
    if named in {STDIN, STDOUT}:
        path = None
    elif isinstance(named, (str, bytes)):
        path = os.fsdecode(named)
    guid = getattr(error, "guid", None)
    return Failure(
        text,
        type(error).__name__,
        command,
        exit_code,
        path,
        None if guid is None else str(guid),
        _first_known(error, "offset"),
        _first_known(error, "errno"),
    )


def _first_known(error: BaseException | None, name: str) -> int | None:
    """Return a number that the error has, or the one it was raised from."""
    while error is not None:
        value = getattr(error, name, None)
        if isinstance(value, int):
            return value
        error = error.__cause__
    return None


def print_error(failure: Failure, *, as_json: bool) -> int:
    """Say it on standard error and return its exit code."""
    if as_json:
        complain(failure.as_json())
    else:
        command = f" {failure.command}" if failure.command else ""
        complain(f"uringblob{command}: {failure.error}")
    return failure.exit_code


class JsonWarnings(logging.Handler):
    """The log's warnings as JSON lines on standard error; without a handler Python prints words there."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; the fields are those of :mod:`uringblob.logs`."""
        known = {name: getattr(record, name) for name in ("event", *FIELDS) if hasattr(record, name)}
        complain(json.dumps({"warning": record.getMessage(), **known}, default=str))
