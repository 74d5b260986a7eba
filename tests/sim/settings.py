"""How much of the fault rows every run of the suite does; ``make torture`` does as much as there is time for."""

from __future__ import annotations

import os

#: Under ``coverage run``, which counts lines and not images, one in so many.
_TRACED = bool(os.environ.get("COVERAGE_RUN"))
_ONE_IN = 20 if _TRACED else 1

#: Row 2: images opened and judged, and how many tests share them.
IMAGES = 100_000 // _ONE_IN
IMAGE_CHUNKS = 50

#: Row 3: operations in a sequence; every sequence of up to so many is run.
SEQUENCE_MAX = 2 if _TRACED else 3

#: Row 4: images left by cuts during recovery and during that recovery.
RELAPSES = 10_000 // _ONE_IN
RELAPSE_CHUNKS = 10

#: Row 5: workloads swept by each fault.
FAULT_SEEDS = 1

#: Row 8: bits flipped in frames; those of superblocks and log are flipped every one.
FLIPS_IN_FRAMES = 10_000 // _ONE_IN

#: Row 10: from one byte that is changed to the next; coprime to the sizes of sectors, cells and fields.
BYTES_APART = 19 if _TRACED else 1

#: Row 11: mutated files, and how many tests share them.
MUTATIONS = 4_000 if _TRACED else 20_000
MUTATION_CHUNKS = 40

#: Row 19: frames overwritten and deleted at each frame size.
REPLACED = 200_000 // _ONE_IN
