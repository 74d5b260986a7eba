"""How much the simulated disk is asked for: little in every run, much before a release.

``URINGBLOB_SIM_SEEDS`` random lives, ``URINGBLOB_SIM_LENGTH`` operations in exhaustive sequences,
``URINGBLOB_SIM_FAULT_SEEDS`` workloads swept by faults, ``URINGBLOB_SIM_BITS`` (1: every bit).
"""

from __future__ import annotations

import os

SEEDS = int(os.environ.get("URINGBLOB_SIM_SEEDS", "80"))
LENGTH = int(os.environ.get("URINGBLOB_SIM_LENGTH", "3"))
FAULT_SEEDS = int(os.environ.get("URINGBLOB_SIM_FAULT_SEEDS", "1"))
EVERY_BIT = bool(int(os.environ.get("URINGBLOB_SIM_BITS", "0")))

#: Seeds that one test goes through.
CHUNK = 10
