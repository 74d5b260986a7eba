"""A store's figures, gathered from the objects that count them."""

from __future__ import annotations

import os

from uringblob.api.backup import INCOMPLETE
from uringblob.api.stats import ReaderStats, StoreStats
from uringblob.errors import errno_name
from uringblob.store.core import Core
from uringblob.store.features import feature_names
from uringblob.store.index.slot_states import SlotState
from uringblob.store.lock_holder import reader_pids


def collect_stats(core: Core) -> StoreStats:
    """Return a frozen snapshot; takes no lock and does not wait."""
    engine, slots, caller_reads = core.file_io.engine, core.index.slots, core.caller_reads
    pool, counters = engine.pool, engine.counters
    notes = _notes(core)
    file_bytes, allocated_bytes = _sizes(core, notes)
    cause, superblock = core.file_io.poison_cause, core.superblocks.current
    return StoreStats(
        engine=engine.name,
        engine_reason=engine.reason,
        direct_io=engine.direct_io,
        page_size=core.page_size,
        format_version=superblock.version,
        features=tuple(feature_names(superblock)),
        created_ns=superblock.created_ns,
        label=superblock.label.decode(errors="replace"),
        blobs=len(core.index),
        file_bytes=file_bytes,
        allocated_bytes=allocated_bytes,
        log_bytes=slots.count(SlotState.LOG) * core.page_size,
        max_bytes=core.growth.max_bytes or 0,
        slots_live=slots.count(SlotState.LIVE),
        slots_free=slots.count(SlotState.FREE),
        slots_pending=sum(map(slots.count, (SlotState.WRITING, SlotState.PENDING, SlotState.RETIRED))),
        slots_holes=slots.count(SlotState.HOLE),
        slots_log=slots.count(SlotState.LOG),
        slots_held=slots.held,
        held_bytes=slots.held * core.page_size,
        snapshots=core.index.moments.snapshots,
        slots_kept=slots.kept,
        kept_bytes=slots.kept * core.page_size,
        readers=_readers(core),
        buffers=pool.asked,
        buffers_registered=pool.capacity if pool.registered else 0,
        buffers_leased=pool.leased,
        buffers_reason=pool.reason,
        buffers_huge=pool.huge,
        reads=counters.reads + caller_reads.made.value,
        writes=counters.writes,
        syncs=counters.syncs,
        bytes_read=counters.bytes_read + caller_reads.whole.value * core.page_size,
        bytes_written=counters.bytes_written,
        ring_enters=counters.ring_enters,
        in_flight=engine.in_flight + caller_reads.active,
        reads_here=caller_reads.made.value,
        commits=core.groups.commits,
        log_groups=core.groups.groups,
        compactions=core.maintenance.compactions,
        batches_linked=core.batches_linked,
        batches_scattered=core.batches_scattered,
        bounces=core.file_io.bounces.lent,
        read_only=core.file.read_only,
        poisoned="" if cause is None else str(cause),
        notes=(*notes, *core.file_io.repairs.notes()),
    )


def _notes(core: Core) -> list[str]:
    notes = list(core.notes)
    if name_note := core.identity.note():
        notes.append(f"{core.file.path}: {name_note}")
    if core.index.find(INCOMPLETE) is not None:
        notes.append("this is an incomplete backup: run it again, and do not use it as a store until then")
    if core.file.locks.refused:
        name = errno_name(core.file.locks.refused)
        notes.append(f"{core.file.path}: its readers see nothing new: the system refused a lock with {name}")
    return notes


def _readers(core: Core) -> tuple[ReaderStats, ...]:
    seqs = () if core.file.read_only else core.file.locks.registered()
    if not seqs:
        return ()
    pids = reader_pids(core.file.fd)
    return tuple(ReaderStats(seq, tuple(pids.get(seq, ()))) for seq in seqs)


def _sizes(core: Core, notes: list[str]) -> tuple[int, int]:
    """Return the file's length and its allocated bytes; once it is closed, as last seen."""
    if core.file.fd >= 0:
        try:
            status = os.fstat(core.file.fd)
        except OSError as error:  # the file system has died; all other figures are still right
            if error.errno is None:
                raise  # no answer of the system: a signal handler raised it
            name = errno_name(error.errno)
            notes.append(
                f"{core.file.path}: its size is what was last seen, because asking ended with {name}"
            )
        else:
            core.last_sizes = (status.st_size, status.st_blocks * 512)
    return core.last_sizes
