"""The job that uploads: it runs while there is something to upload, tries again after errors, and says when it is done."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable

from uringblob.errors import BlobCorrupt, BlobStoreIOError, one_each
from uringblob.logs import logger

#: Seconds before an upload that failed is tried again: the first time, and at most.
RETRY_S, RETRY_S_MAX = 0.1, 30.0
#: What may be over when it is tried again.  Everything else ends uploading: a fenced writer, a poisoned store.
_PASSING = (BlobStoreIOError, BlobCorrupt)


@dataclasses.dataclass
class UploadCounts:
    """What was uploaded since the tier was opened."""

    uploads: int = 0
    frames: int = 0
    failures: int = 0


class Uploader:
    """Runs ``upload`` again and again while it is asked to.

    The task exists while there is work, so an idle tier that is dropped can be collected.

    :param upload: one upload of all that is due when it begins; its errors are those of the attempt.
    """

    def __init__(self, upload: Callable[[], Awaitable[None]], name: str) -> None:
        self._upload = upload
        self._name = name
        self._task: asyncio.Task[None] | None = None
        self._due = False
        self._waiters: list[asyncio.Future[None]] = []
        self._nudge: asyncio.Event | None = None
        self._ending = False
        self.failures = 0
        #: What ended uploading for good.
        self.stopped: BaseException | None = None

    def request(self) -> None:
        """Have everything that is there now uploaded."""
        self._due = True
        if self._task is None and self.stopped is None and not self._ending:
            self._task = asyncio.ensure_future(self._run())

    async def wait(self) -> None:
        """Return when an upload that began after this call has ended well.

        :raises BlobStoreError: it did not; it is tried again, unless uploading has stopped.
        """
        self.check()
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(done)
        self.request()
        if self._nudge is not None:
            self._nudge.set()
        await done

    def check(self) -> None:
        """Raise what ended uploading, if something has."""
        if self.stopped is not None:
            raise one_each(self.stopped)

    async def end(self) -> None:
        """Stop trying; return when no upload is under way."""
        self._ending = True
        if self._nudge is not None:
            self._nudge.set()
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        delay_s = RETRY_S
        try:
            while self._due and self.stopped is None and not self._ending:
                self._due = False
                waiters, self._waiters = self._waiters, []
                error = await self._attempt()
                for waiter in waiters:
                    if waiter.done():
                        continue  # it was cancelled
                    if error is None:
                        waiter.set_result(None)
                    else:
                        waiter.set_exception(one_each(error))
                if error is None:
                    delay_s = RETRY_S
                else:
                    self._due = True
                    await self._pause(delay_s)
                    delay_s = min(2 * delay_s, RETRY_S_MAX)
        finally:
            self._task = None
            self._refuse_waiters()

    def _refuse_waiters(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if self.stopped is not None and not waiter.done():
                waiter.set_exception(one_each(self.stopped))
            else:
                waiter.cancel()

    async def _attempt(self) -> BaseException | None:
        try:
            await self._upload()
        except _PASSING as error:
            self._failed(error, "and is tried again")
            return error.with_traceback(None)
        except Exception as error:  # noqa: BLE001 - it is raised in every later change
            self.stopped = error.with_traceback(None)
            self._failed(error, "which ends uploading: close the tier")
            return error
        return None

    def _failed(self, error: BaseException, then: str) -> None:
        self.failures += 1
        logger.warning(
            "an upload to %s failed, %s: %s", self._name, then, error, extra={"event": "upload_failed"}
        )

    async def _pause(self, seconds: float) -> None:
        if self.stopped is None and not self._waiters and not self._ending:
            self._nudge = asyncio.Event()
            try:
                await asyncio.wait_for(self._nudge.wait(), seconds)
            except asyncio.TimeoutError:
                return  # the time is over
            finally:
                self._nudge = None
