"""What a command says: for people on a terminal, or as JSON for programs.

Colour and progress bars come from ``rich`` (the extra ``[cli]``) and only on a terminal; without
either the same words are printed plainly.  Results go to standard output, everything else to
standard error, so that ``get ... -`` may be piped.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from uringblob.cli.stdio import say, say_bytes

Progress = Callable[[int, int], None]

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")
_STEP = 1024


def size_text(size_bytes: int) -> str:
    """Return a size as people read it: ``512 KiB``, ``1.5 GiB``."""
    size, unit = float(size_bytes), 0
    while size >= _STEP and unit < len(_UNITS) - 1:
        size, unit = size / _STEP, unit + 1
    digits = f"{size:.0f}" if size == int(size) else f"{size:.1f}"
    return f"{digits} {_UNITS[unit]}"


class Output:
    """Where a command's words go.  ``as_json``: one JSON value on standard output, nothing else."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    def result(self, value: Any, text: str | None = None) -> None:
        """Say the command's result: ``value`` as JSON, or ``text`` for people.

        :raises OSError: it could not be written; the error names standard output.
        """
        said = json.dumps(value) if self.as_json else text
        if said:
            say(said)

    def frame(self, data: bytes) -> None:
        """Write a frame's bytes to standard output.

        :raises OSError: it could not be written; the error names standard output.
        """
        say_bytes(data)

    def table(self, rows: Mapping[str, str], *, warn: tuple[str, ...] = ()) -> str:
        """Return ``name  value`` lines; names in ``warn`` are coloured on a terminal."""
        width = max(map(len, rows))
        lines = []
        for name, text in rows.items():
            line = f"{name:<{width}}  {text}"
            lines.append(self.colour(line, "33") if name in warn else line)
        return "\n".join(lines)

    def colour(self, text: str, code: str) -> str:
        """Return ``text`` in an ANSI colour where standard output is a terminal that wants it."""
        wanted = sys.stdout.isatty() and not self.as_json and "NO_COLOR" not in os.environ
        return f"\x1b[{code}m{text}\x1b[0m" if wanted else text

    @contextlib.contextmanager
    def progress(self, what: str) -> Iterator[Progress | None]:
        """Yield a function to call with ``(done, total)``; ``None`` where nobody looks."""
        if self.as_json or not sys.stderr.isatty():
            yield None
            return
        try:
            from rich.console import Console
            from rich.progress import Progress as Bar
        except ImportError:
            with _plain_progress(what) as show:
                yield show
            return
        with Bar(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)


@contextlib.contextmanager
def _plain_progress(what: str) -> Iterator[Progress]:
    def show(done: int, total: int) -> None:
        sys.stderr.write(f"\r{what} {done}/{total}")
        sys.stderr.flush()

    try:
        yield show
    finally:
        sys.stderr.write("\n")
