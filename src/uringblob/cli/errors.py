"""Errors of a command: one line of words or, under ``--json``, one JSON object, and the exit code.

Both forms go to standard error and have the same exit code.
"""

from __future__ import annotations

import argparse
import errno
import json
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, NoReturn

from uringblob.cli.stdio import STDIN, STDOUT, discard_output, print_line, print_stderr
from uringblob.errors import BlobStoreIOError, encodable
from uringblob.logs import FIELDS

EXIT_OK: Final = 0
EXIT_NO: Final = 1
EXIT_USAGE: Final = 2  # argparse uses the same number
EXIT_FAILED: Final = 3
EXIT_INTERRUPTED: Final = 130
#: Part of ``--help``; docs/reference/cli.md says the same.
EXIT_CODES: Final = """\
exit codes:
  0    done
  1    the answer is no: no such blob, or a blob is bad
  2    wrong usage, or input of a wrong length
  3    the store cannot be opened, an I/O failed, or nobody reads the output
  130  interrupted; the store is sound
under --json an error is one JSON object on standard error, with the code in it
"""


class Failure(NamedTuple):
    """An error as it is reported; under ``--json`` with every field, ``null`` where unknown.

    ``kind`` is the exception's name.  ``path`` is the file at fault, or the store that the command
    was given.  ``offset`` is in bytes, in that file.
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
    """An expected command failure: message, exit code, context."""

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
    """A parser whose usage errors :func:`parse` prints, also those of its subcommands."""

    def error(self, message: str) -> NoReturn:
        """Raise the error for :func:`parse`."""
        raise _UsageError(self, message)

    def _print_message(self, message: str, file: Any = None) -> None:  # noqa: ARG002 - argparse's signature
        """Print the help or the version; argparse itself ignores a write error here."""
        print_line(message.rstrip("\n"))


def asks_json(words: list[str]) -> bool:
    """Return whether a command line contains ``--json``, also a line that argparse rejects."""
    options = words[: words.index("--")] if "--" in words else words
    names = (word.partition("=")[0] for word in options if len(word) > len("--"))
    return any("--json".startswith(name) for name in names)  # argparse accepts --js, too


def parse(parser: Parser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse a command line.

    :raises SystemExit: 2, after a usage error was printed; 0 after ``--help`` and ``--version``.
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
            print_stderr(f"{wrong.parser.format_usage()}{prog}: error: {wrong}")
        raise SystemExit(EXIT_USAGE) from None


def words_of(error: BaseException) -> str:
    """Return the error's text; a file's name stands first, as it does with other commands."""
    if isinstance(error, BlobStoreIOError):
        return str(error.strerror)
    if isinstance(error, OSError) and error.filename is not None:
        return f"{encodable(os.fsdecode(error.filename))}: {error.strerror}"
    return str(error)


def output_failed(error: OSError, command: str | None, exit_code: int, *, as_json: bool) -> int:
    """Report that a command's output could not be written, and return ``exit_code``."""
    discard_output()
    if isinstance(error, BrokenPipeError) and not as_json:
        return exit_code  # the reader closed the pipe: a message would be noise
    return print_error(failure_of(error, words_of(error), command, exit_code), as_json=as_json)


def failure_of(
    error: BaseException, text: str, command: str | None, exit_code: int, *, path: str | None = None
) -> Failure:
    """Return what is known of an error; ``path`` is used where the error names no file itself."""
    named = getattr(error, "filename", None)
    if named in {STDIN, STDOUT}:
        path = None
    elif isinstance(named, (str, bytes)):
        path = os.fsdecode(named)
    guid = getattr(error, "guid", None)
    offset, number = _first_known(error, "offset"), _first_known(error, "errno")
    guid_text = None if guid is None else str(guid)
    return Failure(text, type(error).__name__, command, exit_code, path, guid_text, offset, number)


def _first_known(error: BaseException | None, name: str) -> int | None:
    """Return an int attribute of the error, or else of the first of its causes that has it."""
    while error is not None:
        value = getattr(error, name, None)
        if isinstance(value, int):
            return value
        error = error.__cause__
    return None


def print_error(failure: Failure, *, as_json: bool) -> int:
    """Print a failure on standard error and return its exit code."""
    command = f" {failure.command}" if failure.command else ""
    print_stderr(failure.as_json() if as_json else f"uringblob{command}: {failure.error}")
    return failure.exit_code


class JsonWarnings(logging.Handler):
    """Writes the log's warnings as JSON lines to standard error, where Python would print words."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; the fields are those of :mod:`uringblob.logs`."""
        known = {name: getattr(record, name) for name in ("event", *FIELDS) if hasattr(record, name)}
        print_stderr(json.dumps({"warning": record.getMessage(), **known}, default=str))
