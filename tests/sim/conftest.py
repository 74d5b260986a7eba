"""What every simulated test shares: a collector that looks seldom."""

from __future__ import annotations

import gc

import pytest

#: Thousands of small stores are opened and dropped; at CPython's own 700 the collector takes an eighth of the time.
ALLOCATIONS = 20_000


@pytest.fixture(scope="package", autouse=True)
def _collector_looks_seldom():
    before = gc.get_threshold()
    gc.set_threshold(ALLOCATIONS, *before[1:])
    yield
    gc.set_threshold(*before)
