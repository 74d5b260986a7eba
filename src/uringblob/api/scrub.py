"""``verify()``: every blob in ascending order of their names, at a given pace, and what was found."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Protocol

from uringblob.api.listing import merged
from uringblob.api.pace import Pace
from uringblob.api.verify_report import Progress, VerifyReport
from uringblob.errors import BlobNotFound, BlobStoreError
from uringblob.guid import BlobGuid, GuidLike, guid_bytes

#: Seconds of a pause after which it is seen that the store was closed.
PAUSE_S_MAX = 1.0

#: Called with each blob that was checked, in order, and what is wrong with it.
Note = Callable[[BlobGuid, "BlobStoreError | None"], object]


class Scrubbed(Protocol):
    """What :func:`scrub` needs of a store."""

    @property
    def page_size(self) -> int:
        """The frame size in bytes."""

    #: Frames to check between two looks at the clock.
    _frames_at_once: int

    def _check_open(self) -> None: ...

    def _now(self) -> float: ...

    async def _pause(self, seconds: float = 0) -> None: ...

    async def _sorted_runs(self, after: bytes | None, limit: int | None) -> list[list[BlobGuid]]: ...

    async def _check_frames(self, guids: Sequence[BlobGuid], note: Note) -> None: ...

    async def _check_metadata(self) -> list[BlobStoreError]: ...


async def scrub(
    store: Scrubbed,
    progress: Progress | None,
    rate: float | None,
    deadline: float | None,
    since: GuidLike | None,
) -> VerifyReport:
    """See :meth:`uringblob.AsyncBlobStore.verify`."""
    pace = Pace(rate, deadline, store._now)
    runs = await store._sorted_runs(None if since is None else guid_bytes(since), None)
    total = sum(map(len, runs))
    waiting = merged(runs, None)
    done = gone = 0
    reached: BlobGuid | None = None
    bad: list[tuple[BlobGuid, BlobStoreError]] = []

    def note(guid: BlobGuid, error: BlobStoreError | None) -> None:
        nonlocal done, gone, reached
        done, reached = done + 1, guid
        if isinstance(error, BlobNotFound):
            gone += 1  # deleted since it was listed
        elif error is not None:
            bad.append((guid, error))
        if progress is not None:
            progress(done, total)

    at_once = pace.frames_at_once(store.page_size, store._frames_at_once)
    while done < total:
        guids = list(itertools.islice(waiting, at_once))
        delay = pace.delay_s(len(guids) * store.page_size)
        if delay is None:
            break
        await _wait(store, delay)
        await store._check_frames(guids, note)
    metadata_errors = await store._check_metadata() if done == total else []
    checked = done - gone
    return VerifyReport(
        bad=tuple(bad),
        metadata_errors=tuple(metadata_errors),
        blobs_checked=checked,
        bytes_checked=(checked - len(bad)) * store.page_size,
        resume=reached if done < total else None,
    )


async def _wait(store: Scrubbed, seconds: float) -> None:
    """Let time pass, and other tasks run; raise soon after the store was closed."""
    while True:
        await store._pause(min(seconds, PAUSE_S_MAX))
        store._check_open()
        seconds -= PAUSE_S_MAX
        if seconds <= 0:
            return
