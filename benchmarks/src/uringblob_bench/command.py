"""The command ``uringblob bench``: its arguments, the run and its exit code.

The command line of uringblob mounts it, and makes a line of words or JSON of the errors raised here.
"""

from __future__ import annotations

import argparse
import os
import sys

from uringblob_bench import options

add_arguments = options.add_arguments
EXIT_DONE, EXIT_FAILED = 0, 1


def run(args: argparse.Namespace) -> int:
    """Run the requested workloads.

    :returns: 0: everything ran (the table says which targets were reached); 1: something failed, the
        rest ran.
    :raises ValueError: wrong usage: there is no such directory, measure or sweep.
    :raises OSError: a file could not be made or written.
    """
    from uringblob_bench.running import run_all

    try:
        return EXIT_DONE if run_all(args) else EXIT_FAILED
    except BrokenPipeError:
        # At its end the interpreter would try to write the rest again, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; its files are gone") from None
