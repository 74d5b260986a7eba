"""The command: what is asked for, the run, what it leaves, and the exit code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import util

from uringblob.streams import forget_output

#: The extra's distributions without which there is no command.
_NEEDED = ("rich", "matplotlib")
EXIT_FAILED, EXIT_UNUSABLE, EXIT_INTERRUPTED = 1, 2, 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``uringblob bench`` to a parser."""
    from uringblob.bench.options import add_options

    add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Run what was asked for.

    :returns: 0: everything ran (whether targets were reached stands in the table);
        1: something failed, the rest went on; 2: it could not begin.
    """
    missing = [name for name in _NEEDED if util.find_spec(name) is None]
    if missing:
        return _unusable(f"needs {' and '.join(missing)}: pip install 'uringblob[bench]'")
    from uringblob.bench.running import run_all

    try:
        return 0 if run_all(args) else EXIT_FAILED
    except BrokenPipeError:
        forget_output()  # nobody reads it any more
        return EXIT_FAILED
    except (OSError, ValueError) as error:
        return _unusable(str(error))
    except KeyboardInterrupt:
        print("uringblob bench: interrupted; its files are gone", file=sys.stderr)  # noqa: T201 - a command speaks
        return EXIT_INTERRUPTED


def _unusable(why: str) -> int:
    print(f"uringblob bench: {why}", file=sys.stderr)  # noqa: T201 - a command speaks
    return EXIT_UNUSABLE


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``python -m uringblob.bench``."""
    parser = argparse.ArgumentParser(
        prog="uringblob bench", description="Measures the store beside fio, a bare ring and its peers."
    )
    add_arguments(parser)
    return run(parser.parse_args(argv))
