"""``uringblob bench``: the command of another distribution, ``uringblob-bench``, imported when it is named.

Its module ``uringblob_bench.command`` has ``add_arguments(parser)`` and ``run(args) -> int``, and raises
what other commands raise.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Sequence
from typing import Any

from uringblob.cli import exits
from uringblob.cli.errors import CliError, Parser

HELP = "measure the store beside fio and its peers (distribution uringblob-bench)"
_PACKAGE = "uringblob_bench"
_MISSING = "needs the distribution uringblob-bench: pip install uringblob-bench (from a clone: ./benchmarks)"


class CommandParser(Parser):
    """A command's parser; ``fill`` adds its arguments when the command line names the command."""

    def __init__(self, *args: Any, fill: Callable[[Parser], bool] | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self._fill = fill

    def parse_known_args(  # type: ignore[override] # argparse has overloads for the namespace's type
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Parse; where the command is missing, take every word and let ``run`` refuse."""
        if self._fill is not None and not self._fill(self):
            return argparse.Namespace(run=_refuse), []
        return super().parse_known_args(args, namespace)


def fill(parser: Parser) -> bool:
    """Add the benchmark's arguments; false if it is not installed."""
    try:
        command = importlib.import_module(f"{_PACKAGE}.command")
    except ModuleNotFoundError as error:
        if error.name != _PACKAGE:
            raise
        return False
    command.add_arguments(parser)
    parser.set_defaults(run=command.run)
    return True


def _refuse(_args: argparse.Namespace) -> int:
    raise CliError(_MISSING, exits.USAGE)
