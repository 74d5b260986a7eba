"""Where the suite's random tests begin: one number for each commit, so that CI tries something new each time.

The number is ``URINGBLOB_TEST_SEED``, else drawn from the commit, else, where there is no git and no
repository, :data:`FALLBACK`.  Every run prints it, and a failure is replayed by one line::

    URINGBLOB_TEST_SEED=4711 python -m pytest 'tests/sim/test_crash.py::test_random_lives[3]'

Fresh seeds without end belong to ``make torture``.  Seeds that stay as they are: those of what was once
found (``test_found.py``), those of sweeps that try every index or every await of one workload, whose
counts are promised, and those of the hunts for planted bugs, which show that the rig can fail.
"""

from __future__ import annotations

import functools
import os
import subprocess
from pathlib import Path

#: Where nobody says which commit this is: an unpacked sdist, a checkout without git.
FALLBACK = 1
VARIABLE = "URINGBLOB_TEST_SEED"
#: Whoever counts seeds up from the first stays this far from the next commit's.
APART = 10_000_000
_COMMITS = 1_000_000


@functools.cache
def number() -> int:
    """Return this run's number; workers and children get it by the environment."""
    if named := os.environ.get(VARIABLE):
        return int(named)
    return of_commit(Path(__file__).parent)


def of_commit(directory: Path) -> int:
    """Return the number of the commit that is checked out in ``directory``."""
    # In a git hook these name another repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-c", "safe.directory=*", "-C", str(directory), "rev-parse", "HEAD"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    except OSError:
        return FALLBACK
    return int(answer.stdout[:12], 16) % _COMMITS + 1 if answer.returncode == 0 else FALLBACK


def first() -> int:
    """Return the seed that this run's seeds are counted up from; a multiple of 2, 3, 4 and 6 and more."""
    return number() * APART * 3


def replay_line(nodeid: str) -> str:
    """Return the line that runs one test again as it ran here."""
    return f"replay: {VARIABLE}={number()} python -m pytest '{nodeid}'"
