"""A store's figures, gathered from the rooms that keep them."""

from __future__ import annotations

import os

from uringblob.stats import StoreStats
from uringblob.store.core import Core
from uringblob.store.slots import SlotState


def collect_stats(core: Core) -> StoreStats:
    """Return a frozen snapshot; takes no lock and waits for nothing."""
    engine = core.medium.engine
    pool, counters, slots = engine.pool, engine.counters, core.manifest.slots
    visitors = core.visitors
    file_bytes, allocated_bytes = _sizes(core)
    cause = core.medium.poison_cause
    return StoreStats(
        engine=engine.name,
        engine_reason=engine.reason,
        direct_io=engine.direct_io,
        page_size=core.page_size,
        blobs=len(core.manifest),
        file_bytes=file_bytes,
        allocated_bytes=allocated_bytes,
        slots_live=slots.count(SlotState.LIVE),
        slots_free=slots.count(SlotState.FREE),
        slots_pending=sum(
            slots.count(state) for state in (SlotState.WRITING, SlotState.PENDING, SlotState.RETIRED)
        ),
        slots_log=slots.count(SlotState.LOG) + slots.count(SlotState.RESERVE),
        buffers=pool.asked,
        buffers_registered=pool.capacity if pool.registered else 0,
        buffers_leased=pool.leased,
        buffers_reason=pool.reason,
        buffers_huge=pool.huge,
        reads=counters.reads + visitors.reads,
        writes=counters.writes,
        syncs=counters.syncs,
        bytes_read=counters.bytes_read + visitors.reads * core.page_size,
        bytes_written=counters.bytes_written,
        ring_enters=counters.ring_enters,
        in_flight=engine.in_flight + visitors.inside,
        reads_here=visitors.reads,
        commits=core.commits,
        log_groups=core.queue.groups,
        compactions=core.upkeep.compactions,
        batches_linked=core.batches_linked,
        batches_scattered=core.batches_scattered,
        bounces=core.bounces,
        read_only=core.file.read_only,
        poisoned="" if cause is None else str(cause),
        notes=(*core.notes, *core.medium.repairs.notes()),
    )


def _sizes(core: Core) -> tuple[int, int]:
    """Return the file's length and what the file system has given it, in bytes; as last seen once closed."""
    if core.file.fd >= 0:
        status = os.fstat(core.file.fd)
        core.last_sizes = (status.st_size, status.st_blocks * 512)
    return core.last_sizes
