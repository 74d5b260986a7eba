"""Errors of a command: one line of words or, under ``--json``, one JSON object, and the exit code.

Both forms go to standard error and have the same exit code.
"""

from __future__ import annotations

import argparse
import errno
import json
import logging
import os
from typing import Any, Final, NoReturn

from uringblob.cli.stdio import STDIN, STDOUT, print_line, print_stderr
from uringblob.errors import BlobStoreIOError, encodable
from uringblob.logs import FIELDS

EXIT_OK: Final = 0
EXIT_NO: Final = 1
EXIT_USAGE: Final = 2  # argparse uses the same number
EXIT_FAILED: Final = 3
EXIT_INTERRUPTED: Final = 130
#: Part of ``--help``; docs/users/reference/cli.md says the same.
EXIT_CODES: Final = """\
exit codes:
  0    done
  1    the answer is no: no such blob, a blob is bad, two stores differ, a backup is incomplete
  2    wrong usage, or input of a wrong length
  3    the store cannot be opened, an I/O failed, or nobody reads the output
  130  interrupted; the store is sound
under --json an error is one JSON object on standard error, with the code in it
"""


class CliError(Exception):
    """An expected command failure: message, exit code, context."""

    def __init__(
        self, message: str, exit_code: int, *, path: str | None = None, guid: bytes | None = None
    ) -> None:
        super().__init__(encodable(message))
        self.exit_code = exit_code
        self.filename = path
        self.guid = guid


class UsageError(CliError):
    """A command line that makes no sense."""

    def __init__(self, parser: argparse.ArgumentParser, message: str) -> None:
        super().__init__(message, EXIT_USAGE)
        self._parser = parser

    def with_usage(self) -> str:
        """Return the message below the parser's usage, as argparse prints it."""
        return f"{self._parser.format_usage()}{self._parser.prog}: error: {self}"


class Parser(argparse.ArgumentParser):
    """A parser that raises its errors, and prints help and version completely or fails."""

    def error(self, message: str) -> NoReturn:
        """Raise :class:`UsageError`."""
        raise UsageError(self, message)

    def _print_message(self, message: str, file: Any = None) -> None:  # noqa: ARG002 - argparse's signature
        """Print the help or the version; argparse itself ignores a write error here."""
        print_line(message.rstrip("\n"))


def asks_json(words: list[str]) -> bool:
    """Return whether a command line contains ``--json``, also a line that argparse rejects."""
    options = words[: words.index("--")] if "--" in words else words
    names = (word.partition("=")[0] for word in options if len(word) > len("--"))
    return any("--json".startswith(name) for name in names)  # argparse accepts --js, too


def print_error(
    error: BaseException, command: str | None, exit_code: int, *, path: str | None, as_json: bool
) -> int:
    """Print an error on standard error and return ``exit_code``.

    ``path`` is used where the error names no file itself.
    """
    text = _text_of(error)
    if not as_json:
        print_stderr(f"uringblob{f' {command}' if command else ''}: {text}")
        return exit_code
    named = getattr(error, "filename", None)
    if named in {STDIN, STDOUT}:
        path = None
    elif isinstance(named, (str, bytes)):
        path = os.fsdecode(named)
    guid, number = getattr(error, "guid", None), _first_known(error, "errno")
    failure = {
        "error": text,
        "kind": type(error).__name__,
        "command": command,
        "exit_code": exit_code,
        "path": path,
        "guid": None if guid is None else str(guid),
        "offset": _first_known(error, "offset"),
        "errno": number,
        "errno_name": errno.errorcode.get(number) if number else None,
    }
    print_stderr(json.dumps(failure))
    return exit_code


def _text_of(error: BaseException) -> str:
    """Return the error's text; a file's name stands first, as it does with other commands."""
    if isinstance(error, BlobStoreIOError):
        return str(error.strerror)
    if isinstance(error, OSError) and error.filename is not None:
        return f"{encodable(os.fsdecode(error.filename))}: {error.strerror}"
    return str(error)


def _first_known(error: BaseException | None, name: str) -> int | None:
    """Return an int attribute of the error, or else of the first of its causes that has it."""
    while error is not None:
        value = getattr(error, name, None)
        if isinstance(value, int):
            return value
        error = error.__cause__
    return None


class JsonWarnings(logging.Handler):
    """Writes the log's warnings as JSON lines to standard error, where Python would print words."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; the fields are those of :mod:`uringblob.logs`."""
        known = {name: getattr(record, name) for name in ("event", *FIELDS) if hasattr(record, name)}
        print_stderr(json.dumps({"warning": record.getMessage(), **known}, default=str))
