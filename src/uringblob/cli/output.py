"""The output of a command: words for people, or JSON for programs.

Colour and progress bars need ``rich`` (the extra ``[cli]``) and a terminal; without either the same
words are printed plainly.  Results go to standard output, everything else to standard error, so that
``get ... -`` may be piped.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from uringblob.cli.stdio import print_line

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")
_STEP = 1024


def size_text(size_bytes: int) -> str:
    """Return a size as people read it: ``512 KiB``, ``1.5 GiB``."""
    size, unit = float(size_bytes), 0
    while size >= _STEP and unit < len(_UNITS) - 1:
        size, unit = size / _STEP, unit + 1
    digits = f"{size:.0f}" if size == int(size) else f"{size:.1f}"
    return f"{digits} {_UNITS[unit]}"


def print_result(args: argparse.Namespace, value: Any, text: str | None = None) -> None:
    """Print ``value`` as JSON if ``--json`` was given, else ``text``; an ``OSError`` names standard output."""
    printed = json.dumps(value) if args.json else text
    if printed:
        print_line(printed)


def table(rows: Mapping[str, str], *, warn: str) -> str:
    """Return a ``name  value`` line per row; the row named ``warn`` is yellow on a terminal."""
    width = max(map(len, rows))
    lines = {name: f"{name:<{width}}  {text}" for name, text in rows.items()}
    if warn in lines and sys.stdout.isatty() and "NO_COLOR" not in os.environ:
        lines[warn] = f"\x1b[33m{lines[warn]}\x1b[0m"
    return "\n".join(lines.values())


@contextlib.contextmanager
def progress_bar(args: argparse.Namespace, what: str) -> Iterator[Callable[[int, int], object] | None]:
    """Yield a function to call with ``(done, total)``; ``None`` if standard error is no terminal."""
    if args.json or not sys.stderr.isatty():
        yield None
        return
    try:
        from rich.console import Console
        from rich.progress import Progress
    except ImportError:
        try:
            yield lambda done, total: (sys.stderr.write(f"\r{what} {done}/{total}"), sys.stderr.flush())
        finally:
            sys.stderr.write("\n")
        return
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
