"""Standard input, output and error of a command: every write is complete, or an ``OSError``.

* Where the caller closed a standard descriptor (``>&-``), Python's stream is ``None``, and the next file
  that is opened gets the free descriptor: output would go into a store at descriptor 1 or 2.
* A raw stream (``PYTHONUNBUFFERED=1``, which container images set) may write less than it was given, for
  instance to a full disk; neither ``print`` nor :mod:`argparse` checks the count.
* A stream that another process made non-blocking may accept nothing for a while.

Within :func:`full_write_streams` all output goes through :class:`FullWriteStream`.
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
#: Bytes of one read: the buffer for all of them is allocated first.
_READ_BYTES: Final = 1 << 20


class FullWriteStream(io.RawIOBase):
    """A raw stream over another one, without short writes: ``write`` writes everything or raises ``OSError``.

    It bypasses the buffer of ``stream``, which must be empty.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream: Any = getattr(stream, "raw", stream)

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the underlying descriptor."""
        return int(self._stream.fileno())

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return bool(self._stream.isatty())

    def write(self, data: Any) -> int:
        """Write all of ``data``; wait while the stream accepts nothing."""
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
    """Wait until a descriptor is ready or has failed."""
    ready = select.poll()
    ready.register(descriptor, event)
    ready.poll()


def read_all(stream: BinaryIO, size_max: int) -> bytes:
    """Read to the end, or ``size_max`` bytes; wait while a non-blocking stream has no data."""
    source: Any = stream  # its ``read`` may return None, which BinaryIO's type does not say
    parts: list[bytes] = []
    left = size_max
    while left > 0:
        part: bytes | None = source.read(min(left, _READ_BYTES))
        if part is None:
            _wait(source.fileno(), select.POLLIN)
        elif part:
            parts.append(part)
            left -= len(part)
        else:
            break
    return b"".join(parts)


@contextlib.contextmanager
def full_write_streams() -> Iterator[None]:
    """Within the block standard output and error have no short writes, and no standard descriptor is free."""
    _open_closed_streams()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(_full_write, before)
    try:
        yield
    finally:
        # No flush: what is still buffered failed to be written, and that was reported.
        sys.stdout, sys.stderr = before


def _full_write(text: TextIO) -> TextIO:
    below = getattr(text, "buffer", None)
    if below is None or isinstance(below, FullWriteStream):
        return text  # in memory, such as a ``StringIO``
    text.flush()
    return io.TextIOWrapper(
        FullWriteStream(below),  # type: ignore[type-var] # a raw stream that never writes short
        encoding=text.encoding,
        errors=text.errors,
        line_buffering=getattr(text, "line_buffering", False),
        write_through=getattr(text, "write_through", False),
    )


def _open_closed_streams() -> None:
    """Occupy each closed standard descriptor, so that its stream raises EBADF."""
    # Ascending: ``open`` returns the lowest free descriptor.
    for number, (name, mode) in enumerate([("stdin", "r"), ("stdout", "w"), ("stderr", "w")]):
        try:
            os.fstat(number)
        except OSError:
            wrong_direction = os.O_WRONLY if mode == "r" else os.O_RDONLY
            os.set_inheritable(os.open(os.devnull, wrong_direction), True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - stays open


@contextlib.contextmanager
def naming_file(name: str) -> Iterator[None]:
    """Give an ``OSError`` of the block the file name ``name``: a path, :data:`STDIN` or :data:`STDOUT`."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, name) from error


def print_line(text: str) -> None:
    """Write a line to standard output and flush; an ``OSError`` names standard output."""
    with naming_file(STDOUT):
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def print_bytes(data: bytes) -> None:
    """Write bytes to standard output and flush; an ``OSError`` names standard output."""
    with naming_file(STDOUT):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def print_stderr(text: str) -> None:
    """Write a line to standard error; where that fails, the exit code is all there is."""
    with contextlib.suppress(OSError):
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def discard_output() -> None:
    """Redirect standard output to /dev/null: the interpreter flushes it again at exit."""
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, sys.stdout.fileno())
    os.close(sink)
