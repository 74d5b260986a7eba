"""Ctrl-C while a command is still importing ends it as quietly as later on.

Python imports this package before the first line of any of its commands runs, for ``python -m
uringblob`` and for the console script alike; so the package itself guards its imports, where it is
imported as a command.  A program that imports the library keeps its own manners.

A handler, and no ``except KeyboardInterrupt``: what is raised inside an import may be swallowed or
wrapped there (before CPython 3.12 ``__set_name__`` made a ``RuntimeError`` of it).  This module
imports nothing that the interpreter has not loaded by then, or needs at once.
Python's own start, before the package is found, is beyond reach.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType, TracebackType

NAME = "uringblob"
EXIT_INTERRUPTED = 130
_WORDS = "interrupted; the store is sound"
#: Spelled out: the module ``json`` may be half imported when this is needed.
_AS_JSON = (
    f'{{"error": "{_WORDS}", "kind": "KeyboardInterrupt", "command": null, "exit_code": {EXIT_INTERRUPTED}, '
    '"path": null, "guid": null, "offset": null, "errno": null, "errno_name": null}'
)


def asks_json(words: list[str]) -> bool:
    """Whether a command line says ``--json``, also one that makes no sense otherwise."""
    options = words[: words.index("--")] if "--" in words else words
    names = (word.partition("=")[0] for word in options if len(word) > len("--"))
    return any("--json".startswith(name) for name in names)  # argparse takes --js, too


def is_command() -> bool:
    """Whether this process is ``uringblob`` or ``python -m uringblob...``, and imports it just now."""
    first = getattr(sys, "argv", [])[:1]
    if first != ["-m"]:  # what stands there until Python has found the module to run
        return bool(first) and os.path.basename(first[0]) == NAME
    words = sys.orig_argv[1:]
    pairs = zip(words, words[1:], strict=False)  # noqa: RUF007 - the module itertools is not needed for it
    return any(
        option[0:1] == "-" and option[-1] == "m" and name.split(".")[0] == NAME for option, name in pairs
    )


class QuietInterrupts:
    """Within the block Ctrl-C ends the process: one line on standard error and exit code 130.

    Does nothing where ``wanted`` is false, in other threads than the first, and where somebody has
    decided about SIGINT already: a shell's background job ignores it.
    """

    def __init__(self, *, wanted: bool = True) -> None:
        self._on = (
            wanted
            and threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        )

    def __enter__(self) -> None:
        if self._on:
            signal.signal(signal.SIGINT, _end)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._on:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(_number: int, _frame: FrameType | None) -> None:
    line = _AS_JSON if asks_json(sys.orig_argv) else f"{NAME}: {_WORDS}"
    try:
        os.write(2, f"{line}\n".encode())
    except OSError:
        pass  # nobody hears it; the code tells
    finally:
        os._exit(EXIT_INTERRUPTED)
