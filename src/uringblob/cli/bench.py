"""``uringblob bench``: the command of another distribution, ``uringblob-bench``.

Its module ``uringblob_bench.command`` has ``add_arguments(parser)`` and ``run(args) -> int``, and raises
what other commands raise.
"""

from __future__ import annotations

import argparse
import importlib

from uringblob.cli.errors import EXIT_USAGE, CliError

_PACKAGE = "uringblob_bench"
_MISSING = "needs the distribution uringblob-bench: pip install uringblob-bench (from a clone: ./benchmarks)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's arguments.

    :raises CliError: the distribution is not installed.
    """
    try:
        command = importlib.import_module(f"{_PACKAGE}.command")
    except ModuleNotFoundError as error:
        if error.name != _PACKAGE:
            raise
        raise CliError(_MISSING, EXIT_USAGE) from None
    command.add_arguments(parser)
    parser.set_defaults(run=command.run)
