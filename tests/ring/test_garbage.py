"""A ring in cyclic garbage, with other finalizers before and after its own.

With a cffi destructor, which the collector runs in any order with Python's finalizers, the memory of an
interrupted program's ring was freed before the ring was finalized: glibc reported "corrupted double-linked
list" at interpreter exit (one interrupted run of sixty).
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys

import pytest

from uringblob.ring import Ring

pytestmark = pytest.mark.usefixtures("needs_uring")

#: glibc fills freed memory with this byte, so that a use after free does not find the old contents.
PERTURBED = {"MALLOC_PERTURB_": "165", "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}

SCRIPT = """
import gc, warnings
from uringblob.ring import Ring
warnings.simplefilter("ignore", ResourceWarning)

class Looks:
    def __del__(self):
        ring = self.ring
        ring.stats(), repr(ring), ring.closed
        ring.abandon()
        assert ring._c_ring.fd == -1

for number in range(60):
    first, last = Looks(), Looks()
    ring = Ring(8)
    ring.nop()
    if number % 3:
        ring.flush()
    first.ring = last.ring = ring
    # The collector puts what it meets alive in the order in which it meets it; so, sometimes, the
    # ring's memory comes before the ring, and later ends before it.
    order = [first, ring._in_flight, ring, last, ring._c_ring]
    order = order[number % 5 :] + order[: number % 5]
    del first, last, ring
    gc.collect()
    order.append(order)
    del order
    gc.collect()
print("clean")
"""


def test_in_a_garbage_cycle_with_finalizers_that_use_it():
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, **PERTURBED},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout, ran.stderr[-2000:]) == (0, "clean\n", "")


def test_its_memory_has_no_destructor_of_its_own():
    """Then the collector cannot free it before the finalizers have run: it only counts references."""
    ring = Ring(8)
    # A pointer with a destructor would not own what it points to, and the collector would track it.
    assert "owning" in repr(ring._c_ring)
    assert not gc.is_tracked(ring._c_ring)
    ring.close()
    assert ring._c_ring.fd == -1
    assert ring.stats().closed


def test_a_ring_that_was_closing_when_it_was_dropped_is_left():
    """Nothing awaits its end: its descriptor is closed with it."""
    before = len(os.listdir("/proc/self/fd"))
    ring = Ring(8)
    ring.nop()
    ring.flush()
    ring._closing = True
    del ring
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before
