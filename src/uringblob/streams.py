"""Standard input, output and error, where the caller closed one of them (``>&-``).

Python then has ``None`` in its place, and the next file that is opened gets the free descriptor: a store
at descriptor 2 would be written to by whatever prints an error.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Final

STDIN: Final = "standard input"
STDOUT: Final = "standard output"


def hold_standard_streams() -> None:
    """Occupy every standard descriptor that is closed; using its stream is then an ``EBADF``."""
    for number, flags in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        _occupy(number, flags)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - as long as the process
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def _occupy(number: int, flags: int) -> None:
    try:
        os.fstat(number)
    except OSError:
        # The lowest free number is taken, and the lower ones are occupied by now.
        os.set_inheritable(os.open(os.devnull, flags), True)


@contextlib.contextmanager
def named(name: str) -> Iterator[None]:
    """Give an ``OSError`` the stream's name, as it would have a file's: ``STDIN`` or ``STDOUT``."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, name) from error


def say(text: str) -> None:
    """Write a line to standard output, at once.

    :raises OSError: it could not be written; the error names standard output.
    """
    with named(STDOUT):
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def forget_output() -> None:
    """Let what could not be written go: the interpreter would try again at its end, and say so."""
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, sys.stdout.fileno())
    os.close(sink)
