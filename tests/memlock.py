"""Locked memory is one account per user: some of it is kept for the tests of the bare ring.

A store takes as many registered frames as the limit leaves room for, and is content with fewer.
A bare ring is not, and failed where a store of another test process had taken all there was
(seen as an ordinary user with a limit of 8 MiB).  Each process is held to its own soft limit of
that one account, so whoever keeps to a lower one leaves the difference to those who do not.
"""

from __future__ import annotations

import contextlib
import os
import resource

#: Rings of tests register at most 64 KiB each; the kernel gives back late what they had.
RESERVE_BYTES = 2 * 1024 * 1024
_LIMIT = resource.RLIMIT_MEMLOCK


def _limits():
    """Return soft and hard limit if they are in force here and leave room for a reserve, else None."""
    soft, hard = resource.getrlimit(_LIMIT)
    if os.geteuid() == 0 or hard == resource.RLIM_INFINITY or hard < 2 * RESERVE_BYTES:
        return None
    return soft, hard


def keep_reserve():
    """Keep this process and its children from taking the reserve."""
    if (limits := _limits()) is not None:
        soft, hard = limits
        resource.setrlimit(_LIMIT, (min(soft, hard - RESERVE_BYTES), hard))


@contextlib.contextmanager
def reserve_opened():
    """Inside, the reserve may be taken as well."""
    if (limits := _limits()) is None:
        yield
        return
    soft, hard = limits
    resource.setrlimit(_LIMIT, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(_LIMIT, (soft, hard))
