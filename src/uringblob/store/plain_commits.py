"""A small commit without a task, for a caller in another thread.

The caller waits anyway, so where nothing else is under way the commit blocks the loop in the system calls:
no wake-up, no thread and no loop iteration stands between the frames' write, the fdatasync and its end.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from uringblob.buffers.views import Write
from uringblob.completion import persist
from uringblob.guid import GuidLike
from uringblob.store.arguments import few_changes
from uringblob.store.core import Core


def begin_commit(
    core: Core,
    writes: Sequence[Write],
    deletes: Sequence[GuidLike],
    end: Callable[[BaseException | None], object],
    *,
    may_block: bool,
) -> bool:
    """Begin a small commit, outside a task; false: it has to be awaited.

    ``end`` gets its error, or ``None``, when it is over, which may be before this returns.
    """
    few = few_changes(core, writes, deletes)
    if few is None:
        return False
    frames, _, doomed = few
    size_bytes = core.small_commit_bytes(frames, doomed)
    del frames
    if not size_bytes or not core.file_io.checksum_budget.try_acquire(size_bytes):
        return False
    blocking = may_block and core.may_block
    try:
        if blocking:
            core.begin_blocking()
        commit = core.start_commit(*few)
        del few  # the frames are the caller's again when the commit ends
        if commit is None:
            return False
        if blocking:
            # Without memory for it the loop goes on.
            with contextlib.suppress(MemoryError):
                core.finish_blocking(commit)
    finally:
        core.file_io.engine.blocking = False

    def over(commit: asyncio.Future[None]) -> None:
        end(commit.exception())

    if commit.done():
        over(commit)
    else:
        # The commit has begun: an error now would give its frames back to a caller while they are written.
        persist(commit.add_done_callback, over)
    return True
