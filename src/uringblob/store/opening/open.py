"""From a path to a core: find or make the file, lock it, recover it, make it ready.

``open`` returns when recovery's own writes are flushed (rule 4), both superblocks name the log in use
(rule 9), and the log's reserve is allocated if there is room (rule 13).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from uringblob.api.open_options import OpenOptions
from uringblob.engines.base import Engine
from uringblob.engines.copy_on_write import why_copied
from uringblob.engines.request import EngineRequest
from uringblob.engines.select import open_engine
from uringblob.engines.to_thread import to_thread
from uringblob.errors import BlobStoreIOError, StoreCorrupt, check_limit, encodable
from uringblob.guid import BlobGuid
from uringblob.logs import logger
from uringblob.store.core import Core
from uringblob.store.features import unknown_features
from uringblob.store.file import (
    StoreFile,
    check_page_size_matches,
    naming,
    newest,
    open_locked,
    read_superblocks,
)
from uringblob.store.format import VERSION, SlotRun, Superblock, entry_slot, first_slot
from uringblob.store.index.blob_index import BlobIndex
from uringblob.store.index.log_space import LogSpace
from uringblob.store.index.shards import Shards
from uringblob.store.index.slot_states import SlotState
from uringblob.store.index.slots import SlotTable
from uringblob.store.io.file_io import FileIO
from uringblob.store.log.in_turns import confirm_in_turns
from uringblob.store.log.superblocks import Superblocks
from uringblob.store.log.writer import Log
from uringblob.store.opening.cached_reads import why_cached
from uringblob.store.opening.create import create_store, initial_size
from uringblob.store.opening.holes import set_holes_aside
from uringblob.store.opening.recover import RecoveredLog
from uringblob.store.opening.repair import repair
from uringblob.store.opening.state import State, read_alone
from uringblob.store.opening.view import View
from uringblob.units import PAGE_SIZE, check_label

#: Free slots behind the last used one that an opener keeps; ``grow`` finds the others.
_SPARE_SLOTS = 1 << 20


async def find_file(options: OpenOptions) -> StoreFile:
    """Find or make the file, and lock it; may be cancelled, and then holds nothing."""

    def create(path: str) -> None:
        size_bytes = initial_size(options.page_size or PAGE_SIZE)
        check_limit(size_bytes, options.max_bytes, f"creating {path}, which takes {size_bytes} bytes")
        create_store(path, options.page_size or PAGE_SIZE, options.mode, check_label(options.label))

    return await open_locked(
        options.file,
        read_only=options.read_only,
        lock_timeout=options.lock_timeout,
        create=create if options.create and not options.read_only else None,
        beside=options.read_only,
    )


async def open_core(options: OpenOptions, file: StoreFile) -> Core:
    """Open the store in ``file``; whatever goes wrong, the file is closed and unlocked."""
    try:
        with naming(file.path, "opening it"):
            superblocks = await to_thread(read_superblocks, file)
            file.why_copied = why_copied(file.fd)
            current, _ = newest(superblocks, file.path)
            check_page_size_matches(current, options.page_size, file.path)
            return await _open_on_engine(options, file, superblocks, current.page_size)
    except GeneratorExit:
        file.abandon()  # not unlocked: the engine may have a request under way
        raise
    except BaseException:
        file.close()
        raise


async def _open_on_engine(
    options: OpenOptions, file: StoreFile, superblocks: list[Superblock | None], page_size: int
) -> Core:
    loop = asyncio.get_running_loop()
    engine = open_engine(
        EngineRequest(
            fd=file.fd,
            path=file.path,
            page_size=page_size,
            engine=options.engine,
            direct=options.direct,
            buffers=options.buffers,
            queue_depth=options.queue_depth,
            read_only=options.read_only,
            loop=loop,
        )
    )
    try:
        return await start_core(
            file,
            engine,
            superblocks,
            verify=options.verify,
            cached=lambda: why_cached(file.fd, direct_io=engine.direct_io, flushed=file.flushed),
            max_bytes=options.max_bytes,
            lock_timeout=options.lock_timeout,
        )
    except GeneratorExit:
        engine.abandon()  # dropped half-way: nothing may be awaited any more
        raise
    except BaseException:
        await engine.close()
        raise


async def start_core(
    file: StoreFile,
    engine: Engine,
    superblocks: list[Superblock | None],
    *,
    verify: bool,
    cached: Callable[[], str],
    max_bytes: int | None = None,
    lock_timeout: float = 0.0,
) -> Core:
    """Recover what ``file`` durably says, through ``engine``, and make it ready.

    The caller has flushed the file (rule 12), unless a reader is beside a writer, and found at least one good
    superblock; it closes ``engine`` if this raises.  ``cached`` returns why the engine's reads may be a
    cache's, or "".
    """
    file_io = FileIO(engine, encodable(file.path), asyncio.get_running_loop())
    if file.read_only:
        view = View(file, file_io, cached)
        core = _build(file, file_io, await view.begin(superblocks, lock_timeout), verify=verify)
        core.view = view
        view.show(core)
        return core
    state = await read_alone(file, file_io, superblocks, cached=cached())
    if state.superblock.read_only_compatible:
        raise StoreCorrupt(
            f"{file.path} needs features of a newer release to be changed ({unknown_features(state.superblock)}): "
            "open it with read_only=True, or use the release that wrote it"
        )
    core = _build(file, file_io, state, verify=verify)
    core.growth.max_bytes = max_bytes
    await _make_writable(core, state)
    return core


async def _make_writable(core: Core, state: State) -> None:
    """Do what must be done before the first change; without room for it, only changes are refused."""
    file_io, found = core.file_io, state.found

    async def repair_crash() -> None:
        await repair(file_io, found, core.superblocks, state.both)
        if state.superblock.version == VERSION:  # a reader of version 1 keeps writers out
            core.file.locks.announce(found.seq)
        # The floor covers the last group now: nothing can drop it, so nothing needs what it replaced.
        await confirm_in_turns(file_io.checksum_budget, core.index.slots, found.seq)

    try:
        await file_io.repairs.make(repair_crash)
    except BlobStoreIOError as error:
        if not file_io.repairs.lacks_room(error):
            raise
        logger.warning(
            "%s", error, extra={"event": "opened_full", "path": file_io.path, "errno": error.errno}
        )
    else:
        await set_holes_aside(core)
        await core.growth.complete_log_space()


def _build(file: StoreFile, file_io: FileIO, state: State, *, verify: bool) -> Core:
    found, superblock = state.found, state.superblock
    page_size, entries = superblock.page_size, found.replay.entries
    segments = [*found.reader.segments, found.reader.tail]
    owned = [*found.log_space] if superblock.version > 1 else segments
    slots = SlotTable(first_slot(page_size), _slots_known(file_io, entries, owned, page_size))
    for run in owned:  # recovery checked that they lie inside the file and apart from each other
        slots.mark_run_used(run, SlotState.LOG)
    log_space = LogSpace(page_size, found.log_space, segments if superblock.version > 1 else ())
    index = BlobIndex(slots)
    if not file.read_only:
        slots.none_between = file.locks.none_between
    slots.confirm(found.seq if file.read_only else max(found.floor, found.seq - 1))
    clash = index.load(entries, found.replay.superseded(), found.seq)
    if clash is not None:
        raise StoreCorrupt(
            f"{file.path}: the map gives blob {BlobGuid(clash)} a slot that is taken or impossible. "
            "Restore the store from a copy"
        )
    if not file.read_only:
        # A reader of an older state may be there; which of these slots it needs is not known any more.
        slots.keep_all_free(found.seq, file_io.file_size() // page_size)
    log = Log(
        file_io,
        store_id=superblock.store_id,
        log_id=found.reader.log_id,
        page_size=page_size,
        segments=[*found.reader.segments],
        tail=found.reader.tail,
        position=found.reader.position,
        seq=found.seq,
        space=log_space,
        group_blocks=found.group_blocks,
    )
    superblocks = Superblocks(file_io, superblock, state.offset)
    core = Core(file, file_io, index, log, verify=verify, superblocks=superblocks, log_space=log_space)
    core.notes += _notes(found, slots, file)
    _log_opened(core)
    return core


def _log_opened(core: Core) -> None:
    engine, path = core.file_io.engine, core.file.path
    logger.info(
        "%s: opened with %d blobs through %s (%s)",
        path,
        len(core.index),
        engine.name,
        engine.reason,
        extra={"event": "opened", "path": path, "engine": engine.name, "blobs": len(core.index)},
    )


def _slots_known(file_io: FileIO, entries: Shards[int], owned: list[SlotRun], page_size: int) -> int:
    """Return how many slots to keep a state of: a sparse file may claim any length."""
    in_file = file_io.file_size() // page_size
    # The slot is an entry's upper bits, so the largest entry has the highest slot.
    highest = entry_slot(max(entries.values(), default=0))
    if highest >= in_file:  # the file was cut
        slots = map(entry_slot, entries.values())
        highest = max((slot for slot in slots if slot < in_file), default=0)
    used = max(highest + 1, *(run.end for run in owned))
    return min(in_file, used + _SPARE_SLOTS)


def _notes(found: RecoveredLog, slots: SlotTable, file: StoreFile) -> list[str]:
    notes = found.notes()
    lost = slots.live_beyond()
    if lost:
        notes.append(f"the file is too short for its map: {lost} blobs are lost")
        logger.error(
            "%s: the file is too short for its map: %d blobs are lost; restore them from a copy",
            file.path,
            lost,
            extra={"event": "blobs_lost", "path": file.path, "blobs": lost},
        )
    if file.why_copied:
        notes.append(f"{file.why_copied}: on a full disk a change, even a deletion, may be refused")
    return notes
