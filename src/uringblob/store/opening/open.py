"""From a path to a core: find or make the file, lock it, recover it, make it ready.

``open`` returns when recovery's own writes are flushed (rule 4), both superblocks name the log in use
(rule 9), and the log's reserve is allocated if there is room (rule 13).
"""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import numbers
import os
from typing import Any

from uringblob.engines.base import Engine
from uringblob.engines.copy_on_write import why_copied
from uringblob.engines.request import EngineRequest
from uringblob.engines.select import ENGINES, open_engine
from uringblob.engines.to_thread import to_thread
from uringblob.errors import BlobStoreIOError, StoreCorrupt, encodable
from uringblob.guid import BlobGuid
from uringblob.logs import logger
from uringblob.store.core import Core
from uringblob.store.file import (
    StoreFile,
    check_page_size_matches,
    judge_superblocks,
    naming,
    newest,
    open_locked,
    read_superblocks,
)
from uringblob.store.format import HEADER_SIZE, SlotRun, Superblock, entry_slot, first_slot
from uringblob.store.index.blob_index import BlobIndex
from uringblob.store.index.log_space import LogSpace
from uringblob.store.index.shards import Shards
from uringblob.store.index.slots import SlotState, SlotTable
from uringblob.store.io.file_io import FileIO
from uringblob.store.log.in_turns import confirm_in_turns
from uringblob.store.log.superblocks import Superblocks
from uringblob.store.log.writer import Log
from uringblob.store.opening.cached_reads import why_cached
from uringblob.store.opening.create import create_store
from uringblob.store.opening.newer_log import check_no_newer_log
from uringblob.store.opening.recover import RecoveredLog, recover
from uringblob.store.opening.repair import repair
from uringblob.units import PAGE_SIZE, check_page_size

#: Frames in a pool; more are a mistake in units.
BUFFERS_MAX = 1 << 20

#: Free slots behind the last used one that an opener keeps; ``grow`` finds the others.
_SPARE_SLOTS = 1 << 20


@dataclasses.dataclass(frozen=True)
class Options:
    """The keyword arguments of ``open``, checked."""

    path: str
    page_size: int | None
    create: bool
    read_only: bool
    engine: str
    direct: bool | None
    buffers: int | None
    queue_depth: int
    lock_timeout: float
    verify: bool
    mode: int

    @classmethod
    def checked(cls, path: str | bytes | os.PathLike[str] | os.PathLike[bytes], **options: Any) -> Options:
        """Check every option before anything is touched.

        :raises ValueError: a value out of range.
        :raises TypeError: an unknown option or a wrong type.
        """
        name = os.fsdecode(path)
        if not name:  # which realpath takes for the current directory
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        if name.endswith(os.sep):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
        # A symbolic link is followed once, here: creation must not replace the link itself.
        made = cls(path=os.path.realpath(name), **options)
        if made.page_size is not None:
            check_page_size(made.page_size)
        made._check_types()
        if made.buffers is not None and not 0 <= made.buffers <= BUFFERS_MAX:
            raise ValueError(f"buffers must be from 0 to {BUFFERS_MAX}, not {made.buffers}")
        if not 0 <= made.mode <= 0o7777:
            raise ValueError(f"mode must be permission bits from 0 to 0o7777, not {made.mode:#o}")
        if not 1 <= made.queue_depth <= 4096:
            raise ValueError(f"queue_depth must be from 1 to 4096, not {made.queue_depth}")
        if not made.lock_timeout >= 0:
            raise ValueError(f"lock_timeout must be 0 or more seconds, not {made.lock_timeout}")
        if made.engine not in ENGINES:
            raise ValueError(f"engine must be 'auto', 'io_uring' or 'pread', not {made.engine!r}")
        return made

    def _check_types(self) -> None:
        given: dict[str, Any] = vars(self)
        # A fraction is refused here, and not half-way.
        for name in ("buffers", "queue_depth", "mode"):
            value = given[name]
            if not hasattr(value, "__index__") and not (name == "buffers" and value is None):
                raise TypeError(f"{name} must be an int, not {type(value).__name__}")
        seconds = given["lock_timeout"]
        if not isinstance(seconds, numbers.Real):
            raise TypeError(
                f"lock_timeout must be a number of seconds, not {type(seconds).__name__}: "
                "0 does not wait, float('inf') waits for ever"
            )
        if not (given["direct"] is None or isinstance(given["direct"], bool)):
            raise TypeError(f"direct must be True, False or None, not {given['direct']!r}")


def engine_default(engine: str) -> str:
    """Return ``engine``, or what ``URINGBLOB_ENGINE`` says where that is ``"auto"``.

    :raises ValueError: that is no engine.
    """
    if engine != "auto":
        return engine
    chosen = os.environ.get("URINGBLOB_ENGINE") or engine
    if chosen not in ENGINES:
        raise ValueError(
            f"the environment variable URINGBLOB_ENGINE is {encodable(chosen)!r}, which is no engine: "
            f"set it to one of {', '.join(ENGINES)}, or unset it"
        )
    return chosen


