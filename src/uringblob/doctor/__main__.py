"""``python -m uringblob.doctor``: the doctor alone."""

from __future__ import annotations

import sys

from uringblob.start import QuietInterrupts

with QuietInterrupts():
    from uringblob.doctor.command import add_arguments, run
    from uringblob.failures import Parser, parse
    from uringblob.streams import forget_output, hold_standard_streams

hold_standard_streams()
parser = Parser(prog="uringblob doctor", description="Says what will run here, and why not more.")
add_arguments(parser)
try:
    sys.exit(run(parse(parser, None)))
except BrokenPipeError:
    forget_output()  # nobody reads it any more
    sys.exit(2)
