"""The end of a store: what is under way ends, what is visible is flushed, the log is sealed, all is freed."""

from __future__ import annotations

from uringblob.errors import BlobStoreIOError
from uringblob.logs import logger
from uringblob.store.core import Core


async def close_core(core: Core, *, flush: bool) -> None:
    """Flush, seal, and free everything whatever happens; then raise the flush's error."""
    error: BaseException | None = None
    try:
        if not core.file.read_only:
            error = await _last_flush(core) if flush else None
            await _settle(core)
            if error is None:
                await _seal(core)
    except GeneratorExit:
        core.abandon()  # dropped half-way: nothing may be awaited any more
        raise
    except BaseException as failure:  # noqa: BLE001 - raised below, when everything is freed
        error = failure
    try:
        await core.caller_reads.close()
        await core.file_io.engine.close()
    except GeneratorExit:
        core.abandon()
        raise
    finally:
        core.file_io.engine.pool.retire()
        core.file.close()
    if error is not None:
        raise error


async def _last_flush(core: Core) -> BaseException | None:
    try:
        await core.flush()
    except GeneratorExit:
        raise
    except BaseException as failure:  # noqa: BLE001 - close raises it, when everything is freed
        return failure
    return None


async def _settle(core: Core) -> None:
    """Wait for the groups under way, and only then for the upkeep: one may need its compaction."""
    if not core.queue.idle:
        await core.queue.run_exclusive(_nothing)
    await core.maintenance.end()


async def _seal(core: Core) -> None:
    await core.queue.log.wait_quiet()
    if core.file_io.poison_cause is not None:
        return
    await core.identity.check_contents(core.queue.log)
    try:
        await core.file_io.ready()
        await core.superblocks.seal(core.queue.log.seq)
    except BlobStoreIOError as error:
        if not core.file_io.repairs.lacks_room(error):
            raise
        # All that was acknowledged is durable: the next opener does what it does after a crash.
        logger.info(
            "%s: closed without its seal: %s",
            core.file.path,
            error,
            extra={"event": "closed_unsealed", "path": core.file.path, "errno": error.errno},
        )


async def _nothing() -> None:
    """A turn of the queue that only waits for the groups before it."""