async def find_file(options: Options) -> StoreFile:
    """Find or make the file, and lock it; cancelled, it leaves nothing open."""

    def create(path: str) -> None:
        create_store(path, options.page_size or PAGE_SIZE, options.mode)

    return await open_locked(
        options.path,
        read_only=options.read_only,
        lock_timeout=options.lock_timeout,
        create=create if options.create and not options.read_only else None,
    )


async def open_core(options: Options, file: StoreFile) -> Core:
    """Open the store in ``file``; on any failure the file is closed and unlocked."""
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
    options: Options, file: StoreFile, superblocks: list[Superblock | None], page_size: int
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
        cached = why_cached(file.fd, direct_io=engine.direct_io, flushed=file.flushed)
        return await start_core(file, engine, superblocks, verify=options.verify, cached=cached)
    except GeneratorExit:
        engine.abandon()  # dropped half-way: nothing may be awaited any more
        raise
    except BaseException:
        await engine.close()
        raise


async def start_core(
    file: StoreFile, engine: Engine, superblocks: list[Superblock | None], *, verify: bool, cached: str
) -> Core:
    """Recover what ``file`` durably says, through ``engine``, and make it ready.

    The caller has flushed the file (rule 12) and found at least one good superblock; it closes ``engine``
    if this raises.  ``cached`` says why the engine's reads may be a cache's, or "".
    """
    file_io = FileIO(engine, encodable(file.path), asyncio.get_running_loop())
    if not cached:
        # They were read through the page cache, which may hold one that a failed flush lost.
        header = await file_io.read(0, HEADER_SIZE, "reading the superblocks")
        superblocks = judge_superblocks(header, file.path)
    current, offset = newest(superblocks, file.path)
    if current.required_to_write and not file.read_only:
        raise StoreCorrupt(
            f"{file.path} uses features {current.required_to_write:#x} of a newer release, and must not be "
            "changed without them: open it with read_only=True, or use the release that wrote it"
        )
    found = await recover(file_io, current, read_only=file.read_only, cached=cached)
    if None in superblocks:
        await check_no_newer_log(file_io, found, current)
    core = _build(file, file_io, found, Superblocks(file_io, current, offset), verify=verify)
    if not file.read_only:
        await _make_writable(core, found, superblocks)
    return core


async def _make_writable(core: Core, found: RecoveredLog, superblocks: list[Superblock | None]) -> None:
    """Do what must be done before the first change; without room for it, only changes are refused."""
    file_io = core.file_io

    async def settle_crash() -> None:
        await repair(file_io, found, core.superblocks, superblocks)
        # The floor covers the last group now: nothing can drop it, so nothing needs what it replaced.
        await confirm_in_turns(file_io.checksum_budget, core.index.slots, found.seq)

    try:
        await file_io.repairs.make(settle_crash)
    except BlobStoreIOError as error:
        if not file_io.repairs.lacks_room(error):
            raise
        logger.warning(
            "%s", error, extra={"event": "opened_full", "path": file_io.path, "errno": error.errno}
        )
    else:
        await core.growth.complete_log_space()


def _build(
    file: StoreFile, file_io: FileIO, found: RecoveredLog, superblocks: Superblocks, *, verify: bool
) -> Core:
    superblock = superblocks.current
    page_size, entries = superblock.page_size, found.replay.entries
    segments = [*found.reader.segments, found.reader.tail]
    owned = [*found.log_space] if superblock.version > 1 else segments
    slots = SlotTable(first_slot(page_size), _slots_known(file_io, entries, owned, page_size))
    for run in owned:  # recovery checked that they lie inside the file and apart from each other
        slots.mark_run_used(run, SlotState.LOG)
    log_space = LogSpace(page_size, found.log_space, segments if superblock.version > 1 else ())
    index = BlobIndex(slots)
    slots.confirm(max(found.floor, found.seq - 1))
    clash = index.load(entries, found.replay.superseded(), found.seq)
    if clash is not None:
        raise StoreCorrupt(
            f"{file.path}: the map gives blob {BlobGuid(clash)} a slot that is taken or impossible. "
            "Restore the store from a copy"
        )
    log = Log(
        file_io,
        store_id=superblock.store_id,
        log_id=found.reader.log_id,
        page_size=page_size,
        segments=found.reader.segments,
        tail=found.reader.tail,
        position=found.reader.position,
        seq=found.seq,
        space=log_space,
    )
    log.group_blocks = found.group_blocks
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
    notes = []
    if found.dropped is not None:
        notes.append(f"group {found.dropped[0]}, the last one, is left out: {found.dropped[1]}")
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
