"""Waiting until a store does nothing for itself any more, such as shortening its log."""

from __future__ import annotations

import asyncio
import time

PATIENCE = 60


def _pending(store, end):
    pending = store.stats().in_flight
    assert not pending or time.monotonic() < end, f"{pending} requests never end"
    return pending


def quiet(store):
    """Wait until no request of a synchronous store is in flight."""
    end = time.monotonic() + PATIENCE
    while _pending(store, end):
        time.sleep(0.001)


async def quiet_async(store):
    """Wait until no request of an asynchronous store is in flight."""
    end = time.monotonic() + PATIENCE
    while _pending(store, end):
        await asyncio.sleep(0.001)
