"""``python -m uringblob.doctor``: the doctor alone."""

from __future__ import annotations

import argparse
import sys

from uringblob.doctor.command import add_arguments, run

parser = argparse.ArgumentParser(
    prog="uringblob doctor", description="Says what will run here, and why not more."
)
add_arguments(parser)
sys.exit(run(parser.parse_args()))
