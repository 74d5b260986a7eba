"""Reads every frame once a week, slowly, so that a bad one is found while there is still a copy elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

from uringblob import AsyncBlobStore, BlobStoreError, VerifyReport
from uringblob.metrics import StoreCollector

logger = logging.getLogger("blob_service")

WEEK_S = 7 * 24 * 3600.0
#: The first pass comes soon: a service that is restarted every day would never have one.
FIRST_S = 3600.0


class Scrub:
    """Passes through the whole store, every ``every_s`` seconds, at ``rate`` bytes a second.

    A pass goes in steps of ``step_s`` seconds, so that what is bad is known, and logged, soon.
    ``sleep`` is the clock, which tests replace.
    """

    def __init__(
        self,
        *,
        every_s: float = WEEK_S,
        rate: float = 16 * 1024 * 1024,
        step_s: float = 60.0,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.passes = self.checked = 0
        self.bad: list[str] = []
        self._every_s = every_s
        self._rate = rate
        self._step_s = step_s
        self._sleep = sleep

    def summary(self) -> dict[str, object]:
        """Return what /healthz shows: passes that have ended, and what the last one, or this one, found."""
        return {"passes": self.passes, "checked": self.checked, "bad": self.bad}

    @contextlib.asynccontextmanager
    async def running(self, store: AsyncBlobStore, collector: StoreCollector) -> AsyncIterator[None]:
        """Scrub ``store`` in the background while the block runs; ``collector`` exports what is found."""
        task = asyncio.ensure_future(self._run(store, collector))
        try:
            yield
        finally:
            task.cancel()  # it waits for the frames that it reads just now, and no longer
            await asyncio.wait([task])

    async def _run(self, store: AsyncBlobStore, collector: StoreCollector) -> None:
        await self._sleep(FIRST_S)
        while True:
            try:
                await self._pass(store, collector)
            except BlobStoreError:
                logger.exception("the scrub ended early")
            await self._sleep(self._every_s)

    async def _pass(self, store: AsyncBlobStore, collector: StoreCollector) -> None:
        self.checked, self.bad, resume = 0, [], None
        while True:
            report = await store.verify(rate=self._rate, deadline=self._step_s, since=resume)
            self._record(report)
            collector.record_scrub(report, since=resume)
            resume = report.resume
            if resume is None:
                break
        self.passes += 1

    def _record(self, report: VerifyReport) -> None:
        self.checked += report.blobs_checked
        self.bad += [str(error) for _, error in report.bad]
        self.bad += [str(error) for error in report.metadata_errors]
        if not report.ok:
            logger.error("the scrub found damage: %s", report)
