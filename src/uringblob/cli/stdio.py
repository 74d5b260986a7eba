"""Standard input, output and error of a command: all of what is written, or an error.

* Where the caller closed one of them (``>&-``), Python has ``None`` in its place, and the next file that
  is opened gets the free descriptor: a store at descriptor 2 would be written to by whatever prints an
  error.
* A raw stream (``PYTHONUNBUFFERED=1``, as container images set it) takes a part of what it is given,
  on a full disk for instance, and neither ``print`` nor :mod:`argparse` looks at how much.
* A stream that another process made non-blocking takes nothing for a while, and is not at its end.

So within :func:`whole_streams` everything goes through :class:`WholeOutput`, whoever writes it.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO, Final, TextIO

STDIN: Final = "standard input"
STDOUT: Final = "standard output"
#: Bytes asked for at once: a read makes room for all it asks for.
_PIECE: Final = 1 << 20


class WholeOutput(io.RawIOBase):
    """A raw stream over another one, whose ``write`` writes everything or raises ``OSError``."""

    def __init__(self, stream: BinaryIO) -> None:
        """Write to ``stream``, past its buffer where it has one, which must be empty."""
        self._stream: Any = getattr(stream, "raw", stream)

    def writable(self) -> bool:
        """Whether it can be written to: yes."""
        return True

    def fileno(self) -> int:
        """The descriptor below."""
        number: int = self._stream.fileno()
        return number

    def isatty(self) -> bool:
        """Whether people look at it."""
        return bool(self._stream.isatty())

    def write(self, data: Any) -> int:
        """Write all of ``data``; wait where the stream takes nothing for the moment."""
        with memoryview(data) as view, view.cast("B") as left:
            done = 0
            while done < len(left):
                put = self._stream.write(left[done:])
                if put is None:
                    _wait(self.fileno(), select.POLLOUT)
                elif put == 0:
                    raise OSError(errno.EIO, "the system wrote no byte")
                else:
                    done += put
            return len(left)


def _wait(descriptor: int, event: int) -> None:
    """Wait until a descriptor is ready; one that has failed is ready, too."""
    ready = select.poll()
    ready.register(descriptor, event)
    ready.poll()


def read_whole_input(stream: BinaryIO, size_max: int) -> bytes:
    """Read to the end, or ``size_max`` bytes; a non-blocking stream that has nothing yet is waited for."""
    source: Any = stream  # typing has no name for a stream that may answer ``None``
    parts: list[bytes] = []
    left = size_max
    while left > 0:
        part: bytes | None = source.read(min(left, _PIECE))
        if part is None:
            _wait(source.fileno(), select.POLLIN)
        elif part:
            parts.append(part)
            left -= len(part)
        else:
            break
    return b"".join(parts)


@contextlib.contextmanager
def whole_streams() -> Iterator[None]:
    """Within the block standard output and error write everything or fail; no descriptor of theirs is free."""
    hold_standard_streams()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(_whole, before)
    try:
        yield
    finally:
        # What is in them could not be written, and was said; or a traceback says more.
        sys.stdout, sys.stderr = before


def _whole(text: TextIO) -> TextIO:
    below = getattr(text, "buffer", None)
    if below is None or isinstance(below, WholeOutput):
        return text  # memory, such as a ``StringIO``
    text.flush()
    return io.TextIOWrapper(
        WholeOutput(below),  # type: ignore[type-var] # a raw stream that never writes short
        encoding=text.encoding,
        errors=text.errors,
        line_buffering=getattr(text, "line_buffering", False),
        write_through=getattr(text, "write_through", False),
    )


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


def say_bytes(data: bytes) -> None:
    """Write bytes to standard output, all of them, at once.

    :raises OSError: they could not be written; the error names standard output.
    """
    with named(STDOUT):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def complain(text: str) -> None:
    """Write a line to standard error; where it cannot be written, the exit code must do."""
    with contextlib.suppress(OSError):
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def forget_output() -> None:
    """Let what could not be written go: the interpreter would try again at its end, and say so."""
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, sys.stdout.fileno())
    os.close(sink)
