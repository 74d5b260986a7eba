"""The command: what is asked for, the run, what it leaves, and the exit code."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import util

from uringblob.cli.errors import (
    EXIT_INTERRUPTED,
    Failure,
    Parser,
    failure_of,
    output_failed,
    parse,
    print_error,
    words_of,
)
from uringblob.cli.stdio import discard_output, full_write_streams

#: The extra's distributions without which there is no command.
_NEEDED = ("rich", "matplotlib")
EXIT_FAILED, EXIT_UNUSABLE = 1, 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``uringblob bench`` to a parser."""
    from uringblob_bench.options import add_options

    add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Run what was asked for.

    :returns: 0: everything ran (whether targets were reached stands in the table);
        1: something failed, the rest went on; 2: it could not begin.
    """
    missing = [name for name in _NEEDED if util.find_spec(name) is None]
    if missing:
        return _unusable(args, f"needs {' and '.join(missing)}: pip install 'uringblob[bench]'")
    from uringblob_bench.running import run_all

    try:
        return 0 if run_all(args) else EXIT_FAILED
    except BrokenPipeError:
        discard_output()  # nobody reads it any more
        return EXIT_FAILED
    except (OSError, ValueError) as error:
        return _unusable(args, words_of(error), error)
    except KeyboardInterrupt:
        failure = Failure("interrupted; its files are gone", "KeyboardInterrupt", "bench", EXIT_INTERRUPTED)
        return print_error(failure, as_json=bool(args.json))


def _unusable(args: argparse.Namespace, why: str, error: Exception | None = None) -> int:
    failure = failure_of(error or ModuleNotFoundError(why), why, "bench", EXIT_UNUSABLE, path=args.directory)
    return print_error(failure, as_json=bool(args.json))


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``python -m uringblob_bench``."""
    parser = Parser(
        prog="uringblob bench", description="Measures the store beside fio, a bare ring and its peers."
    )
    add_arguments(parser)
    with full_write_streams():
        try:
            return run(parse(parser, argv))
        except OSError as error:
            return output_failed(error, "bench", EXIT_UNUSABLE, as_json=False)
