"""The end of a store: calls in progress end, what is visible is flushed, the log is sealed, all is freed."""

from __future__ import annotations

from uringblob.errors import BlobStoreIOError
from uringblob.logs import logger
from uringblob.store.core import Core


async def close_core(core: Core, *, flush: bool) -> None:
    """Flush, seal, and free everything whatever happens; then raise the first error, which is the flush's."""
    try:
        error = None if core.file.read_only else await _end(core, flush=flush)
        await core.caller_reads.close()
        await core.file_io.engine.close()
    except GeneratorExit:
        core.abandon()  # the store was dropped: nothing may be awaited
        raise
    finally:
        core.file_io.engine.pool.retire()
        core.file.close()
    if error is not None:
        raise error


async def _end(core: Core, *, flush: bool) -> BaseException | None:
    """Flush, wait for background work, and seal unless one of these failed; return the first error."""
    error: BaseException | None = None
    for step in (Core.flush, _end_background, _seal) if flush else (_end_background, _seal):
        if error is not None and step is _seal:
            break
        try:
            await step(core)
        except GeneratorExit:
            raise
        except BaseException as failure:  # noqa: BLE001 - close raises it, when everything is freed
            error = error or failure
    return error


async def _end_background(core: Core) -> None:
    """Wait for the groups in progress, and only then for the maintenance: a group may need its compaction."""
    await core.queue.wait_idle()
    await core.maintenance.end()


async def _seal(core: Core) -> None:
    await core.log.wait_quiet()
    if core.file_io.poison_cause is not None:
        return
    await core.identity.check_contents(core.log)
    try:
        await core.file_io.ready()
        await core.superblocks.seal(core.log.seq)
    except BlobStoreIOError as error:
        if not core.file_io.repairs.lacks_room(error):
            raise
        # Everything acknowledged is durable; the next open recovers as after a crash.
        logger.info(
            "%s: closed without its seal: %s",
            core.file.path,
            error,
            extra={"event": "closed_unsealed", "path": core.file.path, "errno": error.errno},
        )
